package sim

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// number is a setting of the environment. HAYRICK_SIM_EVERY=1 HAYRICK_SIM_SEEDS=2000 is
// what `make sim` runs: every call of every scenario.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// seed is that of the scenarios.
func seed() uint64 { return uint64(number("HAYRICK_SIM_SEED", 7)) }

// fails reports what is wrong with a run: the fewest faults that show it, and the command
// that shows it again.
func fails(t *testing.T, scratch string, v Verdict, calm string) {
	t.Helper()
	p := v.Plan
	p.Faults = Shrink(p.Faults, func(s Schedule) bool {
		q := p
		q.Faults = s
		return len(q.Run(scratch, synctest.Wait, calm).Bad) > 0
	})
	t.Errorf("%s: %v\n  HAYRICK_SIM_SCENARIO=%s HAYRICK_SIM_SEED=%d HAYRICK_SIM_FAULTS=%s go test ./sim -run TestReplay -v",
		p.Scenario.Name, v.Bad, p.Scenario.Name, p.Seed, p.Faults)
}

// A scenario tells the same story every time, and ends well.
//
// I19
func TestScenarios(t *testing.T) {
	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			scratch := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				first := s.Plan(seed()).Run(scratch, synctest.Wait, "")
				t.Logf("%d calls, %d events with hash %016x, %s, %d processes\n%s", first.Calls, first.Steps, first.Hash, first.Took, first.Started, first.Gist)
				if len(first.Bad) > 0 {
					t.Fatal(first.Bad)
				}
				if v := s.Plan(seed()).Run(scratch, synctest.Wait, first.Gist); len(v.Bad) > 0 || v.Hash != first.Hash {
					t.Errorf("the same seed tells another story: %x and %x, %v", first.Hash, v.Hash, v.Bad)
				}
			})
		})
	}
}

// Every call of every scenario meets every fault, and the job ends as if nothing had
// happened.
//
// 002-05 002-45 002-52
func TestSingleFaults(t *testing.T) {
	every := number("HAYRICK_SIM_EVERY", 61)
	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			scratch := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				p := s.Plan(seed())
				p.Trace = true
				calm := p.Run(scratch, synctest.Wait, "")
				points := Points(calm.Events)
				runs, struck, late := 0, 0, map[string]time.Duration{}
				for i, k := range Kinds {
					for at := i % every; at < len(points); at += every {
						if !k.Meets(points[at].Call) {
							continue
						}
						p := s.Plan(seed())
						p.Faults = Schedule{{points[at].N, k.Name}}
						v := p.Run(scratch, synctest.Wait, calm.Gist)
						runs++
						struck += v.Struck
						late[k.Name] = max(late[k.Name], v.Took-calm.Took)
						if len(v.Bad) > 0 {
							fails(t, scratch, v, calm.Gist)
							return
						}
					}
				}
				if struck < runs { // all calls before the fault are those of the calm run
					t.Errorf("%d runs met %d faults", runs, struck)
				}
				if d := late["message-lost"]; d > time.Minute {
					t.Errorf("a lost message costs %s, more than a sweep", d)
				}
				t.Logf("%d calls, %d of them tried: %d runs; the latest end later by %v", calm.Calls, len(points), runs, late)
			})
		})
	}
}

// Several faults at once, in an order of calls that differs from seed to seed.
func TestRandomFaults(t *testing.T) {
	seeds, first := number("HAYRICK_SIM_SEEDS", 60), number("HAYRICK_SIM_FIRST", 1)
	const lanes = 4
	for lane := range lanes {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			t.Parallel()
			scratch := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				for i := first + lane; i < first+seeds; i += lanes {
					s := Scenarios[i%len(Scenarios)]
					calm := s.Plan(uint64(i)).Run(scratch, synctest.Wait, "")
					p := s.Plan(uint64(i))
					p.Faults = RandomFaults(p.Seed, calm.Calls, 6)
					if v := p.Run(scratch, synctest.Wait, calm.Gist); len(v.Bad) > 0 {
						fails(t, scratch, v, calm.Gist)
						return
					}
				}
			})
		})
	}
}

// One run, told call by call, as a failure of the other tests names it.
func TestReplay(t *testing.T) {
	faults, err := ParseSchedule(os.Getenv("HAYRICK_SIM_FAULTS"))
	if err != nil {
		t.Fatal(err)
	}
	name := os.Getenv("HAYRICK_SIM_SCENARIO")
	if name == "" {
		name = Scenarios[0].Name
	}
	scratch := t.TempDir()
	for _, s := range Scenarios {
		if s.Name != name {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			calm := s.Plan(seed()).Run(scratch, synctest.Wait, "")
			p := s.Plan(seed())
			p.Faults, p.Trace = faults, true
			v := p.Run(scratch, synctest.Wait, calm.Gist)
			var story strings.Builder
			v.Explain(&story)
			t.Logf("%s%s", story.String(), v.Gist)
			if len(v.Bad) > 0 || len(v.Events) != v.Calls {
				t.Error(v.Bad)
			}
		})
		return
	}
	t.Errorf("there is no scenario %q", name)
}

// Of a schedule that fails what matters is left.
func TestShrink(t *testing.T) {
	s, err := ParseSchedule("400:error,30:crash-after,8:twice,77:freeze")
	if err != nil {
		t.Fatal(err)
	}
	got := Shrink(s, func(x Schedule) bool {
		at := map[string]int{}
		for _, f := range x {
			at[f.Kind] = f.N
		}
		return at["crash-after"] >= 10 && at["freeze"] > 0
	})
	if got.String() != "15:crash-after,1:freeze" {
		t.Error(got)
	}
	for _, bad := range []string{"x:error", "0:error", "3:nothing", "3"} {
		if _, err := ParseSchedule(bad); err == nil {
			t.Errorf("%q is a schedule", bad)
		}
	}
}
