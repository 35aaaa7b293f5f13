package hayrick_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hayrick"
)

// retention is how long a queue keeps a message at most: SQS's 14 days.
const retention = 14 * 24 * time.Hour

// Looking at a message again and again does not make it a dead letter before it would
// be gone anyway; meeting faults does after most of a day.
func TestWaitsOutlastOutages(t *testing.T) {
	var held, fault time.Duration
	for n := 1; n <= hayrick.MaxReceives; n++ {
		d := hayrick.Delivery{Count: n}
		held += d.AfterLease(time.Second) // of the shortest lease
		fault += d.AfterFault()
	}
	if held <= retention {
		t.Errorf("a task that is held for %v kills its message", held)
	}
	if fault < 20*time.Hour {
		t.Errorf("an outage of %v kills messages", fault)
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
		{11, time.Minute, 6 * time.Hour, 15 * time.Minute},
		{1, 7 * time.Hour, 6 * time.Hour, time.Second},
		{1 << 30, time.Minute, 6 * time.Hour, 15 * time.Minute},
	} {
		d := hayrick.Delivery{Count: c.count}
		if got := d.AfterLease(c.left); got != c.lease {
			t.Errorf("delivery %d, %v left: %v, want %v", c.count, c.left, got, c.lease)
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
