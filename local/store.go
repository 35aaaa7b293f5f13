package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"hayrick"
	"hayrick/internal/durable"
)

// Store is all ports in one folder.
type Store struct {
	reading
	dir   *durable.Dir
	world hayrick.World
	log   *slog.Logger
	state *state
	wake  wakeups
	seen  queuesSeen
}

// Open opens the store at dir, creating it where it is missing. log hears of
// repairs; nil is silence. The folder must be on a local disk and writable: what a
// person has to mend is a *hayrick.UserError.
func Open(ctx context.Context, dir string, world hayrick.World, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if err := refuseNetwork(nearest(abs)); err != nil {
		return nil, err
	}
	newID := func() string { return world.NewAttemptID()[:16] }
	d, err := durable.Open(abs, newID, world.Clock.Now)
	if err != nil {
		return nil, explain(abs, fmt.Errorf("open store %s: %w", dir, err))
	}
	s := &Store{reading: reading{root: d.Root(), path: d.Path(), settle: d.Settle}, dir: d, world: world, log: log}
	if s.state, err = openState(ctx, s); err != nil {
		return nil, errors.Join(explain(abs, fmt.Errorf("open store %s: %w", dir, err)), d.Close())
	}
	return s, nil
}

// Close ends the process's part in the store: claims it still holds and messages
// it has in flight are free from here on, as after its death.
func (s *Store) Close() error {
	return errors.Join(s.state.close(), s.dir.Close())
}

// newIncarnation is 64 random bits in hex.
func (s *Store) newIncarnation() string { return s.world.NewAttemptID()[:16] }

// nearest is dir, or the folder it will be made in.
func nearest(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
