package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

// Follower holds a run of the simulator against the model: it is told of every effect in
// the store (mem.Store.Saw) and takes, in the model, the step of that name, from where the
// model says that the process stands. What happens inside of a process, where nobody sees
// it, may have happened at any time since its last call. An effect for which there is no
// step is refused, and so is one after which a property of the model does not hold, or
// the store another content than the model says.
//
// Sweeps and people have no program here: they may take any of their steps at any time,
// for each is one that the protocol allows anybody. Which of them a sweep takes is what
// Search looks into. The same goes for messages: they are hints, and any that names a task
// or a group that is there may be sent.
type Follower struct {
	Store  *mem.Store
	Passes int                       // of the job's definition
	Items  int                       // of its input
	Alive  func(process string) bool // false: it does nothing any more
	Now    func() time.Time          // nil: clocks jump, and say nothing about leases
	Lent   bool                      // processes have an end, before which they hand merges back

	mu          sync.Mutex // guards what follows
	err         error
	effects     int
	last        int // call that may come twice
	kinds       map[Kind]int
	jobID       string
	generations map[int]*generation
	hands       []*hand
	sent        map[hayrick.Message]bool
	put         map[string]bool
	acked       map[string]bool
}

// generation is the world of one.
type generation struct {
	*Model
	n      int
	w      World
	tasks  map[string]uint8
	groups map[string]uint8
	until  map[uint8]time.Time // of the leases
	holder map[uint8]string    // their attempts
}

// hand is a message in the hands of a process: the acts that it may be.
type hand struct {
	process, id string
	g           *generation
	count       int
	what        pointer
	loose       bool // what opens a generation has no program in the model
	acts        []Act
}

// Err is the first effect that was refused.
func (f *Follower) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Followed is how many effects there were, and how many of each kind were steps of acts.
func (f *Follower) Followed() (effects int, kinds map[Kind]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effects, maps.Clone(f.kinds)
}

