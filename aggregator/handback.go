package aggregator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// A merge whose process has not long enough is handed back: what it has merged so far
// is stored, a new message is sent, the old one is done with. The next attempt goes on
// behind the last input that is merged, and the last one joins the pieces by their
// footers. A piece ends where an input does, so that each holds the rows, and has the
// row hash, that the results.done files of its inputs vouch for.

// errHandedBack: the process has not long enough for what is left. What it did is kept.
var errHandedBack = errors.New("not done in time, and handed back")

// handedBackLater is errHandedBack with a claim that has to run out first.
type handedBackLater struct{ wait time.Duration }

func (e *handedBackLater) Error() string { return errHandedBack.Error() }
func (e *handedBackLater) Unwrap() error { return errHandedBack }

// schemaProgress is the schema of progress.
const schemaProgress = "hayrick.mergecheckpoint/v1"

// progress is the checkpoint of a merge: the first Inputs of its inputs are in Pieces.
type progress struct {
	Schema string  `json:"schema"`
	JobID  string  `json:"job_id"`
	TaskID string  `json:"task_id"`
	Inputs int     `json:"inputs"`
	Pieces []piece `json:"pieces"`

	key string // of the checkpoint
}

// piece is a file with the rows of some consecutive inputs.
type piece struct {
	Key     string `json:"key"` // below the job's folder
	SHA256  string `json:"sha256"`
	Bytes   int64  `json:"bytes"`
	Rows    int64  `json:"rows"`
	RowHash string `json:"row_hash"`
}

func (p progress) bytes() (n int64) {
	for _, x := range p.Pieces {
		n += x.Bytes
	}
	return n
}

// fits says that the pieces hold exactly the rows of the inputs they are to hold.
func (p progress) fits(inputs []manifest.MergeInput) error {
	if p.Inputs < 0 || p.Inputs > len(inputs) {
		return corrupt("%d of %d inputs", p.Inputs, len(inputs))
	}
	var has, want int64
	var hasHash, wantHash rows.Hash
	add := func(n *int64, sum *rows.Hash, more int64, hash string) error {
		h, err := rows.ParseHash(hash)
		if err != nil {
			return corrupt("%v", err)
		}
		*n, *sum = *n+more, sum.Add(h)
		return nil
	}
	for _, in := range inputs[:p.Inputs] {
		if err := add(&want, &wantHash, in.Rows, in.RowHash); err != nil {
			return err
		}
	}
	for _, x := range p.Pieces {
		if err := add(&has, &hasHash, x.Rows, x.RowHash); err != nil {
			return err
		}
	}
	if has != want || hasHash != wantHash {
		return corrupt("%d rows with hash %s in its pieces, %d with %s in its inputs", has, hasHash, want, wantHash)
	}
	return nil
}

// recall finds how far the attempts before have come: the furthest checkpoint that is
// sound. Two are never merged.
func (a *Aggregator) recall(ctx context.Context, m *merging, taskID string, inputs []manifest.MergeInput) (progress, error) {
	type saved struct {
		key  string
		done int
	}
	var found []saved
	prefix := m.key.Checkpoints(taskID)
	if err := a.Store.Objects.List(ctx, prefix, func(o manifest.Object) error {
		var done int
		if _, err := fmt.Sscanf(strings.TrimPrefix(o.Key, prefix), "%d-", &done); err == nil {
			found = append(found, saved{o.Key, done})
		}
		return nil
	}); err != nil {
		return progress{}, fmt.Errorf("list checkpoints of %s: %w", taskID, err)
	}
	slices.SortFunc(found, func(x, y saved) int {
		return cmp.Or(cmp.Compare(y.done, x.done), strings.Compare(x.key, y.key))
	})
	for _, s := range found {
		var p progress
		body, err := a.Store.Raw(ctx, s.key)
		if err == nil {
			err = manifest.Decode(body, schemaProgress, &p)
		}
		if err == nil && (p.JobID != m.id || p.TaskID != taskID) {
			err = corrupt("it is of %s of %s", p.TaskID, p.JobID)
		}
		if err == nil {
			err = p.fits(inputs)
		}
		switch {
		case err == nil:
			p.key = s.key
			return p, nil
		case !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, hayrick.ErrNotFound):
			return p, err
		}
		a.Log.Warn("checkpoint passed over", hayrick.KeyKey, s.key, hayrick.KeyError, err)
	}
	return progress{}, nil
}

