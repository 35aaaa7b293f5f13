package aggregator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"hayrick/internal/rows"
	"hayrick/manifest"
)

// entries gives rows in the order of their keys and, of one key, of their places. An
// entry is valid until the next call; io.EOF is the end.
type entries interface {
	Next() (*rows.Entry, error)
}

// sorter brings rows into order in bounded memory: what it cannot hold goes to
// scratch, sorted, and is merged at the end.
type sorter struct {
	temp   func() (manifest.Temp, error)
	memory int64 // what it may hold
	// thin drops what may be dropped of rows in order; it is applied before rows go to
	// scratch, so that of a key that all rows have one goes there. nil: nothing is.
	thin func(entries) entries

	buffers
	give   func(buffers) // what close does with them; nil: nothing
	held   int64         // the chunks in use, whole, and the slots
	first  []byte        // the first key, and how much of it all others begin with
	common int
	spills []spill
}

// buffers are what a sorter holds rows in.
type buffers struct {
	chunks [][]byte // entries as they stand in a run
	free   [][]byte // chunks of the usual size that are empty
	slots  []slot   // one an entry
	other  []slot   // empty: what slots are sorted into
}

// slot is where an entry lies.
type slot struct {
	prefix uint64 // of the key, beyond what all have in common
	chunk  uint32
	at     uint32 // of the entry
	keyEnd uint32
}

type spill struct {
	file manifest.Temp
	size int64
}

const (
	sortChunk = 4 << 20
	slotBytes = 48 // with its place in what it is sorted into
	// leastSort is the least memory to sort in: below it files in scratch get tiny.
	leastSort = 4 << 20
)

// add takes in row r of a batch whose hashes are noted, with a key of the keyer.
func (s *sorter) add(k *rows.Keyer, b *rows.Batch, r int, item, place int64) error {
	size, err := rows.EntrySize(k, b, r)
	if err != nil {
		return err
	}
	chunk, err := s.room(size)
	if err != nil {
		return err
	}
	at, keyEnd := len(*chunk), 0
	*chunk, keyEnd = rows.AppendEntry(*chunk, k, b, r, item, place)
	s.added(at, keyEnd)
	return nil
}

// addRecord takes in a row that is there in pieces. Of its hash nothing is said.
func (s *sorter) addRecord(key []byte, item int64, record []byte) error {
	size, err := rows.EntrySizeOf(key, record)
	if err != nil {
		return err
	}
	chunk, err := s.room(size)
	if err != nil {
		return err
	}
	at, keyEnd := len(*chunk), 0
	*chunk, keyEnd = rows.AppendEntryOf(*chunk, key, item, 0, rows.Hash{}, record)
	s.added(at, keyEnd)
	return nil
}

// room is the last chunk, which has room for so many bytes.
func (s *sorter) room(size int) (*[]byte, error) {
	fits := len(s.chunks) > 0 && len(s.chunks[len(s.chunks)-1])+size <= cap(s.chunks[len(s.chunks)-1])
	more := slotBytes
	if !fits {
		more += max(sortChunk, size)
	}
	if s.held+int64(more) > max(s.memory, leastSort) && len(s.slots) > 0 {
		if err := s.spill(); err != nil {
			return nil, err
		}
		fits = false
	}
	if !fits {
		s.chunks = append(s.chunks, s.chunk(size))
		s.held += int64(cap(s.chunks[len(s.chunks)-1]))
	}
	return &s.chunks[len(s.chunks)-1], nil
}

// chunk is an empty one for so many bytes.
func (s *sorter) chunk(size int) []byte {
	if size > sortChunk { // of what the sorter may hold, nothing lies idle
		s.free = nil
		return make([]byte, 0, size)
	}
	if last := len(s.free) - 1; last >= 0 {
		c := s.free[last]
		s.free = s.free[:last]
		return c
	}
	return make([]byte, 0, sortChunk)
}

