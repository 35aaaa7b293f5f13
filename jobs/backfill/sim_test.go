package backfill

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
	"hayrick/mem"
	"hayrick/ratelimit"
)

type limHost struct {
	*testHost
	lim *ratelimit.Limiter
	rates map[string]hayrick.Rate
}

func (h *limHost) Need(ctx context.Context, rate, key string, n int) error {
	_, err := h.lim.Take(ctx, "j", h.rates[rate], key, n)
	return err
}
func (h *limHost) Feedback(rate, key string, f jobs.Feedback) {
	h.lim.Feedback(context.Background(), "j", h.rates[rate], key, f.RetryAfter)
}

func TestSim(t *testing.T) {
	world := hayrick.RealWorld("test")
	per := func(n int64) hayrick.PerTime { return hayrick.PerTime{N: n, Per: time.Second} }
	var limit, burst int64 = 30, 10
	if s := os.Getenv("LIMIT"); s != "" { fmt.Sscanf(s, "%d/%d", &limit, &burst) }
	rates := map[string]hayrick.Rate{
		"pds": {Name: "pds", Key: "$(item.pds)", Limit: per(limit), Burst: int(burst), Learn: true, Auto: true},
		"plc": {Name: "plc", Limit: per(500), Burst: 100, Learn: true},
	}
	lim := &ratelimit.Limiter{Store: mem.New(world.Clock), World: world, Timing: ratelimit.OneMachine, Log: slog.Default()}
	h, err := Factory(t.Context(), jobs.Env{World: world, Params: json.RawMessage(`{"verify":"signature","idle_timeout":"500ms","resolver_rate":"plc","demo":{"accounts":2000}}`)})
	if err != nil { t.Fatal(err) }
	defer h.(jobs.Closer).Close()
	host := &limHost{&testHost{}, lim, rates}
	type it struct { data string; pds string; tries int }
	var items []*it
	h.(jobs.Lister).Items(t.Context(), func(rec json.RawMessage) error {
		var r struct{ PDS string }
		json.Unmarshal(rec, &r)
		items = append(items, &it{string(rec), r.PDS, 0})
		return nil
	})
	start := time.Now()
	ok, perm, exh := 0, 0, 0
	for group := 0; group < 3; group++ {
		var mu sync.Mutex
		var failed []*it
		tasks := make(chan []*it, 1000)
		for i := 0; i < len(items); i += 50 { tasks <- items[i:min(i+50, len(items))] }
		close(tasks)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for batch := range tasks {
					next := make(chan *it, 50)
					for _, x := range batch { next <- x }
					close(next)
					var slots sync.WaitGroup
					for range 16 {
						slots.Go(func() {
							for x := range next {
								for a := 0; a < 2; a++ {
									if err := host.Need(t.Context(), "pds", x.pds, 1); err != nil { t.Error(err); return }
									x.tries++
									out := h.Handle(t.Context(), jobs.Item{Data: json.RawMessage(x.data), Try: x.tries, Host: host}, func(jobs.Row) error { return nil })
									if out.OK() { mu.Lock(); ok++; mu.Unlock(); break }
									if out.Disposition.Final() { mu.Lock(); perm++; mu.Unlock(); break }
									if out.Class == hayrick.ClassRateLimit { host.Feedback("pds", x.pds, jobs.Feedback{Throttled: true, RetryAfter: out.RetryAfter}) }
									if a == 1 { mu.Lock(); failed = append(failed, x); mu.Unlock(); break }
									time.Sleep(max(50*time.Millisecond, out.RetryAfter))
								}
							}
						})
					}
					slots.Wait()
				}
			})
		}
		wg.Wait()
		t.Log(group, time.Since(start), ok, perm, len(failed))
		items = failed
		time.Sleep(time.Second)
	}
	exh = len(items)
	t.Log(ok, perm, exh, host.feedback)
}
