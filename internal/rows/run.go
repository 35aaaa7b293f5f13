package rows

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/klauspost/compress/s2"

	"hayrick"
)

// A run is a file of rows in the order of their keys and, of one key, of their
// places. It is what a sort leaves behind: spilled to scratch, or stored for those
// who merge ranges of keys of many runs. In it are
//
//	blocks   entries of about runBlock bytes, compressed by S2
//	index    of each block: its size, its rows, the SHA-256 of its bytes, its first key
//	tail     length of the index (8 bytes, little endian), the magic number
//
// An entry is the lengths of its key and of its record (4 bytes each), its item, its
// place within the item (8 bytes each), all little endian, the hash of its row (16
// bytes, big endian), its key, its record. Who knows the SHA-256 of the index can read a
// range of keys and check every byte of it.

// Entry is a row with its key and its place: the ordinal of its item, and how many
// rows of it were emitted before. Hash is that of the row, made when it was decoded from
// the file that its worker left: it goes with the row, so that who copies or drops the
// row need not make it again.
type Entry struct {
	Key     []byte
	Item    int64
	Place   int64
	Hash    Hash
	Record  []byte
	encoded []byte // all of it as it stands in a run
}

// Compare orders entries by key, item and place.
func (e *Entry) Compare(f *Entry) int {
	if c := bytes.Compare(e.Key, f.Key); c != 0 {
		return c
	}
	return e.comparePlace(f)
}

func (e *Entry) comparePlace(f *Entry) int {
	switch {
	case e.Item != f.Item:
		return sign(e.Item < f.Item)
	case e.Place != f.Place:
		return sign(e.Place < f.Place)
	}
	return 0
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

// Size is the number of bytes that the entry takes.
func (e *Entry) Size() int { return len(e.encoded) }

// AppendTo appends the entry, as DecodeEntry reads it, to dst.
func (e *Entry) AppendTo(dst []byte) []byte { return append(dst, e.encoded...) }

// EntryHead is how many bytes of an entry lie before its key.
const EntryHead = 4 + 4 + 8 + 8 + hashBytes

// putEntryHead fills in the head of an entry.
func putEntryHead(b []byte, key, record int, item, place int64, h Hash) {
	binary.LittleEndian.PutUint32(b, uint32(key))
	binary.LittleEndian.PutUint32(b[4:], uint32(record))
	binary.LittleEndian.PutUint64(b[8:], uint64(item))
	binary.LittleEndian.PutUint64(b[16:], uint64(place))
	h.put(b[24:])
}

// EntrySize is how many bytes the entry of row r of a batch has. One that is too large is
// refused.
func EntrySize(k *Keyer, b *Batch, r int) (int, error) {
	return entrySize(k.size(b, r), b.recordSize(r))
}

// EntrySizeOf is EntrySize of one that is there in pieces.
func EntrySizeOf(key, record []byte) (int, error) { return entrySize(len(key), len(record)) }

func entrySize(key, record int) (int, error) {
	n := EntryHead + key + record
	if n > maxEntry {
		return 0, fmt.Errorf("a row of %d bytes, with its key, cannot be sorted: %w", n, ErrRow)
	}
	return n, nil
}

// AppendEntry appends the entry of row r of a batch, whose hashes are noted, to dst, and
// says where in dst its key ends.
func AppendEntry(dst []byte, k *Keyer, b *Batch, r int, item, place int64) (_ []byte, keyEnd int) {
	at := len(dst)
	var head [EntryHead]byte
	dst = k.Append(append(dst, head[:]...), b, r)
	keyEnd = len(dst)
	dst = b.AppendRecord(dst, r)
	putEntryHead(dst[at:], keyEnd-at-EntryHead, len(dst)-keyEnd, item, place, b.Hashes[r])
	return dst, keyEnd
}

// AppendEntryOf is AppendEntry of one that is there in pieces.
func AppendEntryOf(dst, key []byte, item, place int64, h Hash, record []byte) (_ []byte, keyEnd int) {
	var head [EntryHead]byte
	putEntryHead(head[:], len(key), len(record), item, place, h)
	dst = append(append(dst, head[:]...), key...)
	return append(dst, record...), len(dst)
}

// DecodeEntry reads the entry at the front of b, which it aliases.
func DecodeEntry(b []byte) (e Entry, err error) {
	if len(b) >= EntryHead {
		key := EntryHead + uint64(binary.LittleEndian.Uint32(b))
		end := key + uint64(binary.LittleEndian.Uint32(b[4:]))
		e.Item, e.Place = int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:]))
		if end <= uint64(len(b)) && e.Item >= 0 && e.Place >= 0 {
			e.Hash = getHash(b[24:])
			e.Key, e.Record, e.encoded = b[EntryHead:key:key], b[key:end:end], b[:end:end]
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("an entry of a run: %w", hayrick.ErrCorrupt)
}

