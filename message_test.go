package hayrick_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hayrick"
)

// An outage of most of a day makes no dead letters of the messages that meet it.
func TestWaitsOutlastOutages(t *testing.T) {
	var fault time.Duration
	for n := 1; n <= hayrick.MaxReceives; n++ {
		fault += hayrick.Delivery{Count: n}.AfterFault()
	}
	if fault < 20*time.Hour {
		t.Errorf("an outage of %v kills messages", fault)
	}
}

// A message whose task is held is looked at a dozen times at most, of the shortest lease
// as of the longest.
func TestLooksAtAHeldTask(t *testing.T) {
	for _, lease := range []time.Duration{time.Second, time.Minute, 24 * time.Hour} {
		looks := 1
		for {
			wait, done := hayrick.Delivery{Count: looks}.AfterLease(lease)
			if done {
				break
			}
			if looks++; wait < min(lease, time.Hour) || looks > 13 {
				t.Fatalf("lease %v: look %d after %v", lease, looks, wait)
			}
		}
	}
}

func TestWaits(t *testing.T) {
	for _, c := range []struct {
		count        int
		left         time.Duration
		lease, fault time.Duration
	}{
		{0, time.Minute, time.Minute, time.Second}, // no estimate
		{1, time.Minute, time.Minute, time.Second},
		{2, time.Minute, 2 * time.Minute, 2 * time.Second},
		{5, time.Minute, 16 * time.Minute, 16 * time.Second},
		{2, -time.Hour, 2 * time.Second, 2 * time.Second}, // the lease ends now
		{6, time.Minute, 32 * time.Minute, 32 * time.Second},
		{7, time.Minute, time.Hour, 64 * time.Second},
		{1, 7 * time.Hour, time.Hour, time.Second},
		{1 << 30, time.Minute, time.Hour, 15 * time.Minute},
	} {
		d := hayrick.Delivery{Count: c.count}
		if got, done := d.AfterLease(c.left); got != c.lease || done != (got == time.Hour) {
			t.Errorf("delivery %d, %v left: %v, done with: %v; want %v", c.count, c.left, got, done, c.lease)
		}
		if got := d.AfterFault(); got != c.fault {
			t.Errorf("delivery %d: %v, want %v", c.count, got, c.fault)
		}
	}
}

// The longest ids there can be make a message that queues carry ten of in one request.
func TestMessagesAreSmall(t *testing.T) {
	id := strings.Repeat("x", 128)
	b, err := json.Marshal(hayrick.Message{
		JobID: id, Generation: 1 << 30, Role: hayrick.RoleRetryPlanner, Group: id, Block: 1 << 30, Position: 255, TaskID: id,
	})
	if err != nil || len(b) >= 2048 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
