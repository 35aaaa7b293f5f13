package local

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hayrick"
)

const (
	pollEvery  = 50 * time.Millisecond  // how soon a message of another process is seen
	sweepEvery = 200 * time.Millisecond // how often the dead are looked for
)

// Send enqueues messages, all or none.
func (s *Store) Send(ctx context.Context, queue string, msgs ...hayrick.Outgoing) error {
	bodies := make([]string, len(msgs))
	for i, m := range msgs {
		m.JobID = "" // has a column of its own
		b, err := json.Marshal(m.Message)
		if err != nil {
			return fmt.Errorf("send to %s: %w", queue, err)
		}
		bodies[i] = string(b)
	}
	if len(msgs) == 0 {
		return nil
	}
	err := s.state.do(ctx, func(t *tx) error {
		now := t.now()
		for i, m := range msgs {
			id, err := t.nextID()
			if err != nil {
				return err
			}
			if err := t.c.exec(`INSERT INTO messages VALUES (?, ?, ?, ?, ?, 0, NULL)`, id, queue, m.JobID, bodies[i], now.Add(m.Delay).UnixNano()); err != nil {
				return err
			}
			t.count(queue, m.JobID, 1)
			if m.Delay <= 0 {
				t.show(queue)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("send to %s: %w", queue, err)
	}
	return nil
}

// Receive delivers up to max messages, the longest visible first, and waits up to
// wait for the first: a Send of this process wakes it at once, one of another
// process within pollEvery. What a dead process had in flight is visible again. A
// message that was delivered hayrick.MaxReceives times moves to the dead queue instead.
func (s *Store) Receive(ctx context.Context, queue string, max int, visibility, wait time.Duration) ([]hayrick.Delivery, error) {
	end := s.world.Clock.Now().Add(wait)
	for {
		woken, leave := s.wake.wait(ctx, queue) // before looking: what is sent after the look wakes
		ds, err := s.receive(ctx, queue, max, visibility)
		if err != nil {
			leave()
			return nil, fmt.Errorf("receive from %s: %w", queue, err)
		}
		left := end.Sub(s.world.Clock.Now())
		if len(ds) > 0 || left <= 0 {
			if leave() { // woken while looking, perhaps for another message: somebody else is to look
				s.wake.wake(queue, 1)
			}
			return ds, nil
		}
		_ = s.world.Clock.Sleep(woken, min(left, pollEvery)) // ends early when woken
		leave()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// receive looks once, and once more when something was released for it.
func (s *Store) receive(ctx context.Context, queue string, max int, visibility time.Duration) (ds []hayrick.Delivery, err error) {
	if max < 1 {
		return nil, nil
	}
	for {
		some := s.seen.busy(queue)
		if !some { // an empty queue costs a read, not a transaction
			if some, err = s.peek(ctx, queue); err != nil {
				return nil, err
			}
		}
		if some {
			if err := s.state.do(ctx, func(t *tx) (err error) {
				ds, err = t.receive(queue, max, visibility)
				return err
			}); err != nil {
				return nil, err
			}
			s.seen.set(queue, len(ds) > 0)
			if len(ds) > 0 {
				return ds, nil
			}
		}
		if released, err := s.releaseDead(ctx); err != nil || !released {
			return nil, err
		}
	}
}

// peek says whether a message is visible.
func (s *Store) peek(ctx context.Context, queue string) (some bool, err error) {
	err = s.state.read(ctx, func(c *conn) error {
		row, err := c.one(`SELECT 1 FROM messages WHERE queue = ? AND visible <= ? LIMIT 1`, queue, s.world.Clock.Now().UnixNano())
		some = row != nil
		return err
	})
	return some, err
}

func (t *tx) receive(queue string, max int, visibility time.Duration) (ds []hayrick.Delivery, err error) {
	now := t.now()
	type found struct {
		id, receives int64
		job, body    string
	}
	var next, deliver []found
	for len(deliver) < max {
		next = next[:0]
		if err := t.c.each(func(row []driver.Value) error {
			next = append(next, found{row[0].(int64), row[3].(int64), row[1].(string), row[2].(string)})
			return nil
		}, `SELECT id, job, body, receives FROM messages WHERE queue = ? AND visible <= ? ORDER BY visible, id LIMIT ?`, queue, now.UnixNano(), int64(max-len(deliver))); err != nil {
			return nil, err
		}
		dead := 0
		for _, m := range next {
			if m.receives < hayrick.MaxReceives || queue == hayrick.QueueDead {
				deliver = append(deliver, m)
				continue
			}
			dead++
			if err := t.c.exec(`UPDATE messages SET queue = ?, receives = 0, proc = NULL WHERE id = ?`, hayrick.QueueDead, m.id); err != nil {
				return nil, err
			}
			t.count(queue, m.job, -1)
			t.count(hayrick.QueueDead, m.job, 1)
			t.show(hayrick.QueueDead)
		}
		if dead == 0 {
			break
		}
	}
	if len(deliver) == 0 {
		return nil, nil
	}
	if !t.receiver { // whoever finds us dead releases what we have in flight
		if err := t.c.exec(`INSERT OR IGNORE INTO receivers VALUES (?)`, t.store.dir.Owner()); err != nil {
			return nil, err
		}
		t.receiver = true
	}
	until := now.Add(max0(visibility)).UnixNano()
	for _, m := range deliver {
		if err := t.c.exec(`UPDATE messages SET visible = ?, receives = ?, proc = ? WHERE id = ?`, until, m.receives+1, t.store.dir.Owner(), m.id); err != nil {
			return nil, err
		}
		d := hayrick.Delivery{Receipt: receipt(t.db.incarnation, m.id, m.receives+1), Count: int(m.receives + 1)}
		if err := json.Unmarshal([]byte(m.body), &d.Message); err != nil {
			return nil, fmt.Errorf("message %d: %w", m.id, err)
		}
		d.JobID = m.job
		ds = append(ds, d)
	}
	return ds, nil
}

// releaseDead shows what dead processes have in flight, in all queues, and says
// whether there was any such process. It looks every sweepEvery at most.
func (s *Store) releaseDead(ctx context.Context) (bool, error) {
	if !s.seen.sweepDue(s.world.Clock.Now()) {
		return false, nil
	}
	var dead []string
	err := s.state.read(ctx, func(c *conn) error {
		dead = nil
		return c.each(func(row []driver.Value) error {
			if proc := row[0].(string); !s.dir.Alive(proc) {
				dead = append(dead, proc)
			}
			return nil
		}, `SELECT proc FROM receivers`)
	})
	if err != nil || len(dead) == 0 {
		return false, err
	}
	return true, s.state.do(ctx, func(t *tx) error {
		now := t.now().UnixNano()
		var queues []string
		if err := t.c.each(func(row []driver.Value) error {
			queues = append(queues, row[0].(string))
			return nil
		}, `SELECT DISTINCT queue FROM depths`); err != nil {
			return err
		}
		for _, proc := range dead {
			for _, q := range queues {
				if err := t.c.exec(`UPDATE messages SET visible = ?, proc = NULL WHERE queue = ? AND visible > ? AND proc = ?`, now, q, now, proc); err != nil {
					return err
				}
			}
			if err := t.c.exec(`DELETE FROM receivers WHERE proc = ?`, proc); err != nil {
				return err
			}
		}
		return nil
	})
}

// Ack removes deliveries.
func (s *Store) Ack(ctx context.Context, queue string, ds ...hayrick.Delivery) error {
	if len(ds) == 0 {
		return nil
	}
	err := s.state.do(ctx, func(t *tx) error {
		for _, d := range ds {
			id, _, ok := parseReceipt(d.Receipt, t.db.incarnation)
			if !ok {
				continue // of another life of the state: gone
			}
			if err := t.c.exec(`DELETE FROM messages WHERE id = ? AND queue = ?`, id, queue); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("acknowledge in %s: %w", queue, err)
	}
	return nil
}

// Extend hides deliveries for visibility from now. A delivery that was followed by
// another one of the same message is left alone.
func (s *Store) Extend(ctx context.Context, queue string, visibility time.Duration, ds ...hayrick.Delivery) error {
	if len(ds) == 0 {
		return nil
	}
	err := s.state.do(ctx, func(t *tx) error {
		until := t.now().Add(max0(visibility)).UnixNano()
		for _, d := range ds {
			id, count, ok := parseReceipt(d.Receipt, t.db.incarnation)
			if !ok {
				continue
			}
			if err := t.c.exec(`UPDATE messages SET visible = ?, proc = ? WHERE id = ? AND queue = ? AND receives = ?`, until, t.store.dir.Owner(), id, queue, count); err != nil {
				return err
			}
			if visibility <= 0 {
				t.show(queue)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("extend in %s: %w", queue, err)
	}
	return nil
}

// Depth counts the messages of a job, waiting, delayed and in flight.
func (s *Store) Depth(ctx context.Context, queue, jobID string) (hayrick.Depth, error) {
	d := hayrick.Depth{Exact: true}
	err := s.state.read(ctx, func(c *conn) error {
		row, err := c.one(`SELECT n FROM depths WHERE queue = ? AND job = ?`, queue, jobID)
		if row != nil {
			d.Messages = int(row[0].(int64))
		}
		return err
	})
	if err != nil {
		return hayrick.Depth{}, fmt.Errorf("depth of %s: %w", queue, err)
	}
	return d, nil
}

// nextID gives a message id that was never used in this life of the state.
func (t *tx) nextID() (int64, error) {
	if t.lastID == 0 {
		row, err := t.c.one(`SELECT value FROM meta WHERE key = 'last_message'`)
		if err != nil {
			return 0, err
		}
		t.lastID = row[0].(int64)
	}
	t.lastID++
	return t.lastID, nil
}

func (t *tx) count(queue, job string, n int) {
	if t.depths == nil {
		t.depths = map[depthKey]int{}
	}
	t.depths[depthKey{queue, job}] += n
}

// show notes that a message of queue is visible once this is committed.
func (t *tx) show(queue string) {
	if t.sent == nil {
		t.sent = map[string]int{}
	}
	t.sent[queue]++
}

// A receipt names the life of the state, the message, and the delivery.
func receipt(incarnation string, id, count int64) string {
	return incarnation + "." + strconv.FormatInt(id, 10) + "." + strconv.FormatInt(count, 10)
}

func parseReceipt(r, incarnation string) (id, count int64, ok bool) {
	of, rest, _ := strings.Cut(r, ".")
	a, b, _ := strings.Cut(rest, ".")
	id, err1 := strconv.ParseInt(a, 10, 64)
	count, err2 := strconv.ParseInt(b, 10, 64)
	return id, count, of == incarnation && err1 == nil && err2 == nil
}

func max0(d time.Duration) time.Duration { return max(d, 0) }
