package durable

import (
	"io/fs"
	"syscall"
)

// links is the number of names a file has.
func links(info fs.FileInfo) uint64 {
	return uint64(info.Sys().(*syscall.Stat_t).Nlink)
}