// Saw takes one effect in. It is for mem.Store.Saw.
func (f *Follower) Saw(c mem.Call, v any, err error) {
	if c.Actor == "" && c.Op != "WipeState" && c.Op != "WipeQueue" && c.Op != "Send" {
		return // the follower itself, and checks
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.generations == nil {
		f.generations, f.sent, f.put, f.acked, f.kinds = map[int]*generation{}, map[hayrick.Message]bool{}, map[string]bool{}, map[string]bool{}, map[Kind]int{}
	}
	if f.err != nil {
		return
	}
	f.effects++
	bad := f.see(c, v, err)
	for n := 0; bad == nil && n < len(f.generations); n++ {
		if g := f.generations[n]; g != nil {
			if broken := g.CheckWorld(&g.w); broken != "" {
				bad = errors.New(broken)
			}
		}
	}
	if bad != nil {
		f.err = fmt.Errorf("effect %d: %s %s.%s %s: %w", f.effects, c.Actor, c.Port, c.Op, c.Key, bad)
		return
	}
	f.settle()
}

// see takes the step of an effect.
func (f *Follower) see(c mem.Call, v any, err error) error {
	if err != nil && !errors.Is(err, hayrick.ErrConflict) && !errors.Is(err, mem.ErrDropped) {
		return nil // nothing has happened
	}
	switch c.Op {
	case "Put", "Assemble":
		f.put[c.Key] = true
		return f.puts(c)
	case "Commit":
		if c.N == f.last { // the request has come twice
			if v.(bool) {
				return errors.New("it is stored twice")
			}
			return nil
		}
		f.last = c.N
		return f.commits(c, v.(bool))
	case "Replace":
		return f.views(c, v.([]byte))
	case "Remove":
		return f.removes(c)
	case "Claim":
		return f.claims(c, v.(hayrick.Claim), err == nil)
	case "UpdateClaim":
		return f.updates(v.(hayrick.Claim))
	case "Mark":
		return f.marks(c, v.(hayrick.BlockState))
	case "PutJobState":
		return f.caches(c, v.(hayrick.JobState))
	case "Send":
		if err != nil {
			f.drops(c)
			return nil
		}
		return f.sends(c, v.([]hayrick.Outgoing))
	case "Receive":
		return f.receives(c, v.([]hayrick.Delivery))
	case "Ack":
		return f.acks(c, v.([]hayrick.Delivery))
	case "WipeState":
		for _, g := range f.generations {
			g.w.wipe()
			clear(g.until)
			clear(g.holder)
		}
	}
	return nil
}

// settle lets every act that is alive do what nobody sees, or not.
func (f *Follower) settle() {
	f.hands = slices.DeleteFunc(f.hands, func(h *hand) bool { return !f.Alive(h.process) })
	for _, h := range f.hands {
		for i := 0; i < len(h.acts); i++ {
			a := h.acts[i]
			h.g.steps(&h.g.w, &a, 0, func(s Step, _ *World, next *Act) {
				if s.Kind >= Refused && s.Kind <= NotWoken && next.At != Rest && !slices.Contains(h.acts, *next) {
					h.acts = append(h.acts, *next)
				}
			})
		}
	}
}

// take has one of a process's acts take a step that fits, and says whether there is one.
// Where several of its messages ask for the same thing, or a sweep does such a step too, it
// may not have been this act: it may stand where it stood as well.
func (f *Follower) take(process string, g *generation, fits func(Step, *World) bool) bool {
	type taken struct {
		h    *hand
		next []Act
	}
	var all []taken
	var world World
	var kind Kind
	for _, h := range f.hands {
		if h.process != process || h.g != g || len(all) > 0 && h.what != all[0].h.what {
			continue
		}
		found := false
		var next []Act
		for i := range h.acts {
			a := h.acts[i]
			g.steps(&g.w, &a, 0, func(s Step, w *World, after *Act) {
				if !fits(s, w) {
					return
				}
				found, kind, world = true, s.Kind, *w
				// Held for long, or so it seems to a clock that has jumped: done with.
				if s.Kind == WasHeld && s.Arg == 0 && (h.count > 3 || f.Now == nil) {
					after.At, after.Doing, after.On = Ack, a.Doing, a.On
				}
				if after.At != Rest && !slices.Contains(next, *after) {
					next = append(next, *after)
				}
			})
		}
		if found {
			all = append(all, taken{h, next})
		}
	}
	if len(all) == 0 {
		return false
	}
	swept := kind == Marked || kind == Cached || kind == Published || slices.Contains(sending, kind)
	for _, x := range all {
		if len(all) > 1 || swept {
			for _, a := range x.h.acts {
				if !slices.Contains(x.next, a) {
					x.next = append(x.next, a)
				}
			}
		}
		x.h.acts = x.next
	}
	world.quiet()
	world.Budget = g.w.Budget
	g.w = world
	f.kinds[kind]++
	return true
}

func kindOn(k Kind, on uint8) func(Step, *World) bool {
	return func(s Step, _ *World) bool { return s.Kind == k && s.On == on }
}

// refused is an effect that the model has no step for.
func (f *Follower) refused(process string, format string, args ...any) error {
	stands := ""
	for _, h := range f.hands {
		if h.process != process {
			continue
		}
		for _, a := range h.acts {
			stands += fmt.Sprintf(" %d/%d@%s", a.Doing, a.On, pointNames[a.At])
		}
	}
	return fmt.Errorf("the model has no such step: "+format+"; the process stands at [%s]", append(args, strings.TrimSpace(stands))...)
}

// task finds a task by its id.
func (f *Follower) task(id string) (g *generation, t uint8, ok bool) {
	for _, g := range f.generations {
		if t, ok = g.tasks[id]; ok {
			return g, t, true
		}
	}
	return nil, 0, false
}

// under splits a key of the job's tasks.
func under(key string) (task, name string, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 || parts[2] != "tasks" {
		return "", "", false
	}
	return parts[3], parts[4], true
}

// puts: data of a task is put by who has its claim.
func (f *Follower) puts(c mem.Call) error {
	id, name, ok := under(c.Key)
	if !ok || !strings.HasPrefix(name, id+"_") {
		return nil
	}
	g, t, ok := f.task(id)
	if !ok {
		return f.refused(c.Actor, "data of a task that no plan names")
	}
	for _, h := range f.hands {
		if h.process == c.Actor && h.g == g && slices.ContainsFunc(h.acts, func(a Act) bool { return a.On == t && a.Claimed && a.At == Commit }) {
			return nil
		}
	}
	return f.refused(c.Actor, "data of task %s by who has not claimed it, or has committed", id)
}

// claims: an attempt asks for its task.
func (f *Follower) claims(c mem.Call, got hayrick.Claim, granted bool) error {
	g, t, ok := f.task(got.TaskID)
	if !ok {
		return f.refused(c.Actor, "a claim of a task that no plan names")
	}
	k := &g.w.Tasks[t]
	if !granted {
		// A reply that was lost is asked for again, and answered the same.
		asked := slices.ContainsFunc(f.hands, func(h *hand) bool { return h.process == c.Actor && h.g == g && h.what == pointer{first, t} && h.done() })
		if !f.take(c.Actor, g, kindOn(WasHeld, t)) && !asked {
			return f.refused(c.Actor, "the claim of %s is answered as held", got.TaskID)
		}
		return nil
	}
	if g.holder[t] == got.Attempt {
		return nil // it was asked for again
	}
	if k.Claim.Hold == Held {
		if f.Now != nil && f.Now().Before(g.until[t]) {
			return f.refused(c.Actor, "%s is claimed while its lease holds for %s", got.TaskID, g.until[t].Sub(f.Now()))
		}
		k.Claim.Hold = RanOut
	}
	if !f.take(c.Actor, g, kindOn(Claimed, t)) {
		return f.refused(c.Actor, "%s is claimed", got.TaskID)
	}
	g.until[t], g.holder[t] = got.Until, got.Attempt
	if is := claimIn(got); g.w.Tasks[t].Claim != is {
		return fmt.Errorf("the claim of %s is %+v, by the model %+v", got.TaskID, is, g.w.Tasks[t].Claim)
	}
	return nil
}

// updates: who holds a claim renews it, gives it back or proves that it works.
func (f *Follower) updates(got hayrick.Claim) error {
	g, t, ok := f.task(got.TaskID)
	if !ok || g.holder[t] != got.Attempt || int64(g.w.Tasks[t].Claim.Fence) != got.Fence {
		return fmt.Errorf("the claim of %s is changed by attempt %s with fence %d, which does not hold it", got.TaskID, got.Attempt, got.Fence)
	}
	g.w.Tasks[t].Claim, g.until[t] = claimIn(got), got.Until
	return nil
}

// marks: who has found or made a result marks it; a sweep does, too.
func (f *Follower) marks(c mem.Call, got hayrick.BlockState) error {
	g := f.generations[got.Generation]
	if got.Level > 0 || g == nil {
		return nil
	}
	group, ok := g.groups[got.Group]
	at, err := strconv.Atoi(strings.TrimSuffix(c.Key[strings.LastIndexByte(c.Key, '[')+1:], "]"))
	if !ok || err != nil || at >= int(g.w.Groups[group].Tasks) {
		return f.refused(c.Actor, "a mark in a group that no plan opens")
	}
	x := &g.w.Groups[group]
	t := x.First + uint8(at)
	if !f.take(c.Actor, g, kindOn(Marked, t)) {
		x.Record = true
		x.Done |= 1 << at
	}
	for i := range int(x.Tasks) {
		if got.Done.Has(i) != (g.w.Groups[group].Done&(1<<i) != 0) {
			return fmt.Errorf("the record of %s has %v, by the model %b", got.Group, got.Done, g.w.Groups[group].Done)
		}
	}
	return nil
}

// caches: what the state store says of a job follows from its orders and outcomes.
func (f *Follower) caches(c mem.Call, st hayrick.JobState) error {
	g := f.generations[st.Generation]
	if g == nil {
		return errors.New("the state of a generation that nothing has opened")
	}
	status := statusOf(st.Status)
	gave := func(o Order) bool { return slices.Contains(g.w.Orders[:], o) }
	switch {
	case st.Orders > f.orders():
		return fmt.Errorf("the state says %d orders, there are %d", st.Orders, f.orders())
	case status == Paused && !gave(Pause), status == Cancelled && !gave(Cancel),
		(status == Succeeded || status == Failed) && g.w.Outcome.Status != status:
		return fmt.Errorf("the state says %s, and no commit does", st.Status)
	}
	f.take(c.Actor, g, func(s Step, _ *World) bool { return s.Kind == Cached })
	for n, x := range f.generations {
		switch {
		case n == st.Generation:
			x.w.Cache = Cache{Status: status, Orders: uint8(st.Orders)}
		case n < st.Generation: // to those a later one is over
			x.w.Cache = Cache{Status: Succeeded}
		default:
			x.w.Cache = Cache{}
		}
	}
	return nil
}

func (f *Follower) orders() (n int) {
	for _, g := range f.generations {
		n += int(g.w.NOrders)
		if g.n > 0 {
			n++ // that which opened it
		}
	}
	return n
}

// views: the job manifest says what a commit says.
func (f *Follower) views(c mem.Call, body []byte) error {
	var view manifest.JobManifest
	if f.jobID == "" || c.Key != manifest.Job(f.jobID).Manifest() {
		return nil
	}
	if err := json.Unmarshal(body, &view); err != nil {
		return err
	}
	g := f.generations[view.Generation]
	if g == nil {
		return errors.New("a view of a generation that nothing has opened")
	}
	status := statusOf(hayrick.JobStatus(view.Status))
	if status >= Succeeded && g.w.Outcome.Status != status && !(status == Cancelled && slices.Contains(g.w.Orders[:], Cancel)) {
		return fmt.Errorf("the view says %s, and no commit does", view.Status)
	}
	f.take(c.Actor, g, func(s Step, _ *World) bool { return s.Kind == Published })
	g.w.View = status
	return nil
}

// removes: nothing that is named, or may yet be, goes.
func (f *Follower) removes(c mem.Call) error {
	id, name, ok := under(c.Key)
	if !ok || !strings.HasPrefix(name, id+"_") {
		return nil
	}
	g, t, ok := f.task(id)
	if !ok || g.w.Tasks[t].Result.Writes == 0 {
		return f.refused(c.Actor, "data of %s is removed before it has a result", id)
	}
	res, _, err := f.reader().Result(context.Background(), f.jobID, id)
	if err != nil {
		return err
	}
	if slices.Contains(named(res), manifest.Job(f.jobID).Rel(c.Key)) {
		return f.refused(c.Actor, "data that the result of %s names is removed", id)
	}
	return nil
}

// named are the data objects of a result.
func named(r manifest.Result) (keys []string) {
	if r.File != nil {
		keys = append(keys, *r.File)
	}
	for _, x := range r.Files {
		keys = append(keys, x.File)
	}
	if r.Failures != nil {
		keys = append(keys, r.Failures.File)
	}
	return keys
}

func (f *Follower) reader() *manifest.Store { return &manifest.Store{Objects: f.Store} }

// commits: the six kinds of commits.
func (f *Follower) commits(c mem.Call, stored bool) error {
	parts := strings.Split(c.Key, "/")
	if len(parts) < 3 {
		return nil
	}
	f.jobID = parts[1]
	ctx, job, r := context.Background(), f.jobID, f.reader()
	number := func(name, before, after string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, before), after))
		return n
	}
	switch base := path.Base(c.Key); {
	case parts[2] == "tasks" && base == "results.done":
		return f.commitsResult(c, parts[3], stored)
	case parts[2] == "retries":
		n := number(parts[3], "retry-", "")
		p, _, err := r.RetryPlan(ctx, job, n)
		if err != nil {
			return err
		}
		return f.commitsPlan(c, p, stored)
	case parts[2] == "aggregation":
		p, _, err := r.AggregationPlan(ctx, job, number(parts[3], "", ""))
		if err != nil {
			return err
		}
		return f.commitsMerge(c, p, stored)
	case parts[2] == "control":
		o, _, err := r.Control(ctx, job, number(base, "", ".json"))
		if err != nil || !stored {
			return err
		}
		return f.commitsOrder(o)
	case strings.HasPrefix(base, "outcome-"):
		o, _, err := r.Outcome(ctx, job, number(base, "outcome-", ".json"))
		if err != nil {
			return err
		}
		return f.commitsOutcome(c, o, stored)
	case base == "plan.json":
		p, _, err := r.Plan(ctx, job)
		if err != nil || !stored {
			return err
		}
		if f.generations[0] != nil {
			return errors.New("the job was planned before")
		}
		return f.opens(f.generation(0), p.Group)
	}
	return f.refused(c.Actor, "a commit that the design does not know")
}

