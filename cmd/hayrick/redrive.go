package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/manifest"
)

// redriveOptions are the flags of redrive and merge.
type redriveOptions struct {
	order        string // manifest.OrderRedrive or OrderMerge
	classes      []string
	lists        []string
	keys         []string
	keysFrom     string
	permanentToo bool
	sets         []string
	code         string
	fanIn        int
	dry          bool
	detach       bool
	strict       bool
}

func redriveCommand(c *cli) *cobra.Command {
	o := redriveOptions{order: manifest.OrderRedrive}
	cmd := &cobra.Command{
		Use: "redrive <run>", Aliases: []string{"retry"}, Short: "Run failed items of a run that has ended again", Args: arguments(1, 1),
		Long: `Open the next generation of a run that has ended: items that were given up run again, as
if for the first time, and all results, the old ones too, are merged into a new dataset,
in a folder of its own beside the old one: <output.uri>.g1 for the first redrive.

Without a choice everything that is exhausted runs again. --class, --list, --keys and
--keys-from each add what they name, permanent items too. Items that had no end because
the run was cancelled always run again. An item that is ok never does: its key is refused.

A key is what input.key of the job file names, or, without one, the ordinal. --keys-from
reads a key a line, or lines of JSON with an ordinal: a published list, or what
hayrick failures --export wrote.

--set changes the job file from this generation on: all but its name, its input, its
batches and its handler's name. --code takes the job's folder as it is now.`,
		Example: `  hayrick redrive @ --dry-run
  hayrick redrive @ --class timeout --set run.item_timeout=180s
  hayrick redrive @ --keys-from out/backfill-20260101-abcdef/lists/exhausted.jsonl`,
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict),
		RunE:        func(cmd *cobra.Command, args []string) error { return runRedrive(cmd.Context(), c, args[0], o) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.classes, "class", nil, "items whose last failure has one of these `classes`: a,b")
	f.StringSliceVar(&o.lists, "list", nil, "items of these published `lists`, such as exhausted")
	f.StringSliceVar(&o.keys, "keys", nil, "these `items`: k1,k2")
	f.StringVar(&o.keysFrom, "keys-from", "", "the items of this `file`; - is stdin")
	f.BoolVar(&o.permanentToo, "permanent-too", false, "everything that did not end ok")
	f.StringVar(&o.code, "code", "", "take the handler's code from this `folder`")
	o.flags(f)
	return cmd
}

