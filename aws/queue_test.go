//go:build standins

package aws_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/standins"
)

// halfway is an HTTP client that claims of some entries of SQS's batches that they
// failed. They were carried out: whoever repeats them does twice what may be done twice.
type halfway struct {
	http.RoundTripper
	op    string                    // such as SendMessageBatch
	fails func(call, id int) string // code of the failure of an entry, "" for none; "!" before it: the sender's fault

	mu      sync.Mutex
	batches []int // entries of each request
	sent    []sentMessage
}

type sentMessage struct {
	ID                string `json:"Id"`
	MessageBody       string
	DelaySeconds      int
	VisibilityTimeout int
}

func (h *halfway) Do(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+h.op) {
		return h.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var in struct{ Entries []sentMessage }
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	call := len(h.batches)
	h.batches = append(h.batches, len(in.Entries))
	h.sent = append(h.sent, in.Entries...)
	resp, err := h.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	var out struct{ Successful, Failed []map[string]any }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return nil, err
	}
	resp.Body.Close()
	out.Successful = slices.DeleteFunc(out.Successful, func(e map[string]any) bool {
		var id int
		fmt.Sscan(e["Id"].(string), &id)
		code := h.fails(call, id)
		if code != "" {
			out.Failed = append(out.Failed, map[string]any{"Id": e["Id"], "Code": strings.TrimPrefix(code, "!"), "SenderFault": code[0] == '!', "Message": "injected"})
		}
		return code != ""
	})
	if body, err = json.Marshal(out); err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
	return resp, nil
}

// halfOn is a fresh store behind a client that fails entries of op, and the same store
// without it.
func halfOn(t *testing.T, op string, fails func(call, id int) string) (*aws.Store, *aws.Store, *halfway) {
	t.Helper()
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	calm := aws.New(cfg, name, hayrick.RealWorld("host/1"), nil)
	h := &halfway{RoundTripper: http.DefaultTransport.(*http.Transport).Clone(), op: op, fails: fails}
	cfg.HTTPClient = h
	return aws.New(cfg, name, hayrick.RealWorld("host/2"), nil), calm, h
}

func some(n int) (out []hayrick.Outgoing) {
	for i := range n {
		out = append(out, hayrick.Outgoing{Message: hayrick.Message{JobID: "count-20261120-abcdef", Role: hayrick.RoleWorker, Position: i}})
	}
	return out
}

// all receives what there is to be received.
func all(t *testing.T, s *aws.Store) (out []hayrick.Delivery) {
	t.Helper()
	for {
		ds, err := s.Receive(t.Context(), hayrick.QueueTasks, 10, time.Minute, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) == 0 {
			return out
		}
		out = append(out, ds...)
	}
}

// Of a batch only what failed is sent again; the rest is not doubled.
func TestSendRepeatsWhatFailed(t *testing.T) {
	s, calm, h := halfOn(t, "SendMessageBatch", func(call, id int) string {
		if call < 2 && (id == 3 || id == 7) { // the retry has two entries under their old ids
			return "InternalError"
		}
		return ""
	})
	if err := s.Send(t.Context(), hayrick.QueueTasks, some(10)...); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.batches, []int{10, 2, 2}) {
		t.Errorf("requests of %v entries", h.batches)
	}
	got := map[int]int{}
	for _, d := range all(t, calm) {
		got[d.Position]++
	}
	for i := range 10 {
		want := 1
		if i == 3 || i == 7 {
			want = 3 // they had been stored each time, which nobody could know
		}
		if got[i] != want {
			t.Errorf("message %d is there %d times, want %d", i, got[i], want)
		}
	}
}

// What fails again and again is an error, and so is what SQS blames the sender for, at
// once.
func TestSendFails(t *testing.T) {
	for code, most := range map[string]int{"InternalError": 6, "!InvalidMessageContents": 1} {
		s, _, h := halfOn(t, "SendMessageBatch", func(_, id int) string { return map[int]string{5: code}[id] })
		if err := s.Send(t.Context(), hayrick.QueueTasks, some(7)...); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(code, "!")) {
			t.Errorf("%s: %v", code, err)
		}
		if len(h.batches) != most {
			t.Errorf("%s: requests of %v entries", code, h.batches)
		}
	}
}

