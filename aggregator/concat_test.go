package aggregator_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/internal/rows"
	"hayrick/local"
	"hayrick/manifest"
	"hayrick/mem"
)

var concatSchema = rows.Schema{Fields: []rows.Field{
	{Name: "uri", Kind: rows.KindString}, {Name: "at", Kind: rows.KindTime}, {Name: "seq", Kind: rows.KindInt},
	{Name: "text", Kind: rows.KindString}, {Name: "lang", Kind: rows.KindString}, {Name: "score", Kind: rows.KindFloat},
	{Name: "never", Kind: rows.KindFloat}, {Name: "cid", Kind: rows.KindBytes}, {Name: "reply", Kind: rows.KindBool},
}}

func concatRows(seed uint64, n int) []rows.Row {
	rng := rand.New(rand.NewPCG(seed, 7))
	out := make([]rows.Row, 0, n)
	for i := range n {
		r := rows.Row{
			{Name: "uri", Value: fmt.Sprintf("at://did:plc:%020d/app.bsky.feed.post/%013d", seed, i)},
			{Name: "at", Value: time.UnixMicro(1_700_000_000_000_000 + rng.Int64N(1e12)).UTC()},
			{Name: "seq", Value: rng.Int64()},
			{Name: "text", Value: fmt.Sprintf(`{"text":"%x %x %x","n":%d}`, rng.Uint64(), rng.Uint64(), rng.Uint64(), i)},
			{Name: "cid", Value: []byte{byte(i), byte(i >> 8), byte(seed)}},
			{Name: "reply", Value: i%3 == 0},
		}
		if i%4 != 0 {
			r = append(r, rows.Col{Name: "lang", Value: []string{"de", "en", "ja"}[rng.IntN(3)]}, rows.Col{Name: "score", Value: rng.NormFloat64()})
		}
		out = append(out, r)
	}
	return out
}

