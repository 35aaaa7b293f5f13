package sim

import (
	"fmt"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// inFolder is the three-batch job with its items in several objects.
func inFolder(t *testing.T, objects int) (*job, func() *job) {
	t.Helper()
	j := &job{t: t, world: New(1, registry(), t.TempDir())}
	lines := strings.SplitAfter(strings.TrimSuffix(items, "\n"), "\n")
	for i := range objects {
		part := strings.Join(lines[len(lines)*i/objects:len(lines)*(i+1)/objects], "")
		j.world.Store.SetInput(fmt.Sprintf("in/part-%02d.jsonl", i), []byte(part))
	}
	return j, func() *job {
		def := definition()
		def.Input.URI = "in/"
		j.submitAs(def)
		return j
	}
}

// One file or several objects below a prefix: the same items have the same ordinals,
// and end in the same rows.
func TestItemsInSeveralObjectsEndInTheSameRows(t *testing.T) {
	calm := newJob(t)
	calm.finish(calm.submit(calm.world.Start()))
	for _, objects := range []int{1, 2, 3, 6, 10} { // of ten, some are empty
		_, run := inFolder(t, objects)
		j := run()
		j.check()
		if got, want := Gist(j.outcome()), Gist(calm.outcome()); got != want {
			t.Errorf("%d objects: got %s, want %s", objects, got, want)
		}
		if got, want := j.lists(), calm.lists(); got != want {
			t.Errorf("%d objects: lists %q, want %q", objects, got, want)
		}
	}
}

// An object of a prefix that changes or goes under a running job pauses it, by name.
func TestAChangedObjectOfAPrefixPauses(t *testing.T) {
	for name, data := range map[string][]byte{"changed": []byte(`{"id":"c","rows":9}` + "\n" + `{"id":"d"}` + "\n"), "gone": nil} {
		j, _ := inFolder(t, 3)
		def := definition()
		def.Input.URI = "in/"
		p := j.submitOnly(def)
		j.world.Store.SetInput("in/part-01.jsonl", data)
		d := j.drive(p, hayrick.StatusPaused)
		if why := strings.Join(d.Because, " "); !strings.Contains(why, "in/part-01.jsonl") || strings.Contains(why, "part-00") || !strings.Contains(why, "resume") {
			t.Errorf("%s: the pause does not name the object and the remedy: %s", name, why)
		}
		j.world.Store.SetInput("in/part-01.jsonl", []byte(strings.Join(strings.SplitAfter(items, "\n")[2:4], "")))
		j.order(p, manifest.OrderResume)
		j.finish(p)
		j.check()
	}
}
