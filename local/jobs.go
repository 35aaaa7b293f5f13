package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"hayrick"
	"hayrick/manifest"
)

// JobState returns what is cached of a job.
func (s *Store) JobState(ctx context.Context, jobID string) (hayrick.JobState, error) {
	var st hayrick.JobState
	err := s.state.read(ctx, func(c *conn) error {
		row, err := c.one(`SELECT state FROM jobs WHERE job = ?`, jobID)
		if err != nil {
			return err
		}
		if row == nil {
			return hayrick.ErrNotFound
		}
		return json.Unmarshal([]byte(row[0].(string)), &st)
	})
	if err != nil {
		return hayrick.JobState{}, fmt.Errorf("job state of %s: %w", jobID, err)
	}
	return st, nil
}

// Forget removes what the state store holds of a job, and the folders of the job that
// are empty. It is a cache: what is needed again is rebuilt.
func (s *Store) Forget(ctx context.Context, jobID string) error {
	if !hayrick.ValidID(jobID) {
		return fmt.Errorf("forget %q: it is no job", jobID)
	}
	err := s.state.do(ctx, func(t *tx) error {
		for _, sql := range []string{`DELETE FROM claims WHERE task >= ? AND task < ?`, `DELETE FROM blocks WHERE block >= ? AND block < ?`} {
			if err := t.c.exec(sql, jobID+"/", jobID+"0"); err != nil { // 0 comes after the slash
				return err
			}
		}
		return t.c.exec(`DELETE FROM jobs WHERE job = ?`, jobID)
	})
	if err != nil {
		return fmt.Errorf("forget %s: %w", jobID, err)
	}
	s.prune(manifest.Jobs + jobID)
	return nil
}

// prune removes folders that are empty, the deepest first. One that is not, or that
// somebody has just made, stays; a link is not followed.
func (s *Store) prune(dir string) {
	f, err := openFolder(s.root, dir)
	if err != nil {
		return
	}
	entries, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			s.prune(path.Join(dir, e.Name()))
		}
	}
	_ = s.root.Rmdir(dir)
}

// PutJobState caches what the commits say of a job.
func (s *Store) PutJobState(ctx context.Context, st hayrick.JobState) error {
	if st.JobID == "" {
		return errors.New("put job state: it names no job")
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("put job state of %s: %w", st.JobID, err)
	}
	err = s.state.do(ctx, func(t *tx) error {
		return t.c.exec(`INSERT OR REPLACE INTO jobs VALUES (?, ?)`, st.JobID, string(b))
	})
	if err != nil {
		return fmt.Errorf("put job state of %s: %w", st.JobID, err)
	}
	return nil
}