// added notes the entry at the end of the last chunk.
func (s *sorter) added(at, keyEnd int) {
	n := len(s.chunks) - 1
	x := slot{chunk: uint32(n), at: uint32(at), keyEnd: uint32(keyEnd)}
	s.slots = append(s.slots, x)
	s.held += slotBytes
	key := s.keyOf(&x)
	if len(s.slots) == 1 {
		s.first, s.common = append(s.first[:0], key...), len(key)
	}
	same := 0
	for same < s.common && same < len(key) && key[same] == s.first[same] {
		same++
	}
	s.common = same
}

func (s *sorter) keyOf(x *slot) []byte { return s.chunks[x.chunk][x.at+rows.EntryHead : x.keyEnd] }

// less says that a comes before b.
func (s *sorter) less(a, b *slot) bool {
	if a.prefix != b.prefix {
		return a.prefix < b.prefix
	}
	if c := bytes.Compare(s.keyOf(a), s.keyOf(b)); c != 0 {
		return c < 0
	}
	e, f := s.entry(a), s.entry(b)
	return e.Compare(&f) < 0
}

func (s *sorter) entry(x *slot) rows.Entry {
	e, err := rows.DecodeEntry(s.chunks[x.chunk][x.at:])
	if err != nil {
		panic(err) // it was encoded above
	}
	return e
}

// sort puts the slots in order by merging the stretches that are: rows mostly come
// sorted, or as a few sorted files one behind the other.
func (s *sorter) sort() {
	for i := range s.slots {
		var b [8]byte
		x := &s.slots[i]
		if k := s.keyOf(x); s.common < len(k) {
			copy(b[:], k[s.common:])
		}
		x.prefix = binary.BigEndian.Uint64(b[:])
	}
	var ends []int
	for i := 1; i <= len(s.slots); i++ {
		if i == len(s.slots) || s.less(&s.slots[i], &s.slots[i-1]) {
			ends = append(ends, i)
		}
	}
	if len(ends) <= 1 {
		return
	}
	from, to := s.slots, slices.Grow(s.other[:0], len(s.slots))[:len(s.slots)]
	for len(ends) > 1 {
		start, half := 0, ends[:0]
		for i := 0; i < len(ends); i += 2 {
			mid, end := ends[i], ends[min(i+1, len(ends)-1)]
			s.join(to[start:end], from[start:mid], from[mid:end])
			half = append(half, end)
			start = end
		}
		ends = half
		from, to = to, from
	}
	s.slots, s.other = from, to[:0]
}

// join merges two stretches in order.
func (s *sorter) join(to, a, b []slot) {
	n := 0
	for len(a) > 0 && len(b) > 0 {
		if s.less(&b[0], &a[0]) {
			to[n], b = b[0], b[1:]
		} else {
			to[n], a = a[0], a[1:]
		}
		n++
	}
	copy(to[n:], a)
	copy(to[n+len(a):], b)
}

// inMemory reads the sorted slots.
type inMemory struct {
	s    *sorter
	next int
	e    rows.Entry
}

func (m *inMemory) Next() (*rows.Entry, error) {
	if m.next == len(m.s.slots) {
		return nil, io.EOF
	}
	m.e = m.s.entry(&m.s.slots[m.next])
	m.next++
	return &m.e, nil
}

func (s *sorter) thinned(in entries) entries {
	if s.thin == nil {
		return in
	}
	return s.thin(in)
}

// spill writes what is held to scratch, in order.
func (s *sorter) spill() error {
	s.sort()
	x, err := s.write(s.thinned(&inMemory{s: s}))
	if err != nil {
		return err
	}
	s.spills = append(s.spills, x)
	s.empty()
	return nil
}

// empty forgets what is held and keeps memory of the usual size.
func (s *sorter) empty() {
	for _, c := range s.chunks {
		if cap(c) == sortChunk {
			s.free = append(s.free, c[:0])
		}
	}
	clear(s.chunks)
	s.chunks, s.slots, s.held = s.chunks[:0], s.slots[:0], 0
}

