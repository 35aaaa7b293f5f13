package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stormArgs make the demo one of many small tasks and merges. Its hosts stall and fail
// as always; a process that stood still finds more items timed out than was planned, so
// there are more tries.
var stormArgs = []string{
	"--profile", "demo",
	"--set", "handler.params.demo.accounts=240", "--set", "batch.items=4",
	"--set", "retry.passes=8", "--set", "retry.backoff.initial=20ms", "--set", "retry.backoff.max=100ms",
	"--set", "merge.by_count=true", "--set", "merge.fan_in=4",
	"--set", "run.lease=1s", "--set", "run.linger=2s",
}

// stormShapes are what rounds differ in: merges that join files, and merges that sort rows.
// No two rows of the demo are alike, so what comes of it is the same.
var stormShapes = [][]string{nil, {"--set", "output.unique_by=[did,collection,rkey]"}}

// stormPatience is how long a round may take: some times what it takes on a busy machine.
const stormPatience = 3 * time.Minute

// stormTally is what a storm has done, and what came of it.
type stormTally struct {
	Rounds   int            `json:"rounds"`
	Kills    int            `json:"kills"`    // processes that ended by SIGKILL
	By       map[string]int `json:"by"`       // of these, by role and phase
	Traps    map[string]int `json:"traps"`    // kills by the file that had just appeared
	Deeds    map[string]int `json:"deeds"`    // what else was done
	Started  int            `json:"started"`  // processes
	Hard     map[string]int `json:"hard"`     // how processes ended while the disk was full or read-only
	Twice    int            `json:"twice"`    // tasks whose rows two attempts had stored, or more
	Lost     int            `json:"lost"`     // leases that a process found taken over when it went on
	Slept    int            `json:"slept"`    // processes that went on when the others had done their tasks
	Views    int            `json:"views"`    // that a crash between a commit and its view has left out
	Seconds  float64        `json:"seconds"`  //
	NotTried []string       `json:"nottried"` // what this machine does not let one do
}

// stormMaster carries out the rounds. Everything happens in its one goroutine; what
// others find out comes as an event.
type stormMaster struct {
	bin, dir string // the program, and the folder of the storm
	disk     *stormDisk
	seed     uint64
	tally    stormTally
	events   chan event

	// of the round
	nth      int
	began    time.Time
	plan     stormPlan
	shape    []string
	crew     bool     // workers alone: nobody runs it, so nobody goes on with its submission
	jobID    string   // of the run; known when its plan is there
	said     []string // what was done, the latest last
	lives    []*life  // by place; nil = nobody
	over     []bool   // by place: it is not started again
	files    int
	byKind   map[fileKind]int
	results  []finished
	complete bool   // somebody has seen the end of the run
	trouble  bool   // with the disk
	held     bool   // nobody is started
	empty    func() // to be called when nobody lives
	busy     int    // with the queue
	err      error
}

// event is something to be done in a round; later it is none.
type event struct {
	round int
	do    func()
}

// life is a process of the storm.
type life struct {
	place     int
	role      string
	cmd       *exec.Cmd
	out, errs strings.Builder
	killed    string // why
	hurried   bool   // SIGTERM
	troubled  bool   // the disk was not well
	stopped   bool
	asleep    bool // it is left alone, but for what everybody has to be dead for
}

func (m *stormMaster) say(format string, args ...any) {
	m.said = append(m.said, fmt.Sprintf("%7.3fs  ", time.Since(m.began).Seconds())+fmt.Sprintf(format, args...))
}

func (m *stormMaster) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	m.say("FAILED: %v", err)
	m.err = errors.Join(m.err, err)
}

// phase is how far the run is, by what it has stored.
func (m *stormMaster) phase() string {
	for _, p := range []struct {
		kind fileKind
		name string
	}{{kindSuccess, "published"}, {kindOutcome, "publishing"}, {kindMergePlan, "merging"}, {kindRetryPlan, "retrying"}, {kindPlan, "first tasks"}} {
		if m.byKind[p.kind] > 0 {
			return p.name
		}
	}
	return "submitting"
}

