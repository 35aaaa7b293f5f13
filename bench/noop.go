package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// noopJob is a job whose handler does nothing: what it costs is what Hayrick costs.
type noopJob struct {
	input    string // the JSONL
	batch    int    // items a task
	parallel int    // tasks at once
}

// job makes a folder with the job's file; its store and output will lie there too.
func (b *bench) job(j noopJob) (dir string, err error) {
	dir, err = b.fresh("job")
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("version: 1\nname: noop\nhandler: {builtin: noop}\ninput: {uri: %s}\nbatch: {items: %d}\nrun: {max_parallel: %d}\noutput: {uri: ./out/}\n",
		strconv.Quote(j.input), j.batch, j.parallel)
	return dir, os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(text), 0o644)
}

func plainItem(w *bufio.Writer, i int64) { fmt.Fprintf(w, `{"n":%d}`+"\n", i) }

// benchNoop runs whole jobs of items that do nothing, from exec to exit: submit,
// run, commit, merge (of no rows), publish. Beside them the disk's own fsyncs, and
// River on PostgreSQL with as many tasks.
func benchNoop(ctx context.Context, b *bench) error {
	pg, err := startPostgres(ctx, b)
	if err != nil {
		b.report.missing("River on PostgreSQL", err)
	} else {
		defer pg.stop()
	}
	for _, x := range []struct {
		items  int64
		batch  int
		unit   string // what an item is called
		target float64
	}{
		{1_000_000, 100, "items/s", 120_000},
		{50_000, 1, "tasks/s", 1_000},
	} {
		items := b.scaled(x.items)
		tasks := (items + int64(x.batch) - 1) / int64(x.batch)
		path, err := b.input("items", items, plainItem)
		if err != nil {
			return err
		}
		var p process
		before, err := fsyncsPerSecond(b.dir)
		if err != nil {
			return err
		}
		all := []contender{{"hayrick", func() (float64, error) {
			p, err = b.noopRun(ctx, noopJob{input: path, batch: x.batch, parallel: noopParallel}, items)
			return p.Seconds, err
		}}}
		var river riverTimes
		if pg != nil {
			all = append(all, contender{"river", func() (float64, error) {
				river, err = pg.river(ctx, tasks)
				return river.Submit + river.Run, err
			}})
		}
		took, err := b.interleave(1, all...)
		if err != nil {
			return err
		}
		after, err := fsyncsPerSecond(b.dir)
		if err != nil {
			return err
		}
		b.report.addValue(row{
			What: fmt.Sprintf("no-op, %d a task, %s tasks", x.batch, thousands(float64(tasks))), Unit: x.unit, Value: float64(items) / took["hayrick"],
			Note: fmt.Sprintf("%s; %s tasks/s; %s CPU a task, %s cores busy; %s above `version`", quantity(took["hayrick"], "s"), thousands(float64(tasks)/took["hayrick"]),
				quantity(p.CPU/float64(tasks), "s"), short(p.CPU/p.Seconds), bytesOf(float64(p.PeakRSS-b.version))),
		}, atLeast(x.target))
		if pg != nil {
			b.report.add(row{
				What: "  tasks, beside River's", Unit: "tasks/s", Value: float64(tasks) / took["hayrick"],
				PeerOf: "River + PostgreSQL", Peer: float64(tasks) / took["river"],
				Note: fmt.Sprintf("River: insert %s, run %s; a task is a row, its outcome a column", quantity(river.Submit, "s"), quantity(river.Run, "s")),
			})
		}
		b.report.add(row{What: "  the disk: raw fsync loop", Unit: "fsyncs/s", Value: (before + after) / 2, Note: "4 KiB written and fsynced, one after the other"})
	}
	return nil
}

// noopParallel is how many tasks a run has at once: enough to share the disk's
// fsyncs, which are what it waits for.
const noopParallel = 128

// noopRun runs a whole job and checks that every item ended ok.
func (b *bench) noopRun(ctx context.Context, j noopJob, items int64) (process, error) {
	dir, err := b.job(j)
	if err != nil {
		return process{}, err
	}
	p, err := b.run(ctx, dir, nil, "run", "--json", "job.yaml")
	if err != nil {
		return p, err
	}
	var res struct {
		Status string
		OK     int64
	}
	if err := json.Unmarshal(p.Out, &res); err != nil {
		return p, fmt.Errorf("what run --json printed: %w", err)
	}
	if res.Status != "SUCCEEDED" || res.OK != items {
		return p, fmt.Errorf("the run ended %s with %d of %d items ok", res.Status, res.OK, items)
	}
	return p, nil
}

// fsyncsPerSecond is how often a second this disk makes 4 KiB durable, one after the
// other.
func fsyncsPerSecond(dir string) (float64, error) {
	const during = 2 * time.Second
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := make([]byte, 4096)
	start, n := time.Now(), 0
	for ; time.Since(start) < during; n++ {
		buf[0]++
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
