package local

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/manifest"
)

const killJob = manifest.Job("killed")

// killBytes are the only bytes that ever belong under the n-th data key: big enough
// that a kill often hits the middle of them.
func killBytes(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "data %d;", n), 20_000)
}

// childCommits puts data and commits over and over, on keys that all children
// share, and says which commits it won.
func childCommits(dir string, args []string) error {
	s, err := childStore(dir)
	if err != nil {
		return err
	}
	ctx, me := context.Background(), fmt.Sprint(os.Getpid())
	for {
		n := rand.IntN(60)
		if err := s.Put(ctx, killJob.Rows(manifest.TaskID(int64(n)), "a", "b"), bytes.NewReader(killBytes(n))); err != nil {
			return err
		}
		for range 5 {
			n = rand.IntN(1 << 20)
			stored, err := s.Commit(ctx, killJob.Done(manifest.TaskID(int64(n))), []byte(me+" "+strings.Repeat("x", 3000)+" "+me))
			if err != nil {
				return err
			}
			if stored {
				fmt.Println(n)
			}
		}
	}
}

// Processes that are killed at any moment: what they were told is stored stays
// stored, nobody else was told so too, no object is ever visible in part, and what
// they left is cleaned up. The power is on, so this says nothing of fsync; the
// order of fsyncs is shown by internal/durable.
func TestKill9(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	var mu sync.Mutex
	won := map[string]string{} // key -> pid
	var wg sync.WaitGroup
	for range 3 { // at any time
		wg.Go(func() {
			for range 8 { // one after the other
				c := start(t, "commits", dir)
				var heard []string
				for range 5 + rand.IntN(10) { // it is at work
					if !c.out.Scan() {
						t.Error("a child ended:", c.err.String())
					}
					heard = append(heard, c.out.Text())
				}
				kill := time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, func() { c.Process.Kill() })
				heard = append(heard, c.lines()...)
				kill.Stop()
				c.Wait()
				if c.err.Len() > 0 {
					t.Error(c.err.String())
				}
				mu.Lock()
				for _, n := range heard {
					if other, ok := won[n]; ok {
						t.Errorf("%s was won by %s and by %d", n, other, c.Process.Pid)
					}
					won[n] = fmt.Sprint(c.Process.Pid)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()

	s := openAt(t, dir, hayrick.RealWorld("test"))
	for _, sub := range []string{"tmp", "procs"} {
		left, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 && !(len(left) == 1 && left[0].Name() == s.dir.Owner()) {
			t.Errorf("%s has %d leftovers", sub, len(left))
		}
	}
	found := map[string]string{}
	if err := s.List(t.Context(), killJob.Prefix(), func(o manifest.Object) error {
		r, err := s.Open(t.Context(), o.Key, 0, -1)
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimPrefix(strings.Split(o.Key, "/")[3], "task-"))
		if err != nil {
			return err
		}
		if strings.HasSuffix(o.Key, ".parquet") {
			if !bytes.Equal(b, killBytes(n)) {
				t.Errorf("%s is torn: %d bytes", o.Key, len(b))
			}
			return nil
		}
		first, _, _ := strings.Cut(string(b), " ")
		if string(b) != first+" "+strings.Repeat("x", 3000)+" "+first {
			t.Errorf("%s is torn: %d bytes", o.Key, len(b))
		}
		found[strconv.Itoa(n)] = first
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for n, pid := range won {
		if found[n] != pid {
			t.Errorf("the commit of task %s was answered to %s and is of %q", n, pid, found[n])
		}
	}
	t.Logf("24 processes killed, %d commits answered, %d stored", len(won), len(found))
}
