package atrepo

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car"
)

// The sections of a CAR. A repository's header names one root; its largest blocks
// are records, of which the network's servers accept some hundred KiB.
const (
	maxHeader  = 64 << 10
	maxSection = 4 << 20
)

// cidPrefix begins every CID that is accepted: version 1, dag-cbor, SHA-256, 32
// bytes. Others prove nothing: a CAR may name its blocks by an identity "hash", by
// a broken one, or by one byte of a good one.
const cidPrefix = "\x01\x71\x12\x20"

// cidLen is the length of such a CID; the digest is all behind the prefix.
const cidLen = len(cidPrefix) + sha256.Size

// blocks holds the data of every block of a CAR by the digest in its CID. Beside
// the bytes that came a block costs an entry of the index: about 20 bytes, 40 at
// worst.
type blocks struct {
	// chunks hold the blocks back to back, as they came but for the four bytes of
	// cidPrefix, which give way to the length of the data. An entry starts where its
	// CID started.
	chunks  [][]byte
	current int // the chunk that is being filled; large blocks have one of their own
	size    int // of all chunks
	// index leads from the first 8 bytes of a digest, read as a number, to a place:
	// chunk and offset, 31 and 32 bits, and the mark of a node that is pointed to.
	// When the number is taken the next free one has the block.
	index map[uint64]uint64
}

const (
	minChunk = 16 << 10
	maxChunk = 1 << 20
	marked   = 1 << 63
)

// next reads one section. io.EOF is the clean end of the file.
func (b *blocks) next(br *bufio.Reader) error {
	size, err := sectionSize(br, maxSection)
	if err != nil {
		return err
	}
	if size <= cidLen {
		return fmt.Errorf("a section of %d bytes holds no block", size)
	}
	chunk, entry := b.room(size)
	if _, err := io.ReadFull(br, entry); err != nil {
		return cut(err)
	}
	if string(entry[:len(cidPrefix)]) != cidPrefix {
		return errors.New("a block's CID is not a version 1, dag-cbor, SHA-256 one")
	}
	digest := entry[len(cidPrefix):cidLen]
	if sha256.Sum256(entry[cidLen:]) != [sha256.Size]byte(digest) {
		return fmt.Errorf("a block of %d bytes does not have the hash it is named by", size-cidLen)
	}
	slot, _, twice := b.find(digest)
	if twice {
		return nil // some hosts repeat blocks; the room is taken by the next one
	}
	binary.LittleEndian.PutUint32(entry, uint32(size-cidLen))
	b.index[slot] = b.keep(chunk, entry)
	return nil
}

// room is where the next size bytes go: a chunk, len(b.chunks) meaning a new one,
// and the bytes behind its end. They are no one's until keep.
func (b *blocks) room(size int) (chunk int, entry []byte) {
	if len(b.chunks) > 0 {
		if c := b.chunks[b.current]; cap(c)-len(c) >= size {
			return b.current, c[len(c) : len(c)+size]
		}
	}
	n := min(max(b.size/4, minChunk), maxChunk)
	if size > n/8 { // as large again could be lost at the end of a common chunk
		n = size
	}
	return len(b.chunks), make([]byte, size, n)
}

// keep makes entry, which is from room, the last of chunk.
func (b *blocks) keep(chunk int, entry []byte) (place uint64) {
	b.size += len(entry)
	if chunk == len(b.chunks) {
		b.chunks = append(b.chunks, entry)
		if cap(entry) > len(entry) {
			b.current = chunk
		}
		return uint64(chunk) << 32
	}
	c := b.chunks[chunk]
	b.chunks[chunk] = c[:len(c)+len(entry)]
	return uint64(chunk)<<32 | uint64(len(c))
}

// find returns where the block of a digest is, or where its place belongs.
func (b *blocks) find(digest []byte) (slot, place uint64, ok bool) {
	for slot = binary.LittleEndian.Uint64(digest); ; slot++ {
		place, ok = b.index[slot]
		if !ok || bytes.Equal(b.entry(place)[len(cidPrefix):cidLen], digest) {
			return slot, place, ok
		}
	}
}

// entry is what lies at a place, and everything behind it.
func (b *blocks) entry(place uint64) []byte {
	return b.chunks[place&^marked>>32][uint32(place):]
}

// get returns the data of a block. It aliases the store.
func (b *blocks) get(c cid.Cid) (data []byte, ok bool) {
	digest, ok := digestOf(c)
	if !ok {
		return nil, false
	}
	_, place, ok := b.find(digest[:])
	if !ok {
		return nil, false
	}
	e := b.entry(place)
	return e[cidLen:][:binary.LittleEndian.Uint32(e)], true
}

// mark marks a block, and says whether it has been marked before.
func (b *blocks) mark(c cid.Cid) (before, ok bool) {
	digest, ok := digestOf(c)
	if !ok {
		return false, false
	}
	slot, place, ok := b.find(digest[:])
	if ok {
		b.index[slot] = place | marked
	}
	return place&marked != 0, ok
}

func digestOf(c cid.Cid) (digest [sha256.Size]byte, ok bool) {
	s, ok := strings.CutPrefix(c.KeyString(), cidPrefix)
	return digest, ok && copy(digest[:], s) == len(s) && len(s) == len(digest)
}

// readHeader returns the first root of a CAR, which is the commit.
func readHeader(br *bufio.Reader) (cid.Cid, error) {
	size, err := sectionSize(br, maxHeader)
	if err != nil {
		return cid.Undef, cut(err)
	}
	section := binary.AppendUvarint(nil, uint64(size))
	at := len(section)
	section = append(section, make([]byte, size)...)
	if _, err := io.ReadFull(br, section[at:]); err != nil {
		return cid.Undef, cut(err)
	}
	h, err := car.ReadHeader(bufio.NewReader(bytes.NewReader(section)))
	switch {
	case err != nil:
		return cid.Undef, err
	case h.Version != 1:
		return cid.Undef, fmt.Errorf("CAR version %d is not 1", h.Version)
	case len(h.Roots) == 0:
		return cid.Undef, errors.New("the CAR has no root")
	}
	return h.Roots[0], nil
}

// sectionSize reads how long the next section is. io.EOF is a clean end: one
// between two sections.
func sectionSize(br *bufio.Reader, most uint64) (int, error) {
	if _, err := br.Peek(1); err != nil {
		return 0, err
	}
	n, err := binary.ReadUvarint(br)
	if err != nil {
		return 0, cut(err)
	}
	// go-car's own reader takes a section of no bytes for the end of the file.
	if n == 0 || n > most {
		return 0, fmt.Errorf("a section of %d bytes; it may have 1 to %d", n, most)
	}
	return int(n), nil
}

// cut makes an end of the file within a section an error.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