// write writes rows to a new scratch file.
func (s *sorter) write(in entries) (spill, error) {
	file, err := s.temp()
	if err != nil {
		return spill{}, err
	}
	w := rows.NewRunWriter(file, false)
	for err == nil {
		var e *rows.Entry
		if e, err = in.Next(); err == nil {
			err = w.Add(e)
		}
	}
	var sum rows.RunSummary
	if err == io.EOF {
		sum, err = w.Close()
	}
	if err != nil {
		return spill{}, errors.Join(fmt.Errorf("write sorted rows to scratch: %w", err), file.Close())
	}
	return spill{file, sum.Bytes}, nil
}

// sorted gives all rows in order. No row is added after it.
func (s *sorter) sorted() (entries, error) {
	if len(s.spills) == 0 {
		s.sort()
		return s.thinned(&inMemory{s: s}), nil
	}
	if len(s.slots) > 0 {
		if err := s.spill(); err != nil {
			return nil, err
		}
	}
	s.buffers = buffers{} // what follows needs the memory
	var runs []source
	for _, x := range s.spills {
		r, err := rows.OpenRun(x.file, x.size, "")
		if err != nil {
			return nil, err
		}
		runs = append(runs, source{run: r, scan: func() entries { return r.Scan(nil, nil) }})
	}
	return s.merge(runs)
}

// source is a run to merge, and how its rows are read.
type source struct {
	run  *rows.Run
	scan func() entries
}

// merge gives the rows of many runs in order. Only so many are read at once that
// their blocks fit into memory; of more, some are merged to scratch first.
func (s *sorter) merge(runs []source) (entries, error) {
	for {
		fits, total := 0, int64(0)
		for ; fits < len(runs); fits++ {
			n := 3 * runs[fits].run.Largest() // the block, packed, and the last entry of the one before
			if total+n > max(s.memory, leastSort) && fits >= 2 {
				break
			}
			total += n
		}
		var all []entries
		for _, r := range runs[:fits] {
			all = append(all, r.scan())
		}
		merged, err := mergeEntries(all)
		if err != nil {
			return nil, err
		}
		if fits == len(runs) {
			return s.thinned(merged), nil
		}
		x, err := s.write(s.thinned(merged))
		if err != nil {
			return nil, err
		}
		s.spills = append(s.spills, x)
		r, err := rows.OpenRun(x.file, x.size, "")
		if err != nil {
			return nil, err
		}
		runs = append(runs[fits:len(runs):len(runs)], source{run: r, scan: func() entries { return r.Scan(nil, nil) }})
	}
}

// close frees the scratch.
func (s *sorter) close() error {
	var errs []error
	for _, x := range s.spills {
		errs = append(errs, x.file.Close())
	}
	s.spills = nil
	s.empty()
	if s.give != nil && len(s.free) > 0 {
		s.give(s.buffers)
	}
	s.buffers = buffers{}
	return errors.Join(errs...)
}

// merger gives the rows of several sources in order: a heap of their next ones.
type merger struct {
	heads []head // a heap; heads[0] was given out last when taken
	taken bool
}

type head struct {
	e    *rows.Entry
	from entries
}

func mergeEntries(all []entries) (entries, error) {
	if len(all) == 1 {
		return all[0], nil
	}
	m := &merger{}
	for _, from := range all {
		e, err := from.Next()
		if err == io.EOF {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.heads = append(m.heads, head{e, from})
	}
	for i := len(m.heads)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return m, nil
}

func (m *merger) down(i int) {
	for {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(m.heads) && m.heads[c].e.Compare(m.heads[least].e) < 0 {
				least = c
			}
		}
		if least == i {
			return
		}
		m.heads[i], m.heads[least] = m.heads[least], m.heads[i]
		i = least
	}
}

func (m *merger) Next() (*rows.Entry, error) {
	if m.taken {
		e, err := m.heads[0].from.Next()
		switch {
		case err == io.EOF:
			last := len(m.heads) - 1
			m.heads[0] = m.heads[last]
			m.heads = m.heads[:last]
		case err != nil:
			return nil, err
		default:
			m.heads[0].e = e
		}
		m.down(0)
	}
	m.taken = len(m.heads) > 0
	if !m.taken {
		return nil, io.EOF
	}
	return m.heads[0].e, nil
}
