package coordinator

import (
	"bytes"
	"context"
	"io"
	"testing"

	"hayrick/manifest"
)

// looking is a store that is only looked at.
type looking struct {
	manifest.Objects
	t *testing.T
}

func (l looking) Put(_ context.Context, key string, _ io.Reader) error {
	l.t.Errorf("put %s", key)
	return nil
}

func (l looking) Commit(_ context.Context, key string, _ []byte) (bool, error) {
	l.t.Errorf("commit %s", key)
	return true, nil
}

func (l looking) Replace(_ context.Context, key string, _ []byte) error {
	l.t.Errorf("replace %s", key)
	return nil
}

// Preview says what Submit then does, and writes nothing: state and queue are not even
// there.
func TestPreviewIsWhatSubmitDoes(t *testing.T) {
	r := newRig(t)
	preview := func(s Submission) Preview {
		t.Helper()
		c := &Coordinator{
			Store: &manifest.Store{Objects: looking{r.mem, t}, Clock: r.clock}, Sources: r.Sources, Lister: r.Lister,
			World: r.World, Log: r.Log, Scratch: t.TempDir(),
		}
		var seen bytes.Buffer
		p, err := c.Preview(t.Context(), s, &seen)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Resumed && int64(len(bytes.TrimSuffix(seen.Bytes(), []byte("\n")))) != p.Bytes {
			t.Errorf("%d bytes were shown of %d", seen.Len(), p.Bytes)
		}
		return p
	}
	fresh := submission()
	fresh.New = true
	for i, s := range []Submission{submission(), submission(), fresh} {
		p := preview(s)
		got := r.submit(t, s)
		if p.JobID != got.JobID || p.Resumed != got.Resumed || p.Items != got.Plan.Items || p.Tasks != got.Plan.Group.Tasks {
			t.Errorf("%d: previewed %+v, submitted %+v", i, p, got)
		}
	}
	if p := preview(fresh); p.Listed != 2 || p.Named != 2 {
		t.Errorf("of two runs it found %d, %d of the name", p.Listed, p.Named)
	}
	changed := submission()
	changed.Definition.Batch.Items = 1
	c := *r.Coordinator
	if _, err := c.Preview(t.Context(), changed, nil); err == nil {
		t.Error("a changed job file beside an unfinished run is not refused")
	}
}