// save stores a checkpoint. A crash before it leaves the piece, which nothing names; after
// it, a claim that runs out, and the next attempt goes on from here.
func (a *Aggregator) save(ctx context.Context, m *merging, attempt string, p progress) error {
	body, err := manifest.Seal(p)
	if err != nil {
		return err
	}
	return a.Store.PutData(ctx, m.key.Checkpoint(p.TaskID, p.Inputs, attempt, manifest.SHA256(body)), body)
}

// lent is the time of one attempt, of which Stop asks.
type lent struct {
	left  func() time.Duration // nil: as long as it takes
	now   func() time.Time
	whole time.Duration
	begun time.Time
}

func (a *Aggregator) lend() lent {
	l := lent{left: a.Left, now: a.World.Clock.Now}
	l.begun = l.now()
	if l.left != nil {
		l.whole = l.left()
	}
	return l
}

// stops says that there is not time enough for next more bytes, after done, and then to
// store keep bytes.
func (l lent) stops(done, next, keep int64) bool {
	return l.left != nil && Stop(l.whole, l.left(), l.now().Sub(l.begun), done, next, keep)
}

// join writes the pieces one behind the other, without decoding them, and returns what
// the file holds. Each is read whole against its SHA-256.
func (a *Aggregator) join(ctx context.Context, m *merging, p progress, to manifest.Temp) (sum rows.Summary, err error) {
	sources := make([]Source, len(p.Pieces))
	blobs := make([]manifest.Blob, len(p.Pieces))
	footers := make([]SourceFooter, len(p.Pieces))
	// The checkpoint is a cache of work: without it the merge begins anew.
	bad := func(x piece, err error) error {
		return damaged(x.Key, "", fmt.Errorf("%w; remove %s, and the merge begins anew", gone(err), p.key))
	}
	for i, x := range p.Pieces {
		h, err := rows.ParseHash(x.RowHash)
		if err != nil {
			return sum, err
		}
		sources[i] = Source{Name: x.Key, Size: x.Bytes, SHA256: x.SHA256, Rows: x.Rows, RowHash: h}
		if blobs[i], err = a.Blobs.OpenAt(ctx, m.key.Abs(x.Key)); err != nil {
			return sum, bad(x, err)
		}
		defer blobs[i].Close()
		if blobs[i].Size() != x.Bytes {
			return sum, bad(x, corrupt("%d bytes, its checkpoint says %d", blobs[i].Size(), x.Bytes))
		}
		if footers[i], err = ReadSourceFooter(blobs[i], x.Bytes); err != nil {
			return sum, bad(x, err)
		}
	}
	plan, err := PlanConcat(sources, footers)
	if err != nil {
		return sum, fmt.Errorf("join the pieces of %s: %w", p.TaskID, err)
	}
	whole := sha256.New()
	out := io.MultiWriter(to, whole)
	buf := make([]byte, 1<<20)
	for _, c := range plan.Copies {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		x, h, end := p.Pieces[c.Source], sha256.New(), c.Offset+c.Length
		for _, part := range []struct {
			from, to int64
			w        io.Writer
		}{{0, c.Offset, h}, {c.Offset, end, io.MultiWriter(h, out)}, {end, x.Bytes, h}} {
			if _, err := io.CopyBuffer(part.w, io.NewSectionReader(blobs[c.Source], part.from, part.to-part.from), buf); err != nil {
				return sum, err
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != x.SHA256 {
			return sum, bad(x, corrupt("SHA-256 %s, its checkpoint says %s", got, x.SHA256))
		}
	}
	if _, err := out.Write(plan.Tail); err != nil {
		return sum, err
	}
	return rows.Summary{
		Rows: plan.Rows, RowHash: plan.RowHash, Bytes: plan.Bytes, SHA256: hex.EncodeToString(whole.Sum(nil)),
		Schema: m.schema, SchemaDigest: m.schema.Digest(),
	}, nil
}
