package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hayrick"
	"hayrick/local"
)

// status counts the dead letters of its run, and says what becomes of their tasks.
func TestStatusCountsDeadLetters(t *testing.T) {
	dir := t.TempDir()
	job := "version: 1\nname: dead\nhandler: {builtin: noop}\ninput: {uri: ./items.jsonl}\n"
	for name, text := range map[string]string{"job.yaml": job, "items.jsonl": "{\"id\":1}\n{\"id\":2}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := func(args ...string) string {
		t.Helper()
		c := start(t, dir, args...)
		if err := <-c.ended; err != nil {
			t.Fatalf("%v: %v\n%s", args, err, c.errs.String())
		}
		return c.out.String()
	}
	var s struct {
		JobID       string `json:"job_id"`
		DeadLetters *int   `json:"dead_letters"`
	}
	read := func(text string) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
	}
	read(out("submit", "job.yaml", "--json"))
	jobID := s.JobID
	if text := out("status"); strings.Contains(text, "dead letter") {
		t.Errorf("no message is dead, and status says\n%s", text)
	}
	st, err := local.Open(t.Context(), filepath.Join(dir, ".hayrick"), hayrick.RealWorld("test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range hayrick.MaxReceives + 1 { // somebody receives it, and dies each time
		ds, err := st.Receive(t.Context(), hayrick.QueueTasks, 10, 0, 0)
		if err != nil || len(ds) > 0 && ds[0].JobID != jobID {
			t.Fatalf("%+v, %v", ds, err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if text := out("status"); !strings.Contains(text, "\n1 dead letter: delivered 100 times in vain; their tasks are sent again") {
		t.Errorf("status says\n%s", text)
	}
	if read(out("status", "--json")); s.DeadLetters == nil || *s.DeadLetters != 1 {
		t.Errorf("%+v", s)
	}
	if text := out("resume"); !strings.Contains(text, "2 items: 2 ok") {
		t.Errorf("resume says\n%s", text)
	}
}
