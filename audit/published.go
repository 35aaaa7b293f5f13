package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// committed is a file as the outcome names it.
type committed struct {
	name   string // in the output folder
	key    string // in the job's folder
	sha256 string
	bytes  int64 // -1: not known
}

// published compares the output folder with the outcome. What is missing or damaged
// there is broken, as readers of the dataset do not look into the store; but the
// store has it all, and a resume publishes it again.
func (a *auditor) published(ctx context.Context) error {
	if a.Output == nil || a.definition.Output.URI == "" {
		return nil
	}
	folder := manifest.OutputURI(a.definition, a.plan.Job.Folder, string(a.job), a.n)
	there, err := a.Output.ListOutput(ctx, folder)
	if unreadable(err) {
		a.broken(CodePublished, folder, "it cannot be listed: %v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	if !a.succeeded() || a.outcome.Aggregation == nil {
		return a.unpublished(ctx, folder, there)
	}
	whose, err := a.success(ctx, folder)
	if err != nil {
		return err
	}
	shared := a.definition.Output.IfExists == "append"
	if whose != "" && !shared {
		a.note("%s holds the dataset of %s, which has overwritten this one; the parts of this one are in the store", folder, whose)
		return nil
	}
	files := publishes(a.definition, a.outcome)
	for lo := 0; lo < len(files); lo += readers {
		some := files[lo:min(lo+readers, len(files))]
		if err := a.each(len(some), func(i int, l *look) { l.readPublished(ctx, folder, some[i]) }); err != nil {
			return err
		}
		a.progress("published", int64(lo+len(some)), int64(len(files)))
	}
	return a.foreign(ctx, folder, there, files)
}

// publishes is what a run publishes beside its _SUCCESS.
func publishes(d hayrick.JobDefinition, o *manifest.Outcome) (files []committed) {
	for _, p := range o.Aggregation.Parts {
		files = append(files, committed{p.Name, p.Key, p.SHA256, p.Bytes})
	}
	for _, l := range o.Aggregation.Lists {
		files = append(files, committed{manifest.PublishedName(d, o.JobID, path.Join("lists", l.Name+".jsonl")), l.Key, l.SHA256, -1})
	}
	return files
}

// foreign looks for files that this run has not published. Where runs append to one
// folder, those of the others have theirs there.
func (a *auditor) foreign(ctx context.Context, folder string, there []manifest.Object, files []committed) error {
	ours := map[string]bool{manifest.SuccessName: true}
	for _, f := range files {
		ours[f.name] = true
	}
	there = slices.DeleteFunc(there, func(o manifest.Object) bool { return ours[o.Key] })
	if len(there) == 0 {
		return nil
	}
	what := "the outcome does not publish it"
	if a.definition.Output.IfExists == "append" {
		what = "no run of this store has published it here"
		if a.Lister == nil {
			a.note("%s in %s may be of other runs, which were not looked at", count(int64(len(there)), "more file", "more files"), folder)
			return nil
		}
		if err := a.ofOthers(ctx, folder, func(d hayrick.JobDefinition, o *manifest.Outcome) {
			for _, f := range publishes(d, o) {
				ours[f.name] = true
			}
		}); err != nil {
			return err
		}
	}
	slices.SortFunc(there, func(x, y manifest.Object) int { return strings.Compare(x.Key, y.Key) })
	for _, o := range there {
		if !ours[o.Key] {
			a.find(Stranger, CodeStranger, inFolder(folder, o.Key), "%s", what)
		}
	}
	return nil
}

// ofOthers calls fn for every other run of the store that has published in folder.
func (a *auditor) ofOthers(ctx context.Context, folder string, fn func(hayrick.JobDefinition, *manifest.Outcome)) error {
	ids, err := a.Lister.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !hayrick.ValidID(id) || id == string(a.job) {
			continue
		}
		d, o, _, err := a.publisher(ctx, id, folder)
		switch {
		case err == nil:
			fn(d, o)
		case unreadable(err):
			a.note("what %s has published cannot be told: %v", id, err)
		case !errors.Is(err, hayrick.ErrNotFound):
			return err
		}
	}
	return nil
}

// publisher reads how a run ended that has published in folder; ErrNotFound: it has
// not.
func (a *auditor) publisher(ctx context.Context, id, folder string) (d hayrick.JobDefinition, o *manifest.Outcome, sha string, err error) {
	out, sha, err := a.Store.Outcome(ctx, id, a.n)
	if err != nil {
		return d, nil, "", err
	}
	p, err := a.Store.PlanOf(ctx, id, a.n)
	if err == nil {
		d, err = a.Store.Definition(ctx, p)
	}
	if err != nil {
		return d, nil, "", err
	}
	theirs := manifest.OutputURI(d, p.Job.Folder, id, a.n)
	if out.Status != string(hayrick.JobSucceeded) || out.Aggregation == nil || strings.TrimSuffix(theirs, "/") != strings.TrimSuffix(folder, "/") {
		return d, nil, "", fmt.Errorf("%s publishes nothing in %s: %w", id, folder, hayrick.ErrNotFound)
	}
	return d, &out, sha, nil
}

