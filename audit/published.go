package audit

import (
	"context"
	"encoding/json"
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

// published compares the output folder with the outcome.
func (a *auditor) published(ctx context.Context) error {
	if a.Output == nil || a.definition.Output.URI == "" {
		return nil
	}
	folder := manifest.OutputURI(a.definition, a.plan.Job.Folder, string(a.job), 0)
	there, err := a.Output.ListOutput(ctx, folder)
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	if !a.succeeded() || a.outcome.Aggregation == nil {
		return a.unpublished(ctx, folder, there)
	}
	var files []committed
	for _, p := range a.outcome.Aggregation.Parts {
		files = append(files, committed{p.Name, p.Key, p.SHA256, p.Bytes})
	}
	for _, l := range a.outcome.Aggregation.Lists {
		files = append(files, committed{manifest.PublishedName(a.definition, string(a.job), path.Join("lists", l.Name+".jsonl")), l.Key, l.SHA256, -1})
	}
	for lo := 0; lo < len(files); lo += readers {
		some := files[lo:min(lo+readers, len(files))]
		if err := a.each(len(some), func(i int, l *look) { l.readPublished(ctx, folder, some[i]) }); err != nil {
			return err
		}
		a.progress("published", int64(lo+len(some)), int64(len(files)))
	}
	if err := a.success(ctx, folder); err != nil {
		return err
	}
	if a.definition.Output.IfExists == "append" {
		return nil // what else is there belongs to other runs
	}
	slices.SortFunc(there, func(x, y manifest.Object) int { return strings.Compare(x.Key, y.Key) })
	for _, o := range there {
		if o.Key != manifest.SuccessName && !slices.ContainsFunc(files, func(f committed) bool { return f.name == o.Key }) {
			a.find(Stranger, CodeStranger, inFolder(folder, o.Key), "the outcome does not publish it")
		}
	}
	return nil
}

// inFolder is the path of a published file.
func inFolder(folder, name string) string { return strings.TrimSuffix(folder, "/") + "/" + name }

func (l *look) readPublished(ctx context.Context, folder string, f committed) {
	key := inFolder(folder, f.name)
	r, err := l.a.Output.OpenOutput(ctx, folder, f.name)
	var d digest
	if err == nil {
		d, err = digestOf(ctx, r)
		r.Close()
	}
	l.checked.Bytes += d.size
	switch {
	case errors.Is(err, hayrick.ErrNotFound):
		l.find(View, CodePublished, key, "it is not there; the store has it as %s", l.a.job.Abs(f.key))
	case err != nil:
		l.err = fmt.Errorf("read %s: %w", key, err)
	case d.sha != f.sha256 || f.bytes >= 0 && d.size != f.bytes:
		l.broken(CodePublished, key, "%s; the store has it as %s", otherDigest(d.sha, f.sha256), l.a.job.Abs(f.key))
	default:
		l.checked.Published++
	}
}

// success checks that _SUCCESS names this outcome.
func (a *auditor) success(ctx context.Context, folder string) error {
	key := inFolder(folder, manifest.SuccessName)
	body, err := a.readSuccess(ctx, folder)
	if errors.Is(err, hayrick.ErrNotFound) {
		a.find(View, CodePublished, key, "it is not there: readers cannot tell that the dataset is whole")
		return nil
	}
	if err != nil {
		return err
	}
	want, err := manifest.Encode(manifest.Success{Schema: manifest.SchemaSuccess, JobID: string(a.job), Generation: 0, OutcomeSHA256: a.outcomeSHA})
	if err != nil {
		return err
	}
	if string(body) == string(want) {
		a.checked.Published++
		return nil
	}
	var s manifest.Success
	if a.definition.Output.IfExists == "append" && json.Unmarshal(body, &s) == nil && s.JobID != string(a.job) {
		a.note("%s is of %s, which has appended to the folder", key, s.JobID)
		return nil
	}
	a.broken(CodePublished, key, "it does not name outcome-0.json with SHA-256 %s", manifest.Short(a.outcomeSHA))
	return nil
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
	if err != nil {
		return err
	}
	var s manifest.Success
	if manifest.Decode(body, manifest.SchemaSuccess, &s) == nil && s.JobID == string(a.job) {
		a.ended(inFolder(folder, manifest.SuccessName), "names it")
	}
	return nil
}
