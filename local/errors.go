package local

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"hayrick"
	"hayrick/internal/durable"
)

// The exit codes of what a person has to mend here.
const (
	exitPermission = 5
	exitTemporary  = 75
)

// explain turns an error of the file system or of SQLite into what a caller knows:
// a sentinel, or a *hayrick.UserError where a person has to do something.
func explain(dir string, err error) error {
	var undecided *durable.UndecidedError
	code := sqliteCode(err)
	switch {
	case err == nil, isUser(err):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG), code&0xff == lib.SQLITE_FULL:
		return &hayrick.UserError{
			What: "no space is left for " + dir,
			Hint: "free space there and run the same command again: it goes on where it stopped",
			Exit: exitTemporary,
			Err:  err,
		}
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission), code&0xff == lib.SQLITE_READONLY:
		return &hayrick.UserError{
			What: dir + " cannot be written",
			Hint: "make it writable, or name another folder, and run the same command again",
			Exit: exitPermission,
			Err:  err,
		}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return &hayrick.UserError{
			What: "too many files are open",
			Hint: "raise the limit (`ulimit -n 1024`) and run the same command again",
			Exit: exitTemporary,
			Err:  err,
		}
	case errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.EMLINK):
		return &hayrick.UserError{
			What: dir + " is on a file system without hard links",
			Hint: "put the store on a local disk",
			Err:  err,
		}
	case errors.Is(err, syscall.EXDEV):
		return &hayrick.UserError{
			What: dir + " lies on several file systems",
			Hint: "mount nothing inside it: a store is one folder of one disk",
			Err:  err,
		}
	case code&0xff == lib.SQLITE_IOERR:
		return &hayrick.UserError{
			What: "state.db in " + dir + " cannot be read or written",
			Hint: "see whether its disk has room and is well, and run the same command again",
			Exit: exitTemporary,
			Err:  err,
		}
	case code&0xff == lib.SQLITE_BUSY:
		return &hayrick.UserError{
			What: "another program keeps state.db in " + dir + " locked",
			Hint: "close it and run the same command again",
			Exit: exitTemporary,
			Err:  err,
		}
	case errors.As(err, &undecided):
		return fmt.Errorf("%w: %w", hayrick.ErrUnknown, err)
	}
	return err
}

// ofOne is err of one object, input or output: one that this process may not use is no
// word about others.
func ofOne(err error) error {
	if err != nil && sqliteCode(err) == 0 && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)) && !errors.Is(err, hayrick.ErrDenied) {
		return fmt.Errorf("%w: %w", hayrick.ErrDenied, err)
	}
	return err
}

// explainRead is explain for reads of one object, input or output, where what is missing
// is an answer and nobody wanted to write.
func explainRead(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) { // below a file there is nothing
		return fmt.Errorf("%w: %w", hayrick.ErrNotFound, err)
	}
	if errors.Is(err, fs.ErrPermission) && !isUser(err) {
		return ofOne(&hayrick.UserError{
			What: dir + " cannot be read",
			Hint: "make it readable, or run the same command as its owner",
			Err:  err,
		})
	}
	return explain(dir, err)
}

func isUser(err error) bool {
	var u *hayrick.UserError
	return errors.As(err, &u)
}

// sqliteCode is SQLite's result code of err, or 0.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// damaged says that err means that the bytes of state.db are not a database.
func damaged(err error) bool {
	switch sqliteCode(err) & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT:
		return true
	}
	return false
}
