package doctor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hayrick/infra"
)

// well is a store on AWS of which nothing is wrong.
func well(t testing.TB) AWS {
	t.Helper()
	s, err := infra.Resolve(infra.Params{Account: "111122223333", Region: "eu-central-1", Values: map[string]string{"Name": "lab", "BudgetEmail": "a@b"}})
	if err != nil {
		t.Fatal(err)
	}
	a := AWS{
		Store: "lab", Region: "eu-central-1", Account: "111122223333",
		Identity: Known("arn:aws:iam::111122223333:user/x"), BucketRegion: Known("eu-central-1"), Policy: Known(string(s.Bucket().Policy.JSON())),
		Versioning: Known(""), Lifecycle: Known([]Rule{{ID: "abandoned-uploads", AbortDays: 2}, {ID: "doctor", Prefix: "doctor/", ExpireDays: 1}}),
		Public: Known(false), Encryption: Known("AES256"),
		Table: Known(Table{Status: "ACTIVE", Keys: []string{"pk:S:HASH", "sk:S:RANGE"}, Billing: "PAY_PER_REQUEST"}), TTL: Known("expires"),
		Queues: map[string]Fact[Queue]{},
		Worker: Known(Function{State: "Active", LastUpdate: "Successful", Timeout: 300 * time.Second, MemoryMiB: 2048}), Sweeper: Known(Function{State: "Active", Timeout: 300 * time.Second, MemoryMiB: 512}),
		Reserved: Known(55), Mapping: Known(Mapping{Found: 1, State: "Enabled", Batch: 1, Most: 50, Reported: true}),
		Loop: Known("Allow"), Limit: Known(Limit{1000, 900}), Clock: Known(Clock{-300 * time.Millisecond, 700 * time.Millisecond}),
		Race: Known(Race{Writers: 64, Winners: []int{1, 1, 1}}),
	}
	for _, q := range s.Queues() {
		f := Queue{ARN: q.ARN, DeadLetter: q.DeadLetter, MaxReceive: q.MaxReceive, Visibility: 1800 * time.Second, Retention: 7 * 24 * time.Hour}
		if q.DeadLetter == "" {
			f.Retention *= 2
		}
		a.Queues[q.Name] = Known(f)
		if strings.HasSuffix(q.Name, "-tasks") {
			a.Mapping.Value.Source = q.ARN
		}
	}
	return a
}

