// Command hayrick runs batch jobs from one job file, on this machine.
//
// main.go makes a context of the signals; root.go holds the tree of verbs, one file
// each; wire.go is the only place that knows every role and the adapter they stand
// on; drive.go works on a job until it has ended; screen.go, say.go and hints.go talk
// to people, stdout.go notices a result that is lost, exit.go says how the process ends.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"hayrick/internal/processtree"
)

func main() { os.Exit(realMain()) }

// realMain stops what runs in two steps: the first interrupt ends what is in hand
// and leaves the rest for later, the second ends the process. A terminal that goes
// away is an interrupt too; whoever is kept by nohup from hearing of it goes on.
func realMain() int {
	if processtree.Supervising(os.Args) {
		return processtree.Supervise(os.Args)
	}
	if startedByLambda(os.Args, os.Getenv) {
		return serveLambda(context.Background(), os.Getenv, os.Stderr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drain := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		heed(signals, drain)
		cancel()
		// What does not heed its context is stopped as a crash would stop it: nothing
		// that was committed is lost by it.
		time.Sleep(stopGrace)
		os.Exit(exitInterrupted)
	}()
	return run(ctx, environment{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, get: os.Getenv, environ: os.Environ(), drain: drain,
		outTTY: term.IsTerminal(int(os.Stdout.Fd())),
		errTTY: term.IsTerminal(int(os.Stderr.Fd())),
		inTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		width: func() int {
			w, _, err := term.GetSize(int(os.Stderr.Fd()))
			if err != nil || w < 1 { // some pseudo-terminals say 0
				return 80
			}
			return w
		},
	}, os.Args[1:])
}

// heed closes drain with the first signal and returns with the second. A hang-up is
// never the second: the shell and the system both tell of it.
func heed(signals <-chan os.Signal, drain chan<- struct{}) {
	<-signals
	close(drain)
	for <-signals == syscall.SIGHUP {
	}
}

// stopGrace is how long a second interrupt leaves for the terminal to be tidied.
const stopGrace = 300 * time.Millisecond

// environment is what a process gets from outside.
type environment struct {
	in                    io.Reader
	out, err              io.Writer
	inTTY, outTTY, errTTY bool
	width                 func() int // of the terminal, in columns
	get                   func(string) string
	environ               []string        // every variable that is set
	drain                 <-chan struct{} // closed by the first interrupt
}
