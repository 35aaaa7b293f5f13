package rows

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// randomRows are n rows of all kinds, with nulls, missing columns and columns in
// changing places.
func randomRows(seed uint64, n int) []Row {
	rng := rand.New(rand.NewPCG(seed, 1))
	langs := []string{"de", "en", "fr", "ja"}
	out := make([]Row, 0, n)
	for i := range n {
		r := Row{
			{"uri", fmt.Sprintf("at://did:plc:%024x/app.bsky.feed.post/%013d", rng.Uint64(), i)},
			{"at", time.UnixMicro(1_700_000_000_000_000 + int64(i)*1000 + rng.Int64N(999)).UTC()},
			{"seq", int64(i) * 7},
			{"text", fmt.Sprintf(`{"text":"post number %d says %x","langs":["en"]}`, i, rng.Uint64())},
			{"lang", langs[rng.IntN(len(langs))]},
			{"score", rng.NormFloat64()},
			{"reply", rng.IntN(2) == 0},
			{"cid", binaryValue(rng)},
		}
		switch rng.IntN(6) {
		case 0:
			r[4].Value = nil
		case 1:
			r = append(r[:5:5], r[6:]...)
		case 2:
			r[1], r[2] = r[2], r[1]
		case 3:
			r[5].Value = []float64{math.NaN(), math.Inf(-1), math.Copysign(0, -1)}[rng.IntN(3)]
		}
		out = append(out, r)
	}
	return out
}

func binaryValue(rng *rand.Rand) []byte {
	b := make([]byte, rng.IntN(36))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func schemaOf(t testing.TB, rows []Row) Schema {
	t.Helper()
	var o Observer
	for _, r := range rows {
		if err := o.Observe(r); err != nil {
			t.Fatal(err)
		}
	}
	return o.Schema()
}

// encode writes the rows as a file.
func encode(t testing.TB, s Schema, opts WriterOptions, rows []Row) ([]byte, Summary) {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), sum
}

// decode reads all rows of a file in the columns of want.
func decode(b []byte, want Schema) ([]Row, Hash, error) {
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, Hash{}, err
	}
	s, err := f.Scan(want)
	if err != nil {
		return nil, Hash{}, err
	}
	var out []Row
	for {
		batch, err := s.Next()
		if err == io.EOF {
			n, h := s.Read()
			if n != int64(len(out)) {
				return nil, Hash{}, fmt.Errorf("%d rows read, %d handed out", n, len(out))
			}
			return out, h, nil
		}
		if err != nil {
			return nil, Hash{}, err
		}
		for r := range batch.Rows {
			out = append(out, batch.Row(r))
		}
	}
}

// canonical is the row as text: null columns left out, columns sorted, so that two
// texts are equal when the rows are.
func canonical(r Row) string {
	m := map[string]string{}
	for _, c := range r {
		switch v := c.Value.(type) {
		case nil:
		case float64:
			m[c.Name] = fmt.Sprintf("float %x", math.Float64bits(v))
		case int:
			m[c.Name] = fmt.Sprintf("int %d", v)
		case int32:
			m[c.Name] = fmt.Sprintf("int %d", v)
		case int64:
			m[c.Name] = fmt.Sprintf("int %d", v)
		case time.Time:
			m[c.Name] = fmt.Sprintf("time %d", v.UnixMicro())
		case json.RawMessage:
			m[c.Name] = fmt.Sprintf("string %q", string(v))
		default:
			m[c.Name] = fmt.Sprintf("%T %q", v, fmt.Sprint(v))
		}
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func sameRows(t testing.TB, got, want []Row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range got {
		if g, w := canonical(got[i]), canonical(want[i]); g != w {
			t.Fatalf("row %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func readerAt(b []byte) io.ReaderAt { return bytes.NewReader(b) }