// generation begins a world.
func (f *Follower) generation(n int) *generation {
	job := Job{Passes: f.Passes, Lent: f.Lent, Ends: make([][]End, f.Items)}
	for i := range job.Ends {
		job.Ends[i] = []End{OK}
	}
	g := &generation{Model: New(job), n: n, tasks: map[string]uint8{}, groups: map[string]uint8{}, until: map[uint8]time.Time{}, holder: map[uint8]string{}}
	g.later = n > 0
	g.w.Budget.Errors, g.w.Budget.Deadlines = 1, 1 // what nobody sees does not use it up
	f.generations[n] = g
	return g
}

// opens adds a group as it was stored.
func (f *Follower) opens(g *generation, group manifest.Group) error {
	ctx, r := context.Background(), f.reader()
	m, err := r.Members(ctx, f.jobID, g.n, group)
	if err != nil {
		return err
	}
	merge := hayrick.PhaseOf(group.Name) == hayrick.PhaseAggregation
	var sets []uint8
	var ids []string
	for n := range m.Blocks() {
		b, err := m.Block(ctx, r, n)
		if err != nil {
			return err
		}
		var index manifest.Index
		if !merge {
			if index, err = m.Index(ctx, r, n); err != nil {
				return err
			}
		}
		for i, t := range b.Tasks {
			var set uint8
			if !merge {
				if set, err = f.items(index.Batches[i]); err != nil {
					return err
				}
			}
			sets, ids = append(sets, set), append(ids, t.TaskID)
		}
	}
	if int(g.w.NTasks)+len(sets) > maxTasks || g.w.NGroups == maxGroups {
		return errors.New("the model has no room for so many tasks")
	}
	g.groups[group.Name] = g.w.NGroups
	for i, id := range ids {
		g.tasks[id] = g.w.NTasks + uint8(i)
	}
	g.w.addGroup(merge, sets...)
	return nil
}

