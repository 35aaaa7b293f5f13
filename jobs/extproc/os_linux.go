package extproc

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitMemory bounds what a process may allocate: its heap and private mappings
// (RLIMIT_DATA), of each process it forks too, but not of all together. Address space
// that is only reserved, as Node and Go do, does not count.
func limitMemory(pid int, bytes int64) error {
	limit := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil); err != nil && err != unix.ESRCH {
		return fmt.Errorf("limit process %d to %d bytes: %w", pid, bytes, err)
	}
	return nil
}

// peakMemory is the most that a process that has ended had in memory, in bytes. It is
// never less than what the worker had when it forked it.
func peakMemory(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}

// unread is how many bytes a pipe holds.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}
