package storetest

import (
	"io"
	"slices"
	"strings"

	"hayrick"
)

var outputTests = map[string]func(*harness){
	"Publish":       testPublish,
	"Names":         testOutputNames,
	"ManyAtOnce":    testPublishRace,
	"SourceMissing": testPublishMissing,
}

func (h *harness) published() (names []string) {
	h.Helper()
	found, err := h.Outputs.ListOutput(h.Ctx, h.OutputURI)
	h.must(err)
	for _, o := range found {
		names = append(names, o.Key)
	}
	slices.Sort(names)
	return names
}

func (h *harness) output(name string) string {
	h.Helper()
	r, err := h.Outputs.OpenOutput(h.Ctx, h.OutputURI, name)
	h.must(err)
	return h.drain(r)
}

func testPublish(h *harness) {
	_, err := h.Outputs.OpenOutput(h.Ctx, h.OutputURI, "_SUCCESS")
	h.is(err, hayrick.ErrNotFound)
	if got := h.published(); len(got) != 0 {
		h.Fatalf("a folder that does not exist lists %q", got)
	}
	h.must(h.Outputs.RemoveOutput(h.Ctx, h.OutputURI, "_SUCCESS"))
	h.put(job.Part(0, 0, "x"), "rows")
	for range 2 { // any number of publishers write the same
		h.must(h.Outputs.PublishFile(h.Ctx, h.OutputURI, "part-00000.parquet", job.Part(0, 0, "x")))
		h.must(h.Outputs.PublishBytes(h.Ctx, h.OutputURI, "lists/gone.jsonl", []byte("{}\n")))
		h.must(h.Outputs.PublishBytes(h.Ctx, h.OutputURI, "_SUCCESS", []byte("ok")))
	}
	if got, want := h.published(), []string{"_SUCCESS", "lists/gone.jsonl", "part-00000.parquet"}; !slices.Equal(got, want) {
		h.Fatalf("published %q, want %q", got, want)
	}
	for name, want := range map[string]string{"part-00000.parquet": "rows", "lists/gone.jsonl": "{}\n", "_SUCCESS": "ok"} {
		if got := h.output(name); got != want {
			h.Errorf("%s reads %q; want %q", name, got, want)
		}
	}
	_, err = h.Outputs.OpenOutput(h.Ctx, h.OutputURI, "part-00001.parquet")
	h.is(err, hayrick.ErrNotFound)
	h.must(h.Outputs.PublishBytes(h.Ctx, h.OutputURI, "_SUCCESS", []byte("again")))
	if got := h.output("_SUCCESS"); got != "again" {
		h.Errorf("published over: %q", got)
	}
	h.must(h.Outputs.RemoveOutput(h.Ctx, h.OutputURI, "_SUCCESS"))
	h.must(h.Outputs.RemoveOutput(h.Ctx, h.OutputURI, "_SUCCESS"))
	if got := h.published(); slices.Contains(got, "_SUCCESS") {
		h.Errorf("_SUCCESS is still there: %q", got)
	}
}

func testOutputNames(h *harness) {
	for _, name := range []string{"", "/x", "../x", "lists/../../x", "lists//x", "a b", ".hidden", "lists/.hidden", "x/", `a\b`, "a\x00"} {
		if err := h.Outputs.PublishBytes(h.Ctx, h.OutputURI, name, []byte("x")); err == nil {
			h.Errorf("name %q is accepted", name)
		}
	}
	if got := h.published(); len(got) != 0 {
		h.Errorf("bad names left %q", got)
	}
}

func testPublishRace(h *harness) {
	body := strings.Repeat("row\n", 50_000)
	h.put(job.Part(0, 0, "x"), body)
	views := []*harness{h, h.another()}
	together(8, func(i int) {
		v := views[i%2]
		if err := v.Outputs.PublishFile(v.Ctx, h.OutputURI, "part-00000.parquet", job.Part(0, 0, "x")); err != nil {
			h.Error(err)
		}
		r, err := v.Outputs.OpenOutput(v.Ctx, h.OutputURI, "part-00000.parquet")
		if err != nil {
			h.Error(err)
			return
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || string(got) != body {
			h.Errorf("a published file reads torn: %d bytes, %v", len(got), err)
		}
	})
	if got := h.published(); !slices.Equal(got, []string{"part-00000.parquet"}) {
		h.Errorf("published %q", got)
	}
}

func testPublishMissing(h *harness) {
	if err := h.Outputs.PublishFile(h.Ctx, h.OutputURI, "part-00000.parquet", job.Part(0, 0, "no")); err == nil {
		h.Error("an object that is not there was published")
	}
	if got := h.published(); len(got) != 0 {
		h.Errorf("published %q", got)
	}
}
