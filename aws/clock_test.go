package aws

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"hayrick"
)

type fixedClock struct {
	hayrick.Clock
	now time.Time
}

func (c *fixedClock) Now() time.Time { return c.now }

// Whatever the own clock says, service time ends up within a second of the service's,
// and a clock that is right is left alone.
func TestClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		service := time.Unix(1_800_000_000, 0).UTC()
		off := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "off"))
		own := &fixedClock{now: service.Add(-off)}
		c := &Clock{Clock: own}
		if c.Now() != own.now {
			t.Fatal("a clock is moved before anything was heard")
		}
		for range rapid.IntRange(1, 40).Draw(t, "replies") {
			gap := time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "gap"))
			there := time.Duration(rapid.Int64Range(0, int64(300*time.Millisecond)).Draw(t, "there"))
			back := time.Duration(rapid.Int64Range(0, int64(300*time.Millisecond)).Draw(t, "back"))
			service = service.Add(gap)
			sent := service.Add(-off)
			service = service.Add(there)
			date := service.Truncate(time.Second)
			service = service.Add(back)
			own.now = service.Add(-off)
			c.observe(sent, own.now, date)
			if wrong := c.Now().Sub(service).Abs(); wrong > time.Second+there+back {
				t.Fatalf("service time is wrong by %v, the own clock by %v", wrong, off)
			}
			if off == 0 && c.Now() != own.now {
				t.Fatalf("a right clock is moved by %v", c.Now().Sub(own.now))
			}
		}
	})
}

// A clock that is set takes the bounds along.
func TestClockSet(t *testing.T) {
	service := time.Unix(1_800_000_000, 0).UTC()
	own := &fixedClock{now: service}
	c := &Clock{Clock: own}
	c.observe(own.now, own.now, service)
	own.now = own.now.Add(time.Hour)
	c.observe(own.now, own.now, service)
	if wrong := c.Now().Sub(service).Abs(); wrong > time.Second {
		t.Fatalf("service time is wrong by %v", wrong)
	}
}
