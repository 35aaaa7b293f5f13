package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// stormDiskBytes is the disk of a storm: what scratch has to have free, and some times
// what a round takes.
const stormDiskBytes = 320 << 20

// stormDisk is the file system of a storm, which it can fill and make read-only.
type stormDisk struct {
	dir  string
	jobs string // the shipped jobs
	why  error  // it is not our own, and this is why
}

// newStormDisk mounts a disk of our own, in the mount namespace that this process
// was started in.
func newStormDisk(dir, jobs string) *stormDisk {
	d := &stormDisk{dir: dir, jobs: jobs}
	if os.Getenv(ownMounts) == "" {
		d.why = errors.New("no namespace of mounts can be had here")
		return d
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		d.why = fmt.Errorf("no mounts: %w", err)
	} else if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", stormDiskBytes)); err != nil {
		d.why = fmt.Errorf("no mounts: %w", err)
	}
	return d
}

// ownMounts in the environment says that mounts are seen by this process and its
// children alone.
const ownMounts = "HAYRICK_TEST_OWN_MOUNTS"

// workspace is the folder as a round begins: the shipped jobs and nothing else.
func (d *stormDisk) workspace() error {
	found, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range found {
		if err := os.RemoveAll(filepath.Join(d.dir, e.Name())); err != nil {
			return err
		}
	}
	return os.CopyFS(filepath.Join(d.dir, "jobs"), os.DirFS(d.jobs))
}

func (d *stormDisk) filler() string { return filepath.Join(d.dir, "filler") }

// fill leaves no byte.
func (d *stormDisk) fill() error {
	if d.why != nil {
		return d.why
	}
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	end := int64(0)
	for size := int64(32 << 20); size >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, end, size); {
		case err == nil:
			end += size
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case errors.Is(err, unix.EINTR):
		default:
			return err
		}
	}
	return nil
}

func (d *stormDisk) free() error {
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// objects is the folder that is made read-only while processes have files of the store
// open for writing, which the disk as a whole cannot be then. It is a mount of its own
// meanwhile: what is renamed into it meets that first.
func (d *stormDisk) objects() string { return filepath.Join(d.dir, ".hayrick", "jobs") }

func (d *stormDisk) freeze() error {
	if d.why != nil {
		return d.why
	}
	if err := unix.Mount(d.objects(), d.objects(), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", d.objects(), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return errors.Join(err, d.thaw())
	}
	return nil
}

func (d *stormDisk) thaw() error { return unix.Unmount(d.objects(), unix.MNT_DETACH) }

// remount changes the disk as a whole. Nobody may have a file open for writing.
func (d *stormDisk) remount(readOnly bool) error {
	if d.why != nil {
		return d.why
	}
	flags := uintptr(unix.MS_REMOUNT)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", d.dir, "", flags, fmt.Sprintf("size=%d", stormDiskBytes))
}

// mountNamespace lets a process mount without others seeing it.
func mountNamespace() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}
