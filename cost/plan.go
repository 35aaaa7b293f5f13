package cost

import (
	"time"

	"hayrick/manifest"
)

// Op is what is counted: requests of one price.
type Op string

// The operations, in the order of a bill.
const (
	S3Write      Op = "s3_write" // PUT, COPY, POST
	S3List       Op = "s3_list"
	S3Read       Op = "s3_read"         // GET, HEAD
	DBWrite      Op = "dynamodb_write"  // requests; billed by request units of 1 KB
	DBRead       Op = "dynamodb_read"   // requests; billed by request units of 4 KB
	SQS          Op = "sqs"             // any request
	Invocation   Op = "lambda"          // of a function
	LambdaMemory Op = "lambda_mib_secs" // MiB-seconds of functions at work
)

// Ops are all of them, in order.
var Ops = []Op{S3Write, S3List, S3Read, DBWrite, DBRead, SQS, Invocation, LambdaMemory}

// Step is a stretch of a run.
type Step string

// The steps, in order.
const (
	Submitting Step = "submit"
	Working    Step = "tasks"   // attempts of worker tasks, with their messages
	Closing    Step = "retries" // the retry planner's reading of what came of a group
	Merging    Step = "merge"   // the merge plan and level 1
	Publishing Step = "publish" // the root, the outcome and the output folder
	Following  Step = "follow"  // progress and sweeps, for as long as the run takes
)

// Steps are all of them, in order.
var Steps = []Step{Submitting, Working, Closing, Merging, Publishing, Following}

// Range is a count that is exact when all three are equal.
type Range struct {
	Low      int64 `json:"low"`
	Expected int64 `json:"expected"`
	High     int64 `json:"high"`
}

// Exact says that it is one number.
func (r Range) Exact() bool { return r.Low == r.Expected && r.Expected == r.High }

// Plus is the sum.
func (r Range) Plus(o Range) Range {
	return Range{r.Low + o.Low, r.Expected + o.Expected, r.High + o.High}
}

// Times is n of it.
func (r Range) Times(n int64) Range { return Range{r.Low * n, r.Expected * n, r.High * n} }

func just(n int64) Range { return Range{n, n, n} }
func between(low, exp, hi int64) Range {
	return Range{low, min(max(low, exp), max(low, hi)), max(low, hi)}
}

// Count is how often an operation is asked for in a step, and how many units that is on
// a bill: the same, but for DynamoDB.
type Count struct{ N, Units Range }

// Sheet is every count of a job.
type Sheet map[Step]map[Op]Count

func (s Sheet) add(step Step, op Op, n Range) { s.addUnits(step, op, n, n) }

func (s Sheet) addUnits(step Step, op Op, n, units Range) {
	if s[step] == nil {
		s[step] = map[Op]Count{}
	}
	c := s[step][op]
	s[step][op] = Count{c.N.Plus(n), c.Units.Plus(units)}
}

// Total is the sum over the steps.
func (s Sheet) Total(op Op) (c Count) {
	for _, step := range Steps {
		x := s[step][op]
		c = Count{c.N.Plus(x.N), c.Units.Plus(x.Units)}
	}
	return c
}

// Job is what counts of a run on a store on AWS: of one that is planned, what will be;
// of one that runs, what is there by now.
type Job struct {
	Submit Submit
	Groups []Group // of worker tasks: the initial one, then retries
	Merge  *Merge  // nil: not planned
	// Publish says that the root has joined the parts and ended the generation.
	Publish bool
	Redrive *Redrive // nil: of the submission
	Lists   int64    // of items that did not end ok
	Exists  string   // output.if_exists

	Processes int64    // that work on it, 1 or more
	Time      Times    // from the submission to the end
	Follow    Follow   // who looks on
	Function  Function // what functions do of the work
}

// Times is how long something takes.
type Times struct{ Low, Expected, High time.Duration }

// Submit is how the job came to be.
type Submit struct {
	Folders int64 // below jobs/, which are listed; -1: nothing is, the run's id was given
	Earlier int64 // runs of the same name
	Bundle  int64 // bytes of the packed folder; 0 = the job has none
	Files   int64 // the input is made of, 1 or more; 0 = the handler lists its items
	Folder  bool  // they were listed
	Copied  int64 // bytes of the input that are put into the store; 0 = it lies in S3
}

