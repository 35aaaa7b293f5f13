package processtree

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Spec is a program to start.
type Spec struct {
	Self  string // the binary that has Supervise; "" = no supervisor
	Path  string
	Args  []string // with its name, as os.Args
	Dir   string
	Env   []string
	Files []*os.File    // its descriptors, from 0
	Grace time.Duration // from SIGTERM to SIGKILL when the starter is gone
}

// Tree is a program that was started, and what it has forked.
type Tree struct {
	cmd     *exec.Cmd // the supervisor, or the program
	pid     int       // of the program, which leads a process group
	control *os.File  // nil without a supervisor
	report  *os.File
	lines   *bufio.Reader // of report
}

// End is how a program ended.
type End struct {
	Status syscall.WaitStatus
	Peak   int64 // the most of its memory that was resident, in bytes; 0 = unknown
	Lost   bool  // it is the supervisor's status: that was ended, and the program with it
}

// The commands of a starter, a byte each.
const (
	terminate = 'T'
	kill      = 'K'
)

// Start starts a program. An error of the system to do so is a syscall.Errno.
func Start(s Spec) (*Tree, error) {
	if s.Self == "" {
		cmd := &exec.Cmd{Path: s.Path, Args: s.Args, Dir: s.Dir, Env: s.Env, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
		give(cmd, s.Files)
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return &Tree{cmd: cmd, pid: cmd.Process.Pid}, nil
	}
	t := &Tree{}
	theirs, err := t.pipes()
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if err != nil {
		t.close()
		return nil, fmt.Errorf("make the pipes of a supervisor: %w", err)
	}
	args := []string{"hayrick", verb, strconv.FormatInt(s.Grace.Milliseconds(), 10), strconv.Itoa(len(s.Files)), s.Dir, s.Path}
	t.cmd = &exec.Cmd{Path: s.Self, Args: append(args, s.Args...), Env: s.Env, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	give(t.cmd, append(s.Files[:min(len(s.Files), 3):3], append(theirs, s.Files[min(len(s.Files), 3):]...)...))
	if err := t.cmd.Start(); err != nil {
		t.close()
		return nil, fmt.Errorf("start a supervisor: %w", err)
	}
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil
	t.lines = bufio.NewReader(t.report)
	line, err := t.lines.ReadString('\n')
	var errno int
	if _, e := fmt.Sscanf(line, "started %d\n", &t.pid); e == nil {
		return t, nil
	}
	if _, e := fmt.Sscanf(line, "errno %d\n", &errno); e == nil {
		err = syscall.Errno(errno)
	} else {
		err = fmt.Errorf("start a supervisor: it said %q: %w", line, err)
	}
	t.close()
	t.cmd.Wait()
	return nil, err
}

// give hands descriptors to a command.
func give(cmd *exec.Cmd, files []*os.File) {
	for i, f := range files {
		switch i {
		case 0:
			cmd.Stdin = f
		case 1:
			cmd.Stdout = f
		case 2:
			cmd.Stderr = f
		default:
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
}

// pipes makes the two pipes to a supervisor and returns its ends.
func (t *Tree) pipes() (theirs []*os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	t.control = w
	theirs = append(theirs, r)
	if r, w, err = os.Pipe(); err != nil {
		return theirs, err
	}
	t.report = r
	return append(theirs, w), nil
}

func (t *Tree) close() {
	for _, f := range []*os.File{t.control, t.report} {
		if f != nil {
			f.Close()
		}
	}
}

// Pid is the program's.
func (t *Tree) Pid() int { return t.pid }

// Terminate asks the program's process group to end. One that is stopped goes on to
// hear it.
func (t *Tree) Terminate() {
	if t.control != nil {
		t.control.Write([]byte{terminate}) // who does not read it any more has ended
		return
	}
	ask(t.pid)
}

// Kill ends the program and, as far as it can be found, all it has forked.
func (t *Tree) Kill() {
	if t.control != nil {
		t.control.Write([]byte{kill})
		return
	}
	syscall.Kill(-t.pid, syscall.SIGKILL) // nobody left in the group is what was wanted
}

// Wait waits for the program's end and that of all it has left behind. What cannot be
// killed, because it waits for a disk that does not answer, is waited for no longer than
// a second.
func (t *Tree) Wait() End {
	if t.control == nil {
		t.cmd.Wait()
		t.Kill()
		return End{Status: t.cmd.ProcessState.Sys().(syscall.WaitStatus), Peak: peak(t.cmd.ProcessState.SysUsage().(*syscall.Rusage))}
	}
	line, _ := t.lines.ReadString('\n') // the end of the report is the supervisor's
	t.cmd.Wait()
	t.close()
	var status uint32
	var e End
	if _, err := fmt.Sscanf(line, "ended %d %d\n", &status, &e.Peak); err != nil {
		return End{Status: t.cmd.ProcessState.Sys().(syscall.WaitStatus), Lost: true}
	}
	e.Status = syscall.WaitStatus(status)
	return e
}

// Memory is what the program and all it has forked have resident, in bytes: 0 where
// that cannot be seen (only on Linux it can). Where the sum is above limit, pages that
// several of them share are counted once.
func (t *Tree) Memory(limit int64) int64 {
	var pids []int
	if t.control == nil {
		pids = []int{t.pid}
	}
	pids = append(pids, descendants(t.cmd.Process.Pid)...)
	var sum int64
	for _, pid := range pids {
		sum += resident(pid)
	}
	if sum <= limit {
		return sum
	}
	sum = 0
	for _, pid := range pids {
		sum += proportional(pid)
	}
	return sum
}
