package main

import "time"

// pace is how often a store is looked at: by who works on it or watches.
type pace struct {
	look    time.Duration // between two looks while something changes
	slowest time.Duration // ... and while nothing does
	sweep   time.Duration // between two sweeps
}

var (
	// localPace: a look costs some reads of a file.
	localPace = pace{look: lookEvery, slowest: lookEvery, sweep: sweepEvery}
	// remotePace: a look costs requests, each with its price.
	remotePace = pace{look: 3 * time.Second, slowest: 30 * time.Second, sweep: 15 * time.Second}
)

func (c *cli) pace() pace {
	if c.onAWS() {
		return remotePace
	}
	return localPace
}
