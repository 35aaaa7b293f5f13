package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hayrick/infra"
)

// Status is how a line ends.
type Status string

// The states, from good to bad.
const (
	OK      Status = "ok"
	Unshown Status = "not shown here"
	Warn    Status = "warn"
	Fail    Status = "FAIL"
)

// Line is one thing that was looked at.
type Line struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	What   string `json:"what"`
	Fix    string `json:"fix,omitempty"`

	exit int
}

// The exit codes of cmd/hayrick that a store asks for.
const (
	exitUnwell     = 3
	exitNotFound   = 4
	exitPermission = 5
)

// Worst is the exit code of lines: 0 unless one is FAIL.
func Worst(lines []Line) int {
	code := 0
	for _, l := range lines {
		switch {
		case l.Status != Fail:
		case l.exit == exitPermission: // without it nothing else is known
			return exitPermission
		case code == 0 || l.exit == exitNotFound:
			code = l.exit
		}
	}
	return code
}

func ok(check, format string, args ...any) Line {
	return Line{Check: check, Status: OK, What: fmt.Sprintf(format, args...)}
}

func warn(check, fix, format string, args ...any) Line {
	return Line{Check: check, Status: Warn, What: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(check, fix, format string, args ...any) Line {
	return Line{Check: check, Status: Fail, What: fmt.Sprintf(format, args...), Fix: fix, exit: exitUnwell}
}

// judge is a line about a fact: what judged says of it when it is known. missing is the
// line when the thing is not there.
func judge[T any](check string, f Fact[T], missing Line, judged func(T) Line) Line {
	switch f.Why {
	case "":
		l := judged(f.Value)
		l.Check = check
		return l
	case Missing:
		missing.Check = check
		return missing
	case NotShown:
		return Line{Check: check, Status: Unshown, What: f.Err}
	case Denied:
		return warn(check, "run doctor with the rights of who makes the store (docs/aws.md), or live with not knowing", "these credentials may not look: %s", f.Err)
	}
	return warn(check, "run it again; -vv says more", "the request failed: %s", f.Err)
}

const (
	makeIt  = "hayrick infra up makes the store"
	bringUp = "hayrick infra up brings it back to what the template says"
)

// JudgeAWS says how a store on AWS is.
func JudgeAWS(a AWS) ([]Line, error) {
	want, err := expected(a)
	if err != nil {
		return nil, err
	}
	identity := judge("credentials", a.Identity, Line{}, func(who string) Line { return ok("", "%s", who) })
	if a.Identity.Why == Denied || a.Identity.Why == Broken {
		identity = fail("credentials", "set AWS_PROFILE, or log in: `aws sso login`; check the clock of this machine", "%s", a.Identity.Err)
		identity.exit = exitPermission
	}
	noBucket := fail("", makeIt+"; or check its name and AWS_REGION", "there is no bucket %s", a.Store)
	noBucket.exit = exitNotFound
	region := judge("bucket region", a.BucketRegion, noBucket, func(at string) Line { return judgeRegion(a, at) })
	if a.BucketRegion.Why == Denied {
		region = fail("bucket region", "check the name: it may be another account's; the submitter's policy is enough to look", "the bucket %s refuses these credentials", a.Store)
		region.exit = exitPermission
	}
	lines := []Line{identity, region}
	if a.BucketRegion.Why == "" {
		lines = append(lines,
			judgeWrites(a.Race),
			judge("bucket policy", a.Policy, fail("", bringUp, "there is none: nothing but good manners keeps commits from being written twice, or sent in the clear"), func(p string) Line { return judgePolicy(p, want) }),
			judge("public access", a.Public, Line{}, func(open bool) Line {
				if open {
					return fail("", bringUp, "not all of it is blocked")
				}
				return ok("", "blocked")
			}),
			judge("encryption", a.Encryption, warn("", bringUp, "the bucket has no default"), func(alg string) Line { return ok("", "%s at rest", alg) }),
			judge("versioning", a.Versioning, Line{}, judgeVersioning),
			judge("lifecycle", a.Lifecycle, warn("", bringUp, "there is none: what a crash leaves of uploads in parts is billed for ever"), judgeLifecycle),
		)
	}
	noTable := fail("", makeIt, "there is no table %s", want.Table().Name)
	noTable.exit = exitNotFound
	lines = append(lines, judge("table", a.Table, noTable, func(t Table) Line { return judgeTable(t, want.Table()) }))
	if a.Table.Why == "" {
		lines = append(lines, judge("table TTL", a.TTL, Line{}, func(got string) Line { return judgeTTL(got, want.Table()) }))
	}
	lines = append(lines, judgeQueues(a)...)
	lines = append(lines, judgeFunctions(a)...)
	return append(lines, judge("clock", a.Clock, Line{}, judgeClock)), nil
}

// expected is what the template makes of the store.
func expected(a AWS) (*infra.Stack, error) {
	account := a.Account
	if account == "" {
		account = "000000000000"
	}
	return infra.Resolve(infra.Params{Values: map[string]string{"Name": a.Store, "BudgetEmail": "nobody@example.invalid"}, Account: account, Region: a.Region})
}

func judgeRegion(a AWS, at string) Line {
	switch {
	case at == "" && a.StandIn:
		return Line{Status: Unshown, What: "the stand-in names no region"}
	case at == "" || at == a.Region:
		return ok("", "%s, as requests go", a.Region)
	}
	return fail("", "export AWS_REGION="+at, "the bucket is in %s, requests go to %s: no table, queue or function would be found", at, a.Region)
}

// judgeWrites is the line about the race. Who may not write there can submit nothing, so
// that it is not well for them, however much they may look at.
func judgeWrites(f Fact[Race]) Line {
	if f.Why == Denied {
		l := fail("conditional writes", "look on as a viewer (status, ls, inspect, audit); to submit or run, take credentials with the submitter's policy (docs/aws.md)", "these credentials may only read here, a viewer's: writes are refused: %s", f.Err)
		l.exit = exitPermission
		return l
	}
	return judge("conditional writes", f, Line{}, judgeRace)
}

func judgeRace(r Race) Line {
	doubled, none := 0, 0
	for _, n := range r.Winners {
		switch {
		case n > 1:
			doubled++
		case n == 0:
			none++
		}
	}
	switch rounds := len(r.Winners); {
	case rounds == 0:
		return warn("", "run it again", "no round was run")
	case doubled > 0:
		return fail("", "this S3 does not hold put-if-absent (If-None-Match): results could be doubled or lost. Use another", "in %d of %d rounds of %d writers more than one was told that its bytes are stored", doubled, rounds, r.Writers)
	case r.Lost > 0:
		return fail("", "this S3 does not hold put-if-absent (If-None-Match): results could be doubled or lost. Use another", "after %d of %d rounds another's bytes were there than the winner's", r.Lost, rounds)
	case none > 0:
		return warn("", "run it again; when it stays so, this S3 decides nothing under load", "in %d of %d rounds of %d writers nobody was told that its bytes are stored (%d got no answer)", none, rounds, r.Writers, r.Unknown)
	default:
		return ok("", "one winner in each of %d rounds of %d writers", rounds, r.Writers)
	}
}

// judgePolicy asks the bucket's own policy what it makes of requests that must not pass,
// and of one that must.
func judgePolicy(text string, want *infra.Stack) Line {
	p, err := infra.ParsePolicy("bucket", []byte(text))
	if err != nil {
		return warn("", "compare it with hayrick infra print", "the policy cannot be judged: %v", err)
	}
	everything, err := infra.ParsePolicy("everything", []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`))
	if err != nil {
		return fail("", "", "%v", err)
	}
	arn := want.Bucket().ARN
	ours := map[string][]string{"aws:SecureTransport": {"true"}, "s3:TlsVersion": {"1.3"}, "aws:PrincipalAccount": {account(want)}}
	but := func(key, value string) map[string][]string {
		c := maps.Clone(ours)
		if c[key] = []string{value}; value == "" {
			delete(c, key)
		}
		return c
	}
	var open []string
	for _, ask := range []struct {
		action, key string
		context     map[string][]string
		pass        bool
		what        string
	}{
		{"s3:PutObject", "jobs/run-1/plan.json", ours, false, "a commit may be written over"},
		{"s3:PutObject", "jobs/run-1/tasks/task-0000/results.done", ours, false, "a result may be written over"},
		{"s3:PutObject", "jobs/run-1/outcome-0.json", ours, false, "an outcome may be written over"},
		{"s3:GetObject", "jobs/run-1/plan.json", but("aws:SecureTransport", "false"), false, "objects may be read in the clear"},
		{"s3:GetObject", "jobs/run-1/plan.json", but("s3:TlsVersion", "1.1"), false, "objects may be read over an old TLS"},
		{"s3:GetObject", "jobs/run-1/plan.json", but("aws:PrincipalAccount", "999999999999"), false, "another account may be let in"},
		{"s3:PutObject", "jobs/run-1/plan.json", but("s3:if-none-match", "*"), true, "a commit may not be written at all"},
		{"s3:PutObject", "jobs/run-1/manifest.json", ours, true, "a view may not be written"},
	} {
		d, err := infra.Evaluate([]infra.Policy{everything, p}, infra.Request{Action: ask.action, Resource: arn + "/" + ask.key, Context: ask.context})
		if err != nil {
			return warn("", "compare it with hayrick infra print", "the policy cannot be judged: %v", err)
		}
		if d.Allowed != ask.pass {
			open = append(open, ask.what)
		}
	}
	if len(open) > 0 {
		return fail("", bringUp, "%s", strings.Join(open, "; "))
	}
	return ok("", "commits are written once; TLS 1.2 and this account only")
}

func account(s *infra.Stack) string {
	for _, q := range s.Queues() {
		if f := strings.Split(q.ARN, ":"); len(f) == 6 {
			return f[4]
		}
	}
	return ""
}

func judgeVersioning(v string) Line {
	if v == "Enabled" {
		return warn("", "suspend it: nothing here needs versions", "every rewritten view is kept and billed, and what the lifecycle removes stays as a version")
	}
	return ok("", "off")
}

func judgeLifecycle(rules []Rule) Line {
	abort, expire := 0, []string{}
	for _, r := range rules {
		if r.AbortDays > 0 && r.Prefix == "" {
			abort = r.AbortDays
		}
		if r.ExpireDays > 0 && r.Prefix != "doctor/" && r.Prefix != "jobs/" {
			expire = append(expire, fmt.Sprintf("%s removes %q after %d days", r.ID, r.Prefix, r.ExpireDays))
		}
	}
	switch {
	case len(expire) > 0:
		return warn("", "narrow the rule to jobs/ (the template's KeepDays)", "%s: published output would go too", strings.Join(expire, "; "))
	case abort == 0:
		return warn("", bringUp, "what a crash leaves of uploads in parts is billed for ever")
	}
	return ok("", "abandoned uploads go after %d days", abort)
}

func judgeTable(got Table, want infra.Table) Line {
	var keys []string
	for i, k := range want.Keys {
		keys = append(keys, k.Name+":"+want.Attributes[i].Type+":"+k.Type)
	}
	switch {
	case !slices.Equal(got.Keys, keys):
		return fail("", "delete the table and run hayrick infra up: it is a cache, and is made again from the objects", "its keys are %s, not %s", strings.Join(got.Keys, " "), strings.Join(keys, " "))
	case got.Status != "ACTIVE" && got.Status != "UPDATING":
		return fail("", "wait until it is ACTIVE", "the table is %s", got.Status)
	case got.Billing != want.Billing:
		return warn("", bringUp, "it is billed as %s: a burst of workers is throttled, and idle hours cost", got.Billing)
	}
	return ok("", "%s, paid by request", got.Status)
}

func judgeTTL(got string, want infra.Table) Line {
	if got != want.TTL {
		return warn("", bringUp, "items end by %q, not by %q: what is over stays for ever", got, want.TTL)
	}
	return ok("", "items end by %s", got)
}

// leastReceives is how often a message has to be allowed to come: each look at a task
// that another has counts.
const leastReceives = 10

func judgeQueues(a AWS) []Line {
	var lines []Line
	byARN := map[string]Queue{}
	for _, q := range a.Queues {
		byARN[q.Value.ARN] = q.Value
	}
	for _, name := range slices.Sorted(maps.Keys(a.Queues)) {
		none := fail("", makeIt, "there is no such queue")
		none.exit = exitNotFound
		lines = append(lines, judge("queue "+name, a.Queues[name], none, func(q Queue) Line {
			if strings.HasSuffix(name, "-dead") {
				return judgeDead(q)
			}
			return judgeQueue(q, a.Worker, byARN)
		}))
	}
	return lines
}

func judgeDead(q Queue) Line {
	if q.Messages > 0 {
		return warn("", "look at what made them come back; the sweeper sends their tasks again", "%d messages were delivered too often", q.Messages)
	}
	return ok("", "empty; a message stays for %s", days(q.Retention))
}

func judgeQueue(q Queue, worker Fact[Function], byARN map[string]Queue) Line {
	dead, there := byARN[q.DeadLetter]
	timeout := time.Duration(0)
	if worker.Why == "" {
		timeout = worker.Value.Timeout
	}
	switch {
	case q.DeadLetter == "":
		return warn("", bringUp, "a message that kills its worker comes back for ever")
	case !there:
		return warn("", bringUp, "its dead letters go to %s, which is not this store's", q.DeadLetter)
	case q.MaxReceive < leastReceives:
		return fail("", bringUp, "a message dies after %d deliveries, and one that is only put back counts: healthy ones would", q.MaxReceive)
	case q.Visibility < timeout:
		return fail("", bringUp, "messages are hidden for %s, the function takes up to %s: every long task would run twice", seconds(q.Visibility), seconds(timeout))
	case q.Visibility < 6*timeout:
		return warn("", bringUp, "messages are hidden for %s; six times the function's %s is what its event source wants", seconds(q.Visibility), seconds(timeout))
	case dead.Retention <= q.Retention:
		return warn("", bringUp, "a dead message keeps its age: after %s here, %s there leave no time to look at it", days(q.Retention), days(dead.Retention))
	}
	return ok("", "hidden for %s, %d deliveries, %d messages", seconds(q.Visibility), q.MaxReceive, q.Messages)
}

func judgeFunctions(a AWS) []Line {
	if a.Worker.Why == Missing {
		return []Line{ok("functions", "none: work is done by `hayrick worker`")}
	}
	none := fail("", bringUp, "it is missing")
	lines := []Line{
		judge("worker function", a.Worker, none, judgeFunction),
		judge("sweeper function", a.Sweeper, none, judgeFunction),
		judge("event source", a.Mapping, fail("", bringUp, "nothing hands tasks to the function"), func(m Mapping) Line { return judgeMapping(m, a) }),
		judge("reserved concurrency", a.Reserved, Line{}, func(n int) Line { return judgeReserved(n, a.Mapping) }),
		judge("recursive loop", a.Loop, Line{}, func(loop string) Line {
			if loop != "Allow" {
				return fail("", bringUp, "%s: AWS drops a task that is handed back or tried again for the 16th time", loop)
			}
			return ok("", "allowed; retry.passes bounds it")
		}),
		judge("Lambda quota", a.Limit, Line{}, func(l Limit) Line { return judgeLimit(l, a.Mapping) }),
	}
	return lines
}

func judgeFunction(f Function) Line {
	switch {
	case f.State != "" && f.State != "Active" && f.State != "Inactive": // Inactive: idle for weeks, the next call wakes it
		return fail("", "wait a minute and look again; else "+bringUp, "it is %s", f.State)
	case f.LastUpdate == "Failed":
		return fail("", bringUp, "its last update failed")
	}
	return ok("", "%d MiB, %s at most", f.MemoryMiB, seconds(f.Timeout))
}

func judgeMapping(m Mapping, a AWS) Line {
	tasks := ""
	for name, q := range a.Queues {
		if strings.HasSuffix(name, "-tasks") {
			tasks = q.Value.ARN
		}
	}
	switch {
	case m.Found == 0:
		return fail("", bringUp, "nothing hands tasks to the function")
	case m.Found > 1:
		return warn("", "remove all but that of the tasks queue", "the function has %d event sources", m.Found)
	case tasks != "" && m.Source != tasks:
		return fail("", bringUp, "it drains %s, not the tasks queue", m.Source)
	case m.State != "Enabled" && m.State != "Enabling" && m.State != "Updating" && m.State != "Creating":
		return fail("", bringUp+"; in the Lambda console it can be enabled", "it is %s", m.State)
	case !m.Reported && m.Batch > 1:
		return fail("", bringUp, "without ReportBatchItemFailures one message that has to come again brings %d others back", m.Batch-1)
	case !m.Reported:
		return warn("", bringUp, "without ReportBatchItemFailures a message cannot be asked for again")
	case m.Most == 0:
		return fail("", bringUp, "there is no MaximumConcurrency: pollers take more than the function may run, each refusal counts as a delivery, and healthy messages die")
	}
	return ok("", "%s, %d at once, %d a call", m.State, m.Most, m.Batch)
}

func judgeReserved(n int, m Fact[Mapping]) Line {
	switch {
	case n < 0:
		return warn("", bringUp, "none: other functions of the account can take all of it, and messages count deliveries meanwhile")
	case n == 0:
		return fail("", bringUp, "0: the function never runs")
	case m.Why == "" && m.Value.Most >= n:
		return fail("", bringUp, "%d, and the event source may use %d: refused calls count as deliveries, and healthy messages die", n, m.Value.Most)
	}
	return ok("", "%d", n)
}

// leastUnreserved is what AWS keeps free for functions that reserve nothing.
const leastUnreserved = 100

func judgeLimit(l Limit, m Fact[Mapping]) Line {
	switch {
	case l.Concurrency < leastUnreserved:
		return warn("", "ask AWS for more: Service Quotas, Lambda, Concurrent executions", "the account may run %d functions at once: nothing can be reserved of that", l.Concurrency)
	case m.Why == "" && m.Value.Most > l.Concurrency:
		return warn("", "ask AWS for more (Service Quotas, Lambda, Concurrent executions), or hayrick infra up --set MaxConcurrency=<less>", "the account may run %d functions at once, the event source %d", l.Concurrency, m.Value.Most)
	}
	return ok("", "%d at once in this account, %d of them unreserved", l.Concurrency, l.Unreserved)
}

// judgeClock: AWS refuses signatures that are five minutes off; leases and tokens go by
// the service's clock, so that less does no harm.
func judgeClock(c Clock) Line {
	off := min(max(0, c.Low), c.High)
	switch {
	case off.Abs() > 4*time.Minute:
		return fail("", "set the clock: timedatectl set-ntp true", "this machine is %s: AWS refuses signatures from five minutes on", ahead(off))
	case off.Abs() > time.Second:
		return warn("", "set the clock: timedatectl set-ntp true", "this machine is %s; Hayrick goes by the service's", ahead(off))
	}
	return ok("", "within a second of the service's")
}

// ahead is a difference as people say it: off is what has to be added to this clock.
func ahead(off time.Duration) string {
	if off < 0 {
		return off.Abs().Round(time.Millisecond).String() + " fast"
	}
	return off.Round(time.Millisecond).String() + " slow"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%d s", int(d.Seconds())) }

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// What a local store needs to work at all, and to work without somebody watching.
const (
	leastFree  = 256 << 20
	enoughFree = 5 << 30
	leastFiles = 256
	slowSync   = 100 * time.Millisecond
)

// JudgeLocal says how a store on this machine is, or would be.
func JudgeLocal(l Local) []Line {
	lines := []Line{judge("folder", l.Writable, Line{}, func(bool) Line {
		if !l.Made {
			return ok("", "%s: there is no store yet, and one can be made", l.Folder)
		}
		return ok("", "%s", l.Folder)
	})}
	if l.Writable.Why != "" {
		lines[0] = fail("folder", "make it writable for you, or name another with -C", "nothing can be written in %s: %s", l.Folder, l.Writable.Err)
		lines[0].exit = exitPermission
		return lines
	}
	switch l.FileSystem {
	case "":
		lines = append(lines, ok("file system", "a local one"))
	default:
		lines = append(lines, fail("file system", "name a folder on a local disk with -C, or a store that several machines can share: s3://<name>", "%s: the state of a job would be damaged", l.FileSystem))
	}
	return append(lines,
		judge("disk space", l.Free, Line{}, func(n int64) Line {
			switch {
			case n < leastFree:
				return fail("", "make room, or name another folder with -C", "%d MiB are free", n>>20)
			case n < enoughFree:
				return warn("", "make room: a run that meets a full disk stops, and goes on afterwards", "%d MiB are free", n>>20)
			}
			return ok("", "%d GiB are free", n>>30)
		}),
		judge("files on disk", l.FreeFiles, Line{}, func(n int64) Line {
			if n >= 0 && n < 100_000 {
				return warn("", "make room: a task makes three to five files", "%d more can be made", n)
			}
			return ok("", "enough can be made")
		}),
		judge("fsync", l.Sync, Line{}, func(d time.Duration) Line {
			if d > slowSync {
				return warn("", "name a folder on a faster disk with -C: every task waits for it", "it takes %s", d.Round(time.Millisecond))
			}
			return ok("", "it takes %s", d.Round(10*time.Microsecond))
		}),
		judge("put if absent", l.Race, Line{}, judgeLinks),
		judge("locks", l.Lock, Line{}, func(held bool) Line {
			if !held {
				return fail("", "name a folder on a local disk with -C", "flock lets a second holder in: two processes would write one journal")
			}
			return ok("", "flock holds")
		}),
		judge("open files", l.OpenFiles, Line{}, func(n int64) Line {
			if n < leastFiles {
				return warn("", "ulimit -n 1024", "%d at most: a merge of many results stops", n)
			}
			return ok("", "%d at most", n)
		}),
		judge("clock", l.Skew, Line{}, func(d time.Duration) Line {
			switch {
			case l.Newest.After(l.Now.Add(time.Minute)):
				return warn("", "set the clock: timedatectl set-ntp true", "the store has files from %s, which is in the future: leases and waits go by this clock", l.Newest.UTC().Format(time.RFC3339))
			case d.Abs() > 2*time.Second:
				return warn("", "set the clocks of both machines", "the file system's is %s beside this one's", ahead(d))
			}
			return ok("", "nothing speaks against it")
		}),
	)
}

func judgeLinks(r Race) Line {
	l := judgeRace(r)
	if l.Status == Fail {
		l.Fix = "name a folder on a local disk with -C: link() does not put if absent here"
	}
	return l
}
