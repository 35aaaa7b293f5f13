//go:build mutants

package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutant is a defect of the protocol, as a change of one place of the source.
type mutant struct {
	name, file, old, new string
}

// mutants are what the simulator must notice. Each is one line of thought that somebody
// might have, and each loses, doubles or changes something, or never ends.
var mutants = []mutant{
	{"progress is counted, not a set", "mem/state.go", "b.done.Add(m.Position)\n", "b.done.Add(b.done.Count() % b.total)\n"},
	{"a wiped block comes back without its total", "mem/state.go", "b = &block{total: m.Total}\n", "b = &block{total: m.Position + 1}\n"},
	{"a commit goes over what is there", "mem/objects.go", "if _, ok := s.objects[key]; ok {\n\t\t\treturn false, nil\n\t\t}\n\t\ts.objects[key] = object{data: slices.Clone(body)", "s.objects[key] = object{data: slices.Clone(body)"},
	{"who is second believes to have won", "manifest/store.go", "\tif !won {\n\t\tif rec, err = open(", "\tif false {\n\t\tif rec, err = open("},
	{"an undecided commit is taken for stored", "manifest/store.go", "there, won, err := s.commit(ctx, key, body)\n\tif err != nil {\n", "there, won, err := s.commit(ctx, key, body)\n\tif errors.Is(err, hayrick.ErrUnknown) {\n\t\tthere, won, err = body, true, nil\n\t}\n\tif err != nil {\n"},
	{"who loses removes the rows that stand", "worker/commit.go", "\tif !c.Won {\n\t\treturn ack", "\tif !c.Won {\n\t\tif c.Record.File != nil {\n\t\t\ta.w.Store.Objects.Remove(ctx, manifest.Job(a.ref.JobID).Abs(*c.Record.File))\n\t\t}\n\t\treturn ack"},
	{"the result is committed before its rows are put", "worker/commit.go", "if err := a.w.Store.Objects.Put(ctx, key, body); err != nil {\n\t\treturn fmt.Errorf(\"put %s: %w\", key, err)\n\t}\n", "defer a.w.Store.Objects.Put(ctx, key, body)\n\tif a.claim.Fence == 1 {\n\t\treturn errors.New(\"later\")\n\t}\n"},
	{"a failed put of rows is no failure", "worker/commit.go", "if err := a.w.Store.Objects.Put(ctx, key, body); err != nil {\n\t\treturn fmt.Errorf(\"put %s: %w\", key, err)\n\t}\n", "a.w.Store.Objects.Put(ctx, key, body)\n"},
	{"the planner believes the trigger", "retryplanner/read.go", "\t\t\tif len(missing) > 0 {\n\t\t\t\treturn missing, nil\n\t\t\t}\n", ""},
	{"what is missing counts as done", "retryplanner/read.go", "if r.missing = errors.Is(err, hayrick.ErrNotFound); r.missing {", "if errors.Is(err, hayrick.ErrNotFound) {\n\t\tr.Status, r.BatchID = \"\", nil"},
	{"the planner acts before it commits", "retryplanner/write.go", "\tif stored.Record.Generation != c.generation {\n\t\treturn Planned{}, nil\n\t}\n\treturn c.found(stored.Record, stored.SHA256, stored.Won)", "\tif stored.Record.Generation != c.generation {\n\t\treturn Planned{}, nil\n\t}\n\treturn c.found(plan, stored.SHA256, true)"},
	{"a permanent failure is tried again", "retryplanner/plan.go", "\tif d.Final() {\n\t\treturn permanent, f.Class\n\t}\n", ""},
	{"groups are not counted", "retryplanner/plan.go", "case charged > p.retry.Passes:", "case charged > p.retry.Passes && p.groups > 100:"},
	{"who is exhausted is on no list", "retryplanner/read.go", "\t\t\tif f.verdict == exhausted {\n\t\t\t\tto = s.exhausted\n\t\t\t}\n", "\t\t\tif f.verdict == exhausted {\n\t\t\t\tcontinue\n\t\t\t}\n"},
	{"a paused job is resumed without its messages", "coordinator/decide.go", "l.because, l.blind = \"the job was paused\", true", "return l"},
	{"lost tasks are not sent again", "coordinator/decide.go", "\t\tcase !m.Held && len(r.Send) < lot:\n\t\t\tr.Send = append(r.Send, m)\n", ""},
	{"a lost trigger is not sent again", "coordinator/decide.go", "\tif l.lost {\n\t\td.Triggers = append(", "\tif false {\n\t\td.Triggers = append("},
	{"the outcome is enough, published or not", "coordinator/decide.go", "d.Complete = k.ViewStatus == d.Status\n", "d.Complete = true\n"},
	{"leftovers are what no result names yet", "coordinator/gc.go", "\tif errors.Is(err, hayrick.ErrNotFound) {\n\t\treturn &named{}, nil\n\t}\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tn := &named{keys: map[string]bool{}}\n\tif res.File", "\tif errors.Is(err, hayrick.ErrNotFound) {\n\t\treturn &named{keys: map[string]bool{}}, nil\n\t}\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tn := &named{keys: map[string]bool{}}\n\tif res.File"},
	{"leftovers of a generation that is open", "coordinator/gc.go", "\t\treturn n, err\n\t}\n\treturn &named{}, nil\n}\n\n// ofInput", "\t\treturn n, err\n\t}\n\treturn n, nil\n}\n\n// ofInput"},
	{"a merge goes on without those that are missing", "aggregator/aggregator.go", "\tif len(m.missing) > 0 {\n\t\treturn a.send(ctx, m.missing)\n\t}\n", ""},
	{"the merge is planned while a group is open", "aggregator/aggregator.go", "if n := len(plans); n == 0 || plans[n-1].Next != manifest.NextAggregation {\n\t\treturn errOpen\n\t}", "if n := len(plans); n == 0 {\n\t\treturn errOpen\n\t}"},
	{"a lease is no reason to wait, and gives the old fence", "state.go", "next.Fence = prev.Fence + 1\n", "next.Fence = prev.Fence\n"},
	{"a claim is anybody's", "state.go", "if c == nil || c.Attempt != attempt || c.Until.IsZero() {", "if c == nil {"},
	{"a message of a redrive is one of the run before", "worker/decide.go", "case st == nil || st.Generation < generation:\n", "case st != nil && st.Generation < generation:\n\t\treturn \"it has ended\", true\n\tcase st == nil:\n"},
	{"a job is the same in all generations", "worker/jobs.go", "j.open[jobAt{id, generation}] = job", "j.open[jobAt{id, generation}], j.open[jobAt{id, generation + 1}] = job, job"},
	{"the journal of other work will do", "worker/memjournal.go", "if j.fp != fp {", "if false {"},
	{"items that were restored are run again beside their rows", "worker/attempt.go", "\t\tx.Entry = e\n\t\tif e.Ended {\n\t\t\ta.ended++\n\t\t}", "\t\tx.Entry = e\n\t\tif e.Ended {\n\t\t\tx.Ended = false\n\t\t}"},
	{"a cancelled job goes on", "coordinator/decide.go", "\tcase effect.Cancelled:\n\t\td.Status, d.Cancel = hayrick.StatusCancelled, true\n", "\tcase effect.Cancelled:\n\t\td.Status = hayrick.StatusCancelled\n"},
	{"a worker that vanished is not counted", "state.go", "\tif held {\n\t\tnext.Vanished++\n\t\tnext.Idle++\n\t}\n", "\t_ = held\n"},
}

