package manifest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"hayrick"
)

// Store reads and writes records: the one writer of every manifest. It checks on
// each read that a record is of the schema and the job it is asked for, and that
// data has the SHA-256 by which it is named.
type Store struct {
	Objects Objects
	Clock   hayrick.Clock

	mu     sync.Mutex // guards groups
	groups []*Members // loaded last, newest first
}

// Committed is what a commit key holds after a commit was tried.
type Committed[T any] struct {
	Record T
	SHA256 string
	// Won says that the record is the caller's own bytes; otherwise somebody else's
	// came first and Record is theirs.
	Won bool
}

// undecidedTries bounds how often an undecided commit is read back and put again
// before the caller hears ErrUnknown.
const undecidedTries = 6

// commit stores body under key if absent and answers with what is there. A crash
// before the put leaves nothing; after it, the record, which the next caller finds.
func (s *Store) commit(ctx context.Context, key string, body []byte) (there []byte, won bool, err error) {
	wait := 20 * time.Millisecond
	for try := 0; ; try++ {
		stored, err := s.Objects.Commit(ctx, key, body)
		if err == nil && stored {
			return body, true, nil
		}
		if err != nil && !errors.Is(err, hayrick.ErrUnknown) {
			return nil, false, fmt.Errorf("commit %s: %w", key, err)
		}
		// "Exists" may be an earlier try of our own, and "unknown" may have happened:
		// only the bytes under the key tell.
		got, gerr := s.get(ctx, key)
		switch {
		case gerr == nil:
			return got, bytes.Equal(got, body), nil
		case !errors.Is(gerr, hayrick.ErrNotFound):
			return nil, false, fmt.Errorf("read back %s: %w", key, gerr)
		case try >= undecidedTries:
			return nil, false, fmt.Errorf("commit %s: %w", key, hayrick.ErrUnknown)
		}
		if err := s.Clock.Sleep(ctx, wait); err != nil {
			return nil, false, err
		}
		wait *= 2
	}
}

func commitRecord[T any](ctx context.Context, s *Store, key, schema string, rec T, check func(T) error) (Committed[T], error) {
	body, err := Seal(rec)
	if err != nil {
		return Committed[T]{}, err
	}
	// A commit can never be mended: what could not be read back is not written.
	if rec, err = open(key, body, schema, check); err != nil {
		return Committed[T]{}, fmt.Errorf("commit %s: %w", key, err)
	}
	there, won, err := s.commit(ctx, key, body)
	if err != nil {
		return Committed[T]{}, err
	}
	if !won {
		if rec, err = open(key, there, schema, check); err != nil {
			return Committed[T]{}, err
		}
	}
	return Committed[T]{rec, SHA256(there), won}, nil
}

// open reads the bytes of a record and checks whose it is.
func open[T any](key string, b []byte, schema string, check func(T) error) (rec T, err error) {
	if len(b) > MaxRecordBytes {
		return rec, corrupt("read %s: %d bytes, the most is %d", key, len(b), MaxRecordBytes)
	}
	if err := Decode(b, schema, &rec); err != nil {
		return rec, fmt.Errorf("read %s: %w", key, err)
	}
	return rec, check(rec)
}

func readRecord[T any](ctx context.Context, s *Store, key, schema string, check func(T) error) (T, string, error) {
	b, err := s.get(ctx, key)
	if err != nil {
		var none T
		return none, "", err
	}
	rec, err := open(key, b, schema, check)
	return rec, SHA256(b), err
}

func belongs(key string, ok bool) error {
	if ok {
		return nil
	}
	return corrupt("read %s: the record speaks of another unit", key)
}

