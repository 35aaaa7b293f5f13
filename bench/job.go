package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/internal/rows"
	"hayrick/local"
	"hayrick/manifest"
)

// benchUnique merges 300 task files whose rows are sorted by a key that every tenth of
// them shares with another file, and keeps the first of each key: the whole
// aggregation, from the plan to the outcome, two merges at a time. Beside it DuckDB's
// window and sort of the same files, written as Parquet. Once as it is shipped, where every
// merge reads back what it wrote and compares row hashes, and once without, which is
// the work that DuckDB does: that is what the target is for.
func benchUnique(ctx context.Context, b *bench) error {
	n := b.scaled(300)
	shipped, err := b.endedJob(ctx, ended{Files: n, Each: corpusRows, Unique: true})
	if err != nil {
		return err
	}
	trusted, err := b.endedJob(ctx, ended{Files: n, Each: corpusRows, Unique: true, Trusted: true})
	if err != nil {
		return err
	}
	out := filepath.Join(b.dir, "unique.out")
	defer os.Remove(out)
	var whole, bare, theirs aggregated
	peak := map[string]int64{}
	one := func(name string, res *aggregated, args ...string) contender {
		return contender{name, func() (float64, error) {
			rss, err := child(ctx, res, args...)
			peak[name] = max(peak[name], rss)
			return res.Seconds, err
		}}
	}
	took, err := b.interleave(5,
		one("shipped", &whole, "aggregate", shipped),
		one("trusted", &bare, "aggregate", trusted),
		one("duckdb", &theirs, "duckunique", shipped, out),
	)
	if err != nil {
		return err
	}
	for _, path := range []string{whole.Path, bare.Path} {
		if _, err := ask(ctx, nil, "ducksame", path, out); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("unique rows of %d files", n)
	b.report.addRatio(row{
		What: what + ", merges not read back", Unit: "s", Value: took["trusted"], PeerOf: "DuckDB, window + sort", Peer: took["duckdb"],
		Note: fmt.Sprintf("%s rows, %s dropped; plan to outcome; the root reads its part back all the same; CPU %s and %s; DuckDB reads it, columns equal",
			thousands(float64(bare.Rows)), thousands(float64(bare.Dropped)), quantity(bare.CPU, "s"), quantity(theirs.CPU, "s")),
	}, atMost(1.3))
	b.report.add(row{
		What: what + ", as shipped", Unit: "s", Value: took["shipped"], PeerOf: "DuckDB, window + sort", Peer: took["duckdb"],
		Note: fmt.Sprintf("every run and every merged file is decoded again, its row hash compared; CPU %s", quantity(whole.CPU, "s")),
	})
	b.report.addRatio(row{What: what + ", memory", Unit: "B", Value: float64(max(peak["shipped"], peak["trusted"])), PeerOf: "DuckDB", Peer: float64(peak["duckdb"])}, atMost(0.5))
	return nil
}

// benchMany aggregates 10,000 results and 1,000 of the same size, and compares the
// time a file: of one row each, where all is overhead and one merge takes them all, and
// of a hundred, where merges of level 1 share the cores.
func benchMany(ctx context.Context, b *bench) error {
	for _, each := range []int{1, 100} {
		if err := b.many(ctx, b.scaled(10_000), b.scaled(1_000), each); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) many(ctx context.Context, many, few int64, each int) error {
	var all []contender
	res := map[int64]*aggregated{}
	peak := map[int64]int64{}
	for _, n := range []int64{few, many} {
		dir, err := b.endedJob(ctx, ended{Files: n, Each: each})
		if err != nil {
			return err
		}
		res[n] = &aggregated{}
		all = append(all, contender{strconv.FormatInt(n, 10), func() (float64, error) {
			rss, err := child(ctx, res[n], "aggregate", dir)
			peak[n] = max(peak[n], rss)
			return res[n].Seconds / float64(n), err
		}})
	}
	took, err := b.interleave(5, all...)
	if err != nil {
		return err
	}
	b.report.addRatio(row{
		What: fmt.Sprintf("aggregation of %s results of %d rows, a file", thousands(float64(many)), each), Unit: "s", Value: took[strconv.FormatInt(many, 10)],
		PeerOf: "of " + thousands(float64(few)), Peer: took[strconv.FormatInt(few, 10)],
		Note: fmt.Sprintf("from the plan to the outcome, %s and %s; CPU a file %s and %s", bytesOf(float64(peak[many])), bytesOf(float64(peak[few])),
			quantity(res[many].CPU/float64(many), "s"), quantity(res[few].CPU/float64(few), "s")),
	}, atMost(1.1))
	return nil
}

// ended is a job all of whose tasks have ended.
type ended struct {
	Files   int64 `json:"files"`
	Each    int   `json:"each"`    // rows a file
	Unique  bool  `json:"unique"`  // rows are made unique by uri
	Trusted bool  `json:"trusted"` // merges read nothing back
	Blob    int   `json:"blob"`    // bytes of a row that no compression makes fewer; 0 = it is a post
}

// endedJob is the folder of a store with the job.
func (b *bench) endedJob(ctx context.Context, e ended) (string, error) {
	what, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, fmt.Sprintf("job-%d-%d-%v-%v-%d", e.Files, e.Each, e.Unique, e.Trusted, e.Blob))
	if _, err := os.Stat(filepath.Join(dir, "made")); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	_, err = ask(ctx, nil, "job", dir, string(what))
	return dir, err
}

const endedID = "ended-20261120-bbbbbb"

// childJob is `child job <dir> <ended, as JSON>`: what the coordinator, the workers and
// the retry planner leave behind.
func childJob(args []string) (any, error) {
	ctx := context.Background()
	dir := args[0]
	var e ended
	if err := json.Unmarshal([]byte(args[1]), &e); err != nil {
		return nil, err
	}
	n, each := int(e.Files), e.Each
	world := hayrick.RealWorld("bench")
	st, err := local.Open(ctx, filepath.Join(dir, "store"), world, nil)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	if err := withoutFsync(); err != nil {
		return nil, err
	}
	store := &manifest.Store{Objects: st, Clock: world.Clock}
	key := manifest.Job(endedID)
	def := hayrick.JobDefinition{
		Version: 1, Name: "ended", Handler: hayrick.Handler{Builtin: "noop"}, Batch: hayrick.Batches{Items: each},
		Output: hayrick.Output{URI: filepath.Join(dir, "out") + "/", Format: "parquet", Compression: "zstd", IfExists: "overwrite"},
		Merge:  hayrick.Merge{FanIn: 10, TargetRows: 122_880, TargetBytes: 64 << 20, RowGroup: 122_880},
	}
	if e.Unique {
		def.Output.UniqueBy = []string{"uri"}
	}
	if e.Trusted {
		back := false
		def.Merge.ReadBack = &back
	}
	config, sha, err := manifest.EncodeDefinition(def)
	if err != nil {
		return nil, err
	}
	if err := store.PutData(ctx, key.Config(sha), config); err != nil {
		return nil, err
	}
	w := manifest.NewGroupWriter(store, endedID, hayrick.GroupInitial, hayrick.RoleWorker, 0)
	for range n {
		if err := w.Add(ctx, manifest.Batch{Object: "in.jsonl", Items: each, SHA256: "0"}); err != nil {
			return nil, err
		}
	}
	group, err := w.Close(ctx)
	if err != nil {
		return nil, err
	}
	now := manifest.At(world.Clock.Now())
	plan, err := store.CommitPlan(ctx, manifest.Plan{
		Schema: manifest.SchemaPlan, JobID: endedID, DefinitionSHA256: sha, Items: int64(n * each), Group: group, SubmittedAt: now,
	})
	if err != nil {
		return nil, err
	}
	results := make([]manifest.ResultRef, n)
	var some errgroup.Group
	some.SetLimit(4)
	for i := range n {
		some.Go(func() (err error) {
			results[i], err = endedTask(ctx, store, i, e, def.Output.UniqueBy)
			return err
		})
	}
	if err := some.Wait(); err != nil {
		return nil, err
	}
	retry := manifest.RetryPlan{
		Schema: manifest.SchemaRetryPlan, JobID: endedID, RetryID: manifest.RetryID(1), Closed: group.Name,
		Predecessor: manifest.Link{Key: "plan.json", SHA256: plan.SHA256}, Next: manifest.NextAggregation, ErrorTypes: map[string]int64{}, SubmittedAt: now,
		Results: results,
	}
	if _, err := store.CommitRetryPlan(ctx, 1, retry); err != nil {
		return nil, err
	}
	return nil, os.WriteFile(filepath.Join(dir, "made"), nil, 0o644)
}

// endedTask is the result of the i-th task: rows sorted by uri, every tenth with the
// uri of one of another file.
func endedTask(ctx context.Context, store *manifest.Store, i int, e ended, unique []string) (manifest.ResultRef, error) {
	rng := rand.New(rand.NewPCG(uint64(i), 42))
	at := time.UnixMicro(1_700_000_000_000_000).UTC()
	each, schema := e.Each, corpusSchema
	if e.Blob > 0 {
		schema = blobSchema
	}
	all := make([]rows.Row, each)
	for k := range all {
		if e.Blob > 0 {
			all[k] = blobRow(rng, e.Blob)
		} else {
			all[k] = corpusRow(rng, i, k, at)
		}
		of := i
		if rng.IntN(10) == 0 {
			of = rng.IntN(1000)
		}
		all[k][0].Value = fmt.Sprintf("at://did:plc:%024x/app.bsky.feed.post/%013d", uint64(of*50+k/100)*0x9e3779b97f4a7c15, k)
		all[k][2].Value = int64(i)*int64(each) + int64(k)
	}
	slices.SortFunc(all, func(a, b rows.Row) int { return strings.Compare(a[0].Value.(string), b[0].Value.(string)) })
	var buf bytes.Buffer
	w, err := rows.NewWriter(&buf, schema, rows.WriterOptions{Keys: unique})
	if err != nil {
		return manifest.ResultRef{}, err
	}
	for k, r := range all {
		if len(unique) > 0 {
			w.Item(int64(i*each + k))
		}
		if err := w.Append(r); err != nil {
			return manifest.ResultRef{}, err
		}
	}
	sum, err := w.Close()
	if err != nil {
		return manifest.ResultRef{}, err
	}
	key, id, batch := manifest.Job(endedID), manifest.TaskID(int64(i)), manifest.BatchID(int64(i))
	file := key.Rows(id, "00000000", sum.SHA256)
	if err := store.PutData(ctx, file, buf.Bytes()); err != nil {
		return manifest.ResultRef{}, err
	}
	rel := key.Rel(file)
	c, err := store.CommitResult(ctx, manifest.Result{
		Schema: manifest.SchemaResult, JobID: endedID, TaskID: id, BatchID: &batch, Status: string(hayrick.TaskDone), Attempt: "00000000", Fence: 1,
		File: &rel, SHA256: sum.SHA256, Bytes: sum.Bytes, RowCount: sum.Rows, RowHash: sum.RowHash.String(), SchemaDigest: sum.SchemaDigest, KeySamples: sum.KeySamples,
		DroppedHash: "0", Items: each, OK: each, Task: manifest.TaskFields{Role: "worker", Phase: "initial", Group: hayrick.GroupInitial},
	})
	return manifest.ResultRef{TaskID: id, SHA256: c.SHA256}, err
}

var blobSchema = rows.Schema{Fields: []rows.Field{
	{Name: "uri", Kind: rows.KindString}, {Name: "blob", Kind: rows.KindBytes}, {Name: "seq", Kind: rows.KindInt},
}}

func blobRow(rng *rand.Rand, size int) rows.Row {
	blob := make([]byte, 0, size+8)
	for len(blob) < size {
		blob = binary.LittleEndian.AppendUint64(blob, rng.Uint64())
	}
	return rows.Row{{Name: "uri"}, {Name: "blob", Value: blob[:size]}, {Name: "seq"}}
}

// aggregated is what the children answer; times are seconds.
type aggregated struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	Rows    int64   `json:"rows"`
	Dropped int64   `json:"dropped"`
	Path    string  `json:"path"` // of the first part
}

