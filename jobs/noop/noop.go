// Package noop is the handler that does nothing: it takes every item and emits no
// rows unless it is told to. What a job with it costs is what Hayrick costs.
package noop

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"hayrick"
	"hayrick/jobs"
)

// Name is what a job file writes as handler.builtin.
const Name = "noop"

// params is handler.params of the job file.
type params struct {
	// Wait is how long an item takes, as an API that answers slowly would.
	Wait hayrick.Duration
	// Items is how many items it lists, for input.items: true.
	Items int64
	// Rows is how many rows it emits for an item: {"ordinal": 7, "row": 0}.
	Rows int64
}

type handler struct {
	params
	clock hayrick.Clock
}

// Factory builds the handler. Its parameters are wait: 10ms, items: 1000 and rows: 1.
func Factory(_ context.Context, env jobs.Env) (jobs.Handler, error) {
	h := handler{clock: env.World.Clock}
	if len(env.Params) == 0 {
		return h, nil
	}
	given := map[string]json.RawMessage{}
	if err := json.Unmarshal(env.Params, &given); err != nil {
		return nil, wrong("", "is not a mapping")
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		raw := given[name]
		switch name {
		case "wait":
			var text string
			if err := json.Unmarshal(raw, &text); err != nil {
				return nil, wrong(".wait", fmt.Sprintf("%s is not a duration", raw))
			}
			if err := h.Wait.UnmarshalText([]byte(text)); err != nil {
				return nil, wrong(".wait", err.Error())
			}
		case "items":
			if err := json.Unmarshal(raw, &h.params.Items); err != nil || h.params.Items < 1 {
				return nil, wrong(".items", fmt.Sprintf("%s is not a number of items, from 1", raw))
			}
		case "rows":
			if err := json.Unmarshal(raw, &h.Rows); err != nil || h.Rows < 0 {
				return nil, wrong(".rows", fmt.Sprintf("%s is not a number of rows", raw))
			}
		default:
			return nil, wrong("."+name, "is not a parameter of noop")
		}
	}
	return h, nil
}

func wrong(param, what string) error {
	return &hayrick.UserError{What: "handler.params" + param + ": " + what, Hint: "the parameters of noop are a time to wait, a number of items to list and of rows an item, such as {wait: 10ms, items: 1000, rows: 1}"}
}

// Items lists {"n": 0}, {"n": 1} and on.
func (h handler) Items(ctx context.Context, emit func(json.RawMessage) error) error {
	if h.params.Items == 0 {
		return &hayrick.UserError{What: "noop lists no items unless it is told how many", Hint: "write handler.params: {items: 1000}, or set input.uri to a JSONL file"}
	}
	for n := range h.params.Items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := emit(json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))); err != nil {
			return err
		}
	}
	return nil
}

// Handle waits as long as it was told to, and no longer than ctx, and emits the rows
// that it was told to.
func (h handler) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	if h.Wait > 0 && h.clock.Sleep(ctx, h.Wait.D()) != nil {
		return jobs.Fail(hayrick.ClassTimeout, "stopped before %s were over", h.Wait.D())
	}
	for n := range h.Rows {
		if err := emit(jobs.Row{{Name: "ordinal", Value: it.Ordinal}, {Name: "row", Value: n}}); err != nil {
			return jobs.Fail(hayrick.ClassTimeout, "stopped after %d rows: %v", n, err)
		}
	}
	return jobs.OK()
}
