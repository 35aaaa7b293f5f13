package coordinator

import (
	"crypto/sha256"
	"strings"
	"time"

	"hayrick"
)

// FloorOf is how long the rates of a job let it take at least: the tokens that the host
// takes before the items, from the one bucket that the most of them need. most is how
// many items are known to share one value of a rate's key.
func FloorOf(rates []hayrick.Rate, items int64, most map[string]int64) (floor time.Duration, rate string) {
	for _, r := range rates {
		if !r.Auto {
			continue
		}
		n := items
		if r.Key != "" {
			n = most[r.Name]
		}
		// In any time T at most limit x T + burst tokens are granted.
		secs := float64(n-int64(r.Burst)) / r.Limit.PerSecond()
		if d := time.Duration(secs * float64(time.Second)); d > floor {
			floor, rate = d, r.Name
		}
	}
	return floor, rate
}

// Frequent finds how often the commonest of any number of keys is there at least, in
// memory for maxKeys of them: what it says is never more than the truth, and less by no
// more than all keys over maxKeys.
type Frequent struct {
	n map[string]int64
}

const maxKeys = 16_384

// Add counts a key. When there is no room for it, it takes one of each other key with
// it.
func (f *Frequent) Add(key string) {
	if f.n == nil {
		f.n = map[string]int64{}
	}
	if len(key) > sha256.Size { // bounded in bytes too
		h := sha256.Sum256([]byte(key))
		key = string(h[:])
	}
	if _, ok := f.n[key]; ok {
		f.n[key]++
		return
	}
	if len(f.n) < maxKeys {
		f.n[strings.Clone(key)] = 1
		return
	}
	for k := range f.n {
		if f.n[k]--; f.n[k] == 0 {
			delete(f.n, k)
		}
	}
}

// Most is the count of the commonest.
func (f *Frequent) Most() int64 {
	var most int64
	for _, n := range f.n {
		most = max(most, n)
	}
	return most
}
