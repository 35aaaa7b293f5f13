package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var ids atomic.Int64

func newID() string { return fmt.Sprintf("%d.%d", os.Getpid(), ids.Add(1)) }

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir, newID, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func link(t *testing.T, d *Dir, name, body string) bool {
	t.Helper()
	f, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(body); err != nil {
		t.Fatal(err)
	}
	linked, err := f.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	return linked
}

func ls(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// disk follows a trace and knows what a power cut would leave: bytes that were
// fsynced, and names whose folder, and every folder above, was fsynced after they
// appeared.
type disk struct {
	mu      sync.Mutex
	written map[string]bool            // temps that have all their bytes
	bytes   map[string]bool            // ... which are safe
	visible map[string]bool            // files and folders that have a name
	safe    map[string]bool            // ... that a power cut does not take
	syncing map[string]map[string]bool // folder -> its names when a running fsync began
	bad     []string
}

func (k *disk) trace(op, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	op, temp, _ := strings.Cut(op, " ")
	switch op {
	case "seen":
		for dir := name; dir != "."; dir = path.Dir(dir) {
			k.visible[dir] = true
		}
	case "link":
		if !k.bytes[temp] {
			k.bad = append(k.bad, name+" is visible before its bytes are safe")
		}
		k.visible[name] = true
	case "written":
		k.written[name] = true
	case "fsync": // of a folder, or of everything
		inside := map[string]bool{}
		for n := range k.visible {
			if path.Dir(n) == name || name == "*" {
				inside[n] = true
			}
		}
		for n := range k.written {
			if name == "*" {
				inside[n] = true
			}
		}
		k.syncing[name] = inside
	case "fsynced":
		k.bytes[name] = true
		for n := range k.syncing[name] {
			k.safe[n], k.bytes[n] = true, true
		}
	}
}

func (k *disk) survives(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ; name != "."; name = path.Dir(name) {
		if !k.safe[name] {
			return false
		}
	}
	return true
}

// Whenever Link returns, whoever won, the name and all folders above it survive a
// power cut; and no name is ever visible whose bytes do not.
func TestPowerCut(t *testing.T) {
	for name, wholeCost := range map[string]time.Duration{"together": 0, "alone": time.Hour} {
		t.Run(name, func(t *testing.T) { testPowerCut(t, wholeCost) })
	}
}

func testPowerCut(t *testing.T, wholeCost time.Duration) {
	d := open(t, t.TempDir())
	if d.sync.whole == nil {
		d.sync.whole = d.syncAll
	}
	d.sync.wholeCost = wholeCost
	d.sync.now = func() time.Time { return time.Time{} } // so that costs stay
	d.sync.ownCost = 1
	k := &disk{written: map[string]bool{}, bytes: map[string]bool{}, visible: map[string]bool{}, safe: map[string]bool{}, syncing: map[string]map[string]bool{}}
	d.trace = k.trace
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 60 {
				name := fmt.Sprintf("jobs/j%d/tasks/task-%d/results.done", i/20, (i+w%2)/3)
				f, err := d.Create()
				if err != nil {
					t.Error(err)
					return
				}
				if i%4 == 0 { // a view makes folders without fsync
					if err := f.Replace(path.Dir(name) + "/manifest.json"); err != nil {
						t.Error(err)
					}
					continue
				}
				if _, err := f.Link(name); err != nil {
					t.Error(err)
				}
				if !k.survives(name) {
					t.Errorf("%s may vanish after Link returned", name)
				}
			}
		})
	}
	wg.Wait()
	for _, b := range k.bad {
		t.Error(b)
	}
	if k.bytes["*"] != (wholeCost == 0) {
		t.Errorf("everything was synced at once: %v", k.bytes["*"])
	}
	if left := ls(t, filepath.Join(d.Path(), tempDir)); len(left) != 0 {
		t.Errorf("temps are left: %q", left)
	}
}

