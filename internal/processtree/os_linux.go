package processtree

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Self is this binary, also when its file has been replaced.
func Self() (string, error) { return "/proc/self/exe", nil }

// adopt makes this process the parent of what its descendants leave behind.
func adopt() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// peak is the most that a process had in memory. It is never less than what its parent
// had when it forked it.
func peak(u *syscall.Rusage) int64 { return u.Maxrss << 10 }

// descendants are the children of a process, and theirs.
func descendants(of int) []int {
	names, err := readNames("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		var state string
		var parent int
		at := bytes.LastIndexByte(stat, ')') // a name may hold anything
		if _, err := fmt.Sscanf(string(stat[at+1:]), " %s %d", &state, &parent); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	var out []int
	for next := []int{of}; len(next) > 0; next = next[1:] {
		out = append(out, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return out
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// resident is what a process has in memory, in bytes.
func resident(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, pages int64
	fmt.Sscan(string(text), &size, &pages)
	return pages * int64(os.Getpagesize())
}

// proportional is resident with a page that n processes share counted as its n-th part,
// and what is swapped out; resident where the system does not say.
func proportional(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return resident(pid)
	}
	var sum int64
	for line := range bytes.Lines(text) {
		for _, name := range []string{"Pss:", "SwapPss:"} {
			if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
				var kib int64
				fmt.Sscan(string(rest), &kib)
				sum += kib << 10
			}
		}
	}
	return sum
}