// Redrive is how a generation was opened: it stands in the place of Submit then.
type Redrive struct {
	Lists   int64 // of items that were given up before, which are read
	Kept    int64 // of them, that are written anew with what stays given up
	Batches int64 // that items are taken from, at most
}

// Group is a task group of workers.
type Group struct {
	Planned int64 // tasks
	Tasks   int64 // that have ended, each at its first attempt
	Items   int64 // of the group, for the size of its progress records
	Rows    int64 // tasks whose result has rows
	Failed  int64 // tasks with an item that did not end ok
	Lists   int64 // of items given up, that its end writes
	Closed  bool  // the retry planner has decided
	// Attempt is how long one takes; beyond a part of the lease it is renewed.
	Attempt Times
	// Tokens is how many tokens of rates are taken for it.
	Tokens int64
}

// Merge is the merge of all groups' results.
type Merge struct {
	Results int64 // of all groups
	Rows    int64 // results that have rows
	Nodes   int64 // level-1 merges
	Done    int64 // that have ended
	// Ranges is how many merges of ranges of keys follow level 1, each of which reads of
	// every one of its runs: output.unique_by. 0 = none.
	Ranges     int64
	RangesDone int64 // that have ended
	Parts      int64 // of the output
	Bytes      int64 // of all rows as Parquet
}

// top is how many merges the root joins the outputs of.
func (m Merge) top() int64 {
	if m.Ranges > 0 {
		return m.Ranges
	}
	return m.Nodes
}

// Follow says how a run is followed.
type Follow struct {
	Fastest, Slowest time.Duration // between two looks; 0 = nobody looks
	End              bool          // whoever follows looks at the end whether all is published
}

// Function is the function that works; MiB = 0: none does.
type Function struct {
	MiB   int64
	Start time.Duration // before and after the attempt itself, each invocation
}

// What of the code decides how much is asked for.
const (
	queueGroup   = 10 // messages a request
	blockShards  = 8  // queries for the progress records of a group
	openBlocks   = 8  // block files that a worker keeps open
	listPage     = 1000
	checkedFiles = 10      // of a folder, before anything is planned
	partBytes    = 8 << 20 // of an upload in parts
	smallBytes   = 5 << 20 // an output below is one put
	tailBytes    = 64 << 10
	copyBytes    = 1 << 30
	lotTokens    = 64

	noteEvery  = 30 * time.Second
	visibility = time.Minute
	lease      = time.Minute

	sweeperMiB   = 512
	sweeperEvery = time.Minute
)

// CountOf is what a job asks for, on a store on AWS.
func CountOf(j Job) Sheet {
	s := Sheet{}
	if j.Redrive != nil {
		j.redrive(s, *j.Redrive)
	} else {
		j.submit(s)
	}
	var messages int64
	for i, g := range j.Groups {
		j.work(s, i, g)
		messages += g.Tasks
		if g.Closed {
			j.close(s, i, g)
			messages++
		}
	}
	if j.Merge != nil {
		messages += 1 + j.Merge.Done + j.Merge.RangesDone
		j.merge(s, *j.Merge)
		if m := *j.Merge; m.Ranges > 0 {
			if m.Done == m.Nodes {
				messages++ // level 1 is full
			}
			j.ranges(s, m)
		}
	}
	if j.Publish {
		if j.Merge != nil && j.Merge.Nodes > 0 {
			messages++
		}
		j.publish(s)
	}
	j.deliver(s, messages)
	j.follow(s)
	return s
}

func ceil(n, by int64) int64 { return (n + by - 1) / by }

// blocks is how many blocks so many tasks are.
func blocks(tasks int64) int64 { return ceil(tasks, manifest.BlockTasks) }

// refs is how many lists of blocks and indexes a plan does not hold itself.
func refs(tasks, each int64) int64 {
	if blocks(tasks) > manifest.InlineBlocks {
		return each
	}
	return 0
}

// listed is 1 where a list of n does not fit its record.
func listed(n int64) int64 {
	if n > manifest.InlineList {
		return 1
	}
	return 0
}

