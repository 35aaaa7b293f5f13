package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

var wantItems = []string{`{"did":1}`, `{"did":2}`, `{"did":3}`, `{"did":3}`, `{"did":5}`}

// 002-10, 002-11: a submission is a job of its own, named after its definition; the
// definition is stored beside it. 002-04: it is shown as running, and its workers
// are called.
func TestSubmit(t *testing.T) {
	r := newRig(t)
	got := r.submit(t, submission())

	name, day, _, ok := SplitJobID(got.JobID)
	if !ok || name != "backfill" || day != "20261120" || got.Resumed {
		t.Errorf("job id %q, resumed %v", got.JobID, got.Resumed)
	}
	p, sha, err := r.Store.Plan(t.Context(), got.JobID)
	if err != nil || sha != got.PlanSHA256 {
		t.Fatalf("plan %s, %v; Submit says %s", sha, err, got.PlanSHA256)
	}
	if p.Items != 5 || p.Group.Tasks != 3 || p.Group.Name != hayrick.GroupInitial || p.Input[0].Object != inputURI ||
		p.Input[0].Items != 5 || p.Input[0].Pin.Size != 50 || p.CodeVersion != "hayrick v0.1.0" || p.Job.Run != 0 {
		t.Errorf("plan: %+v", p)
	}
	if items := r.items(t, p); !slices.Equal(items, wantItems) {
		t.Errorf("items %q, want %q", items, wantItems)
	}
	d, err := r.Store.Definition(t.Context(), p)
	if err != nil || d.Output.URI != "./out/$(run.id)/" {
		t.Errorf("stored definition: %v, output %q", err, d.Output.URI)
	}
	if uri := manifest.OutputURI(d, "", p.JobID, 0); uri != "./out/"+got.JobID+"/" {
		t.Errorf("output %q", uri)
	}
	var view manifest.JobManifest
	b, err := r.Store.Raw(t.Context(), manifest.Job(got.JobID).Manifest())
	if err != nil || manifest.Decode(b, manifest.SchemaJob, &view) != nil || view.Status != "RUNNING" || view.TaskCount != 3 || view.JobType != "backfill" {
		t.Errorf("job manifest %s: %v", b, err)
	}
	st, err := r.State.JobState(t.Context(), got.JobID)
	if err != nil || st.Status != hayrick.StatusRunning || st.Generation != 0 {
		t.Errorf("state %+v: %v", st, err)
	}
	want := []hayrick.Message{
		{JobID: got.JobID, Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, TaskID: "task-0000"},
		{JobID: got.JobID, Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, Position: 1, TaskID: "task-0001"},
		{JobID: got.JobID, Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, Position: 2, TaskID: "task-0002"},
	}
	if msgs := r.messages(t); !slices.Equal(msgs, want) {
		t.Errorf("messages %+v", msgs)
	}
}

// A message says the block and position at which the block file has its task, and a
// call carries a block of them.
func TestSubmitSendsBlocks(t *testing.T) {
	r := newRig(t)
	r.mem.SetInput(inputURI, []byte(strings.Repeat("1\n", 600)))
	s := submission()
	s.Definition.Batch.Items = 1
	got := r.submit(t, s)
	if n := r.mem.Calls()["Send"]; n != 3 {
		t.Errorf("%d calls of Send, want 3", n)
	}
	m, err := r.Store.Members(t.Context(), got.JobID, 0, got.Plan.Group)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, msg := range r.messages(t) {
		block, err := m.Block(t.Context(), r.Store, msg.Block)
		if err != nil || block.Tasks[msg.Position].TaskID != msg.TaskID {
			t.Fatalf("%+v is not where it says: %v", msg, err)
		}
		seen[msg.TaskID] = true
	}
	if len(seen) != 600 {
		t.Errorf("%d tasks were sent, want 600", len(seen))
	}
}

