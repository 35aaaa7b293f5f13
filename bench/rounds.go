package main

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// contender is one of several ways that are measured round by round.
type contender struct {
	name string
	run  func() (seconds float64, err error)
}

// interleave runs every contender once a round, in turn, so that whatever else the
// machine does in the meantime disturbs all of them alike, and returns the median of
// each. Each round starts with another one. What one leaves the disk to do, such as
// giving back the blocks of a deleted file, is done before the next one starts.
func (b *bench) interleave(rounds int, all ...contender) (map[string]float64, error) {
	took := map[string][]float64{}
	for r := range rounds {
		for i := range all {
			c := all[(i+r)%len(all)]
			if err := syncDisk(b.dir); err != nil {
				return nil, err
			}
			s, err := c.run()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			took[c.name] = append(took[c.name], s)
		}
	}
	medians := map[string]float64{}
	for name, s := range took {
		medians[name] = median(s)
	}
	return medians, nil
}

func median(s []float64) float64 {
	slices.Sort(s)
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// syncDisk writes out what the file system of dir has in memory.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
