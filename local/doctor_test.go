package local

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"hayrick"
	"hayrick/doctor"
)

// A folder on the disk of this machine is well, and nothing is left in it.
func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	for _, at := range []string{dir, filepath.Join(dir, "not", "yet", "there")} {
		facts := Examine(at, hayrick.RealWorld("test"), 64, 5)
		if facts.Folder != dir || facts.Made != (at == dir) {
			t.Errorf("%s: looked at %s, made %v", at, facts.Folder, facts.Made)
		}
		if r := facts.Race; r.Why != "" || !slices.Equal(r.Value.Winners, []int{1, 1, 1, 1, 1}) || r.Value.Lost != 0 {
			t.Errorf("race: %+v", r)
		}
		if !facts.Lock.Value || facts.Free.Value <= 0 || facts.OpenFiles.Value <= 0 || facts.Sync.Why != "" || facts.Skew.Why != "" {
			t.Errorf("%+v", facts)
		}
		for _, l := range doctor.JudgeLocal(facts) {
			if l.Status == doctor.Fail {
				t.Errorf("%+v", l)
			}
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// A file is no place for a store.
func TestDoctorOfAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if lines := doctor.JudgeLocal(Examine(file, hayrick.RealWorld("test"), 2, 1)); doctor.Worst(lines) != 5 {
		t.Errorf("%+v", lines)
	}
}