// sends is how many requests enqueue the messages of so many tasks, a block a call.
func sends(tasks int64) int64 {
	return tasks/manifest.BlockTasks*ceil(manifest.BlockTasks, queueGroup) + ceil(tasks%manifest.BlockTasks, queueGroup)
}

// marksAbove is how often a full record is put into its parent.
func marksAbove(tasks int64) (n int64) {
	for b := blocks(tasks); b > 1; b = blocks(b) {
		n += b
	}
	return n
}

// upload is how many requests store so many bytes.
func upload(bytes int64) int64 {
	if bytes < partBytes {
		return 1
	}
	parts := int64(0)
	for left, size := bytes, int64(partBytes); left > 0; parts++ {
		if parts > 0 && parts%1000 == 0 {
			size *= 2
		}
		left -= size
	}
	return parts + 2
}

// snapshot is what a look at a job reads: what of it may change, and the records of the
// open group. Commits that were read before are remembered by who looks again and again.
const (
	lookReads  = 9 // plan, definition, view, outcome, merge plan; the next order, the next retry plan, and those after
	lookAgain  = 7 // without the first two
	lookRecord = 1 // the cached state
	lookDepth  = 1 // of the queue
)

func (j Job) submit(s Sheet) {
	g := j.Groups[0]
	b := blocks(g.Planned)
	x := j.Submit
	if x.Folders >= 0 {
		s.add(Submitting, S3List, just(max(1, ceil(x.Folders, listPage))))
	}
	if j.Exists == "error" {
		s.add(Submitting, S3List, just(1))
	}
	writes := 1 + 2*b + refs(g.Planned, 2) + 1 + 1 // definition, blocks with indexes, plan, view
	if x.Bundle > 0 {
		writes += upload(x.Bundle)
	}
	reads := lookReads + 2*x.Earlier + refs(g.Planned, 2)
	if x.Folder && x.Files > manifest.InlineObjects {
		writes++
		reads++
	}
	switch {
	case x.Copied == 0: // in S3: looked at, its first lines read, then all, and looked at again
		s.add(Submitting, S3Read, between(x.Files, x.Files+min(x.Files, checkedFiles)+2, 2*x.Files+min(x.Files, checkedFiles)+4))
		if x.Folder {
			s.add(Submitting, S3List, between(3, 3*ceil(x.Files, listPage), 3*ceil(x.Files, listPage)+3))
		}
	case x.Files <= 1:
		writes += upload(x.Copied)
		reads += x.Files // the copy is what gets indexed
	default:
		s.add(Submitting, S3Write, between(x.Files, x.Files, 3*x.Files+x.Copied/partBytes))
		reads += x.Files
	}
	s.add(Submitting, S3Write, just(writes))
	s.add(Submitting, S3Read, just(reads))
	// Emulators bill nothing for a query that finds nothing.
	s.addUnits(Submitting, DBRead, just(lookRecord+blockShards), between(0, lookRecord+blockShards, lookRecord+blockShards))
	s.add(Submitting, DBWrite, just(1))
	s.add(Submitting, SQS, just(1+lookDepth+sends(g.Planned))) // 1: the queue's address
}

// redrive counts the order and the first plan of a generation.
func (j Job) redrive(s Sheet, r Redrive) {
	s.add(Submitting, S3Read, between(2*lookReads, 3*lookReads, 4*lookReads).Plus(just(r.Lists)).Plus(between(0, r.Batches, 2*r.Batches)))
	writes := 3 + r.Kept // the order, the plan, its view
	if len(j.Groups) > 0 {
		n := j.Groups[0].Planned
		writes += 2*blocks(n) + refs(n, 2)
		s.add(Submitting, S3Write, between(1, 1, n)) // segments
		s.add(Submitting, S3Read, just(blocks(n)))
		s.add(Submitting, SQS, just(sends(n)))
	}
	s.add(Submitting, S3Write, between(writes, writes, writes+2)) // with a definition and a list of items
	s.addUnits(Submitting, DBRead, just(lookRecord+blockShards), between(0, lookRecord+blockShards, lookRecord+blockShards))
	s.add(Submitting, DBWrite, just(1))
	s.add(Submitting, SQS, just(2+lookDepth))
}

