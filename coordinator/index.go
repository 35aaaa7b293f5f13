package coordinator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync"

	"hayrick"
	"hayrick/manifest"
)

const (
	// MaxLineBytes is the longest line an input may have.
	MaxLineBytes = 256 << 20
	// MaxBatchBytes is the longest batch: a worker reads and hashes a batch whole
	// before it hands out its first item.
	MaxBatchBytes = 1 << 30

	// Read-ahead: enough that a thread which loses its core for a moment stops nobody,
	// small enough for the caches. Few items a batch mean many pieces a chunk, and so
	// smaller chunks.
	chunkCount     = 24
	maxChunkBytes  = 256 << 10
	chunkItemBytes = 4 << 10
	chunkBatches   = 2 << 10 // that batch.bytes alone may cut of one chunk
	maxHashers     = 8
)

// Indexer cuts a JSONL stream into batches: byte ranges with a SHA-256 each. It
// finds records and hashes them and does not parse. A record is a line that holds
// more than white space (manifest.TrimRecord), the last line with or without its
// newline; a UTF-8 byte order mark at the start is skipped. What it cuts,
// manifest.OpenBatch opens.
//
// A batch begins at the first byte of its first record and ends behind the newline
// of its last one, so that blank lines lie within batches or between them; only the
// last batch, when it is not full, ends with the stream.
//
// Memory does not grow with the stream, its lines or the number of batches.
type Indexer struct {
	Object   string                      // what the batches and errors name
	Version  string                      // of it, for the batches
	First    int64                       // the ordinal of the first item
	Items    int                         // items a batch, at least 1
	Bytes    int64                       // a batch also ends with the record in which it reaches so many; 0 = any
	Limit    int64                       // only the first n items; 0 = all
	Go       func(name string, f func()) // World.Go
	Progress func(bytes, items int64)    // after each chunk, from one goroutine; may be nil

	free chan *chunk // what x.chunks() made; nil = made for this stream

	// For tests; 0 = as the constants say.
	maxLine, maxBatch int64
	chunk             int
}

// Indexed says what an Indexer read: up to the end of the stream, or to the chunk
// in which Limit was reached.
type Indexed struct {
	Bytes int64
	Items int64
}

