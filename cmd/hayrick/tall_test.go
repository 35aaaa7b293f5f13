package main

import (
	"context"
	"math/rand/v2"
	"strings"

	"hayrick/jobs"
)

// tall is a handler whose items have 1,024 rows of 4 KiB each.
type tall struct{ text string }

func (h tall) Handle(_ context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	for n := range int64(1024) {
		if err := emit(jobs.Row{{Name: "item", Value: it.Ordinal}, {Name: "n", Value: n}, {Name: "text", Value: h.text[n:]}}); err != nil {
			return jobs.Fail("emit", "%v", err)
		}
	}
	return jobs.OK()
}

func newTall(context.Context, jobs.Env) (jobs.Handler, error) {
	random := rand.New(rand.NewPCG(1, 1))
	var text strings.Builder
	for text.Len() < 5<<10 {
		text.WriteByte(byte('a' + random.IntN(26)))
	}
	return tall{text.String()}, nil
}
