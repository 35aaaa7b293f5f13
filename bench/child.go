package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is how a process went.
type process struct {
	Seconds float64 `json:"seconds"`  // from exec to exit, or what the child timed itself
	PeakRSS int64   `json:"peak_rss"` // bytes
	CPU     float64 `json:"cpu"`      // seconds, user and system
	Out     []byte  `json:"-"`        // stdout
	Err     []byte  `json:"-"`        // stderr
}

// command is a process that does not outlive this one: it is killed with its whole
// group when ctx ends or when this process dies.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// measure runs cmd to its end, watching its memory. Linux forgets a process's own
// peak when it ends (ru_maxrss counts the parent's memory at the fork), so
// /proc is read every two milliseconds: what it misses is at most what the process
// grew by in its last two.
func measure(cmd *exec.Cmd) (process, error) {
	var out, diag bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &diag
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return process{}, err
	}
	ended, peak := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			most = max(most, peakRSS(cmd.Process.Pid))
			select {
			case <-ended:
				peak <- most
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	err := cmd.Wait()
	p := process{Seconds: time.Since(start).Seconds(), Out: out.Bytes(), Err: diag.Bytes()}
	close(ended)
	p.PeakRSS = <-peak
	p.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if err != nil {
		return p, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, lastLines(diag.String(), 20))
	}
	return p, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// peakRSS is the most memory a process has had resident, in bytes, or 0 when there
// is no such process.
func peakRSS(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		return 0 // it has ended and waits to be collected
	}
	kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kib << 10
}

// run runs the hayrick binary in dir.
func (b *bench) run(ctx context.Context, dir string, stdout io.Writer, args ...string) (process, error) {
	cmd := command(ctx, b.hayrick, args...)
	cmd.Dir = dir
	cmd.Stdout = stdout
	if b.profile != "" {
		cmd.Env = append(os.Environ(), profileEnv+"="+b.profile)
	}
	return measure(cmd)
}

// childTasks are what this program does in a process of its own, so that its memory
// is that task's alone. Each times itself.
var childTasks = map[string]func(args []string) (any, error){
	"idle":    func([]string) (any, error) { return nil, nil },
	"index":   childIndex,
	"concat":  childConcat,
	"merge":   childMerge,
	"duckdb":  childDuckDB,
	"river":   childRiver,
	"parquet": childParquet,

	"job":        childJob,
	"aggregate":  childAggregate,
	"duckcopy":   childDuckCopy,
	"duckscan":   childDuckScan,
	"duckunique": childDuckUnique,
	"ducksame":   childDuckSame,
}

// answer is what a child prints: its result, and its own peak.
type answer struct {
	PeakRSS int64           `json:"peak_rss"`
	Result  json.RawMessage `json:"result"`
}

// runChild carries out `bench child <task> <args>`.
func runChild(args []string) {
	err := func() error {
		if len(args) == 0 || childTasks[args[0]] == nil {
			return errors.New("no such task")
		}
		res, err := childTasks[args[0]](args[1:])
		if err != nil {
			return err
		}
		raw, err := json.Marshal(res)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(answer{peakRSS(os.Getpid()), raw})
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.Join(args, " ")+":", err)
		os.Exit(1)
	}
}

// child runs a task of this program in a new process, decodes its result into res
// and returns its peak memory above that of a child that does nothing.
func child(ctx context.Context, res any, args ...string) (peak int64, err error) {
	got, err := ask(ctx, res, args...)
	if err != nil {
		return 0, err
	}
	idle, err := ask(ctx, nil, "idle")
	return got - idle, err
}

func ask(ctx context.Context, res any, args ...string) (peak int64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	p, err := measure(command(ctx, self, append([]string{"child"}, args...)...))
	if err != nil {
		return 0, err
	}
	var a answer
	if err := json.Unmarshal(p.Out, &a); err != nil {
		return 0, fmt.Errorf("what %v printed: %w", args, err)
	}
	if res == nil {
		return a.PeakRSS, nil
	}
	return a.PeakRSS, json.Unmarshal(a.Result, res)
}

// machine is what the figures belong to.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

func thisMachine() machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Go: runtime.Version(), Kernel: "unknown"}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name"); ok {
			name, _, _ := strings.Cut(rest, "\n")
			m.CPU = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	var uts syscall.Utsname
	if syscall.Uname(&uts) == nil {
		var s []byte
		for _, c := range uts.Release {
			if c == 0 {
				break
			}
			s = append(s, byte(c))
		}
		m.Kernel = "Linux " + string(s)
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores of %s, %s of memory, %s, %s", m.Cores, m.CPU, bytesOf(float64(m.Memory)), m.Kernel, m.Go)
}
