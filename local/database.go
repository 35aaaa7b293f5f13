package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// database is one life of state.db: the connections to it, and which files it is.
type database struct {
	files       files
	incarnation string
	writer      *conn
	readers     chan *conn
}

const readers = 2

// fileID names a file as long as it exists; the zero value is none.
type fileID struct{ Dev, Ino uint64 }

// files are state.db, its WAL and its shared memory. They belong together: when
// one of them is gone or another one, so is the database.
type files [3]fileID

var fileNames = [3]string{"state.db", "state.db-wal", "state.db-shm"}

// identity is state.id: which files are the database. It is written when they are
// made, so files that were copied, restored or put together are not taken for it.
// For buckets that matters: an old one would grant tokens twice.
type identity struct {
	Files       files    `json:"files"`
	Born        [3]int64 `json:"born"` // in ns: the number of a deleted file may be given again
	Incarnation string   `json:"incarnation"`
}

// statFiles returns what lies at the names now, and the size of the WAL.
func statFiles(dir string) (f files, wal int64) {
	for i, name := range fileNames {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, name), &st) == nil {
			f[i] = fileID{uint64(st.Dev), uint64(st.Ino)}
			if i == 1 {
				wal = st.Size
			}
		}
	}
	return f, wal
}

func born(dir string) (ns [3]int64) {
	for i, name := range fileNames {
		ns[i] = birth(filepath.Join(dir, name))
	}
	return ns
}

// openDatabase opens the database in dir, or makes a new one where it is missing,
// incomplete, not the one that was made here, or not readable. The caller holds
// the lock, so nobody else opens or makes one meanwhile.
func openDatabase(dir, newIncarnation string, log *slog.Logger) (*database, error) {
	found, _ := statFiles(dir)
	known, err := readIdentity(dir)
	if err != nil {
		return nil, err
	}
	if found == known.Files && born(dir) == known.Born && found[0] != (fileID{}) {
		db, err := connect(dir, known)
		switch {
		case err == nil:
			return db, nil
		case errors.Is(err, errMoved):
			return nil, err
		case damaged(err):
			if err := moveAside(dir, log, err); err != nil {
				return nil, err
			}
		case errors.Is(err, errVersion):
			log.Warn("state.db is of another version of hayrick; starting with a new one")
		default:
			return nil, err
		}
	} else if found[0] != (fileID{}) {
		log.Warn("state.db and its companions are not the ones that were made here; starting with a new one")
	}
	return create(dir, newIncarnation)
}

// create makes a new database. It removes all of the old one first, so that two
// databases never share a WAL or its index. A crash before state.id is written
// leaves files that it does not name: the next one starts over.
func create(dir, incarnation string) (*database, error) {
	for _, name := range append(fileNames[:], "state.id") {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	err := fresh(dir, incarnation)
	id := identity{Incarnation: incarnation, Born: born(dir)}
	id.Files, _ = statFiles(dir)
	if slices.Contains(id.Files[:], fileID{}) {
		err = errors.Join(errMoved, err)
	}
	if err != nil {
		return nil, err
	}
	if err := writeIdentity(dir, id); err != nil {
		return nil, err
	}
	return connect(dir, id)
}

// fresh writes the schema into a database that is not there yet.
func fresh(dir, incarnation string) error {
	c, err := openConn(filepath.Join(dir, fileNames[0]), "rwc", "journal_mode(WAL)")
	if err != nil {
		return err
	}
	err = func() error {
		for _, sql := range append([]string{"BEGIN IMMEDIATE"}, schema...) {
			if err := c.exec(sql); err != nil {
				return err
			}
		}
		if err := c.exec(`INSERT INTO meta VALUES ('incarnation', ?), ('last_message', 0), ('boot', ?)`, incarnation, bootID()); err != nil {
			return err
		}
		if err := c.exec(fmt.Sprintf("PRAGMA user_version=%d", schemaVersion)); err != nil {
			return err
		}
		return c.exec("COMMIT")
	}()
	return errors.Join(err, c.close())
}

var (
	errVersion = errors.New("another schema version")
	errMoved   = errors.New("state.db was deleted while it was opened")
)

// connect opens the connections to the database that id names.
func connect(dir string, id identity) (db *database, err error) {
	db = &database{files: id.Files, incarnation: id.Incarnation, readers: make(chan *conn, readers)}
	defer func() {
		// Whatever came of it: when a file was deleted meanwhile, SQLite may have met a
		// mixture of two databases, or made one.
		if ok, _ := db.current(dir); !ok {
			err = errMoved
		}
		if err != nil {
			err = errors.Join(err, db.close())
			db = nil
		}
	}()
	path := filepath.Join(dir, fileNames[0])
	// NORMAL: a power cut may take the last transactions, never the database. It is a
	// cache, and its buckets do not outlive the boot.
	if db.writer, err = openConn(path, "rw", "journal_mode(WAL)", "synchronous(NORMAL)", "cache_size(-1024)", "journal_size_limit(16777216)"); err != nil {
		return db, err
	}
	row, err := db.writer.one("PRAGMA user_version")
	if err != nil {
		return db, err
	}
	if row[0] != int64(schemaVersion) {
		return db, errVersion
	}
	row, err = db.writer.one(`SELECT value FROM meta WHERE key = 'boot'`)
	if err != nil {
		return db, err
	}
	if boot := bootID(); row == nil || row[0] != any(boot) {
		// The machine was down since: what of the buckets is on disk may be older than what
		// was granted. A bucket that is missing starts safely.
		if err := db.writer.exec(`DELETE FROM buckets`); err != nil {
			return db, err
		}
		if err := db.writer.exec(`INSERT OR REPLACE INTO meta VALUES ('boot', ?)`, boot); err != nil {
			return db, err
		}
	}
	for range readers {
		c, err := openConn(path, "rw", "query_only(1)", "cache_size(-1024)")
		if err != nil {
			return db, err
		}
		db.readers <- c
	}
	return db, nil
}

// current says whether the files at the names are still this database.
func (db *database) current(dir string) (ok bool, wal int64) {
	found, wal := statFiles(dir)
	return found == db.files, wal
}

// close needs that nobody uses a connection.
func (db *database) close() error {
	var errs []error
	for range len(db.readers) {
		errs = append(errs, (<-db.readers).close())
	}
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	return errors.Join(errs...)
}

// moveAside keeps the bytes of a database that cannot be read for whoever wants
// to look at them.
func moveAside(dir string, log *slog.Logger, cause error) error {
	for n := 1; ; n++ {
		aside := "state.db.corrupt-" + strconv.Itoa(n)
		if _, err := os.Lstat(filepath.Join(dir, aside)); err == nil {
			continue
		}
		for i, suffix := range []string{"", "-wal"} {
			if err := os.Rename(filepath.Join(dir, fileNames[i]), filepath.Join(dir, aside+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		log.Warn("state.db was damaged; starting with a new one", "kept", aside, "error", cause)
		return nil
	}
}

func readIdentity(dir string) (identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, "state.id"))
	var id identity
	if errors.Is(err, fs.ErrNotExist) || (err == nil && json.Unmarshal(b, &id) != nil) {
		return identity{}, nil // names no database: a new one is made
	}
	return id, err
}

func writeIdentity(dir string, id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, "state.id.new") // one at a time: the lock is held
	if err := os.WriteFile(temp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, "state.id"))
}
