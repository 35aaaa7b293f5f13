package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/manifest"
)

// look is what one piece of the walk read and found. Pieces run side by side, each
// with its own; the auditor takes them in, in order.
type look struct {
	a       *auditor // what never changes: store, job, options
	found   []Finding
	notes   []string
	named   []uint64 // objects that commits name, and views
	checked Checked
	decoded Rows // files and rows only
	// unvouched counts commits that no digest covers: those of an unfinished job that
	// no plan has been taken from yet.
	unvouched int64
	// unread counts batches whose input is not what was run any more; why is that of
	// the first.
	unread int64
	why    error
	// blind: something that tells of other things could not be read, so that totals
	// cannot be compared and what is unnamed cannot be told from what is unknown.
	blind bool
	err   error // the store could not be read: the audit ends
}

func (l *look) find(s Severity, code, key, format string, args ...any) {
	l.found = append(l.found, Finding{s, code, key, fmt.Sprintf(format, args...)})
}

func (l *look) broken(code, key, format string, args ...any) {
	l.find(Broken, code, key, format, args...)
}

// lost reports an object that others depend on.
func (l *look) lost(code, key, format string, args ...any) {
	l.broken(code, key, format, args...)
	l.blind = true
}

func (l *look) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// name records that the object is no stranger.
func (l *look) name(rel string) { l.named = append(l.named, nameHash(rel)) }

func nameHash(rel string) uint64 {
	h := sha256.Sum256([]byte(rel))
	return binary.BigEndian.Uint64(h[:8])
}

// unreadable says that err is about what lies at one name: it is damaged, no file, or
// must not or cannot be read. Any other error is the store's, and ends the audit.
func unreadable(err error) bool {
	return errors.Is(err, hayrick.ErrCorrupt) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO)
}

// raw reads a whole object. hayrick.ErrNotFound and what is unreadable are answers;
// any other error ends the audit.
func (l *look) raw(ctx context.Context, rel string) ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	key := l.a.job.Abs(rel)
	if !manifest.ValidKey(key) {
		return nil, fmt.Errorf("%q cannot be an object of the job: %w", rel, hayrick.ErrCorrupt)
	}
	b, err := l.a.Store.Raw(ctx, key)
	if err != nil && !errors.Is(err, hayrick.ErrNotFound) && !unreadable(err) {
		l.err = err
	}
	l.checked.Bytes += int64(len(b))
	return b, err
}

// get reads a whole object that must be there with the digest want; "" = no digest
// is known.
func (l *look) get(ctx context.Context, rel, want string) ([]byte, bool) {
	l.name(rel)
	b, err := l.raw(ctx, rel)
	switch {
	case l.err != nil:
		return nil, false
	case errors.Is(err, hayrick.ErrNotFound):
		l.lost(CodeMissing, rel, "it is gone")
		return nil, false
	case err != nil:
		l.lost(CodeForm, rel, "%v", err)
		return nil, false
	}
	if got := manifest.SHA256(b); want != "" && got != want {
		l.lost(CodeDigest, rel, "%s", otherDigest(got, want))
		return nil, false
	}
	return b, true
}

func otherDigest(got, want string) string {
	return fmt.Sprintf("its SHA-256 is %s, its commit says %s", manifest.Short(got), manifest.Short(want))
}

// record reads a record whose digest is known.
func record[T any](ctx context.Context, l *look, rel, want, schema string) (rec T, raw []byte, ok bool) {
	raw, ok = l.get(ctx, rel, want)
	if !ok {
		return rec, nil, false
	}
	if err := manifest.Decode(raw, schema, &rec); err != nil {
		l.lost(CodeForm, rel, "%v", err)
		return rec, nil, false
	}
	return rec, raw, true
}

// hash reads an object of any size and compares its SHA-256, unless it is "", and
// its size, unless that is negative.
func (l *look) hash(ctx context.Context, rel, want string, size int64) (digest, bool) {
	d, ok := l.digest(ctx, rel)
	switch {
	case !ok:
		return d, false
	case want != "" && d.sha != want:
		l.broken(CodeDigest, rel, "%s", otherDigest(d.sha, want))
		return d, false
	case size >= 0 && d.size != size:
		l.broken(CodeDigest, rel, "it has %d bytes, its commit says %d", d.size, size)
		return d, false
	}
	return d, true
}

// digest reads an object of any size that must be there.
func (l *look) digest(ctx context.Context, rel string) (d digest, ok bool) {
	l.name(rel)
	if l.err != nil {
		return d, false
	}
	key := l.a.job.Abs(rel)
	if !manifest.ValidKey(key) {
		l.broken(CodeKey, rel, "it cannot be an object of the job")
		return d, false
	}
	r, err := l.a.Store.Objects.Open(ctx, key, 0, -1)
	if err == nil {
		d, err = digestOf(ctx, r)
		r.Close()
	}
	l.checked.Bytes += d.size
	switch {
	case err == nil:
		return d, true
	case errors.Is(err, hayrick.ErrNotFound):
		l.broken(CodeMissing, rel, "it is gone")
	case unreadable(err):
		l.broken(CodeDigest, rel, "%v", err)
	default:
		l.err = fmt.Errorf("read %s: %w", key, err)
	}
	return d, false
}

