package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arrivals tells of every file that gets its name in a folder, at once, however deep.
type arrivals struct {
	root string
	f    *os.File
	dirs map[int32]string // by their watches: names below root
	seen map[string]bool
	tell func(name string)
}

// dull are folders of which nothing is told: what is in them has no name yet, or is no
// object.
var dull = []string{"jobs", ".hayrick/tmp", ".hayrick/procs", ".hayrick/scratch"}

// watchArrivals calls tell from a goroutine of its own until it is closed.
func watchArrivals(root string, tell func(name string)) (*arrivals, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", root, err)
	}
	a := &arrivals{root: root, f: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}, seen: map[string]bool{}, tell: tell}
	if err := a.enter("."); err != nil {
		return nil, err
	}
	go a.listen()
	return a, nil
}

func (a *arrivals) close() error { return a.f.Close() }

// enter watches a folder, and tells of what was in it before.
func (a *arrivals) enter(dir string) error {
	conn, err := a.f.SyscallConn()
	if err != nil {
		return err
	}
	var wd int
	if cerr := conn.Control(func(fd uintptr) {
		wd, err = unix.InotifyAddWatch(int(fd), filepath.Join(a.root, dir), unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	}); cerr != nil || err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	a.dirs[int32(wd)] = dir
	found, err := os.ReadDir(filepath.Join(a.root, dir))
	if err != nil {
		return err
	}
	for _, e := range found {
		if err := a.came(path.Join(dir, e.Name()), e.IsDir()); err != nil {
			return err
		}
	}
	return nil
}

func (a *arrivals) came(name string, isDir bool) error {
	for _, d := range dull {
		if name == d || strings.HasPrefix(name, d+"/") {
			return nil
		}
	}
	if isDir {
		return a.enter(name)
	}
	if !a.seen[name] {
		a.seen[name] = true
		a.tell(name)
	}
	return nil
}

func (a *arrivals) listen() {
	buf := make([]byte, 64<<10)
	for {
		n, err := a.f.Read(buf)
		if err != nil {
			return // closed
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			size := binary.NativeEndian.Uint32(b[unsafe.Offsetof(unix.InotifyEvent{}.Len):])
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
			b = b[unix.SizeofInotifyEvent+size:]
			if dir, ok := a.dirs[wd]; ok && name != "" {
				// A folder that is gone again is none that objects are in.
				_ = a.came(path.Join(dir, name), mask&unix.IN_ISDIR != 0)
			}
		}
	}
}
