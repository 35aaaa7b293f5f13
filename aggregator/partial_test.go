package aggregator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// What there is of an unfinished job is merged beside where its dataset will be, under
// names that nobody takes for it; the job itself is as it was, and ends as it would.
func TestPartial(t *testing.T) {
	first := []task{one(row("k", "a", "n", 1)), {ok: 1, again: 1, rows: []rows.Row{row("k", "b", "m", "x")}}, one(row("k", "a", "n", 2))}
	retry := []task{one(row("k", "b", "m", "y"))}
	for name, c := range map[string]struct {
		def  func(*hayrick.JobDefinition)
		want []string // rows
		part string
	}{
		"plain":      {func(*hayrick.JobDefinition) {}, []string{"k=a n=1", "k=b m=x", "k=a n=2", "k=b m=y"}, "partial-00000.parquet"},
		"unique":     {func(d *hayrick.JobDefinition) { d.Output.UniqueBy = []string{"k"} }, []string{"k=a n=1", "k=b m=x"}, "partial-00000.parquet"},
		"partitions": {func(d *hayrick.JobDefinition) { d.Output.PartitionBy = []string{"k"} }, []string{"k=a n=1", "k=a n=2"}, "k=a/partial-00000.parquet"},
	} {
		t.Run(name, func(t *testing.T) {
			j := build(t, shape{open: true, def: c.def}, first, retry)
			before, commits := len(j.mem.Commits()), j.mem.Commits()
			p, err := j.process("p").Partial(t.Context(), jobID, 0)
			j.must(err)
			if p.Items != 4 || p.ItemsOK != 4 || p.Tasks != 4 || p.TasksEnded != 4 || p.Rows+p.DroppedRows != 4 || !slices.Contains(p.Parts, c.part) ||
				!strings.HasPrefix(p.Folder, strings.TrimSuffix(j.folder(), "/")+".partial-20261120t") {
				t.Errorf("%+v", p)
			}
			body, err := j.mem.Output(p.Folder, c.part)
			j.must(err)
			if got := decoded(t, string(body)); !slices.Equal(got, c.want) {
				t.Errorf("%q", got)
			}
			there, err := j.mem.ListOutput(context.Background(), p.Folder)
			j.must(err)
			for _, f := range there {
				if f.Key == manifest.SuccessName || f.Key != manifest.PartialName && !strings.Contains(f.Key, "partial-") {
					t.Errorf("published %s", f.Key)
				}
			}
			if _, err := j.mem.Output(p.Folder, manifest.PartialName); err != nil || len(j.published()) != 0 || len(commits) != before || len(j.mem.Commits()) != before {
				t.Errorf("%v; published %v; %d commits, %d before", err, j.published(), len(j.mem.Commits()), before)
			}
			if j.temps.open != 0 {
				t.Errorf("%d scratch files are open", j.temps.open)
			}
		})
	}
}

// A job that has ended has its dataset, and one without rows nothing to show.
func TestPartialOfNothing(t *testing.T) {
	j := build(t, shape{open: true}, []task{one()})
	var user *hayrick.UserError
	if _, err := j.process("p").Partial(t.Context(), jobID, 0); !errors.As(err, &user) || !strings.Contains(err.Error(), "no row") {
		t.Error(err)
	}
	j = build(t, shape{}, []task{one(row("a", 1))})
	j.aggregate()
	if _, err := j.process("p").Partial(t.Context(), jobID, 0); !errors.As(err, &user) || !strings.Contains(err.Error(), "SUCCEEDED") {
		t.Error(err)
	}
}