// digest is what one pass over a stream tells.
type digest struct {
	sha   string
	size  int64
	lines int64
}

func digestOf(ctx context.Context, r io.Reader) (digest, error) {
	var d digest
	h := sha256.New()
	buf := make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		d.size += int64(n)
		for _, c := range buf[:n] {
			if c == '\n' {
				d.lines++
			}
		}
		if err == io.EOF {
			d.sha = hex.EncodeToString(h.Sum(nil))
			return d, nil
		}
		if err != nil {
			return d, err
		}
	}
}

// list verifies a list that a commit names: nothing of it is used before that.
func (l *look) list(ctx context.Context, ref manifest.Ref, key func(sha string) string) bool {
	if want := l.a.job.Rel(key(ref.SHA256)); ref.Key != want {
		l.lost(CodeKey, ref.Key, "a list with this digest lies under %s", want)
		return false
	}
	d, ok := l.hash(ctx, ref.Key, ref.SHA256, -1)
	if !ok {
		l.blind = true
		return false
	}
	if d.lines != ref.Count {
		l.lost(CodeTotal, ref.Key, "it has %d lines, its commit says %d", d.lines, ref.Count)
		return false
	}
	l.checked.Data++
	return true
}

// lines yields the lines of a verified list, or of one that the record holds itself.
func lines[T any](ctx context.Context, l *look, inline []T, ref *manifest.Ref) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		if ref == nil {
			for _, v := range inline {
				if !yield(v) {
					return
				}
			}
			return
		}
		err := manifest.ReadLines(ctx, l.a.Store, string(l.a.job), *ref, func(v T) error {
			if !yield(v) {
				return errStop
			}
			return nil
		})
		switch {
		case err == nil, errors.Is(err, errStop):
		case unreadable(err), errors.Is(err, hayrick.ErrNotFound):
			l.lost(CodeForm, ref.Key, "%v", err)
		default:
			l.err = err
		}
	}
}

var errStop = errors.New("stopped")

// decode reads every row of a Parquet file: their number, their hash and the schema;
// and holds against them what the file says of them.
func (l *look) decode(ctx context.Context, rel string) (n int64, h rows.Hash, s rows.Schema, ok bool) {
	if l.err != nil {
		return 0, h, s, false
	}
	err := func() error {
		blob, err := l.a.Blobs.OpenAt(ctx, l.a.job.Abs(rel))
		if err != nil {
			return err
		}
		defer blob.Close()
		f, err := rows.Open(blob, blob.Size())
		if err != nil {
			return err
		}
		s = f.Schema()
		sc, err := f.Scan(rows.Schema{})
		if err != nil {
			return err
		}
		said := statistics{blob: &rememberer{Blob: blob}, schema: s}
		for err = said.open(); err == nil; {
			if err = ctx.Err(); err != nil {
				break
			}
			var b *rows.Batch
			if b, err = sc.Next(); err == nil {
				err = said.add(b)
			}
		}
		if err != io.EOF {
			return err
		}
		if said.wrong != "" {
			l.broken(CodeRows, rel, "%s", said.wrong)
		}
		n, h = sc.Read()
		return nil
	}()
	switch {
	case err == nil:
		l.decoded.Decoded++
		l.decoded.ReadRows += n
		return n, h, s, true
	case unreadable(err), errors.Is(err, hayrick.ErrNotFound), errors.Is(err, rows.ErrKind):
		l.broken(CodeRows, rel, "its rows cannot be read: %v", err)
	default:
		l.err = fmt.Errorf("read the rows of %s: %w", rel, err)
	}
	return 0, h, s, false
}

// view compares a derived object with what it is derived from.
func (l *look) view(ctx context.Context, rel string, want any) {
	body, err := manifest.Encode(want)
	if err != nil {
		l.err = err
		return
	}
	l.viewBytes(ctx, rel, func([]byte) ([]byte, bool) { return body, true })
}

// viewBytes is view where some of what is stored is nobody's to derive; derive says
// false of what is no such view at all.
func (l *look) viewBytes(ctx context.Context, rel string, derive func(stored []byte) ([]byte, bool)) {
	l.name(rel)
	b, err := l.raw(ctx, rel)
	switch {
	case l.err != nil:
	case errors.Is(err, hayrick.ErrNotFound):
		l.find(View, CodeView, rel, "the view is missing")
	case err != nil:
		l.find(View, CodeView, rel, "%v", err)
	default:
		if want, ok := derive(b); ok && string(want) == string(b) {
			l.checked.Views++
		} else {
			l.find(View, CodeView, rel, "the view differs from what its commits say")
		}
	}
}
