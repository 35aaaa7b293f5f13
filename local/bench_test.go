package local

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
	"hayrick/ratelimit"
)

// spread runs op b.N times on n goroutines and reports how many a second, and what
// one costs of the processors, which a busy machine does not change.
func spread(b *testing.B, n int, op func(i int) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	before := cpu()
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := op(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is what this process has used of the processors.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// One task's commit, and with "task" all that a task writes: rows, commit, view.
// Each task has a folder of its own.
func BenchmarkCommit(b *testing.B) {
	job, body := manifest.Job("bench"), []byte(strings.Repeat("x", 1500))
	for _, what := range []string{"commit", "task"} {
		for _, callers := range []int{8, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", what, callers), func(b *testing.B) {
				s, ctx := openAt(b, b.TempDir(), hayrick.RealWorld("bench")), context.Background()
				before := s.dir.Fsyncs()
				spread(b, callers, func(i int) error {
					task := manifest.TaskID(int64(i))
					if what == "task" {
						if err := s.Put(ctx, job.Rows(task, "0123456789", "0123456789ab"), strings.NewReader(strings.Repeat("r", 4000))); err != nil {
							return err
						}
					}
					if _, err := s.Commit(ctx, job.Done(task), body); err != nil {
						return err
					}
					if what == "task" {
						return s.Replace(ctx, job.TaskManifest(task), body)
					}
					return nil
				})
				fsyncs := float64(s.dir.Fsyncs() - before)
				b.ReportMetric(fsyncs/float64(b.N), "fsyncs/op")
				b.ReportMetric(fsyncs/b.Elapsed().Seconds(), "fsyncs/s")
			})
		}
	}
}

// The calls a task makes of the state, one by one and as a task makes them.
func BenchmarkState(b *testing.B) {
	ctx := context.Background()
	for _, callers := range []int{8, 64, 256} {
		open := func(b *testing.B) *Store { return openAt(b, b.TempDir(), hayrick.RealWorld("bench")) }
		claim := func(s *Store, i int) error {
			_, err := s.Claim(ctx, hayrick.ClaimAsk{TaskRef: hayrick.TaskRef{JobID: "bench", TaskID: manifest.TaskID(int64(i))}, Attempt: "0123456789abcdef0123456789abcdef", Worker: "worker", Lease: time.Minute})
			return err
		}
		mark := func(s *Store, i int) error {
			_, err := s.Mark(ctx, hayrick.Mark{Block: hayrick.BlockID{JobID: "bench", Group: hayrick.GroupInitial, N: i / 256, SHA256: strings.Repeat("a", 64)}, Total: 256, Position: i % 256, OK: 100})
			return err
		}
		send := func(s *Store, i int) error {
			return s.Send(ctx, hayrick.QueueTasks, hayrick.Outgoing{Message: hayrick.Message{JobID: "bench", Role: hayrick.RoleWorker, Group: hayrick.GroupInitial, Block: i / 256, Position: i % 256, TaskID: manifest.TaskID(int64(i))}})
		}
		receive := func(s *Store, n int) ([]hayrick.Delivery, error) {
			return s.Receive(ctx, hayrick.QueueTasks, n, time.Minute, 0)
		}
		b.Run(fmt.Sprintf("Claim/%d", callers), func(b *testing.B) {
			s := open(b)
			spread(b, callers, func(i int) error { return claim(s, i) })
		})
		b.Run(fmt.Sprintf("Mark/%d", callers), func(b *testing.B) {
			s := open(b)
			spread(b, callers, func(i int) error { return mark(s, i) })
		})
		b.Run(fmt.Sprintf("Send/%d", callers), func(b *testing.B) {
			s := open(b)
			spread(b, callers, func(i int) error { return send(s, i) })
		})
		b.Run(fmt.Sprintf("ReceiveAck/%d", callers), func(b *testing.B) {
			s := open(b)
			for i := 0; i < b.N; i += 1000 {
				var out []hayrick.Outgoing
				for k := range 1000 {
					out = append(out, hayrick.Outgoing{Message: hayrick.Message{JobID: "bench", TaskID: manifest.TaskID(int64(i + k))}})
				}
				if err := s.Send(ctx, hayrick.QueueTasks, out...); err != nil {
					b.Fatal(err)
				}
			}
			spread(b, callers, func(int) error {
				ds, err := receive(s, 1)
				if err != nil {
					return err
				}
				return s.Ack(ctx, hayrick.QueueTasks, ds...)
			})
		})
		b.Run(fmt.Sprintf("Reserve/%d", callers), func(b *testing.B) {
			s := open(b)
			lim := ratelimit.Limits{Rate: hayrick.PerTime{N: 100_000, Per: time.Second}, Burst: 100_000, Timing: ratelimit.OneMachine}
			spread(b, callers, func(i int) error {
				_, err := s.Reserve(ctx, fmt.Sprintf("store/pds/host-%d", i%100), lim, ratelimit.Ask{N: 1}, s.world.Clock.Now)
				return err
			})
		})
		b.Run(fmt.Sprintf("Task/%d", callers), func(b *testing.B) { // send, receive, job state, claim, mark, release, acknowledge: 7 calls
			s := open(b)
			if err := s.PutJobState(ctx, hayrick.JobState{JobID: "bench"}); err != nil {
				b.Fatal(err)
			}
			spread(b, callers, func(i int) error {
				if err := send(s, i); err != nil {
					return err
				}
				ds, err := receive(s, 1)
				if err != nil {
					return err
				}
				if _, err := s.JobState(ctx, "bench"); err != nil {
					return err
				}
				if err := claim(s, i); err != nil {
					return err
				}
				if err := mark(s, i); err != nil {
					return err
				}
				ref := hayrick.TaskRef{JobID: "bench", TaskID: manifest.TaskID(int64(i))}
				if _, err := s.UpdateClaim(ctx, ref, "0123456789abcdef0123456789abcdef", hayrick.ClaimPatch{Until: &time.Time{}}); err != nil {
					return err
				}
				return s.Ack(ctx, hayrick.QueueTasks, ds...)
			})
		})
	}
}
