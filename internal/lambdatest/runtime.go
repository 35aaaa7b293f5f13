package lambdatest

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// invocation is one call of a function, under way in a sandbox.
type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	ended    chan answer // holds one
}

type answer struct {
	body []byte
	err  error
}

// runtime is a process and the Runtime API that it, and nobody else, talks to.
type runtime struct {
	arn    string
	server *http.Server
	cmd    *exec.Cmd

	calls  chan *invocation // to who asks for the next one
	asks   chan struct{}    // the process has asked; holds one
	failed chan string      // init/error; holds one
	exited chan struct{}

	mu      sync.Mutex
	current *invocation // given out and not ended; guarded by mu
}

// startRuntime starts a process with its API.
func startRuntime(binary, dir string, env []string, arn string, log io.Writer) (*runtime, error) {
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	rt := &runtime{
		arn: arn, calls: make(chan *invocation), asks: make(chan struct{}, 1), failed: make(chan string, 1), exited: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", rt.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", rt.response)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", rt.failure)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", rt.initError)
	rt.server = &http.Server{Handler: mux}
	go rt.server.Serve(api)

	rt.cmd = exec.Command(binary)
	rt.cmd.Dir, rt.cmd.Stdout, rt.cmd.Stderr = dir, log, log
	rt.cmd.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + api.Addr().String()}, env...)
	rt.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := rt.cmd.Start(); err != nil {
		rt.server.Close()
		return nil, err
	}
	go func() {
		rt.cmd.Wait()
		close(rt.exited)
	}()
	return rt, nil
}

// signal goes to the process and its children.
func (rt *runtime) signal(s syscall.Signal) { syscall.Kill(-rt.cmd.Process.Pid, s) }

func (rt *runtime) kill() {
	select {
	case <-rt.exited: // its number may be another's by now
	default:
		rt.signal(syscall.SIGKILL)
		<-rt.exited
	}
	rt.server.Close()
}

// next hands an invocation out, as soon as there is one.
func (rt *runtime) next(w http.ResponseWriter, r *http.Request) {
	select {
	case rt.asks <- struct{}{}:
	default:
	}
	select {
	case i := <-rt.calls:
		rt.mu.Lock()
		rt.current = i
		rt.mu.Unlock()
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", i.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(i.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", rt.arn)
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0")
		h.Set("Content-Type", "application/json")
		w.Write(i.payload)
	case <-r.Context().Done():
	}
}

func (rt *runtime) response(w http.ResponseWriter, r *http.Request) {
	rt.end(w, r, func(body []byte) answer { return answer{body: body} })
}

func (rt *runtime) failure(w http.ResponseWriter, r *http.Request) {
	rt.end(w, r, func(body []byte) answer { return answer{err: &FunctionError{Body: string(body)}} })
}

func (rt *runtime) end(w http.ResponseWriter, r *http.Request, as func([]byte) answer) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the process died while it answered
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	i := rt.current
	if i == nil || i.id != r.PathValue("id") {
		http.Error(w, `{"errorType":"InvalidRequestID"}`, http.StatusBadRequest)
		return
	}
	rt.current = nil
	i.ended <- as(body)
	w.WriteHeader(http.StatusAccepted)
}

func (rt *runtime) initError(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	select {
	case rt.failed <- string(body):
	default:
	}
	w.WriteHeader(http.StatusAccepted)
}
