package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	exitConflict    = 7
	exitTemporary   = 75
	exitInterrupted = 130
)

const exitHelp = `Exit codes:
  0    done; failed items are listed, and within what the job file tolerates
  1    a bug, or damage that hayrick cannot mend
  2    wrong usage, or a job file or input that is not valid
  3    ended, but somebody has to look: paused, cancelled or failed; failed items
       with --strict; findings of audit
  4    no such run, task, item or file
  5    no permission to read or write something
  7    conflict: another run is in the way, or the output folder is in use
  75   temporary: the same command goes on where it stopped, e.g. when the disk was full
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
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, hayrick.ErrThrottled), errors.Is(err, hayrick.ErrUnknown):
		return exitTemporary
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return exitPermission
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return exitUsage
	case errors.Is(err, hayrick.ErrNotFound):
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

// temporary makes err one that ends when a person has made room.
func temporary(err error) error {
	var user *hayrick.UserError
	if errors.As(err, &user) && user.Exit == 0 {
		user.Exit = exitTemporary
	}
	return err
}

// complain tells a person what went wrong, in four lines at most: what, why, and
// the next step. Of a job file it lists every problem.
func (c *cli) complain(err error) {
	var code ended
	if err == nil || errors.As(err, &code) {
		return
	}
	var problems jobfile.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(c.err, p)
		}
		fmt.Fprintf(c.err, "%s: what may be written is in `hayrick help job-file`\n", count(int64(len(problems)), "problem"))
		return
	}
	what, hint := err.Error(), ""
	var user *hayrick.UserError
	switch {
	case errors.As(err, &user):
		what, hint = user.What, user.Hint
		if user.Err != nil {
			what += "\n  " + firstLine(user.Err.Error())
		}
	case errors.Is(err, context.Canceled):
		what, hint = "interrupted", "the same command goes on where it stopped"
	case exitCode(err) == exitTemporary:
		hint = "the same command goes on where it stopped"
	case exitCode(err) == exitUsage:
		hint = "look at the path: a folder is meant where there is none"
	case errors.Is(err, hayrick.ErrCorrupt):
		hint = "`hayrick audit` names what is damaged; a backup of it, put back, mends the run"
	case exitCode(err) == exitBug:
		hint = "this looks like a bug: try again with -vv and keep what it says"
	}
	fmt.Fprintf(c.err, "%s %s\n", c.paint(red, "error:"), what)
	if hint != "" {
		fmt.Fprintf(c.err, "%s %s\n", c.paint(bold, "hint:"), hint)
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
