package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// FileJournals keeps journals as SQLite files,
// <Dir>/job/<job_id>/task/<task_id>/<task_id>.sqlite, each under an flock. A
// journal is a cache: rollback journal, synchronous=OFF. The end of the process
// leaves it whole, for the system still has what was written; the end of the system
// may not, and it is discarded when the machine has been started anew since
// (BootID).
type FileJournals struct {
	Dir    string
	BootID string // "" when it is not known: a journal is taken for what it says
}

func (f FileJournals) dir(ref hayrick.TaskRef) string {
	return filepath.Join(f.Dir, "job", ref.JobID, "task", ref.TaskID)
}

// reach says that a task's folder, where it is there, lies below Dir: its ids are ids, and
// no link that somebody left in a scratch of many users leads out.
func (f FileJournals) reach(ref hayrick.TaskRef, do func(root *os.Root, folder string) error) error {
	if !hayrick.ValidID(ref.JobID) || !hayrick.ValidID(ref.TaskID) {
		return fmt.Errorf("%.64q of %.64q is no task", ref.TaskID, ref.JobID)
	}
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return do(root, filepath.Join("job", ref.JobID, "task", ref.TaskID))
}

func (f FileJournals) path(ref hayrick.TaskRef) string {
	return filepath.Join(f.dir(ref), ref.TaskID+".sqlite")
}

