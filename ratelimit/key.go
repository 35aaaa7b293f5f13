package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Key names a bucket in the store: store/pds/example.com for the whole store (an
// empty jobID), job.<job id>/pds/example.com for one job; value is the item's, or
// empty for a rate with one bucket. Every value is safe: one that is long or has
// other characters than a file name or a table key likes is replaced by its hash.
// Different arguments give different keys.
func Key(jobID, rate, value string) string {
	scope := "store"
	if jobID != "" {
		scope = "job." + part(jobID)
	}
	return scope + "/" + part(rate) + "/" + part(value)
}

const (
	firstChars = "abcdefghijklmnopqrstuvwxyz0123456789_"
	plainChars = firstChars + ".:-"
	maxPart    = 128
)

// part is s, or ~ and 128 bits of its hash. The empty string is ~ alone.
func part(s string) string {
	if s == "" {
		return "~"
	}
	if len(s) <= maxPart && strings.IndexByte(firstChars, s[0]) >= 0 && strings.Trim(s, plainChars) == "" {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "~" + hex.EncodeToString(sum[:16])
}