// Whatever call of a submission a crash, an error or a lost reply hits, submitting
// again gives the job that an undisturbed submission gives: one plan, the same
// objects, every task sent.
func TestSubmitSurvivesAnyCall(t *testing.T) {
	prepare := func(t *testing.T) (*rig, Submission) {
		r := newRig(t)
		r.mem.SetInput(inputURI, []byte(strings.Repeat("{\"did\":1}\n\n", 300)))
		s := submission()
		s.Definition.Batch.Items = 1
		s.BundleDir = writeFolder(t, map[string]string{"config.yaml": "name: backfill\n"})
		return r, s
	}
	calm, s := prepare(t)
	var calls []mem.Call
	calm.mem.Hook = func(c mem.Call) mem.Fault { calls = append(calls, c); return mem.Fault{} }
	want := calm.submit(t, s)
	calm.mem.Hook = nil
	wantObjects := calm.mem.Snapshot()
	if len(calls) < 20 {
		t.Fatalf("only %d calls: %v", len(calls), calls)
	}

	for kind, fault := range map[string]mem.Fault{
		"crash before": {CrashBefore: true}, "crash after": {CrashAfter: true}, "error": {ErrBefore: errors.New("on fire")},
		"lost reply": {ErrAfter: errors.New("timed out")}, "doubled": {Duplicate: true},
	} {
		for _, call := range calls {
			t.Run(fmt.Sprintf("%s at %d %s %s", kind, call.N, call.Op, call.Key[strings.LastIndexByte(call.Key, '/')+1:]), func(t *testing.T) {
				r, s := prepare(t)
				r.mem.Hook = func(c mem.Call) mem.Fault {
					if c.N == call.N {
						return fault
					}
					return mem.Fault{}
				}
				crashed := submitCrashing(t, r, s)
				if (fault.CrashBefore || fault.CrashAfter) != crashed {
					t.Fatalf("crashed: %v", crashed)
				}
				r.mem.Hook = nil
				got := r.submit(t, s)
				if got.JobID != want.JobID || len(r.plans()) != 1 {
					t.Errorf("job %s with plans %q, want one of %s", got.JobID, r.plans(), want.JobID)
				}
				objects := r.mem.Snapshot()
				for key, body := range wantObjects {
					if string(objects[key]) != string(body) {
						t.Errorf("%s is %q, want %q", key, objects[key], body)
					}
					delete(objects, key)
				}
				for key := range objects {
					t.Errorf("%s is too many", key)
				}
				if st, err := r.State.JobState(t.Context(), got.JobID); err != nil || st.Status != hayrick.StatusRunning {
					t.Errorf("state %+v: %v", st, err)
				}
				// A crash between two calls of Send leaves the rest to the sweeper, who sends
				// it once the messages there are have been dealt with.
				sent := map[string]bool{}
				for len(sent) < 300 {
					msgs := r.messages(t)
					if len(msgs) == 0 {
						t.Fatalf("%d tasks were sent, want 300", len(sent))
					}
					for _, m := range msgs {
						sent[m.TaskID] = true
						hold(t, r, m)
					}
					if _, err := r.Sweep(t.Context(), got.JobID); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// submitCrashing submits in a process that may be killed by a fault.
func submitCrashing(t *testing.T, r *rig, s Submission) (crashed bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, crashed = p.(mem.Crash); !crashed {
				panic(p)
			}
		}
	}()
	_, err := r.Submit(t.Context(), s)
	if err != nil {
		t.Log(err)
	}
	return false
}

// hold claims the task of a message, so that a sweep leaves it alone.
func hold(t *testing.T, r *rig, m hayrick.Message) {
	t.Helper()
	ref := hayrick.TaskRef{JobID: m.JobID, Generation: m.Generation, TaskID: m.TaskID}
	if _, err := r.mem.Claim(t.Context(), hayrick.ClaimAsk{TaskRef: ref, Attempt: "a", Worker: "w", Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
}

// 002-53: no check-then-insert: two submissions that both see no plan end in one.
func TestTwoSubmissionsAtOnce(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		r := newRig(t)
		var both sync.WaitGroup // each waits at its commit for the other
		both.Add(2)
		r.mem.Hook = func(c mem.Call) mem.Fault {
			if c.Op == "Commit" && strings.HasSuffix(c.Key, "/plan.json") {
				both.Done()
				both.Wait()
			}
			return mem.Fault{}
		}
		s := submission()
		s.New = fresh
		var got [2]Submitted
		var errs [2]error
		var done sync.WaitGroup
		for i := range got {
			done.Go(func() {
				s := s
				s.SubmittedBy = fmt.Sprintf("user-%d@host", i)
				got[i], errs[i] = r.Submit(t.Context(), s)
			})
		}
		done.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		if got[0].JobID != got[1].JobID || got[0].PlanSHA256 != got[1].PlanSHA256 || got[0].Resumed == got[1].Resumed || len(r.plans()) != 1 {
			t.Errorf("%+v\n%+v\nplans %q", got[0], got[1], r.plans())
		}
	}
}

func TestRunGoesOnWithTheUnfinishedRun(t *testing.T) {
	r := newRig(t)
	s := submission()
	first := r.submit(t, s)
	r.clock.now = r.clock.now.Add(48 * time.Hour)   // neither the clock
	s.ConfigTime = s.ConfigTime.Add(72 * time.Hour) // nor a touched job file changes the run
	s.SubmittedBy = "other@host"
	again := r.submit(t, s)
	if again.JobID != first.JobID || !again.Resumed || again.PlanSHA256 != first.PlanSHA256 {
		t.Errorf("%s resumed %v, want %s", again.JobID, again.Resumed, first.JobID)
	}
	if n := len(r.messages(t)); n != 3 {
		t.Errorf("%d messages, want 3: those of the first call are there", n)
	}

	s.New = true
	forced := r.submit(t, s)
	if forced.JobID == first.JobID || forced.Resumed || forced.Plan.Job.Run != 1 {
		t.Errorf("--new gave %s, run %d", forced.JobID, forced.Plan.Job.Run)
	}
	s.New = false
	if newest := r.submit(t, s); newest.JobID != forced.JobID {
		t.Errorf("run goes on with %s, want the newest, %s", newest.JobID, forced.JobID)
	}
	r.end(t, forced.JobID)
	if older := r.submit(t, s); older.JobID != first.JobID {
		t.Errorf("run goes on with %s, want %s, the only one unfinished", older.JobID, first.JobID)
	}
	r.end(t, first.JobID)
	if third := r.submit(t, s); third.Resumed || third.Plan.Job.Run != 2 {
		t.Errorf("after the end of both: %s, run %d, resumed %v", third.JobID, third.Plan.Job.Run, third.Resumed)
	}
}

func TestChangesOf(t *testing.T) {
	was := hayrick.JobDefinition{Name: "a", Handler: hayrick.Handler{Exec: []string{"sh", "h.sh"}, Params: []byte(`{"lang":"en","n":{"a":1}}`)}}
	is := was
	if got := changesOf(was, is); got != nil {
		t.Errorf("%q", got)
	}
	is.Batch.Items, is.Handler.Exec, is.Handler.Params = 3, []string{"sh", strings.Repeat("x", 100)}, []byte(`{"n":{"a":2}}`)
	want := []string{
		"batch.items was 0 and is 3 now", `handler.exec was ["sh","h.sh"] and is ["sh","` + strings.Repeat("x", 33) + "... now",
		`handler.params.lang was "en"`, "handler.params.n.a was 1 and is 2 now",
	}
	if got := changesOf(was, is); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	is.Name, is.Version, is.Input.URI = "b", 2, "x"
	if got := changesOf(was, is); len(got) != toldChanges+1 || got[toldChanges] != "and 2 more" {
		t.Errorf("%q", got)
	}
}

func TestChangedBesideAnUnfinishedRun(t *testing.T) {
	for what, change := range map[string]func(*rig, *Submission){
		"the input":    func(r *rig, s *Submission) { r.mem.SetInput(inputURI, []byte("1\n2\n3\n")) },
		"the job file": func(r *rig, s *Submission) { s.Definition.Batch.Items = 3 },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			s := submission()
			first := r.submit(t, s)
			change(r, &s)
			_, err := r.Submit(t.Context(), s)
			var user *hayrick.UserError
			if !errors.As(err, &user) || user.Exit != 7 || !strings.HasPrefix(user.What, what+" has changed since "+first.JobID) ||
				!strings.Contains(user.Hint, "hayrick resume "+first.JobID) || !strings.Contains(user.Hint, "hayrick run --new") {
				t.Fatalf("got %v with hint %q", err, user.Hint)
			}
			if len(r.plans()) != 1 {
				t.Errorf("plans %q", r.plans())
			}
			fresh := s
			fresh.New = true
			if got := r.submit(t, fresh); got.Resumed || got.JobID == first.JobID {
				t.Errorf("--new: %+v", got)
			}
			r.end(t, first.JobID)
			if got := r.submit(t, s); !got.Resumed {
				t.Errorf("the run of --new is unfinished, but run started %s", got.JobID)
			}
		})
	}
}

func TestForcedJobID(t *testing.T) {
	r := newRig(t)
	s := submission()
	s.JobID = "my-run"
	if got := r.submit(t, s); got.JobID != "my-run" || got.Resumed {
		t.Errorf("%+v", got)
	}
	if got := r.submit(t, s); got.JobID != "my-run" || !got.Resumed {
		t.Errorf("%+v", got)
	}
	for what, change := range map[string]func(*Submission){
		"new":     func(s *Submission) { s.New = true },
		"changed": func(s *Submission) { s.Definition.Batch.Items = 3 },
		"invalid": func(s *Submission) { s.JobID = "../x" },
	} {
		s := s
		change(&s)
		_, err := r.Submit(t.Context(), s)
		if user := (*hayrick.UserError)(nil); !errors.As(err, &user) || user.Hint == "" || user.Exit != 7 && what != "invalid" {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// What changes while it is read is not planned, by whichever look it shows.
func TestInputChangesWhileItIsRead(t *testing.T) {
	for _, at := range []string{"OpenSource", "Put", "Clone"} {
		for _, snapshot := range []string{"auto", "copy"} {
			for _, clones := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s %v", at, snapshot, clones), func(t *testing.T) {
					if at == "Clone" && snapshot == "copy" {
						at = "OpenSource"
					}
					r := newRig(t)
					r.mem.CanClone = clones
					s := submission()
					s.Definition.Input.Snapshot = snapshot
					changed := false
					r.mem.Hook = func(c mem.Call) mem.Fault {
						if c.Op == at && !changed {
							changed = true
							r.clock.Sleep(context.Background(), time.Second)
							r.mem.SetInput(inputURI, []byte("{\"did\":9}\n"))
						}
						return mem.Fault{}
					}
					_, err := r.Submit(t.Context(), s)
					if snapshot == "auto" && clones && at == "OpenSource" {
						if err != nil || changed {
							t.Fatalf("a clone was made, but the source was read: %v", err)
						}
						return
					}
					var user *hayrick.UserError
					if !errors.As(err, &user) || !errors.Is(err, hayrick.ErrInputChanged) || user.Exit != 0 || len(r.plans()) != 0 {
						t.Fatalf("got %v, plans %q", err, r.plans())
					}
				})
			}
		}
	}
}

func TestInputsThatCannotBePlanned(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*rig, *Submission)
		want   string
	}{
		"missing": {func(r *rig, s *Submission) { r.mem.SetInput(inputURI, nil) }, "the input ./users.jsonl is not there"},
		"empty":   {func(r *rig, s *Submission) { r.mem.SetInput(inputURI, []byte("\n \n")) }, "./users.jsonl holds no items"},
		"no list": {func(r *rig, s *Submission) { s.Definition.Input.Items = true }, "input.items is set, but the handler lists no items"},
		"empty list": {func(r *rig, s *Submission) {
			s.Definition.Input.Items = true
			s.Items = func(context.Context, func(json.RawMessage) error) error { return nil }
		}, "the handler's list holds no items"},
		"no batch size":       {func(r *rig, s *Submission) { s.Definition.Batch.Items = 0 }, "batch.items is 0"},
		"a name that is none": {func(r *rig, s *Submission) { s.Definition.Name = "Back Fill" }, `"Back Fill" cannot be the name of a job`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := submission()
			tc.change(r, &s)
			_, err := r.Submit(t.Context(), s)
			var user *hayrick.UserError
			if !errors.As(err, &user) || user.What != tc.want || user.Hint == "" || len(r.plans()) != 0 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A job that is paused stays so, and one that has ended is left alone.
func TestSubmitMindsOrdersAndOutcomes(t *testing.T) {
	r := newRig(t)
	s := submission()
	s.JobID = "my-run"
	r.submit(t, s)
	r.mem.WipeQueue()
	r.mem.WipeState()
	if _, err := r.Order(t.Context(), "my-run", manifest.Control{Order: manifest.OrderPause, Reason: "lunch"}); err != nil {
		t.Fatal(err)
	}
	r.submit(t, s)
	if st, err := r.State.JobState(t.Context(), "my-run"); err != nil || st.Status != hayrick.StatusPaused || st.Orders != 1 {
		t.Errorf("state %+v: %v", st, err)
	}
	if msgs := r.messages(t); len(msgs) != 0 {
		t.Errorf("messages of a paused job: %+v", msgs)
	}
	r.end(t, "my-run")
	r.submit(t, s)
	if st, err := r.State.JobState(t.Context(), "my-run"); err != nil || st.Status != hayrick.StatusCancelled {
		t.Errorf("state %+v: %v", st, err)
	}
	if msgs := r.messages(t); len(msgs) != 0 {
		t.Errorf("messages of a job that has ended: %+v", msgs)
	}
}

// A success whose output may not be published yet is not finished: typing `run`
// again calls the aggregator, and starts nothing new.
func TestRunGoesOnWithPublishing(t *testing.T) {
	r := newRig(t)
	s := submission()
	first := r.submit(t, s)
	r.messages(t)
	if _, err := r.Store.CommitOutcome(t.Context(), manifest.Outcome{
		Schema: manifest.SchemaOutcome, JobID: first.JobID, Status: string(hayrick.JobSucceeded), RowHash: "0", DroppedHash: "0",
		Chain: map[string]string{}, EndedAt: manifest.At(r.clock.Now()),
	}); err != nil {
		t.Fatal(err)
	}
	if got := r.submit(t, s); got.JobID != first.JobID {
		t.Errorf("%s was started, want %s to be published", got.JobID, first.JobID)
	}
	if msgs := r.messages(t); len(msgs) != 1 || msgs[0].Role != hayrick.RoleAggregator {
		t.Errorf("messages %+v", msgs)
	}
	view := manifest.JobView(first.Plan, string(hayrick.StatusSucceeded), 0, nil)
	if err := r.Store.PutView(t.Context(), manifest.Job(first.JobID).Manifest(), view); err != nil {
		t.Fatal(err)
	}
	if got := r.submit(t, s); got.Resumed || got.Plan.Job.Run != 1 {
		t.Errorf("after publishing: %+v", got)
	}
}

// Two people choose one id for two jobs at once: one has it, the other hears so.
func TestTwoJobsUnderOneID(t *testing.T) {
	r := newRig(t)
	var both sync.WaitGroup
	both.Add(2)
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "Commit" && strings.HasSuffix(c.Key, "/plan.json") {
			both.Done()
			both.Wait()
		}
		return mem.Fault{}
	}
	var errs [2]error
	var done sync.WaitGroup
	for i := range errs {
		done.Go(func() {
			s := submission()
			s.JobID, s.Definition.Batch.Items = "my-run", i+1
			_, errs[i] = r.Submit(t.Context(), s)
		})
	}
	done.Wait()
	won := errors.Join(errs[:]...)
	var user *hayrick.UserError
	if (errs[0] == nil) == (errs[1] == nil) || !errors.As(won, &user) || user.Exit != 7 {
		t.Errorf("got %v and %v", errs[0], errs[1])
	}
}

// cut gives fewer bytes than the input is said to have.
type cut struct{ Sources }

func (c cut) OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error) {
	r, pin, err := c.Sources.OpenSource(ctx, uri)
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, 20), r}, pin, err
}

