package retryplanner

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"

	"hayrick/manifest"
)

// A segment ends with the batch that reaches one of these.
const (
	segmentBytes   = 64 << 20
	segmentBatches = 4096
)

// segment is a stretch of lines that becomes one object.
type segment struct {
	offset  int64 // in the spool of all lines
	length  int64
	lines   int64
	sha     string
	batches []manifest.Batch // without their object, which the digest names
}

// packer cuts lines into batches of the same number of items, or bytes, and batches into
// segments. It holds the batches of one segment and none of the lines.
type packer struct {
	items int   // a batch
	bytes int64 // a batch, at which it ends; 0 = any

	seg   segment
	batch manifest.Batch
	whole hash.Hash // of the segment
	part  hash.Hash // of the batch
}

// newPacker packs batches of so many items, and of about so many bytes unless that is 0.
func newPacker(items int, bytes int64) *packer {
	return &packer{items: items, bytes: bytes, whole: sha256.New(), part: sha256.New()}
}

// add appends one line, with its newline. full says that the segment should end.
func (p *packer) add(ordinal int64, line []byte) (full bool) {
	if p.batch.Items == 0 {
		p.batch = manifest.Batch{FirstOrdinal: ordinal, FirstLine: p.seg.lines + 1, Offset: p.seg.length, Retry: true}
	}
	p.whole.Write(line)
	p.part.Write(line)
	p.batch.Items++
	p.batch.Length += int64(len(line))
	p.seg.lines++
	p.seg.length += int64(len(line))
	if p.batch.Items < p.items && (p.bytes == 0 || p.batch.Length < p.bytes) {
		return false
	}
	p.endBatch()
	return p.seg.length >= segmentBytes || len(p.seg.batches) >= segmentBatches
}

func (p *packer) endBatch() {
	p.batch.SHA256 = hex.EncodeToString(p.part.Sum(nil))
	p.seg.batches = append(p.seg.batches, p.batch)
	p.batch = manifest.Batch{}
	p.part.Reset()
}

// end returns the segment so far and starts the next one. ok is false when it would
// be empty.
func (p *packer) end() (s segment, ok bool) {
	if p.batch.Items > 0 {
		p.endBatch()
	}
	s = p.seg
	s.sha = hex.EncodeToString(p.whole.Sum(nil))
	p.whole.Reset()
	p.seg = segment{offset: s.offset + s.length}
	return s, len(s.batches) > 0
}
