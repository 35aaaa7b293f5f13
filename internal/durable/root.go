package durable

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Root is a folder whose files are named by relative, slash-separated paths; neither
// ".." nor a symbolic link leads out of it. It is an os.Root, which walks a path
// folder by folder, except where the kernel can be asked to stay beneath a folder
// (openat2): there a path of five folders is one system call and not ten.
type Root struct {
	*os.Root
	self    *os.File        // the folder
	conn    syscall.RawConn // of self
	beneath bool            // the kernel can
}

// OpenRoot opens the folder at path.
func OpenRoot(path string) (*Root, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	r := &Root{Root: root, self: self}
	if r.conn, err = self.SyscallConn(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if fd, err := r.openBeneath(".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
		r.beneath = true
	}
	return r, nil
}

// Close lets go of the folder.
func (r *Root) Close() error { return errors.Join(r.self.Close(), r.Root.Close()) }

// OpenFile is os.Root's, but a symbolic link at the name itself is not followed.
func (r *Root) OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	fd, err := r.open(name, flag, perm)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(r.Name(), name)), nil
}

// OpenRegular opens a regular file for reading. What else lies at the name is neither
// followed nor waited for, as a FIFO would be for its writer: that is ErrNotRegular,
// but a folder is fs.ErrNotExist.
func (r *Root) OpenRegular(name string) (*os.File, error) {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	switch err {
	case nil:
		err = mustBeRegular(fd)
	case syscall.ELOOP, syscall.EMLINK, syscall.ENXIO, syscall.EOPNOTSUPP: // by the system
		err = ErrNotRegular
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(r.Name(), name)), nil
}

// ErrNotRegular: a symbolic link, a FIFO, a socket or a device.
var ErrNotRegular = errors.New("it is a link or a device, not a file")

// mustBeRegular checks an opened file, closes it when it is none, and ends its being
// opened without waiting.
func mustBeRegular(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		err = fs.ErrNotExist
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = ErrNotRegular
	default:
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0) // of what this can set, O_NONBLOCK alone was
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// Mkdir, Link, Rename and Remove are os.Root's; Remove is for files, Rmdir for folders that
// are empty.

func (r *Root) Mkdir(name string, perm fs.FileMode) error {
	return r.at("mkdir", name, func(at int, base string) error { return unix.Mkdirat(at, base, uint32(perm.Perm())) })
}

func (r *Root) Link(from, to string) error {
	return r.at("link", from, func(old int, oldBase string) error {
		return r.at("link", to, func(at int, base string) error { return unix.Linkat(old, oldBase, at, base, 0) })
	})
}

func (r *Root) Rename(from, to string) error {
	return r.at("rename", from, func(old int, oldBase string) error {
		return r.at("rename", to, func(at int, base string) error { return unix.Renameat(old, oldBase, at, base) })
	})
}

func (r *Root) Remove(name string) error {
	return r.at("unlink", name, func(at int, base string) error { return unix.Unlinkat(at, base, 0) })
}

func (r *Root) Rmdir(name string) error {
	return r.at("rmdir", name, func(at int, base string) error { return unix.Unlinkat(at, base, unix.AT_REMOVEDIR) })
}

// at calls do with the folder that holds name.
func (r *Root) at(op, name string, do func(at int, base string) error) error {
	dir, err := r.openDir(path.Dir(name))
	if err == nil {
		err = retried(func() error { return do(dir.fd, path.Base(name)) })
		dir.close()
	}
	if errno, ok := err.(syscall.Errno); ok {
		return &fs.PathError{Op: op, Path: name, Err: errno}
	}
	return err
}

// open opens a file; it follows no symbolic link at the name itself.
func (r *Root) open(name string, flag int, perm fs.FileMode) (fd int, err error) {
	flag |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	if r.beneath {
		return r.openBeneath(name, flag, uint32(perm.Perm()))
	}
	dir, err := r.openDir(path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer dir.close()
	err = retried(func() (err error) {
		fd, err = unix.Openat(dir.fd, path.Base(name), flag, uint32(perm.Perm()))
		return err
	})
	return fd, err
}

// openBeneath is the kernel's walk. The folder stays open meanwhile, whoever closes r.
func (r *Root) openBeneath(name string, flag int, perm uint32) (fd int, err error) {
	if cerr := r.conn.Control(func(at uintptr) { fd, err = openBeneath(int(at), name, flag, perm) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}

// folder is an opened folder; file is nil where the kernel opened it.
type folder struct {
	fd   int
	file *os.File
}

func (d folder) close() {
	if d.file != nil {
		d.file.Close()
	} else {
		unix.Close(d.fd)
	}
}

func (r *Root) openDir(name string) (folder, error) {
	if r.beneath {
		fd, err := r.openBeneath(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return folder{fd: fd}, err
	}
	f, err := r.Root.OpenFile(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return folder{}, err
	}
	return folder{int(f.Fd()), f}, nil
}

// retried calls f until no signal interrupts it.
func retried(f func() error) (err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		err = f()
	}
	return err
}
