package local

import (
	"errors"

	"hayrick/internal/durable"
)

// turn lets processes write state.db one after the other, so that none of them
// starves. SQLite alone would let whoever commits without a pause keep the others
// in their back-off sleeps. Who wants to write holds next while waiting for lock;
// so who has just written queues up behind all who came meanwhile. Both end with
// their holder, however it dies.
type turn struct{ next, lock *durable.Lock }

func openTurn(d *durable.Dir) (*turn, error) {
	next, err := d.OpenLock("state.next")
	if err != nil {
		return nil, err
	}
	lock, err := d.OpenLock("state.lock")
	if err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return &turn{next, lock}, nil
}

func (t *turn) take() error {
	if err := t.next.Lock(); err != nil {
		return err
	}
	return errors.Join(t.lock.Lock(), t.next.Unlock())
}

func (t *turn) give() error { return t.lock.Unlock() }

func (t *turn) close() error { return errors.Join(t.next.Close(), t.lock.Close()) }
