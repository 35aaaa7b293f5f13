package local

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"hayrick"
)

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	for _, magic := range []int64{unix.NFS_SUPER_MAGIC, 0x0bd00bd0, 0x47504653, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, int64(int32(-11317950)), unix.FUSE_SUPER_MAGIC} {
		var u *hayrick.UserError
		if err := refuseType("/shared", magic); !errors.As(err, &u) || u.Hint == "" {
			t.Errorf("type %#x: %v", magic, err)
		}
	}
	for _, magic := range []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC} {
		if err := refuseType("/disk", magic); err != nil {
			t.Errorf("type %#x: %v", magic, err)
		}
	}
}
