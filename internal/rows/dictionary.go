package rows

import "math"

const (
	// dictionaryBytes is the size at which the library gives up on a dictionary and
	// writes the rest of the chunk plain, having paid for both.
	dictionaryBytes = 1 << 20
	// dictionarySample is the number of values looked at.
	dictionarySample = 8192
	// dictionaryRepeats is how often a value must come, on average, for a dictionary
	// to pay: below it the indexes and the dictionary cost about what zstd makes of
	// the plain values, and building it costs more.
	dictionaryRepeats = 4
)

// dictionaryPays estimates, from a sample spread over the column, whether its
// values repeat enough for a dictionary that fits. A dictionary on a column of
// distinct values is the dearest mistake of a Parquet writer: it is built, found
// too large, and thrown away, in every row group.
func dictionaryPays(c *Column, rows int) bool {
	if c.Kind == KindBool || rows == 0 {
		return false
	}
	// Open addressing over hashes alone: two values of one hash count as one, which
	// in 8192 of 2^64 does not happen.
	var table [2 * dictionarySample]uint64
	var seen [2 * dictionarySample]uint16
	step := max(1, rows/dictionarySample)
	values, distinct, once, size := 0, 0, 0, 0
	for r := 0; r < rows && values < dictionarySample; r += step {
		if !c.Valid[r] {
			continue
		}
		values++
		h := c.hash(r)
		at := h % uint64(len(table))
		for seen[at] != 0 && table[at] != h {
			at = (at + 1) % uint64(len(table))
		}
		switch seen[at] {
		case 0:
			distinct++
			once++
			size += 8
			if c.wide() {
				size += len(c.Bytes(r)) - 4 // plain form: 4 bytes of length and the value
			}
		case 1:
			once--
		}
		table[at] = h
		seen[at]++
	}
	if values == 0 || once*10 > values*9 {
		// Nearly all of the sample came once. Of values that come four times, in a group
		// of any usual size, a fifth of the sample would have come again.
		return false
	}
	// The values that came once stand for as many more as the sample is thin (the
	// "guaranteed error" estimator of Charikar et al., 2000).
	estimate := math.Sqrt(float64(step))*float64(once) + float64(distinct-once)
	total := float64(values * step)
	return estimate*dictionaryRepeats <= total && estimate*float64(size)/float64(distinct) <= dictionaryBytes
}

// hash is FNV-1a with a final mix, of the value of row r: the same in every run, so
// that the same rows give the same file.
func (c *Column) hash(r int) uint64 {
	h := uint64(14695981039346656037)
	if c.wide() {
		for _, b := range c.Bytes(r) {
			h = (h ^ uint64(b)) * 1099511628211
		}
	} else {
		h = (h ^ uint64(c.Nums[r])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}