func TestInputThatIsNotWhole(t *testing.T) {
	r := newRig(t)
	r.Sources = cut{r.Sources}
	if _, err := r.Submit(t.Context(), submission()); !errors.Is(err, hayrick.ErrInputChanged) || len(r.plans()) != 0 {
		t.Errorf("got %v", err)
	}
	s := submission()
	s.Definition.Input.Limit = 2 // the rest is not looked at
	if items := r.items(t, r.submit(t, s).Plan); len(items) != 2 {
		t.Errorf("items %q", items)
	}
}

// A copy is put under the digest of what was read first: other bytes never get there.
func TestInputChangesWhileItIsCopied(t *testing.T) {
	r := newRig(t)
	s := submission()
	s.Definition.Input.Snapshot = "copy"
	opened := 0
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op == "OpenSource" {
			if opened++; opened == 2 {
				r.mem.SetInput(inputURI, []byte("{\"did\":9}\n"))
			}
		}
		return mem.Fault{}
	}
	if _, err := r.Submit(t.Context(), s); !errors.Is(err, hayrick.ErrInputChanged) || opened != 2 {
		t.Errorf("got %v", err)
	}
	for key := range r.mem.Snapshot() {
		if strings.Contains(key, "/input/") {
			t.Errorf("%s was stored", key)
		}
	}
}