// Open is Journals. A journal that is damaged, or made from other work, is removed.
func (f FileJournals) Open(ctx context.Context, ref hayrick.TaskRef, fp Fingerprint) (Journal, error) {
	path := f.path(ref)
	if err := f.reach(ref, func(root *os.Root, folder string) error {
		info, err := root.Lstat(filepath.Join(folder, filepath.Base(path)))
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("it is no file")
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("open journal: %v: %w", err, hayrick.ErrNotFound)
	}
	lock, err := lockFile(path, syscall.LOCK_NB)
	if errors.Is(err, errHeld) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open journal: %v: %w", err, hayrick.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	removeOrphans(path)
	j := openJournal(path, lock)
	if err = j.fits(ctx, fp, f.BootID); err == nil {
		return j, nil
	}
	if ctx.Err() != nil { // that says nothing about the journal
		j.Close(false)
		return nil, ctx.Err()
	}
	j.Close(true)
	return nil, fmt.Errorf("open journal: %v: %w", err, hayrick.ErrNotFound)
}

// Create is Journals.
func (f FileJournals) Create(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint) (Journal, error) {
	j, err := f.make(ref, attempt, nil)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if _, err = j.db.ExecContext(ctx, journalSchema); err == nil {
		_, err = j.db.ExecContext(ctx, `INSERT INTO meta VALUES (?,?,?,?,?)`,
			journalFormat, fp.BatchSHA256, fp.DefinitionSHA256, fp.BundleSHA256, f.BootID)
	}
	if err == nil {
		err = j.prepare(ctx)
	}
	if err != nil {
		j.Close(true)
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return j, nil
}

// Restore is Journals.
func (f FileJournals) Restore(ctx context.Context, ref hayrick.TaskRef, attempt string, fp Fingerprint, snapshot io.Reader) (Journal, error) {
	j, err := f.make(ref, attempt, snapshot)
	if err != nil {
		return nil, fmt.Errorf("restore journal: %w", err)
	}
	// A checkpoint is durable: it fits whichever machine it came from.
	if err = j.fits(ctx, fp, ""); err == nil {
		_, err = j.db.ExecContext(ctx, `UPDATE meta SET boot = ?`, f.BootID)
	}
	if err != nil {
		j.Close(true)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("restore journal: %v: %w", err, hayrick.ErrCorrupt)
	}
	return j, nil
}

// make opens a fresh file in the task's folder, beside a live attempt's if there is
// one, filled with content when that is given.
func (f FileJournals) make(ref hayrick.TaskRef, attempt string, content io.Reader) (*fileJournal, error) {
	path := f.path(ref)
	lock, err := f.lockIn(ref, path, syscall.LOCK_NB)
	if errors.Is(err, errHeld) { // an own file, started clean
		path = filepath.Join(f.dir(ref), ref.TaskID+"-"+short(attempt)+".sqlite")
		lock, err = f.lockIn(ref, path, 0) // only removeOrphans may have it, for a moment
	} else if err == nil {
		removeOrphans(path)
	}
	if err != nil {
		return nil, err
	}
	removeJournal(path)
	if content != nil {
		if err := fill(path, content); err != nil {
			unlock(path, lock, true)
			return nil, err
		}
	}
	return openJournal(path, lock), nil
}

// lockIn locks a path in the task's folder, which another attempt of the task may
// be removing at this moment.
func (f FileJournals) lockIn(ref hayrick.TaskRef, path string, how int) (lock *os.File, err error) {
	err = f.inFolder(ref, func() error {
		lock, err = lockFile(path, how)
		return err
	})
	return lock, err
}

func (f FileJournals) inFolder(ref hayrick.TaskRef, do func() error) (err error) {
	for range 100 {
		err = os.MkdirAll(f.Dir, 0o755)
		if err == nil {
			err = f.reach(ref, func(root *os.Root, folder string) error { return root.MkdirAll(folder, 0o755) })
		}
		if err == nil {
			err = do()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

func fill(path string, content io.Reader) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// short is the part of an attempt's id that is in names.
func short(attempt string) string { return attempt[:min(8, len(attempt))] }

// errHeld: a live attempt has the journal.
var errHeld = errors.New("held by a live attempt")

// lockFile takes the journal's lock, a file beside it: SQLite's own locks on the
// database would be dropped by a second descriptor of it. how is 0 to wait for it,
// or LOCK_NB. fs.ErrNotExist: its folder is gone.
func lockFile(path string, how int) (*os.File, error) {
	for {
		lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, err
		}
		switch err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|how); {
		case err == syscall.EINTR:
			lock.Close()
			continue
		case err == syscall.EWOULDBLOCK:
			lock.Close()
			return nil, errHeld
		case err != nil:
			lock.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The holder before us removes the file with its journal; a lock on a file that
		// is gone excludes nobody.
		mine, err1 := lock.Stat()
		there, err2 := os.Stat(path + ".lock")
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return lock, nil
		}
		lock.Close()
	}
}

// unlock ends the hold of a journal's path. With remove its files go, the lock last
// and while it is still held: whoever finds it gone makes a new one.
func unlock(path string, lock *os.File, remove bool) error {
	if remove {
		removeJournal(path)
		os.Remove(path + ".lock")
		os.Remove(filepath.Dir(path)) // when it is empty
	}
	return lock.Close()
}

func removeJournal(path string) {
	for _, suffix := range []string{"", "-journal", ".snapshot"} {
		os.Remove(path + suffix)
	}
}

// removeOrphans removes own files of attempts whose process has ended: nobody looks
// for them. Called with the lock of path, the task's main journal, held.
func removeOrphans(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".lock")
		own := filepath.Join(filepath.Dir(path), name)
		if !ok || own == path {
			continue
		}
		if lock, err := lockFile(own, syscall.LOCK_NB); err == nil {
			unlock(own, lock, true)
		}
	}
}

// TempFile is Journals. The file has no name, so that it is gone with the process,
// however that ends.
func (f FileJournals) TempFile(_ context.Context, ref hayrick.TaskRef, attempt string) (manifest.Temp, error) {
	var file *os.File
	err := f.inFolder(ref, func() (err error) {
		if file, err = os.CreateTemp(f.dir(ref), ref.TaskID+"_"+short(attempt)+"_*.tmp"); err == nil {
			err = os.Remove(file.Name())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a scratch file: %w", err)
	}
	return tempFile{file}, nil
}

type tempFile struct{ *os.File }

// Close removes the file's bytes and its folder when nothing else is in it.
func (t tempFile) Close() error {
	err := t.File.Close()
	os.Remove(filepath.Dir(t.Name()))
	return err
}

// logSuffix ends the name of an attempt's live log, <task_id>-<attempt>.log.jsonl beside
// the task's journal.
const logSuffix = ".log.jsonl"

// FileLogs are LiveLogs as files beside the journals of Dir.
type FileLogs struct{ Dir string }

// Create is LiveLogs.
func (f FileLogs) Create(ref hayrick.TaskRef, attempt string) (io.WriteCloser, error) {
	js := FileJournals{Dir: f.Dir}
	var file *os.File
	err := js.inFolder(ref, func() (err error) {
		old, _ := os.ReadDir(js.dir(ref))
		for _, e := range old {
			if strings.HasSuffix(e.Name(), logSuffix) {
				os.Remove(filepath.Join(js.dir(ref), e.Name()))
			}
		}
		file, err = os.OpenFile(filepath.Join(js.dir(ref), ref.TaskID+"-"+short(attempt)+logSuffix), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0o644)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the live log of %s: %w", ref.TaskID, err)
	}
	return liveLog{file}, nil
}

// Left is LiveLogs. Of several logs it is the newest.
func (f FileLogs) Left(ref hayrick.TaskRef) (body []byte) {
	dir := FileJournals{Dir: f.Dir}.dir(ref)
	entries, _ := os.ReadDir(dir)
	var newest time.Time
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasSuffix(e.Name(), logSuffix) || info.ModTime().Before(newest) {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
			body, newest = b, info.ModTime()
		}
	}
	return body
}

type liveLog struct{ *os.File }

// Close removes the file, and its folder when nothing else is in it.
func (l liveLog) Close() error {
	os.Remove(l.Name())
	os.Remove(filepath.Dir(l.Name()))
	return l.File.Close()
}

// Logs calls fn with the task and the path of every live log of a job, in the order of
// task ids. A crash of a worker leaves that of its attempt.
func (f FileLogs) Logs(jobID string, fn func(taskID, path string) error) error {
	if !hayrick.ValidID(jobID) {
		return fmt.Errorf("look for live logs: %.64q is no run", jobID)
	}
	dir := filepath.Join(f.Dir, "job", jobID, "task")
	tasks, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for live logs: %w", err)
	}
	for _, t := range tasks {
		files, _ := os.ReadDir(filepath.Join(dir, t.Name())) // it may be gone by now
		for _, e := range files {
			if strings.HasSuffix(e.Name(), logSuffix) {
				if err := fn(t.Name(), filepath.Join(dir, t.Name(), e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
