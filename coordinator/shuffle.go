package coordinator

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"hayrick"
	"hayrick/internal/records"
	"hayrick/manifest"
)

// Shuffling in bounded memory: so many bytes of records are put in order at a time,
// and as many are read ahead when those runs are merged.
const (
	shuffleRun   = 64 << 20
	shuffleAhead = 32 << 20
	leastAhead   = 4 << 10 // of one run; of a terabyte of input these are 64 MiB
	shuffleEntry = 16      // what a record takes beside its bytes
)

// shuffled makes the input one source of JSON lines that stand in the order of the run,
// where the job file asks for that; any other stays what it is. The order follows from
// the run's id alone, and nothing of it is in the store yet: a crash leaves nothing, and
// who comes back makes the same bytes again.
func (c *Coordinator) shuffled(ctx context.Context, s Submission, jobID string, src *source) (*source, error) {
	if s.Definition.Batch.Order != hayrick.OrderShuffle {
		return src, nil
	}
	lines, items, err := c.inOrder(ctx, s, src)
	if err != nil {
		return nil, err
	}
	defer func() { lines.Close() }()
	if items == 0 {
		return nil, noItems(src, s.Definition.Input.Format)
	}
	out := &source{id: src.id}
	if out.id.URI == "" { // what the handler listed is known by its digest
		out.id.Pin.ETag = digestTag + src.id.SHA256
	}
	a := &arranger{order: manifest.ShuffleOf(jobID).Order(items), most: shuffleRun, file: func() (*os.File, error) { return c.scratchFile("shuffle") }}
	defer a.close()
	if err := a.take(ctx, lines); err != nil {
		return nil, fmt.Errorf("shuffle the input: %w", err)
	}
	lines.Close() // its space is free for what comes
	if err := c.spoolFrom(ctx, out, func(w io.Writer) error { return a.write(ctx, w) }); err != nil {
		return nil, fmt.Errorf("shuffle the input: %w", err)
	}
	return out, nil
}

// inOrder writes the records of the input to a scratch file, in the input's own order,
// and counts them. One that is none is told with its place there, which nobody could
// find later; with input.on_bad_item: skip its line says so.
func (c *Coordinator) inOrder(ctx context.Context, s Submission, src *source) (_ *os.File, items int64, err error) {
	f, err := c.scratchFile("lines")
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	w := bufio.NewWriterSize(f, 256<<10)
	count, read := &lineCount{w: w}, int64(0)
	write := func(body io.Reader, uri string, o records.Options) error {
		o.Check = s.Check
		if o.Check == nil {
			o.Check = func([]byte) (string, int) { return "", 0 }
		}
		if o.Limit > 0 {
			o.Limit -= count.lines
		}
		if s.Progress != nil && o.Format != "parquet" { // which is read here and there
			body = io.TeeReader(body, tell(func(n int) { read += int64(n); s.Progress(read, src.size, count.lines) }))
		}
		return c.writeLines(ctx, count, body, uri, o)
	}
	if src.spool != nil {
		o, _ := ConversionOf(s.Definition.Input, src.id.URI)
		o.Name, o.Format, o.Packed = src.name(), "jsonl", "none"
		if err := write(src.spooled(), src.name(), o); err != nil {
			return nil, 0, err
		}
		return f, count.lines, w.Flush()
	}
	one := func(src *source, body io.Reader) error {
		o, _ := ConversionOf(s.Definition.Input, src.id.URI)
		return write(body, src.id.URI, o)
	}
	if src.list == nil {
		body, err := c.openSource(ctx, src)
		if err != nil {
			return nil, 0, err
		}
		defer body.Close()
		if err := one(src, body); err != nil {
			return nil, 0, err
		}
		if err := c.unchanged(ctx, src, "read"); err != nil {
			return nil, 0, err
		}
		return f, count.lines, w.Flush()
	}
	objects := int64(0)
	limit := s.Definition.Input.Limit
	if err := c.each(ctx, s, src.list, c.openSource, func(src *source, body io.Reader) (bool, error) {
		objects++
		err := one(src, body)
		return limit > 0 && count.lines == limit, err
	}); err != nil {
		return nil, 0, err
	}
	if err := c.unchangedList(ctx, src.id.URI, src.list, objects); err != nil {
		return nil, 0, err
	}
	return f, count.lines, w.Flush()
}

// lineCount counts what is written to w.
type lineCount struct {
	w     io.Writer
	lines int64
}

func (l *lineCount) Write(p []byte) (int, error) {
	l.lines += int64(bytes.Count(p, []byte{'\n'}))
	return l.w.Write(p)
}

// tell hears how many bytes are written to it.
type tell func(n int)

func (t tell) Write(p []byte) (int, error) { t(len(p)); return len(p), nil }