// Progress speaks of the whole input.
func TestSubmitReportsProgress(t *testing.T) {
	r := newRig(t)
	s := submission()
	var bytes, total, items int64
	s.Progress = func(b, n, i int64) { bytes, total, items = b, n, i }
	r.submit(t, s)
	if bytes != 50 || total != 50 || items != 5 {
		t.Errorf("%d of %d bytes, %d items", bytes, total, items)
	}
}

// With the state store and the queue gone, submitting again calls workers for what
// has no result, and for nothing else.
func TestSubmitAfterTheStateIsLost(t *testing.T) {
	r := newRig(t)
	got := r.submit(t, submission())
	if _, err := r.Store.CommitResult(t.Context(), manifest.Result{
		Schema: manifest.SchemaResult, JobID: got.JobID, TaskID: "task-0001", Status: string(hayrick.TaskDone), Items: 2, OK: 2, RowHash: "0",
	}); err != nil {
		t.Fatal(err)
	}
	r.mem.WipeQueue()
	r.mem.WipeState()
	if again := r.submit(t, submission()); again.JobID != got.JobID {
		t.Errorf("%s, want %s", again.JobID, got.JobID)
	}
	var sent []string
	for _, m := range r.messages(t) {
		sent = append(sent, m.TaskID)
	}
	if !slices.Equal(sent, []string{"task-0000", "task-0002"}) {
		t.Errorf("sent %q", sent)
	}
	blocks, err := r.State.Blocks(t.Context(), got.JobID, 0, hayrick.GroupInitial)
	if err != nil || len(blocks) != 1 || !blocks[0].Done.Has(1) || blocks[0].OK != 2 {
		t.Errorf("blocks %+v: %v", blocks, err)
	}
}

