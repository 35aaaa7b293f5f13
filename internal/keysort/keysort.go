// Package keysort finds keys that stand more than once among any number of them, in
// memory that does not grow with that number: they are sorted in scratch files.
package keysort

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// longKey is how much of a key is kept; of a longer one, its digest tells it from others.
	longKey = 1 << 10
	// maxRuns is how many sorted runs are merged at once.
	maxRuns = 64
	runBuf  = 64 << 10
)

// Place is where a key stands: in which object, and where in that.
type Place struct{ Object, Line int64 }

// Twice is a key that stands more than once.
type Twice struct {
	Key          string // at most its first 1,024 bytes
	Times        int64
	First, Again Place
}

// Found is what a Sorter found.
type Found struct {
	Keys  int64   // that stand more than once
	Extra int64   // items behind the first of their key
	First []Twice // of the keys, those that are there again first, in that order
}

// Sorter takes keys in the order in which they stand. Close gives its scratch back.
type Sorter struct {
	dir   string
	most  int // bytes of memory for keys
	arena []byte
	at    []int // where entries begin in the arena
	runs  []*os.File
}

// New sorts in dir, with about most bytes of memory for keys.
func New(dir string, most int) *Sorter { return &Sorter{dir: dir, most: most} }

// entry is a key and its place as bytes: length, key, object, line.
func entry(b, key []byte, at Place) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(at.Object))
	return binary.AppendUvarint(b, uint64(at.Line))
}

func keyOf(b []byte) []byte {
	n, w := binary.Uvarint(b)
	return b[w : w+int(n)]
}

// Add takes a key.
func (s *Sorter) Add(key []byte, at Place) error {
	if len(key) > longKey {
		sum := sha256.Sum256(key)
		key = append(key[:longKey:longKey], sum[:]...)
	}
	if len(s.arena) > 0 && len(s.arena)+len(key)+16*len(s.at) > s.most {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.at = append(s.at, len(s.arena))
	s.arena = entry(s.arena, key, at)
	return nil
}

// spill makes a sorted run of what is in memory. Equal keys stay in their order.
func (s *Sorter) spill() error {
	slices.SortFunc(s.at, func(a, b int) int {
		return cmp.Or(bytes.Compare(keyOf(s.arena[a:]), keyOf(s.arena[b:])), a-b)
	})
	err := s.run(func(w *bufio.Writer) error {
		for _, at := range s.at {
			key := keyOf(s.arena[at:])
			rest := s.arena[at:]
			n, a := binary.Uvarint(rest)
			_, b := binary.Uvarint(rest[a+int(n):])
			_, c := binary.Uvarint(rest[a+int(n)+b:])
			if _, err := w.Write(rest[:a+len(key)+b+c]); err != nil {
				return err
			}
		}
		return nil
	})
	s.arena, s.at = s.arena[:0], s.at[:0]
	if err != nil || len(s.runs) < maxRuns {
		return err
	}
	old := s.runs
	s.runs = nil
	err = s.run(func(w *bufio.Writer) error {
		var b []byte
		return merge(old, func(key []byte, at Place) error {
			b = entry(b[:0], key, at)
			_, err := w.Write(b)
			return err
		})
	})
	closeAll(old)
	return err
}

// run writes a run into an unlinked scratch file.
func (s *Sorter) run(write func(*bufio.Writer) error) error {
	f, err := os.CreateTemp(s.dir, "keys-")
	if err != nil {
		return fmt.Errorf("make a scratch file: %w", err)
	}
	s.runs = append(s.runs, f)
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("unlink a scratch file: %w", err)
	}
	w := bufio.NewWriterSize(f, runBuf)
	if err := errors.Join(write(w), w.Flush()); err != nil {
		return fmt.Errorf("sort keys: %w", err)
	}
	return nil
}

// Close frees the scratch.
func (s *Sorter) Close() { closeAll(s.runs); s.runs = nil }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Find says which keys stand more than once, and names the first n of them.
func (s *Sorter) Find(n int) (found Found, err error) {
	if len(s.at) > 0 {
		if err := s.spill(); err != nil {
			return Found{}, err
		}
	}
	var now Twice
	var key []byte
	var first latest
	end := func() {
		if now.Times < 2 {
			return
		}
		found.Keys++
		found.Extra += now.Times - 1
		now.Key = string(key[:min(len(key), longKey)])
		if heap.Push(&first, now); len(first) > n {
			heap.Pop(&first)
		}
	}
	if err := merge(s.runs, func(k []byte, at Place) error {
		if now.Times > 0 && bytes.Equal(k, key) {
			if now.Times++; now.Times == 2 {
				now.Again = at
			}
			return nil
		}
		end()
		key = append(key[:0], k...)
		now = Twice{Times: 1, First: at}
		return nil
	}); err != nil {
		return Found{}, err
	}
	end()
	found.First = first
	slices.SortFunc(found.First, func(a, b Twice) int { return compare(a.Again, b.Again) })
	return found, nil
}

func compare(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Line, b.Line))
}

// latest is a heap whose top is there again last.
type latest []Twice

func (l latest) Len() int           { return len(l) }
func (l latest) Less(i, j int) bool { return compare(l[i].Again, l[j].Again) > 0 }
func (l latest) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *latest) Push(x any)        { *l = append(*l, x.(Twice)) }
func (l *latest) Pop() any {
	x := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return x
}

// cursor is where a merge is in a run.
type cursor struct {
	r   *bufio.Reader
	n   int // of the run: an earlier one has what stands earlier
	key []byte
	at  Place
}

// next reads the next entry; io.EOF ends the run.
func (c *cursor) next() error {
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return err
	}
	c.key = slices.Grow(c.key[:0], int(n))[:n]
	_, err = io.ReadFull(c.r, c.key)
	object, err1 := binary.ReadUvarint(c.r)
	line, err2 := binary.ReadUvarint(c.r)
	c.at = Place{int64(object), int64(line)}
	if err := errors.Join(err, err1, err2); err != nil {
		return fmt.Errorf("read sorted keys: %v", err) // its end is no end of the run
	}
	return nil
}

type cursors []*cursor

func (c cursors) Len() int { return len(c) }
func (c cursors) Less(i, j int) bool {
	return cmp.Or(bytes.Compare(c[i].key, c[j].key), c[i].n-c[j].n) < 0
}
func (c cursors) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)   { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	x := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return x
}

// merge calls fn with all entries of the runs, in the order of keys and, of equal ones,
// of places. The key is fn's until it returns.
func merge(runs []*os.File, fn func(key []byte, at Place) error) error {
	var heads cursors
	for n, f := range runs {
		c := &cursor{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), runBuf), n: n}
		switch err := c.next(); err {
		case nil:
			heads = append(heads, c)
		case io.EOF:
		default:
			return err
		}
	}
	heap.Init(&heads)
	for len(heads) > 0 {
		c := heads[0]
		if err := fn(c.key, c.at); err != nil {
			return err
		}
		switch err := c.next(); err {
		case nil:
			heap.Fix(&heads, 0)
		case io.EOF:
			heap.Pop(&heads)
		default:
			return err
		}
	}
	return nil
}