const (
	runMagic  = "HAYRUN2\n"
	runBlock  = 256 << 10         // of entries before compression, or one entry
	runKeyMax = KeyBound + 16     // of a first key in the index: longer than any bound
	maxEntry  = MaxValueBytes * 4 // a key, and a record of some columns; a length of it fits 4 bytes
)

// RunWriter writes a run. Entries must come in order.
type RunWriter struct {
	w     io.Writer
	sha   hash.Hash // nil: nobody asks
	block []byte    // of the block in the making
	first []byte    // its first key, cut
	rows  int64     // of it
	all   int64
	out   []byte // scratch
	index []byte
	count int
	size  int64
	err   error
}

// NewRunWriter writes to w. digest says that the SHA-256 of the file is wanted.
func NewRunWriter(w io.Writer, digest bool) *RunWriter {
	r := &RunWriter{w: w}
	if digest {
		r.sha = sha256.New()
	}
	return r
}

// Add appends an entry.
func (w *RunWriter) Add(e *Entry) error {
	if w.err != nil {
		return w.err
	}
	if len(w.block) > 0 && len(w.block)+len(e.encoded) > runBlock {
		if w.err = w.flush(w.block); w.err != nil {
			return w.err
		}
	}
	if len(w.block) == 0 {
		w.first = append(w.first[:0], e.Key[:min(len(e.Key), runKeyMax)]...)
	}
	w.rows++
	if len(e.encoded) > runBlock { // a block of its own, from where it lies
		w.err = w.flush(e.encoded)
		return w.err
	}
	w.block = append(w.block, e.encoded...)
	return nil
}

func (w *RunWriter) write(p []byte) error {
	if w.sha != nil {
		w.sha.Write(p)
	}
	w.size += int64(len(p))
	_, err := w.w.Write(p)
	return err
}

// flush writes a block.
func (w *RunWriter) flush(block []byte) error {
	if len(block) == 0 {
		return nil
	}
	if n := s2.MaxEncodedLen(len(block)); n < 0 {
		return fmt.Errorf("write a run: a block of %d bytes: %w", len(block), ErrRow)
	} else if cap(w.out) < n {
		w.out = make([]byte, n)
	}
	b := s2.Encode(w.out[:cap(w.out)], block)
	sum := sha256.Sum256(b)
	w.index = binary.AppendUvarint(w.index, uint64(len(b)))
	w.index = binary.AppendUvarint(w.index, uint64(len(block)))
	w.index = binary.AppendUvarint(w.index, uint64(w.rows))
	w.index = append(w.index, sum[:]...)
	w.index = binary.AppendUvarint(w.index, uint64(len(w.first)))
	w.index = append(w.index, w.first...)
	w.count++
	w.all += w.rows
	w.rows, w.block = 0, w.block[:0]
	if cap(w.out) > 4*runBlock { // of a huge entry
		w.out = nil
	}
	return w.write(b)
}

// RunSummary is what a run holds.
type RunSummary struct {
	Rows        int64
	Bytes       int64
	SHA256      string // "" unless it was asked for
	IndexSHA256 string
}