// get reads a whole record.
func (s *Store) get(ctx context.Context, key string) ([]byte, error) {
	r, err := s.Objects.Open(ctx, key, 0, MaxRecordBytes+1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if len(b) > MaxRecordBytes {
		return nil, corrupt("read %s: larger than %d bytes", key, MaxRecordBytes)
	}
	return b, nil
}

// Raw reads a whole object of at most MaxRecordBytes.
func (s *Store) Raw(ctx context.Context, key string) ([]byte, error) { return s.get(ctx, key) }

// Data reads a whole data object and checks its digest.
func (s *Store) Data(ctx context.Context, key, sha string) ([]byte, error) {
	b, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	if got := SHA256(b); got != sha {
		return nil, corrupt("read %s: SHA-256 %s, want %s", key, got, sha)
	}
	return b, nil
}

// PutData stores data under a content-hashed key. A crash before it leaves
// nothing; after it, an object that nothing names yet, which is a leftover.
func (s *Store) PutData(ctx context.Context, key string, body []byte) error {
	if err := s.Objects.Put(ctx, key, bytes.NewReader(body)); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// PutView rewrites a view. A crash before or after leaves an older or the same
// view: views decide nothing.
func (s *Store) PutView(ctx context.Context, key string, v any) error {
	b, err := Encode(v)
	if err != nil {
		return err
	}
	if err := s.Objects.Replace(ctx, key, b); err != nil {
		return fmt.Errorf("put view %s: %w", key, err)
	}
	return nil
}

// Plan reads the submission. The string is its SHA-256, as of every reader below.
func (s *Store) Plan(ctx context.Context, job string) (Plan, string, error) {
	k := Job(job).Plan()
	return readRecord(ctx, s, k, SchemaPlan, func(p Plan) error { return belongs(k, p.JobID == job) })
}

// CommitPlan makes the job exist.
func (s *Store) CommitPlan(ctx context.Context, p Plan) (Committed[Plan], error) {
	k := Job(p.JobID).Plan()
	return commitRecord(ctx, s, k, SchemaPlan, p, func(q Plan) error { return belongs(k, q.JobID == p.JobID) })
}

// Definition reads the resolved definition that a plan names.
func (s *Store) Definition(ctx context.Context, p Plan) (hayrick.JobDefinition, error) {
	key := Job(p.JobID).Config(p.DefinitionSHA256)
	b, err := s.get(ctx, key)
	if err != nil {
		return hayrick.JobDefinition{}, err
	}
	d, err := DecodeDefinition(b, p.DefinitionSHA256)
	if err != nil {
		return d, fmt.Errorf("read %s: %w", key, err)
	}
	return d, nil
}

// Result reads the commit of a task.
func (s *Store) Result(ctx context.Context, job, task string) (Result, string, error) {
	k := Job(job).Done(task)
	return readRecord(ctx, s, k, SchemaResult, func(r Result) error { return belongs(k, r.JobID == job && r.TaskID == task) })
}

// CommitResult ends a task.
func (s *Store) CommitResult(ctx context.Context, r Result) (Committed[Result], error) {
	k := Job(r.JobID).Done(r.TaskID)
	return commitRecord(ctx, s, k, SchemaResult, r, func(q Result) error { return belongs(k, q.JobID == r.JobID && q.TaskID == r.TaskID) })
}

// RetryPlan reads the n-th decision of the retry planner.
func (s *Store) RetryPlan(ctx context.Context, job string, n int) (RetryPlan, string, error) {
	k := Job(job).RetryPlan(n)
	return readRecord(ctx, s, k, SchemaRetryPlan, func(p RetryPlan) error { return belongs(k, p.JobID == job && p.RetryID == RetryID(n)) })
}

// CommitRetryPlan decides about a closed group.
func (s *Store) CommitRetryPlan(ctx context.Context, n int, p RetryPlan) (Committed[RetryPlan], error) {
	k := Job(p.JobID).RetryPlan(n)
	return commitRecord(ctx, s, k, SchemaRetryPlan, p, func(q RetryPlan) error { return belongs(k, q.JobID == p.JobID && q.RetryID == RetryID(n)) })
}

// RetryPlans reads the retry plans of a generation, in order, with the name of each.
// With ErrCorrupt it returns those before the one that is damaged, or gone though the
// next is there.
func (s *Store) RetryPlans(ctx context.Context, job string, generation int) (plans []RetryPlan, links []Link, err error) {
	for n := 1; ; n++ {
		p, sha, err := s.RetryPlan(ctx, job, n)
		if errors.Is(err, hayrick.ErrNotFound) {
			return plans, links, s.last(ctx, Job(job).RetryPlan(n), Job(job).RetryPlan(n+1))
		}
		if err != nil {
			return plans, links, err
		}
		if p.Generation == generation {
			plans, links = append(plans, p), append(links, link(Job(job), Job(job).RetryPlan(n), sha))
		}
	}
}

// last says that key, which is not there, ends a sequence: numbers are given without a
// gap, so that where next is there, key has been.
func (s *Store) last(ctx context.Context, key, next string) error {
	r, err := s.Objects.Open(ctx, next, 0, 1)
	if errors.Is(err, hayrick.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", next, err)
	}
	r.Close()
	return corrupt("read %s: it is gone, and %s is there", key, next)
}

// AggregationPlan reads the merge plan of generation g.
func (s *Store) AggregationPlan(ctx context.Context, job string, g int) (AggregationPlan, string, error) {
	k := Job(job).AggregationPlan(g)
	return readRecord(ctx, s, k, SchemaAggregationPlan, func(p AggregationPlan) error { return belongs(k, p.JobID == job && p.Generation == g) })
}

// CommitAggregationPlan pins the merge of a generation.
func (s *Store) CommitAggregationPlan(ctx context.Context, p AggregationPlan) (Committed[AggregationPlan], error) {
	k := Job(p.JobID).AggregationPlan(p.Generation)
	return commitRecord(ctx, s, k, SchemaAggregationPlan, p, func(q AggregationPlan) error {
		return belongs(k, q.JobID == p.JobID && q.Generation == p.Generation)
	})
}

// Control reads the n-th order.
func (s *Store) Control(ctx context.Context, job string, n int) (Control, string, error) {
	k := Job(job).Control(n)
	return readRecord(ctx, s, k, SchemaControl, func(c Control) error { return belongs(k, c.JobID == job && c.N == n) })
}

// CommitControl gives the order c.N.
func (s *Store) CommitControl(ctx context.Context, c Control) (Committed[Control], error) {
	k := Job(c.JobID).Control(c.N)
	return commitRecord(ctx, s, k, SchemaControl, c, func(q Control) error { return belongs(k, q.JobID == c.JobID && q.N == c.N) })
}

// Orders reads the orders of a job, in order, with the name of each. With ErrCorrupt it
// returns all that can be read, beside those that are damaged or gone.
func (s *Store) Orders(ctx context.Context, job string) (orders []Control, links []Link, err error) {
	var lost []error
	for n := 0; ; n++ {
		o, sha, err := s.Control(ctx, job, n)
		if errors.Is(err, hayrick.ErrNotFound) {
			if err = s.last(ctx, Job(job).Control(n), Job(job).Control(n+1)); err == nil {
				return orders, links, errors.Join(lost...)
			}
		}
		switch {
		case err == nil:
			orders, links = append(orders, o), append(links, link(Job(job), Job(job).Control(n), sha))
		case errors.Is(err, hayrick.ErrCorrupt):
			lost = append(lost, err)
		default:
			return nil, nil, err
		}
	}
}

// Outcome reads the end of generation g.
func (s *Store) Outcome(ctx context.Context, job string, g int) (Outcome, string, error) {
	k := Job(job).Outcome(g)
	b, err := s.get(ctx, k)
	if err != nil {
		return Outcome{}, "", err
	}
	o, err := OpenOutcome(b)
	if err != nil {
		return o, "", fmt.Errorf("read %s: %w", k, err)
	}
	return o, SHA256(b), belongs(k, o.JobID == job && o.Generation == g)
}

// CommitOutcome ends a generation.
func (s *Store) CommitOutcome(ctx context.Context, o Outcome) (Committed[Outcome], error) {
	k := Job(o.JobID).Outcome(o.Generation)
	body, err := o.Seal()
	if err != nil {
		return Committed[Outcome]{}, err
	}
	if _, err := OpenOutcome(body); err != nil {
		return Committed[Outcome]{}, fmt.Errorf("commit %s: %w", k, err)
	}
	there, won, err := s.commit(ctx, k, body)
	if err != nil {
		return Committed[Outcome]{}, err
	}
	theirs, err := OpenOutcome(there)
	if err != nil {
		return Committed[Outcome]{}, fmt.Errorf("read %s: %w", k, err)
	}
	return Committed[Outcome]{theirs, SHA256(there), won}, belongs(k, theirs.JobID == o.JobID && theirs.Generation == o.Generation)
}

// Chain names, by key below the job's folder, every plan of a generation and every
// order given so far, with their digests: what an outcome vouches for. With ErrCorrupt
// it names those that can be read. Those of the generations before are vouched for by
// their outcomes, the last of which the first plan of this one names.
func (s *Store) Chain(ctx context.Context, job string, generation int) (map[string]string, error) {
	k := Job(job)
	chain := map[string]string{}
	_, sha, err := s.Plan(ctx, job)
	if err != nil {
		return nil, err
	}
	chain[k.Rel(k.Plan())] = sha
	h := History{Plan: link(k, k.Plan(), sha)}
	var lost []error
	damage := func(err error) bool {
		if errors.Is(err, hayrick.ErrCorrupt) {
			lost = append(lost, err)
			return true
		}
		return err == nil
	}
	if h.Retries, h.Links, err = s.RetryPlans(ctx, job, generation); !damage(err) {
		return nil, err
	}
	switch p, sha, err := s.AggregationPlan(ctx, job, generation); {
	case err == nil:
		h.Aggregation = &p
		chain[k.Rel(k.AggregationPlan(generation))] = sha
	case !errors.Is(err, hayrick.ErrNotFound) && !damage(err):
		return nil, err
	}
	orders, links, err := s.Orders(ctx, job)
	if !damage(err) {
		return nil, err
	}
	for _, l := range slices.Concat(h.Links, links) {
		chain[l.Key] = l.SHA256
	}
	if h.Orders = len(orders); len(lost) == 0 {
		return chain, h.Check()
	}
	return chain, errors.Join(lost...)
}

// History is what a generation's plans say of each other.
type History struct {
	Plan        Link
	Retries     []RetryPlan // in order
	Links       []Link      // of these
	Aggregation *AggregationPlan
	Orders      int // that were given
}

// Check says whether the plans follow from each other. ErrCorrupt: one of them is gone,
// and what stands in its place, or behind it, is not what the next was made from.
func (h History) Check() error {
	at, orders := h.Plan, 0
	follows := func(key string, from Link, applied int) error {
		switch {
		case from != at:
			return corrupt("read %s: it follows from %s with SHA-256 %s, and now there is %s with %s", key, from.Key, Short(from.SHA256), at.Key, Short(at.SHA256))
		case applied < orders:
			return corrupt("read %s: it has applied %d orders, and the plan before it %d", key, applied, orders)
		case applied > h.Orders:
			return corrupt("read control/%d.json: it is gone; %s has applied %d orders", h.Orders, key, applied)
		}
		orders = applied
		return nil
	}
	for i, r := range h.Retries {
		if i == 0 && r.Generation > 0 {
			at = r.Predecessor // of the generation before
		}
		if err := follows(h.Links[i].Key, r.Predecessor, r.Orders); err != nil {
			return err
		}
		at = h.Links[i]
	}
	if a := h.Aggregation; a != nil {
		return follows(Job(a.JobID).Rel(Job(a.JobID).AggregationPlan(a.Generation)), a.Predecessor, a.Orders)
	}
	return nil
}

// Block reads the n-th block file of a group.
func (s *Store) Block(ctx context.Context, job, group string, n int, ref BlockRef) (Block, error) {
	var b Block
	key := Job(job).Abs(ref.Key)
	raw, err := s.Data(ctx, key, ref.SHA256)
	if err != nil {
		return b, err
	}
	if err := Decode(raw, SchemaBlock, &b); err != nil {
		return b, fmt.Errorf("read %s: %w", key, err)
	}
	return b, belongs(key, b.JobID == job && b.Group == group && b.Block == n && len(b.Tasks) == ref.Tasks)
}

// Index reads the n-th index object of a group.
func (s *Store) Index(ctx context.Context, job, group string, n int, ref IndexRef) (Index, error) {
	var x Index
	key := Job(job).Abs(ref.Key)
	raw, err := s.Data(ctx, key, ref.SHA256)
	if err != nil {
		return x, err
	}
	if err := Decode(raw, SchemaIndex, &x); err != nil {
		return x, fmt.Errorf("read %s: %w", key, err)
	}
	return x, belongs(key, x.JobID == job && x.Group == group && x.Block == n && len(x.Batches) == ref.Batches)
}

// Lines streams the lines of a list, without their newlines, and checks its digest
// and count at the end: a caller must not act on lines before Lines returns nil
// unless acting on a damaged list is harmless.
func (s *Store) Lines(ctx context.Context, job string, ref Ref, fn func(line []byte) error) error {
	key := Job(job).Abs(ref.Key)
	r, err := s.Objects.Open(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	defer r.Close()
	h := sha256.New()
	sc := bufio.NewScanner(io.TeeReader(r, h))
	sc.Buffer(make([]byte, 64<<10), MaxRecordBytes)
	var n int64
	for sc.Scan() {
		n++
		if err := fn(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return corrupt("read %s: line %d has more than %d bytes", key, n+1, MaxRecordBytes)
	} else if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != ref.SHA256 || n != ref.Count {
		return corrupt("read %s: SHA-256 %s and %d lines, want %s and %d", key, got, n, ref.SHA256, ref.Count)
	}
	return nil
}

// ReadLines is Lines with each line decoded into a T.
func ReadLines[T any](ctx context.Context, s *Store, job string, ref Ref, fn func(T) error) error {
	return s.Lines(ctx, job, ref, func(line []byte) error {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return corrupt("read %s: %s", ref.Key, inWords(err))
		}
		return fn(v)
	})
}
