//go:build unix && !linux

package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

func syncfs(*os.File) error {
	unix.Sync()
	return nil
}

// syncfsTells: sync(2) reports nothing.
func syncfsTells() bool { return false }

// StartWriting is not known here: the fsync at the end has it all to do.
func StartWriting(*os.File, int64, int64) {}

// Clone is not known here: it copies nothing.
func Clone(dst, src *os.File) bool { return false }

// openBeneath is not known here: os.Root walks.
func openBeneath(int, string, int, uint32) (int, error) { return -1, unix.ENOSYS }