// Close writes what is left and the index.
func (w *RunWriter) Close() (RunSummary, error) {
	if w.err == nil {
		w.err = w.flush(w.block)
	}
	if w.err != nil {
		return RunSummary{}, w.err
	}
	head := binary.AppendUvarint(nil, uint64(w.count))
	w.index = append(head, w.index...)
	sum := sha256.Sum256(w.index)
	n := len(w.index)
	w.index = binary.LittleEndian.AppendUint64(w.index, uint64(n))
	if err := w.write(append(w.index, runMagic...)); err != nil {
		return RunSummary{}, err
	}
	s := RunSummary{Rows: w.all, Bytes: w.size, IndexSHA256: hex.EncodeToString(sum[:])}
	if w.sha != nil {
		s.SHA256 = hex.EncodeToString(w.sha.Sum(nil))
	}
	return s, nil
}

// Run is a run that is read.
type Run struct {
	r      io.ReaderAt
	blocks []runBlockAt
}

type runBlockAt struct {
	at, size, raw, rows int64
	sha                 [sha256.Size]byte
	first               []byte
}

// OpenRun reads the index of a run of size bytes; indexSHA, when it is not "", is the
// SHA-256 that it must have. Damage is a hayrick.ErrCorrupt.
func OpenRun(r io.ReaderAt, size int64, indexSHA string) (*Run, error) {
	bad := func(what string) error { return fmt.Errorf("open run: %s: %w", what, hayrick.ErrCorrupt) }
	const tail = 8 + int64(len(runMagic))
	if size < tail {
		return nil, bad(fmt.Sprintf("%d bytes", size))
	}
	end := make([]byte, min(size, 64<<10))
	if err := readAt(r, end, size-int64(len(end))); err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	if string(end[len(end)-len(runMagic):]) != runMagic {
		return nil, bad("not a run, or not all of it")
	}
	n := int64(binary.LittleEndian.Uint64(end[len(end)-int(tail):]))
	if n < 1 || n > size-tail {
		return nil, bad("an index longer than the file")
	}
	index := end
	if n+tail <= int64(len(end)) {
		index = end[int64(len(end))-tail-n : int64(len(end))-tail]
	} else {
		index = make([]byte, n)
		if err := readAt(r, index, size-tail-n); err != nil {
			return nil, fmt.Errorf("open run: %w", err)
		}
	}
	if sum := sha256.Sum256(index); indexSHA != "" && hex.EncodeToString(sum[:]) != indexSHA {
		return nil, bad("its index is not the one that was written")
	}
	run := &Run{r: r}
	d := decoder{b: index}
	count := d.uvarint()
	if count > uint64(len(index)/sha256.Size) {
		return nil, bad("more blocks than its index")
	}
	run.blocks = make([]runBlockAt, 0, count)
	at := int64(0)
	for range count {
		b := runBlockAt{at: at, size: int64(d.uvarint()), raw: int64(d.uvarint()), rows: int64(d.uvarint())}
		copy(b.sha[:], d.take(sha256.Size))
		b.first = slices.Clone(d.bytes(runKeyMax))
		if d.bad || b.size < 1 || b.raw < 1 || b.raw > maxEntry+runBlock || b.rows < 1 || b.rows > b.raw || b.size > size-tail-n-at {
			return nil, bad("its index")
		}
		if k := len(run.blocks); k > 0 && bytes.Compare(b.first, run.blocks[k-1].first) < 0 {
			return nil, bad("its blocks are out of order")
		}
		at += b.size
		run.blocks = append(run.blocks, b)
	}
	if len(d.b) > 0 || at != size-tail-n {
		return nil, bad("its index does not fit its blocks")
	}
	return run, nil
}

// Within is the run without what has no keys of the range [lo, hi); nil is no bound.
func (r *Run) Within(lo, hi []byte) *Run {
	from, to := r.within(lo, hi)
	return &Run{r: r.r, blocks: slices.Clone(r.blocks[from:to])}
}

// Largest is the size of the largest block; 0 = there is none.
func (r *Run) Largest() (n int64) {
	for _, b := range r.blocks {
		n = max(n, b.raw)
	}
	return n
}

