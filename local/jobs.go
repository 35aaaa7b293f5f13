package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"hayrick"
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