// Index reads r to its end and calls emit with each batch, in order, from the
// caller's goroutine; BatchID is left to the group writer. One goroutine reads and
// finds lines, others hash, and emit runs beside them. When emit fails or ctx ends,
// Index waits for a Read that is under way, so r must give up with ctx. A line or
// batch over its limit is a *hayrick.UserError.
func (x Indexer) Index(ctx context.Context, r io.Reader, emit func(manifest.Batch) error) (Indexed, error) {
	if x.Items < 1 {
		return Indexed{}, &hayrick.UserError{What: fmt.Sprintf("batch.items is %d", x.Items), Hint: "set it to 1 or more"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	// All chunks there are fit into each channel, so that only waiting for a free
	// chunk ever blocks.
	free := x.free
	if free == nil {
		free = x.chunks()
	}
	work := make(chan *chunk, chunkCount)
	ordered := make(chan *chunk, chunkCount)

	var running sync.WaitGroup
	start := func(name string, f func()) {
		running.Add(1)
		x.Go(name, func() { defer running.Done(); f() })
	}
	s := newScanner(x)
	start("index read", func() {
		defer close(ordered)
		defer close(work)
		if err := s.run(ctx, r, free, work, ordered); err != nil {
			cancel(err)
		}
	})
	for range min(runtime.GOMAXPROCS(0), maxHashers) {
		start("index hash", func() {
			for c := range work {
				c.hash(ctx)
				c.hashed <- struct{}{}
			}
		})
	}
	digits := make([]byte, 0, 2*sha256.Size)
	for c := range ordered {
		<-c.hashed
		for i, p := range c.pieces {
			if !p.last || ctx.Err() != nil {
				continue
			}
			if err := emit(manifest.Batch{
				Object: x.Object, Version: x.Version, Offset: p.offset, Length: p.length,
				FirstOrdinal: x.First + p.ordinal, FirstLine: p.line, Items: p.items,
				SHA256: string(hex.AppendEncode(digits[:0], c.sums[i][:])),
			}); err != nil {
				cancel(err)
			}
		}
		free <- c
	}
	running.Wait()
	return Indexed{Bytes: s.at, Items: s.items}, context.Cause(ctx)
}

// chunks is the memory of an Indexer; after an Index without an error it is whole
// again, for the next.
func (x Indexer) chunks() chan *chunk {
	free := make(chan *chunk, chunkCount)
	size := chunkItemBytes * min(x.Items, maxChunkBytes/chunkItemBytes)
	if x.Bytes > 0 && x.Bytes < int64(size)/chunkBatches {
		size = max(chunkItemBytes, int(x.Bytes)*chunkBatches)
	}
	if x.chunk > 0 {
		size = x.chunk
	}
	for range chunkCount {
		free <- &chunk{buf: make([]byte, size), hashed: make(chan struct{}, 1)}
	}
	return free
}

// chunk is a stretch of the stream with the pieces of batches that lie in it, one a
// batch.
type chunk struct {
	buf    []byte
	data   []byte // what was read of buf
	pieces []piece
	sums   [][sha256.Size]byte // of the batches that end here, beside their pieces
	hashed chan struct{}       // a token once sums are there

	// The hash of a batch that goes on over the chunk's end is passed along: in is
	// nil unless the first piece continues a batch, out unless the last one is continued.
	in  <-chan hash.Hash
	out chan hash.Hash
}

// piece is the part of a batch that lies in one chunk: data[from:to]. The last one
// of a batch carries what the batch is.
type piece struct {
	from, to int
	last     bool
	extent
}

// extent is a batch without its digest.
type extent struct {
	offset, length int64
	ordinal, line  int64 // of the first item
	items          int
}

// scanner finds lines and cuts batches.
type scanner struct {
	x     Indexer
	at    int64 // bytes of the stream before the chunk in hand
	items int64

	line    int64 // the number of the line in hand, from 1
	lineAt  int64 // where it begins
	content bool  // it holds more than white space

	open  bool // a batch is open
	batch extent
}

func newScanner(x Indexer) *scanner {
	if x.maxLine == 0 {
		x.maxLine = MaxLineBytes
	}
	if x.maxBatch == 0 {
		x.maxBatch = MaxBatchBytes
	}
	return &scanner{x: x, line: 1}
}

// run fills free chunks from r, cuts them and passes them on, to the hashers and to
// the caller.
func (s *scanner) run(ctx context.Context, r io.Reader, free <-chan *chunk, work, ordered chan<- *chunk) error {
	var carry chan hash.Hash
	for end := false; !end; {
		var c *chunk
		select {
		case c = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := fill(r, c.buf)
		if end = err == io.EOF; err != nil && !end {
			return fmt.Errorf("read %s: %w", s.x.Object, err)
		}
		c.data, c.pieces = c.buf[:n], c.pieces[:0]
		full, err := s.scan(c)
		if err != nil {
			return err
		}
		if end = end || full; end && !full {
			s.finish(c)
		}
		s.at += int64(n)
		if s.x.Progress != nil {
			s.x.Progress(s.at, s.items)
		}
		c.in, c.out = carry, nil
		if s.open {
			c.out = make(chan hash.Hash, 1)
		}
		carry = c.out
		work <- c
		ordered <- c
	}
	return nil
}

// fill reads until buf is full. Unlike io.ReadFull it tells the end of the stream
// (io.EOF, perhaps with bytes) from a body that was cut (io.ErrUnexpectedEOF, which
// is r's own).
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// scan cuts one chunk; full says that the limit of items is reached. There is no
// allocation per line, and no byte is looked at twice but by IndexByte.
func (s *scanner) scan(c *chunk) (full bool, err error) {
	data, p, from := c.data, 0, 0
	if s.at == 0 && bytes.HasPrefix(data, byteOrderMark) {
		p = len(byteOrderMark)
	}
	for p < len(data) {
		i := bytes.IndexByte(data[p:], '\n')
		end := p + i
		if i < 0 {
			end = len(data)
		}
		if !s.content {
			if k := firstContent(data[p:end]); k >= 0 {
				s.content = true
				if !s.open {
					from = p + k
					s.open = true
					s.batch = extent{offset: s.at + int64(from), ordinal: s.items, line: s.line}
				}
			}
		}
		if s.at+int64(end)-s.lineAt > s.x.maxLine {
			return false, &hayrick.UserError{
				What: fmt.Sprintf("%s:%d is longer than %d bytes", s.x.Object, s.line, s.x.maxLine),
				Hint: "an input is one JSON value a line; check that it has newlines",
			}
		}
		if i < 0 {
			break // the line goes on in the next chunk
		}
		p = end + 1
		if s.content {
			full = s.record()
			if full || s.batch.items == s.x.Items || s.x.Bytes > 0 && s.at+int64(p)-s.batch.offset >= s.x.Bytes {
				c.pieces = append(c.pieces, s.close(from, p))
			}
		}
		s.line++
		s.lineAt, s.content = s.at+int64(p), false
		if full {
			return true, nil
		}
	}
	if s.open {
		c.pieces = append(c.pieces, piece{from: from, to: len(data)})
		if n := s.at + int64(len(data)) - s.batch.offset; n > s.x.maxBatch {
			return false, &hayrick.UserError{
				What: fmt.Sprintf("the batch of %d items at %s:%d is longer than %d bytes", s.x.Items, s.x.Object, s.batch.line, s.x.maxBatch),
				Hint: "a worker holds a batch in memory: lower batch.items, or write batch.bytes: 64MiB",
			}
		}
	}
	return false, nil
}

// record counts the record in hand and says whether it is the last one wanted.
func (s *scanner) record() bool {
	s.items++
	s.batch.items++
	return s.items == s.x.Limit
}

// close ends the open batch at data[to].
func (s *scanner) close(from, to int) piece {
	s.open = false
	s.batch.length = s.at + int64(to) - s.batch.offset
	return piece{from: from, to: to, last: true, extent: s.batch}
}

// finish ends the stream, of which c was the last chunk: a line without newline is
// a record too, and the batch that is open ends here.
func (s *scanner) finish(c *chunk) {
	if s.content {
		s.record()
	}
	if s.open {
		i := len(c.pieces) - 1
		c.pieces[i] = s.close(c.pieces[i].from, c.pieces[i].to)
	}
}

// firstContent is the index of the first byte that TrimRecord would keep, or -1.
func firstContent(line []byte) int {
	for i, b := range line {
		if b != ' ' && b != '\t' && b != '\r' {
			return i
		}
	}
	return -1
}

// hash hashes the pieces of c. It waits for nothing but the chunk before, and for
// that one last, so hashers that take chunks in order cannot block each other.
func (c *chunk) hash(ctx context.Context) {
	c.sums = slices.Grow(c.sums[:0], len(c.pieces))[:len(c.pieces)]
	for i, p := range slices.Backward(c.pieces) {
		data := c.data[p.from:p.to]
		switch {
		case i == 0 && c.in != nil:
			select {
			case h := <-c.in:
				h.Write(data)
				if p.last {
					h.Sum(c.sums[i][:0])
				} else {
					c.out <- h
				}
			case <-ctx.Done():
			}
		case p.last:
			c.sums[i] = sha256.Sum256(data)
		default:
			h := sha256.New()
			h.Write(data)
			c.out <- h
		}
	}
}