func (j Job) work(s Sheet, i int, g Group) {
	b := blocks(g.Planned)
	s.add(Working, S3Write, just(2*g.Tasks+g.Rows+g.Failed)) // result and view, rows, failures
	s.add(Working, S3Read, just(g.Tasks))
	if g.Tasks > 0 { // each process opens the job, the group, and its blocks
		once := 1 + refs(g.Planned, 2)
		if i == 0 {
			once += 2
		}
		low := once + min(2*b, 2*g.Tasks)
		most := min(j.Processes, g.Tasks)
		high := most * (once + min(2*b, 2*ceil(g.Tasks, most)))
		if b > openBlocks { // out of order, a block may be opened for every task of it
			high = most*once + 2*g.Tasks
		}
		s.add(Working, S3Read, between(low, min(high, low*most), high))
	}
	s.add(Working, DBRead, just(g.Tasks))
	s.addUnits(Working, DBWrite, just(2*g.Tasks), just(g.Tasks).Plus(markUnits(g)))
	if g.Tasks == g.Planned {
		s.add(Working, DBWrite, just(marksAbove(g.Planned)))
	}
	renewed := func(d time.Duration) int64 { return int64(d/(lease/3)) * g.Tasks }
	s.add(Working, DBWrite, between(renewed(g.Attempt.Low), renewed(g.Attempt.Expected), renewed(g.Attempt.High)))
	if g.Tasks == g.Planned && g.Tasks > 0 {
		s.add(Working, SQS, just(1)) // the trigger
	}
	if t := g.Tokens; t > 0 {
		s.add(Working, DBWrite, between(ceil(t, lotTokens), ceil(t, 8), 2*t))
		s.add(Working, DBRead, between(1, ceil(t, lotTokens), t))
	}
}

// markUnits is what marking every task of a group costs: a record grows with each
// member, and each write is billed for the record's size.
func markUnits(g Group) Range {
	if g.Planned == 0 {
		return Range{}
	}
	digits := int64(1)
	for n := g.Items / g.Planned; n >= 10; n /= 10 {
		digits++
	}
	units := func(base, member int64) (n int64) {
		for k := range min(g.Tasks, manifest.BlockTasks) {
			n += ceil(base+(k+1)*member, 1024)
		}
		if g.Tasks > manifest.BlockTasks {
			n = n * g.Tasks / manifest.BlockTasks
		}
		return n
	}
	// base: the key with job, group and digest, the total and the expiry.
	return between(units(150, 2+digits), units(190, 4+digits), units(330, 8+2*digits))
}

func (j Job) close(s Sheet, i int, g Group) {
	b := blocks(g.Planned)
	// Outcome, plan, definition, opener, the plan that may be there and what would follow
	// from it, the next order.
	reads := 8 + 2*b + g.Planned + 2*g.Failed + listed(g.Planned)
	again := refs(g.Planned, 2) + int64(i) // lists of blocks, and the plans before
	s.add(Closing, S3Read, between(reads, reads, reads+again))
	s.add(Closing, S3Write, just(2+listed(g.Planned)+g.Lists))
	if i+1 < len(j.Groups) {
		next := j.Groups[i+1]
		s.add(Closing, S3Write, between(1+2*blocks(next.Planned), 1+2*blocks(next.Planned), next.Planned+2*blocks(next.Planned)+2))
		s.add(Closing, S3Read, between(blocks(next.Planned), blocks(next.Planned), 2*blocks(next.Planned)+2))
		s.add(Closing, SQS, just(sends(next.Planned)))
		return
	}
	s.add(Closing, SQS, just(1))
}