// 002-02: batches are in objects, each with its SHA-256, which nothing changes again; and
// in the state, as sets that are written to, named by the SHA-256 of the block file that
// lists them. Both say the same of the same batches.
func TestBatchesInObjectsAndInTheState(t *testing.T) {
	r := newRig(t)
	got := r.submit(t, submission())
	m, err := r.Store.Members(t.Context(), got.JobID, 0, got.Plan.Group)
	if err != nil {
		t.Fatal(err)
	}
	index, err := m.Index(t.Context(), r.Store, 0)
	if err != nil {
		t.Fatal(err)
	}
	block, err := m.Block(t.Context(), r.Store, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range index.Batches {
		body, err := r.mem.OpenInput(t.Context(), got.JobID, b)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := io.ReadAll(body)
		if err != nil || manifest.SHA256(bytes) != b.SHA256 || *block.Tasks[i].BatchID != b.BatchID {
			t.Errorf("batch %d: %+v of %+v, %v", i, b, block.Tasks[i], err)
		}
	}
	id, total := m.At(0, 0)
	for range 2 {
		if _, err := r.State.Mark(t.Context(), hayrick.Mark{Block: id, Total: total, Position: 1, OK: 2}); err != nil {
			t.Fatal(err)
		}
	}
	records, err := r.State.Blocks(t.Context(), got.JobID, 0, hayrick.GroupInitial)
	if err != nil || len(records) != 1 {
		t.Fatalf("%+v, %v", records, err)
	}
	if rec := records[0]; rec.BlockID.SHA256 != got.Plan.Group.Blocks[0].SHA256 || rec.Total != len(index.Batches) || rec.Done.Count() != 1 {
		t.Errorf("the state has %+v of %+v", rec, got.Plan.Group.Blocks)
	}
	other := got.Plan
	other.Group.Blocks = nil
	if c, err := r.Store.CommitPlan(t.Context(), other); err != nil || c.Won || c.SHA256 != got.PlanSHA256 {
		t.Errorf("the plan is written over: %+v, %v", c, err)
	}
}

// 002-20 (one submission; workers are called in stages, a block of tasks at a time): a
// million items in batches of a hundred are ten thousand tasks.
func TestAMillionItems(t *testing.T) {
	const items, batch = 1_000_000, 100
	r := newRig(t)
	r.mem.SetInput(inputURI, []byte(strings.Repeat("{}\n", items)))
	s := submission()
	s.Definition.Batch.Items, s.Definition.Input.Key = batch, ""
	got := r.submit(t, s)
	if got.Plan.Items != items || got.Plan.Group.Tasks != items/batch || len(got.Plan.Group.Blocks) != (items/batch+255)/256 {
		t.Errorf("%d items in %d tasks and %d blocks", got.Plan.Items, got.Plan.Group.Tasks, len(got.Plan.Group.Blocks))
	}
	stages := r.mem.Calls()["Send"]
	seen := map[string]bool{}
	for _, msg := range r.messages(t) {
		seen[msg.TaskID] = true
	}
	if len(seen) != items/batch || stages != len(got.Plan.Group.Blocks) {
		t.Errorf("%d tasks are called in %d stages", len(seen), stages)
	}
}
