package backfill

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hayrick"
	"hayrick/jobs"
	"hayrick/jobs/backfill/demo"
)

// leapClock is an hour later each time it is asked: to it no host is ever asked
// too often.
type leapClock struct {
	hayrick.SystemClock
	mu  sync.Mutex
	now time.Time
}

func (c *leapClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Hour)
	return c.now
}

// demoOn is the demo's handler; clock is the one its hosts count requests by.
func demoOn(t *testing.T, settings demo.Settings, clock hayrick.Clock, idle time.Duration) *demoHandler {
	t.Helper()
	p, err := parseParams(json.RawMessage(`{"verify":"signature","demo":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	p.Demo = &settings
	world := hayrick.RealWorld("demo")
	world.Clock = clock
	servers := demo.NewNetwork(world, settings)
	up := newUpstream(hayrick.RealWorld("test"), "http", servers.DialContext, nil, idle)
	up.tag = demo.Tag
	h := &demoHandler{handler: newHandler(p, up), servers: servers}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// patientDemo is a demo whose hosts throttle only as planned. Tries that are
// planned to stall run with a short idle_timeout, all others with one that a slow
// machine does not reach.
type patientDemo struct {
	*demoHandler
	hasty *demoHandler
}

func newPatientDemo(t *testing.T, settings demo.Settings) *patientDemo {
	clock := &leapClock{now: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}
	return &patientDemo{demoOn(t, settings, clock, time.Minute), demoOn(t, settings, clock, 100*time.Millisecond)}
}

func (d *patientDemo) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	var rec struct{ DID string }
	if json.Unmarshal(it.Data, &rec) == nil && d.params.Demo.Fault(rec.DID, it.Try) == demo.Stall {
		return d.hasty.Handle(ctx, it, emit)
	}
	return d.demoHandler.Handle(ctx, it, emit)
}

// ending is how one account ended: the class of each try, "" being ok, and its
// rows.
type ending struct {
	classes []string
	last    hayrick.Disposition
	rows    []jobs.Row
}

// runAll runs every account to its end, many at once, as often as it takes, and
// returns the endings by DID.
func runAll(t *testing.T, h *patientDemo) map[string]ending {
	t.Helper()
	var items []jobs.Item
	err := h.Items(t.Context(), func(rec json.RawMessage) error {
		items = append(items, jobs.Item{Ordinal: int64(len(items)), Data: slices.Clone(rec), Host: &testHost{}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	ends := map[string]ending{}
	next := make(chan jobs.Item)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for it := range next {
				did, end := runItem(t.Context(), h, it)
				mu.Lock()
				ends[did] = end
				mu.Unlock()
			}
		})
	}
	for _, it := range items {
		next <- it
	}
	close(next)
	wg.Wait()
	return ends
}

func runItem(ctx context.Context, h jobs.Handler, it jobs.Item) (did string, end ending) {
	var rec struct{ DID string }
	if err := json.Unmarshal(it.Data, &rec); err != nil {
		panic(err) // a record of our own
	}
	for it.Try = 1; it.Try <= 10; it.Try++ {
		out, rows := handle(ctx, h, it.Host.(*testHost), string(it.Data), it.Try)
		end.classes, end.last = append(end.classes, out.Class), out.Disposition
		if out.OK() {
			end.rows = rows
			break
		}
		if out.Disposition.Final() {
			break
		}
	}
	return rec.DID, end
}

var classOfFault = map[demo.Fault]string{
	demo.Throttle: hayrick.ClassRateLimit, demo.Unavailable: classUpstream5xx, demo.ServerError: classUpstream5xx,
	demo.Stall: hayrick.ClassTimeout, demo.Cut: classTruncated, demo.Damage: classDamaged, demo.Directory: classUpstream5xx,
}

var classOfState = map[demo.State]string{
	demo.Deleted: classNotFound, demo.Deactivated: classDeactivated, demo.Takendown: classTakendown, demo.Suspended: classSuspended,
}

// The whole demo, over HTTP: each account meets exactly the faults that are
// planned for it, each with its class, ends as planned, and has the planned rows.
func TestDemoEndsAsPlanned(t *testing.T) { // 002-35: one type lists the items and runs them
	settings := demo.Settings{Accounts: 2000, Hosts: 8, Seed: 1}
	ends := runAll(t, newPatientDemo(t, settings))
	want := settings.Expect(2)
	got := demo.Expected{Items: int64(len(ends)), Permanent: map[demo.State]int64{}, Groups: make([]int64, len(want.Groups))}
	for _, a := range settings.List() {
		end := ends[a.DID]
		var classes []string
		for try := 1; try <= settings.Failures(a.DID); try++ {
			classes = append(classes, classOfFault[settings.Fault(a.DID, try)])
		}
		state := settings.State(a.DID)
		classes = append(classes, classOfState[state])
		if !slices.Equal(end.classes, classes) {
			t.Errorf("%s: tries ended %q, want %q", a.DID, end.classes, classes)
		}
		got.Requests += int64(len(end.classes))
		got.Faults += int64(len(end.classes)) - 1
		got.Groups[(len(end.classes)-1)/2]++
		if state != demo.Active {
			got.Permanent[state]++
			continue
		}
		got.OK++
		got.Rows += int64(len(end.rows))
		rows, err := settings.Rows(a.DID)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows)+len(end.rows) > 0 && !reflect.DeepEqual(rows, end.rows) { // cmp takes a minute for them all
			t.Fatalf("%s: rows differ (-planned +got):\n%s", a.DID, cmp.Diff(rows, end.rows))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the run differs from what was planned (-planned +run):\n%s", d)
	}
}

// Two processes, or one that was killed and resumed, meet the same network.
func TestDemoIsTheSameInEveryProcess(t *testing.T) {
	settings := demo.Settings{Accounts: 150, Hosts: 3, Seed: 42}
	one, two := runAll(t, newPatientDemo(t, settings)), runAll(t, newPatientDemo(t, settings))
	if !reflect.DeepEqual(one, two) {
		t.Errorf("two runs differ:\n%s", cmp.Diff(one, two, cmp.AllowUnexported(ending{})))
	}
	if len(one) != 150 {
		t.Errorf("%d accounts, want 150", len(one))
	}
	settings.Seed = 43
	for did := range runAll(t, newPatientDemo(t, settings)) {
		if _, same := one[did]; same {
			t.Errorf("%s is there with another seed too", did)
		}
	}
}

// standingClock does not move.
type standingClock struct{ hayrick.SystemClock }

func (standingClock) Now() time.Time { return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) }

// Hosts throttle for real when they are asked more often than they allow, and the
// limiter hears of it.
func TestDemoHostsThrottle(t *testing.T) {
	settings := demo.Settings{Accounts: 200, Hosts: 1, Seed: 1}
	h := demoOn(t, settings, standingClock{}, time.Minute)
	host, throttled := &testHost{}, 0
	for _, a := range settings.List() {
		out, _ := handle(t.Context(), h, host, string(a.Item()), 9) // no planned faults in try 9
		if out.Class != hayrick.ClassRateLimit {
			continue
		}
		throttled++
		if out.RetryAfter != time.Second {
			t.Errorf("Retry-After %s", out.RetryAfter)
		}
	}
	if throttled != 200-80 {
		t.Errorf("%d of 200 requests at one instant were throttled, want all but the burst of 80", throttled)
	}
	for _, f := range host.feedback {
		if f != "pds pds-0.demo.invalid true 1s" {
			t.Errorf("the limiter heard %q", f)
		}
	}
	if len(host.feedback) != throttled {
		t.Errorf("%d reports to the limiter of %d throttles", len(host.feedback), throttled)
	}
}
