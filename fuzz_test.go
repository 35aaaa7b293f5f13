package hayrick_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"hayrick"
)

// FuzzTexts: a time, a size and a rate of a job file are written as what reads back as the
// same, and what is read is what its words say.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{
		"90s", "1h30m", "1h0m0s", "0", "0s", "-1s", "1.5h", "100000000h", "2562047h47m16.854775807s", "500ms", "1µs", "1h0m", "10m0s",
		"16MiB", "1GB", "512B", "0B", "9007199254740993B", "8388608TiB", "4194304TiB", " 1 MiB", "1.5MiB", "-1B", "0x1B", "1_000B",
		"10/s", "3000/5m", "1/.5s", "1/0.5s", "1/1s", "1/1m30s", "0/s", "-1/s", "1/", "/s", "1/-1s", "1/+1s", "9223372036854775807/ns", " 1 /s", "1/11s", "1/1.5s", "1/1h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d, d2 hayrick.Duration
		if d.UnmarshalText([]byte(s)) == nil {
			text, err := d.MarshalText()
			if err != nil || d2.UnmarshalText(text) != nil || d2 != d || d < 0 {
				t.Errorf("%q is %d, written as %q, which is %d", s, d, text, d2)
			}
		}
		var b, b2 hayrick.Bytes
		if b.UnmarshalText([]byte(s)) == nil {
			text, err := b.MarshalText()
			if err != nil || b2.UnmarshalText(text) != nil || b2 != b || b < 0 {
				t.Errorf("%q is %d, written as %q, which is %d", s, b, text, b2)
			}
		}
		var p, p2 hayrick.PerTime
		if p.UnmarshalText([]byte(s)) == nil {
			text, err := p.MarshalText()
			if err != nil || p2.UnmarshalText(text) != nil || p2 != p || p.N <= 0 || p.Per <= 0 {
				t.Errorf("%q is %v, written as %q, which is %v", s, p, text, p2)
			}
			// The second implementation: a time without a number is one of its unit.
			_, per, _ := strings.Cut(s, "/")
			var as hayrick.Duration
			if as.UnmarshalText([]byte(per)) == nil && as.D() != p.Per {
				t.Errorf("%q is per %v, and %q is %v", s, p.Per, per, as.D())
			}
		}
	})
}

// FuzzMessage: a message is a pointer. Whatever it holds, it is written as what reads back
// as the same, and the waits that follow from its deliveries are bounded.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"job_id":"j","generation":0,"role":"worker","group":"initial_batch","block":3,"position":255,"task_id":"task-0001","stalls":2}`), 3)
	f.Add([]byte(`{"job_id":"../..","generation":-1,"position":1e2,"due":5}`), -1<<31)
	f.Add([]byte(`{"Job_ID":"a","job_id":"b","task_id":null}`), 1<<31-1)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		var m, again hayrick.Message
		if json.Unmarshal(b, &m) != nil {
			return
		}
		text, err := json.Marshal(m)
		if err != nil || json.Unmarshal(text, &again) != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%q is %+v, written as %s, which is %+v (%v)", b, m, text, again, err)
		}
		d := hayrick.Delivery{Message: m, Count: count}
		if w := d.AfterFault(); w <= 0 || w > 15*60e9 {
			t.Errorf("delivery %d waits %v after a fault", count, w)
		}
		if w, done := d.AfterLease(0); w <= 0 || w > 3600e9 || done != (w == 3600e9) {
			t.Errorf("delivery %d waits %v for a lease, done with: %v", count, w, done)
		}
	})
}

// FuzzID: an id is one part of a path everywhere, and a class one word.
func FuzzID(f *testing.F) {
	for _, s := range []string{"task-0001", "..", "a..b", "a/b", "a\x00", "A", ".a", "-a", "a\n", strings.Repeat("a", 128), strings.Repeat("a", 129), "é", "а", "", "a.", "a_b", "con", "a:b", "%2e%2e", "a\u200b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		odd := strings.ContainsFunc(s, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
		})
		want := s != "" && len(s) <= 128 && !odd && !strings.Contains(s, "..") && !strings.ContainsRune("._-", rune(s[0]))
		if hayrick.ValidID(s) != want {
			t.Errorf("%q is an id: %v", s, !want)
		}
		if hayrick.ValidClass(s) && (s == "" || len(s) > 40 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") != "") {
			t.Errorf("%q is a class", s)
		}
	})
}
