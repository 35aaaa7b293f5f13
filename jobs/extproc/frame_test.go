package extproc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/jobs"
)

// FuzzParse: no line takes the reader down, what is read of a frame is what
// encoding/json reads, and what becomes a row can be stored or is refused.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"t":"ok","id":7}`, `{"t": "ok", "id": 7}`, `{"t":"ok","id":}`, `{"t":"row","id":1,"row":{"a":1,"b":[1,{"c":"\u00e9\""}],"c":null,"d":1.5e3,"e":true}}`,
		`{"t":"err","id":2,"class":"x","msg":"a\nb","retry":false,"after_ms":1e30}`, `{"t":5}`, `{}`, `[]`, `"`, `{"t":"row","row":{"x":{"$time":"2024-01-01T00:00:00Z"}}}`,
		`{"t":"metric","name":"n","add":1e400,"labels":{"a":"b"}}`, "{\"t\":\"\xff\"}", `{"t":"row","id":1,"row":{"x":{"$bytes":"!"}}}`, ` { "t" : "beat" , "done" : 1 } `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		fr, ok := parse(line)
		var want map[string]json.RawMessage
		err := json.Unmarshal(line, &want)
		if ok != (err == nil && want != nil && isText(want["t"])) {
			// A member that is there twice, or under a name in another case, may be read either way.
			if !strings.Contains(strings.ToLower(string(line)), `"t"`) {
				t.Fatalf("%q: a frame %v, encoding/json: %v, %v", line, ok, want, err)
			}
		}
		if !ok {
			return
		}
		_ = fr.outcome()
		if fr.row == nil {
			return
		}
		row, err := rowOf(fr.row)
		if err != nil {
			return
		}
		if body, err := rows.AppendRow(nil, row); err == nil {
			if _, _, err := rows.DecodeRow(body); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
	})
}

func isText(v json.RawMessage) bool {
	var s string
	return len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil && s != ""
}

func TestRow(t *testing.T) {
	row, err := rowOf([]byte(`{"b":1, "a": -2.5, "s":"x\ty", "t":true, "n":null, "o":{"z":[1, 2]}, "l":[], "at":{"$time":"2024-05-01T10:00:00.5+02:00"}, "raw":{"$bytes":"AP8="}, "two":{"$time":"x","y":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := jobs.Row{
		{Name: "b", Value: int64(1)}, {Name: "a", Value: -2.5}, {Name: "s", Value: "x\ty"}, {Name: "t", Value: true}, {Name: "n", Value: nil},
		{Name: "o", Value: json.RawMessage(`{"z":[1, 2]}`)}, {Name: "l", Value: json.RawMessage(`[]`)},
		{Name: "at", Value: time.Date(2024, 5, 1, 8, 0, 0, 5e8, time.UTC)}, {Name: "raw", Value: []byte{0, 255}},
		{Name: "two", Value: json.RawMessage(`{"$time":"x","y":1}`)},
	}
	for i := range row {
		if at, ok := row[i].Value.(time.Time); ok {
			row[i].Value = at.UTC()
		}
	}
	if !reflect.DeepEqual(row, want) {
		t.Errorf("%#v\nwant %#v", row, want)
	}
	for in, want := range map[string]string{
		`{"x":9223372036854775808}`:   `column "x": 9223372036854775808 does not fit a 64-bit integer; write it as a string`,
		`{"x":1e999}`:                 `column "x": 1e999 does not fit a 64-bit float`,
		`{"x":{"$time":"yesterday"}}`: `column "x": parsing time`,
		`[1]`:                         `it is not an object`,
		`7`:                           `it is not an object`,
	} {
		if _, err := rowOf([]byte(in)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

// The fast reading of ok is the reading of ok.
func TestOK(t *testing.T) {
	for _, line := range []string{`{"t":"ok","id":7}`, `{"t": "ok", "id": 7}`, `{"t":"ok","id":7 }`, `{"id":7,"t":"ok"}`, `{"t":"ok","id":7,"rows":2}`, `{"t":"ok","id":"7"}`, `{"t":"ok","id":-7}`, `{"t":"ok","id":7}}`, `{"t":"ok","id":}`} {
		id, fast := isOK([]byte(line))
		f := frame{}
		valid := json.Valid([]byte(line))
		if valid {
			members([]byte(line), func(name string, v []byte) bool { f.member(name, v); return true })
		}
		if fast && (!valid || f.t != "ok" || f.id != id || f.unreadable != "") {
			t.Errorf("%s is read as ok %d, it is %+v", line, id, f)
		}
		if p, ok := parse([]byte(line)); ok != valid || ok && (p.t != f.t || p.id != f.id) {
			t.Errorf("%s: %+v, want %+v", line, p, f)
		}
	}
}

func TestItemFrame(t *testing.T) {
	it := jobs.Item{Ordinal: 3, Key: "k\"é\n", Data: []byte("{\n \"a\": 1\r\n}"), Try: 2, Left: 90 * time.Second, Cursor: []byte(`{"page":7}`)}
	line := appendItem(nil, 12, &it)
	if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
		t.Errorf("%q is not one line", line)
	}
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"t": "item", "id": 12.0, "ordinal": 3.0, "key": "k\"é\n", "attempt": 2.0, "left_ms": 90000.0, "cursor": map[string]any{"page": 7.0}, "item": map[string]any{"a": 1.0}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestErrFrame(t *testing.T) {
	for line, want := range map[string]jobs.Outcome{
		`{"t":"err","id":1}`: {Class: "error"},
		`{"t":"err","id":1,"class":"gone","retry":false,"msg":"no"}`:           {Class: "gone", Disposition: hayrick.Permanent, Message: "no"},
		`{"t":"err","id":1,"class":"rate_limited","retry":true,"after_ms":50}`: {Class: hayrick.ClassRateLimit, Disposition: hayrick.RateLimit, RetryAfter: 50 * time.Millisecond},
		`{"t":"err","id":1,"class":"io","retry":true,"after_ms":-3}`:           {Class: "io", Disposition: hayrick.Transient},
		`{"t":"err","id":1,"class":"io","retry":null,"status":503}`:            {Class: "io", Status: 503},
	} {
		f, ok := parse([]byte(line))
		if got := f.outcome(); !ok || got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
}

// 002-57: credentials of the worker reach a program only where the job file names them.
func TestEnvironment(t *testing.T) {
	worker := []string{"PATH=/bin", "HOME=/h", "LANG=C", "TMPDIR=/t", "AWS_SECRET_ACCESS_KEY=s", "AWS_PROFILE=p", "HAYRICK_STORE=st", "PYTHONPATH=x", "TOKEN=t"}
	d := hayrick.Handler{Env: map[string]string{"A": "1", "LANG": "de"}}
	if got := fmt.Sprint(environment(d, "r-1", worker)); got != "[A=1 HAYRICK_RUN=r-1 HAYRICK_STORE=st HOME=/h LANG=de PATH=/bin TMPDIR=/t]" {
		t.Error(got)
	}
	d.PassEnv = []string{"AWS_PROFILE", "NOT_SET"}
	if got := fmt.Sprint(environment(d, "", worker)); got != "[A=1 AWS_PROFILE=p HAYRICK_STORE=st HOME=/h LANG=de PATH=/bin TMPDIR=/t]" {
		t.Error(got)
	}
}
