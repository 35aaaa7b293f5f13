package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/aws"
)

// On Lambda this binary is called bootstrap. It asks the Runtime API for one
// invocation after the other; between two of them the process stands still.
//
// lambda.go starts it, lambdawork.go works on messages, lambdaevent.go reads events,
// lambdasweep.go sweeps; lambdazip.go packs it. docs/lambda.md is the page about it.

// runtimeAPI is the variable that says where the Runtime API is.
const runtimeAPI = "AWS_LAMBDA_RUNTIME_API"

// startedByLambda says that this process is to be a function: it has the name that
// Lambda starts, or nothing else was asked of it. A handler on Lambda that calls
// hayrick with a verb gets the verb.
func startedByLambda(args []string, get func(string) string) bool {
	return filepath.Base(args[0]) == bootstrap || len(args) == 1 && get(runtimeAPI) != ""
}

func lambdaCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "lambda", Short: "Be the function of a store on AWS: what the zip of infra zip does", Args: arguments(0, 0),
		Long: `Take invocations from Lambda's Runtime API until Lambda ends the process: messages
of the store's queue, and sweeps. $HAYRICK_STORE names the store. docs/lambda.md has
what is kept of the time of an invocation, and what a person may see.`,
		Example:     "  hayrick lambda",
		Annotations: endsWith(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.get(runtimeAPI) == "" {
				return &hayrick.UserError{What: "this is no function: $" + runtimeAPI + " is not set", Hint: "hayrick worker works on the runs of a store from any machine"}
			}
			if code := serveLambda(cmd.Context(), c.get, c.err); code != exitDone {
				return ended(code)
			}
			return nil
		},
	}
}

// serveLambda takes invocations until Lambda ends the process. It returns only where
// it could not begin, or where the Runtime API is gone.
func serveLambda(ctx context.Context, get func(string) string, stderr io.Writer) int {
	say := newLambdaLog(stderr, get("AWS_LAMBDA_LOG_LEVEL"))
	log := slog.New(say)
	stdlog.SetFlags(0)
	stdlog.SetOutput(said{log}) // AWS's library knows no other
	f, err := newFunction(ctx, get, log)
	if err != nil {
		log.Error("the function cannot start", hayrick.KeyError, err)
		if err := reportInit(ctx, get(runtimeAPI), err); err != nil {
			log.Error("Lambda does not hear why", hayrick.KeyError, err)
		}
		return exitCode(err)
	}
	f.say = say
	lambda.StartWithOptions(f, lambda.WithContext(ctx)) // never returns
	return exitBug
}

// function is what a sandbox keeps from one invocation to the next: clients and their
// connections, open jobs and their handlers, which runs have ended. All of it may be
// as old as the sandbox, and nothing of it is a promise: connections that were closed
// meanwhile are made again by the SDK, tokens whose time has passed are not used
// (ratelimit), a plan never changes.
type function struct {
	*roles
	say     *lambdaLog // nil: nobody asks which invocation a line is of
	scratch string
	now     func() time.Time // Lambda's deadlines are by this machine's clock
	sweeps  sweeps
	queue   string          // the name of the store's
	told    map[string]bool // kinds of odd messages
}

// newFunction opens the store without asking it for anything.
func newFunction(ctx context.Context, get func(string) string, log *slog.Logger) (*function, error) {
	c := &cli{environment: environment{get: get, out: io.Discard, err: io.Discard}, storeDir: get("HAYRICK_STORE"), log: log}
	if !c.onAWS() {
		return nil, &hayrick.UserError{What: fmt.Sprintf("$HAYRICK_STORE is %q", c.storeDir), Hint: "set it to s3://<name>, as the template of `hayrick infra print` does"}
	}
	if lambdacontext.MaxConcurrency() > 1 {
		return nil, &hayrick.UserError{What: "this process is to have several invocations at a time", Hint: "set the function's concurrency of an execution environment to 1: a task's scratch and memory are all of it"}
	}
	c.world = hayrick.RealWorld(sandboxName(get))
	c.limitMemory(memoryOf(get))
	if err := clearScratch(c.scratchBase()); err != nil { // of a process that was here before
		return nil, err
	}
	r, err := openToWork(ctx, c)
	if err != nil {
		return nil, err
	}
	name, err := aws.NameOf(c.storeDir)
	if err != nil {
		return nil, err
	}
	return &function{roles: r, scratch: c.scratchBase(), now: time.Now, queue: aws.NamesOf(name).Tasks, told: map[string]bool{}}, nil
}

