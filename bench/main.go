// Command bench measures Hayrick beside physical limits and its peers, all in one
// run on one machine, and prints ratios: absolute figures belong to a machine, ratios
// mostly do not. No figure of a peer is written down anywhere; a peer that cannot be
// started here has a row that says so.
//
// It is a module of its own so that DuckDB and River stay out of Hayrick's. It
// needs Go and gcc; openssl, cat and PostgreSQL are used where they are installed.
//
// main.go chooses and orders the benchmarks, one file each (index, noop, handler, depth,
// start, jobfile, lambda, concat, merge, memory, cost); rounds.go takes turns, report.go is the table; child.go starts processes and reads
// their memory; whatever is measured for memory runs in a child of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// benchmark is one question; its rows are the answer.
type benchmark struct {
	name, what string
	run        func(context.Context, *bench) error
}

var benchmarks = []benchmark{
	{"start", "`hayrick run` of one item, from exec to exit", benchStart},
	{"jobfile", "the slowest and the hungriest of a corpus of bad job files", benchJobFile},
	{"lambda", "cold start and size of the function", benchLambda},
	{"index", "a SHA-256 a batch over 10 million lines, beside openssl", benchIndex},
	{"noop", "items that do nothing, durable, beside the disk and River on PostgreSQL", benchNoop},
	{"handler", "a no-op Python handler through one process, beside the process alone", benchHandler},
	{"depth", "memory with a million tasks queued, beside ten thousand", benchDepth},
	{"concat", "joining 1,000 Parquet files by row groups, beside cat", benchConcat},
	{"merge", "a decoding merge of 300 Parquet files, beside DuckDB", benchMerge},
	{"unique", "rows made unique by a key over 300 Parquet files, beside DuckDB", benchUnique},
	{"many", "the aggregation of 10,000 results, beside that of 1,000", benchMany},
	{"memory", "merges of rows of a kilobyte to a hundred megabytes, beside --memory", benchMemory},
	{"cost", "requests of whole jobs on the stand-ins of AWS, beside Step Functions' prices", benchCost},
}

// bench is what the benchmarks share.
type bench struct {
	dir     string // inputs, stores, outputs
	source  string // of the hayrick module
	hayrick string // the binary, built as a release is
	scale   float64
	profile string // where profiles go; "" = none are taken
	report  *report
	version int64 // peak RSS of `hayrick version`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		runChild(os.Args[2:])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	var (
		work    = f.String("work", "", "`folder` for inputs and stores, kept and used again by the next run (default: a temporary one)")
		only    = f.String("only", "", "comma-separated `names` of benchmarks")
		asJSON  = f.Bool("json", false, "print the result as JSON")
		docs    = f.String("docs", "", "write the table into this Markdown `file`, between its two bench marks")
		costs   = f.String("cost-docs", "", "write the table of costs into this Markdown `file`, between its two cost marks")
		scale   = f.Float64("scale", 1, "`share` of the full sizes; targets are for 1")
		profile = f.String("profile", "", "take CPU profiles of the no-op runs into this `folder`; the times are then those of a profiled binary")
	)
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: go run . [flags]\n\nbenchmarks:")
		for _, b := range benchmarks {
			fmt.Fprintf(f.Output(), "  %-8s %s\n", b.name, b.what)
		}
		fmt.Fprintln(f.Output(), "\nflags:")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if f.NArg() > 0 || *scale <= 0 {
		f.Usage()
		return flag.ErrHelp
	}
	b := &bench{scale: *scale, profile: *profile, report: &report{Scale: *scale, progress: os.Stderr}}
	if b.dir = *work; b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "hayrick-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.profile != "" {
		if b.profile, err = filepath.Abs(b.profile); err != nil {
			return err
		}
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(b.stores(), 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(b.stores())
	if err := b.build(ctx); err != nil {
		return err
	}
	b.report.Machine = thisMachine()
	b.report.say("%s", b.report.Machine)
	start := time.Now()
	for _, one := range chosen {
		b.report.say("%s: %s", one.name, one.what)
		b.report.bench = one.name
		if err := one.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	b.report.Seconds = time.Since(start).Seconds()
	if *docs != "" {
		if err := b.report.intoDocs(*docs); err != nil {
			return err
		}
	}
	if *costs != "" && b.report.cost != "" {
		if err := between(*costs, costBegin, costEnd, b.report.cost); err != nil {
			return err
		}
	}
	if *asJSON {
		return b.report.writeJSON(os.Stdout)
	}
	return b.report.writeText(os.Stdout)
}

func choose(names string) ([]benchmark, error) {
	if names == "" {
		return benchmarks, nil
	}
	var chosen []benchmark
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(benchmarks, func(b benchmark) bool { return b.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no benchmark %q", name)
		}
		chosen = append(chosen, benchmarks[i])
	}
	return chosen, nil
}

// build builds the hayrick binary and weighs it.
func (b *bench) build(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "hayrick").Output()
	if err != nil {
		return fmt.Errorf("find the hayrick module (run bench in its own folder): %w", err)
	}
	b.source = strings.TrimSpace(string(out))
	b.hayrick = filepath.Join(b.dir, "hayrick")
	args := []string{"build", "-trimpath", "-o", b.hayrick}
	if b.profile != "" {
		overlay, err := profilingOverlay(b.source, b.dir)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/hayrick")...)
	cmd.Dir, cmd.Env = b.source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build hayrick: %w\n%s", err, out)
	}
	for range 3 { // the least of three: what it takes at least
		p, err := b.run(ctx, b.dir, io.Discard, "version")
		if err != nil {
			return err
		}
		if b.version == 0 || p.PeakRSS < b.version {
			b.version = p.PeakRSS
		}
	}
	return nil
}

// scaled is n of the full size.
func (b *bench) scaled(n int64) int64 { return max(1, int64(float64(n)*b.scale)) }

// stores is where the runs of jobs lie until the end.
func (b *bench) stores() string { return filepath.Join(b.dir, "stores") }

// fresh is an empty folder below the work folder, on the file system that is
// measured. It stays until all benchmarks are done: ext4 does not give an inode again
// for minutes after a file was deleted, and who creates a file meanwhile looks at all
// of these, so that deleting one run's store would slow the next run down.
func (b *bench) fresh(name string) (dir string, err error) {
	return os.MkdirTemp(b.stores(), name+"-")
}
