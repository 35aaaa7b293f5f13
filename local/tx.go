package local

import (
	"errors"
	"fmt"
	"time"

	"hayrick"
)

// tx is one transaction: a group of ops. What several of them touch is read once
// and written once, at its end.
type tx struct {
	c     *conn
	db    *database
	store *Store

	blocks   map[hayrick.BlockID]*block
	depths   map[depthKey]int // what the messages of each queue and job grow by; what goes is counted by a trigger
	lastID   int64            // of messages; 0 = not read yet
	sent     map[string]int   // messages that are visible now, by queue
	receiver bool             // this process is in receivers
}

type depthKey struct{ queue, job string }

func (t *tx) now() time.Time { return t.store.world.Clock.Now() }

// group runs all ops in one transaction. A nil error means that it is committed
// and every op's err is its answer.
func (t *tx) group(ops []*op) (err error) {
	if err := t.c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// SQLite has rolled back by itself after some errors; then this one fails.
			_ = t.c.exec("ROLLBACK")
		}
	}()
	for _, o := range ops {
		if o.err = o.ctx.Err(); o.err != nil {
			continue
		}
		o.err = o.run(t)
		var failed *sqlError
		if errors.As(o.err, &failed) {
			return o.err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	return t.c.exec("COMMIT")
}

// flush writes what ops have gathered.
func (t *tx) flush() error {
	for id, b := range t.blocks {
		if err := b.write(t.c, blockKey(id)); err != nil {
			return err
		}
	}
	for k, n := range t.depths {
		if n == 0 {
			continue
		}
		if err := t.c.exec(`INSERT INTO depths VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n`, k.queue, k.job, int64(n)); err != nil {
			return err
		}
	}
	if t.lastID > 0 {
		return t.c.exec(`UPDATE meta SET value = ? WHERE key = 'last_message'`, t.lastID)
	}
	return nil
}

// committed wakes who waits for what was sent.
func (t *tx) committed() {
	for queue, n := range t.sent {
		t.store.wake.wake(queue, n)
	}
}

// taskKey is a task as claims names it. None of its parts has a slash.
func taskKey(ref hayrick.TaskRef) string {
	return fmt.Sprintf("%s/%d/%s", ref.JobID, ref.Generation, ref.TaskID)
}
