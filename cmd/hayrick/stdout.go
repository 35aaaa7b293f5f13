package main

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"hayrick"
)

// stdout is where results go. It remembers the first write that failed, so that no
// verb loses its result unnoticed, whether it looks at the error or not: a result with
// a gap would be worse than none, so nothing is written after it.
type stdout struct {
	to io.Writer

	mu  sync.Mutex
	err error // the first
}

func (s *stdout) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.to.Write(p)
	s.err = err
	return n, err
}

// verdict is how the process ends that would have ended with err. Whoever closed the
// pipe has had enough, which is no error.
func (s *stdout) verdict(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch caused := errors.Is(err, s.err); {
	case s.err == nil:
		return err
	case errors.Is(s.err, syscall.EPIPE) && caused:
		return nil
	case errors.Is(s.err, syscall.EPIPE):
		return err
	case err == nil, caused, errors.As(err, new(ended)):
		return &hayrick.UserError{
			What: "the result could not be written to stdout", Err: s.err, Exit: exitTemporary,
			Hint: "make room, or send it elsewhere; what a run did is kept: hayrick status prints it again",
		}
	}
	return err
}
