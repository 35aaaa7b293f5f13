package extproc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// messages are the messages of an Arrow stream. The library believes every count that
// stands in the head of one and takes memory for it, which no recover gets back: heads are
// looked through here first, and no length is believed before the bytes are there.
type messages struct {
	from             io.Reader
	maxMeta, maxBody int64
	last             *ipc.Message
}

// Message is ipc.MessageReader's; its result is valid until the next call.
func (m *messages) Message() (*ipc.Message, error) {
	size, err := m.length()
	if err == nil && size == 0xffffffff { // in front of the length, since version 0.15 of Arrow
		size, err = m.length()
	}
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, io.EOF
	}
	meta, err := m.bytes(int64(size), m.maxMeta, "the head of a message")
	if err != nil {
		return nil, err
	}
	length, err := checkHead(meta)
	if err != nil {
		return nil, err
	}
	body, err := m.bytes(length, m.maxBody, "a message")
	if err != nil {
		return nil, err
	}
	m.Release()
	m.last = ipc.NewMessage(memory.NewBufferBytes(meta), memory.NewBufferBytes(body))
	return m.last, nil
}

// Retain is ipc.MessageReader's.
func (m *messages) Retain() {}

// Release is ipc.MessageReader's.
func (m *messages) Release() {
	if m.last != nil {
		m.last.Release()
		m.last = nil
	}
}

func (m *messages) length() (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(m.from, b[:])
	return binary.LittleEndian.Uint32(b[:]), err
}

// atOnce is the most that is taken for bytes which have not come yet.
const atOnce = 1 << 20

func (m *messages) bytes(n, most int64, what string) ([]byte, error) {
	if n < 0 || n > most {
		return nil, fmt.Errorf("%s has %d bytes, or says so, and the most is %d", what, n, most)
	}
	if n <= atOnce {
		b := make([]byte, n)
		_, err := io.ReadFull(m.from, b)
		return b, err
	}
	var b bytes.Buffer
	b.Grow(atOnce)
	if got, err := b.ReadFrom(io.LimitReader(m.from, n)); err != nil || got < n {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return b.Bytes(), nil
}

// The slots of the tables of Arrow's Message.fbs and Schema.fbs that are looked at.
const (
	headerSchema, headerDictionary, headerBatch = 1, 2, 3 // of a message: what it is

	messageKind, messageHeader, messageBody, messageNotes = 1, 2, 3, 4
	schemaFields, schemaNotes                             = 1, 2
	fieldTypeKind, fieldType, fieldChildren, fieldNotes   = 2, 3, 5, 6
	typeUnion, unionIDs                                   = 14, 1
	batchViews, dictionaryBatch                           = 4, 1

	maxNested = 64 // columns within columns
)

// checkHead looks through the head of a message, and returns the length of its body.
func checkHead(b []byte) (body int64, err error) {
	defer damaged(&err)
	h := head{b: b, left: len(b)}
	message := h.follow(0)
	if at := h.slot(message, messageBody); at > 0 {
		body = int64(binary.LittleEndian.Uint64(b[at:]))
	}
	h.list(message, messageNotes)
	at := h.slot(message, messageHeader)
	if at == 0 {
		return body, errors.New("a message without a header")
	}
	at = h.follow(at)
	switch h.byte(message, messageKind) {
	case headerSchema:
		h.list(at, schemaNotes)
		h.fields(at, schemaFields, 0)
	case headerDictionary:
		if batch := h.slot(at, dictionaryBatch); batch > 0 {
			h.noViews(h.follow(batch))
		}
	case headerBatch:
		h.noViews(at)
	}
	return body, nil
}

// head is the head of a message, a FlatBuffer. A place outside of it is a panic, which
// damaged answers.
type head struct {
	b    []byte
	left int // entries of lists that it can have yet
}

func (h *head) u32(at int) int { return int(binary.LittleEndian.Uint32(h.b[at:])) }

// follow is the place that the reference at a place leads to.
func (h *head) follow(at int) int { return at + h.u32(at) }

// slot is where a table has a field; 0 = it has none.
func (h *head) slot(table, n int) int {
	fields := table - int(int32(h.u32(table)))
	if at := 4 + 2*n; at < int(binary.LittleEndian.Uint16(h.b[fields:])) {
		if off := int(binary.LittleEndian.Uint16(h.b[fields+at:])); off > 0 {
			return table + off
		}
	}
	return 0
}

func (h *head) byte(table, n int) byte {
	if at := h.slot(table, n); at > 0 {
		return h.b[at]
	}
	return 0
}

// list is the length of a list and where its entries begin. All lists together have no
// more entries than there are bytes, also where one is meant by many fields.
func (h *head) list(table, n int) (length, at int) {
	at = h.slot(table, n)
	if at == 0 {
		return 0, 0
	}
	at = h.follow(at)
	if length = h.u32(at); length > h.left {
		panic(fmt.Sprintf("a list of %d in %d bytes", length, len(h.b)))
	}
	h.left -= length
	return length, at + 4
}

func (h *head) fields(table, n, depth int) {
	if depth > maxNested {
		panic("columns within columns")
	}
	length, at := h.list(table, n)
	for i := range length {
		field := h.follow(at + 4*i)
		h.list(field, fieldNotes)
		if of := h.slot(field, fieldType); of > 0 && h.byte(field, fieldTypeKind) == typeUnion {
			h.list(h.follow(of), unionIDs)
		}
		h.fields(field, fieldChildren, depth+1)
	}
}

// noViews refuses a batch with columns of views, which no row has.
func (h *head) noViews(batch int) {
	if n, _ := h.list(batch, batchViews); n > 0 {
		panic("a column of views; cast it to string or binary")
	}
}
