package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/manifest"
)

// result is how a run ended.
type result struct {
	Schema     string        `json:"schema"`
	JobID      string        `json:"job_id"`
	Generation int           `json:"generation"`
	Status     string        `json:"status"`
	Code       string        `json:"code,omitempty"`
	Message    string        `json:"message,omitempty"`
	Items      int64         `json:"items"`
	OK         int64         `json:"ok"`
	Permanent  int64         `json:"permanent"`
	Exhausted  int64         `json:"exhausted"`
	Unfinished int64         `json:"unfinished"`
	Rows       int64         `json:"rows"`
	Dropped    int64         `json:"dropped_rows,omitempty"` // by output.unique_by
	RowHash    string        `json:"row_hash"`
	EndedAt    manifest.Time `json:"ended_at"`
	Output     *output       `json:"output"` // null unless it SUCCEEDED
}

// output is what was published.
type output struct {
	URI   string       `json:"uri"`
	Parts []outputPart `json:"parts"`
	Lists []outputList `json:"lists"`
}

type outputPart struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256,omitempty"`
}

type outputList struct {
	Path  string `json:"path"`
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

func resultOf(k *coordinator.Known) result {
	o := k.Outcome
	res := result{
		Schema: "hayrick.runresult/v1", JobID: o.JobID, Generation: o.Generation, Status: o.Status, Code: o.Code, Message: o.Message,
		Items: o.Items, OK: o.OK, Permanent: o.Permanent, Exhausted: o.Exhausted, Unfinished: o.Unfinished,
		Rows: o.RowCount, Dropped: o.DroppedRows, RowHash: o.RowHash, EndedAt: o.EndedAt,
	}
	if o.Aggregation == nil || o.Status != string(hayrick.JobSucceeded) {
		return res
	}
	out := output{URI: fromHere(manifest.OutputURI(k.Definition, k.Plan.Job.Folder, o.JobID, o.Generation)), Parts: []outputPart{}, Lists: []outputList{}}
	folder := strings.TrimPrefix(out.URI, "file://")
	for _, p := range o.Aggregation.Parts {
		out.Parts = append(out.Parts, outputPart{below(folder, p.Name), p.Bytes, p.Rows, p.SHA256})
	}
	for _, l := range o.Aggregation.Lists {
		out.Lists = append(out.Lists, outputList{below(folder, manifest.PublishedName(k.Definition, o.JobID, path.Join("lists", l.Name+".jsonl"))), l.Name, l.Count})
	}
	res.Output = &out
	return res
}

// printResult prints how a run ended and returns the exit code as an error. -q keeps
// the words back; what has to be heard is told all the same.
func (c *cli) printResult(ctx context.Context, r *roles, k *coordinator.Known, took time.Duration, strict bool) error {
	res := resultOf(k)
	switch {
	case c.json:
		if err := c.printJSON(res); err != nil {
			return err
		}
	case !c.quiet:
		c.sayResult(res, took, c.again(k.Plan))
	case res.Status != string(hayrick.JobSucceeded):
		c.mustTell("%s %s: %s", res.JobID, res.Status, c.advise(res.Message, c.again(k.Plan)))
	}
	warned, err := r.warnPoor(ctx, c.err, k, res)
	if err != nil {
		return err
	}
	if !c.json && !warned && res.Output != nil && res.Permanent+res.Exhausted > 0 {
		c.tell("what failed and why: hayrick failures %s", res.JobID) // which the warning would say too
	}
	return res.exit(strict)
}

// exit is the exit code, as an error, of a run that has ended.
func (res result) exit(strict bool) error {
	switch {
	case res.Code == manifest.CodeOutputRefused:
		return ended(exitConflict)
	case res.Status != string(hayrick.JobSucceeded), res.nothingWell(), strict && res.Permanent+res.Exhausted > 0:
		return ended(exitUnwell)
	}
	return nil
}

// nothingWell says that there were items, and that none of them is ok.
func (res result) nothingWell() bool { return res.Items > 0 && res.OK == 0 }

// wellShare: with less than one item of so many ok, a run that SUCCEEDED is told to
// be a poor one. A wrong field name or a wrong host is the usual reason.
const wellShare = 10

// maxCounted bounds how many failed items are read to find the commonest class.
const maxCounted = 100_000

// warnPoor tells, in a line of its own, that nothing or nearly nothing went well, the
// commonest reason, and what to look at; warned says that it was so.
func (r *roles) warnPoor(ctx context.Context, to io.Writer, k *coordinator.Known, res result) (warned bool, err error) {
	if res.Status != string(hayrick.JobSucceeded) || res.Items == 0 || res.OK*wellShare >= res.Items {
		return false, nil
	}
	n := map[string]int{}
	enough, counted := errors.New("enough"), 0
	err = r.eachFailure(ctx, k, func(f failedItem) error {
		n[f.Class]++
		if counted++; counted == maxCounted {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return false, err
	}
	r.printTo(to, "%s %s: hayrick failures %s", r.paint(red, "warning:"), poor(res, n), res.JobID)
	return true, nil
}

// poor is what that line says; n counts failed items by class.
func poor(res result, n map[string]int) string {
	worst := ""
	for _, class := range slices.Sorted(maps.Keys(n)) {
		if worst == "" || n[class] > n[worst] {
			worst = class
		}
	}
	what := fmt.Sprintf("only %s of %s went well", number(res.OK), count(res.Items, "item"))
	if res.nothingWell() {
		what = fmt.Sprintf("no item went well: all %s failed", number(res.Items))
	}
	return fmt.Sprintf("%s, most of them with class %s", what, worst)
}

// shownParts is how many parts of a dataset are told by name: partition_by can make
// thousands.
const shownParts = 20

func (c *cli) sayResult(res result, took time.Duration, again string) {
	colour, word := green, "done"
	switch {
	case res.Status != string(hayrick.JobSucceeded):
		colour, word = red, res.Status
	case res.nothingWell():
		colour = red
	}
	c.print("%s %s in %s   %s", res.JobID, c.paintOut(colour, word), ago(took), ends(res))
	if res.Message != "" {
		c.print("  %s", c.advise(res.Message, again))
	}
	if res.Output == nil {
		return
	}
	parts := res.Output.Parts
	for _, p := range parts[:min(len(parts), shownParts)] {
		sum := ""
		if p.SHA256 != "" {
			sum = "   sha256 " + short(p.SHA256)
		}
		c.print("  %s   %s   %s%s", p.Path, count(p.Rows, "row"), size(p.Bytes), sum)
	}
	if more := len(parts) - shownParts; more > 0 {
		c.print("  ... and %s in %s; all of them: hayrick status %s --json", count(int64(more), "more part"), res.Output.URI, res.JobID)
	}
	for _, l := range res.Output.Lists {
		c.print("  %s   %s", l.Path, count(l.Count, "item"))
	}
}

// ends is how the items ended, in words.
func ends(res result) string {
	s := fmt.Sprintf("%s: %s ok", count(res.Items, "item"), number(res.OK))
	for _, x := range []struct {
		n    int64
		word string
	}{{res.Permanent, "permanent"}, {res.Exhausted, "exhausted"}, {res.Unfinished, "unfinished"}} {
		if x.n > 0 {
			s += fmt.Sprintf(", %s %s", number(x.n), x.word)
		}
	}
	s += "   " + count(res.Rows, "row")
	if res.Dropped > 0 {
		s += fmt.Sprintf(", %s dropped as duplicates", number(res.Dropped))
	}
	if res.Rows > 0 {
		s += ", row hash " + short(res.RowHash)
	}
	return s
}

// fromHere is a path below the working directory as one would type it: ./out/x/.
func fromHere(p string) string {
	wd, err := os.Getwd()
	if rel, ok := strings.CutPrefix(p, wd+"/"); err == nil && ok {
		return "./" + rel
	}
	return p
}

// below is a name in a folder, which may be a URI.
func below(folder, name string) string {
	if strings.Contains(folder, "://") {
		return strings.TrimSuffix(folder, "/") + "/" + name
	}
	return filepath.Join(folder, name)
}
