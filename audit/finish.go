package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

func decodeColumns(raw json.RawMessage, s *rows.Schema) error { return json.Unmarshal(raw, s) }

// checkAggregation derives the seed's fields of the aggregation manifest.
func (a *auditor) checkAggregation(rel string) {
	agg := a.outcome.Aggregation
	bad := func(what string) {
		a.broken(CodeTotal, rel, "the %s of its aggregation manifest is not what the results say", what)
	}
	if agg.JobID != string(a.job) || agg.Phase != string(hayrick.PhaseAggregation) {
		a.broken(CodeForm, rel, "its aggregation manifest is of phase %s of %s", agg.Phase, agg.JobID)
	}
	if agg.InputFileCount != a.in.files {
		bad("input_file_count")
	}
	files, byBatch := a.files, a.byBatch
	if a.agg.InputsRef != nil { // too long to repeat
		files, byBatch = nil, nil
	}
	if !slices.Equal(agg.InputFiles, files) {
		bad("input_files")
	}
	if !maps.Equal(agg.RowCountsByBatch, byBatch) {
		bad("row_counts_by_batch")
	}
	if first := agg.OutputFile; len(agg.Parts) == 0 && first != nil || len(agg.Parts) > 0 && (first == nil || *first != agg.Parts[0].Key) {
		bad("output_file")
	}
}

// walkLists checks the published lists against what the planner gave up.
func (a *auditor) walkLists(ctx context.Context) error {
	agg, rel := a.outcome.Aggregation, a.outcomeKey()
	seen := map[string]bool{}
	for _, list := range agg.Lists {
		if want := a.job.Rel(a.job.List(a.n, list.Name, list.SHA256)); list.Key != want {
			a.broken(CodeKey, list.Key, "the list %s with this digest lies under %s", list.Name, want)
			continue
		}
		if seen[list.Name] {
			a.broken(CodeChain, rel, "it names two lists %s", list.Name)
		}
		seen[list.Name] = true
		d, ok := a.hash(ctx, list.Key, list.SHA256, -1)
		if !ok {
			continue
		}
		a.checked.Data++
		if d.lines != list.Count {
			a.broken(CodeTotal, list.Key, "it has %d lines, its commit says %d", d.lines, list.Count)
			continue
		}
		want := endPermanent
		if list.Name == "exhausted" {
			want = endExhausted
		}
		var got multiset
		ref := manifest.Ref{Key: list.Key, SHA256: list.SHA256, Count: list.Count}
		for line := range lines[manifest.ListLine](ctx, a.look, nil, &ref) {
			if e, _ := a.ledger.at(a.plan.PlaceOf(line.Ordinal)); e != want && !a.blind {
				a.broken(CodeItem, list.Key, "item %d is listed, and ended %s", line.Ordinal, e)
			}
			got.add(line)
		}
		if due := a.lists[list.Name]; got != due && !a.blind {
			a.broken(CodeItem, list.Key, "its %d lines are not the %d that the retry plans gave up", got.count, due.count)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.lists)) {
		if !seen[name] && !a.blind {
			a.broken(CodeItem, rel, "it has no list %s, and the retry plans gave up %d items that belong there", name, a.lists[name].count)
		}
	}
	return a.err
}

// totals compares the outcome with the items, counted one by one.
func (a *auditor) totals(ctx context.Context) error {
	if a.blind {
		return nil
	}
	n, first := a.ledger.count()
	plan := a.job.Rel(a.job.Plan())
	if a.n == 0 && a.plan.Items != a.ledger.items {
		a.broken(CodeTotal, plan, "it says %d items, its batches have %d", a.plan.Items, a.ledger.items)
	}
	var inputs int64
	for _, in := range a.plan.Input {
		inputs += in.Items
	}
	if a.n == 0 && inputs != a.ledger.items {
		a.broken(CodeTotal, plan, "it says %d items in its inputs, its batches have %d", inputs, a.ledger.items)
	}
	if a.agg != nil && a.agg.OK != n[endOK] {
		a.broken(CodeTotal, a.aggKey(), "it says %d items are ok, %d are", a.agg.OK, n[endOK])
	}
	o := a.outcome
	if o == nil {
		return nil
	}
	rel := a.outcomeKey()
	says := fmt.Sprintf("it says %d items = %d ok + %d permanent + %d exhausted + %d unfinished; counted: %d = %d + %d + %d + %d",
		o.Items, o.OK, o.Permanent, o.Exhausted, o.Unfinished, a.ledger.items, n[endOK], n[endPermanent], n[endExhausted], n[endOpen])
	if a.succeeded() {
		if n[endOpen] > 0 {
			a.broken(CodeItem, rel, "%s no end, the first is item %d", count(n[endOpen], "item has", "items have"), first)
		}
		if o.Items != a.ledger.items || o.OK != n[endOK] || o.Permanent != n[endPermanent] || o.Exhausted != n[endExhausted] || o.Unfinished != 0 {
			a.broken(CodeTotal, rel, "%s", says)
		}
		if o.Aggregation == nil {
			a.broken(CodeForm, rel, "it SUCCEEDED and has no aggregation manifest")
		}
		return nil
	}
	// A generation that was ended from outside counts what it saw. A task that was
	// about to commit may have done so since.
	if o.Items != a.ledger.items || o.OK+o.Permanent+o.Exhausted+o.Unfinished != o.Items ||
		o.OK > n[endOK] || o.Permanent != n[endPermanent] || o.Exhausted != n[endExhausted] {
		a.broken(CodeTotal, rel, "%s", says)
	} else if o.OK < n[endOK] {
		a.note("%s ok in results that came after the outcome", count(n[endOK]-o.OK, "item is", "items are"))
	}
	if o.Aggregation != nil || o.RowCount != 0 {
		a.broken(CodeForm, rel, "it is %s and has an aggregation manifest or rows", o.Status)
	}
	return nil
}

// jobView derives the job manifest and the aggregation manifest. slurm_array_id is
// the launcher's word, and the status of an unfinished job is the state store's.
func (a *auditor) jobView(ctx context.Context) error {
	if a.plan.JobID == "" || a.n < a.current {
		return nil // it is damaged: nothing can be derived; or of a later generation
	}
	rel := a.job.Rel(a.job.Manifest())
	a.viewBytes(ctx, rel, func(stored []byte) ([]byte, bool) {
		var m manifest.JobManifest
		if manifest.Decode(stored, manifest.SchemaJob, &m) != nil {
			return nil, false
		}
		if m.Generation > a.n {
			a.lost(CodeMissing, a.job.Rel(a.job.Control(a.orderCount)), "it is gone: %s is of generation %d, and no order opens that", rel, m.Generation)
		}
		status := m.Status
		if a.outcome != nil {
			status = a.outcome.Status
		} else if hayrick.JobStatus(status).Terminal() && a.report.Status == Unfinished {
			a.ended(rel, "says "+status)
		}
		body, err := manifest.Encode(manifest.JobView(a.plan, status, a.n, m.SlurmArrayID))
		if err != nil {
			a.err = err
		}
		return body, err == nil
	})
	for _, g := range slices.Backward(a.gens) {
		if g != nil && g.outcome != nil && g.outcome.Aggregation != nil { // the last that SUCCEEDED wrote it
			a.view(ctx, a.job.Rel(a.job.AggregationManifest()), g.outcome.Aggregation)
			break
		}
	}
	return a.err
}

// ended reports an outcome that is gone: what is derived from it is still there.
func (a *auditor) ended(key, what string) {
	a.report.Status = Unreadable
	a.lost(CodeMissing, a.outcomeKey(), "it is gone: %s %s", key, what)
}