// Invoke is one invocation. An error is for what nobody but a person can mend: a
// task's own failures are data, and a message that is to come again is named in the
// answer.
func (f *function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	if lc, ok := lambdacontext.FromContext(ctx); ok && f.say != nil {
		f.say.of.Store(&lc.AwsRequestID)
	}
	e, err := readEvent(payload, f.queue)
	if err != nil {
		f.log.Error("an event that is none of ours", hayrick.KeyError, err)
		return nil, err
	}
	t := f.timeOf(ctx)
	if e.sweep {
		return nil, f.sweep(ctx, t)
	}
	return json.Marshal(f.work(ctx, t, e.messages))
}

// lent is the time of one invocation.
type lent struct {
	now   func() time.Time
	end   time.Time     // when Lambda ends the process
	whole time.Duration // what there was at the start
}

// unbounded is the time where no deadline is set, which only tests do.
const unbounded = 15 * time.Minute

func (f *function) timeOf(ctx context.Context) lent {
	t := lent{now: f.now}
	begun := f.now()
	var ok bool
	if t.end, ok = ctx.Deadline(); !ok {
		t.end = begun.Add(unbounded)
	}
	t.whole = t.end.Sub(begun)
	return t
}

func (t lent) left() time.Duration { return t.end.Sub(t.now()) }

// until bounds ctx to what is left but for a part to tell how it went: ended in order
// a message is shown again at once, not after the queue's visibility.
func (t lent) until(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, t.left()-min(2*time.Second, t.whole/10))
}

// sandboxName names this process in claims, manifests and logs by its log stream: a
// sandbox's host name and process id are those of all others.
func sandboxName(get func(string) string) string {
	if stream := get("AWS_LAMBDA_LOG_STREAM_NAME"); stream != "" {
		return "lambda " + stream
	}
	return workerName()
}

// memoryOf is what the function may take; 0 = Lambda does not say. Beyond it Lambda ends
// the process without a word.
func memoryOf(get func(string) string) hayrick.Bytes {
	mib, err := strconv.ParseInt(get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), 10, 32)
	if err != nil || mib < 0 {
		return 0
	}
	return hayrick.Bytes(mib) << 20
}

// clearScratch removes what earlier invocations left in the sandbox's /tmp: the
// journal of a task that was handed back, which is in the store, or of one that was
// killed. Kept, they would fill it.
func clearScratch(base string) error {
	if err := os.RemoveAll(filepath.Join(base, "scratch", "job")); err != nil {
		return fmt.Errorf("clear the scratch folder: %w", err)
	}
	return nil
}

// reportInit tells Lambda why the function cannot start. The process ends then, and
// Lambda starts another one for the next invocation.
func reportInit(ctx context.Context, api string, why error) error {
	e := complaintOf(why)
	body, err := json.Marshal(map[string]string{"errorType": "hayrick.Init", "errorMessage": e.Error + ": " + e.Hint})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+api+"/2018-06-01/runtime/init/error", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Lambda-Runtime-Function-Error-Type", "hayrick.Init")
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req) // no proxy: the API is on this machine
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return errors.New(resp.Status)
	}
	return nil
}

// lambdaLog writes one line of JSON a record, with the names that Lambda knows
// (timestamp, level, message, requestId) and ours for the rest.
type lambdaLog struct {
	slog.Handler
	of *atomic.Pointer[string] // the invocation's id
}

func newLambdaLog(w io.Writer, level string) *lambdaLog {
	least, ok := map[string]slog.Level{
		"TRACE": slog.LevelDebug, "DEBUG": slog.LevelDebug, "WARN": slog.LevelWarn, "ERROR": slog.LevelError, "FATAL": slog.LevelError,
	}[level]
	if !ok {
		least = slog.LevelInfo
	}
	return &lambdaLog{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: least, ReplaceAttr: lambdacontext.ReplaceAttr}), new(atomic.Pointer[string])}
}

// said is where the standard log goes.
type said struct{ log *slog.Logger }

func (s said) Write(p []byte) (int, error) {
	s.log.Warn("the Lambda library reports", "said", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Handle is slog.Handler.
func (l *lambdaLog) Handle(ctx context.Context, r slog.Record) error {
	if id := l.of.Load(); id != nil {
		r = r.Clone()
		r.AddAttrs(slog.String("requestId", *id))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler.
func (l *lambdaLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lambdaLog{l.Handler.WithAttrs(attrs), l.of}
}

// WithGroup is slog.Handler.
func (l *lambdaLog) WithGroup(name string) slog.Handler {
	return &lambdaLog{l.Handler.WithGroup(name), l.of}
}