func (j Job) merge(s Sheet, m Merge) {
	k := int64(len(j.Groups)) // retry plans
	b := blocks(m.Nodes)
	s.add(Merging, DBRead, just(1+m.Done))
	// Plan, definition, outcome, retry plans and the two that are not there, merge plan;
	// then every result, a footer a schema, and what has been merged.
	reads := 6 + k + m.Results + b + m.Nodes
	for _, g := range j.Groups {
		reads += listed(g.Planned)
	}
	s.add(Merging, S3Read, just(reads))
	s.add(Merging, S3Read, between(min(m.Rows, 1), min(m.Rows, 1), m.Rows))
	s.add(Merging, S3Write, just(1+listed(m.Results)+b+refs(m.Nodes, 1)))
	s.add(Merging, SQS, just(sends(m.Nodes)))
	if m.Done == 0 {
		return
	}
	s.add(Merging, S3Write, just(2*m.Done)) // results and views
	whole := m.Bytes * m.Done / m.Nodes
	s.add(Merging, S3Write, between(m.Done, m.Done, m.Done-1+upload(whole)+2*min(m.Done, whole/partBytes)))
	rows := m.Rows * m.Done / m.Nodes
	s.add(Merging, S3Read, just(3*m.Done+rows)) // outcome, block, what came of it; the end of every result
	if m.Bytes > tailBytes {                    // and what is before the end of those that are larger
		s.add(Merging, S3Read, between(0, min(rows, m.Bytes/tailBytes), rows+2*(m.Bytes>>20)))
	}
	most := min(j.Processes, m.Done)
	s.add(Merging, S3Read, between(3, 3*most, 3*most)) // plan, definition, merge plan
	if n := listed(m.Results); n > 0 {
		stretches := ceil(m.Results, 256)
		s.add(Merging, S3Read, between(1+max(m.Done, stretches*m.Done/m.Nodes), most+m.Done+stretches, most+m.Done+stretches))
	}
	s.add(Merging, DBWrite, just(2*m.Done))
	if m.Done == m.Nodes {
		s.add(Merging, DBWrite, just(marksAbove(m.Nodes)))
		s.add(Merging, SQS, just(1))
	}
}

// ranges counts the second level of a merge with output.unique_by.
func (j Job) ranges(s Sheet, m Merge) {
	k := int64(len(j.Groups))
	b, above := blocks(m.Nodes), blocks(m.Ranges)
	s.add(Merging, S3Write, just(above+refs(m.Ranges, 1))) // with the merge plan
	if m.Done == m.Nodes {                                 // its trigger finds the first level full, and sends the second
		s.add(Merging, DBRead, just(1))
		s.add(Merging, S3Read, just(6+k+b+m.Nodes+above+m.Ranges))
		s.add(Merging, SQS, just(sends(m.Ranges)))
	}
	if m.RangesDone == 0 {
		return
	}
	d := m.RangesDone
	whole := m.Bytes * d / m.Ranges
	s.add(Merging, S3Write, just(2*d)) // results and views
	s.add(Merging, S3Write, between(d, d, d-1+upload(whole)+2*min(d, whole/partBytes)))
	s.add(Merging, S3Read, just(3*d)) // outcome, block, what came of it
	most := min(j.Processes, d)
	s.add(Merging, S3Read, between(b+m.Nodes, most*(b+m.Nodes), most*(b+m.Nodes))) // what level 1 has left
	// The index of every run, and of some of them blocks: opened, looked for, read.
	s.add(Merging, S3Read, between(d*m.Nodes, d*m.Nodes+4*m.Nodes, 4*d*m.Nodes+2*(whole>>18)))
	s.add(Merging, DBRead, just(d))
	s.add(Merging, DBWrite, just(2*d))
	if d == m.Ranges {
		s.add(Merging, DBWrite, just(marksAbove(m.Ranges)))
		s.add(Merging, SQS, just(1))
	}
}

func (j Job) publish(s Sheet) {
	var m Merge
	if j.Merge != nil {
		m = *j.Merge
	}
	k := int64(len(j.Groups))
	if m.Nodes > 0 { // a trigger of its own
		s.add(Publishing, DBRead, just(1))
		s.add(Publishing, S3Read, just(6+k+blocks(m.Nodes)+m.Nodes))
		if m.Ranges > 0 {
			s.add(Publishing, S3Read, just(blocks(m.Ranges)+m.Ranges))
		}
	}
	top := m.top()
	// The chain again, the view, what is copied; of each merge the footer and its version.
	s.add(Publishing, S3Read, just(6+k+1+m.Parts+j.Lists+listed(m.Results)))
	s.add(Publishing, S3Read, between(2*top, 3*top+m.Parts, 6*top+2*m.Parts+2*(m.Bytes/(32<<10))))
	switch {
	case m.Parts == 0:
	case m.Bytes < smallBytes:
		s.add(Publishing, S3Write, just(m.Parts))
	default:
		most := 2*m.Parts + top + m.Bytes/copyBytes + m.Parts
		s.add(Publishing, S3Write, between(m.Parts, most, most))
	}
	// Outcome, two views, _SUCCESS; each list is put and copied, each part copied.
	s.add(Publishing, S3Write, just(4+m.Parts+2*j.Lists))
	if j.Exists == "error" || j.Exists == "overwrite" {
		s.add(Publishing, S3List, just(1))
	}
	s.add(Publishing, DBWrite, just(1))
}

