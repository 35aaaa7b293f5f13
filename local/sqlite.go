package local

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	"modernc.org/sqlite"
)

// conn is one connection to state.db, for one goroutine at a time. It stands on the
// driver itself: a pool of database/sql may open connections whenever it likes, and
// here every one has to be opened under the lock that says which file is the
// database.
type conn struct {
	c     driver.Conn
	stmts map[string]*stmt
}

// stmt is a prepared statement with the buffers of its calls.
type stmt struct {
	s    driver.Stmt
	args []driver.NamedValue
	row  []driver.Value
}

// sqlError marks what SQLite answered, as against what a caller is told. It ends
// the transaction it happened in.
type sqlError struct{ err error }

func (e *sqlError) Error() string { return "state.db: " + e.err.Error() }
func (e *sqlError) Unwrap() error { return e.err }

// openConn opens the database file at path; mode is rw, or rwc to create it. The
// WAL stays when the last connection closes: its name may belong to another
// database by then.
func openConn(path, mode string, pragmas ...string) (*conn, error) {
	q := url.Values{"mode": {mode}, "_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	c, err := new(sqlite.Driver).Open((&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, &sqlError{err}
	}
	if _, err := c.(sqlite.FileControl).FileControlPersistWAL("main", 1); err != nil {
		return nil, errors.Join(&sqlError{err}, c.Close())
	}
	return &conn{c: c, stmts: map[string]*stmt{}}, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

// prepared returns the statement of sql, which is prepared once.
func (c *conn) prepared(sql string, args []any) (*stmt, error) {
	s := c.stmts[sql]
	if s == nil {
		prepared, err := c.c.Prepare(sql)
		if err != nil {
			return nil, &sqlError{fmt.Errorf("%s: %w", sql, err)}
		}
		s = &stmt{s: prepared}
		c.stmts[sql] = s
	}
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s, nil
}

// exec runs a statement without rows. Arguments are int64, string, []byte or nil.
func (c *conn) exec(sql string, args ...any) error {
	s, err := c.prepared(sql, args)
	if err != nil {
		return err
	}
	if _, err := s.s.(driver.StmtExecContext).ExecContext(context.Background(), s.args); err != nil {
		return &sqlError{err}
	}
	return nil
}

// each calls fn for every row. The row is valid until fn returns, and fn does not
// use the statement again.
func (c *conn) each(fn func(row []driver.Value) error, sql string, args ...any) error {
	s, err := c.prepared(sql, args)
	if err != nil {
		return err
	}
	rows, err := s.s.(driver.StmtQueryContext).QueryContext(context.Background(), s.args)
	if err != nil {
		return &sqlError{err}
	}
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.row); {
		case err == io.EOF:
			if err := rows.Close(); err != nil {
				return &sqlError{err}
			}
			return nil
		case err != nil:
			rows.Close()
			return &sqlError{err}
		}
		if err := fn(s.row); err != nil {
			rows.Close()
			return err
		}
	}
}

// one returns the only row, or nil when there is none.
func (c *conn) one(sql string, args ...any) (row []driver.Value, err error) {
	err = c.each(func(r []driver.Value) error { row = r; return nil }, sql, args...)
	return row, err
}
