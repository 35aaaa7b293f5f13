package local_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"hayrick"
	"hayrick/local"
	"hayrick/manifest"
)

// A pipe in place of an input must not be waited for, and is not the file that was
// planned.
func TestInputThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	s, err := local.Open(t.Context(), filepath.Join(dir, "store"), hayrick.RealWorld("w"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fifo := filepath.Join(dir, "in.jsonl")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fifo, dir} {
		_, err := s.OpenInput(t.Context(), "job", manifest.Batch{Object: name, Length: 1})
		if user := (*hayrick.UserError)(nil); !errors.Is(err, hayrick.ErrNotFound) || !errors.As(err, &user) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
