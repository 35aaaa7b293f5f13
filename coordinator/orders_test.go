package coordinator

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"hayrick"
	"hayrick/manifest"
	"hayrick/mem"
)

func TestApply(t *testing.T) {
	pause := manifest.Control{Order: manifest.OrderPause, Reason: "by hand"}
	auto := manifest.Control{Order: manifest.OrderPause, Rule: RuleStopIf, Group: "initial_batch", Reason: "too many"}
	elsewhere := manifest.Control{Order: manifest.OrderPause, Rule: RuleStopIf, Group: "retry_batch_1", Reason: "again"}
	resume := manifest.Control{Order: manifest.OrderResume}
	cancel := manifest.Control{Order: manifest.OrderCancel}
	later := func(o manifest.Control) manifest.Control { o.Generation = 1; return o }
	for _, tc := range []struct {
		name   string
		orders []manifest.Control
		want   Effect
	}{
		{"none", nil, Effect{}},
		{"pause", []manifest.Control{pause}, Effect{Paused: true, Reason: "by hand"}},
		{"pause and resume", []manifest.Control{pause, resume}, Effect{}},
		{"a pause by hand counts each time", []manifest.Control{pause, resume, pause}, Effect{Paused: true, Reason: "by hand"}},
		{"a rule pauses", []manifest.Control{auto}, Effect{Paused: true, Reason: "too many"}},
		{"a resume silences the rule", []manifest.Control{auto, resume, auto}, Effect{}},
		{"but not in another group", []manifest.Control{auto, resume, elsewhere}, Effect{Paused: true, Reason: "again"}},
		{"a void pause changes no reason", []manifest.Control{auto, pause, auto}, Effect{Paused: true, Reason: "by hand"}},
		{"one resume lifts all", []manifest.Control{auto, pause, resume}, Effect{}},
		{"a cancel is final", []manifest.Control{cancel, resume}, Effect{Cancelled: true}},
		{"another generation's are void", []manifest.Control{later(cancel), later(pause)}, Effect{}},
		{"and silence nothing here", []manifest.Control{later(auto), auto}, Effect{Paused: true, Reason: "too many"}},
		{"an order of a later version is counted", []manifest.Control{{Order: "set"}}, Effect{}},
	} {
		got := Apply(tc.orders, 0)
		if got.Paused != tc.want.Paused || got.Reason != tc.want.Reason || got.Cancelled != tc.want.Cancelled || got.Applied != len(tc.orders) {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
	if e := Apply([]manifest.Control{auto, resume}, 0); !e.Given(RuleStopIf, "initial_batch") || e.Given(RuleStopIf, "retry_batch_1") {
		t.Errorf("given: %+v", e)
	}
}

func planned(t *testing.T) (*rig, string) {
	r := newRig(t)
	return r, r.submit(t, submission()).JobID
}

func TestOrder(t *testing.T) {
	r, job := planned(t)
	for n, order := range []string{manifest.OrderPause, manifest.OrderResume, manifest.OrderCancel} {
		got, err := r.Order(t.Context(), job, manifest.Control{Order: order})
		if err != nil || got.N != n || got.JobID != job || got.By != "coordinator-1" || !got.At.Equal(r.clock.Now()) {
			t.Errorf("%+v: %v", got, err)
		}
	}
	orders, links, err := r.Store.Orders(t.Context(), job)
	if err != nil || len(orders) != 3 || len(links) != 3 {
		t.Fatalf("%d orders, %d digests: %v", len(orders), len(links), err)
	}
	for n, o := range orders {
		if body := r.mem.Snapshot()[manifest.Job(job).Control(n)]; o.N != n || links[n] != (manifest.Link{Key: fmt.Sprintf("control/%d.json", n), SHA256: manifest.SHA256(body)}) {
			t.Errorf("order %d is %+v with %+v", n, o, links[n])
		}
	}
	if _, err := r.Order(t.Context(), "nothing", manifest.Control{Order: manifest.OrderPause}); !errors.Is(err, hayrick.ErrNotFound) {
		t.Errorf("to no job: %v", err)
	}
	r.end(t, job)
	if _, err := r.Order(t.Context(), job, manifest.Control{Order: manifest.OrderPause}); !errors.Is(err, hayrick.ErrConflict) {
		t.Errorf("to a generation that has ended: %v", err)
	}
	if _, err := r.Order(t.Context(), job, manifest.Control{Order: manifest.OrderPause, Generation: 1}); err != nil {
		t.Errorf("to the next one: %v", err)
	}
}

// together runs f for n actors whose first commits of an order all come before any
// of them is decided.
func together(r *rig, n int, f func(i int)) {
	var met sync.WaitGroup
	met.Add(n)
	var mu sync.Mutex
	left := n
	r.mem.Hook = func(c mem.Call) mem.Fault {
		if c.Op != "Commit" {
			return mem.Fault{}
		}
		mu.Lock()
		first := left > 0
		left--
		mu.Unlock()
		if first {
			met.Done()
			met.Wait()
		}
		return mem.Fault{}
	}
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() { f(i) })
	}
	done.Wait()
	r.mem.Hook = nil
}

