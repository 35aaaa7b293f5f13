package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// A copy or a clone is what gets indexed: the job runs when the source is gone.
func TestSnapshots(t *testing.T) {
	for _, tc := range []struct {
		snapshot string
		clones   bool
		inStore  bool
		sha      bool
	}{
		{"auto", false, false, false}, {"auto", true, true, false}, {"copy", false, true, true}, {"copy", true, true, true},
	} {
		t.Run(fmt.Sprintf("%s %v", tc.snapshot, tc.clones), func(t *testing.T) {
			r := newRig(t)
			r.mem.CanClone = tc.clones
			s := submission()
			s.Definition.Input.Snapshot = tc.snapshot
			got := r.submit(t, s)
			in := got.Plan.Input[0]
			if inStore := strings.HasPrefix(in.Object, manifest.StoreScheme+"input/"); inStore != tc.inStore || (in.SHA256 != "") != tc.sha || in.URI != inputURI {
				t.Fatalf("input %+v", in)
			}
			if tc.inStore {
				r.mem.SetInput(inputURI, nil)
			}
			if items := r.items(t, got.Plan); !slices.Equal(items, wantItems) {
				t.Errorf("items %q", items)
			}
			if tc.inStore {
				r.mem.SetInput(inputURI, []byte("other\n"))
			}
		})
	}
}

func lister(records ...string) func(context.Context, func(json.RawMessage) error) error {
	return func(_ context.Context, emit func(json.RawMessage) error) error {
		for _, rec := range records {
			if err := emit(json.RawMessage(rec)); err != nil {
				return fmt.Errorf("listing: %w", err)
			}
		}
		return nil
	}
}

func listed(items func(context.Context, func(json.RawMessage) error) error) Submission {
	s := submission()
	s.Definition.Input.URI, s.Definition.Input.Items, s.Items = "", true, items
	return s
}

// The handler's list becomes an object of the store; listing it again is the same
// input, another list is not.
//
// 002-31 (one .jsonl with all batches, a line an item; the list of a task is a range of
// it, which r.items reads as workers do)
func TestItemsOfTheHandler(t *testing.T) {
	r := newRig(t)
	got := r.submit(t, listed(lister("{\n  \"did\": 1}", `{"did":2}`, `"x"`)))
	in := got.Plan.Input[0]
	if !strings.HasPrefix(in.Object, manifest.StoreScheme+"input/") || in.URI != "" || in.Items != 3 {
		t.Errorf("input %+v", in)
	}
	want := []string{`{"did":1}`, `{"did":2}`, `"x"`}
	if items := r.items(t, got.Plan); !slices.Equal(items, want) {
		t.Errorf("items %q", items)
	}
	if body := r.mem.Snapshot()[manifest.Job(got.JobID).Abs(strings.TrimPrefix(in.Object, manifest.StoreScheme))]; manifest.SHA256(body) != in.SHA256 || string(body) != strings.Join(want, "\n")+"\n" {
		t.Errorf("the object %s is not what the plan says: %q", in.Object, body)
	}
	if again := r.submit(t, listed(lister(`{"did":1}`, `{"did":2}`, `"x"`))); again.JobID != got.JobID {
		t.Errorf("the same list gave %s, want %s", again.JobID, got.JobID)
	}
	_, err := r.Submit(t.Context(), listed(lister(`{"did":1}`)))
	if user := (*hayrick.UserError)(nil); !errors.As(err, &user) || user.Exit != 7 {
		t.Errorf("another list beside it: %v", err)
	}
	if left, err := os.ReadDir(r.Scratch); err != nil || len(left) > 0 {
		t.Errorf("scratch holds %v: %v", left, err)
	}
}

func TestItemsOfTheHandlerLimited(t *testing.T) {
	r := newRig(t)
	s := listed(lister("1", "2", "3"))
	s.Definition.Input.Limit = 2
	if items := r.items(t, r.submit(t, s).Plan); !slices.Equal(items, []string{"1", "2"}) {
		t.Errorf("items %q", items)
	}
}

// A list that is not whole is not an input.
func TestItemsOfTheHandlerFail(t *testing.T) {
	r := newRig(t)
	broken := errors.New("directory is down")
	for name, tc := range map[string]struct {
		items func(context.Context, func(json.RawMessage) error) error
		want  string
	}{
		"error": {func(_ context.Context, emit func(json.RawMessage) error) error {
			return errors.Join(emit(json.RawMessage("1")), broken)
		}, "directory is down"},
		"not JSON": {lister("1", "{"), "item 1 is no JSON value"},
	} {
		_, err := r.Submit(t.Context(), listed(tc.items))
		if err == nil || !strings.Contains(err.Error(), tc.want) || len(r.plans()) != 0 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
