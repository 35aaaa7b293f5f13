package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hayrick"
	"hayrick/doctor"
)

// Examine asks for everything that doctor judges of a store in dir, which may not be
// there yet: then of the folder that it would be made in. It makes nothing that stays.
func Examine(dir string, world hayrick.World, writers, rounds int) doctor.Local {
	l := doctor.Local{Folder: dir, Now: world.Clock.Now()}
	for {
		if info, err := os.Stat(l.Folder); err == nil && info.IsDir() {
			break
		} else if err == nil {
			l.Writable = broken[bool](fmt.Errorf("%s is no folder", l.Folder))
			return l
		}
		up := filepath.Dir(l.Folder)
		if up == l.Folder {
			break
		}
		l.Folder = up
	}
	l.Made = l.Folder == dir
	var user *hayrick.UserError
	if err := refuseNetwork(l.Folder); errors.As(err, &user) {
		l.FileSystem = user.What
	}
	try, err := os.MkdirTemp(l.Folder, ".hayrick-doctor-*")
	if err != nil {
		l.Writable = broken[bool](err)
		return l
	}
	defer os.RemoveAll(try)
	l.Writable = doctor.Known(true)
	l.Free = fact(free(try))
	l.FreeFiles = fact(freeFiles(try))
	l.Sync = fact(timeSync(try, world.Clock))
	l.Race = fact(raceLinks(try, world, writers, rounds))
	l.Lock = fact(lockHolds(try))
	l.Skew = fact(skew(try, world.Clock))
	l.OpenFiles = fact(openFiles())
	l.Newest = newest(dir)
	return l
}

func broken[T any](err error) doctor.Fact[T] {
	return doctor.Fact[T]{Why: doctor.Broken, Err: err.Error()}
}

func fact[T any](v T, err error) doctor.Fact[T] {
	if err != nil {
		return broken[T](err)
	}
	return doctor.Known(v)
}

// timeSync is how long it takes until a small file is on the disk: the longest of a few.
func timeSync(dir string, clock hayrick.Clock) (time.Duration, error) {
	longest := time.Duration(0)
	for i := range 5 {
		f, err := os.Create(filepath.Join(dir, "sync-"+strconv.Itoa(i)))
		if err != nil {
			return 0, err
		}
		start := clock.Now()
		_, err = f.WriteString("hayrick")
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return 0, err
		}
		longest = max(longest, clock.Now().Sub(start))
	}
	return longest, nil
}

// raceLinks lets writers link a file of their own to one name, all at once.
func raceLinks(dir string, world hayrick.World, writers, rounds int) (doctor.Race, error) {
	r := doctor.Race{Writers: writers}
	for w := range writers {
		if err := os.WriteFile(filepath.Join(dir, "writer-"+strconv.Itoa(w)), []byte(strconv.Itoa(w)), 0o600); err != nil {
			return r, err
		}
	}
	for round := range rounds {
		name := filepath.Join(dir, "round-"+strconv.Itoa(round))
		var won, unknown, winner atomic.Int64
		var done sync.WaitGroup
		start := make(chan struct{})
		for w := range writers {
			done.Add(1)
			world.Go("doctor", func() {
				defer done.Done()
				<-start
				switch err := os.Link(filepath.Join(dir, "writer-"+strconv.Itoa(w)), name); {
				case err == nil:
					won.Add(1)
					winner.Store(int64(w))
				case !errors.Is(err, fs.ErrExist):
					unknown.Add(1)
				}
			})
		}
		close(start)
		done.Wait()
		r.Winners, r.Unknown = append(r.Winners, int(won.Load())), r.Unknown+int(unknown.Load())
		if won.Load() != 1 {
			continue
		}
		body, err := os.ReadFile(name)
		if err != nil {
			return r, err
		}
		if string(body) != strconv.FormatInt(winner.Load(), 10) {
			r.Lost++
		}
	}
	return r, nil
}

// lockHolds says that a lock that is held is refused to a second holder.
func lockHolds(dir string) (bool, error) {
	first, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return false, err
	}
	defer first.Close()
	second, err := os.Open(first.Name())
	if err != nil {
		return false, err
	}
	defer second.Close()
	if err := unix.Flock(int(first.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, err
	}
	err = unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return false, nil
	}
	return errors.Is(err, unix.EWOULDBLOCK), nil
}

// skew is how far the file system's clock is ahead of this process's.
func skew(dir string, clock hayrick.Clock) (time.Duration, error) {
	path := filepath.Join(dir, "time")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.ModTime().Sub(clock.Now()), nil
}

// openFiles is how many files this process may have open.
func openFiles() (int64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	return int64(min(uint64(l.Cur), 1<<62)), nil
}

// newest is when the latest run of the store was submitted or ended, as its folders say.
func newest(dir string) time.Time {
	var last time.Time
	entries, err := os.ReadDir(filepath.Join(dir, "jobs"))
	if err != nil {
		return last
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// freeFiles is how many files can still be made below dir; -1 where nobody counts them.
func freeFiles(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	if st.Files == 0 {
		return -1, nil
	}
	return int64(st.Ffree), nil
}