// arranger brings lines into an order: as many as memory holds at a time into a run on
// scratch, and the runs into one by merging them.
type arranger struct {
	order manifest.Order
	most  int64 // bytes of memory for a run; a longer line is a run of its own
	file  func() (*os.File, error)

	arena   []byte
	entries []placed
	scratch *os.File
	size    int64
	runs    []int64 // where they begin
}

// placed is a line of the run in hand: its place in the order, and where it ends in the
// arena.
type placed struct {
	place      int64
	at, length uint32
}

func (a *arranger) close() {
	if a.scratch != nil {
		a.scratch.Close()
	}
}

// take reads lines from the beginning of f.
func (a *arranger) take(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.arena = make([]byte, 0, min(a.most, info.Size())+leastAhead) // it does not grow then, but for a long line
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 256<<10)
	for record := int64(0); ; record++ {
		if record%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := len(a.arena)
		for {
			part, err := in.ReadSlice('\n')
			if at > 0 && int64(len(a.arena)+len(part)+shuffleEntry*(len(a.entries)+1)) > a.most {
				rest := bytes.Clone(a.arena[at:])
				a.arena = a.arena[:at]
				if err := a.spill(); err != nil {
					return err
				}
				a.arena, at = append(a.arena, rest...), 0
			}
			a.arena = append(a.arena, part...)
			if err == nil {
				break
			}
			if err == io.EOF { // every line has its end
				return nil
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
		}
		a.entries = append(a.entries, placed{a.order.PlaceOf(record), uint32(at), uint32(len(a.arena) - at)})
	}
}

// inMemory calls fn for the lines of the run in hand, in order.
func (a *arranger) inMemory(fn func(place int64, line []byte) error) error {
	slices.SortFunc(a.entries, func(x, y placed) int { return cmp.Compare(x.place, y.place) })
	for _, e := range a.entries {
		if err := fn(e.place, a.arena[e.at:e.at+e.length]); err != nil {
			return err
		}
	}
	return nil
}

// spill ends the run in hand.
func (a *arranger) spill() (err error) {
	if a.scratch == nil {
		if a.scratch, err = a.file(); err != nil {
			return err
		}
	}
	a.runs = append(a.runs, a.size)
	w := bufio.NewWriterSize(a.scratch, 256<<10)
	var head [2 * binary.MaxVarintLen64]byte
	if err := a.inMemory(func(place int64, line []byte) error {
		h := binary.AppendUvarint(binary.AppendUvarint(head[:0], uint64(place)), uint64(len(line)))
		a.size += int64(len(h) + len(line))
		w.Write(h)
		_, err := w.Write(line)
		return err
	}); err != nil {
		return err
	}
	if a.entries = a.entries[:0]; int64(cap(a.arena)) > 2*a.most { // of one long line
		a.arena = nil
	}
	a.arena = a.arena[:0]
	return w.Flush()
}

// write writes all lines in order.
func (a *arranger) write(ctx context.Context, w io.Writer) error {
	next := int64(0)
	inPlace := func(place int64) error {
		if place != next {
			return fmt.Errorf("place %d follows %d", place, next-1)
		}
		if next++; next%1024 == 0 {
			return ctx.Err()
		}
		return nil
	}
	if len(a.runs) == 0 {
		return a.inMemory(func(place int64, line []byte) error {
			if err := inPlace(place); err != nil {
				return err
			}
			_, err := w.Write(line)
			return err
		})
	}
	if len(a.entries) > 0 {
		if err := a.spill(); err != nil {
			return err
		}
	}
	a.arena, a.entries = nil, nil
	ahead := int(max(leastAhead, min(256<<10, shuffleAhead/int64(len(a.runs)))))
	var runs runHeap
	for i, from := range a.runs {
		to := a.size
		if i+1 < len(a.runs) {
			to = a.runs[i+1]
		}
		r := &run{in: bufio.NewReaderSize(io.NewSectionReader(a.scratch, from, to-from), ahead)}
		if err := r.head(); err != nil {
			return fmt.Errorf("read a run: %w", err)
		}
		runs = append(runs, r)
	}
	heap.Init(&runs)
	for len(runs) > 0 {
		r := runs[0]
		if err := inPlace(r.place); err != nil {
			return err
		}
		if _, err := io.CopyN(w, r.in, r.length); err != nil {
			return err
		}
		switch err := r.head(); err {
		case nil:
			heap.Fix(&runs, 0)
		case io.EOF:
			heap.Pop(&runs)
		default:
			return fmt.Errorf("read a run: %w", err)
		}
	}
	return nil
}

// run is a sorted run that is being read: the line it stands before.
type run struct {
	in     *bufio.Reader
	place  int64
	length int64
}

func (r *run) head() error {
	place, err := binary.ReadUvarint(r.in)
	if err != nil {
		return err
	}
	length, err := binary.ReadUvarint(r.in)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	r.place, r.length = int64(place), int64(length)
	return err
}

type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return h[i].place < h[j].place }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*run)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
