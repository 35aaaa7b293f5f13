package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"hayrick"
	"hayrick/internal/rows"
	"hayrick/local"
	"hayrick/manifest"
)

const (
	corpusJob  = manifest.Job("bench")
	corpusRows = 5_000 // a file
)

// corpusFile is one task's Parquet file, as its results.done would vouch for it.
type corpusFile struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"`
	SHA256  string `json:"sha256"`
	Rows    int64  `json:"rows"`
	RowHash string `json:"row_hash"`
}

// corpus is the store of Parquet files that concat and merge work on.
type corpus struct {
	dir   string
	files []corpusFile
}

func (c corpus) list() string                 { return filepath.Join(c.dir, "corpus.json") }
func (c corpus) path(key string) string       { return filepath.Join(c.dir, filepath.FromSlash(key)) }
func (c corpus) paths() (paths []string)      { return c.pathsOf(len(c.files)) }
func (c corpus) store() (*local.Store, error) { return openStore(c.dir) }

func (c corpus) pathsOf(n int) (paths []string) {
	for _, f := range c.files[:n] {
		paths = append(paths, c.path(f.Key))
	}
	return paths
}

func (c corpus) bytes(n int) (sum int64) {
	for _, f := range c.files[:n] {
		sum += f.Size
	}
	return sum
}

func openStore(dir string) (*local.Store, error) {
	return local.Open(context.Background(), dir, hayrick.RealWorld("bench"), nil)
}

func openCorpus(dir string) (c corpus, err error) {
	c.dir = dir
	raw, err := os.ReadFile(c.list())
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(raw, &c.files)
}

// corpus makes n files, about 480 KB each, where they are missing, and reads them
// into the page cache.
func (b *bench) corpus(ctx context.Context, n int64) (corpus, error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("parquet-%d", n))
	if _, err := os.Stat(filepath.Join(dir, "corpus.json")); err != nil {
		if err := os.RemoveAll(dir); err != nil {
			return corpus{}, err
		}
		if _, err := ask(ctx, nil, "parquet", dir, strconv.FormatInt(n, 10)); err != nil {
			return corpus{}, err
		}
	}
	c, err := openCorpus(dir)
	for _, p := range c.paths() {
		if _, werr := warm(p); werr != nil {
			return c, errors.Join(err, werr)
		}
	}
	return c, err
}

// childParquet is `child parquet <store> <files>`. The corpus is a pure function of
// the number of files.
func childParquet(args []string) (any, error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	c := corpus{dir: args[0], files: make([]corpusFile, n)}
	store, err := c.store()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	var (
		wait sync.WaitGroup
		errs = make(chan error, n)
		next = make(chan int)
	)
	for range 4 {
		wait.Go(func() {
			for i := range next {
				f, err := corpusTask(store, i)
				if err != nil {
					errs <- err
					continue
				}
				c.files[i] = f
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
	close(errs)
	for err := range errs {
		return nil, err
	}
	raw, err := json.Marshal(c.files)
	if err != nil {
		return nil, err
	}
	return nil, os.WriteFile(c.list(), raw, 0o644)
}

var corpusSchema = rows.Schema{Fields: []rows.Field{
	{Name: "uri", Kind: rows.KindString}, {Name: "at", Kind: rows.KindTime}, {Name: "seq", Kind: rows.KindInt},
	{Name: "record", Kind: rows.KindString}, {Name: "lang", Kind: rows.KindString}, {Name: "score", Kind: rows.KindFloat},
}}

func corpusTask(store *local.Store, i int) (corpusFile, error) {
	var buf bytes.Buffer
	w, err := rows.NewWriter(&buf, corpusSchema, rows.WriterOptions{})
	if err != nil {
		return corpusFile{}, err
	}
	rng := rand.New(rand.NewPCG(uint64(i), 42))
	at := time.UnixMicro(1_700_000_000_000_000).UTC()
	for k := range corpusRows {
		if err := w.Append(corpusRow(rng, i, k, at)); err != nil {
			return corpusFile{}, err
		}
	}
	sum, err := w.Close()
	if err != nil {
		return corpusFile{}, err
	}
	f := corpusFile{
		Key:  corpusJob.Rows(manifest.TaskID(int64(i)), "00000000", sum.SHA256),
		Size: sum.Bytes, SHA256: sum.SHA256, Rows: sum.Rows, RowHash: sum.RowHash.String(),
	}
	return f, store.Put(context.Background(), f.Key, &buf)
}

// corpusRow is a post: 70 bytes of uri, about 200 bytes of JSON.
func corpusRow(rng *rand.Rand, file, k int, at time.Time) rows.Row {
	words := make([]string, 0, 24)
	for range 20 {
		words = append(words, vocabulary[rng.IntN(len(vocabulary))])
	}
	row := rows.Row{
		{Name: "uri", Value: fmt.Sprintf("at://did:plc:%024d/app.bsky.feed.post/%013d", file*50+k/100, k)},
		{Name: "at", Value: at.Add(time.Duration(rng.Int64N(1e15)))},
		{Name: "seq", Value: int64(file)*corpusRows + int64(k)},
		{Name: "record", Value: fmt.Sprintf(`{"$type":"app.bsky.feed.post","text":"%s","via":"%016x%016x"}`, strings.Join(words, " "), rng.Uint64(), rng.Uint64())},
		{Name: "score", Value: rng.NormFloat64()},
	}
	if rng.IntN(4) > 0 {
		row = append(row, rows.Col{Name: "lang", Value: []string{"de", "en", "ja", "pt"}[rng.IntN(4)]})
	}
	return row
}

// vocabulary is 4,096 made-up words.
var vocabulary = func() (words []string) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 4096 {
		w := make([]byte, 2+rng.IntN(8))
		for i := range w {
			w[i] = byte('a' + rng.IntN(26))
		}
		words = append(words, string(w))
	}
	return words
}()
