package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"hayrick"
	"hayrick/jobfile"
)

// The exit codes. They are part of what scripts rely on.
const (
	exitDone        = 0
	exitBug         = 1
	exitUsage       = 2
	exitUnwell      = 3
	exitNotFound    = 4
	exitPermission  = 5
	exitBudget      = 6
	exitConflict    = 7
	exitTemporary   = 75
	exitTimeout     = 124
	exitInterrupted = 130
)

const exitHelp = `Exit codes:
  0    done; failed items are listed, and within what the job file tolerates
  1    a bug, or damage that hayrick cannot mend
  2    wrong usage, or a job file or input that is not valid
  3    ended, but somebody has to look: paused, cancelled or failed, or no item at
       all went well; failed items with --strict; an audit that proves nothing: the run
       has not SUCCEEDED, or a finding is "broken" (not view, stranger, leftover)
  4    no such run, task, item or file
  5    no permission to read or write something
  6    it would cost more than its budget, or take longer: refused or paused for that
  7    conflict: another run is in the way, or the output folder is in use
  75   temporary: the same command goes on where it stopped, e.g. when the disk was full;
       or what was asked for could not be written to stdout
  124  watched for as long as --timeout says, and not over by then
  130  interrupted; the same command goes on where it stopped
`

// ended ends the process with a code after its story has been told.
type ended int

func (e ended) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// exitCode is how the process ends because of err.
func exitCode(err error) int {
	var code ended
	var user *hayrick.UserError
	var problems jobfile.Problems
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &problems):
		return exitUsage
	case errors.As(err, &user) && user.Exit != 0:
		return user.Exit
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), tooManyFiles(err), errors.Is(err, hayrick.ErrThrottled), errors.Is(err, hayrick.ErrUnknown):
		return exitTemporary
	case errors.As(err, new(*net.OpError)) && !errors.Is(err, context.Canceled): // no network, or nobody listens
		return exitTemporary
	case serverFault(err):
		return exitTemporary
	case errors.Is(err, hayrick.ErrDenied), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return exitPermission
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return exitUsage
	case errors.Is(err, hayrick.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case user != nil:
		return exitUsage
	case errors.Is(err, hayrick.ErrConflict):
		return exitConflict
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitBug
}

// tooManyFiles says that err is the limit of open files. SQLite has no word of its own
// for it: it says that it cannot open a file.
func tooManyFiles(err error) bool {
	const cantOpen = 14
	var coded interface{ Code() int }
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.As(err, &coded) && coded.Code()&0xff == cantOpen
}

// serverFault says that a service answered that the fault is its own, 5xx, and went on
// doing so for as long as the request was repeated.
func serverFault(err error) bool {
	var reply interface{ HTTPStatusCode() int }
	return errors.As(err, &reply) && reply.HTTPStatusCode() >= 500
}

// nobodyAnswers says that no connection could be made.
func nobodyAnswers(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// temporary makes err one that ends when a person has made room.
func temporary(err error) error {
	var user *hayrick.UserError
	if errors.As(err, &user) && user.Exit == 0 {
		user.Exit = exitTemporary
	}
	return err
}

// complaint is an error as a person is told it: what, why, and the next step.
type complaint struct {
	Schema   string    `json:"schema"`
	Error    string    `json:"error"`
	Hint     string    `json:"hint"`
	Exit     int       `json:"exit"`
	Problems []problem `json:"problems,omitempty"` // of a job file, each with its place

	why string // the cause, a line
}

// problem is one thing to mend in a file.
type problem struct {
	Place string `json:"place"` // file:line:col, or the flag
	What  string `json:"what"`

	excerpt string // the line in the file, with a mark under the place
}

// complaintOf puts err into words; nil means that its story has been told.
func complaintOf(err error) *complaint {
	var code ended
	if err == nil || errors.As(err, &code) {
		return nil
	}
	c := &complaint{Schema: "hayrick.error/v1", Error: err.Error(), Exit: exitCode(err)}
	var problems jobfile.Problems
	if errors.As(err, &problems) {
		c.Error = count(int64(len(problems)), "problem")
		c.Hint = "what may be written is in `hayrick help job-file`"
		for _, p := range problems {
			c.Problems = append(c.Problems, problem{p.Place.String(), p.What, p.Excerpt})
		}
		return c
	}
	var user *hayrick.UserError
	var damage *runDamage
	switch {
	case errors.As(err, &user):
		c.Error, c.Hint = user.What, user.Hint
		if user.Err != nil {
			c.why = firstLine(user.Err.Error())
		}
	case errors.Is(err, context.Canceled):
		c.Error, c.Hint = "interrupted", "the same command goes on where it stopped"
	case tooManyFiles(err):
		c.Hint = "raise the limit of open files (`ulimit -n 1024`) and run the same command again"
	case nobodyAnswers(err):
		c.Hint = "check the network, AWS_REGION and AWS_ENDPOINT_URL*; then the same command goes on where it stopped"
	case c.Exit == exitTemporary:
		c.Hint = "the same command goes on where it stopped"
	case c.Exit == exitUsage:
		c.Hint = "look at the path: a folder is meant where there is none"
	case errors.Is(err, hayrick.ErrNotFound):
		c.Hint = "somebody deleted it, or the store as a whole: put it back, or start again with hayrick run <job>; `hayrick ls` lists the runs that are there"
	case c.Exit == exitNotFound:
		c.Hint = "look at the path: something in it is gone, or nothing can be made there"
	case c.Exit == exitPermission:
		c.Hint = "make it readable and writable for you, or name another place"
	case errors.As(err, &damage):
		c.Hint = mend(damage.jobID)
	case errors.Is(err, hayrick.ErrCorrupt):
		c.Hint = "`hayrick audit` names what is damaged; a backup of it, put back, mends the run"
	case c.Exit == exitBug:
		c.Hint = "this looks like a bug: try again with -vv and keep what it says"
	}
	return c
}

// complain tells what went wrong: to a person in four lines at most, of a job file
// every problem; with --json as one object.
func (c *cli) complain(err error) {
	e := complaintOf(err)
	if e == nil {
		return
	}
	e.Hint = c.advice(e.Hint)
	switch {
	case c.json:
		if e.why != "" {
			e.Error += ": " + e.why
		}
		enc := json.NewEncoder(c.err)
		enc.SetEscapeHTML(false)
		enc.Encode(e) // to a stderr that is gone nothing can be told
	case len(e.Problems) > 0:
		for _, p := range e.Problems {
			c.mustTell("%s: %s", p.Place, p.What)
			if p.excerpt != "" && !c.quiet {
				for line := range strings.SplitSeq(p.excerpt, "\n") {
					c.mustTell("%s", line)
				}
			}
		}
		c.mustTell("%s: %s", e.Error, e.Hint)
	default:
		c.mustTell("%s %s", c.paint(red, "error:"), painted(plainLines(e.Error)))
		if e.why != "" {
			c.mustTell("  %s", e.why)
		}
		if e.Hint != "" {
			c.mustTell("%s %s", c.paint(bold, "hint:"), e.Hint)
		}
	}
}

// stopped is the end of the process with code, for a reason that is no error of the
// command: with --json an object as errors have, else told in words.
func (c *cli) stopped(code int, what, hint, format string, args ...any) error {
	if c.json {
		return &hayrick.UserError{What: what, Hint: hint, Exit: code}
	}
	c.mustTell(format, args...)
	return ended(code)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