// deliver counts what it takes to receive and acknowledge messages, ten at once if they
// come so, and to run functions on them.
func (j Job) deliver(s Sheet, messages int64) {
	least := ceil(messages, queueGroup)
	idle := func(d time.Duration) int64 { return int64(d / time.Second) } // polls of who waits
	s.add(Working, SQS, between(least, least+least/8+6, messages+j.Processes*idle(j.Time.High)))
	s.add(Working, SQS, between(least, least+6, messages))
	attempt := Times{}
	if len(j.Groups) > 0 {
		attempt = j.Groups[0].Attempt
	}
	hidden := func(d time.Duration) int64 { return int64(d/(visibility/3)) * messages }
	s.add(Working, SQS, between(hidden(attempt.Low)/queueGroup, hidden(attempt.Expected)/queueGroup, hidden(attempt.High)))
	if j.Function.MiB == 0 {
		return
	}
	s.add(Working, Invocation, between(messages, messages, messages+messages/10))
	secs := func(d time.Duration) int64 {
		return int64((d + j.Function.Start).Seconds() * float64(messages) * float64(j.Function.MiB))
	}
	s.add(Working, LambdaMemory, between(secs(attempt.Low), secs(attempt.Expected), secs(attempt.High)))
	// The sweeper looks every minute, whoever else does.
	n := func(d time.Duration) int64 { return int64(d/sweeperEvery) + 1 }
	looks := between(n(j.Time.Low), n(j.Time.Expected), n(j.Time.High))
	s.add(Following, Invocation, looks)
	s.add(Following, LambdaMemory, looks.Times(sweeperMiB))
	j.look(s, looks, lookReads+int64(len(j.Groups)))
}

// follow counts the looks of whoever follows the run.
func (j Job) follow(s Sheet) {
	if j.Follow.Fastest > 0 {
		n := func(d, every time.Duration) int64 { return int64(d / max(every, time.Millisecond)) }
		mean := (j.Follow.Fastest + j.Follow.Slowest) / 2
		looks := between(2, 2+n(j.Time.Expected, mean), 6+2*n(j.Time.High, j.Follow.Fastest))
		j.look(s, looks, lookAgain+1)
	}
	if j.Follow.End { // who stays to the end opens the job, and looks at what is published
		m := int64(0)
		if j.Merge != nil {
			m = j.Merge.Parts
		}
		s.add(Following, S3Read, between(2, 8+m+j.Lists+int64(len(j.Groups)), 20+m+j.Lists+int64(len(j.Groups))))
		s.add(Following, S3List, just(1))
	}
}

func (j Job) look(s Sheet, looks Range, reads int64) {
	s.add(Following, S3Read, Range{looks.Low * lookAgain, looks.Expected * reads, looks.High * (reads + 2)})
	s.add(Following, SQS, looks.Times(lookDepth))
	// What is waited for is noted now and then, for whoever looks next.
	n := func(d time.Duration) int64 { return int64(d / noteEvery) }
	s.add(Following, DBWrite, between(0, n(j.Time.Expected), 3+2*n(j.Time.High)))
	// Eight queries, each billed for what its shard holds: half full on average.
	var bytes int64
	for _, g := range j.Groups {
		bytes = max(bytes, g.Planned*10+blocks(g.Planned)*200)
	}
	units := func(share int64) int64 { return max(blockShards, bytes/share/4096) + lookRecord }
	s.addUnits(Following, DBRead, looks.Times(lookRecord+blockShards),
		Range{looks.Low * lookRecord, looks.Expected * units(2), looks.High * units(1)})
}