// args are what the process of a place is told. Several submit at once, again and again,
// and have to come to one run. Later a run is named: without, one that comes after its end
// would be of a new one.
func (m *stormMaster) args(place int) (role string, args []string) {
	job := slices.Concat(stormArgs, m.shape)
	if m.jobID != "" {
		job = append(job, "--job-id", m.jobID)
	}
	switch name := places[place]; {
	case strings.HasPrefix(name, "run") && m.jobID == "" && (m.crew || name == "run too"):
		return "submit", slices.Concat([]string{"submit", "jobs/backfill", "--json", "-q"}, job)
	case strings.HasPrefix(name, "run") && !m.crew:
		return "run", slices.Concat([]string{"run", "jobs/backfill", "--json"}, job)
	case name != "watch":
		return "worker", []string{"worker", "--slots", "2"}
	}
	return "watch", []string{"watch", m.jobID, "--json", "-q"}
}

// start has somebody at a place, where there is to be somebody and is not.
func (m *stormMaster) start(place int) {
	if m.lives[place] != nil || m.over[place] || m.held || (m.jobID == "" && !strings.HasPrefix(places[place], "run")) {
		return
	}
	l := &life{place: place, troubled: m.trouble}
	role, args := m.args(place)
	l.role = role
	l.cmd = exec.Command(m.bin, args...)
	l.cmd.Dir, l.cmd.Stdout, l.cmd.Stderr = m.dir, &l.out, &l.errs
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := l.cmd.Start(); err != nil {
		m.fail("start %s: %v", role, err)
		return
	}
	m.lives[place] = l
	m.tally.Started++
	m.say("%s starts at place %d, pid %d", role, place, l.cmd.Process.Pid)
	round := m.nth
	go func() {
		err := l.cmd.Wait()
		m.events <- event{round, func() { m.ended(l, err) }}
	}()
}

func (m *stormMaster) startAll() {
	for place := range places {
		m.start(place)
	}
}

func (m *stormMaster) after(d time.Duration, do func()) {
	round := m.nth
	time.AfterFunc(d, func() { m.events <- event{round, do} })
}

// ended is told of the end of a process.
func (m *stormMaster) ended(l *life, err error) {
	m.lives[l.place] = nil
	status := l.cmd.ProcessState.Sys().(syscall.WaitStatus)
	m.tally.Lost += strings.Count(l.errs.String(), "lease lost")
	again := func(d time.Duration) { m.after(d, func() { m.start(l.place) }) }
	switch code := codeOf(err); {
	case status.Signaled() && status.Signal() == syscall.SIGKILL && l.killed != "":
		m.tally.Kills++
		m.tally.By[l.role+", "+l.killed]++
		m.start(l.place)
	case code == exitDone && l.role == "run":
		m.say("run at place %d has ended", l.place)
		var r finished
		if err := json.Unmarshal([]byte(l.out.String()), &r); err != nil {
			m.fail("what run says: %v: %s", err, l.out.String())
		}
		m.results = append(m.results, r)
		m.over[l.place], m.complete = true, true
	case code == exitDone:
		m.say("%s at place %d has ended", l.role, l.place)
		m.complete = m.complete || l.role == "watch"
		m.over[l.place] = m.complete && l.role != "submit"
		again(50 * time.Millisecond)
	case l.troubled && slices.Contains([]int{exitPermission, exitTemporary, exitUsage}, code) && saidOfDisk.MatchString(l.errs.String()):
		m.say("%s at place %d ends with %d: %s", l.role, l.place, code, firstLine(l.errs.String()))
		m.tally.Hard[fmt.Sprintf("%s, %d", l.role, code)]++
		again(100 * time.Millisecond)
	case l.hurried && (code == exitInterrupted || status.Signaled() && status.Signal() == syscall.SIGTERM): // it had not begun to listen
		m.say("%s at place %d ends by itself", l.role, l.place)
		again(0)
	default:
		m.fail("%s, pid %d, ended with %v; stopped %v, disk in trouble %v\n%s%s", l.role, l.cmd.Process.Pid, err, l.stopped, l.troubled, l.out.String(), l.errs.String())
	}
	m.seeEmpty()
}

