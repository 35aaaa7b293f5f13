package local

import (
	"testing"

	"hayrick"
)

// Who only watches is not taken for somebody at work.
func TestOthers(t *testing.T) {
	dir := t.TempDir()
	a, b, c := openAt(t, dir, hayrick.RealWorld("a")), openAt(t, dir, hayrick.RealWorld("b")), openAt(t, dir, hayrick.RealWorld("c"))
	others := func(want int) {
		t.Helper()
		if n, certain, err := a.Others(); err != nil || !certain || n != want {
			t.Errorf("%d others, %v; want %d", n, err, want)
		}
	}
	others(2)
	if err := b.Watching(); err != nil {
		t.Fatal(err)
	}
	others(1)
	if err := c.Watching(); err != nil {
		t.Fatal(err)
	}
	others(0)
	if n, _, err := b.Others(); err != nil || n != 1 {
		t.Errorf("who watches sees %d others, %v; want 1", n, err)
	}
}
