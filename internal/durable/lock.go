package durable

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock is a lock file that processes take in turns. The lock ends with its holder.
type Lock struct{ f *os.File }

// OpenLock opens the lock file at name in the folder, creating it where it is
// missing. The file is never removed.
func (d *Dir) OpenLock(name string) (*Lock, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock %s: %w", name, err)
	}
	return &Lock{f}, nil
}

// Lock waits until it is taken. A Lock is not for several goroutines at once.
func (l *Lock) Lock() error { return l.flock(unix.LOCK_EX) }

// Unlock gives it up.
func (l *Lock) Unlock() error { return l.flock(unix.LOCK_UN) }

// Close gives it up for good.
func (l *Lock) Close() error { return l.f.Close() }

func (l *Lock) flock(how int) error {
	for {
		if err := unix.Flock(int(l.f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}