// Rows is how many rows the blocks hold.
func (r *Run) Rows() (n int64) {
	for _, b := range r.blocks {
		n += b.rows
	}
	return n
}

// within are the blocks that may hold keys of a range; nil is no bound.
func (r *Run) within(lo, hi []byte) (from, to int) {
	to = len(r.blocks)
	if hi != nil {
		to, _ = slices.BinarySearchFunc(r.blocks, hi, func(b runBlockAt, k []byte) int { return bytes.Compare(b.first, k) })
	}
	if lo != nil {
		from, _ = slices.BinarySearchFunc(r.blocks, lo, func(b runBlockAt, k []byte) int { return bytes.Compare(b.first, k) })
		from = max(0, from-1) // the block before may reach into the range
	}
	return from, max(from, to)
}

// RunCursor reads the entries of a range of keys, in order. It holds one block.
type RunCursor struct {
	run    *Run
	lo, hi []byte
	next   int // block
	to     int
	packed []byte
	block  []byte
	left   []byte // of block
	rows   int64  // left in it
	last   Entry  // given out last, to see the order held
	prev   []byte // its key, when it was of the block before
	err    error
}

// Scan reads the entries whose keys are at least lo and below hi; nil is no bound.
func (r *Run) Scan(lo, hi []byte) *RunCursor {
	c := &RunCursor{run: r, lo: lo, hi: hi}
	c.next, c.to = r.within(lo, hi)
	return c
}

// Next is the next entry, valid until the next call, or io.EOF.
func (c *RunCursor) Next() (*Entry, error) {
	for c.err == nil {
		if len(c.left) == 0 {
			c.err = c.open()
			continue
		}
		var e Entry
		if e, c.err = DecodeEntry(c.left); c.err != nil {
			break
		}
		if c.rows == 0 || c.last.encoded != nil && e.Compare(&c.last) <= 0 {
			c.err = fmt.Errorf("read a run: its entries are out of order: %w", hayrick.ErrCorrupt)
			break
		}
		c.left = c.left[len(e.encoded):]
		c.rows--
		c.last = e
		if c.lo != nil && bytes.Compare(e.Key, c.lo) < 0 {
			continue
		}
		if c.hi != nil && bytes.Compare(e.Key, c.hi) >= 0 {
			c.err = io.EOF
			break
		}
		return &c.last, nil
	}
	c.packed, c.block, c.left = nil, nil, nil
	return nil, c.err
}

// open reads the next block and checks it.
func (c *RunCursor) open() error {
	if c.rows != 0 {
		return fmt.Errorf("read a run: a block with too few entries: %w", hayrick.ErrCorrupt)
	}
	if c.next == c.to {
		return io.EOF
	}
	b := c.run.blocks[c.next]
	c.next++
	if c.last.encoded != nil { // its memory is about to be used again
		c.prev = append(c.prev[:0], c.last.Key...)
		c.last = Entry{Key: c.prev, Item: c.last.Item, Place: c.last.Place, encoded: c.prev}
	}
	if int64(cap(c.packed)) < b.size {
		c.packed = make([]byte, b.size)
	}
	p := c.packed[:b.size]
	if err := readAt(c.run.r, p, b.at); err != nil {
		return fmt.Errorf("read a run: %w", err)
	}
	if sha256.Sum256(p) != b.sha {
		return fmt.Errorf("read a run: the block at %d has changed: %w", b.at, hayrick.ErrCorrupt)
	}
	if n, err := s2.DecodedLen(p); err != nil || int64(n) != b.raw {
		return fmt.Errorf("read a run: the block at %d: %w", b.at, hayrick.ErrCorrupt)
	}
	if int64(cap(c.block)) < b.raw {
		c.block = make([]byte, b.raw)
	}
	raw, err := s2.Decode(c.block[:b.raw], p)
	if err != nil {
		return fmt.Errorf("read a run: the block at %d: %v: %w", b.at, err, hayrick.ErrCorrupt)
	}
	c.left, c.rows = raw, b.rows
	if b.size > 4*runBlock {
		c.packed = nil
	}
	return nil
}
