package local

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hayrick"
)

// state is state.db as this process uses it. Every call is an op: the writer
// goroutine takes all ops that wait, carries them out in one transaction, and
// answers them when it is committed. Between two transactions it makes sure that
// the file is still there and still the same.
type state struct {
	store *Store
	turn  *turn

	mu      sync.Mutex
	pending []*op         // guarded by mu
	closed  bool          // guarded by mu
	wake    chan struct{} // guarded by mu: has a token when pending is not empty
	done    chan struct{} // closed when the writer goroutine has ended

	use sync.RWMutex // held for reading by whoever uses db, for writing by who replaces it
	db  *database    // guarded by use; replaced by the writer goroutine only
}

// op is one call: one atomic step.
type op struct {
	ctx context.Context
	// run decides and writes. A *sqlError ends the transaction; any other error is this
	// call's own answer, and run must not have written anything then. It may be run
	// again, in another database.
	run  func(*tx) error
	err  error
	done chan struct{}
}

const (
	maxGroup   = 1024     // ops in one transaction
	maxWAL     = 64 << 20 // a WAL that has grown beyond is folded back, readers or not
	maxReopens = 20       // databases one group of ops is tried on
)

func openState(ctx context.Context, s *Store) (*state, error) {
	t, err := openTurn(s.dir)
	if err != nil {
		return nil, err
	}
	st := &state{store: s, turn: t, wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.world.Go("state writer", st.loop)
	if err := st.do(ctx, func(*tx) error { return nil }); err != nil {
		return nil, errors.Join(err, st.close())
	}
	return st, nil
}

var errClosed = errors.New("the store is closed")

// do has run carried out by the writer. When it returns nil, the step is
// committed.
func (s *state) do(ctx context.Context, run func(*tx) error) error {
	o := &op{ctx: ctx, run: run, done: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	s.pending = append(s.pending, o)
	select {
	case s.wake <- struct{}{}:
	default: // it is awake, and looks again before it sleeps
	}
	s.mu.Unlock()
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return ctx.Err() // the step may still happen
	}
}

func (s *state) loop() {
	defer close(s.done)
	for range s.wake {
		for {
			s.mu.Lock()
			group := s.pending
			if len(group) > maxGroup {
				group, s.pending = group[:maxGroup:maxGroup], group[maxGroup:]
			} else {
				s.pending = nil
			}
			closed := s.closed
			s.mu.Unlock()
			if len(group) > 0 {
				s.carryOut(group)
				continue
			}
			if closed {
				return
			}
			break
		}
	}
}

// close answers what is pending, and ends the writer.
func (s *state) close() error {
	s.mu.Lock()
	again := s.closed
	if !again {
		s.closed = true
		close(s.wake)
	}
	s.mu.Unlock()
	<-s.done
	if again {
		return nil
	}
	s.use.Lock()
	defer s.use.Unlock()
	var err error
	if s.db != nil {
		err = s.db.close()
	}
	return errors.Join(err, s.turn.close())
}

// carryOut runs a group and answers its members. When the database was deleted
// meanwhile, what was written went down with it, and the group is run again in the
// next one. So an answer is never older than the file it is in.
func (s *state) carryOut(group []*op) {
	var err error
	for range maxReopens {
		var again bool
		if again, err = s.try(group); !again {
			break
		}
	}
	for _, o := range group {
		if err != nil {
			o.err = explain(s.store.dir.Path(), err)
		}
		close(o.done)
	}
}

func (s *state) try(group []*op) (again bool, err error) {
	if err := s.turn.take(); err != nil {
		return false, fmt.Errorf("lock state.db: %w", err)
	}
	defer s.turn.give()
	db, err := s.current()
	if err != nil {
		return errors.Is(err, errMoved), err
	}
	t := &tx{c: db.writer, db: db, store: s.store}
	err = t.group(group)
	ok, wal := db.current(s.store.dir.Path())
	switch {
	case !ok:
		return true, fmt.Errorf("state.db was deleted again and again: %w", hayrick.ErrUnknown)
	case damaged(err):
		return true, errors.Join(err, s.discard(err))
	case err != nil:
		return false, err
	}
	if wal > maxWAL {
		// Readers that never pause keep SQLite from doing so itself. Failing is harmless.
		_, _ = db.writer.one("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	t.committed()
	return false, nil
}

// current is the database to use now; the caller holds the turn.
func (s *state) current() (*database, error) {
	dir := s.store.dir.Path()
	if s.db != nil {
		if ok, _ := s.db.current(dir); ok {
			return s.db, nil
		}
		s.store.log.Warn("state.db was deleted; going on with a new one")
		if err := s.drop(); err != nil {
			return nil, err
		}
	}
	db, err := openDatabase(dir, s.store.newIncarnation(), s.store.log)
	if err != nil {
		return nil, err
	}
	s.use.Lock()
	s.db = db
	s.use.Unlock()
	return db, nil
}

// discard moves a damaged database aside.
func (s *state) discard(cause error) error {
	if err := s.drop(); err != nil {
		return err
	}
	return moveAside(s.store.dir.Path(), s.store.log, cause)
}

func (s *state) drop() error {
	s.use.Lock()
	defer s.use.Unlock()
	db := s.db
	s.db = nil
	if err := db.close(); err != nil {
		// Of a file that is gone: nothing depends on it any more.
		s.store.log.Debug("close the old state.db", hayrick.KeyError, err)
	}
	return nil
}

// read lets f read the committed state, on a connection of its own.
func (s *state) read(ctx context.Context, f func(*conn) error) error {
	for range maxReopens {
		if err := ctx.Err(); err != nil {
			return err
		}
		used, err := s.readOnce(f)
		if used != nil && !damaged(err) {
			return explain(s.store.dir.Path(), err)
		}
		// Deleted, or damaged: the writer sees to it, unless it has already.
		if err := s.do(ctx, func(t *tx) error {
			if t.db == used {
				return err
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return fmt.Errorf("state.db was deleted again and again: %w", hayrick.ErrUnknown)
}

// readOnce answers used = nil when there is no database, or not the same any more.
func (s *state) readOnce(f func(*conn) error) (used *database, err error) {
	s.use.RLock()
	defer s.use.RUnlock()
	dir := s.store.dir.Path()
	if s.db == nil {
		return nil, nil
	}
	if ok, _ := s.db.current(dir); !ok {
		return nil, nil
	}
	c := <-s.db.readers
	err = f(c)
	s.db.readers <- c
	if err != nil {
		if ok, _ := s.db.current(dir); !ok {
			return nil, nil
		}
	}
	return s.db, err
}