// What is not acknowledged at first is in the end, also where another batch fails for
// good. What is gone already is nobody's fault.
func TestAckRepeatsWhatFailed(t *testing.T) {
	for name, c := range map[string]struct {
		fails   func(call, id int) string
		batches []int
		err     bool
	}{
		"once":         {func(call, id int) string { return map[int]string{4: "InternalError"}[call*100+id] }, []int{10, 1, 10, 3}, false},
		"for good":     {func(call, id int) string { return map[bool]string{true: "ServiceUnavailable"}[call <= 5 && id == 0] }, []int{10, 1, 1, 1, 1, 1, 10, 3}, true},
		"gone already": {func(_, id int) string { return map[int]string{2: "!ReceiptHandleIsInvalid"}[id] }, []int{10, 10, 3}, false},
	} {
		s, calm, h := halfOn(t, "DeleteMessageBatch", c.fails)
		if err := calm.Send(t.Context(), hayrick.QueueTasks, some(23)...); err != nil {
			t.Fatal(err)
		}
		ds := all(t, calm)
		if len(ds) != 23 {
			t.Fatalf("%s: received %d", name, len(ds))
		}
		if err := s.Ack(t.Context(), hayrick.QueueTasks, ds...); (err != nil) != c.err {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(h.batches, c.batches) {
			t.Errorf("%s: requests of %v entries, want %v", name, h.batches, c.batches)
		}
		if d, err := calm.Depth(t.Context(), hayrick.QueueTasks, ""); err != nil || d.Messages != 0 || d.Exact {
			t.Errorf("%s: %+v messages are left, %v", name, d, err)
		}
	}
}

// The limits of SQS: no visibility beyond what it takes, no delay beyond a quarter of an
// hour, and a message whose delay is longer is hidden again by who receives it.
func TestLimitsOfTheQueue(t *testing.T) {
	s, calm, h := halfOn(t, "ChangeMessageVisibilityBatch", func(int, int) string { return "" })
	out := some(2)
	out[1].Delay = 90 * time.Minute
	if err := s.Send(t.Context(), hayrick.QueueTasks, out...); err != nil {
		t.Fatal(err)
	}
	ds := all(t, calm)
	if len(ds) != 1 || ds[0].Position != 0 {
		t.Fatalf("received %+v", ds)
	}
	if err := s.Extend(t.Context(), hayrick.QueueTasks, 100*time.Hour, ds...); err != nil {
		t.Fatal(err)
	}
	if len(h.sent) != 1 || h.sent[0].VisibilityTimeout >= 12*3600 || h.sent[0].VisibilityTimeout < 10*3600 {
		t.Errorf("hidden for %+v", h.sent)
	}
	// SQS holds a message back for 15 minutes: the body says when it is due.
	late, _, lh := halfOn(t, "SendMessageBatch", func(int, int) string { return "" })
	if err := late.Send(t.Context(), hayrick.QueueTasks, out...); err != nil {
		t.Fatal(err)
	}
	if len(lh.sent) != 2 || lh.sent[0].DelaySeconds != 0 || lh.sent[1].DelaySeconds != 900 {
		t.Fatalf("sent %+v", lh.sent)
	}
	d, due, err := aws.Delivered(lh.sent[1].MessageBody, "receipt", "1")
	if err != nil || d.Position != 1 || time.Until(due) < 89*time.Minute || time.Until(due) > 91*time.Minute {
		t.Errorf("%+v is due in %v, %v", d, time.Until(due), err)
	}
	if len(lh.sent[1].MessageBody) >= 2048 {
		t.Errorf("a message of %d bytes", len(lh.sent[1].MessageBody))
	}
}

// polling is an HTTP client that tells when a poll is under way.
type polling struct {
	http.RoundTripper
	begun chan struct{}
}

func (p *polling) Do(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".ReceiveMessage") {
		p.begun <- struct{}{}
	}
	return p.RoundTrip(r)
}

// A poll that is under way when its caller has to stop ends by itself: what it brings
// would otherwise be hidden, in nobody's hands.
func TestPollIsNotGivenUp(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	calm := aws.New(cfg, name, hayrick.RealWorld("host/1"), nil)
	client := &polling{http.DefaultTransport.(*http.Transport).Clone(), make(chan struct{})}
	cfg.HTTPClient = client
	s := aws.New(cfg, name, hayrick.RealWorld("host/2"), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var got []hayrick.Delivery
	ended := make(chan error)
	go func() {
		var err error
		got, err = s.Receive(ctx, hayrick.QueueTasks, 10, time.Minute, 5*time.Second)
		ended <- err
	}()
	<-client.begun
	cancel()
	if err := calm.Send(t.Context(), hayrick.QueueTasks, some(1)...); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || len(got) != 1 {
		t.Fatalf("the poll brought %+v, %v", got, err)
	}
	if ds, err := s.Receive(ctx, hayrick.QueueTasks, 10, time.Minute, time.Second); err == nil || len(ds) > 0 {
		t.Errorf("a poll begins when its caller has to stop: %+v, %v", ds, err)
	}
}
