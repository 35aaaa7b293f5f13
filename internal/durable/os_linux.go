package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncAll makes everything on the folder's file system durable.
func (d *Dir) syncAll() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	d.fsyncs.Add(1)
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// Clone makes dst share the bytes of src where the file system can (FICLONE), and
// says whether it did.
func Clone(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}