// withNobody kills everybody, and does it when they are dead.
func (m *stormMaster) withNobody(why string, do func()) {
	m.held, m.empty = true, do
	m.kill(everybody, why)
	m.seeEmpty()
}

func (m *stormMaster) seeEmpty() {
	if do := m.empty; do != nil && m.nobody() {
		m.held, m.empty = false, nil
		do()
	}
}

// saidOfDisk is what a process says of a disk that is not well, and what to do about it.
var saidOfDisk = regexp.MustCompile(`(?s)(no space|read-only|cannot be written|several file systems|MiB are needed|cannot be read or written).*hint"?:`)

func (m *stormMaster) nobody() bool {
	return !slices.ContainsFunc(m.lives, func(l *life) bool { return l != nil })
}

// kill ends a process, or everybody. Somebody who does not live is stood in for by the
// next one.
func (m *stormMaster) kill(whom target, why string) (killed int) {
	if whom == everybody {
		for _, l := range m.lives {
			if l != nil && (!l.asleep || m.held) {
				killed += m.killLife(l, why)
			}
		}
		return killed
	}
	if l := m.living(whom); l != nil {
		killed = m.killLife(l, why)
	}
	return killed
}

func (m *stormMaster) living(whom target) *life {
	for i := range places {
		if l := m.lives[(int(whom)+i)%len(places)]; l != nil && l.killed == "" && !l.hurried && !l.stopped && !l.asleep {
			return l
		}
	}
	return nil
}

func (m *stormMaster) killLife(l *life, why string) int {
	if l.killed != "" {
		return 0
	}
	l.killed = m.phase()
	m.say("SIGKILL to %s, pid %d, %s: %s", l.role, l.cmd.Process.Pid, l.killed, why)
	if err := syscall.Kill(-l.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		m.fail("kill: %v", err)
	}
	return 1
}

// appeared is told of every file.
func (m *stormMaster) appeared(name string) {
	kind := kindOf(name)
	if kind == "" {
		return
	}
	m.files++
	m.byKind[kind]++
	if kind == kindPlan {
		if m.jobID != "" {
			m.fail("there are two runs, %s and %s", m.jobID, name)
		}
		m.jobID = strings.Split(name, "/")[2]
	}
	for _, t := range m.plan.Traps {
		if t.Kind != kind || t.Nth != m.byKind[kind] {
			continue
		}
		var spring func()
		spring = func() {
			whom := t.Whom
			if whom == writer {
				whom = m.writerOf(name)
			}
			killed := m.kill(whom, fmt.Sprintf("%s is there", name))
			m.tally.Traps[string(kind)] += killed
			if killed == 0 && !m.complete { // everybody is being killed
				m.after(5*time.Millisecond, spring)
			}
		}
		if t.Delay == 0 {
			spring()
		} else {
			m.after(t.Delay, spring)
		}
	}
	if kind == kindPlan {
		m.startAll()
	}
}

// writerOf is the place of the process that stored a results.done; everybody where that
// is not at a place any more.
func (m *stormMaster) writerOf(name string) target {
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	var done struct {
		Task struct{ Worker string }
	}
	if err == nil && json.Unmarshal(b, &done) == nil {
		pid, _ := strconv.Atoi(done.Task.Worker[strings.LastIndexByte(done.Task.Worker, '-')+1:])
		for place, l := range m.lives {
			if l != nil && l.cmd.Process.Pid == pid {
				return target(place)
			}
		}
	}
	return everybody
}

