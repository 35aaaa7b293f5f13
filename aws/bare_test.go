//go:build standins

package aws_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"hayrick"
	"hayrick/aws"
	"hayrick/internal/standins"
)

// bare takes out of replies what stood in the way of a write, as emulators answer that
// are older than DynamoDB's bringing it along, and lets no test ask for ever.
type bare struct {
	*wire
	left int
}

func (b *bare) Do(r *http.Request) (*http.Response, error) {
	if b.left--; b.left < 0 {
		return nil, errors.New("one request too many")
	}
	resp, err := b.wire.Do(r)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		return resp, err
	}
	var body map[string]json.RawMessage
	text, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil {
		return nil, err
	}
	delete(body, "Item")
	if text, err = json.Marshal(body); err != nil {
		return nil, err
	}
	resp.Header.Del("X-Amz-Crc32")
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, nil
}

// Claims are what they are also where a refused write does not say what stands there:
// held, free, one's own, and given back with the reply lost.
func TestClaimsWhereRefusalsSayNothing(t *testing.T) {
	cfg := standins.Config(t)
	name := standins.Store(t, cfg)
	w := &bare{newWire(), 40}
	cfg.HTTPClient = w
	s := aws.New(cfg, name, hayrick.RealWorld("host/1"), nil)
	ref := hayrick.TaskRef{JobID: "count-20261120-abcdef", TaskID: "task-0001"}
	claim := func(attempt string) (hayrick.Claim, error) {
		return s.Claim(t.Context(), hayrick.ClaimAsk{TaskRef: ref, Attempt: attempt, Worker: "host/1", Lease: time.Hour})
	}
	first, err := claim("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim("b"); !errors.Is(err, hayrick.ErrConflict) {
		t.Fatalf("held by another: %v", err)
	}
	if own, err := claim("a"); err != nil || own.Fence != first.Fence {
		t.Errorf("its own: %+v %v", own, err)
	}
	release := hayrick.ClaimPatch{Until: &time.Time{}}
	w.broken = func(r *http.Request) string { // the first reply is lost: the SDK asks again, and is refused
		if w.calls[r.Method+"lost"] == 0 {
			return "lost"
		}
		return ""
	}
	if c, err := s.UpdateClaim(t.Context(), ref, "a", release); err != nil || !c.Until.IsZero() {
		t.Errorf("given back: %+v %v", c, err)
	}
	if next, err := claim("b"); err != nil || next.Fence <= first.Fence {
		t.Errorf("free again: %+v %v", next, err)
	}
	if _, err := s.UpdateClaim(t.Context(), ref, "a", release); !errors.Is(err, hayrick.ErrLeaseLost) {
		t.Errorf("another's: %v", err)
	}
}
