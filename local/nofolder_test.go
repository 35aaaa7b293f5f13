package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hayrick"
)

// An output folder that cannot be made ends the try with what to do, and is the trouble
// of its run alone.
func TestAnOutputFolderThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Store{}
	for _, folder := range []string{filepath.Join(file, "out"), "/proc/none/out"} {
		err := s.PublishBytes(context.Background(), folder, "part-0.parquet", []byte("x"))
		var user *hayrick.UserError
		if !errors.Is(err, hayrick.ErrDenied) || !errors.As(err, &user) || user.Exit != exitPermission || user.Hint == "" {
			t.Errorf("%s: %v", folder, err)
		}
	}
}