// items are those of a batch.
func (f *Follower) items(b manifest.Batch) (set uint8, err error) {
	in, err := f.Store.OpenInput(context.Background(), f.jobID, b)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	items, err := manifest.OpenBatch(b, in)
	for _, it := range items {
		if it.Ordinal >= maxItems {
			return 0, fmt.Errorf("the model has no room for item %d", it.Ordinal)
		}
		set |= 1 << it.Ordinal
	}
	return set, err
}

func (f *Follower) commitsResult(c mem.Call, id string, stored bool) error {
	g, t, ok := f.task(id)
	if !ok {
		return f.refused(c.Actor, "a result of a task that no plan names")
	}
	before := g.w.Tasks[t].Result
	if !f.take(c.Actor, g, kindOn(Committed, t)) {
		return f.refused(c.Actor, "%s is committed", id)
	}
	if stored == (before.Writes > 0) {
		return fmt.Errorf("the commit of %s is answered with stored: %t, and %d are stored", id, stored, before.Writes)
	}
	if !stored {
		g.w.Tasks[t].Result = before
		return nil
	}
	res, _, err := f.reader().Result(context.Background(), f.jobID, id)
	if err != nil {
		return err
	}
	is := Result{Writes: 1, Failed: res.Status == string(hayrick.TaskFailed), Data: true}
	for _, key := range named(res) {
		is.Data = is.Data && f.put[manifest.Job(f.jobID).Abs(key)]
	}
	if res.Failures != nil {
		body, err := f.reader().Data(context.Background(), manifest.Job(f.jobID).Abs(res.Failures.File), res.Failures.SHA256)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(body) {
			var x manifest.FailureLine
			if err := json.Unmarshal(line, &x); err != nil {
				return err
			}
			switch d := hayrick.Disposition(x.Disposition); {
			case d.Final():
				is.Ends[x.Ordinal] = Gone
			case d == hayrick.Infra:
				is.Ends[x.Ordinal] = Infra
			default:
				is.Ends[x.Ordinal] = Busy
			}
		}
	}
	g.w.Tasks[t].Result = is
	return nil
}

