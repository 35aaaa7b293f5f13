package extproc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// limitMemory bounds what a process may allocate: its heap and private mappings
// (RLIMIT_DATA), of each process it forks too, but not of all together: that is seen to
// by watching (child.memory). Address space
// that is only reserved, as Node and Go do, does not count.
func limitMemory(pid int, bytes int64) error {
	limit := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil); err != nil && err != unix.ESRCH {
		return fmt.Errorf("limit process %d to %d bytes: %w", pid, bytes, err)
	}
	return nil
}

// unread is how many bytes a pipe holds.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}
