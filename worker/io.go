package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"

	"hayrick"
	"hayrick/jobs"
)

// copyHashed copies src to dst and returns the SHA-256 of what went through.
func copyHashed(dst io.Writer, src io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(dst, h), src); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sortDescending puts the checkpoint that is furthest first: their names begin with
// the number of ended items, padded.
func sortDescending(keys []string) {
	slices.Sort(keys)
	slices.Reverse(keys)
}

func failTimeout(limit hayrick.Duration) jobs.Outcome {
	return jobs.Fail(hayrick.ClassTimeout, "in hand when the task's %s were over and nothing had ended", limit.D())
}
