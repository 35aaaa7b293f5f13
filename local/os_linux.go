package local

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"hayrick"
)

// networks are the file systems on which SQLite's shared memory and locks do not
// hold between machines.
var networks = map[int64]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	0x0bd00bd0:            "Lustre",
	0x47504653:            "GPFS",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.SMB2_SUPER_MAGIC: "SMB2",
	unix.FUSE_SUPER_MAGIC: "FUSE",
	unix.CEPH_SUPER_MAGIC: "Ceph",
	unix.V9FS_MAGIC:       "9P",
	unix.AFS_FS_MAGIC:     "AFS",
	0x19830326:            "BeeGFS",
}

// refuseNetwork answers a *hayrick.UserError when dir is not on a local disk.
func refuseNetwork(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	return refuseType(dir, int64(st.Type))
}

func refuseType(dir string, magic int64) error {
	name, ok := networks[magic&0xffffffff]
	if !ok {
		return nil
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("%s is on a network file system (%s), where the state of a job would be damaged", dir, name),
		Hint: "name a folder on a local disk with --store, or a store that several machines can share",
	}
}

// birth is when the file at path was made, in ns; 0 where that is not known.
func birth(path string) int64 {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st) != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// bootID names this run of the machine.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// free returns how many bytes may be written below dir.
func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
