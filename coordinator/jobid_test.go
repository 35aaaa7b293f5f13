package coordinator

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hayrick"
	"hayrick/manifest"
)

func testIdentity() Identity {
	return Identity{Name: "backfill", Definition: strings.Repeat("1f", 32), Inputs: []InputIdentity{InputIdentityOf(manifest.InputID{
		URI: "./users.jsonl", Pin: manifest.Pin{Size: 412, MTime: manifest.At(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)), DevInode: "8:1/77"},
	})}}
}

// The letters are what finds a run again: they must stay what they are.
func TestLettersAreStable(t *testing.T) {
	for run, want := range []string{"obqwto", "yzwflx"} {
		if got, err := testIdentity().Letters(run); err != nil || got != want {
			t.Errorf("run %d: %q, want %q (%v)", run, got, want, err)
		}
	}
}

// 002-11: a run is its definition, its input and its number.
func TestLettersTellRunsApart(t *testing.T) {
	base, err := testIdentity().Letters(0)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Identity){
		"name":       func(id *Identity) { id.Name = "backfil" },
		"definition": func(id *Identity) { id.Definition = strings.Repeat("2f", 32) },
		"uri":        func(id *Identity) { id.Inputs[0].URI = "./other.jsonl" },
		"size":       func(id *Identity) { id.Inputs[0].Size++ },
		"mtime":      func(id *Identity) { id.Inputs[0].MTime = "" },
		"etag":       func(id *Identity) { id.Inputs[0].ETag = "x" },
		"content":    func(id *Identity) { id.Inputs[0].SHA256 = "x" },
	} {
		id := testIdentity()
		change(&id)
		if got, err := id.Letters(0); err != nil || got == base || id.Same(testIdentity()) {
			t.Errorf("%s does not count: %q (%v)", what, got, err)
		}
	}
}

func TestIdentityOfInputs(t *testing.T) {
	in := manifest.InputID{URI: "./users.jsonl", Object: "./users.jsonl", Pin: manifest.Pin{Size: 1, DevInode: "8:1/77"}, Items: 5}
	moved := in
	moved.Pin.DevInode, moved.Object, moved.SHA256, moved.Items = "9:1/3", "store:input/x", "ab", 6
	if InputIdentityOf(in) != InputIdentityOf(moved) {
		t.Error("where an input lies and what was made of it is part of its identity")
	}
	list := manifest.InputID{SHA256: "ab"}
	if InputIdentityOf(list) == InputIdentityOf(manifest.InputID{SHA256: "cd"}) {
		t.Error("two lists are one input")
	}
}

func TestJobIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,40}`).Draw(t, "name")
		letters := rapid.StringMatching(`[a-z]{6}`).Draw(t, "letters")
		id, err := JobID(name, time.Date(2026, 11, 20, 23, 30, 0, 0, time.FixedZone("", -3600)), letters)
		if err != nil {
			t.Fatal(err)
		}
		gotName, day, gotLetters, ok := SplitJobID(id)
		if !ok || gotName != name || day != "20261121" || gotLetters != letters {
			t.Fatalf("%s is %q %q %q %v", id, gotName, day, gotLetters, ok)
		}
	})
	for _, id := range []string{"", "my-run", "x-2026112-abcdef", "x-20261120-abcdeF", "x-20261120-abcde", "-20261120-abcdef", "20261120-abcdef", "x-2026112a-abcdef"} {
		if _, _, _, ok := SplitJobID(id); ok {
			t.Errorf("%q passes for a derived id", id)
		}
	}
	var user *hayrick.UserError
	if _, err := JobID(strings.Repeat("x", 120), time.Now(), "abcdef"); !errors.As(err, &user) {
		t.Errorf("an id of 136 letters: %v", err)
	}
}
