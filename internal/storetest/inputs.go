package storetest

import (
	"hayrick"
	"hayrick/manifest"
)

var inputTests = map[string]func(*harness){
	"Stat":  testStat,
	"Open":  testOpenInput,
	"Store": testOpenStored,
	"Clone": testClone,
}

func testStat(h *harness) {
	uri := h.SetInput("users.jsonl", []byte("0123456789"))
	pin, err := h.Inputs.Stat(h.Ctx, uri)
	h.must(err)
	if pin.Size != 10 || pin.MTime.IsZero() || pin.DevInode+pin.ETag == "" {
		h.Errorf("pin is %+v", pin)
	}
	again, err := h.Inputs.Stat(h.Ctx, uri)
	h.must(err)
	if again != pin {
		h.Errorf("an unchanged input has pins %+v and %+v", pin, again)
	}
	h.pass(2_000_000) // 2 ms: what a pin can tell apart
	h.SetInput("users.jsonl", []byte("9876543210, longer"))
	if changed, err := h.Inputs.Stat(h.Ctx, uri); err != nil || changed == pin {
		h.Errorf("a changed input has pin %+v, %v", changed, err)
	}
	_, err = h.Inputs.Stat(h.Ctx, uri+".no")
	h.is(err, hayrick.ErrNotFound)
}

func testOpenInput(h *harness) {
	uri := h.SetInput("users.jsonl", []byte("0123456789"))
	for offset, want := range map[int64]string{0: "0123456789", 4: "456789", 10: "", 50: ""} {
		r, err := h.Inputs.OpenSource(h.Ctx, uri, offset)
		h.must(err)
		if got := h.drain(r); got != want {
			h.Errorf("from %d: %q, want %q", offset, got, want)
		}
	}
	r, err := h.Inputs.OpenInput(h.Ctx, string(job), uri, 2, 3)
	h.must(err)
	if got := h.drain(r); got != "234" {
		h.Errorf("[2, +3) is %q", got)
	}
	_, err = h.Inputs.OpenSource(h.Ctx, uri+".no", 0)
	h.is(err, hayrick.ErrNotFound)
	_, err = h.Inputs.OpenInput(h.Ctx, string(job), uri+".no", 0, -1)
	h.is(err, hayrick.ErrNotFound)
}

func testOpenStored(h *harness) {
	key := job.Segment("retry_batch_1", 0, "abc")
	h.put(key, "0123456789")
	r, err := h.Inputs.OpenInput(h.Ctx, string(job), manifest.StoreScheme+job.Rel(key), 5, 2)
	h.must(err)
	if got := h.drain(r); got != "56" {
		h.Errorf("[5, +2) is %q", got)
	}
	_, err = h.Inputs.OpenInput(h.Ctx, string(job), manifest.StoreScheme+"batches/no", 0, -1)
	h.is(err, hayrick.ErrNotFound)
	if r, err := h.Inputs.OpenInput(h.Ctx, string(job), manifest.StoreScheme+"../../../etc/passwd", 0, -1); err == nil {
		r.Close()
		h.Error("a stored object may lie outside the store")
	}
}

// A clone either is the input's bytes under the key, or leaves no trace.
func testClone(h *harness) {
	uri := h.SetInput("users.jsonl", []byte("0123456789"))
	did, err := h.Inputs.Clone(h.Ctx, uri, job.Input("users.jsonl", "abc"))
	h.must(err)
	if did {
		if got := h.read(job.Input("users.jsonl", "abc"), 0, -1); got != "0123456789" {
			h.Errorf("the clone is %q", got)
		}
	} else {
		_, err := h.Objects.Open(h.Ctx, job.Input("users.jsonl", "abc"), 0, -1)
		h.is(err, hayrick.ErrNotFound)
	}
	_, err = h.Inputs.Clone(h.Ctx, uri+".no", job.Input("no", "abc"))
	h.is(err, hayrick.ErrNotFound)
}