// next waits for the moment of the n-th deed, and does it.
func (m *stormMaster) next(n int) {
	if n == len(m.plan.Deeds) {
		m.say("the rest is calm")
		return
	}
	d := m.plan.Deeds[n]
	from, due := m.files, time.Now().Add(d.Wait)
	var look func()
	look = func() {
		switch {
		case m.complete:
			m.say("the run has ended before %d deeds", len(m.plan.Deeds)-n)
			m.tally.Deeds["none, for the run had ended"] += len(m.plan.Deeds) - n
		case m.jobID == "" && d.Files < 100, // not before there is a plan
			m.files-from < d.Files && time.Now().Before(due):
			m.after(2*time.Millisecond, look)
		default:
			m.do(d, func() { m.next(n + 1) })
		}
	}
	look()
}

// do does one deed; then comes the next.
func (m *stormMaster) do(d deed, then func()) {
	m.tally.Deeds[string(d.What)]++
	if d.What != deedKill {
		m.say("%s", d.What)
	}
	switch d.What {
	case deedKill, deedPowerCut:
		m.kill(d.Whom, string(d.What))
	case deedHurry:
		if l := m.living(d.Whom); l != nil {
			l.hurried = true
			m.say("SIGTERM to %s, pid %d", l.role, l.cmd.Process.Pid)
			syscall.Kill(-l.cmd.Process.Pid, syscall.SIGTERM)
			m.after(d.Lasts, func() {
				if m.lives[l.place] == l {
					m.killLife(l, "while it hands back")
				}
			})
		}
	case deedStop, deedStopQueue, deedStopState:
		m.stop(d)
	case deedSleep:
		m.sleep(d)
	case deedState:
		m.deleteState("state.db", "state.db-wal", "state.db-shm")
	case deedStatePart:
		m.deleteState([]string{"state.db", "state.db-wal", "state.db-shm"}[d.Files%3])
	case deedQueue:
		m.deleteQueue()
	case deedStateQueue:
		m.withNobody(string(d.What), func() {
			m.deleteState("state.db", "state.db-wal", "state.db-shm")
			m.startAll()
			then()
		})
		return
	case deedFull:
		m.inTrouble(d, m.disk.fill, m.disk.free, then)
		return
	case deedReadOnly:
		m.inTrouble(d, m.disk.freeze, m.disk.thaw, then)
		return
	case deedRemount:
		m.withNobody(string(d.What), func() {
			m.inTrouble(d, func() error { return m.disk.remount(true) }, func() error { return m.disk.remount(false) }, then)
			m.startAll()
		})
		return
	}
	then()
}

// stop has a process stand still for longer than its leases.
func (m *stormMaster) stop(d deed) {
	l := m.living(d.Whom)
	if l == nil {
		return
	}
	m.say("SIGSTOP to %s, pid %d, for %v", l.role, l.cmd.Process.Pid, d.Lasts.Round(time.Millisecond))
	l.stopped = true
	syscall.Kill(-l.cmd.Process.Pid, syscall.SIGSTOP)
	switch d.What {
	case deedStopQueue:
		m.deleteQueue()
	case deedStopState:
		m.deleteState("state.db", "state.db-wal", "state.db-shm")
	}
	m.after(d.Lasts, func() {
		if m.lives[l.place] == l && l.killed == "" {
			m.say("SIGCONT to %s, pid %d", l.role, l.cmd.Process.Pid)
			l.stopped = false
			syscall.Kill(-l.cmd.Process.Pid, syscall.SIGCONT)
		}
	})
}

// sleep has a process stand still with what it has in hand, until others have done that,
// and more. When nothing moves it has what the others need, which ends with it.
func (m *stormMaster) sleep(d deed) {
	l := m.living(d.Whom)
	if l == nil {
		return
	}
	m.say("SIGSTOP to %s, pid %d, until there is %s", l.role, l.cmd.Process.Pid, d.Until)
	l.stopped, l.asleep = true, true
	syscall.Kill(-l.cmd.Process.Pid, syscall.SIGSTOP)
	m.deleteState("state.db", "state.db-wal", "state.db-shm")
	files, since := m.files, time.Now()
	var look func()
	look = func() {
		if m.files != files || m.trouble || m.held {
			files, since = m.files, time.Now()
		}
		stuck := time.Since(since) > 2*time.Second
		switch {
		case m.lives[l.place] != l || l.killed != "":
		case m.byKind[d.Until] == 0 && !stuck:
			m.after(20*time.Millisecond, look)
		default:
			m.after(d.Lasts, func() {
				if m.lives[l.place] == l && l.killed == "" {
					m.say("SIGCONT to %s, pid %d; nothing moved: %v", l.role, l.cmd.Process.Pid, stuck)
					if !stuck {
						m.tally.Slept++
					}
					l.stopped = false
					syscall.Kill(-l.cmd.Process.Pid, syscall.SIGCONT)
				}
			})
		}
	}
	look()
}

