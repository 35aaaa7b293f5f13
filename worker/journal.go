package worker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"hayrick"
)

// journalFormat changes when the tables below do.
const journalFormat = "2"

const journalSchema = `
CREATE TABLE meta (format TEXT, batch TEXT, definition TEXT, bundle TEXT, boot TEXT);
CREATE TABLE items (
  ordinal INTEGER PRIMARY KEY, ended INTEGER, ok INTEGER, key TEXT, class TEXT, disposition TEXT, message TEXT, detail TEXT,
  tries INTEGER, losses INTEGER, crashes INTEGER, retry_after_ms INTEGER, row_count INTEGER, cursor BLOB, rows BLOB);`

type fileJournal struct {
	path string
	lock *os.File
	db   *sql.DB
	put  *sql.Stmt
}

func openJournal(path string, lock *os.File) *fileJournal {
	q := url.Values{"_pragma": {"journal_mode(DELETE)", "synchronous(OFF)", "locking_mode(EXCLUSIVE)", "cache_size(-256)"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		panic(err) // nothing is opened yet: only the driver can be missing
	}
	db.SetMaxOpenConns(1)
	return &fileJournal{path: path, lock: lock, db: db}
}

func (j *fileJournal) prepare(ctx context.Context) (err error) {
	j.put, err = j.db.PrepareContext(ctx, `INSERT OR REPLACE INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`)
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
func (j *fileJournal) Record(ctx context.Context, es ...Entry) (err error) {
	if len(es) > 1 {
		tx, err := j.db.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
		put := tx.StmtContext(ctx, j.put)
		for i := range es {
			if err := record(ctx, put, &es[i]); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
		return nil
	}
	for i := range es {
		err = record(ctx, j.put, &es[i])
	}
	return err
}

func record(ctx context.Context, put *sql.Stmt, e *Entry) error {
	if _, err := put.ExecContext(ctx, e.Ordinal, e.Ended, e.OK, e.Key, e.Class, string(e.Disposition), e.Message, e.Detail,
		e.Tries, e.Losses, e.Crashes, e.RetryAfterMS, e.RowCount, e.Cursor, e.Rows); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// Each is Journal.
func (j *fileJournal) Each(ctx context.Context, fn func(Entry) error) error {
	rs, err := j.db.QueryContext(ctx, `SELECT ordinal, ended, ok, key, class, disposition, message, detail,
		tries, losses, crashes, retry_after_ms, row_count, cursor, rows FROM items ORDER BY ordinal`)
	if err != nil {
		return unreadable(ctx, err)
	}
	defer rs.Close()
	for rs.Next() {
		var e Entry
		var body sql.RawBytes
		if err := rs.Scan(&e.Ordinal, &e.Ended, &e.OK, &e.Key, &e.Class, &e.Disposition, &e.Message, &e.Detail,
			&e.Tries, &e.Losses, &e.Crashes, &e.RetryAfterMS, &e.RowCount, &e.Cursor, &body); err != nil {
			return unreadable(ctx, err)
		}
		e.Rows = body
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := rs.Err(); err != nil {
		return unreadable(ctx, err)
	}
	return nil
}

// unreadable is damage, unless the reader was stopped.
func unreadable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("read the journal: %w", ctx.Err())
	}
	return fmt.Errorf("read the journal: %v: %w", err, hayrick.ErrCorrupt)
}

// Snapshot is Journal: a vacuumed copy of the file.
func (j *fileJournal) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	path := j.path + ".snapshot"
	os.Remove(path)
	defer os.Remove(path) // the open file stays readable
	if _, err := j.db.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return nil, fmt.Errorf("snapshot the journal: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("snapshot the journal: %w", err)
	}
	return f, nil
}

// Path is Journal.
func (j *fileJournal) Path() string { return j.path }

// Close is Journal. A crash before the removal leaves files that the next attempt
// of the task on this machine removes; without one they are the scratch folder's.
func (j *fileJournal) Close(remove bool) error {
	return errors.Join(j.db.Close(), unlock(j.path, j.lock, remove))
}
