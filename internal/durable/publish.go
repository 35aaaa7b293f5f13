package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const publishPrefix = ".hayrick-"

var published atomic.Int64 // makes the names of temps unique within the process

// IsPublishTemp says whether a file name is that of a file being published.
func IsPublishTemp(name string) bool { return strings.HasPrefix(name, publishPrefix) }

// Publish writes a file into a folder that other programs read, over what has that
// name. fill writes a temp in the same folder, which is fsynced and renamed:
// readers, and a crash or power cut at any point, see the old file or the new one,
// whole. On return the new one is durable. Temps that killed publishers left are
// removed on the way.
func Publish(root *Root, name string, fill func(*os.File) error) error {
	f, temp, err := createPublishTemp(root)
	if err != nil {
		return err
	}
	defer root.Remove(temp)
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		d, err := root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("fsync folder %s: %w", dir, err)
		}
		if dir == "." {
			return cleanPublishTemps(root)
		}
	}
}

// createPublishTemp makes a temp that is locked while its writer lives, whatever
// store that writer belongs to.
func createPublishTemp(root *Root) (*os.File, string, error) {
	for range 100 {
		name := publishPrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(published.Add(1), 10)
		f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if tryLock(f, unix.LOCK_EX) && same(root, name, f) {
			return f, name, nil
		}
		f.Close() // somebody's clean found it before the lock
	}
	return nil, "", errors.New("no temp stays in the folder")
}

func cleanPublishTemps(root *Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if !IsPublishTemp(name) {
			continue
		}
		f, err := root.Open(name)
		if err != nil {
			continue // renamed or removed meanwhile
		}
		// The lock is taken by name and held while the name goes: a live writer's rename
		// cannot be hit, because it holds the lock until after it.
		if tryLock(f, unix.LOCK_EX) && same(root, name, f) {
			root.Remove(name)
		}
		f.Close()
	}
	return nil
}

// same says whether name still is the file f.
func same(root *Root, name string, f *os.File) bool {
	ours, err1 := f.Stat()
	there, err2 := root.Stat(name)
	return err1 == nil && err2 == nil && os.SameFile(ours, there)
}
