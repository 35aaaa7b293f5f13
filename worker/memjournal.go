package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"hayrick"
	"hayrick/manifest"
)

// MemJournals keeps journals in memory: the machine's disk of a simulated world.
// Losing them (Wipe) is what a new machine sees.
type MemJournals struct {
	mu    sync.Mutex
	files map[string]*memJournal
}

type memJournal struct {
	owner   *MemJournals
	name    string
	fp      Fingerprint
	held    bool
	entries map[int64]Entry
	order   []int64 // the ordinals as they were recorded
}

// Wipe forgets every journal.
func (m *MemJournals) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = nil
}

// Tear loses what was recorded last, half of every journal, as a loss of power does to
// what was written and not yet synced.
func (m *MemJournals) Tear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.files { // each alone
		kept := j.order[:len(j.order)/2]
		for _, n := range j.order[len(kept):] {
			if !slices.Contains(kept, n) {
				delete(j.entries, n)
			}
		}
		j.order = kept
	}
}

// Unlock frees every journal, as the end of all processes does.
func (m *MemJournals) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.files {
		j.held = false
	}
}

// Open is Journals.
func (m *MemJournals) Open(_ context.Context, ref hayrick.TaskRef, fp Fingerprint) (Journal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.files[ref.JobID+"/"+ref.TaskID]
	if j == nil || j.held {
		return nil, fmt.Errorf("open journal: %w", hayrick.ErrNotFound)
	}
	if j.fp != fp {
		delete(m.files, j.name)
		return nil, fmt.Errorf("open journal: of other work: %w", hayrick.ErrNotFound)
	}
	j.held = true
	return j, nil
}

// Create is Journals.
func (m *MemJournals) Create(_ context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint) (Journal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := ref.JobID + "/" + ref.TaskID
	if j := m.files[name]; j != nil && j.held {
		name += "-" + attempt
	}
	if m.files == nil {
		m.files = map[string]*memJournal{}
	}
	j := &memJournal{owner: m, name: name, fp: fp, held: true, entries: map[int64]Entry{}}
	m.files[name] = j
	return j, nil
}

type memSnapshot struct {
	Fingerprint Fingerprint
	Entries     []Entry
}

// Restore is Journals.
func (m *MemJournals) Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint, snapshot io.Reader) (Journal, error) {
	var s memSnapshot
	if err := json.NewDecoder(snapshot).Decode(&s); err != nil || s.Fingerprint != fp {
		return nil, fmt.Errorf("restore journal: %v: %w", err, hayrick.ErrCorrupt)
	}
	j, err := m.Create(ctx, ref, attempt, fp)
	if err != nil {
		return nil, err
	}
	for _, e := range s.Entries {
		if err := j.Record(ctx, e); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// Record is Journal.
func (j *memJournal) Record(_ context.Context, es ...Entry) error {
	j.owner.mu.Lock()
	defer j.owner.mu.Unlock()
	for _, e := range es {
		e.Rows, e.Cursor = bytes.Clone(e.Rows), bytes.Clone(e.Cursor)
		j.entries[e.Ordinal] = e
		j.order = append(j.order, e.Ordinal)
	}
	return nil
}

// Each is Journal.
func (j *memJournal) Each(_ context.Context, fn func(Entry) error) error {
	for _, e := range j.sorted() {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func (j *memJournal) sorted() []Entry {
	j.owner.mu.Lock()
	defer j.owner.mu.Unlock()
	var out []Entry
	for _, e := range j.entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return int(a.Ordinal - b.Ordinal) })
	return out
}

// Snapshot is Journal.
func (j *memJournal) Snapshot(context.Context) (io.ReadCloser, error) {
	b, err := json.Marshal(memSnapshot{j.fp, j.sorted()})
	return io.NopCloser(bytes.NewReader(b)), err
}

// Path is Journal.
func (j *memJournal) Path() string { return "mem:" + j.name }

// Close is Journal.
func (j *memJournal) Close(remove bool) error {
	j.owner.mu.Lock()
	defer j.owner.mu.Unlock()
	j.held = false
	if remove && j.owner.files[j.name] == j {
		delete(j.owner.files, j.name)
	}
	return nil
}

// TempFile is Journals.
func (m *MemJournals) TempFile(context.Context, hayrick.TaskRef, string) (manifest.Temp, error) {
	return &memTemp{}, nil
}

type memTemp struct {
	b   []byte
	pos int64
}

func (t *memTemp) Write(p []byte) (int, error) {
	t.b = append(t.b[:t.pos], p...)
	t.pos = int64(len(t.b))
	return len(p), nil
}

func (t *memTemp) Read(p []byte) (int, error) {
	if t.pos >= int64(len(t.b)) {
		return 0, io.EOF
	}
	n := copy(p, t.b[t.pos:])
	t.pos += int64(n)
	return n, nil
}

func (t *memTemp) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(t.b).ReadAt(p, at)
}

func (t *memTemp) Seek(offset int64, whence int) (int64, error) {
	r := bytes.NewReader(t.b)
	r.Seek(t.pos, io.SeekStart)
	pos, err := r.Seek(offset, whence)
	t.pos = pos
	return pos, err
}

func (t *memTemp) Close() error { return nil }
