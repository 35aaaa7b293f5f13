package durable

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func syncfs(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// syncfsTells says whether syncfs reports bytes that could not be written: from
// Linux 5.8 on.
func syncfsTells() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || (major == 5 && minor >= 8)
}

// StartWriting has the kernel begin to write a range of f to the disk, so that the
// fsync at the end finds less to do. It promises nothing and waits for little.
func StartWriting(f *os.File, offset, length int64) {
	unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

// Clone makes dst share the bytes of src where the file system can (FICLONE), and
// says whether it did.
func Clone(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// openBeneath opens a file by a path that may not leave the folder at; symbolic links
// that stay below it are followed on the way. Linux has it from 5.6 on, where no
// filter of system calls forbids it.
func openBeneath(at int, name string, flag int, perm uint32) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flag), Mode: uint64(perm), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	if flag&unix.O_CREAT == 0 {
		how.Mode = 0 // or the kernel refuses
	}
	for range 100 { // EAGAIN: somebody moves folders about
		err = retried(func() (err error) {
			fd, err = unix.Openat2(at, name, &how)
			return err
		})
		if err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}
