//go:build !linux

package processtree

import (
	"os"
	"syscall"
)

// Self is this binary.
func Self() (string, error) { return os.Executable() }

// adopt: only Linux gives orphans to another than init.
func adopt() {}

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// peak is not known here: systems count it in different units.
func peak(*syscall.Rusage) int64 { return 0 }

// descendants are not looked for here.
func descendants(int) []int { return nil }

func resident(int) int64     { return 0 }
func proportional(int) int64 { return 0 }
