package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"hayrick"
)

// children are what the test binary does when it runs as another process of a
// test: each works on the store at dir until it is done or killed, and says on
// stdout what it did. An error ends it with a message and exit code 1.
var children = map[string]func(dir string, args []string) error{
	"commits": childCommits,
	"state":   childState,
	"race":    childRace,
	"full":    childFull,
}

func TestMain(m *testing.M) {
	if name := os.Getenv("LOCAL_CHILD"); name != "" {
		if err := children[name](os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a running one.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err strings.Builder
}

func start(t *testing.T, name, dir string, args ...string) *child {
	t.Helper()
	c, err := startWith(t, nil, name, dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func startWith(t *testing.T, attr *syscall.SysProcAttr, name, dir string, args ...string) (*child, error) {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0], append([]string{dir}, args...)...)}
	c.Env = append(os.Environ(), "LOCAL_CHILD="+name)
	c.Stderr = &c.err
	c.SysProcAttr = attr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Process.Kill() })
	return c, nil
}

// lines returns what is left of stdout and ends when the child does.
func (c *child) lines() (out []string) {
	for c.out.Scan() {
		out = append(out, c.out.Text())
	}
	return out
}

func childStore(dir string) (*Store, error) {
	return Open(context.Background(), dir, hayrick.RealWorld(fmt.Sprintf("child-%d", os.Getpid())), nil)
}
