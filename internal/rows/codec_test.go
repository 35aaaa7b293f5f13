package rows

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"hayrick"
)

func TestCodecRoundTrip(t *testing.T) {
	want := append(randomRows(1, 200),
		Row{{"a", ""}, {"b", []byte{}}, {"c", int64(math.MinInt64)}, {"d", int64(math.MaxInt64)}, {"e", minTime}, {"f", maxTime}, {"g", false}, {"ü", math.Copysign(0, -1)}})
	var b []byte
	for _, r := range want {
		var err error
		if b, err = AppendRow(b, r); err != nil {
			t.Fatal(err)
		}
	}
	var got []Row
	for r, err := range Rows(b) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	sameRows(t, got, want)
	if hashRows(t, got) != hashRows(t, want) {
		t.Error("the rows' hash changed")
	}
	for i := range b {
		b[i] = 0xff // what was decoded shares no memory with the journal's bytes
	}
	sameRows(t, got, want)
}

func TestCodecKeepsTypes(t *testing.T) {
	b, err := AppendRow(nil, Row{{"s", "x"}, {"b", []byte("y")}, {"i", int32(-3)}, {"f", 2.5}, {"t", true}, {"at", time.Unix(5, 6000)}})
	if err != nil {
		t.Fatal(err)
	}
	r, rest, err := DecodeRow(b)
	if err != nil || len(rest) != 0 {
		t.Fatal(rest, err)
	}
	if r[0].Value.(string) != "x" || string(r[1].Value.([]byte)) != "y" || r[2].Value.(int64) != -3 || r[3].Value.(float64) != 2.5 ||
		!r[4].Value.(bool) || !r[5].Value.(time.Time).Equal(time.Unix(5, 6000)) || r[5].Value.(time.Time).Location() != time.UTC {
		t.Errorf("%v", r)
	}
}

// Damage is reported or gives another row that could have been written; it never
// panics and never believes a length.
func TestCodecDamage(t *testing.T) {
	var whole []byte
	for _, r := range randomRows(2, 3) {
		whole, _ = AppendRow(whole, r)
	}
	_, rest, err := DecodeRow(whole)
	if err != nil {
		t.Fatal(err)
	}
	first := whole[:len(whole)-len(rest)]
	for n := range first {
		if _, _, err := DecodeRow(first[:n]); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(first), err)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range 5000 {
		b := append([]byte(nil), whole...)
		for range 1 + rng.IntN(3) {
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		}
		for r, err := range Rows(b) {
			if err != nil {
				if !errors.Is(err, hayrick.ErrCorrupt) {
					t.Fatal(err)
				}
				refused++
			} else if err := r.Check(); err != nil {
				t.Fatalf("a row came out that could not go in: %v", err)
			}
		}
	}
	if refused < 1000 {
		t.Errorf("only %d of 5000 damaged journals were refused", refused)
	}
	for _, b := range [][]byte{nil, {0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, {5, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{6, 1, 'a', 1, 0xff, 0xff, 0x7f}, {4, 1, 'a', 5, 2}, {4, 1, 'a', 9, 0}, {8, 1, 'a', 5, 1, 1, 'a', 5, 1}} {
		if r, _, err := DecodeRow(b); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("% x is read as %v, %v", b, r, err)
		}
	}
}

func FuzzDecodeRow(f *testing.F) {
	for _, r := range randomRows(3, 4) {
		b, _ := AppendRow(nil, r)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := DecodeRow(b)
		if err != nil {
			return
		}
		again, err := AppendRow(nil, r)
		if err != nil || len(again) > len(b)-len(rest) {
			t.Fatalf("%v: %v, %d bytes from %d", r, err, len(again), len(b)-len(rest))
		}
	})
}

func BenchmarkAppendRow(b *testing.B) {
	rows := randomRows(1, 1000)
	var buf []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		buf, _ = AppendRow(buf[:0], rows[i%len(rows)])
	}
}

func BenchmarkDecodeRow(b *testing.B) {
	var encoded [][]byte
	for _, r := range randomRows(1, 1000) {
		e, _ := AppendRow(nil, r)
		encoded = append(encoded, e)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		DecodeRow(encoded[i%len(encoded)])
	}
}
