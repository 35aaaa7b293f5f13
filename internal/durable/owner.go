package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Owner is the name under which this process is alive in the folder.
func (d *Dir) Owner() string { return d.owner }

// Alive says whether the owner of that name has the folder open: its process has
// not ended, however it might have. A name is never used again.
func (d *Dir) Alive(owner string) bool {
	if owner == d.owner {
		return true
	}
	f, err := d.root.Open(path.Join(procDir, owner))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // when in doubt, alive: its leases run out
	}
	defer f.Close()
	return !tryLock(f, unix.LOCK_SH)
}

// enter takes an owner name: a file in procs that stays locked until the process
// ends. A kill -9 at any point leaves an unlocked file, which means dead.
func (d *Dir) enter(newID func() string) error {
	for range 100 {
		id := newID()
		name := path.Join(procDir, id)
		f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("enter as %s: %w", id, err)
		}
		// Somebody's clean may have found the file unlocked and be removing it: then it is
		// not ours, and another name is taken.
		if tryLock(f, unix.LOCK_EX) && same(d.root, name, f) {
			d.owner, d.lock = id, f
			return nil
		}
		f.Close()
	}
	return errors.New("enter: no name stays")
}

// clean removes the temps and the marks of dead owners.
func (d *Dir) clean() error {
	temps, err := d.names(tempDir)
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	var dead []string
	settled := false
	for _, name := range temps {
		owner, _, _ := strings.Cut(name, "-")
		if _, ok := alive[owner]; !ok {
			alive[owner] = d.Alive(owner)
		}
		if !alive[owner] {
			dead = append(dead, path.Join(tempDir, name))
		}
	}
	for _, name := range dead {
		// Its owner may have died between link and fsync. The second link is the only sign
		// of that, so the file system is synced before the sign goes.
		if info, err := d.root.Stat(name); err == nil && links(info) > 1 && !settled {
			if err := d.syncAll(); err != nil {
				return fmt.Errorf("sync what dead processes left: %w", err)
			}
			settled = true
		}
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	owners, err := d.names(procDir)
	if err != nil {
		return err
	}
	for _, id := range owners {
		name := path.Join(procDir, id)
		f, err := d.root.Open(name)
		if err != nil {
			continue // somebody else removed it
		}
		if id != d.owner && tryLock(f, unix.LOCK_EX) {
			d.root.Remove(name)
		}
		f.Close()
	}
	return nil
}

func (d *Dir) names(dir string) ([]string, error) {
	f, err := d.root.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func tryLock(f *os.File, how int) bool {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err != unix.EINTR {
			return err == nil
		}
	}
}
