package local

import (
	"os"
	"path/filepath"
	"testing"

	"hayrick/manifest"
)

// A link in the place of a job's folder, or of one in it, leads to nothing: what lies
// there is not listed, and no folder there is removed with what is empty of the job.
func TestLinksOutOfTheStore(t *testing.T) {
	ctx, dir, outside := t.Context(), filepath.Join(t.TempDir(), ".hayrick"), t.TempDir()
	s := openAt(t, dir, world(newClock()))
	empty := filepath.Join(outside, "tasks", "task-0001")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "plan.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "jobs", "whole", "tasks", "task-0002"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"linked", "whole/groups"} {
		if err := os.Symlink(outside, filepath.Join(dir, "jobs", link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"jobs/", "jobs/linked/", "jobs/whole/groups/", "jobs/whole/"} {
		// A link itself may be listed, for audit to name; who opens it is told so.
		_ = s.List(ctx, prefix, func(o manifest.Object) error {
			if o.Key != "jobs/linked" && o.Key != "jobs/whole/groups" {
				t.Errorf("under %s there is %s", prefix, o.Key)
			}
			return nil
		})
	}
	if names, err := s.Jobs(ctx); err != nil || len(names) != 1 || names[0] != "whole" {
		t.Errorf("the jobs are %q, %v", names, err)
	}
	for _, job := range []string{"linked", "whole"} {
		if err := s.Forget(ctx, job); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(empty); err != nil {
		t.Errorf("a folder outside is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "jobs", "whole", "tasks")); err == nil {
		t.Error("an empty folder of the job is still there")
	}
}
