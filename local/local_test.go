package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/storetest"
)

// clock is virtual time: it passes only by Sleep.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

func world(c hayrick.Clock) hayrick.World {
	w := hayrick.RealWorld("test")
	w.Clock = c
	return w
}

// openAt opens a store for the length of the test.
func openAt(t testing.TB, dir string, w hayrick.World) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Ports {
		dir, clk := t.TempDir(), newClock()
		out := filepath.Join(dir, "out", "run")
		processes := 0
		var view func(t *testing.T) storetest.Ports
		view = func(t *testing.T) storetest.Ports {
			s := openAt(t, filepath.Join(dir, ".hayrick"), world(clk))
			processes++
			return storetest.Ports{
				Clock: clk, Worker: fmt.Sprintf("worker-%d", processes),
				Objects: s, Outputs: s, State: s, Queue: s, Buckets: s, Inputs: s,
				OutputURI: out + "/",
				SetInput: func(name string, data []byte) string {
					path := filepath.Join(dir, name)
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, data, 0o644); err != nil {
						t.Fatal(err)
					}
					return path
				},
				Another: view,
				Kill:    func() { s.Close() },
			}
		}
		return view(t)
	})
}
