package noop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"hayrick"
	"hayrick/jobs"
)

// clock notes what it was asked to wait for.
type clock struct{ slept time.Duration }

func (c *clock) Now() time.Time { return time.Unix(0, 0) }
func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.slept += d
	return ctx.Err()
}

func TestHandle(t *testing.T) {
	for params, want := range map[string]time.Duration{"": 0, "{}": 0, `{"wait":"20ms"}`: 20 * time.Millisecond} {
		c := &clock{}
		h, err := Factory(t.Context(), jobs.Env{World: hayrick.World{Clock: c}, Params: json.RawMessage(params)})
		if err != nil {
			t.Fatal(err)
		}
		out := h.Handle(t.Context(), jobs.Item{}, func(jobs.Row) error { t.Error("a row"); return nil })
		if !out.OK() || c.slept != want {
			t.Errorf("params %s: outcome %+v after %v, want ok after %v", params, out, c.slept, want)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if out := h.Handle(ended, jobs.Item{}, nil); want > 0 && out.Class != hayrick.ClassTimeout {
			t.Errorf("params %s: outcome %+v of a stopped item", params, out)
		}
	}
}

func TestRows(t *testing.T) {
	h, err := Factory(t.Context(), jobs.Env{Params: json.RawMessage(`{"rows":2}`)})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	emit := func(r jobs.Row) error { got += fmt.Sprint(r); return nil }
	if out := h.Handle(t.Context(), jobs.Item{Ordinal: 7}, emit); !out.OK() || got != "[{ordinal 7} {row 0}][{ordinal 7} {row 1}]" {
		t.Errorf("outcome %+v with rows %s", out, got)
	}
	full := func(jobs.Row) error { return errors.New("full") }
	if out := h.Handle(t.Context(), jobs.Item{}, full); out.OK() {
		t.Error("ok without its rows")
	}
}

func TestItems(t *testing.T) {
	for params, want := range map[string]string{`{"items":3}`: `{"n":0}{"n":1}{"n":2}`, "": "noop lists no items unless it is told how many"} {
		h, err := Factory(t.Context(), jobs.Env{Params: json.RawMessage(params)})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := h.(jobs.Lister).Items(t.Context(), func(r json.RawMessage) error { got += string(r); return nil }); err != nil {
			got += err.Error()
		}
		if got != want {
			t.Errorf("params %s: %s, want %s", params, got, want)
		}
	}
}

func TestParams(t *testing.T) {
	for params, want := range map[string]string{
		`{"wiat":"1s"}`: "handler.params.wiat: is not a parameter of noop",
		`{"wait":5}`:    "handler.params.wait: 5 is not a duration",
		`{"wait":"5"}`:  `handler.params.wait: "5" is not a duration; write it with a unit, such as 90s or 5m`,
		`{"items":0}`:   "handler.params.items: 0 is not a number of items, from 1",
		`{"rows":-1}`:   "handler.params.rows: -1 is not a number of rows",
		`[]`:            "handler.params: is not a mapping",
	} {
		_, err := Factory(t.Context(), jobs.Env{Params: json.RawMessage(params)})
		var u *hayrick.UserError
		if !errors.As(err, &u) || u.Hint == "" || u.What != want {
			t.Errorf("params %s: %v, want %s, with a hint", params, err, want)
		}
	}
}