var violation = regexp.MustCompile(`(I\d+(?:[-, ]+I\d+)*|panic|does not end)[: ]`)

// Every mutant is caught. It prints what caught each.
func TestMutants(t *testing.T) {
	only := os.Getenv("HAYRICK_MUTANT")
	for _, m := range mutants {
		if only != "" && only != m.name {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("..", m.file))
			if err != nil {
				t.Fatal(err)
			}
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), m.old); n != 1 {
				t.Fatalf("%s has %d places like the mutant's: mend the table", m.file, n)
			}
			dir := t.TempDir()
			changed, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			text, _ := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
			if err := os.WriteFile(overlay, text, 0o600); err != nil {
				t.Fatal(err)
			}
			binary := filepath.Join(dir, "sim.test")
			if out, err := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", binary, ".").CombinedOutput(); err != nil {
				t.Fatalf("it does not compile: %v\n%s", err, out)
			}
			cmd := exec.Command(binary, "-test.run", "TestScenarios|TestSingleFaults|TestRandomFaults", "-test.failfast", "-test.timeout", "10m")
			cmd.Env = append(os.Environ(), "HAYRICK_SIM_EVERY=9", "HAYRICK_SIM_SEEDS=200")
			out, err := cmd.CombinedOutput()
			if err == nil || bytes.Contains(out, []byte("test timed out")) { // slow is not caught
				t.Errorf("nothing notices it: %v", err)
				return
			}
			line := ""
			for l := range strings.Lines(string(out)) {
				if violation.MatchString(l) {
					line = strings.TrimSpace(l)
					break
				}
			}
			if line == "" {
				t.Errorf("it fails, and no check says why:\n%s", out)
			}
			if len(line) > 300 {
				line = line[:300]
			}
			fmt.Printf("CAUGHT %s | %s\n", m.name, line)
		})
	}
}
