package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Dir is a folder that files are created in. Names are relative, slash-separated
// paths; neither ".." nor a symbolic link leads out of the folder. It may be used
// by many goroutines, and the folder by many processes.
type Dir struct {
	root   *Root
	path   string
	owner  string
	lock   *os.File // procs/<owner>, locked while we live
	all    *os.File // the folder itself, through which its file system is synced
	temps  atomic.Int64
	fsyncs atomic.Int64
	sync   barrier
	known  recent // folders whose own names are durable

	trace func(op, name string) // what was done to the disk, for tests; may be nil
}

const (
	tempDir = "tmp"
	procDir = "procs"
)

// Open opens the folder at path, creating it where it is missing, under an owner
// name that newID makes unique, and removes what dead owners left in tmp. now
// serves to compare what ways of syncing cost.
func Open(path string, newID func() string, now func() time.Time) (*Dir, error) {
	if err := MkdirAll(path); err != nil {
		return nil, err
	}
	root, err := OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, path: path}
	for _, sub := range []string{tempDir, procDir} {
		if err := root.Mkdir(sub, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, root.Close())
		}
	}
	if err := d.enter(newID); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if d.all, err = root.Open("."); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := d.clean(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.sync.now = now
	if syncfsTells() {
		d.sync.whole = d.syncAll
	}
	return d, nil
}

// Close ends the owner: it counts as dead from here on.
func (d *Dir) Close() error {
	// Unlinked before the lock goes, so that nobody takes the file for a dead owner's.
	err := d.root.Remove(path.Join(procDir, d.owner))
	if d.all != nil {
		err = errors.Join(err, d.all.Close())
	}
	return errors.Join(err, d.lock.Close(), d.root.Close())
}

// Path is the folder's path.
func (d *Dir) Path() string { return d.path }

// Fsyncs returns how many fsyncs of files and folders were made.
func (d *Dir) Fsyncs() int64 { return d.fsyncs.Load() }

// Settle makes the name of an existing file durable unless it is known to be: who has
// seen it may act on it from here on. A writer may be in the middle of linking it, or
// may have died there.
func (d *Dir) Settle(name string) error {
	info, err := d.root.Stat(name)
	if err != nil {
		return err
	}
	if links(info) > 1 {
		return d.syncName(name)
	}
	return nil
}

// Root gives access to the folder for what needs no durability: listing.
func (d *Dir) Root() *Root { return d.root }

// syncName makes the name of a file durable, and those of the folders above it.
// Who calls it has seen the name, so the entry exists before any sync starts.
func (d *Dir) syncName(name string) error {
	d.note("seen", name)
	all, err := d.sync.sync(func() error { return d.syncChain(name) })
	if all {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			d.known.add(dir)
		}
	}
	return err
}

// syncChain fsyncs the folder that holds name, and every folder above that is not
// known to be durable itself.
func (d *Dir) syncChain(name string) error {
	var made []string
	for {
		parent := path.Dir(name)
		if err := d.syncDir(parent); err != nil {
			return fmt.Errorf("fsync folder %s: %w", parent, err)
		}
		if parent == "." || d.known.has(parent) {
			break
		}
		made = append(made, parent)
		name = parent
	}
	for _, dir := range made {
		d.known.add(dir)
	}
	return nil
}

func (d *Dir) syncDir(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	d.fsyncs.Add(1)
	d.note("fsync", dir)
	err = errors.Join(f.Sync(), f.Close())
	d.note("fsynced", dir)
	return err
}

// syncAll makes everything on the folder's file system durable.
func (d *Dir) syncAll() error {
	d.fsyncs.Add(1)
	d.note("fsync", "*")
	err := syncfs(d.all)
	d.note("fsynced", "*")
	return err
}

func (d *Dir) note(op, name string) {
	if d.trace != nil {
		d.trace(op, name)
	}
}

// mkdirs makes the folders above name. They are as durable as the next syncName.
func (d *Dir) mkdirs(name string) error {
	parent := path.Dir(name)
	for dir := parent; dir != "."; dir = path.Dir(dir) {
		d.known.forget(dir) // one of them is missing: whatever was known of them is old
	}
	if err := d.root.Mkdir(parent, 0o755); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.root.MkdirAll(parent, 0o755)
}

// MkdirAll is os.MkdirAll; the folders it makes survive a power cut.
func MkdirAll(dir string) error {
	var missing []string
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for p := abs; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, p)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range missing {
		f, err := os.Open(filepath.Dir(p))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("fsync folder %s: %w", filepath.Dir(p), err)
		}
	}
	return nil
}