// unmerge removes what an earlier aggregation of an ended job has left.
func unmerge(dir string) error {
	folder := filepath.Join(dir, "store", "jobs", endedID)
	old, err := filepath.Glob(filepath.Join(folder, "tasks", "agg-*"))
	if err != nil {
		return err
	}
	old = append(old, filepath.Join(folder, "outcome-0.json"), filepath.Join(folder, "aggregation"), filepath.Join(folder, "manifest.json"),
		filepath.Join(folder, "groups", hayrick.GroupAggregation), filepath.Join(folder, "groups", hayrick.GroupRanges), filepath.Join(dir, "out"))
	state, err := filepath.Glob(filepath.Join(dir, "store", "state*"))
	if err != nil {
		return err
	}
	for _, path := range append(old, state...) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// childAggregate is `child aggregate <dir>`: the aggregation of a job whose
// tasks have ended, from its plan to its outcome, by two who take merges from the
// queue.
func childAggregate(args []string) (any, error) {
	ctx := context.Background()
	dir := args[0]
	if err := unmerge(dir); err != nil {
		return nil, err
	}
	world := hayrick.RealWorld("bench")
	st, err := local.Open(ctx, filepath.Join(dir, "store"), world, nil)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	store := &manifest.Store{Objects: st, Clock: world.Clock}
	a := &aggregator.Aggregator{
		Store: store, State: st, Queue: st, Blobs: st, Output: st, World: world, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		CodeVersion: "bench",
		Busy: func(merging bool) { // as the command does
			if merging {
				debug.SetGCPercent(50)
			} else {
				debug.SetGCPercent(100)
			}
		},
		Temp: func() (manifest.Temp, error) {
			f, err := os.CreateTemp(dir, "merge-*.tmp")
			if err == nil {
				err = os.Remove(f.Name())
			}
			return f, err
		},
	}
	start, cpu := time.Now(), cpuSeconds()
	if err := a.Advance(ctx, endedID, 0); err != nil {
		return nil, err
	}
	var two errgroup.Group
	for range 2 {
		two.Go(func() error {
			for {
				if _, _, err := store.Outcome(ctx, endedID, 0); !errors.Is(err, hayrick.ErrNotFound) {
					return err
				}
				ds, err := st.Receive(ctx, hayrick.QueueTasks, 1, time.Minute, 50*time.Millisecond)
				if err != nil {
					return err
				}
				for _, d := range ds {
					if _, err := a.Do(ctx, d); err != nil {
						return err
					}
					if err := st.Ack(ctx, hayrick.QueueTasks, d); err != nil {
						return err
					}
				}
			}
		})
	}
	if err := two.Wait(); err != nil {
		return nil, err
	}
	res := aggregated{Seconds: time.Since(start).Seconds(), CPU: cpuSeconds() - cpu}
	o, _, err := store.Outcome(ctx, endedID, 0)
	if err != nil {
		return nil, err
	}
	if o.Status != string(hayrick.JobSucceeded) {
		return nil, fmt.Errorf("%s: %s", o.Code, o.Message)
	}
	res.Rows, res.Dropped, res.Path = o.RowCount, o.DroppedRows, filepath.Join(dir, "out", o.Aggregation.Parts[0].Name)
	return res, nil
}

// cpuSeconds is what this process has used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// endedFiles are the results of an ended job, in order.
func endedFiles(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "store", "jobs", endedID, "tasks", "task-*", "*.parquet"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no results in %s", dir)
	}
	return files, err
}

// childDuckUnique is `child duckunique <dir> <out>`: the same by DuckDB.
func childDuckUnique(args []string) (any, error) {
	return duckCopy(args[0], args[1], " QUALIFY row_number() OVER (PARTITION BY uri ORDER BY seq) = 1 ORDER BY uri")
}

// childDuckSame is `child ducksame <a> <b>`: DuckDB reads the same rows, in the same
// order, in two files.
func childDuckSame(args []string) (any, error) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var columns []string
	for _, f := range corpusSchema.Fields {
		columns = append(columns, fmt.Sprintf("sum(hash(%q, place)::HUGEINT)::VARCHAR", f.Name))
	}
	var got [2]string
	for i, path := range args {
		q := fmt.Sprintf("SELECT count(*) || ' ' || concat_ws(' ', %s) FROM (SELECT *, row_number() OVER () AS place FROM read_parquet(%s))", strings.Join(columns, ", "), sqlText(path))
		if err := db.QueryRow(q).Scan(&got[i]); err != nil {
			return nil, err
		}
	}
	if got[0] != got[1] {
		return nil, fmt.Errorf("DuckDB reads other rows:\n%s\n%s", got[0], got[1])
	}
	return nil, nil
}
