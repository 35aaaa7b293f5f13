package processtree

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// verb is the first argument of a supervisor. It is none of hayrick's.
const verb = "(supervise)"

// Supervising says that these are the arguments of a supervisor.
func Supervising(args []string) bool { return len(args) > 1 && args[1] == verb }

// The descriptors of a supervisor behind 0, 1 and 2; those of its program follow.
const (
	controlFD = 3
	reportFD  = 4
	moreFD    = 5
)

// tooLong is how long a supervisor waits for what it has killed.
const tooLong = time.Second

// supervisor is the process between a worker and a program.
type supervisor struct {
	pid   int
	grace time.Duration

	mu    sync.Mutex // guards ended
	ended bool       // the program is reaped: its pid may be another's
}

// Supervise runs the program that the arguments name until it and all it has left
// behind have ended. It belongs at the start of main: it is all that its process does.
func Supervise(args []string) int {
	runtime.LockOSThread() // the program gets SIGKILL when the thread that forked it ends
	s := &supervisor{}
	ms, err := strconv.Atoi(args[2])
	files, err2 := strconv.Atoi(args[3])
	if err != nil || err2 != nil || len(args) < 7 {
		return 2
	}
	s.grace = time.Duration(ms) * time.Millisecond
	control, report := os.NewFile(controlFD, "control"), os.NewFile(reportFD, "report")
	syscall.CloseOnExec(controlFD)
	syscall.CloseOnExec(reportFD)
	// Slurm and terminals signal all processes there are. This one ends with its program;
	// a signal that is caught, other than one that is ignored, is as ever for what it starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	adopt()
	fds := []uintptr{0, 1, 2}
	for i := range files - 3 {
		fds = append(fds, uintptr(moreFD+i))
		syscall.CloseOnExec(moreFD + i) // it gets them from 3 on, and only there
	}
	s.pid, err = syscall.ForkExec(args[5], args[6:], &syscall.ProcAttr{Dir: args[4], Env: os.Environ(), Files: fds, Sys: attributes()})
	if err != nil {
		errno, _ := err.(syscall.Errno)
		fmt.Fprintf(report, "errno %d\n", int(errno))
		return 1
	}
	letGo(files) // the pipes are to end with the program
	fmt.Fprintf(report, "started %d\n", s.pid)
	go s.obey(control)
	for {
		var status syscall.WaitStatus
		var usage syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, 0, &usage)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0 // nobody is left
		case pid == s.pid:
			s.mu.Lock()
			syscall.Kill(-s.pid, syscall.SIGKILL)
			s.ended = true
			s.mu.Unlock()
			fmt.Fprintf(report, "ended %d %d\n", uint32(status), peak(&usage))
			go s.clear()
		}
	}
}

// letGo gives the descriptors of the program up.
func letGo(files int) {
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			unix.Dup2(int(null.Fd()), fd)
		}
		null.Close()
	}
	for i := range files - 3 {
		syscall.Close(moreFD + i)
	}
}

// obey carries out the starter's commands until it has gone, and then ends all.
func (s *supervisor) obey(control *os.File) {
	var command [1]byte
	for {
		if n, err := control.Read(command[:]); n < 1 || err != nil {
			break
		}
		switch command[0] {
		case terminate:
			s.ask()
		case kill:
			s.end()
		}
	}
	s.ask()
	time.Sleep(s.grace)
	s.clear()
}

// clear ends all there is and does not wait for ever for what does not end.
func (s *supervisor) clear() {
	for until := time.Now().Add(tooLong); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		s.end()
	}
	os.Exit(0)
}

func (s *supervisor) ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		ask(s.pid)
	}
}

// end kills all there is: first the group at once, then everything that was adopted.
// What forks is stopped before it is killed, so that it does not run ahead of the list.
func (s *supervisor) end() {
	s.mu.Lock()
	if !s.ended {
		syscall.Kill(-s.pid, syscall.SIGKILL)
		syscall.Kill(s.pid, syscall.SIGKILL)
	}
	s.mu.Unlock()
	stopped := map[int]bool{}
	for fresh, n := true, 0; fresh && n < 100; n++ {
		fresh = false
		for _, pid := range descendants(os.Getpid()) {
			if !stopped[pid] {
				fresh, stopped[pid] = true, true
				syscall.Kill(pid, syscall.SIGSTOP)
			}
		}
	}
	for pid := range stopped {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// ask asks a process and its group to end.
func ask(pid int) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		syscall.Kill(-pid, sig)
		syscall.Kill(pid, sig) // it may have gone to another group
	}
}
