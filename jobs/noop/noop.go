// Package noop is the handler that does nothing: it takes every item and emits no
// rows. What a job with it costs is what Hayrick costs.
package noop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"hayrick"
	"hayrick/jobs"
)

// Name is what a job file writes as handler.builtin.
const Name = "noop"

// params is handler.params of the job file.
type params struct {
	// Wait is how long an item takes, as an API that answers slowly would.
	Wait hayrick.Duration `json:"wait"`
}

type handler struct {
	params
	clock hayrick.Clock
}

// Factory builds the handler. Its one parameter is wait: 10ms.
func Factory(_ context.Context, env jobs.Env) (jobs.Handler, error) {
	h := handler{clock: env.World.Clock}
	if len(env.Params) == 0 {
		return h, nil
	}
	dec := json.NewDecoder(bytes.NewReader(env.Params))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h.params); err != nil && err != io.EOF {
		return nil, &hayrick.UserError{What: fmt.Sprintf("handler.params: %v", err), Hint: "the one parameter of noop is a time to wait, such as {wait: 10ms}"}
	}
	return h, nil
}

// Handle waits as long as it was told to, and no longer than ctx.
func (h handler) Handle(ctx context.Context, _ jobs.Item, _ jobs.Emit) jobs.Outcome {
	if h.Wait > 0 && h.clock.Sleep(ctx, h.Wait.D()) != nil {
		return jobs.Fail(hayrick.ClassTimeout, "stopped before %s were over", h.Wait.D())
	}
	return jobs.OK()
}
