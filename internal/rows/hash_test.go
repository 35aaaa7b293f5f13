package rows

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

// slowHash is the definition, written a second time: text, big integers, maps.
func slowHash(rows []Row) string {
	sum := new(big.Int)
	for _, r := range rows {
		cols := map[string]any{}
		var names []string
		for _, c := range r {
			if c.Value != nil {
				cols[c.Name] = c.Value
				names = append(names, c.Name)
			}
		}
		sort.Strings(names)
		h := sha256.New()
		for _, n := range names {
			fmt.Fprintf(h, "%s%s", slowUvarint(len(n)), n)
			switch v := cols[n].(type) {
			case string:
				fmt.Fprintf(h, "\x01%s%s", slowUvarint(len(v)), v)
			case json.RawMessage:
				fmt.Fprintf(h, "\x01%s%s", slowUvarint(len(v)), v)
			case []byte:
				fmt.Fprintf(h, "\x02%s%s", slowUvarint(len(v)), v)
			case int64:
				fmt.Fprintf(h, "\x03%s", eight(big.NewInt(v)))
			case float64:
				bits := new(big.Int).SetUint64(math.Float64bits(v))
				if math.IsNaN(v) {
					bits.SetUint64(0x7ff8000000000000)
				} else if v == 0 {
					bits.SetUint64(0)
				}
				fmt.Fprintf(h, "\x04%s", eight(bits))
			case bool:
				fmt.Fprintf(h, "\x05%s", map[bool]string{false: "\x00", true: "\x01"}[v])
			case time.Time:
				fmt.Fprintf(h, "\x06%s", eight(big.NewInt(v.UnixMicro())))
			}
		}
		sum.Add(sum, new(big.Int).SetBytes(h.Sum(nil)[:16]))
	}
	sum.Mod(sum, new(big.Int).Lsh(big.NewInt(1), 128))
	return sum.Text(16)
}

func slowUvarint(n int) string {
	var s []byte
	for n >= 128 {
		s = append(s, byte(n%128+128))
		n /= 128
	}
	return string(append(s, byte(n)))
}

// eight is x modulo 2^64 as 8 bytes, big endian.
func eight(x *big.Int) string {
	m := new(big.Int).Mod(x, new(big.Int).Lsh(big.NewInt(1), 64))
	b, _ := hex.DecodeString(fmt.Sprintf("%016s", m.Text(16)))
	return string(b)
}

func hashRows(t testing.TB, rows []Row) Hash {
	t.Helper()
	var hr Hasher
	var sum Hash
	for _, r := range rows {
		h, err := hr.Row(r)
		if err != nil {
			t.Fatal(err)
		}
		sum = sum.Add(h)
	}
	return sum
}

func TestHashIsItsDefinition(t *testing.T) {
	for seed := range uint64(20) {
		rows := randomRows(seed, int(seed)*13)
		if got, want := hashRows(t, rows).String(), slowHash(rows); got != want {
			t.Fatalf("seed %d: %s, want %s", seed, got, want)
		}
	}
}

// The hash is in every commit ever written: these values never change.
func TestHashKnownAnswers(t *testing.T) {
	for _, tc := range []struct {
		row  Row
		want string
	}{
		{Row{{"a", int64(1)}}, "3a6fa7f3bd8564e754fd2d0c1f6f5be6"},
		{Row{{"a", "x"}, {"b", []byte{0}}, {"c", 1.5}, {"d", true}, {"e", time.UnixMicro(-1)}}, "57edb268de747244ad19bb7906e4d7ec"},
	} {
		if got := hashRows(t, []Row{tc.row}).String(); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.row, got, tc.want)
		}
	}
	if got := hashRows(t, nil).String(); got != "0" {
		t.Errorf("no rows: %s", got)
	}
}

func TestHashOfRowsThatAreTheSame(t *testing.T) {
	one := func(r Row) Hash { return hashRows(t, []Row{r}) }
	base := Row{{"n", int64(5)}, {"f", 0.0}, {"s", "x"}}
	for name, same := range map[string]Row{
		"other order":    {{"s", "x"}, {"n", int64(5)}, {"f", 0.0}},
		"a null column":  {{"n", int64(5)}, {"f", 0.0}, {"new", nil}, {"s", "x"}},
		"nil bytes":      {{"n", int64(5)}, {"f", 0.0}, {"s", "x"}, {"b", []byte(nil)}},
		"int32":          {{"n", int32(5)}, {"f", 0.0}, {"s", "x"}},
		"int":            {{"n", 5}, {"f", 0.0}, {"s", "x"}},
		"negative zero":  {{"n", int64(5)}, {"f", math.Copysign(0, -1)}, {"s", "x"}},
		"JSON as string": {{"n", int64(5)}, {"f", 0.0}, {"s", json.RawMessage("x")}},
	} {
		if one(same) != one(base) {
			t.Errorf("%s: the hash changed", name)
		}
	}
	quiet, odd := math.NaN(), math.Float64frombits(0xfff8000000000123)
	if one(Row{{"f", quiet}}) != one(Row{{"f", odd}}) {
		t.Error("two NaNs have two hashes")
	}
	here := time.Date(2026, 1, 2, 3, 4, 5, 6789, time.FixedZone("", 3600))
	if one(Row{{"t", here}}) != one(Row{{"t", here.UTC().Truncate(time.Microsecond)}}) {
		t.Error("an instant depends on its zone")
	}
}

