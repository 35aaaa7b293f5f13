package manifest_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"hayrick"
	. "hayrick/manifest"
	"hayrick/mem"
)

func order(job string, n int, by string) Control {
	return Control{Schema: SchemaControl, JobID: job, N: n, Order: OrderPause, By: by, At: clock(0)}
}

func TestCommit(t *testing.T) {
	s, _ := newStore()
	ctx := t.Context()
	first, err := s.CommitControl(ctx, order("j", 0, "me"))
	if err != nil || !first.Won || first.Record.By != "me" {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := s.CommitControl(ctx, order("j", 0, "me"))
	if err != nil || !again.Won || again.SHA256 != first.SHA256 {
		t.Errorf("my own bytes are there, and I have not won: %+v, %v", again, err)
	}
	lost, err := s.CommitControl(ctx, order("j", 0, "you"))
	if err != nil || lost.Won || lost.Record.By != "me" || lost.SHA256 != first.SHA256 {
		t.Errorf("somebody else's bytes are there: %+v, %v", lost, err)
	}
	read, sha, err := s.Control(ctx, "j", 0)
	if err != nil || !reflect.DeepEqual(read, first.Record) || sha != first.SHA256 {
		t.Errorf("%+v, %v", read, err)
	}
}

// "Unknown" is decided by what is there, never by guessing.
func TestCommitUndecided(t *testing.T) {
	timeout := errors.New("time-out")
	for name, test := range map[string]struct {
		before string // whose order is there already
		fault  func(try int) mem.Fault
		won    bool
		err    error
		puts   int
	}{
		"reply lost, stored":        {fault: func(try int) mem.Fault { return mem.Fault{ErrAfter: timeout} }, won: true, puts: 1},
		"reply lost, mine there":    {before: "me", fault: func(int) mem.Fault { return mem.Fault{ErrAfter: timeout} }, won: true, puts: 1},
		"reply lost, theirs":        {before: "you", fault: func(int) mem.Fault { return mem.Fault{ErrAfter: timeout} }, puts: 1},
		"the request arrives twice": {fault: func(int) mem.Fault { return mem.Fault{Duplicate: true} }, won: true, puts: 1},
		"lost on the way, then stored": {fault: func(try int) mem.Fault {
			if try <= 4 {
				return mem.Fault{ErrBefore: hayrick.ErrUnknown}
			}
			return mem.Fault{}
		}, won: true, puts: 5},
		"never decided": {fault: func(int) mem.Fault { return mem.Fault{ErrBefore: hayrick.ErrUnknown} }, err: hayrick.ErrUnknown, puts: 7},
		"refused":       {fault: func(int) mem.Fault { return mem.Fault{ErrBefore: timeout} }, err: timeout, puts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := newStore()
			if test.before != "" {
				if _, err := s.CommitControl(t.Context(), order("j", 0, test.before)); err != nil {
					t.Fatal(err)
				}
			}
			puts := 0
			m.Hook = func(c mem.Call) mem.Fault {
				if c.Op != "Commit" {
					return mem.Fault{}
				}
				puts++
				return test.fault(puts)
			}
			got, err := s.CommitControl(t.Context(), order("j", 0, "me"))
			if !errors.Is(err, test.err) || got.Won != test.won || puts != test.puts {
				t.Errorf("won %v after %d puts, %v; want %v after %d, %v", got.Won, puts, err, test.won, test.puts, test.err)
			}
			m.Hook = nil
			there, _, err := s.Control(t.Context(), "j", 0)
			if stored := test.err == nil; stored != (err == nil) || stored && (there.By == "me") != test.won {
				t.Errorf("%+v is there (%v)", there, err)
			}
		})
	}
}

// A commit can never be mended, so one that could not be read back is refused.
func TestCommitRefusesTheUnreadable(t *testing.T) {
	s, m := newStore()
	ctx := t.Context()
	for what, commit := range map[string]func() error{
		"no schema":                func() error { _, err := s.CommitControl(ctx, Control{JobID: "j"}); return err },
		"no schema, of an outcome": func() error { _, err := s.CommitOutcome(ctx, Outcome{JobID: "j"}); return err },
		"another number": func() error {
			_, err := s.CommitRetryPlan(ctx, 2, RetryPlan{Schema: SchemaRetryPlan, JobID: "j", RetryID: RetryID(1)})
			return err
		},
		"too large": func() error {
			c := order("j", 0, "me")
			c.Reason = strings.Repeat("x", MaxRecordBytes)
			_, err := s.CommitControl(ctx, c)
			return err
		},
	} {
		if err := commit(); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(m.Commits()) != 0 {
		t.Errorf("stored all the same: %v", m.Commits())
	}
}

// A whole, valid record of another unit is refused under this one's key.
func TestMovedObjects(t *testing.T) {
	s := tell(t)
	ctx := t.Context()
	all := s.mem.Snapshot()
	job, other := Job(storyJob), Job("backfill-20261120-aaaaaa")
	read := map[string]func(Job) error{
		job.Plan():             func(j Job) error { _, _, err := s.Plan(ctx, string(j)); return err },
		job.Done("task-0001"):  func(j Job) error { _, _, err := s.Result(ctx, string(j), "task-0001"); return err },
		job.RetryPlan(1):       func(j Job) error { _, _, err := s.RetryPlan(ctx, string(j), 1); return err },
		job.AggregationPlan(0): func(j Job) error { _, _, err := s.AggregationPlan(ctx, string(j), 0); return err },
		job.Control(0):         func(j Job) error { _, _, err := s.Control(ctx, string(j), 0); return err },
		job.Outcome(0):         func(j Job) error { _, _, err := s.Outcome(ctx, string(j), 0); return err },
		job.Abs(s.plan.Group.Blocks[0].Key): func(j Job) error {
			_, err := s.Block(ctx, string(j), "initial_batch", 0, s.plan.Group.Blocks[0])
			return err
		},
		job.Abs(s.plan.Group.Index[0].Key): func(j Job) error {
			_, err := s.Store.Index(ctx, string(j), "initial_batch", 0, s.plan.Group.Index[0])
			return err
		},
	}
	for key, fn := range read {
		if err := fn(job); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if err := fn(other); !errors.Is(err, hayrick.ErrNotFound) {
			t.Errorf("%s of a job that is not there: %v", key, err)
		}
		s.mem.Damage(other.Abs(job.Rel(key)), all[key])
		if err := fn(other); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s moved to another job: %v", key, err)
		}
	}
	// Within the job, too.
	for to, move := range map[string]struct {
		from string
		read func() error
	}{
		job.Done("task-0002"):   {job.Done("task-0001"), func() error { _, _, err := s.Result(ctx, storyJob, "task-0002"); return err }},
		job.RetryPlan(3):        {job.RetryPlan(1), func() error { _, _, err := s.RetryPlan(ctx, storyJob, 3); return err }},
		job.AggregationPlan(1):  {job.AggregationPlan(0), func() error { _, _, err := s.AggregationPlan(ctx, storyJob, 1); return err }},
		job.Control(1):          {job.Control(0), func() error { _, _, err := s.Control(ctx, storyJob, 1); return err }},
		job.Outcome(1):          {job.Outcome(0), func() error { _, _, err := s.Outcome(ctx, storyJob, 1); return err }},
		job.Done("task-000000"): {job.RetryPlan(1), func() error { _, _, err := s.Result(ctx, storyJob, "task-000000"); return err }},
	} {
		s.mem.Damage(to, all[move.from])
		if err := move.read(); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s moved to %s: %v", move.from, to, err)
		}
	}
	if _, err := s.Block(ctx, storyJob, "initial_batch", 1, s.plan.Group.Blocks[0]); !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("block 0 read as block 1: %v", err)
	}
}

