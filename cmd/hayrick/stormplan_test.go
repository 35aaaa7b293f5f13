package main

import (
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// stormPlan is what one round of a storm does to whom, and when. It is drawn from a
// seed and knows nothing of how the round goes, so a seed repeats it; what the
// processes are at by then is up to them.
type stormPlan struct {
	Traps []trap
	Deeds []deed
}

// trap kills as soon as the n-th file of a kind is there.
type trap struct {
	Kind  fileKind
	Nth   int
	Whom  target
	Delay time.Duration // mostly none: right after it
}

// deed is done when so many more files are there, of any kind, or at the latest after a
// while.
type deed struct {
	What  deedKind
	Whom  target
	Files int
	Wait  time.Duration // at most
	Lasts time.Duration // of what ends again
	Until fileKind      // of what ends when there is one
}

// target is the place of a process, or one of these.
type target int

const (
	everybody target = -1
	writer    target = -2 // of the results.done that a trap waited for
)

// places are what runs in a round, at once. A run submits first.
var places = []string{"run", "run too", "worker", "worker too", "watch"}

type deedKind string

const (
	deedKill       deedKind = "kill"
	deedPowerCut   deedKind = "kill everybody"
	deedHurry      deedKind = "SIGTERM, then kill" // while it hands back
	deedStop       deedKind = "SIGSTOP beyond the lease"
	deedStopQueue  deedKind = "SIGSTOP beyond the lease, queue deleted"
	deedStopState  deedKind = "SIGSTOP beyond the lease, state deleted"
	deedSleep      deedKind = "SIGSTOP until others are done, state deleted"
	deedState      deedKind = "state.db deleted"
	deedStatePart  deedKind = "a part of state.db deleted"
	deedQueue      deedKind = "queue deleted"
	deedStateQueue deedKind = "queue and state.db deleted, everybody killed"
	deedFull       deedKind = "disk full"
	deedReadOnly   deedKind = "read-only under way"
	deedRemount    deedKind = "everybody killed, disk read-only"
)

// fileKind is what a file of the store or of the output is.
type fileKind string

// The kinds, as the life of a run has them.
const (
	kindInput       fileKind = "input"
	kindIndex       fileKind = "index"
	kindBlock       fileKind = "block file"
	kindConfig      fileKind = "config"
	kindPlan        fileKind = "plan.json"
	kindView        fileKind = "job manifest"
	kindRows        fileKind = "rows"
	kindFailures    fileKind = "failures"
	kindDone        fileKind = "results.done"
	kindTaskView    fileKind = "task manifest"
	kindRetryList   fileKind = "retry list"
	kindSegment     fileKind = "retry segment"
	kindRetryPlan   fileKind = "retry plan"
	kindRetryView   fileKind = "retry manifest"
	kindMergePlan   fileKind = "merge plan"
	kindMergeRows   fileKind = "merged rows"
	kindMergeDone   fileKind = "results.done of a merge"
	kindPart        fileKind = "part"
	kindList        fileKind = "list"
	kindOutcome     fileKind = "outcome"
	kindPublished   fileKind = "published part"
	kindPublishList fileKind = "published list"
	kindSuccess     fileKind = "_SUCCESS"
	kindMergeView   fileKind = "aggregation manifest"
)

var kinds = []struct {
	kind fileKind
	re   *regexp.Regexp
}{
	{kindInput, regexp.MustCompile(`^input/`)},
	{kindSegment, regexp.MustCompile(`^batches/.*/seg-`)},
	{kindIndex, regexp.MustCompile(`^batches/.*/index-`)},
	{kindBlock, regexp.MustCompile(`^groups/`)},
	{kindConfig, regexp.MustCompile(`^(config|bundle)-`)},
	{kindPlan, regexp.MustCompile(`^plan\.json$`)},
	{kindView, regexp.MustCompile(`^manifest\.json$`)},
	{kindMergeDone, regexp.MustCompile(`^tasks/agg-[^/]*/results\.done$`)},
	{kindDone, regexp.MustCompile(`^tasks/[^/]*/results\.done$`)},
	{kindMergeRows, regexp.MustCompile(`^tasks/agg-.*\.(parquet|run)$`)},
	{kindRows, regexp.MustCompile(`^tasks/.*\.parquet$`)},
	{kindFailures, regexp.MustCompile(`^tasks/.*_failures\.jsonl$`)},
	{kindTaskView, regexp.MustCompile(`^tasks/.*/manifest\.json$`)},
	{kindRetryPlan, regexp.MustCompile(`^retries/.*/plan\.json$`)},
	{kindRetryView, regexp.MustCompile(`^retries/.*/manifest\.json$`)},
	{kindRetryList, regexp.MustCompile(`^retries/`)},
	{kindMergePlan, regexp.MustCompile(`^aggregation/0/plan\.json$`)},
	{kindList, regexp.MustCompile(`^aggregation/0/lists/`)},
	{kindPart, regexp.MustCompile(`^aggregation/0/part-`)},
	{kindMergeView, regexp.MustCompile(`^aggregation/manifest\.json$`)},
	{kindOutcome, regexp.MustCompile(`^outcome-`)},
}

// kindOf tells what a file of the storm's folder is; "" is none of these.
func kindOf(name string) fileKind {
	if rest, ok := strings.CutPrefix(name, ".hayrick/jobs/"); ok {
		_, rest, _ = strings.Cut(rest, "/") // the id of the run
		for _, k := range kinds {
			if k.re.MatchString(rest) {
				return k.kind
			}
		}
		return ""
	}
	switch base := path.Base(name); {
	case !strings.HasPrefix(name, "out/") || strings.HasPrefix(base, "."):
		return ""
	case base == "_SUCCESS":
		return kindSuccess
	case strings.HasPrefix(base, "part-"):
		return kindPublished
	case strings.Contains(name, "/lists/"):
		return kindPublishList
	}
	return ""
}

// surely are the kinds of which every run stores at least one: their traps have to kill.
var surely = []fileKind{
	kindInput, kindIndex, kindBlock, kindConfig, kindPlan, kindRows, kindDone, kindRetryPlan, kindMergePlan, kindMergeRows, kindMergeDone,
	kindPart, kindOutcome, kindPublished, kindSuccess,
}

// planStorm draws a round.
func planStorm(seed, round uint64) stormPlan {
	rng := rand.New(rand.NewPCG(seed, round))
	ms := func(from, to int) time.Duration {
		return time.Duration(from*1000+rng.IntN((to-from)*1000)) * time.Microsecond
	}
	soon := func() time.Duration {
		if rng.IntN(2) == 0 {
			return 0
		}
		return ms(0, 20)
	}
	var p stormPlan
	for _, k := range surely {
		p.Traps = append(p.Traps, trap{k, 1, everybody, soon()})
	}
	one := func() target { return target(rng.IntN(len(places))) }
	for _, k := range []fileKind{
		kindView, kindRows, kindRows, kindFailures, kindFailures, kindTaskView, kindTaskView, kindRetryList, kindSegment, kindRetryPlan, kindRetryView,
		kindMergeRows, kindMergeRows, kindList, kindPublishList, kindMergeView,
	} {
		p.Traps = append(p.Traps, trap{k, 1 + rng.IntN(8), one(), soon()})
	}
	for _, k := range []fileKind{kindDone, kindDone, kindDone, kindMergeDone, kindMergeDone} {
		p.Traps = append(p.Traps, trap{k, 1 + rng.IntN(12), writer, soon()})
	}
	// Before there is a plan, files are few: the moment is all.
	for range 4 {
		p.Deeds = append(p.Deeds, deed{What: deedKill, Whom: target(rng.IntN(2)), Files: 100, Wait: ms(20, 140)})
	}
	var main []deed
	add := func(n int, what deedKind, whom func() target, from, to int) {
		for range n {
			d := deed{What: what, Whom: whom(), Files: rng.IntN(6), Wait: ms(50, 400)}
			if to > 0 {
				d.Lasts = ms(from, to)
			}
			if what == deedSleep {
				d.Until = []fileKind{kindMergePlan, kindPart, kindOutcome}[rng.IntN(3)]
			}
			main = append(main, d)
		}
	}
	all := func() target { return everybody }
	add(18, deedKill, one, 0, 0)
	add(1, deedPowerCut, all, 0, 0)
	add(2, deedHurry, one, 1, 200)
	// Whoever works on tasks: they have leases.
	works := func() target { return target(rng.IntN(len(places) - 1)) }
	add(1, deedStop, works, 1200, 2000)
	add(1, deedStopQueue, works, 1500, 2500)
	add(1, deedStopState, works, 1200, 2500)
	add(2, deedSleep, func() target { return target(2 + rng.IntN(2)) }, 0, 300)
	add(1, deedState, all, 0, 0)
	add(1, deedStatePart, all, 0, 0)
	add(1, deedQueue, all, 0, 0)
	add(1, deedStateQueue, all, 0, 0)
	add(1, deedFull, all, 200, 600)
	add(1, deedReadOnly, all, 200, 600)
	add(1, deedRemount, all, 200, 400)
	rng.Shuffle(len(main), func(i, j int) { main[i], main[j] = main[j], main[i] })
	p.Deeds = append(p.Deeds, main...)
	return p
}

// The same seed does the same to the same; another one does something else, and every
// kind of deed and a trap for every commit are in each.
func TestStormPlan(t *testing.T) {
	for seed := range uint64(50) {
		p := planStorm(seed, 1)
		if again := planStorm(seed, 1); !slices.Equal(p.Deeds, again.Deeds) || !slices.Equal(p.Traps, again.Traps) {
			t.Errorf("seed %d: two plans", seed)
		}
		if other := planStorm(seed, 2); slices.Equal(p.Deeds, other.Deeds) {
			t.Errorf("seed %d: two rounds are alike", seed)
		}
		done := map[deedKind]int{}
		for _, d := range p.Deeds {
			done[d.What]++
		}
		if len(done) != 14 {
			t.Errorf("seed %d does %v", seed, done)
		}
	}
	for name, want := range map[string]fileKind{
		".hayrick/jobs/storm/plan.json":                          kindPlan,
		".hayrick/jobs/storm/retries/retry-1/plan.json":          kindRetryPlan,
		".hayrick/jobs/storm/tasks/agg-0-1-0000/results.done":    kindMergeDone,
		".hayrick/jobs/storm/tasks/task-0001/results.done":       kindDone,
		".hayrick/jobs/storm/tasks/task-0001/x_y_z.parquet":      kindRows,
		".hayrick/jobs/storm/aggregation/0/part-00000-x.parquet": kindPart,
		".hayrick/tmp/x":                "",
		"out/storm/part-00000.parquet":  kindPublished,
		"out/storm/lists/deleted.jsonl": kindPublishList,
		"out/storm/_SUCCESS":            kindSuccess,
	} {
		if got := kindOf(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