func TestHashOfRowsThatDiffer(t *testing.T) {
	seen := map[Hash]string{}
	for _, r := range []Row{
		{{"a", "bc"}}, {{"ab", "c"}}, {{"a", []byte("bc")}}, {{"a", ""}}, {{"a", []byte{}}},
		{{"a", int64(0)}}, {{"a", 0.0}}, {{"a", false}}, {{"a", time.UnixMicro(0)}}, {{"a", "b"}, {"c", ""}},
		{{"a", ""}, {"c", "b"}}, {{"a", "\x00"}}, {{"a", int64(1)}}, {{"a", 1.0}}, {{"a", true}}, {{"a", int64(1 << 32)}},
	} {
		h := hashRows(t, []Row{r})
		if other, ok := seen[h]; ok {
			t.Errorf("%v and %s share a hash", r, other)
		}
		seen[h] = fmt.Sprint(r)
	}
	a := Row{{"a", "x"}}
	if hashRows(t, []Row{a, a}) == hashRows(t, []Row{a}) {
		t.Error("a doubled row is not seen")
	}
}

func TestHashOrderAndParts(t *testing.T) {
	rows := randomRows(3, 500)
	whole := hashRows(t, rows)
	parts := hashRows(t, rows[:200]).Add(hashRows(t, rows[200:]))
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	if got := hashRows(t, rows); got != whole || parts != whole {
		t.Errorf("shuffled %s, parts %s, whole %s", got, parts, whole)
	}
}

func TestHashText(t *testing.T) {
	max := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)).Text(16)
	for _, s := range []string{"0", "1", "ff", "10000000000000000", "ffffffffffffffff", max} {
		h, err := ParseHash(s)
		if err != nil || h.String() != s {
			t.Errorf("%s: %s, %v", s, h, err)
		}
		j, _ := json.Marshal(h)
		var back Hash
		if err := json.Unmarshal(j, &back); err != nil || back != h || string(j) != `"`+s+`"` {
			t.Errorf("JSON %s: %s, %v", j, back, err)
		}
	}
	for _, s := range []string{"", "00", "01", "F", "g", " 1", max + "0"} {
		if h, err := ParseHash(s); err == nil {
			t.Errorf("%q is read as %s", s, h)
		}
	}
}

func TestHasherAllocatesNothing(t *testing.T) {
	row := Row{{"uri", "at://did:plc:abc/app.bsky.feed.post/1"}, {"seq", int64(7)}, {"at", time.UnixMicro(5)}, {"score", 0.5}}
	var h Hasher
	if _, err := h.Row(row); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { h.Row(row) }); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
	rows := []Row{row, row, row}
	batch := NewBatch(schemaOf(t, rows))
	data, _ := encode(t, batch.Schema, WriterOptions{}, rows)
	_, want, err := decode(data, Schema{})
	if err != nil {
		t.Fatal(err)
	}
	if got := hashRows(t, rows); got != want {
		t.Errorf("by rows %s, by columns %s", got, want)
	}
}

func BenchmarkHashRow(b *testing.B) {
	row := Row{{"did", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}, {"seq", int64(123456)}, {"at", time.UnixMicro(1_700_000_000_000_000)}, {"ok", true}}
	var h Hasher
	b.ReportAllocs()
	for b.Loop() {
		h.Row(row)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkHashBatch(b *testing.B) {
	rows := randomRows(1, 4096)
	batch := NewBatch(schemaOf(b, rows))
	data, _ := encode(b, batch.Schema, WriterOptions{}, rows)
	f, err := Open(readerAt(data), int64(len(data)))
	if err != nil {
		b.Fatal(err)
	}
	s, err := f.Scan(Schema{})
	if err != nil {
		b.Fatal(err)
	}
	for {
		next, err := s.Next()
		if err != nil {
			break
		}
		batch.Append(next, 0, next.Rows)
	}
	h := newBatchHasher(batch.Schema)
	b.ReportAllocs()
	for b.Loop() {
		h.rows(batch, 0, batch.Rows)
	}
	b.ReportMetric(float64(b.N)*float64(batch.Rows)/b.Elapsed().Seconds(), "rows/s")
}