func TestAWell(t *testing.T) {
	lines, err := JudgeAWS(well(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.Status != OK || l.What == "" || l.Check == "" {
			t.Errorf("%+v", l)
		}
	}
	if len(lines) < 18 || Worst(lines) != 0 {
		t.Errorf("%d lines, exit %d", len(lines), Worst(lines))
	}
}

// Each fault is seen on its own line, and on no other that was well.
func TestEachFault(t *testing.T) {
	queue := func(a *AWS, change func(*Queue)) {
		f := a.Queues["lab-tasks"]
		change(&f.Value)
		a.Queues["lab-tasks"] = f
	}
	mapping := func(change func(*Mapping)) func(*AWS) { return func(a *AWS) { change(&a.Mapping.Value) } }
	for _, c := range []struct {
		name  string
		fault func(*AWS)
		check string
		want  Status
		exit  int
		says  string // of what or fix
	}{
		{"no credentials", func(a *AWS) { a.Identity = Fact[string]{Why: Denied, Err: "there are no AWS credentials"} }, "credentials", Fail, 5, "sso login"},
		{"expired", func(a *AWS) { a.Identity = Fact[string]{Why: Broken, Err: "ExpiredToken"} }, "credentials", Fail, 5, "Expired"},
		{"elsewhere", func(a *AWS) { a.BucketRegion = Known("us-west-2") }, "bucket region", Fail, 3, "AWS_REGION=us-west-2"},
		{"no bucket", func(a *AWS) { a.BucketRegion = Fact[string]{Why: Missing} }, "bucket region", Fail, 4, "infra up"},
		{"another's bucket", func(a *AWS) { a.BucketRegion = Fact[string]{Why: Denied} }, "bucket region", Fail, 5, "another account"},
		{"two winners", func(a *AWS) { a.Race.Value.Winners[1] = 2 }, "conditional writes", Fail, 3, "1 of 3 rounds"},
		{"overwritten", func(a *AWS) { a.Race.Value.Lost = 1 }, "conditional writes", Fail, 3, "another's bytes"},
		{"no winner", func(a *AWS) { a.Race.Value.Winners[1] = 0 }, "conditional writes", Warn, 0, "nobody"},
		{"no race", func(a *AWS) { a.Race.Value.Winners = nil }, "conditional writes", Warn, 0, "no round"},
		{"race denied", func(a *AWS) { a.Race = Fact[Race]{Why: Denied, Err: "AccessDenied"} }, "conditional writes", Fail, 5, "may only read"},
		{"race failed", func(a *AWS) { a.Race = Fact[Race]{Why: Broken, Err: "500"} }, "conditional writes", Warn, 0, "run it again"},
		{"no policy", func(a *AWS) { a.Policy = Fact[string]{Why: Missing} }, "bucket policy", Fail, 3, "infra up"},
		{"unread policy", func(a *AWS) { a.Policy.Value = "{" }, "bucket policy", Warn, 0, "cannot be judged"},
		{"public", func(a *AWS) { a.Public = Known(true) }, "public access", Fail, 3, "blocked"},
		{"in the clear", func(a *AWS) { a.Encryption = Fact[string]{Why: Missing} }, "encryption", Warn, 0, "default"},
		{"versions", func(a *AWS) { a.Versioning = Known("Enabled") }, "versioning", Warn, 0, "suspend"},
		{"no lifecycle", func(a *AWS) { a.Lifecycle = Fact[[]Rule]{Why: Missing} }, "lifecycle", Warn, 0, "uploads"},
		{"half a lifecycle", func(a *AWS) { a.Lifecycle.Value = a.Lifecycle.Value[1:] }, "lifecycle", Warn, 0, "uploads"},
		{"output expires", func(a *AWS) { a.Lifecycle.Value = append(a.Lifecycle.Value, Rule{ID: "all", ExpireDays: 30}) }, "lifecycle", Warn, 0, "output"},
		{"no table", func(a *AWS) { a.Table = Fact[Table]{Why: Missing} }, "table", Fail, 4, "infra up"},
		{"other keys", func(a *AWS) { a.Table.Value.Keys = []string{"pk:S:HASH"} }, "table", Fail, 3, "cache"},
		{"a number for a key", func(a *AWS) { a.Table.Value.Keys[1] = "sk:N:RANGE" }, "table", Fail, 3, "cache"},
		{"table in the making", func(a *AWS) { a.Table.Value.Status = "CREATING" }, "table", Fail, 3, "ACTIVE"},
		{"provisioned", func(a *AWS) { a.Table.Value.Billing = "PROVISIONED" }, "table", Warn, 0, "idle"},
		{"no TTL", func(a *AWS) { a.TTL = Known("") }, "table TTL", Warn, 0, "expires"},
		{"no queue", func(a *AWS) { a.Queues["lab-tasks"] = Fact[Queue]{Why: Missing} }, "queue lab-tasks", Fail, 4, "infra up"},
		{"short visibility", func(a *AWS) { queue(a, func(q *Queue) { q.Visibility = 299 * time.Second }) }, "queue lab-tasks", Fail, 3, "twice"},
		{"tight visibility", func(a *AWS) { queue(a, func(q *Queue) { q.Visibility = 1799 * time.Second }) }, "queue lab-tasks", Warn, 0, "six times"},
		{"no dead letters", func(a *AWS) { queue(a, func(q *Queue) { q.DeadLetter = "" }) }, "queue lab-tasks", Warn, 0, "for ever"},
		{"foreign dead letters", func(a *AWS) { queue(a, func(q *Queue) { q.DeadLetter = "arn:x" }) }, "queue lab-tasks", Warn, 0, "arn:x"},
		{"few deliveries", func(a *AWS) { queue(a, func(q *Queue) { q.MaxReceive = 9 }) }, "queue lab-tasks", Fail, 3, "9 deliveries"},
		{"long retention", func(a *AWS) { queue(a, func(q *Queue) { q.Retention = 14 * 24 * time.Hour }) }, "queue lab-tasks", Warn, 0, "keeps its age"},
		{"dead messages", func(a *AWS) { f := a.Queues["lab-dead"]; f.Value.Messages = 3; a.Queues["lab-dead"] = f }, "queue lab-dead", Warn, 0, "3 messages"},
		{"function failed", func(a *AWS) { a.Worker.Value.State = "Failed" }, "worker function", Fail, 3, "Failed"},
		{"update failed", func(a *AWS) { a.Sweeper.Value.LastUpdate = "Failed" }, "sweeper function", Fail, 3, "update"},
		{"no sweeper", func(a *AWS) { a.Sweeper = Fact[Function]{Why: Missing} }, "sweeper function", Fail, 3, "missing"},
		{"no event source", mapping(func(m *Mapping) { m.Found = 0 }), "event source", Fail, 3, "nothing hands"},
		{"two event sources", mapping(func(m *Mapping) { m.Found = 2 }), "event source", Warn, 0, "2 event sources"},
		{"another queue", mapping(func(m *Mapping) { m.Source = "arn:y" }), "event source", Fail, 3, "arn:y"},
		{"disabled", mapping(func(m *Mapping) { m.State = "Disabled" }), "event source", Fail, 3, "Disabled"},
		{"whole batches", mapping(func(m *Mapping) { m.Reported, m.Batch = false, 10 }), "event source", Fail, 3, "9 others"},
		{"unreported", mapping(func(m *Mapping) { m.Reported = false }), "event source", Warn, 0, "asked for again"},
		{"no bound", mapping(func(m *Mapping) { m.Most = 0 }), "event source", Fail, 3, "MaximumConcurrency"},
		{"the trap", func(a *AWS) { a.Reserved = Known(50) }, "reserved concurrency", Fail, 3, "healthy messages die"},
		{"reserved 0", func(a *AWS) { a.Reserved = Known(0) }, "reserved concurrency", Fail, 3, "never runs"},
		{"unreserved", func(a *AWS) { a.Reserved = Known(-1) }, "reserved concurrency", Warn, 0, "take all of it"},
		{"loop", func(a *AWS) { a.Loop = Known("Terminate") }, "recursive loop", Fail, 3, "16th"},
		{"small account", func(a *AWS) { a.Limit = Known(Limit{10, 10}) }, "Lambda quota", Warn, 0, "Service Quotas"},
		{"smaller than the mapping", func(a *AWS) { a.Limit, a.Mapping.Value.Most, a.Reserved = Known(Limit{400, 400}), 500, Known(550) }, "Lambda quota", Warn, 0, "MaxConcurrency"},
		{"a clock ahead", func(a *AWS) { a.Clock = Known(Clock{-6 * time.Minute, -5 * time.Minute}) }, "clock", Fail, 3, "5m0s fast"},
		{"a clock behind", func(a *AWS) { a.Clock = Known(Clock{5 * time.Second, 6 * time.Second}) }, "clock", Warn, 0, "5s slow"},
	} {
		a := well(t)
		c.fault(&a)
		lines, err := JudgeAWS(a)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(lines, func(l Line) bool { return l.Check == c.check })
		if i < 0 || lines[i].Status != c.want || !strings.Contains(lines[i].What+" "+lines[i].Fix, c.says) || lines[i].Fix == "" {
			t.Errorf("%s: %+v, want %s of %s", c.name, lines, c.want, c.check)
			continue
		}
		if got := Worst(lines); got != c.exit {
			t.Errorf("%s: exit %d, want %d", c.name, got, c.exit)
		}
		for j, l := range lines {
			if j != i && l.Status != OK {
				t.Errorf("%s: also %+v", c.name, l)
			}
		}
	}
}

// What is not shown is never ok, and never FAIL.
func TestNotShown(t *testing.T) {
	a := well(t)
	a.StandIn = true
	a.Identity = Fact[string]{Why: NotShown, Err: "x"}
	a.Policy, a.Public, a.Lifecycle = Fact[string]{Why: NotShown, Err: "x"}, Fact[bool]{Why: NotShown, Err: "x"}, Fact[[]Rule]{Why: NotShown, Err: "x"}
	a.Worker, a.Sweeper, a.Mapping = Fact[Function]{Why: NotShown, Err: "x"}, Fact[Function]{Why: NotShown, Err: "x"}, Fact[Mapping]{Why: NotShown, Err: "x"}
	a.BucketRegion = Known("")
	lines, err := JudgeAWS(a)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range lines {
		if l.Status == Unshown {
			n++
		}
	}
	if n != 8 || Worst(lines) != 0 {
		t.Errorf("%d lines are not shown, exit %d: %+v", n, Worst(lines), lines)
	}
	a = well(t)
	a.Worker = Fact[Function]{Why: Missing}
	if lines, _ := JudgeAWS(a); Worst(lines) != 0 || !slices.ContainsFunc(lines, func(l Line) bool { return l.Check == "functions" && l.Status == OK }) {
		t.Errorf("a store without functions: %+v", lines)
	}
}

// Every statement of the bucket's policy is missed.
func TestBucketPolicyIsJudged(t *testing.T) {
	p, err := infra.ParsePolicy("bucket", []byte(well(t).Policy.Value))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range p.Statements {
		a, without := well(t), p
		without.Statements = slices.Delete(slices.Clone(p.Statements), i, i+1)
		a.Policy = Known(string(without.JSON()))
		lines, err := JudgeAWS(a)
		if err != nil {
			t.Fatal(err)
		}
		if Worst(lines) != 3 {
			t.Errorf("nobody misses %s", s.Sid)
		}
	}
}

func TestLocal(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	good := func() Local {
		return Local{
			Folder: "x", Made: true, Writable: Known(true), Free: Known(int64(100) << 30), FreeFiles: Known(int64(1 << 20)), Sync: Known(time.Millisecond),
			Race: Known(Race{Writers: 64, Winners: []int{1}}), Lock: Known(true), OpenFiles: Known(int64(1024)), Skew: Known(time.Duration(0)), Now: now,
		}
	}
	for _, c := range []struct {
		name  string
		fault func(*Local)
		check string
		want  Status
		exit  int
	}{
		{"well", func(*Local) {}, "folder", OK, 0},
		{"new", func(l *Local) { l.Made = false }, "folder", OK, 0},
		{"unwritable", func(l *Local) { l.Writable = Fact[bool]{Why: Broken, Err: "no"} }, "folder", Fail, 5},
		{"network", func(l *Local) { l.FileSystem = "NFS" }, "file system", Fail, 3},
		{"full", func(l *Local) { l.Free = Known(int64(10 << 20)) }, "disk space", Fail, 3},
		{"nearly full", func(l *Local) { l.Free = Known(int64(1 << 30)) }, "disk space", Warn, 0},
		{"few files", func(l *Local) { l.FreeFiles = Known(int64(10)) }, "files on disk", Warn, 0},
		{"uncounted files", func(l *Local) { l.FreeFiles = Known(int64(-1)) }, "files on disk", OK, 0},
		{"slow", func(l *Local) { l.Sync = Known(time.Second) }, "fsync", Warn, 0},
		{"two winners", func(l *Local) { l.Race.Value.Winners = []int{2} }, "put if absent", Fail, 3},
		{"no lock", func(l *Local) { l.Lock = Known(false) }, "locks", Fail, 3},
		{"lock unknown", func(l *Local) { l.Lock = Fact[bool]{Why: Broken, Err: "ENOLCK"} }, "locks", Warn, 0},
		{"few open files", func(l *Local) { l.OpenFiles = Known(int64(64)) }, "open files", Warn, 0},
		{"files of tomorrow", func(l *Local) { l.Newest = now.Add(24 * time.Hour) }, "clock", Warn, 0},
		{"another clock", func(l *Local) { l.Skew = Known(-time.Minute) }, "clock", Warn, 0},
	} {
		l := good()
		c.fault(&l)
		lines := JudgeLocal(l)
		i := slices.IndexFunc(lines, func(l Line) bool { return l.Check == c.check })
		if i < 0 || lines[i].Status != c.want || Worst(lines) != c.exit || (c.want != OK && lines[i].Fix == "") {
			t.Errorf("%s: %+v", c.name, lines)
		}
		for j, o := range lines {
			if j != i && o.Status != OK {
				t.Errorf("%s: also %+v", c.name, o)
			}
		}
	}
}