func mergeCommand(c *cli) *cobra.Command {
	o := redriveOptions{order: manifest.OrderMerge}
	var partial bool
	cmd := &cobra.Command{
		Use: "merge <run>", Short: "Merge the results of a run again, or what there is of an unfinished one", Args: arguments(1, 1),
		Long: `Open the next generation of a run that has ended, in which nothing runs again: all its
results are merged anew, into a folder of its own beside the old one. --set changes keys
of merge and output, such as merge.part_bytes.

With --partial, merge the results that an unfinished run has so far into a folder of
their own, <output>.partial-<time>/. Its files are called partial-..., and _PARTIAL in it
says how much of the run is there. The run goes on as if nothing had been: it merges its
results by itself, once all of them are there.`,
		Example:     "  hayrick merge @ --partial\n  hayrick merge @ --set merge.part_bytes=1GiB\n  hayrick merge @backfill --fan-in 100",
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict),
		RunE: func(cmd *cobra.Command, args []string) error {
			if partial {
				return runMergePartial(cmd.Context(), c, args[0])
			}
			if cmd.Flags().Changed("fan-in") {
				o.sets = append(o.sets, "merge.fan_in="+strconv.Itoa(o.fanIn))
			}
			return runRedrive(cmd.Context(), c, args[0], o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.fanIn, "fan-in", 0, "results a merge takes at least, for merge.fan_in")
	f.BoolVar(&partial, "partial", false, "merge what there is, into a folder that is named so")
	o.flags(f)
	for _, other := range []string{"fan-in", "set", "dry-run", "detach", "strict"} {
		cmd.MarkFlagsMutuallyExclusive("partial", other)
	}
	return cmd
}

func (o *redriveOptions) flags(f interface {
	StringArrayVar(p *[]string, name string, value []string, usage string)
	BoolVar(p *bool, name string, value bool, usage string)
}) {
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the job file from now on, such as run.item_timeout=180s")
	f.BoolVar(&o.dry, "dry-run", false, "only say what it would do and cost")
	f.BoolVar(&o.detach, "detach", false, "give the order, and leave the work to others")
	f.BoolVar(&o.strict, "strict", false, "exit 3 when any item failed")
}

// redrivePlan is what a redrive comes to.
type redrivePlan struct {
	Schema     string           `json:"schema"`
	JobID      string           `json:"job_id"`
	Generation int              `json:"generation"`
	Items      int64            `json:"items"` // that run again
	Tasks      int64            `json:"tasks"`
	ByClass    map[string]int64 `json:"by_class"`
	LeftOut    map[string]int64 `json:"left_out"` // by class
	Permanent  int64            `json:"permanent"`
	Exhausted  int64            `json:"exhausted"`
	Changed    []string         `json:"changed"` // keys of the job file
	FloorMS    int64            `json:"floor_ms"`
	Rate       string           `json:"floor_rate,omitempty"`
	Output     string           `json:"output"`
	USD        *cost.Dollars    `json:"usd"` // null where the store costs nothing
}

func runRedrive(ctx context.Context, c *cli, ref string, o redriveOptions) error {
	start := c.world.Clock.Now()
	short, stop := c.untilInterrupt(ctx)
	defer stop()
	r, k, err := c.findIn(short, ref, openToWork)
	if err != nil {
		return err
	}
	defer r.close()
	if k, err = r.readyToOpen(short, k); err != nil {
		return err
	}
	id := k.Plan.JobID
	ask, err := r.ask(short, k, o)
	if err != nil {
		return err
	}
	p, err := r.planRedrive(short, k, ask, o)
	if err != nil {
		return err
	}
	if p.Items == 0 && o.order == manifest.OrderRedrive {
		return nothingToRedrive(k, p)
	}
	if o.code == "" && p.Items > 0 {
		c.newCode(short, r, k.Plan, *ask.definitionOr(k), func(dir string) string { return "Add --code " + dir + " to take it as it is now" })
	}
	if n := p.ByClass[hayrick.ClassBadItem]; n > 0 && o.code == "" {
		c.mustTell("%s %s of class %s: the lines are read as they were, so that what was wrong with them still is. Mended in the input, they are items of a new run: %s",
			c.paint(red, "warning:"), count(n, "item"), hayrick.ClassBadItem, c.again(k.Plan))
	}
	if o.dry {
		return c.sayRedrive(p, "would open", o)
	}
	if err := r.putAsked(short, &ask); err != nil {
		return err
	}
	given, err := r.coordinator.Order(short, id, ask.order)
	switch {
	case errors.Is(err, hayrick.ErrConflict) && given.Opens() && given.At != ask.order.At:
		return &hayrick.UserError{
			What: fmt.Sprintf("%s has opened generation %d of %s meanwhile (%s)", given.By, given.Generation, id, given.Order),
			Hint: "hayrick status " + id, Exit: exitConflict,
		}
	case errors.Is(err, hayrick.ErrConflict):
		return &hayrick.UserError{What: id + " is not where it was a moment ago", Hint: "hayrick status " + id, Exit: exitConflict}
	case err != nil:
		return err
	}
	if !c.json {
		if err := c.sayRedrive(p, "opens", o); err != nil {
			return err
		}
	}
	if _, err := r.coordinator.Sweep(short, id); err != nil {
		return err
	}
	if o.detach {
		return c.printOrdered(short, r, id)
	}
	return c.finish(ctx, r, id, start, o.strict)
}

// readyToOpen refuses a run whose generation has not ended, and sees to it that what
// follows from the end of one that has is there: nobody looks after an old generation.
func (r *roles) readyToOpen(ctx context.Context, k *coordinator.Known) (*coordinator.Known, error) {
	id := k.Plan.JobID
	if k.Purging() {
		return nil, beingPurged(id)
	}
	if k.Outcome == nil {
		what, hint := id+" has not ended", "hayrick watch "+id+", or hayrick cancel "+id+" and then redrive what is unfinished"
		if k.Opening != nil {
			what = fmt.Sprintf("generation %d of %s is open (%s by %s, order %d)", k.Generation, id, k.Opening.Order, k.Opening.By, k.Opening.N)
			hint = "hayrick resume " + id + " goes on with it"
		}
		return nil, &hayrick.UserError{What: what, Hint: hint, Exit: exitConflict}
	}
	if coordinator.Decide(k, r.world.Clock.Now()).Complete {
		return k, nil
	}
	if k.Outcome.Status == string(hayrick.JobSucceeded) {
		if err := r.aggregator.Advance(ctx, id, k.Generation); err != nil {
			return nil, err
		}
	}
	if _, err := r.coordinator.Sweep(ctx, id); err != nil {
		return nil, err
	}
	k, _, err := r.known(ctx, id)
	return k, err
}

// asked is an order to open a generation, with what it names and is not stored yet.
type asked struct {
	order      manifest.Control
	orders     []manifest.Control
	definition *hayrick.JobDefinition // nil: as before
	body       []byte                 // of the definition
	ordinals   []int64
	bundle     []byte
	changed    []string
}

// ask makes the order of the flags.
func (r *roles) ask(ctx context.Context, k *coordinator.Known, o redriveOptions) (a asked, err error) {
	a.orders = k.Orders
	a.order = manifest.Control{
		JobID: k.Plan.JobID, Order: o.order, Generation: k.Generation + 1, PermanentToo: o.permanentToo,
		Classes: sortedWords(o.classes), Lists: sortedWords(o.lists), By: r.world.Worker, At: manifest.At(r.world.Clock.Now()),
	}
	if k.Unread != nil {
		return a, k.Unread
	}
	if o.order == manifest.OrderMerge && k.Outcome.Unfinished > 0 {
		return a, &hayrick.UserError{
			What: fmt.Sprintf("%s of %s had no end when it was %s", count(k.Outcome.Unfinished, "item"), k.Plan.JobID, k.Outcome.Status),
			Hint: "hayrick redrive " + k.Plan.JobID + " runs them, and merges everything then", Exit: exitConflict,
		}
	}
	if err := r.changes(ctx, k, o, &a); err != nil {
		return a, err
	}
	if o.code != "" {
		var packed bytes.Buffer
		if err := coordinator.PackBundle(&packed, o.code, *a.definitionOr(k)); err != nil {
			return a, err
		}
		a.bundle, a.order.BundleSHA256 = packed.Bytes(), manifest.SHA256(packed.Bytes())
		a.changed = append(a.changed, "code")
	}
	if a.ordinals, err = r.named(ctx, k, o); err != nil {
		return a, err
	}
	a.order.Ordinals = a.ordinals
	return a, r.namedSome(ctx, k, a.order)
}

func (a *asked) definitionOr(k *coordinator.Known) *hayrick.JobDefinition {
	if a.definition != nil {
		return a.definition
	}
	return &k.Definition
}

func sortedWords(words []string) []string {
	words = slices.Clone(words)
	slices.Sort(words)
	return slices.Compact(words)
}

// fixed are the keys that make a run what it is: its items, and where they are.
var fixed = []string{"version", "name", "input", "batch", "handler.builtin"}

// changes applies --set to the definition of the generation.
func (r *roles) changes(ctx context.Context, k *coordinator.Known, o redriveOptions, a *asked) error {
	if len(o.sets) == 0 {
		return nil
	}
	for _, arg := range o.sets {
		key := jobfile.Key(arg)
		under := func(top string) bool {
			return key == top || strings.HasPrefix(key, top+".") || strings.HasPrefix(key, top+"[")
		}
		if i := slices.IndexFunc(fixed, under); i >= 0 {
			return &hayrick.UserError{
				What: fmt.Sprintf("--set %s: the items of a run and its batches stay what they are", key),
				Hint: "change it in the job file, and start a new run: hayrick run --new",
			}
		}
		if o.order == manifest.OrderMerge && !under("merge") && !under("output") && !under("retry.lists") {
			return &hayrick.UserError{
				What: fmt.Sprintf("--set %s: nothing runs in a merge", key), Hint: "set keys of merge and output; hayrick redrive takes the others",
			}
		}
		a.changed = append(a.changed, arg)
	}
	stored, before, err := manifest.EncodeDefinition(k.Definition)
	if err != nil {
		return err
	}
	f, err := jobfile.Change("(job file of "+k.Plan.JobID+")", stored, o.sets)
	if err != nil {
		return err
	}
	here := f // its paths are relative to where it was submitted
	here.Definition.Output.URI = manifest.Resolve(k.Plan.Job.Folder, f.Definition.Output.URI)
	h, err := r.checkFile(ctx, here)
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	if err != nil {
		return err
	}
	body, sha, err := manifest.EncodeDefinition(f.Definition)
	if err != nil || sha == before {
		return err
	}
	a.definition, a.body, a.order.DefinitionSHA256 = &f.Definition, body, sha
	return nil
}

// putAsked stores what an order names. A crash before the order leaves data that nobody
// names.
func (r *roles) putAsked(ctx context.Context, a *asked) error {
	job := manifest.Job(a.order.JobID)
	if a.body != nil {
		if err := r.manifests.PutData(ctx, job.Config(a.order.DefinitionSHA256), a.body); err != nil {
			return err
		}
	}
	if a.bundle != nil {
		if err := r.manifests.PutData(ctx, job.Bundle(a.order.BundleSHA256), a.bundle); err != nil {
			return err
		}
	}
	if len(a.ordinals) <= manifest.InlineList {
		return nil
	}
	var list bytes.Buffer
	for _, n := range a.ordinals {
		fmt.Fprintln(&list, n)
	}
	sha := manifest.SHA256(list.Bytes())
	key := job.OrdinalsList(sha)
	a.order.Ordinals, a.order.OrdinalsRef = nil, &manifest.Ref{Key: job.Rel(key), SHA256: sha, Count: int64(len(a.ordinals))}
	return r.manifests.PutData(ctx, key, list.Bytes())
}

// givenUp calls fn for every item that is given up as the run stands.
func (r *roles) givenUp(ctx context.Context, k *coordinator.Known, fn func(l manifest.ListLine, exhausted bool) error) error {
	h, err := r.manifests.Past(ctx, k.Plan.JobID, k.Generation)
	if err != nil {
		return err
	}
	plans := k.Retries
	if len(plans) == 0 {
		plans = h.Last()
	}
	for _, p := range plans {
		for i, ref := range []*manifest.Ref{p.PermanentList, p.ExhaustedList} {
			exhausted := i == 1
			if ref == nil {
				continue
			}
			if err := manifest.ReadLines(ctx, r.manifests, k.Plan.JobID, *ref, func(l manifest.ListLine) error { return fn(l, exhausted) }); err != nil {
				return fmt.Errorf("read %s: %w", ref.Key, err)
			}
		}
	}
	return nil
}

// named resolves --keys and --keys-from to ordinals: every item that was given up with
// one of the keys. A key of which all items are ok is refused, and so is one of none.
func (r *roles) named(ctx context.Context, k *coordinator.Known, o redriveOptions) ([]int64, error) {
	keys, ordinals, err := r.readKeys(k, o)
	if err != nil || len(keys)+len(ordinals) == 0 {
		return nil, err
	}
	var out []int64
	if err := r.givenUp(ctx, k, func(l manifest.ListLine, _ bool) error {
		_, byKey := keys[l.Key]
		_, byOrdinal := ordinals[l.Ordinal]
		if byKey {
			keys[l.Key] = true
		}
		if byOrdinal {
			ordinals[l.Ordinal] = true
		}
		if byKey || byOrdinal {
			out = append(out, l.Ordinal)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	slices.Sort(out)
	if err := r.refuseOK(ctx, k, keys, ordinals); err != nil {
		return nil, err
	}
	return slices.Compact(out), nil
}

// refuseOK refuses what was asked for and is not given up, unless it is unfinished.
func (r *roles) refuseOK(ctx context.Context, k *coordinator.Known, keys map[string]bool, ordinals map[int64]bool) error {
	var well, unknown []string
	judge := func(name string, found []int64) error {
		if len(found) == 0 {
			unknown = append(unknown, name)
			return nil
		}
		for _, n := range found {
			h, err := r.history(ctx, k, n)
			if err != nil {
				return err
			}
			if h.State != endOK {
				return nil // it has no end, and runs again as all such do
			}
		}
		well = append(well, name)
		return nil
	}
	missing := map[string]bool{}
	for key, found := range keys {
		if !found {
			missing[key] = true
		}
	}
	if len(missing) > 0 {
		at, gone, err := r.findKeys(ctx, k, missing)
		if err != nil {
			return err
		}
		if gone != "" {
			return &hayrick.UserError{
				What: fmt.Sprintf("%s was not given up, and cannot be looked up: %s", strings.Join(firstFew(slices.Sorted(maps.Keys(missing))), ", "), gone),
				Hint: "put the file back as it was, or leave these keys out", Exit: exitNotFound,
			}
		}
		for _, key := range slices.Sorted(maps.Keys(missing)) {
			if err := judge(key, at[key]); err != nil {
				return err
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(ordinals)) {
		if ordinals[n] {
			continue
		}
		var found []int64
		if n >= 0 && n < k.Plan.Items {
			found = []int64{n}
		}
		if err := judge(strconv.FormatInt(k.Plan.InputOrdinal(n), 10), found); err != nil {
			return err
		}
	}
	switch {
	case len(unknown) > 0:
		return &hayrick.UserError{
			What: fmt.Sprintf("%s has no item %s", k.Plan.JobID, strings.Join(firstFew(unknown), ", ")),
			Hint: "hayrick failures " + k.Plan.JobID + " --export - lists what failed", Exit: exitNotFound,
		}
	case len(well) > 0:
		return &hayrick.UserError{
			What: fmt.Sprintf("already ok in %s: %s", k.Plan.JobID, strings.Join(firstFew(well), ", ")),
			Hint: "leave it out: what is ok never runs again; hayrick run --new begins from the start", Exit: exitConflict,
		}
	}
	return nil
}

func firstFew(words []string) []string {
	const few = 5
	if len(words) <= few {
		return words
	}
	return append(slices.Clone(words[:few]), fmt.Sprintf("and %d more", len(words)-few))
}

// findKeys is the ordinals of the items of the input that have one of the keys.
func (r *roles) findKeys(ctx context.Context, k *coordinator.Known, keys map[string]bool) (map[string][]int64, string, error) {
	out := map[string][]int64{}
	gone, err := r.eachItem(ctx, k, k.Plan.Group, func(it manifest.BatchItem) {
		if key := k.Plan.Label(it, k.Definition.Input.Key); keys[key] {
			out[key] = append(out[key], it.Ordinal)
		}
	})
	return out, gone, err
}

// readKeys reads the keys and ordinals that the flags name.
func (r *roles) readKeys(k *coordinator.Known, o redriveOptions) (keys map[string]bool, ordinals map[int64]bool, err error) {
	keys, ordinals = map[string]bool{}, map[int64]bool{}
	add := func(word, where string) error {
		if k.Definition.Input.Key != "" {
			keys[word] = false
			return nil
		}
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return &hayrick.UserError{What: fmt.Sprintf("%s: %q is no ordinal, and the job file has no input.key", where, word), Hint: "name items by their place in the input, from 0"}
		}
		ordinals[k.Plan.PlaceOf(n)] = false
		return nil
	}
	for _, word := range o.keys {
		if err := add(word, "--keys"); err != nil {
			return nil, nil, err
		}
	}
	if o.keysFrom == "" {
		return keys, ordinals, nil
	}
	var in io.Reader = r.in
	if o.keysFrom != "-" {
		f, err := os.Open(o.keysFrom)
		if err != nil {
			return nil, nil, &hayrick.UserError{What: fmt.Sprintf("--keys-from: %v", err), Hint: "name a file with a key a line, or - for stdin", Exit: exitNotFound}
		}
		defer f.Close()
		in = f
	}
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 64<<10), 16<<20)
	for n := 1; sc.Scan(); n++ {
		where := fmt.Sprintf("%s:%d", o.keysFrom, n)
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "":
		case line[0] == '{':
			var l struct {
				Ordinal *int64 `json:"ordinal"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Ordinal == nil {
				return nil, nil, &hayrick.UserError{What: where + ": a JSON object without an ordinal", Hint: "write a key a line, or lines as hayrick failures --export writes them"}
			}
			ordinals[k.Plan.PlaceOf(*l.Ordinal)] = false
		default:
			if err := add(line, where); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := sc.Err(); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", o.keysFrom, err)
	}
	return keys, ordinals, nil
}

// namedSome refuses a class or list that no item has: it is mistyped.
func (r *roles) namedSome(ctx context.Context, k *coordinator.Known, order manifest.Control) error {
	if len(order.Classes)+len(order.Lists) == 0 {
		return nil
	}
	classes, lists := map[string]bool{}, map[string]bool{}
	if err := r.givenUp(ctx, k, func(l manifest.ListLine, exhausted bool) error {
		classes[l.Class] = true
		lists[manifest.ListName(k.Definition.Retry.Lists, l.Class, exhausted)] = true
		return nil
	}); err != nil {
		return err
	}
	for _, x := range []struct {
		flag  string
		want  []string
		there map[string]bool
	}{{"--class", order.Classes, classes}, {"--list", order.Lists, lists}} {
		for _, word := range x.want {
			if !x.there[word] {
				known := "none was given up"
				if len(x.there) > 0 {
					known = "there are " + strings.Join(firstFew(slices.Sorted(maps.Keys(x.there))), ", ")
				}
				return &hayrick.UserError{
					What: fmt.Sprintf("%s %s: no item of %s is that; %s", x.flag, word, k.Plan.JobID, known), Hint: "hayrick failures " + k.Plan.JobID, Exit: exitNotFound,
				}
			}
		}
	}
	return nil
}

// planRedrive asks the retry planner what the order comes to.
func (r *roles) planRedrive(ctx context.Context, k *coordinator.Known, a asked, o redriveOptions) (redrivePlan, error) {
	def := a.definitionOr(k)
	p := redrivePlan{
		Schema: "hayrick.redrive/v1", JobID: k.Plan.JobID, Generation: a.order.Generation, LeftOut: map[string]int64{}, ByClass: map[string]int64{},
		Changed: a.changed, Output: fromHere(manifest.OutputURI(*def, k.Plan.Job.Folder, k.Plan.JobID, a.order.Generation)),
	}
	if p.Changed == nil {
		p.Changed = []string{}
	}
	found, err := r.planner.Preview(ctx, a.order, a.definition, a.orders)
	if errors.Is(err, hayrick.ErrInputChanged) {
		return p, &hayrick.UserError{What: firstLine(err.Error()), Hint: "put the file back as it was: items run again as they were read", Exit: exitConflict}
	}
	if err != nil {
		return p, err
	}
	p.Items, p.Tasks, p.Permanent, p.Exhausted, p.ByClass = found.Items, found.Tasks, found.Permanent, found.Exhausted, found.ErrorTypes
	err = r.givenUp(ctx, k, func(l manifest.ListLine, exhausted bool) error {
		if !a.order.Takes(l, exhausted, manifest.ListName(k.Definition.Retry.Lists, l.Class, exhausted), a.ordinals) {
			p.LeftOut[l.Class]++
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	floor, rate := coordinator.FloorOf(def.Rates, p.Items, nil)
	p.FloorMS, p.Rate = floor.Milliseconds(), rate
	if k.Money != nil {
		usd := r.costOfRedrive(ctx, k, *def, p)
		p.USD = &usd
	}
	return p, nil
}

// costOfRedrive is what the generation would cost, if every item that runs again ends.
func (r *roles) costOfRedrive(ctx context.Context, k *coordinator.Known, def hayrick.JobDefinition, p redrivePlan) cost.Dollars {
	j := cost.Job{
		Redrive: &cost.Redrive{Lists: int64(2 * len(k.Retries)), Kept: 2, Batches: p.Items}, Exists: def.Output.IfExists, Publish: true,
		Processes: 1, Function: k.Money.Function, Time: cost.Times{Low: ms(p.FloorMS), Expected: max(ms(p.FloorMS), time.Minute), High: 2 * max(ms(p.FloorMS), 5*time.Minute)},
	}
	results := k.Plan.Group.Tasks
	if h, err := r.manifests.Past(ctx, k.Plan.JobID, k.Generation); err == nil {
		groups, _ := h.Groups(k.Plan)
		results = 0
		for _, g := range groups {
			results += g.Tasks
		}
	}
	if p.Tasks > 0 {
		j.Groups = []cost.Group{{Planned: p.Tasks, Tasks: p.Tasks, Items: p.Items, Rows: p.Tasks, Closed: true}}
	}
	m := cost.Merge{Results: results + p.Tasks, Rows: results + p.Tasks, Parts: 1}
	if o := k.Outcome; o.Aggregation != nil {
		m.Parts, j.Lists = max(1, int64(len(o.Aggregation.Parts))), int64(len(o.Aggregation.Lists))
		for _, part := range o.Aggregation.Parts {
			m.Bytes += part.Bytes
		}
	}
	m.Nodes = max(1, m.Results/int64(max(def.Merge.FanIn, 1)))
	m.Done = m.Nodes
	j.Merge = &m
	return cost.Estimate(j, j, j, k.Money.Prices).USD
}

func (c *cli) sayRedrive(p redrivePlan, verb string, o redriveOptions) error {
	if c.json {
		return c.printJSON(p)
	}
	say := c.print // the result of a dry run, and story else
	if !o.dry {
		say = c.tell
	}
	if o.order == manifest.OrderMerge {
		say("%s generation %d of %s: nothing runs again, all results are merged anew", verb, p.Generation, p.JobID)
	} else {
		say("%s generation %d of %s: %s in %s (%s)", verb, p.Generation, p.JobID, count(p.Items, "item"), count(p.Tasks, "task"), tallied(p.ByClass))
	}
	if len(p.LeftOut) > 0 && o.order == manifest.OrderRedrive {
		say("left out: %s", tallied(p.LeftOut))
	}
	if len(p.Changed) > 0 {
		say("changed: %s", strings.Join(p.Changed, ", "))
	}
	if p.FloorMS > 0 {
		say("floor: %s, rate %s", ago(ms(p.FloorMS)), p.Rate)
	}
	if p.USD != nil {
		say("cost: about %s, at most %s", dollars(p.USD.Expected), dollars(p.USD.High))
	}
	say("output: %s", p.Output)
	return nil
}

// nothingToRedrive says why nothing would run.
func nothingToRedrive(k *coordinator.Known, p redrivePlan) error {
	id := k.Plan.JobID
	if p.Permanent+p.Exhausted == 0 {
		return &hayrick.UserError{What: "every item of " + id + " is ok", Hint: "hayrick merge " + id + " merges it again", Exit: exitNotFound}
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("nothing would run again: %s of %s is left out (%s)", count(p.Permanent+p.Exhausted, "item"), id, tallied(p.LeftOut)),
		Hint: "name a class with --class, or add --permanent-too", Exit: exitNotFound,
	}
}