// A flipped bit in data that a commit names is found by its digest.
func TestDataIsChecked(t *testing.T) {
	s := tell(t)
	ctx := t.Context()
	res, _, err := s.Result(ctx, storyJob, "task-0001")
	if err != nil {
		t.Fatal(err)
	}
	key := Job(storyJob).Abs(res.Failures.File)
	body, err := s.Data(ctx, key, res.Failures.SHA256)
	if err != nil || !strings.HasPrefix(string(body), `{"ordinal":3,"key":"did:plc:bbb","class":"rate_limit","disposition":"rate_limit","message":"429 from pds-2","tries":3,"losses":0,"retry_after_ms":1200}`) {
		t.Fatalf("%s, %v", body, err)
	}
	ref := Ref{Key: res.Failures.File, SHA256: res.Failures.SHA256, Count: 1}
	var lines []FailureLine
	if err := ReadLines(ctx, s.Store, storyJob, ref, func(f FailureLine) error { lines = append(lines, f); return nil }); err != nil || len(lines) != 1 || lines[0].Ordinal != 3 {
		t.Errorf("%+v, %v", lines, err)
	}
	for what, r := range map[string]Ref{"count": {ref.Key, ref.SHA256, 2}, "digest": {ref.Key, told("x"), 1}} {
		if err := s.Lines(ctx, storyJob, r, func([]byte) error { return nil }); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("wrong %s: %v", what, err)
		}
	}
	stop := errors.New("stop")
	if err := s.Lines(ctx, storyJob, ref, func([]byte) error { return stop }); err != stop {
		t.Errorf("the caller's error came back as %v", err)
	}
	for i := range body {
		bad := append([]byte(nil), body...)
		bad[i] ^= 1
		s.mem.Damage(key, bad)
		if _, err := s.Data(ctx, key, res.Failures.SHA256); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if err := s.Lines(ctx, storyJob, ref, func([]byte) error { return nil }); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("byte %d flipped, line by line: %v", i, err)
		}
	}
	s.mem.Damage(key, nil)
	if _, err := s.Data(ctx, key, res.Failures.SHA256); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

// A record that reads too large is refused before it is parsed.
func TestRecordsAreBounded(t *testing.T) {
	s, m := newStore()
	key := Job("j").Plan()
	m.Damage(key, make([]byte, MaxRecordBytes+1))
	if _, err := s.Raw(t.Context(), key); !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("%v", err)
	}
	m.Damage(key, make([]byte, MaxRecordBytes))
	if b, err := s.Raw(t.Context(), key); err != nil || len(b) != MaxRecordBytes {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// OpenGroup opens a group in its own generation only.
func TestOpenGroupOfAnotherGeneration(t *testing.T) {
	s := tell(t)
	for _, test := range []struct {
		generation int
		group      string
	}{{1, "retry_batch_1"}, {1, "final_aggregation"}, {0, "retry_batch_2"}, {0, "retry_batch_9"}, {0, "nonsense"}} {
		if g, _, err := s.OpenGroup(t.Context(), storyJob, test.generation, test.group); !errors.Is(err, hayrick.ErrNotFound) {
			t.Errorf("%v opens %+v, %v", test, g, err)
		}
	}
}

func ExampleBatchItem_Label() {
	it := BatchItem{Ordinal: 7, Data: []byte(`{"did":"did:plc:x","n":1.50,"ok":true,"none":null,"deep":{}}`)}
	for _, field := range []string{"did", "n", "ok", "none", "deep", "absent", ""} {
		fmt.Print(it.Label(field), " ")
	}
	fmt.Println(BatchItem{Ordinal: 8, Data: []byte(`{"did":`)}.Label("did"))
	// Output: did:plc:x 1.50 true 7 7 7 7 8
}
