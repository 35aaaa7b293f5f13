package worker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"hayrick"
	"hayrick/manifest"
)

// FileJournals keeps journals as SQLite files,
// <Dir>/job/<job_id>/task/<task_id>/<task_id>.sqlite, each under an flock. A
// journal is a cache: rollback journal, synchronous=OFF, and it is discarded when
// the machine has been started anew since (BootID), because un-fsynced pages may be
// gone.
type FileJournals struct {
	Dir    string
	BootID string
}

// journalFormat changes when the tables below do.
const journalFormat = "1"

const journalSchema = `
CREATE TABLE IF NOT EXISTS meta (format TEXT, batch TEXT, definition TEXT, bundle TEXT, boot TEXT);
CREATE TABLE IF NOT EXISTS items (
  ordinal INTEGER PRIMARY KEY, ended INTEGER, ok INTEGER, key TEXT, class TEXT, disposition TEXT, message TEXT,
  tries INTEGER, losses INTEGER, crashes INTEGER, retry_after_ms INTEGER, row_count INTEGER, rows BLOB);`

type fileJournal struct {
	path string
	lock *os.File
	db   *sql.DB
	put  *sql.Stmt
}

func (f FileJournals) dir(ref hayrick.TaskRef) string {
	return filepath.Join(f.Dir, "job", ref.JobID, "task", ref.TaskID)
}

// Open is Journals.
func (f FileJournals) Open(ctx context.Context, ref hayrick.TaskRef, fp Fingerprint) (Journal, error) {
	path := filepath.Join(f.dir(ref), ref.TaskID+".sqlite")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open journal: %w", hayrick.ErrNotFound)
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	j, err := openJournal(ctx, path, lock)
	if err == nil {
		if err = j.fits(ctx, fp, f.BootID); err == nil {
			return j, nil
		}
		j.db.Close()
	}
	// Damaged, or made from other work: it is worth nothing.
	removeJournal(path)
	lock.Close()
	return nil, fmt.Errorf("open journal: %v: %w", err, hayrick.ErrNotFound)
}

// Create is Journals.
func (f FileJournals) Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint) (Journal, error) {
	j, err := f.make(ctx, ref, attempt, nil)
	if err != nil {
		return nil, err
	}
	if _, err := j.db.ExecContext(ctx, journalSchema); err != nil {
		j.Close(true)
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if _, err := j.db.ExecContext(ctx, `INSERT INTO meta VALUES (?,?,?,?,?)`,
		journalFormat, fp.BatchSHA256, fp.DefinitionSHA256, fp.BundleSHA256, f.BootID); err != nil {
		j.Close(true)
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return j, j.prepare(ctx)
}

// Restore is Journals.
func (f FileJournals) Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint, snapshot io.Reader) (Journal, error) {
	j, err := f.make(ctx, ref, attempt, snapshot)
	if err != nil {
		return nil, err
	}
	// A checkpoint is durable: it fits whichever machine it came from.
	if err := j.fits(ctx, fp, ""); err != nil {
		j.Close(true)
		return nil, fmt.Errorf("restore journal: %v: %w", err, hayrick.ErrCorrupt)
	}
	if _, err := j.db.ExecContext(ctx, `UPDATE meta SET boot = ?`, f.BootID); err != nil {
		j.Close(true)
		return nil, fmt.Errorf("restore journal: %v: %w", err, hayrick.ErrCorrupt)
	}
	return j, nil
}

// make opens a fresh file in the task's folder, beside a live attempt's if there is
// one, filled with content when that is given.
func (f FileJournals) make(ctx context.Context, ref hayrick.TaskRef, attempt string, content io.Reader) (*fileJournal, error) {
	if err := os.MkdirAll(f.dir(ref), 0o755); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	path := filepath.Join(f.dir(ref), ref.TaskID+".sqlite")
	lock, err := lockFile(path)
	if errors.Is(err, hayrick.ErrNotFound) { // held: an own file, started clean
		path = filepath.Join(f.dir(ref), ref.TaskID+"-"+attempt[:8]+".sqlite")
		lock, err = lockFile(path)
	}
	if err != nil {
		return nil, err
	}
	removeJournal(path)
	if content != nil {
		if err := fill(path, content); err != nil {
			lock.Close()
			return nil, err
		}
	}
	j, err := openJournal(ctx, path, lock)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return j, nil
}

func fill(path string, content io.Reader) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("restore journal: %w", err)
	}
	if _, err := io.Copy(file, content); err != nil {
		file.Close()
		return fmt.Errorf("restore journal: %w", err)
	}
	return file.Close()
}