// A writer that died between link and fsync: who finds its file makes the name
// durable before using it, and so does who cleans up after it.
func TestNameOfADeadWriter(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	dead := filepath.Join(dir, tempDir, "dead-1")
	if err := os.MkdirAll(filepath.Join(dir, "jobs/j"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dead, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(dead, filepath.Join(dir, "jobs/j/plan.json")); err != nil {
		t.Fatal(err)
	}
	synced := map[string]bool{}
	d.trace = func(op, name string) { synced[op+" "+name] = true }
	for range 2 {
		clear(synced)
		if err := d.Settle("jobs/j/plan.json"); err != nil {
			t.Fatal(err)
		}
		if !synced["fsynced jobs/j"] {
			t.Errorf("the name was trusted: %v", synced)
		}
	}
	clear(synced)
	if link(t, d, "jobs/j/plan.json", "y") {
		t.Error("a name that is there was given again")
	}
	if !synced["fsynced jobs/j"] {
		t.Errorf("the name was trusted: %v", synced)
	}

	other := open(t, dir) // cleans up: a sync of everything, then the temp goes
	if other.Fsyncs() != 1 {
		t.Errorf("%d fsyncs", other.Fsyncs())
	}
	if left := ls(t, filepath.Join(dir, tempDir)); len(left) != 0 {
		t.Errorf("temps are left: %q", left)
	}
	clear(synced)
	if err := d.Settle("jobs/j/plan.json"); err != nil {
		t.Fatal(err)
	}
	if len(synced) != 0 {
		t.Errorf("a durable name costs %v", synced)
	}
}

func TestNothingLeavesTheFolder(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	d := open(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "jobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "jobs/out")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Settle("jobs/out/secret"); err == nil {
		t.Error("a link leads out of the folder")
	}
	for _, name := range []string{"jobs/out/x", "../x", "jobs/../../x", filepath.Join(outside, "x")} {
		for how, end := range map[string]func(*Temp) error{
			"link":    func(f *Temp) error { _, err := f.Link(name); return err },
			"replace": func(f *Temp) error { return f.Replace(name) },
		} {
			f, err := d.Create()
			if err != nil {
				t.Fatal(err)
			}
			if err := end(f); err == nil {
				t.Errorf("%s to %s works", how, name)
			}
		}
	}
	if got := ls(t, outside); len(got) != 1 {
		t.Errorf("outside lies %q", got)
	}
}

func TestOwners(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	other, err := Open(dir, newID, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Alive(d.Owner()) || !d.Alive(other.Owner()) || !other.Alive(d.Owner()) || d.Alive("nobody") {
		t.Error("who is alive is not seen")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if d.Alive(other.Owner()) {
		t.Error("who has left counts as alive")
	}
	// A child that is killed while it has temps.
	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = append(os.Environ(), "DURABLE_CHILD="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	owner, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	owner = strings.TrimSpace(owner)
	if !d.Alive(owner) {
		t.Error("a live process counts as dead")
	}
	open(t, dir)
	if left := ls(t, filepath.Join(dir, tempDir)); len(left) != 1 {
		t.Errorf("while it lives, its temps are %q", left)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	if d.Alive(owner) {
		t.Error("a killed process counts as alive")
	}
	open(t, dir)
	if left := ls(t, filepath.Join(dir, tempDir)); len(left) != 0 {
		t.Errorf("a killed process left %q", left)
	}
	if _, err := os.Stat(filepath.Join(dir, procDir, owner)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its mark is still there: %v", err)
	}
}

// TestChild is the process that TestOwners kills.
func TestChild(t *testing.T) {
	dir := os.Getenv("DURABLE_CHILD")
	if dir == "" {
		return
	}
	d, err := Open(dir, newID, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "half a file")
	fmt.Println(d.Owner())
	time.Sleep(time.Hour) // until it is killed; a select without cases is a deadlock, which ends it
}

// Callers that come while a sync is under way share the next one; when a shared one
// fails, or costs more than n of their own, each syncs for himself.
func TestBarrier(t *testing.T) {
	const n = 20
	broken := errors.New("broken")
	for _, c := range []struct {
		name         string
		whole        error
		wholeCost    time.Duration
		wholes, owns int64
	}{
		{"shared", nil, 0, 1, 1},
		{"shared fails", broken, 0, 1, 1 + n},
		{"too dear", nil, time.Hour, 0, 1 + n},
	} {
		t.Run(c.name, func(t *testing.T) {
			var wholes, owns atomic.Int64
			b := &barrier{
				whole:     func() error { wholes.Add(1); return c.whole },
				now:       func() time.Time { return time.Time{} },
				wholeCost: c.wholeCost, ownCost: time.Millisecond,
			}
			begun, release := make(chan struct{}), make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				all, err := b.sync(func() error { owns.Add(1); close(begun); <-release; return broken })
				if all || !errors.Is(err, broken) {
					t.Errorf("who was alone: %v, %v", all, err)
				}
			})
			<-begun
			for range n {
				wg.Go(func() {
					all, err := b.sync(func() error { owns.Add(1); return nil })
					if all != (c.wholes == 1 && c.whole == nil) || err != nil {
						t.Errorf("who joined: %v, %v", all, err)
					}
				})
			}
			for joined := 0; joined < n; runtime.Gosched() {
				b.mu.Lock()
				if b.next != nil {
					joined = b.next.n
				}
				b.mu.Unlock()
			}
			close(release)
			wg.Wait()
			if wholes.Load() != c.wholes || owns.Load() != c.owns {
				t.Errorf("%d syncs of all, %d own ones; want %d and %d", wholes.Load(), owns.Load(), c.wholes, c.owns)
			}
			if b.next != nil || b.running != nil {
				t.Error("a round is left")
			}
		})
	}
}

func TestRecent(t *testing.T) {
	var r recent
	for i := range 3 * recentNames {
		r.add(fmt.Sprint(i))
		if !r.has("0") { // what is used stays
			t.Fatalf("forgotten after %d", i)
		}
	}
	if r.has("1") || len(r.young)+len(r.old) > 2*recentNames {
		t.Errorf("nothing is ever forgotten: %d", len(r.young)+len(r.old))
	}
	r.forget("0")
	if r.has("0") {
		t.Error("not forgotten")
	}
}

// A published file replaces the one before it as a whole, a source that breaks
// leaves the old one, and what a killed publisher left goes, but not what a live
// one is writing.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.WriteFile(filepath.Join(dir, publishPrefix+"0-1"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(s string) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteString(s); return err }
	}
	err = Publish(root, "lists/a", func(f *os.File) error { // while this one is written
		if err := Publish(root, "b", write("b")); err != nil {
			return err
		}
		return write("a")(f)
	})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := Publish(root, "b", func(f *os.File) error { f.WriteString("half"); return broken }); !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
	if got := ls(t, dir); len(got) != 2 || got[0] != "b" || got[1] != "lists" {
		t.Errorf("the folder holds %q", got)
	}
	for name, want := range map[string]string{"lists/a": "a", "b": "b"} {
		if got, err := root.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s reads %q, %v", name, got, err)
		}
	}
	if err := Publish(root, "../out", write("x")); err == nil {
		t.Error("published outside")
	}
}

// Somebody may tidy up the folder of temps while its owners are at work.
func TestTempsFolderGone(t *testing.T) {
	d := open(t, t.TempDir())
	if err := os.RemoveAll(filepath.Join(d.Path(), tempDir)); err != nil {
		t.Fatal(err)
	}
	f, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	if linked, err := f.Link("a/b"); err != nil || !linked {
		t.Fatalf("linked is %v, %v", linked, err)
	}
}