func TestOrdersAtOnce(t *testing.T) {
	r, job := planned(t)
	const n = 8
	got := make([]manifest.Control, n)
	errs := make([]error, n)
	together(r, n, func(i int) {
		got[i], errs[i] = r.Order(t.Context(), job, manifest.Control{Order: manifest.OrderPause, Reason: fmt.Sprint(i)})
	})
	orders, _, err := r.Store.Orders(t.Context(), job)
	if err = errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	if len(orders) != n {
		t.Errorf("%d orders, want %d", len(orders), n)
	}
	for i, o := range got {
		if stored := orders[o.N]; stored.Reason != fmt.Sprint(i) {
			t.Errorf("order %d of actor %d is %q", o.N, i, stored.Reason)
		}
	}
}

func TestAutomaticPausesAtOnce(t *testing.T) {
	r, job := planned(t)
	const n = 8
	errs := make([]error, n)
	pause := func(i int) {
		_, errs[i] = r.Order(t.Context(), job, manifest.Control{
			Order: manifest.OrderPause, Rule: RuleStopIf, Group: fmt.Sprintf("retry_batch_%d", i%2+1), By: fmt.Sprint(i),
		})
	}
	together(r, n, pause)
	pause(0)
	orders, _, err := r.Store.Orders(t.Context(), job)
	if err = errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	if len(orders) != 2 || orders[0].Group == orders[1].Group {
		t.Errorf("%d orders, want one a group: %+v", len(orders), orders)
	}
}

// Whatever happens to one call, an order that is given again, as a caller does that
// got an error or died, is there and has its effect.
func TestOrderSurvivesAnyCall(t *testing.T) {
	order := manifest.Control{Order: manifest.OrderPause, Rule: RuleStopIf, Group: hayrick.GroupInitial}
	r, job := planned(t)
	var calls []mem.Call
	r.mem.Hook = func(c mem.Call) mem.Fault { calls = append(calls, c); return mem.Fault{} }
	if _, err := r.Order(t.Context(), job, order); err != nil {
		t.Fatal(err)
	}
	for _, call := range calls {
		for _, fault := range []mem.Fault{{CrashBefore: true}, {CrashAfter: true}, {ErrBefore: errors.New("no")}, {ErrAfter: errors.New("lost")}, {Duplicate: true}} {
			r, job := planned(t)
			r.mem.Hook = func(c mem.Call) mem.Fault {
				if c.N == call.N {
					return fault
				}
				return mem.Fault{}
			}
			func() {
				defer func() {
					if p := recover(); p != nil {
						if _, ok := p.(mem.Crash); !ok {
							panic(p)
						}
					}
				}()
				r.Order(t.Context(), job, order)
			}()
			r.mem.Hook = nil
			got, err := r.Order(t.Context(), job, order)
			orders, _, oerr := r.Store.Orders(t.Context(), job)
			if err != nil || oerr != nil || got.N != 0 || len(orders) != 1 || !Apply(orders, 0).Paused {
				t.Errorf("%s %+v: order %d of %d: %v %v", call, fault, got.N, len(orders), err, oerr)
			}
		}
	}
	if !strings.Contains(fmt.Sprint(calls), "control/0.json") {
		t.Errorf("the order was not among the calls: %v", calls)
	}
}
