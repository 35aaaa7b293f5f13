package aws

import (
	"fmt"

	"hayrick/manifest"
)

// What S3 asks of the parts of an upload.
const (
	minPartBytes  = 5 << 20 // all but the last
	copyBytes     = 1 << 30 // of one copy, for many run side by side ...
	mostCopyBytes = 5 << 30 // ... up to what S3 takes, where there would be too many
	maxParts      = 10_000
)

// piece is one part of an assembled object: a stretch that S3 copies by itself, or
// stretches and perhaps the tail that are joined here, because alone they are too
// small for a part.
type piece struct {
	copy manifest.Range // when its length is not 0
	glue []manifest.Range
	tail bool // the tail follows glue
}

// planAssembly cuts ranges, and the tail behind them, into parts as S3 takes them,
// so that as few bytes as possible pass through here: of each run of small ranges
// itself and what it lacks to the smallest part from the range behind it.
func planAssembly(ranges []manifest.Range, tail int) ([]piece, error) {
	pieces := cutPieces(ranges, tail, copyBytes)
	if len(pieces) > maxParts {
		pieces = cutPieces(ranges, tail, mostCopyBytes)
	}
	if len(pieces) > maxParts {
		return nil, fmt.Errorf("%d stretches make %d parts, and an upload has at most %d", len(ranges), len(pieces), maxParts)
	}
	return pieces, nil
}

func cutPieces(ranges []manifest.Range, tail int, copyBytes int64) []piece {
	var pieces []piece
	var glue []manifest.Range
	var glued int64
	flush := func() {
		pieces = append(pieces, piece{glue: glue})
		glue, glued = nil, 0
	}
	for _, r := range joined(ranges) {
		if lack := minPartBytes - glued; glued > 0 && r.Length >= lack+minPartBytes {
			glue = append(glue, manifest.Range{Key: r.Key, Offset: r.Offset, Length: lack})
			r.Offset, r.Length = r.Offset+lack, r.Length-lack
			flush()
		}
		if glued > 0 || r.Length < minPartBytes {
			glue = append(glue, r)
			if glued += r.Length; glued >= minPartBytes {
				flush()
			}
			continue
		}
		// Equal stretches: none of them is smaller than a part may be.
		n := (r.Length + copyBytes - 1) / copyBytes
		for i := range n {
			from, to := r.Length*i/n, r.Length*(i+1)/n
			pieces = append(pieces, piece{copy: manifest.Range{Key: r.Key, Offset: r.Offset + from, Length: to - from}})
		}
	}
	if glued > 0 || tail > 0 || len(pieces) == 0 {
		pieces = append(pieces, piece{glue: glue, tail: true})
	}
	return pieces
}

// joined leaves out what is empty and makes one range of those that follow each
// other in one object.
func joined(ranges []manifest.Range) []manifest.Range {
	var out []manifest.Range
	for _, r := range ranges {
		if r.Length == 0 {
			continue
		}
		if last := len(out) - 1; last >= 0 && out[last].Key == r.Key && out[last].Offset+out[last].Length == r.Offset {
			out[last].Length += r.Length
			continue
		}
		out = append(out, r)
	}
	return out
}