// inFolder is the path of a published file.
func inFolder(folder, name string) string { return strings.TrimSuffix(folder, "/") + "/" + name }

// again is the next step where something published is gone.
func (a *auditor) again() string { return fmt.Sprintf("`hayrick resume %s` publishes it again", a.job) }

func (l *look) readPublished(ctx context.Context, folder string, f committed) {
	key := inFolder(folder, f.name)
	r, err := l.a.Output.OpenOutput(ctx, folder, f.name)
	var d digest
	if err == nil {
		d, err = digestOf(ctx, r)
		r.Close()
	}
	l.checked.Bytes += d.size
	if err == nil && f.sha256 == "" { // nobody read the part when it was joined: the store's is what it has to be
		stored, ok := l.digest(ctx, f.key)
		if !ok {
			return // which has been found
		}
		f.sha256 = stored.sha
	}
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		l.broken(CodePublished, key, "it is not there; %s", l.a.again())
	case unreadable(err):
		l.broken(CodePublished, key, "%v; remove it, and %s", err, l.a.again())
	case err != nil:
		l.err = fmt.Errorf("read %s: %w", key, err)
	case d.sha != f.sha256 || f.bytes >= 0 && d.size != f.bytes:
		l.broken(CodePublished, key, "%s; remove it, and %s", otherDigest(d.sha, f.sha256), l.a.again())
	default:
		l.checked.Published++
	}
}

// success checks that _SUCCESS names this outcome, or that of another run of the
// store, whose id it returns: one that has published in the same folder after this
// one.
func (a *auditor) success(ctx context.Context, folder string) (whose string, err error) {
	key := inFolder(folder, manifest.SuccessName)
	body, err := a.readSuccess(ctx, folder)
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		a.broken(CodePublished, key, "it is not there, and readers cannot tell that the dataset is whole; %s", a.again())
		return "", nil
	case unreadable(err):
		a.broken(CodePublished, key, "%v; remove it, and %s", err, a.again())
		return "", nil
	case err != nil:
		return "", err
	}
	want, err := manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: string(a.job), Generation: a.n, OutcomeSHA256: a.outcomeSHA})
	if err != nil {
		return "", err
	}
	if string(body) == string(want) {
		a.checked.Published++
		return "", nil
	}
	why := fmt.Sprintf("it does not name %s with SHA-256 %s", a.outcomeKey(), manifest.Short(a.outcomeSHA))
	var s manifest.Success
	if manifest.Decode(body, manifest.SchemaSuccess, &s) == nil && s.JobID != string(a.job) && hayrick.ValidID(s.JobID) && s.Generation == a.n {
		_, _, sha, err := a.publisher(ctx, s.JobID, folder)
		switch canonical, cerr := manifest.Encode(s); {
		case cerr != nil:
			return "", cerr
		case err == nil && sha == s.OutcomeSHA256 && string(canonical) == string(body):
			return s.JobID, nil
		case err != nil && !errors.Is(err, hayrick.ErrNotFound) && !unreadable(err):
			return "", err
		}
		why = fmt.Sprintf("it names %s, of which this store knows no such outcome here", s.JobID)
	}
	a.broken(CodePublished, key, "%s; remove it, and %s", why, a.again())
	return "", nil
}

func (a *auditor) readSuccess(ctx context.Context, folder string) ([]byte, error) {
	r, err := a.Output.OpenOutput(ctx, folder, manifest.SuccessName)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, 64<<10))
}

// unpublished looks at the folder of a job that publishes nothing: a _SUCCESS of this
// job there means that its outcome is gone.
func (a *auditor) unpublished(ctx context.Context, folder string, there []manifest.Object) error {
	if a.report.Status != Unfinished || !slices.ContainsFunc(there, func(o manifest.Object) bool { return o.Key == manifest.SuccessName }) {
		return nil
	}
	body, err := a.readSuccess(ctx, folder)
	if unreadable(err) || errors.Is(err, hayrick.ErrNotFound) {
		return nil // it names nothing
	}
	if err != nil {
		return err
	}
	var s manifest.Success
	if manifest.Decode(body, manifest.SchemaSuccess, &s) == nil && s.JobID == string(a.job) {
		a.ended(inFolder(folder, manifest.SuccessName), "names it")
	}
	return nil
}
