package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
	"hayrick/web"
)

func reportCommand(c *cli) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "report [run]", Short: "Write one HTML file about a run: how it went, what failed, where its output comes from", Args: arguments(0, 1),
		Long: `Write one HTML file about a run (the latest when none is named), whether it has ended or
not: its counts, throughput, groups, failures by class with samples, output with hashes,
and the commands to look further and to do it again. The file fetches nothing, needs no
script, and stays below 3 MB whatever the size of the run; what it leaves out it says.

It is made when asked for, into this folder: the folder that a run publishes holds its
output and nothing else. It reads the result of every task, on AWS a request each.`,
		Example:     "  hayrick report\n  hayrick report @backfill -o backfill.html\n  hayrick report -o - > report.html",
		Annotations: endsWith(exitNotFound),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("output") && to == "" {
				return &hayrick.UserError{What: "-o names no file", Hint: "write a file after it, or leave it out"}
			}
			return runReport(cmd.Context(), c, refOf(args), to)
		},
	}
	cmd.Flags().StringVarP(&to, "output", "o", "", "write this `file`, replacing it (default <run>.html; - is stdout)")
	return cmd
}

// reported is what report says with --json.
type reported struct {
	Schema string `json:"schema"`
	JobID  string `json:"job_id"`
	File   string `json:"file"`
	Bytes  int    `json:"bytes"`
}

func runReport(ctx context.Context, c *cli, ref, to string) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.openRun(ctx, ref)
	if err != nil {
		return err
	}
	defer r.close()
	id := k.Plan.JobID
	if to == "" {
		to = id + ".html"
	}
	if to == "-" && c.json {
		return &hayrick.UserError{What: "the page and --json cannot both go to stdout", Hint: "name a file with -o"}
	}
	rep, err := r.report(ctx, k)
	if err != nil {
		return named(id, err)
	}
	var page bytes.Buffer
	if err := rep.Write(&page); err != nil {
		return err
	}
	if to == "-" {
		_, err := c.out.Write(page.Bytes())
		return err
	}
	if err := replaceFile(to, page.Bytes()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if c.json {
		return c.printJSON(reported{"hayrick.report/v1", id, to, page.Len()})
	}
	c.print("%s   %s", to, size(int64(page.Len())))
	return nil
}

