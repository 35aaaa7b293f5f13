package audit_test

import (
	"encoding/json"
	"strings"
	"testing"

	"hayrick"
	"hayrick/audit"
)

func (w *world) options() audit.Options {
	return audit.Options{Store: w.store, JobID: jobID, World: hayrick.RealWorld("test"), Blobs: w.mem, Output: outputs{w.mem}, Inputs: w.mem}
}

func (w *world) audit(deep bool) audit.Report {
	w.t.Helper()
	o := w.options()
	o.Deep = deep
	r, err := audit.Run(w.t.Context(), o)
	w.must(err)
	return r
}

// checker is what *testing.T and *rapid.T share.
type checker interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func clean(t checker, r audit.Report) {
	t.Helper()
	if len(r.Findings) > 0 || !r.Proven {
		t.Fatalf("proven %v: %s\nfindings: %v", r.Proven, r.Line, r.Findings)
	}
}

// The job of five accounts.
func TestTiny(t *testing.T) {
	for _, deep := range []bool{false, true} {
		r := build(t, tiny()).audit(deep)
		clean(t, r)
		want := "5 items = 4 ok + 1 permanent + 0 exhausted; 11 rows in 3 results = 11 rows in 1 part; hashes equal; 29 commits and data objects checked, 9 views re-derived, 0 strangers"
		if deep {
			want = strings.Replace(want, "equal", "equal, 5 files decoded", 1)
		}
		if r.Line != want {
			t.Errorf("%s\nwant %s", r.Line, want)
		}
		b, err := json.Marshal(r)
		if err != nil || !strings.Contains(string(b), `"schema":"hayrick.audit/v1"`) {
			t.Errorf("%s, %v", b, err)
		}
	}
}

func TestProgress(t *testing.T) {
	o := build(t, rich()).options()
	var stages []string
	var last audit.Progress
	o.Progress = func(p audit.Progress) {
		if p.Stage != last.Stage {
			stages = append(stages, p.Stage)
		} else if p.Done <= last.Done {
			t.Errorf("%+v after %+v", p, last)
		}
		if p.Bytes < last.Bytes || p.Done > p.Total {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
	}
	if _, err := audit.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(stages, " "); got != "initial_batch retry_batch_1 retry_batch_2 merge parts published" {
		t.Error(got)
	}
}
