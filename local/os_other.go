//go:build unix && !linux

package local

import (
	"fmt"

	"golang.org/x/sys/unix"

	"hayrick"
)

// refuseNetwork answers a *hayrick.UserError when dir is not on a local disk.
func refuseNetwork(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		return &hayrick.UserError{
			What: dir + " is on a network file system, where the state of a job would be damaged",
			Hint: "name a folder on a local disk with --store, or a store that several machines can share",
		}
	}
	return nil
}

// birth is when the file at path was made, in ns; 0 where that is not known.
func birth(string) int64 { return 0 }

// bootID names this run of the machine: when it began.
func bootID() string {
	tv, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return "unknown"
	}
	return fmt.Sprint(tv.Sec)
}

// free returns how many bytes may be written below dir.
func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
