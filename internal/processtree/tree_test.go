package processtree

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// starter makes of the test's binary a worker that starts a program and does nothing.
const starter = "HAYRICK_TEST_STARTER"

func TestMain(m *testing.M) {
	if Supervising(os.Args) {
		os.Exit(Supervise(os.Args))
	}
	if script := os.Getenv(starter); script != "" {
		self, _ := Self()
		if _, err := Start(Spec{Self: self, Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		io.Copy(io.Discard, os.Stdin)
	}
	os.Exit(m.Run())
}

// tree starts a shell under a supervisor. It returns the other ends of its stdin and
// stdout.
func tree(t *testing.T, script string) (*Tree, io.Closer, *bufio.Reader) {
	t.Helper()
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.Cleanup(func() { r.Close(); in.Close() })
	tr, err := Start(Spec{Self: self, Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{stdin, w, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	return tr, in, bufio.NewReader(r)
}

// pids reads n lines of a process id each.
func pids(t *testing.T, from *bufio.Reader, n int) (out []int) {
	t.Helper()
	for range n {
		line, err := from.ReadString('\n')
		pid, e := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || e != nil {
			t.Fatalf("%q: %v %v", line, err, e)
		}
		out = append(out, pid)
	}
	return out
}

// state is what a process does, a letter: Z and X when it has ended, 0 when it is not
// there.
func state(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte(") "))
	return append(rest, 0)[0]
}

// there says that a process has not ended.
func there(pid int) bool { return !strings.ContainsRune("ZX\x00", rune(state(pid))) }

// family forks a child, one in a session of its own, and an orphan in another, and
// prints their ids.
const family = `sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & setsid sh -c 'sh -c "echo \$\$; exec sleep 1000" & exit'; `

// What a program leaves behind is gone when its end is told, wherever it has gone.
func TestEndOfAProgram(t *testing.T) {
	tr, in, out := tree(t, family+"read x; exit 7")
	all := pids(t, out, 3)
	in.Close()
	if e := tr.Wait(); e.Lost || e.Status.ExitStatus() != 7 {
		t.Errorf("%+v", e)
	}
	for _, pid := range all {
		if there(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("its pipe: %q %v", rest, err)
	}
}

// A killed program's status is the signal's, and a stopped one hears SIGTERM.
func TestCommands(t *testing.T) {
	tr, _, out := tree(t, `trap "" TERM; `+family+"while :; do sleep 1000; done")
	all := append(pids(t, out, 3), tr.Pid())
	tr.Kill()
	if e := tr.Wait(); e.Lost || e.Status.Signal() != syscall.SIGKILL || e.Peak == 0 {
		t.Errorf("%+v", e)
	}
	for _, pid := range all {
		if there(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	tr, _, out = tree(t, `trap "exit 5" TERM; echo 1; kill -STOP $$; while :; do sleep 1000 & wait; done`)
	pids(t, out, 1)
	for state(tr.Pid()) != 'T' {
		runtime.Gosched()
	}
	tr.Terminate()
	if e := tr.Wait(); e.Status.ExitStatus() != 5 {
		t.Errorf("%+v", e)
	}
}

// A worker that is killed takes everything along, and so does a supervisor that is.
func TestKilledWorker(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), starter+"="+family+`echo $$; echo $PPID; exec sleep 1000`)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // it lives as long as we do, or until it is killed
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all := pids(t, bufio.NewReader(pipe), 5)
	cmd.Process.Kill()
	for _, pid := range all {
		for there(pid) {
			runtime.Gosched()
		}
	}
	cmd.Wait()

	tr, _, out := tree(t, "echo $PPID; exec sleep 1000")
	syscall.Kill(pids(t, out, 1)[0], syscall.SIGKILL)
	if e := tr.Wait(); !e.Lost || e.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%+v", e)
	}
	for there(tr.Pid()) {
		runtime.Gosched()
	}
}

// Descriptors arrive in their places, and why a program cannot be started is told.
func TestStart(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"/no/such": syscall.ENOENT, "/": syscall.EACCES} {
		if _, err := Start(Spec{Self: self, Path: path, Args: []string{"x"}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	var r, w [2]*os.File
	for i := range r {
		if r[i], w[i], err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		defer r[i].Close()
	}
	tr, err := Start(Spec{Self: self, Path: "/bin/ls", Args: []string{"ls", "-l", "/proc/self/fd", "."}, Dir: "/proc/self", Env: os.Environ(), Files: []*os.File{os.Stdin, w[0], os.Stderr, w[1]}})
	for _, f := range w {
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(r[0])
	tr.Wait()
	link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r[1].Fd()))
	if got := string(said); err != nil || !strings.Contains(got, " 3 -> "+link+"\n") || strings.Count(got, link) != 1 || !strings.Contains(got, " cmdline\n") {
		t.Errorf("it said %s, %v; want %s at 3", got, err, link)
	}
}