func (m *stormMaster) deleteState(names ...string) {
	for _, name := range names {
		if err := os.Remove(filepath.Join(m.dir, ".hayrick", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			m.fail("delete the state: %v", err)
		}
	}
}

// deleteQueue takes all messages away, as somebody with sqlite3 might. Where a process
// that was stopped holds the lock, they stay.
func (m *stormMaster) deleteQueue() {
	path, round := filepath.Join(m.dir, ".hayrick", "state.db"), m.nth
	m.busy++
	go func() {
		n, err := func() (int64, error) {
			db, err := sql.Open("sqlite", "file:"+path+"?mode=rw&_pragma=busy_timeout(300)")
			if err != nil {
				return 0, err
			}
			defer db.Close()
			r, err := db.Exec(`DELETE FROM messages`)
			if err != nil {
				return 0, err
			}
			return r.RowsAffected()
		}()
		m.events <- event{round, func() {
			m.busy--
			m.say("%d messages deleted, %v", n, err)
		}}
	}()
}

// inTrouble is a time in which the disk is not well.
func (m *stormMaster) inTrouble(d deed, begin, end func() error, then func()) {
	m.troubled()
	if err := begin(); err != nil {
		m.trouble = false
		m.say("%s: not tried: %v", d.What, err)
		m.tally.Deeds[string(d.What)]--
		if what := fmt.Sprintf("%s: %v", d.What, err); !slices.Contains(m.tally.NotTried, what) {
			m.tally.NotTried = append(m.tally.NotTried, what)
		}
		then()
		return
	}
	m.after(d.Lasts, func() {
		if err := end(); err != nil {
			m.fail("after %s: %v", d.What, err)
		}
		m.trouble = false
		m.say("the disk is well")
		then()
	})
}

func (m *stormMaster) troubled() {
	m.trouble = true
	for _, l := range m.lives {
		if l != nil {
			l.troubled = true
		}
	}
}

// round is one run from its submission to its end.
func (m *stormMaster) round(n int) error {
	if err := m.disk.workspace(); err != nil {
		return err
	}
	m.began, m.plan = time.Now(), planStorm(m.seed, uint64(n))
	kind := (m.seed + uint64(n)) % 4
	m.shape, m.crew, m.jobID = stormShapes[kind%2], kind/2 == 1, ""
	m.said, m.files, m.err = nil, 0, nil
	m.lives, m.over = make([]*life, len(places)), make([]bool, len(places))
	m.byKind, m.results, m.complete = map[fileKind]int{}, nil, false
	m.nth, m.trouble, m.held, m.empty, m.busy = n, false, false, nil, 0
	files, err := watchArrivals(m.dir, func(name string) { m.events <- event{n, func() { m.appeared(name) }} })
	if err != nil {
		return err
	}
	defer files.close()
	m.startAll()
	m.next(0)
	late := time.NewTimer(stormPatience)
	defer late.Stop()
	next := func(e event) {
		if e.round == n {
			e.do()
		}
	}
	for m.err == nil && (!m.complete || !m.nobody() || m.trouble || m.busy > 0) {
		select {
		case e := <-m.events:
			next(e)
		case <-late.C:
			m.fail("the run has not ended after %v", stormPatience)
		}
	}
	m.held, m.empty = true, nil
	for !m.nobody() { // only after a failure
		m.kill(everybody, "the storm has failed")
		next(<-m.events)
	}
	m.tally.Rounds++
	return m.err
}

// stormMain is the storm as a process of its own, which alone sees the disk that it fills:
// <binary> <folder> <calm folder> <seed> <least kills>. It prints its tally as JSON.
func stormMain() {
	runtime.LockOSThread() // the children die with the thread that started them
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if err := storms(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func storms(bin, dir, calmDir, seedText, killsText string) error {
	seed, err := strconv.ParseUint(seedText, 10, 64)
	if err != nil {
		return err
	}
	least, err := strconv.Atoi(killsText)
	if err != nil {
		return err
	}
	m := &stormMaster{bin: bin, dir: dir, seed: seed, events: make(chan event, 1000), disk: newStormDisk(dir, filepath.Join(calmDir, "jobs"))}
	m.tally.By, m.tally.Traps, m.tally.Deeds, m.tally.Hard = map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	if m.disk.why != nil {
		m.tally.NotTried = append(m.tally.NotTried, m.disk.why.Error())
	}
	begun := time.Now()
	var said strings.Builder
	calm := m.command(append([]string{"run", "jobs/backfill", "--json", "-q"}, stormArgs...)...)
	calm.Dir, calm.Stdout = calmDir, &said
	calm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := calm.Start(); err != nil {
		return err
	}
	calmed := make(chan error, 1)
	go func() { calmed <- calm.Wait() }()
	for m.tally.Kills < least {
		before := m.tally.Kills
		err := m.round(m.tally.Rounds)
		if m.tally.Rounds == 1 {
			if err != nil {
				calm.Process.Kill()
			}
			err = errors.Join(err, <-calmed)
		}
		if err == nil {
			var undisturbed finished
			if err = json.Unmarshal([]byte(said.String()), &undisturbed); err == nil {
				err = m.verify(undisturbed)
			}
		}
		if err != nil {
			return m.report(err)
		}
		fmt.Fprintf(os.Stderr, "round %d: %d kills in %v; %s\n", m.tally.Rounds, m.tally.Kills-before, time.Since(m.began).Round(time.Millisecond), m.said[len(m.said)-1])
	}
	m.tally.Seconds = time.Since(begun).Seconds()
	return json.NewEncoder(os.Stdout).Encode(m.tally)
}

// report keeps what a person wants to look at after a failure.
func (m *stormMaster) report(err error) error {
	kept, kerr := os.MkdirTemp("", "hayrick-storm-")
	if kerr == nil {
		kerr = errors.Join(m.disk.free(), os.CopyFS(kept, os.DirFS(m.dir)))
	}
	last := m.said[max(0, len(m.said)-50):]
	counts, _ := json.Marshal(m.byKind)
	return fmt.Errorf("round %d of HAYRICK_STORM_SEED=%d, after %d kills: %w\nthe last it did:\n%s\nfiles: %s\nthe store is kept in %s (%v)",
		m.tally.Rounds-1, m.seed, m.tally.Kills, err, strings.Join(last, "\n"), counts, kept, kerr)
}

// lines are the tally for people.
func (t stormTally) lines() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d SIGKILLs in %d rounds, %d processes, %.0f s\n", t.Kills, t.Rounds, t.Started, t.Seconds)
	table := func(title string, of map[string]int) {
		fmt.Fprintln(&b, title)
		for _, name := range slices.Sorted(maps.Keys(of)) {
			fmt.Fprintf(&b, "  %5d  %s\n", of[name], name)
		}
	}
	table("killed, by role and phase:", t.By)
	table("of these, right after a file had appeared:", t.Traps)
	table("deeds:", t.Deeds)
	table("ended by themselves while the disk was full or read-only, by exit code:", t.Hard)
	fmt.Fprintf(&b, "rows of more than one attempt were stored for %d tasks; %d leases were found lost; %d views were left out; %d processes woke when all tasks were done\n", t.Twice, t.Lost, t.Views, t.Slept)
	for _, what := range t.NotTried {
		fmt.Fprintf(&b, "NOT TRIED: %s\n", what)
	}
	return b.String()
}