// lockFile takes the journal's lock, a file beside it: SQLite's own locks on the
// database would be dropped by a second descriptor of it. ErrNotFound: held.
func lockFile(path string) (*os.File, error) {
	for {
		lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock journal: %w", err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			lock.Close()
			return nil, fmt.Errorf("lock journal: held by a live attempt: %w", hayrick.ErrNotFound)
		}
		// The holder before us removes the file with its journal; a lock on a file that
		// is gone excludes nobody.
		mine, err1 := lock.Stat()
		there, err2 := os.Stat(path + ".lock")
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return lock, nil
		}
		lock.Close()
	}
}

func removeJournal(path string) {
	os.Remove(path)
	os.Remove(path + "-journal")
}

func openJournal(ctx context.Context, path string, lock *os.File) (*fileJournal, error) {
	q := url.Values{"_pragma": {"journal_mode(DELETE)", "synchronous(OFF)", "locking_mode(EXCLUSIVE)"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &fileJournal{path: path, lock: lock, db: db}, nil
}

func (j *fileJournal) prepare(ctx context.Context) (err error) {
	j.put, err = j.db.PrepareContext(ctx, `INSERT OR REPLACE INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)`)
	return err
}

// fits checks that the journal is whole and of this work. boot "" is any.
func (j *fileJournal) fits(ctx context.Context, fp Fingerprint, boot string) error {
	var format, at string
	var got Fingerprint
	if err := j.db.QueryRowContext(ctx, `SELECT format, batch, definition, bundle, boot FROM meta`).
		Scan(&format, &got.BatchSHA256, &got.DefinitionSHA256, &got.BundleSHA256, &at); err != nil {
		return err
	}
	switch {
	case format != journalFormat:
		return fmt.Errorf("format %s", format)
	case got != fp:
		return errors.New("it is of another batch, definition or bundle")
	case boot != "" && at != boot:
		return errors.New("the machine has been started anew since")
	}
	return j.prepare(ctx)
}

// Record is Journal.
func (j *fileJournal) Record(ctx context.Context, e Entry) error {
	if _, err := j.put.ExecContext(ctx, e.Ordinal, e.Ended, e.OK, e.Key, e.Class, string(e.Disposition), e.Message,
		e.Tries, e.Losses, e.Crashes, e.RetryAfterMS, e.RowCount, e.Rows); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// Each is Journal.
func (j *fileJournal) Each(ctx context.Context, fn func(Entry) error) error {
	rs, err := j.db.QueryContext(ctx, `SELECT ordinal, ended, ok, key, class, disposition, message,
		tries, losses, crashes, retry_after_ms, row_count, rows FROM items ORDER BY ordinal`)
	if err != nil {
		return fmt.Errorf("read the journal: %v: %w", err, hayrick.ErrCorrupt)
	}
	defer rs.Close()
	for rs.Next() {
		var e Entry
		var body sql.RawBytes
		if err := rs.Scan(&e.Ordinal, &e.Ended, &e.OK, &e.Key, &e.Class, &e.Disposition, &e.Message,
			&e.Tries, &e.Losses, &e.Crashes, &e.RetryAfterMS, &e.RowCount, &body); err != nil {
			return fmt.Errorf("read the journal: %v: %w", err, hayrick.ErrCorrupt)
		}
		e.Rows = body
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := rs.Err(); err != nil {
		return fmt.Errorf("read the journal: %v: %w", err, hayrick.ErrCorrupt)
	}
	return nil
}

// Snapshot is Journal: a vacuumed copy of the file.
func (j *fileJournal) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	path := j.path + ".snapshot"
	os.Remove(path)
	if _, err := j.db.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return nil, fmt.Errorf("snapshot the journal: %w", err)
	}
	f, err := os.Open(path)
	os.Remove(path) // the open file stays readable
	return f, err
}

// Path is Journal.
func (j *fileJournal) Path() string { return j.path }

// Close is Journal. A crash before the removal leaves a file that the next attempt
// of the task removes, if there is one; the scratch folder is the user's to clean.
func (j *fileJournal) Close(remove bool) error {
	err := j.db.Close()
	if remove {
		removeJournal(j.path)
		os.Remove(j.path + ".lock")
		os.Remove(filepath.Dir(j.path)) // when it is empty
	}
	return errors.Join(err, j.lock.Close())
}

// TempFile is Journals.
func (f FileJournals) TempFile(_ context.Context, ref hayrick.TaskRef, attempt string) (manifest.Temp, error) {
	if err := os.MkdirAll(f.dir(ref), 0o755); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(f.dir(ref), ref.TaskID+"_"+attempt[:8]+"_*.tmp")
	if err != nil {
		return nil, err
	}
	os.Remove(file.Name()) // gone with the process, however it ends
	return tempFile{file}, nil
}

type tempFile struct{ *os.File }

// Close removes the file's bytes and its folder when nothing else is in it.
func (t tempFile) Close() error {
	err := t.File.Close()
	os.Remove(filepath.Dir(t.Name()))
	return err
}