// replaceFile writes a file that is whole or not there: a crash before the rename
// leaves what was there, and a stray beside it.
func replaceFile(name string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".report-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	if _, err := f.Write(body); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// report gathers what a page says of a run.
func (r *roles) report(ctx context.Context, k *coordinator.Known) (web.Report, error) {
	s, err := r.statusOf(ctx, k)
	if err != nil {
		return web.Report{}, err
	}
	id, now, p := k.Plan.JobID, r.world.Clock.Now(), k.Plan
	again := r.again(p)
	rep := web.Report{
		JobID: id, State: string(s.Status), Why: r.advise(s.Reason, again), Well: s.Status != hayrick.StatusPaused,
		Submitted: p.SubmittedAt.Time, Until: now, Made: now, By: codeVersion(),
		Items: s.Items, OK: s.OK, Failed: s.Failed, Permanent: s.Permanent, Exhausted: s.Exhausted, Unfinished: s.Left,
	}
	for _, g := range s.Groups {
		rep.Groups = append(rep.Groups, web.Group{Name: g.Group, Phase: g.Phase, Tasks: g.Tasks, Done: g.Done, Items: g.Items, OK: g.OK, Failed: g.Failed})
	}
	if err := r.eachResult(ctx, k, rep.Work.Add); err != nil {
		return rep, err
	}
	if rep.Classes, err = r.reportClasses(ctx, k, again); err != nil {
		return rep, err
	}
	for _, o := range k.Orders {
		rep.Orders = append(rep.Orders, web.Order{What: o.Order, By: o.By, Reason: r.advise(o.Reason, again), At: o.At.Time})
	}
	rep.Facts = factsOf(k)
	for _, in := range p.Input {
		rep.Inputs = append(rep.Inputs, inputOf(in))
	}
	rep.Commands = []web.Fact{
		{Name: "how it stands", Value: r.command("status") + " " + id},
		{Name: "what failed, item by item", Value: r.command("failures") + " " + id + " --export failed.jsonl"},
		{Name: "the proof", Value: r.command("audit") + " " + id + " --deep"},
		{Name: "do it again", Value: again},
	}
	if s.Result != nil && s.Permanent+s.Exhausted+s.Left > 0 {
		rep.Commands = append(rep.Commands, web.Fact{Name: "what would run again", Value: r.command("redrive") + " " + id + " --permanent-too --dry-run"})
	}
	if res := s.Result; res != nil {
		rep.Ended, rep.Until, rep.Why = true, res.EndedAt.Time, r.advise(res.Message, again)
		rep.Well = res.exit(false) == nil
		rep.Rows, rep.RowHash = res.Rows, res.RowHash
		r.reportOutput(&rep, k, *res)
	}
	return rep, nil
}

// eachResult calls fn for the results of all worker tasks that have ended.
func (r *roles) eachResult(ctx context.Context, k *coordinator.Known, fn func(manifest.Result)) error {
	groups, generations, err := r.groupsOf(ctx, k)
	if err != nil {
		return err
	}
	for i, g := range groups {
		if g.Name == hayrick.GroupAggregation {
			continue
		}
		if err := r.groupResults(ctx, k, generations[i], g, fn); err != nil {
			return err
		}
	}
	return nil
}

// samplesKept is how many failed items of a class a page shows.
const samplesKept = 3

func (r *roles) reportClasses(ctx context.Context, k *coordinator.Known, again string) (out []web.Class, err error) {
	sum := failureSum{by: map[[2]string]*failedClass{}, last: map[[2]string]string{}}
	samples := map[[2]string][]web.Sample{}
	err = r.eachFailure(ctx, k, func(f failedItem) error {
		sum.add(f)
		if at := [2]string{f.Class, f.State}; len(samples[at]) < samplesKept {
			samples[at] = append(samples[at], web.Sample{Ordinal: f.Ordinal, Key: f.Key, Message: f.Message, Task: f.TaskID})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range sum.sorted(k.Definition, k.Plan, again) {
		out = append(out, web.Class{
			Name: f.Class, State: f.State, Items: f.Items, Tasks: f.Tasks, Helps: f.Helps, Samples: samples[[2]string{f.Class, f.State}],
			Command: r.command("failures") + " " + k.Plan.JobID + " --class " + f.Class,
		})
	}
	return out, nil
}

func factsOf(k *coordinator.Known) []web.Fact {
	p := k.Plan
	commit := p.Job.GitCommit
	if commit != "" && p.Job.GitDirty {
		commit += ", with changes that were not committed"
	}
	facts := []web.Fact{
		{Name: "job file", Value: p.Job.ConfigFile}, {Name: "in", Value: p.Job.Folder}, {Name: "handler", Value: p.Job.Handler},
		{Name: "definition", Value: digest(p.DefinitionSHA256)}, {Name: "job folder", Value: digest(p.BundleSHA256)}, {Name: "git commit", Value: commit},
		{Name: "version", Value: p.CodeVersion}, {Name: "submitted by", Value: p.Job.SubmittedBy}, {Name: "generation", Value: fmt.Sprint(k.Generation)},
	}
	if k.Outcome != nil {
		for _, name := range slices.Sorted(maps.Keys(k.Outcome.Chain)) {
			facts = append(facts, web.Fact{Name: name, Value: digest(k.Outcome.Chain[name])})
			if len(facts) == maxFacts {
				facts = append(facts, web.Fact{Name: "more plans", Value: fmt.Sprintf("showing %d; all of them: hayrick inspect %s --json", maxFacts, p.JobID)})
				break
			}
		}
	}
	out := facts[:0]
	for _, f := range facts {
		if f.Value != "" {
			out = append(out, f)
		}
	}
	return out
}

// maxFacts bounds the list of plans: a run has as many as it had retries and orders.
const maxFacts = 60

func digest(sha string) string {
	if sha == "" {
		return ""
	}
	return "sha256 " + sha
}

func inputOf(in manifest.InputID) web.Input {
	out := web.Input{URI: in.URI, Items: in.Items}
	if out.URI == "" {
		out.URI = "the handler's list"
	}
	switch {
	case in.SHA256 != "":
		out.Pin = digest(in.SHA256)
	case in.Pin.Version != "":
		out.Pin = "version " + in.Pin.Version
	case in.Pin.ETag != "":
		out.Pin = "ETag " + in.Pin.ETag
	case !in.Pin.MTime.IsZero():
		out.Pin = fmt.Sprintf("%s, changed %s", count(in.Pin.Size, "byte"), in.Pin.MTime.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return out
}

func (r *roles) reportOutput(rep *web.Report, k *coordinator.Known, res result) {
	if res.Output == nil {
		return
	}
	rep.OutputURI = res.Output.URI
	for _, p := range res.Output.Parts {
		rep.Outputs = append(rep.Outputs, web.Output{Path: p.Path, Bytes: p.Bytes, SHA256: p.SHA256, What: count(p.Rows, "row")})
	}
	lists := map[string]string{}
	for _, l := range k.Outcome.Aggregation.Lists {
		lists[l.Name] = l.SHA256
	}
	for _, l := range res.Output.Lists {
		rep.Outputs = append(rep.Outputs, web.Output{Path: l.Path, SHA256: lists[l.Name], What: count(l.Count, "item")})
	}
	rep.Outputs = append(rep.Outputs, web.Output{Path: below(path.Clean(res.Output.URI), "_SUCCESS"), What: "written last"})
}
