package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hayrick"
	. "hayrick/manifest"
)

// Text as handlers and upstreams write it: markup, controls, broken UTF-8.
var text = rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
	"<a href=\"x\">&amp;</a>", "\u2028\u2029", "\xff\xfe", "é", "\x00\x1f\"\\", "", "429 <Retry-After: 1>",
}))

var anyTime = rapid.Custom(func(t *rapid.T) Time {
	if rapid.Bool().Draw(t, "zero") {
		return Time{}
	}
	ns := rapid.Int64Range(0, 4e18).Draw(t, "ns")
	return At(time.Unix(0, ns).In(time.FixedZone("", 3600)))
})

var counts = rapid.MapOf(text, rapid.Int64())

var anyResult = rapid.Custom(func(t *rapid.T) Result {
	r := Result{
		Schema: SchemaResult, JobID: text.Draw(t, "job"), TaskID: text.Draw(t, "task"), Status: text.Draw(t, "status"),
		Fence: rapid.Int64().Draw(t, "fence"), Bytes: rapid.Int64().Draw(t, "bytes"), WrittenAt: anyTime.Draw(t, "written"),
		Inputs: rapid.SliceOf(rapid.Custom(func(t *rapid.T) InputFile {
			return InputFile{Key: text.Draw(t, "key"), Rows: rapid.Int64().Draw(t, "rows")}
		})).Draw(t, "inputs"),
		Task: TaskFields{Metrics: counts.Draw(t, "metrics"), StartTime: anyTime.Draw(t, "start")},
	}
	if rapid.Bool().Draw(t, "has file") {
		r.File = ptr(text.Draw(t, "file"))
		r.Task.Error = &TaskError{Class: text.Draw(t, "class"), Message: text.Draw(t, "message")}
		r.Failures = &Failures{File: text.Draw(t, "failures"), ByClass: counts.Draw(t, "by class")}
	}
	return r
})

// canonical checks a JSON value against the words of the package comment, with a
// reader of its own: keys sorted at every level, no spaces, nothing escaped that need
// not be.
func canonical(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		object bool
		keys   []string
		value  bool // the next token of the object is a value
	}
	var stack []*level
	for {
		tok, err := dec.Token()
		if err != nil {
			break
		}
		if n := len(stack); n > 0 && stack[n-1].object && !stack[n-1].value {
			if key, ok := tok.(string); ok {
				stack[n-1].keys = append(stack[n-1].keys, key)
				stack[n-1].value = true
				continue
			}
		} else if n > 0 {
			stack[n-1].value = false
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			stack = append(stack, &level{object: tok == json.Delim('{')})
		case json.Delim('}'), json.Delim(']'):
			top := stack[len(stack)-1]
			if !slices.IsSorted(top.keys) {
				return errors.New("keys are not sorted")
			}
			stack = stack[:len(stack)-1]
		}
	}
	var tight bytes.Buffer
	if err := json.Compact(&tight, b); err != nil || !bytes.Equal(tight.Bytes(), b) {
		return errors.New("it has white space")
	}
	for _, esc := range []string{`\u003c`, `\u003e`, `\u0026`} {
		if i := bytes.Index(b, []byte(esc)); i > 0 && b[i-1] != '\\' {
			return errors.New("it has escapes for HTML")
		}
	}
	return nil
}

func TestCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyResult.Draw(t, "result")
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := canonical(b); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		var back Result
		if err := Decode(b, SchemaResult, &back); err != nil {
			t.Fatal(err)
		}
		again, err := Encode(back)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v: came back as\n%s, was\n%s", err, again, b)
		}
	})
	// The checker is no yes-man.
	for _, bad := range []string{`{"b":1,"a":2}`, `{"a":{"d":1,"c":1}}`, `{"a": 1}`, `{"a":"\u003c"}`, `[{"b":1,"a":1}]`} {
		if canonical([]byte(bad)) == nil {
			t.Errorf("%s passes as canonical", bad)
		}
	}
	for _, good := range []string{`{"a":"b","b":"a"}`, `{"a":["z","b"],"b":{"a":1,"c":[]}}`, `{"a":"\\u003c"}`} {
		if err := canonical([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// Block and Index skip the sorting of keys, because their fields stand sorted.
func TestFastPathIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Block{Schema: SchemaBlock, JobID: text.Draw(t, "job"), Group: text.Draw(t, "group"), Block: rapid.Int().Draw(t, "n"),
			Tasks: rapid.SliceOf(rapid.Custom(func(t *rapid.T) BlockTask {
				x := BlockTask{TaskID: text.Draw(t, "task")}
				if rapid.Bool().Draw(t, "merge") {
					x.Merge = &Span{First: rapid.Int64().Draw(t, "first"), Count: rapid.Int64().Draw(t, "count")}
				} else {
					x.BatchID = ptr(text.Draw(t, "batch"))
				}
				return x
			})).Draw(t, "tasks")}
		x := Index{Schema: SchemaIndex, JobID: b.JobID, Group: b.Group, Block: b.Block,
			Batches: rapid.SliceOf(rapid.Custom(func(t *rapid.T) Batch {
				return Batch{BatchID: text.Draw(t, "batch"), FirstLine: rapid.Int64().Draw(t, "line"), FirstOrdinal: rapid.Int64().Draw(t, "ordinal"),
					Items: rapid.Int().Draw(t, "items"), Length: rapid.Int64().Draw(t, "length"), Object: text.Draw(t, "object"),
					Offset: rapid.Int64().Draw(t, "offset"), Retry: rapid.Bool().Draw(t, "retry"), SHA256: text.Draw(t, "sha")}
			})).Draw(t, "batches")}
		for _, pair := range [][2]any{{b, &b}, {x, &x}} { // a pointer takes the slow path
			fast, err := Encode(pair[0])
			if err != nil {
				t.Fatal(err)
			}
			slow, err := Encode(pair[1])
			if err != nil || !bytes.Equal(fast, slow) {
				t.Fatalf("%v: fast\n%s, slow\n%s", err, fast, slow)
			}
			if err := canonical(fast); err != nil {
				t.Fatalf("%v: %s", err, fast)
			}
		}
	})
}

func TestTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := anyTime.Draw(t, "time")
		b, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		var back Time
		if err := json.Unmarshal(b, &back); err != nil || !back.Equal(at.Time) || back.Location() != time.UTC && !back.IsZero() {
			t.Fatalf("%s reads back as %v (%v)", b, back, err)
		}
		if !at.IsZero() && (len(b) != len(`"2026-11-20T12:00:00.000Z"`) || b[len(b)-6] != '.' || b[len(b)-2] != 'Z') {
			t.Fatalf("%s is not in UTC with milliseconds", b)
		}
	})
	for _, bad := range []string{`"2026-11-20T12:00:00Z"`, `"2026-11-20T12:00:00.000+01:00"`, `"2026-11-20 12:00:00.000Z"`, `"2026-11-20T12:00:00.0000Z"`, `7`, `null`} {
		var at Time
		if err := json.Unmarshal([]byte(bad), &at); err == nil {
			t.Errorf("%s is taken for %v", bad, at)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(Control{Schema: SchemaControl, JobID: "j", N: 1, Order: OrderPause, At: clock(0)})
	if err != nil {
		t.Fatal(err)
	}
	var c Control
	if err := Decode(good, SchemaControl, &c); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if err := Decode(good[:i], SchemaControl, &c); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	for what, b := range map[string][]byte{
		"another schema":   bytes.Replace(good, []byte("control/v1"), []byte("control/v2"), 1),
		"a second object":  append(slices.Clone(good), good...),
		"a newline":        append(slices.Clone(good), '\n'),
		"a leading space":  append([]byte(" "), good...),
		"a wrong type":     bytes.Replace(good, []byte(`"n":1`), []byte(`"n":"1"`), 1),
		"no schema":        []byte(`{}`),
		"another sort":     []byte(`[]`),
		"a time not in ms": bytes.Replace(good, []byte(".000Z"), []byte("Z"), 1),
	} {
		if err := Decode(b, SchemaControl, &c); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := Decode(bytes.Replace(good, []byte(`"by":""`), []byte(`"by":"","later":[1]`), 1), SchemaControl, &c); err != nil {
		t.Errorf("an additive field: %v", err)
	}
}

func TestOutcomeSeal(t *testing.T) {
	sealed, err := Outcome{Schema: SchemaOutcome, JobID: "j", Status: "SUCCEEDED", Items: 12, OK: 12, SelfSHA256: "whatever stood here"}.Seal()
	if err != nil {
		t.Fatal(err)
	}
	o, err := OpenOutcome(sealed)
	if err != nil || o.OK != 12 {
		t.Fatalf("%+v, %v", o, err)
	}
	if want := SHA256(bytes.Replace(sealed, []byte(o.SelfSHA256), nil, 1)); o.SelfSHA256 != want {
		t.Errorf("self_sha256 %s, of the bytes without it %s", o.SelfSHA256, want)
	}
	for i := range 8 * len(sealed) { // a flipped bit anywhere is found
		bad := slices.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenOutcome(bad); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("bit %d of byte %d flipped: %v", i%8, i/8, err)
		}
	}
}

// The stored definition is itself a job file: what is read is what was written, and
// its identity is that of its bytes.
func TestDefinition(t *testing.T) {
	d := hayrick.JobDefinition{Version: 1, Name: "x", Handler: hayrick.Handler{Builtin: "h", Params: json.RawMessage(`{"b":1.50,"a":"<"}`)},
		Run:   hayrick.Run{Lease: hayrick.Duration(90 * time.Second)},
		Rates: []hayrick.Rate{{Name: "r", Limit: hayrick.PerTime{N: 3000, Per: 5 * time.Minute}, Burst: 3}},
		Retry: hayrick.Retry{StopIf: &hayrick.StopIf{FailedFraction: 0.25, AfterItems: 100}},
		Merge: hayrick.Merge{TargetBytes: 64 << 20}}
	body, sha, err := EncodeDefinition(d)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeDefinition(body, sha)
	if err != nil {
		t.Fatal(err)
	}
	again, sha2, err := EncodeDefinition(back)
	if err != nil || sha2 != sha || !bytes.Equal(again, body) {
		t.Fatalf("%v: came back as\n%s, was\n%s", err, again, body)
	}
	back.Handler.Params, d.Handler.Params = nil, nil // its keys are sorted now
	if !reflect.DeepEqual(back, d) {
		t.Errorf("came back as %+v", back)
	}
	for _, want := range []string{`"lease": "1m30s"`, `"limit": "3000/5m"`, `"target_rows": 0`, `"target_bytes": "64MiB"`, `"b": 1.50`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	for what, b := range map[string][]byte{"another digest": append(slices.Clone(body), ' '), "nothing": nil} {
		if _, err := DecodeDefinition(b, sha); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, b := range []string{`{"version":1,"nmae":"x"}`, `{} {}`, `{`} {
		if _, err := DecodeDefinition([]byte(b), SHA256([]byte(b))); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", b, err)
		}
	}
}