func (f *Follower) commitsPlan(c mem.Call, p manifest.RetryPlan, stored bool) error {
	g := f.generations[p.Generation]
	if g == nil {
		return f.refused(c.Actor, "a plan of a generation that nothing has opened")
	}
	if p.Control != nil {
		if !stored {
			return nil
		}
		if g.w.NGroups > 0 {
			return errors.New("the generation was planned before")
		}
		if p.Group == nil {
			g.w.Plans[0], g.w.NPlans = Plan{Writes: 1, Merge: true}, 1
			return nil
		}
		return f.opens(g, *p.Group)
	}
	closed, ok := g.groups[p.Closed]
	if !ok {
		return f.refused(c.Actor, "a plan that closes %s, which no plan opens", p.Closed)
	}
	before := g.w
	if !f.take(c.Actor, g, kindOn(Closed, closed)) {
		return f.refused(c.Actor, "the plan is committed that closes %s", p.Closed)
	}
	if stored == (before.NPlans > closed) {
		return fmt.Errorf("the commit of the plan that closes %s is answered with stored: %t, and the model has %d plans", p.Closed, stored, before.NPlans)
	}
	if !stored {
		return nil
	}
	plan := g.w.Plans[closed]
	var retried, permanent, exhausted int64
	for _, fate := range plan.Fates {
		switch fate {
		case Retry:
			retried++
		case Permanent:
			permanent++
		case Exhausted:
			exhausted++
		}
	}
	if !g.later && (p.Items != retried || p.Permanent != permanent || p.Exhausted != exhausted) {
		return fmt.Errorf("the plan that closes %s retries %d, lists %d as permanent and %d as exhausted, by the model %d, %d and %d", p.Closed, p.Items, p.Permanent, p.Exhausted, retried, permanent, exhausted)
	}
	// The group as it was stored, and not as one task.
	var want uint8
	if g.w.NGroups > before.NGroups {
		want = g.w.Tasks[before.NTasks].Items
	}
	g.w.Groups, g.w.NGroups, g.w.Tasks, g.w.NTasks = before.Groups, before.NGroups, before.Tasks, before.NTasks
	if p.Group == nil {
		return nil
	}
	if err := f.opens(g, *p.Group); err != nil {
		return err
	}
	var is uint8
	for t := before.NTasks; t < g.w.NTasks; t++ {
		is |= g.w.Tasks[t].Items
	}
	if !g.later && is != want {
		return fmt.Errorf("%s has the items %b, by the model %b", p.Group.Name, is, want)
	}
	return nil
}