func concatFile(t testing.TB, opts rows.WriterOptions, in []rows.Row) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := rows.NewWriter(&buf, concatSchema, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range in {
		if err := w.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sourceOf is a source as its results.done would vouch for it.
func sourceOf(t testing.TB, name string, b []byte) aggregator.Source {
	t.Helper()
	sum := sha256.Sum256(b)
	s := aggregator.Source{Name: name, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
	if f, err := rows.Open(bytes.NewReader(b), s.Size); err == nil {
		s.Rows = f.Rows()
		if scan, err := f.Scan(rows.Schema{}); err == nil {
			for err == nil {
				_, err = scan.Next()
			}
			_, s.RowHash = scan.Read()
		}
	}
	return s
}

// planOf plans the concatenation of sources that hold files.
func planOf(sources []aggregator.Source, files [][]byte) (aggregator.ConcatPlan, error) {
	footers := make([]aggregator.SourceFooter, len(sources))
	for i, s := range sources {
		var err error
		if footers[i], err = aggregator.ReadSourceFooter(bytes.NewReader(files[i]), s.Size); err != nil {
			return aggregator.ConcatPlan{}, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return aggregator.PlanConcat(sources, footers)
}

// blobs is a store that files are put into and joined in.
type blobs interface {
	aggregator.Blobs
	Put(ctx context.Context, key string, body io.Reader) error
}

// put stores the files under the names of their sources.
func put(t testing.TB, s blobs, sources []aggregator.Source, files [][]byte) {
	t.Helper()
	for i, b := range files {
		if err := s.Put(t.Context(), job.Abs(sources[i].Name), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
}

// join carries a plan out as the root does, and reads what the store has then.
func join(t testing.TB, s blobs, plan aggregator.ConcatPlan, sources []aggregator.Source) []byte {
	t.Helper()
	ranges := make([]manifest.Range, len(plan.Copies))
	for i, c := range plan.Copies {
		ranges[i] = manifest.Range{Key: job.Abs(sources[c.Source].Name), Offset: c.Offset, Length: c.Length}
	}
	key := job.Part(0, 0, plan.OutputHash)
	if _, err := s.Assemble(t.Context(), key, ranges, plan.Tail); err != nil {
		t.Fatal(err)
	}
	blob, err := s.OpenAt(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if blob.Size() != plan.Bytes {
		t.Fatalf("%d bytes, planned %d", blob.Size(), plan.Bytes)
	}
	out, err := io.ReadAll(io.NewSectionReader(blob, 0, plan.Bytes))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// concat plans, and joins in memory.
func concat(t testing.TB, files ...[]byte) ([]byte, aggregator.ConcatPlan) {
	t.Helper()
	sources := sourcesOf(t, files)
	plan, err := planOf(sources, files)
	if err != nil {
		t.Fatal(err)
	}
	store := mem.New(&testClock{now: start})
	put(t, store, sources, files)
	return join(t, store, plan, sources), plan
}

func sourcesOf(t testing.TB, files [][]byte) []aggregator.Source {
	var sources []aggregator.Source
	known := map[*byte]aggregator.Source{}
	for i, b := range files {
		s, ok := known[&b[0]]
		if !ok {
			s = sourceOf(t, "", b)
			known[&b[0]] = s
		}
		s.Name = fmt.Sprintf("file-%d", i)
		sources = append(sources, s)
	}
	return sources
}

func yes(b bool) *bool { return &b }

// mixed are files of one schema that differ in all that may differ.
func mixed(t testing.TB) (files [][]byte, all []rows.Row) {
	for i, f := range []struct {
		rows int
		opts rows.WriterOptions
	}{
		{3000, rows.WriterOptions{}},
		{1, rows.WriterOptions{}},
		{1000, rows.WriterOptions{GroupRows: 300}},
		{2000, rows.WriterOptions{Dictionary: yes(true)}},
		{500, rows.WriterOptions{Dictionary: yes(false)}},
		{20_000, rows.WriterOptions{GroupRows: 9_000, Dictionary: yes(true)}}, // several pages a chunk
		{7, rows.WriterOptions{GroupRows: 1}},
	} {
		in := concatRows(uint64(i), f.rows)
		if i == 4 {
			in = []rows.Row{{{Name: "uri", Value: "the other columns are only null"}}}
		}
		files = append(files, concatFile(t, f.opts, in))
		all = append(all, in...)
	}
	return files, all
}

func TestConcatKeepsRows(t *testing.T) {
	files, want := mixed(t)
	out, plan := concat(t, files...)
	var hr rows.Hasher
	var hash rows.Hash
	for _, r := range want {
		h, err := hr.Row(r)
		if err != nil {
			t.Fatal(err)
		}
		hash = hash.Add(h)
	}
	if plan.Rows != int64(len(want)) || plan.RowHash != hash || plan.RowGroups != 1+1+4+1+1+3+7 {
		t.Errorf("%d rows with hash %s in %d groups, want %d with %s", plan.Rows, plan.RowHash, plan.RowGroups, len(want), hash)
	}
	if err := rows.Verify(bytes.NewReader(out), int64(len(out)), plan.Rows, plan.RowHash); err != nil {
		t.Fatal(err)
	}
	f, err := rows.Open(bytes.NewReader(out), int64(len(out)))
	if err != nil {
		t.Fatal(err)
	}
	scan, err := f.Scan(rows.Schema{})
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; {
		b, err := scan.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for r := range b.Rows { // and in order
			if got, want := b.Row(r)[0].Value, want[at][0].Value; got != want {
				t.Fatalf("row %d is %v, want %v", at, got, want)
			}
			at++
		}
	}
}

// A local store joins files from descriptor to descriptor, with one source open at a
// time, into the same bytes.
func TestConcatFiles(t *testing.T) {
	files, _ := mixed(t)
	for range 40 {
		files = append(files, files[1])
	}
	want, plan := concat(t, files...)
	sources := sourcesOf(t, files)
	store, err := local.Open(t.Context(), t.TempDir(), hayrick.RealWorld("test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	put(t, store, sources, files)
	descriptors(t, 16)
	footers := make([]aggregator.SourceFooter, len(sources))
	for i, s := range sources {
		blob, err := store.OpenAt(t.Context(), job.Abs(s.Name))
		if err != nil {
			t.Fatal(err)
		}
		footers[i], err = aggregator.ReadSourceFooter(blob, s.Size)
		if err := errors.Join(err, blob.Close()); err != nil {
			t.Fatal(err)
		}
	}
	read, err := aggregator.PlanConcat(sources, footers)
	if err != nil || read.OutputHash != plan.OutputHash {
		t.Fatalf("of files the plan is %s, %v, of bytes in memory %s", read.OutputHash, err, plan.OutputHash)
	}
	if got := join(t, store, read, sources); !bytes.Equal(got, want) {
		t.Errorf("the file differs")
	}
}

// descriptors leaves the test so many besides those that are open.
func descriptors(t *testing.T, more uint64) {
	t.Helper()
	next, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	first := uint64(next.Fd())
	var was syscall.Rlimit
	if err := errors.Join(next.Close(), syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: first + more, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
}

func openArrow(t testing.TB, b []byte) *file.Reader {
	t.Helper()
	r, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func chunkOf(t testing.TB, g *metadata.RowGroupMetaData, i int) *metadata.ColumnChunkMetaData {
	t.Helper()
	c, err := g.ColumnChunk(i)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func chunkBytes(b []byte, c *metadata.ColumnChunkMetaData) []byte {
	at := c.DataPageOffset()
	if c.HasDictionaryPage() {
		at = min(at, c.DictionaryPageOffset())
	}
	return b[at : at+c.TotalCompressedSize()]
}

// eachChunkPair calls f with each column chunk of the output and the one of a
// source that it must be.
func eachChunkPair(t *testing.T, files [][]byte, out []byte, f func(where string, src, dst []byte, in, to *file.RowGroupReader, column int)) {
	t.Helper()
	dst := openArrow(t, out)
	group := 0
	for i, b := range files {
		src := openArrow(t, b)
		for g := range src.NumRowGroups() {
			in, to := src.RowGroup(g), dst.RowGroup(group)
			if in.NumRows() != to.NumRows() || in.ByteSize() != to.ByteSize() || to.MetaData().Ordinal() != int16(group) {
				t.Fatalf("row group %d of file %d: %d rows, %d in the output, number %d for %d", g, i, in.NumRows(), to.NumRows(), to.MetaData().Ordinal(), group)
			}
			for c := range in.NumColumns() {
				f(fmt.Sprintf("file %d, row group %d, column %d", i, g, c), b, out, in, to, c)
			}
			group++
		}
	}
	if group != dst.NumRowGroups() {
		t.Errorf("%d row groups in the files, %d in the output", group, dst.NumRowGroups())
	}
}

// Nothing is encoded anew: each chunk, column index and page has the bytes it had.
func TestConcatCopiesBytes(t *testing.T) {
	files, _ := mixed(t)
	out, _ := concat(t, files...)
	pages := 0
	eachChunkPair(t, files, out, func(where string, src, dst []byte, in, to *file.RowGroupReader, c int) {
		a, b := chunkOf(t, in.MetaData(), c), chunkOf(t, to.MetaData(), c)
		if !bytes.Equal(chunkBytes(src, a), chunkBytes(dst, b)) {
			t.Fatalf("%s: its bytes differ", where)
		}
		x, y := a.GetColumnIndexLocation(), b.GetColumnIndexLocation()
		if !bytes.Equal(src[x.Offset:x.Offset+int64(x.Length)], dst[y.Offset:y.Offset+int64(y.Length)]) {
			t.Fatalf("%s: its column index differs", where)
		}
		if a.NumValues() != b.NumValues() || a.HasDictionaryPage() != b.HasDictionaryPage() || a.PathInSchema().String() != b.PathInSchema().String() {
			t.Fatalf("%s: its description differs", where)
		}
		was, is := locations(t, src, in, c), locations(t, dst, to, c)
		if len(was) != len(is) || len(was) == 0 {
			t.Fatalf("%s: %d pages, %d in the output", where, len(was), len(is))
		}
		for i := range was {
			p, q := was[i], is[i]
			if p.FirstRowIndex != q.FirstRowIndex || p.CompressedPageSize != q.CompressedPageSize ||
				!bytes.Equal(src[p.Offset:p.Offset+int64(p.CompressedPageSize)], dst[q.Offset:q.Offset+int64(q.CompressedPageSize)]) {
				t.Fatalf("%s: the offset index leads elsewhere for page %d", where, i)
			}
			pages++
		}
	})
	if chunks := 9 * 18; pages <= chunks {
		t.Errorf("%d pages in %d chunks: none has several", pages, chunks)
	}
}

func locations(t *testing.T, b []byte, g *file.RowGroupReader, column int) []*metadata.PageLocation {
	t.Helper()
	at := chunkOf(t, g.MetaData(), column).GetOffsetIndexLocation()
	return metadata.NewOffsetIndex(b[at.Offset:at.Offset+int64(at.Length)], nil, nil).GetPageLocations()
}

// A reader finds a row in the output through its offset index.
func TestConcatPageIndexSeeks(t *testing.T) {
	files, want := mixed(t)
	out, _ := concat(t, files...)
	r := openArrow(t, out)
	row, sought := int64(0), 0
	for g := range r.NumRowGroups() {
		n := r.RowGroup(g).NumRows()
		for at := int64(0); at < n; at += max(1, n/7) {
			c, err := r.RowGroup(g).Column(0)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SeekToRow(at); err != nil {
				t.Fatalf("row group %d, row %d: %v", g, at, err)
			}
			values, levels := make([]parquet.ByteArray, 1), make([]int16, 1)
			if _, k, err := c.(*file.ByteArrayColumnChunkReader).ReadBatch(1, values, levels, nil); k != 1 || err != nil {
				t.Fatalf("row group %d, row %d: %d values, %v", g, at, k, err)
			}
			if got := string(values[0]); got != want[row+at][0].Value {
				t.Fatalf("row group %d, row %d is %s, want %s", g, at, got, want[row+at][0].Value)
			}
			sought++
		}
		row += n
	}
	if sought < 60 {
		t.Errorf("%d rows sought", sought)
	}
}

// foreignFile is a file of Arrow's own writer, with what ours leaves out.
func foreignFile(t *testing.T, first int, meta *arrow.Metadata, props ...parquet.WriterProperty) []byte {
	t.Helper()
	s := arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.BinaryTypes.String}, {Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true}}, meta)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for i := range 50 {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprint("key ", first+i))
		b.Field(1).(*array.Int32Builder).Append(int32(i))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	var buf bytes.Buffer
	props = append(props, parquet.WithCompression(compress.Codecs.Snappy))
	w, err := pqarrow.NewFileWriter(s, &buf, parquet.NewWriterProperties(props...), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Bloom filters move along with the data and still answer; files without page
// indexes stay without.
func TestConcatBloomFilters(t *testing.T) {
	filters := []parquet.WriterProperty{parquet.WithBloomFilterEnabledFor("k", true), parquet.WithBloomFilterNDVFor("k", 1000)}
	files := [][]byte{foreignFile(t, 0, nil, filters...), foreignFile(t, 100, nil), foreignFile(t, 200, nil, append(filters, parquet.WithPageIndexEnabled(true))...)}
	out, _ := concat(t, files...)
	r := openArrow(t, out)
	for g, first := range []int{0, 100, 200} {
		if has := chunkOf(t, r.RowGroup(g).MetaData(), 0).GetOffsetIndexLocation() != nil; has != (g == 2) {
			t.Errorf("row group %d has a page index: %v", g, has)
		}
		filter, err := r.GetBloomFilterReader().RowGroup(g)
		if err != nil {
			t.Fatal(err)
		}
		f, err := filter.GetColumnBloomFilter(0)
		if err != nil {
			t.Fatal(err)
		}
		if g == 1 {
			if f != nil {
				t.Error("a filter appeared")
			}
			continue
		}
		typed := metadata.TypedBloomFilter[parquet.ByteArray]{BloomFilter: f}
		for i := range 50 {
			if !typed.Check([]byte(fmt.Sprint("key ", first+i))) {
				t.Fatalf("row group %d: its filter denies key %d", g, first+i)
			}
		}
		false_ := 0
		for i := range 1000 {
			if typed.Check([]byte(fmt.Sprint("key ", 1000+i))) {
				false_++
			}
		}
		if false_ > 50 {
			t.Errorf("row group %d: its filter takes %d of 1000 foreign keys", g, false_)
		}
	}
}

func TestConcatKeyValues(t *testing.T) {
	pandas := arrow.NewMetadata([]string{"pandas"}, []string{`{"index_columns":[0]}`})
	keys := func(files ...[]byte) string {
		out, _ := concat(t, files...)
		return strings.Join(openArrow(t, out).MetaData().KeyValueMetadata().Keys(), " ")
	}
	plain, other := foreignFile(t, 0, nil), foreignFile(t, 0, &pandas)
	if got := keys(plain, plain); got != "ARROW:schema" {
		t.Errorf("equal schemas: %q", got)
	}
	if got := keys(plain, other, plain); got != "" {
		t.Errorf("different schemas: %q", got)
	}
	if got := keys(other, other); got != "ARROW:schema" {
		t.Errorf("what pandas says of one file's index is not true of two: %q", got)
	}
}

// output_hash can be recomputed by anybody who has the file and the sources'
// digests.
func TestConcatOutputHash(t *testing.T) {
	files, _ := mixed(t)
	out, plan := concat(t, files...)
	h := sha256.New()
	for _, b := range files {
		sum := sha256.Sum256(b)
		h.Write(sum[:])
	}
	n := int(binary.LittleEndian.Uint32(out[len(out)-8:]))
	h.Write(out[len(out)-8-n : len(out)-8])
	if got := hex.EncodeToString(h.Sum(nil)); got != plan.OutputHash {
		t.Errorf("%s, the plan says %s", got, plan.OutputHash)
	}
	files[0], files[1] = files[1], files[0]
	if _, other := concat(t, files...); other.OutputHash == plan.OutputHash {
		t.Error("the order of the sources does not count")
	}
}

func TestConcatRefusesUnlikeFiles(t *testing.T) {
	in := concatRows(1, 10)
	sound := concatFile(t, rows.WriterOptions{}, in)
	write := func(fields []rows.Field, opts rows.WriterOptions) []byte {
		var buf bytes.Buffer
		w, err := rows.NewWriter(&buf, rows.Schema{Fields: fields}, opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(rows.Row{{Name: "uri", Value: "x"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	edit := func(f func(fields []rows.Field) []rows.Field) []byte {
		return write(f(append([]rows.Field(nil), concatSchema.Fields...)), rows.WriterOptions{})
	}
	for name, tc := range map[string]struct {
		file []byte
		says string
	}{
		"another kind":   {edit(func(f []rows.Field) []rows.Field { f[2].Kind = rows.KindFloat; return f }), `"seq"`},
		"text as bytes":  {edit(func(f []rows.Field) []rows.Field { f[3].Kind = rows.KindBytes; return f }), `"text"`},
		"another name":   {edit(func(f []rows.Field) []rows.Field { f[4].Name = "tongue"; return f }), `"tongue"`},
		"another order":  {edit(func(f []rows.Field) []rows.Field { f[3], f[4] = f[4], f[3]; return f }), `"lang"`},
		"one less":       {edit(func(f []rows.Field) []rows.Field { return f[:8] }), "8 columns"},
		"another writer": {rewrite(t, sound, func(meta rows.Compact) rows.Compact { return meta.Set(6, rows.CompactBinary, []byte("\x04moss")) }), `"moss"`},
		"a future field": {rewrite(t, sound, func(meta rows.Compact) rows.Compact { return meta.SetInt(12, rows.CompactI64, 4) }), "field 12"},
		"encrypted":      {rewrite(t, sound, func(meta rows.Compact) rows.Compact { return meta.Set(8, rows.CompactStruct, []byte{0}) }), "encrypted"},
		"other orders":   {rewrite(t, sound, func(meta rows.Compact) rows.Compact { return meta.Drop(7) }), "ordered otherwise"},
	} {
		sources := sourcesOf(t, [][]byte{sound, tc.file})
		sources[1].Rows = int64(len(in))
		if f, err := rows.Open(bytes.NewReader(tc.file), int64(len(tc.file))); err == nil {
			sources[1].Rows = f.Rows()
		}
		_, err := planOf(sources, [][]byte{sound, tc.file})
		if !errors.Is(err, aggregator.ErrUnlike) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "file-1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A newer minor version of the same writer is of the same class.
	minor := rewrite(t, sound, func(meta rows.Compact) rows.Compact {
		by, _ := meta.Text(6)
		by += "7"
		return meta.Set(6, rows.CompactBinary, append([]byte{byte(len(by))}, by...))
	})
	concat(t, sound, minor)
}

// rewrite gives the file another footer.
func rewrite(t testing.TB, b []byte, f func(meta rows.Compact) rows.Compact) []byte {
	t.Helper()
	footer, err := rows.ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	raw := f(footer.Meta).Append(nil)
	out := append(append([]byte(nil), b[:footer.At]...), raw...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(raw)))
	return append(out, "PAR1"...)
}

// Row groups are numbered in 16 bits, or not at all.
func TestConcatManyRowGroups(t *testing.T) {
	var buf bytes.Buffer
	w, err := rows.NewWriter(&buf, rows.Schema{Fields: []rows.Field{{Name: "n", Kind: rows.KindInt}}}, rows.WriterOptions{GroupRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 330 {
		if err := w.Append(rows.Row{{Name: "n", Value: i}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const copies = 100
	files := make([][]byte, copies)
	for i := range files {
		files[i] = buf.Bytes()
	}
	out, plan := concat(t, files...)
	if plan.RowGroups != 33_000 {
		t.Fatal(plan.RowGroups)
	}
	if err := rows.Verify(bytes.NewReader(out), plan.Bytes, 33_000, plan.RowHash); err != nil {
		t.Fatal(err)
	}
	numbered := func(b []byte) (n int) {
		f, err := rows.ReadFooter(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		if err := f.Meta.Structs(4, func(g rows.Compact, _ []byte) error {
			if _, ok := g.Get(7); ok {
				if x, _ := g.Int(7); x != int64(i) {
					return fmt.Errorf("row group %d has the number %d", i, x)
				}
				n++
			}
			i++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := numbered(out); n != 0 {
		t.Errorf("%d of 33,000 row groups are numbered", n)
	}
	out, _ = concat(t, files[:90]...)
	if n := numbered(out); n != 29_700 {
		t.Errorf("%d of 29,700 row groups are numbered", n)
	}
}

// A source that is cut is refused without being read, and most damage of a footer
// too; what does not show is in statistics, names and the like, and is found when the
// output is read back.
func TestConcatDamagedSources(t *testing.T) {
	sound := concatFile(t, rows.WriterOptions{GroupRows: 200}, concatRows(1, 500))
	victim := concatFile(t, rows.WriterOptions{GroupRows: 100}, concatRows(2, 300))
	sources := []aggregator.Source{sourceOf(t, "sound", sound), sourceOf(t, "victim", victim)}
	try := func(b []byte) error {
		_, err := planOf(sources, [][]byte{sound, b})
		if err != nil && (!strings.Contains(err.Error(), "victim") || !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, aggregator.ErrUnlike)) {
			t.Fatal(err)
		}
		return err
	}
	for n := 0; n < len(victim); n += 1 + len(victim)/53 {
		if err := try(victim[:n]); err == nil {
			t.Errorf("a source cut to %d of %d bytes is accepted", n, len(victim))
		}
	}
	footer := len(victim) - 8 - int(binary.LittleEndian.Uint32(victim[len(victim)-8:]))
	rng := rand.New(rand.NewPCG(5, 5))
	const tries = 400
	refused := 0
	for range tries {
		b := append([]byte(nil), victim...)
		for range 1 + rng.IntN(3) {
			b[footer+rng.IntN(len(b)-footer)] ^= byte(1 + rng.IntN(255))
		}
		if try(b) != nil {
			refused++
		}
	}
	if refused*2 < tries {
		t.Errorf("%d of %d damaged footers are refused", refused, tries)
	}
}

// A footer may not lead a reader of the output outside the source it came with.
func TestConcatHostileOffsets(t *testing.T) {
	sound := concatFile(t, rows.WriterOptions{}, concatRows(1, 50))
	chunk := func(f func(chunk, meta rows.Compact) (rows.Compact, rows.Compact)) []byte {
		return rewrite(t, sound, func(meta rows.Compact) rows.Compact {
			var groups []byte
			if err := meta.Structs(4, func(g rows.Compact, _ []byte) error {
				columns, list := 0, []byte(nil)
				if err := g.Structs(1, func(c rows.Compact, _ []byte) error {
					if columns++; columns == 1 {
						m, err := c.Struct(3)
						if err != nil {
							return err
						}
						c, m = f(c, m)
						c = c.Set(3, rows.CompactStruct, m.Append(nil))
					}
					list = c.Append(list)
					return nil
				}); err != nil {
					return err
				}
				groups = g.Set(1, rows.CompactList, append(rows.AppendCompactList(nil, rows.CompactStruct, columns), list...)).Append(groups)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return meta.Set(4, rows.CompactList, append(rows.AppendCompactList(nil, rows.CompactStruct, 1), groups...))
		})
	}
	const far = 1 << 50
	for name, b := range map[string][]byte{
		"data before the file": chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, m.SetInt(9, rows.CompactI64, -1) }),
		"data beyond the file": chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, m.SetInt(9, rows.CompactI64, far) }),
		"dictionary beyond":    chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, m.SetInt(11, rows.CompactI64, far) }),
		"chunk too long":       chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, m.SetInt(7, rows.CompactI64, far) }),
		"chunk below nothing":  chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, m.SetInt(7, rows.CompactI64, -5) }),
		"bloom filter beyond":  chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, m.SetInt(14, rows.CompactI64, far) }),
		"column index beyond":  chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c.SetInt(6, rows.CompactI64, far), m }),
		"offset index beyond":  chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c.SetInt(4, rows.CompactI64, far), m }),
		"offset index too long": chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) {
			return c.SetInt(5, rows.CompactI32, 1<<30), m
		}),
		"an index elsewhere": chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c.SetInt(4, rows.CompactI64, 40), m }),
		"no metadata":        chunk(func(c, m rows.Compact) (rows.Compact, rows.Compact) { return c, rows.Compact{} }),
	} {
		s := sourceOf(t, "hostile", b)
		s.Rows = 50
		if _, err := planOf([]aggregator.Source{s}, [][]byte{b}); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConcatErrors(t *testing.T) {
	b := concatFile(t, rows.WriterOptions{}, concatRows(1, 50))
	if _, err := planOf(nil, nil); err == nil {
		t.Error("no sources make a file")
	}
	fewer := sourceOf(t, "a", b)
	fewer.Rows--
	if _, err := planOf([]aggregator.Source{fewer}, [][]byte{b}); !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("a row that its commit does not know: %v", err)
	}
	vague := sourceOf(t, "a", b)
	vague.SHA256 = "abc"
	if _, err := planOf([]aggregator.Source{vague}, [][]byte{b}); err == nil {
		t.Error("a source without a digest is taken")
	}
}

// What is held of a source is its footer: about a kilobyte for a row group
// of nine columns, whatever its size.
func TestConcatMemory(t *testing.T) {
	b := concatFile(t, rows.WriterOptions{}, concatRows(1, 5000))
	const n = 1000
	sources := make([]aggregator.Source, n)
	one := sourceOf(t, "one", b)
	footers := make([]aggregator.SourceFooter, n)
	before := liveHeap()
	for i := range sources {
		sources[i] = one
		var err error
		if footers[i], err = aggregator.ReadSourceFooter(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
	held := (liveHeap() - before) / n
	plan, err := aggregator.PlanConcat(sources, footers)
	if err != nil {
		t.Fatal(err)
	}
	tail := len(plan.Tail) / n
	t.Logf("%d bytes a source held, %d of the output's tail, of %d of the source", held, tail, len(b))
	if held <= 0 || held > 4096 || tail > 4096 {
		t.Errorf("%d bytes a source are held, %d of the tail", held, tail)
	}
	runtime.KeepAlive(footers)
}

func liveHeap() int64 {
	for range 3 { // twice for what lies in pools
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
