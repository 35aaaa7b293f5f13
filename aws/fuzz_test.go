package aws_test

import (
	"encoding/json"
	"strconv"
	"testing"

	"hayrick"
	"hayrick/aws"
)

// FuzzDelivered: the text of a message is one of ours, for a job that can be, or it is
// told so in a line that does not repeat it; and what is read is what was sent.
func FuzzDelivered(f *testing.F) {
	for _, s := range []string{
		`{"job_id":"count-20261120-abcdef","generation":0,"role":"worker","group":"initial_batch","block":1,"position":2,"task_id":"task-0258"}`,
		`{"job_id":"../../etc","role":"worker"}`, `{"job_id":"a","due":9223372036854775807}`, `{"job_id":"a","due":-9223372036854775808}`, `{"job_id":"a","due":"x"}`,
		`{"job_id":"a","JOB_ID":"b","task_id":"../../x","block":-1}`, `{}`, `[]`, `null`, `{"Records":[]}`, `{"job_id":"` + string(make([]byte, 300)) + `"}`,
	} {
		f.Add(s, "1")
		f.Add(s, "-1")
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, text, count string) {
		d, due, err := aws.Delivered(text, "receipt", count)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		n, _ := strconv.Atoi(count)
		if !hayrick.ValidID(d.JobID) || d.Receipt != "receipt" || d.Count != n {
			t.Fatalf("%q is read as %+v", text, d)
		}
		if w := d.AfterFault(); w <= 0 {
			t.Fatalf("it waits %v", w)
		}
		again, err := json.Marshal(struct {
			hayrick.Message
			Due int64 `json:"due,omitempty"`
		}{d.Message, due.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		d2, due2, err := aws.Delivered(string(again), "receipt", count)
		if err != nil || d2 != d || !due2.Equal(due) {
			t.Fatalf("%q is sent as %q, and read as %+v, due %v: %v", text, again, d2, due2, err)
		}
	})
}
