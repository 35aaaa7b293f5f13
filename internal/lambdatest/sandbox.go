package lambdatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Why an invocation failed, beside what the function itself reported.
var (
	ErrTimeout = errors.New("task timed out")
	ErrExit    = errors.New("the runtime exited")
)

// FunctionError is what a function reported as its error, or as why it cannot start.
type FunctionError struct {
	Init bool
	Body string
}

func (e *FunctionError) Error() string { return "function error: " + e.Body }

// initTime is what Lambda gives a process to ask for its first invocation.
const initTime = 10 * time.Second

// sandbox is one execution environment. It is used by one goroutine at a time.
type sandbox struct {
	f    *Function
	name string // its log stream
	dir  string // holds tmp and task
	rt   *runtime
}

func newSandbox(f *Function, n int) (*sandbox, error) {
	s := &sandbox{f: f, name: fmt.Sprintf("2026/11/20/[$LATEST]%032x", n), dir: filepath.Join(f.Dir, fmt.Sprintf("%s-%d", f.Name, n))}
	for _, dir := range []string{s.tmp(), s.task()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *sandbox) tmp() string  { return filepath.Join(s.dir, "tmp") }
func (s *sandbox) task() string { return filepath.Join(s.dir, "task") }

// environment is what Lambda sets, and nothing of this process's.
func (s *sandbox) environment() []string {
	return []string{
		"AWS_LAMBDA_FUNCTION_NAME=" + s.f.Name,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + strconv.Itoa(s.f.MemoryMiB),
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + s.f.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=" + s.name,
		"AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO",
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023",
		"LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime", "_HANDLER=bootstrap",
		"LANG=en_US.UTF-8", "TZ=:UTC", "PATH=/usr/local/bin:/usr/bin:/bin",
		"TMPDIR=" + s.tmp(), // Lambda's is /tmp, one for each sandbox
	}
}

// stop ends the process, if there is one, as Lambda does: at once.
func (s *sandbox) stop() {
	if s.rt != nil {
		s.rt.kill()
		s.rt = nil
	}
}

// start starts a process and waits until it asks for an invocation.
func (s *sandbox) start() error {
	rt, err := startRuntime(s.f.Binary, s.task(), append(s.environment(), s.f.Env...), s.f.ARN(), s.f.Log)
	if err != nil {
		return err
	}
	s.rt = rt
	select {
	case <-rt.asks:
		return nil
	case <-rt.exited:
	case <-time.After(initTime):
	}
	s.stop()
	select {
	case body := <-rt.failed:
		return &FunctionError{Init: true, Body: body}
	default:
		return ErrExit
	}
}

// invoke is one invocation from its start, with that of a process where there is none,
// to its end.
func (s *sandbox) invoke(ctx context.Context, i *invocation, fault Fault) ([]byte, error) {
	if s.rt == nil {
		s.f.count(func(c *Counts) { c.Starts++ })
		if err := s.start(); err != nil {
			return nil, err
		}
	} else {
		s.rt.signal(syscall.SIGCONT)
	}
	i.deadline = time.Now().Add(s.f.Timeout)
	over := time.NewTimer(s.f.Timeout)
	defer over.Stop()
	var harm <-chan time.Time
	if fault.After > 0 {
		harm = time.After(fault.After)
	}
	calls := s.rt.calls // until the process has it
	for {
		select {
		case calls <- i:
			calls = nil
		case a := <-i.ended:
			s.freeze()
			return a.body, a.err
		case <-s.rt.exited:
			s.stop()
			return nil, ErrExit
		case <-harm:
			if fault.Stall {
				s.rt.signal(syscall.SIGSTOP)
			} else {
				s.rt.signal(syscall.SIGKILL)
			}
		case <-over.C:
			s.stop()
			return nil, ErrTimeout
		case <-ctx.Done(): // nobody waits any more
			s.stop()
			return nil, ctx.Err()
		}
	}
}

// freeze waits until the process asks for more and makes it stand still. A process
// that ends instead, as one does that has panicked, has answered all the same.
func (s *sandbox) freeze() {
	select {
	case <-s.rt.asks:
		s.rt.signal(syscall.SIGSTOP)
	case <-s.rt.exited:
		s.stop()
	case <-time.After(initTime):
		s.stop()
	}
}

// leftovers lists what the processes wrote beside /tmp.
func (s *sandbox) leftovers() []string {
	var out []string
	filepath.WalkDir(s.task(), func(path string, _ os.DirEntry, err error) error {
		if path != s.task() {
			out = append(out, strings.TrimPrefix(path, s.task()))
		}
		return err
	})
	return out
}
