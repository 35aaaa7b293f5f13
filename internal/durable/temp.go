package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
)

// Temp is a file that has no name yet. One of Link, Replace and Discard ends it.
type Temp struct {
	*os.File
	dir  *Dir
	name string
}

// Create opens a new temp for writing. Its name is unique to this owner and call,
// so no two attempts ever share one.
func (d *Dir) Create() (*Temp, error) {
	name := path.Join(tempDir, d.owner+"-"+strconv.FormatInt(d.temps.Add(1), 10))
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrNotExist) { // somebody tidied up: temps are nobody's but their owner's
		if err := d.root.MkdirAll(tempDir, 0o755); err != nil {
			return nil, err
		}
		f, err = d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	}
	if err != nil {
		return nil, err
	}
	return &Temp{File: f, dir: d, name: name}, nil
}

// UndecidedError says that a name may or may not have been given durably.
type UndecidedError struct{ Err error }

func (e *UndecidedError) Error() string { return e.Err.Error() }
func (e *UndecidedError) Unwrap() error { return e.Err }

// Link gives the temp its name if nothing has it, and says whether it did. On
// return the file under the name, its own or the one that was there, is durable.
// *UndecidedError: the file may be there, but its name may not survive a power cut.
func (t *Temp) Link(name string) (linked bool, err error) {
	defer t.Discard()
	if err := t.syncBytes(); err != nil {
		return false, fmt.Errorf("fsync: %w", err) // the temp is discarded: a later fsync might hide the loss
	}
	err = t.dir.root.Link(t.name, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := t.dir.mkdirs(name); err != nil {
			return false, err
		}
		err = t.dir.root.Link(t.name, name)
	}
	if err != nil {
		// An error reply may belong to a link that happened: a retransmitted one finds its
		// own name. Two links on the temp say so.
		info, serr := t.Stat()
		if serr == nil && links(info) < 2 {
			if !errors.Is(err, fs.ErrExist) {
				return false, err
			}
			if err := t.dir.Settle(name); err != nil {
				return false, &UndecidedError{err}
			}
			return false, nil
		}
		if serr != nil {
			return false, &UndecidedError{errors.Join(err, serr)}
		}
	}
	t.dir.note("link "+t.name, name)
	// Power cut here: the name may be gone, and nobody has acted on it.
	if err := t.dir.syncName(name); err != nil {
		return false, &UndecidedError{err}
	}
	return true, nil // and Discard takes the second link away: the name is known to be durable
}

// largeTemp is a size from which on a file is fsynced alone, lest those with small
// ones wait for it.
const largeTemp = 1 << 20

func (t *Temp) syncBytes() error {
	info, err := t.Stat()
	if err != nil {
		return err
	}
	t.dir.note("written", t.name)
	own := func() error {
		t.dir.fsyncs.Add(1)
		err := t.Sync()
		t.dir.note("fsynced", t.name)
		return err
	}
	if info.Size() >= largeTemp {
		return own()
	}
	_, err = t.dir.sync.sync(own)
	return err
}

// Replace gives the temp its name, over what has it. Readers see the old file or
// the new one, whole; after a power cut they may see either or damage.
func (t *Temp) Replace(name string) error {
	err := t.dir.root.Rename(t.name, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err = t.dir.mkdirs(name); err == nil {
			err = t.dir.root.Rename(t.name, name)
		}
	}
	if err != nil {
		t.Discard()
		return err
	}
	t.dir = nil
	return t.Close()
}

// Discard removes the temp. What cannot be removed now is removed by the next
// Open that finds its owner dead.
func (t *Temp) Discard() {
	if t.dir == nil {
		return
	}
	t.Close()
	t.dir.note("unlink", t.name)
	t.dir.root.Remove(t.name)
	t.dir = nil
}