func (f *Follower) commitsMerge(c mem.Call, p manifest.AggregationPlan, stored bool) error {
	g := f.generations[p.Generation]
	if g == nil {
		return f.refused(c.Actor, "a merge of a generation that nothing has opened")
	}
	before := g.w
	if !f.take(c.Actor, g, func(s Step, _ *World) bool { return s.Kind == Pinned }) {
		return f.refused(c.Actor, "the merge plan is committed")
	}
	if stored == (before.Merge > 0) {
		return fmt.Errorf("the commit of the merge plan is answered with stored: %t", stored)
	}
	if !stored {
		return nil
	}
	g.w.Groups, g.w.NGroups, g.w.Tasks, g.w.NTasks = before.Groups, before.NGroups, before.Tasks, before.NTasks
	for _, group := range []*manifest.Group{p.Group, p.Ranges} {
		if group != nil {
			if err := f.opens(g, *group); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *Follower) commitsOrder(o manifest.Control) error {
	if o.Opens() {
		if f.generations[o.Generation] != nil {
			return nil // a second one is void
		}
		if before := f.generations[o.Generation-1]; before == nil || before.w.Outcome.Writes == 0 {
			return fmt.Errorf("generation %d is opened before the one before has ended", o.Generation)
		}
		f.generation(o.Generation)
		return nil
	}
	g := f.generations[o.Generation]
	if g == nil || g.w.NOrders == maxOrders {
		return errors.New("the model has no room for the order")
	}
	g.w.Orders[g.w.NOrders] = Order(slices.Index(orderNames, o.Order))
	g.w.NOrders++
	return nil
}

func (f *Follower) commitsOutcome(c mem.Call, o manifest.Outcome, stored bool) error {
	g := f.generations[o.Generation]
	if g == nil {
		return f.refused(c.Actor, "an outcome of a generation that nothing has opened")
	}
	there := g.w.Outcome
	if stored == (there.Writes > 0) {
		return fmt.Errorf("the commit of the outcome is answered with stored: %t, and %d are stored", stored, there.Writes)
	}
	status := statusOf(hayrick.JobStatus(o.Status))
	took := f.take(c.Actor, g, func(s Step, _ *World) bool { return s.Kind == Ended })
	cancelled := g.Apply(orders(g.w.Orders), 0).Cancelled
	switch {
	case !stored: // somebody was late: the aggregator, or a sweep of a cancelled job
		if !took && !cancelled {
			return f.refused(c.Actor, "an outcome is committed that nobody has ordered")
		}
		return nil
	case status == Cancelled:
		if !cancelled {
			return f.refused(c.Actor, "the job is cancelled, and nobody has ordered it")
		}
		g.w.Outcome, g.w.Bad = Outcome{Writes: 1, Status: Cancelled}, Fine
		return nil
	case !took:
		return f.refused(c.Actor, "the outcome %s is committed", o.Status)
	case status == Failed:
		g.w.Outcome.Status = Failed
		return nil
	}
	if x := g.w.Outcome; !g.later && (int64(x.OK) != o.OK || int64(x.Permanent) != o.Permanent || int64(x.Spent) != o.Exhausted) {
		return fmt.Errorf("the outcome counts %d ok, %d permanent, %d exhausted, by the model %d, %d, %d", o.OK, o.Permanent, o.Exhausted, x.OK, x.Permanent, x.Spent)
	}
	return nil
}

// pointer is what a message points at.
type pointer struct {
	which uint8 // first: a task; triggers, closers
	on    uint8
}

// points finds it.
func (f *Follower) points(m hayrick.Message) (g *generation, p pointer, ok bool) {
	if g = f.generations[m.Generation]; g == nil {
		return nil, p, false
	}
	switch {
	case m.TaskID != "":
		p.on, ok = g.tasks[m.TaskID]
	case m.Role == hayrick.RoleAggregator:
		p.which, ok = closers, true
	case m.Group == "": // what opens the generation
		p.which, ok = triggers, m.Generation > 0
	default:
		p.which = triggers
		p.on, ok = g.groups[m.Group]
	}
	return g, p, ok
}

// sending are the steps that send.
var sending = []Kind{Woke, SentMissing, SentNext, SentMerges, GaveBack}

// sends: a message names what is there. Those that an act has to send are its step.
func (f *Follower) sends(c mem.Call, msgs []hayrick.Outgoing) error {
	var g *generation
	is := map[pointer]bool{}
	for _, m := range msgs {
		to, p, ok := f.points(m.Message)
		if !ok {
			return f.refused(c.Actor, "a message of what no commit names: %+v", m.Message)
		}
		g = to
		is[p] = true
		m.Stalls = 0
		f.sent[m.Message] = true
	}
	twice := c.N == f.last
	f.last = c.N
	if g != nil && c.Actor != "" && !twice {
		g.w.quiet()
		for _, k := range sending {
			if f.take(c.Actor, g, func(s Step, w *World) bool { return s.Kind == k && maps.Equal(messages(w), is) }) {
				break
			}
		}
	}
	return nil
}

// messages are what a world has in its queue.
func messages(w *World) map[pointer]bool {
	all := map[pointer]bool{}
	for t := range w.NTasks {
		if w.Tasks[t].First > 0 {
			all[pointer{first, t}] = true
		}
	}
	for g := range w.NGroups {
		if w.Groups[g].Trigger > 0 {
			all[pointer{triggers, g}] = true
		}
	}
	if w.Closer > 0 {
		all[pointer{closers, 0}] = true
	}
	return all
}

// drops: a message is lost, and who has sent it does not know.
func (f *Follower) drops(c mem.Call) {
	for _, g := range f.generations {
		if f.take(c.Actor, g, func(s Step, _ *World) bool { return slices.Contains(sending, s.Kind) }) {
			return
		}
	}
}

// receives: what was sent comes.
func (f *Follower) receives(c mem.Call, ds []hayrick.Delivery) error {
	for _, d := range ds {
		m := d.Message
		m.Stalls = 0
		g, p, ok := f.points(m)
		if !ok || !f.sent[m] {
			return f.refused(c.Actor, "a message comes that nobody has sent: %+v", m)
		}
		a := Act{At: Admit, On: p.on, Again: d.Count > 1}
		switch {
		case p.which == triggers:
			a.Doing = Planning
		case p.which == closers:
			a.Doing = Aggregating
		case g.w.Groups[g.w.Tasks[p.on].Group].Merge:
			a.Doing = Merging
		default:
			a.Doing = Attempting
		}
		h := &hand{process: c.Actor, id: d.Receipt, g: g, count: d.Count, what: p, loose: p.which == triggers && m.Group == "", acts: []Act{a}}
		if h.loose {
			h.acts = nil
		}
		// Messages are worked on in the order in which they came. One that has come again has
		// most likely been left before.
		message, _, _ := strings.Cut(d.Receipt, ".")
		var left []*hand
		f.hands = slices.DeleteFunc(f.hands, func(x *hand) bool {
			again := x.process == c.Actor && strings.HasPrefix(x.id, message+".")
			if again {
				left = append(left, x)
			}
			return again
		})
		f.hands = append(append(f.hands, h), left...)
	}
	return nil
}

// done says that the hand may be at its end.
func (h *hand) done() bool {
	return slices.ContainsFunc(h.acts, func(a Act) bool { return a.At == Ack })
}

// acks: a message is done with when all is done that it asks for.
func (f *Follower) acks(c mem.Call, ds []hayrick.Delivery) error {
	for _, d := range ds {
		id := d.Receipt
		at := slices.IndexFunc(f.hands, func(h *hand) bool { return h.process == c.Actor && h.id == id })
		if at < 0 {
			if f.acked[c.Actor+" "+id] {
				continue
			}
			return f.refused(c.Actor, "a message is acknowledged that it does not have: %+v", d.Message)
		}
		h := f.hands[at]
		if !h.loose && !h.done() {
			// Of two messages of the same thing in the same hands, the other may have been
			// taken for the one that was worked on.
			for _, x := range f.hands {
				if x.process == h.process && x.g == h.g && x.what == h.what && x.done() {
					x.acts, h.acts = h.acts, x.acts
					break
				}
			}
		}
		if !h.loose && !h.done() {
			return f.refused(c.Actor, "a message is acknowledged before all is done that it asks for: %+v", d.Message)
		}
		f.kinds[Acked]++
		f.acked[c.Actor+" "+id] = true
		f.hands = slices.Delete(f.hands, at, at+1)
	}
	return nil
}
