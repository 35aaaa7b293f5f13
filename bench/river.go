package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// postgres is a server of our own on a unix socket, durable: fsync and
// synchronous_commit are on.
type postgres struct {
	dir string // owned by the user it runs as
	cmd *exec.Cmd
	cut context.CancelFunc
}

// startPostgres starts PostgreSQL in the work folder's file system. Root may not run
// it: the user postgres does, or nobody.
func startPostgres(ctx context.Context, b *bench) (*postgres, error) {
	server, err := postgresTool("postgres")
	if err != nil {
		return nil, err
	}
	initdb, err := postgresTool("initdb")
	if err != nil {
		return nil, err
	}
	// Beside the work folder, whose parents another user may not enter, a temporary one.
	dir, err := os.MkdirTemp("", "bench-pg-")
	if err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			os.RemoveAll(dir)
		}
	}()
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		if as, err = otherUser(dir); err != nil {
			return nil, err
		}
	}
	ctx, cut := context.WithCancel(ctx)
	data := filepath.Join(dir, "data")
	start := func(name string, args ...string) *exec.Cmd {
		cmd := command(ctx, name, args...)
		cmd.SysProcAttr.Credential = as
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + dir}
		return cmd
	}
	if out, err := start(initdb, "-D", data, "-A", "trust", "-U", "bench", "--no-sync").CombinedOutput(); err != nil {
		cut()
		return nil, fmt.Errorf("initdb: %w: %s", err, lastLines(string(out), 2))
	}
	p := &postgres{dir: dir, cut: cut}
	p.cmd = start(server, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=on", "-c", "synchronous_commit=on",
		"-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB", "-c", "max_connections=50")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		cut()
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		cut()
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := pgx.Connect(ctx, p.dsn())
		if err == nil {
			ok = true
			return p, conn.Close(ctx)
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			p.stop()
			return nil, fmt.Errorf("PostgreSQL does not answer: %w: %s", err, lastLines(string(text), 2))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *postgres) dsn() string { return "host=" + p.dir + " user=bench dbname=postgres" }

// stop ends the server, with a kill if it takes more than ten seconds.
func (p *postgres) stop() {
	p.cmd.Process.Signal(syscall.SIGINT)
	kill := time.AfterFunc(10*time.Second, p.cut)
	p.cmd.Wait()
	kill.Stop()
	p.cut()
	os.RemoveAll(p.dir)
}

func postgresTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return "", fmt.Errorf("%s is not installed", name)
	}
	return found[len(found)-1], nil
}

// otherUser gives dir to a user that is not root.
func otherUser(dir string) (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("there is no user to run it as")
}

// riverTimes are seconds.
type riverTimes struct {
	Submit float64 `json:"submit"`
	Run    float64 `json:"run"`
}

func (p *postgres) river(ctx context.Context, tasks int64) (riverTimes, error) {
	var res riverTimes
	_, err := ask(ctx, &res, "river", p.dsn(), strconv.FormatInt(tasks, 10))
	return res, err
}

type noopArgs struct {
	N int64 `json:"n"`
}

func (noopArgs) Kind() string { return "noop" }

// childRiver is `child river <dsn> <tasks>`: River as its documentation tunes it for
// throughput. The run ends when every job is completed in the database.
func childRiver(args []string) (any, error) {
	ctx := context.Background()
	tasks, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(args[0])
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, "truncate river_job"); err != nil {
		return nil, err
	}
	var worked atomic.Int64
	all := make(chan struct{})
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(context.Context, *river.Job[noopArgs]) error {
		if worked.Add(1) == tasks {
			close(all)
		}
		return nil
	}))
	client, err := river.NewClient(driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}},
		Workers:           workers,
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: 100 * time.Millisecond,
		Logger:            slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	var res riverTimes
	start := time.Now()
	batch := make([]river.InsertManyParams, 0, 10_000)
	for i := range tasks {
		batch = append(batch, river.InsertManyParams{Args: noopArgs{N: i}})
		if len(batch) == cap(batch) || i == tasks-1 {
			if _, err := client.InsertManyFast(ctx, batch); err != nil {
				return nil, err
			}
			batch = batch[:0]
		}
	}
	res.Submit = time.Since(start).Seconds()
	start = time.Now()
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	select {
	case <-all:
	case <-time.After(3 * time.Minute):
		return nil, fmt.Errorf("%d of %d jobs after three minutes", worked.Load(), tasks)
	}
	if err := client.Stop(ctx); err != nil { // writes the last completions
		return nil, err
	}
	res.Run = time.Since(start).Seconds()
	var completed int64
	if err := pool.QueryRow(ctx, "select count(*) from river_job where state = 'completed'").Scan(&completed); err != nil {
		return nil, err
	}
	if completed != tasks {
		return nil, fmt.Errorf("%d of %d jobs are completed", completed, tasks)
	}
	return res, nil
}
