package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// BlockTasks is how many consecutive tasks one block holds.
const BlockTasks = 256

// InlineList is the longest list a record holds itself; a longer one is a data
// object named by <field>_ref.
const InlineList = 10000

// InlineBlocks is InlineList for blocks and indexes, which a plan would repeat to
// everybody who only wants to know what the job is: a quarter of a million tasks.
const InlineBlocks = 1024

// Ref names a data object that holds a list, one JSON record a line.
type Ref struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
	Count  int64  `json:"count"`
}

// BlockRef names a block file.
type BlockRef struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
	Tasks  int    `json:"tasks"`
}

// IndexRef names an index object: the batches of one block, in its order.
type IndexRef struct {
	Key     string `json:"key"`
	SHA256  string `json:"sha256"`
	Batches int    `json:"batches"`
}

// Group is a task group as a plan opens it: consecutive tasks from FirstTask, in
// blocks of BlockTasks.
type Group struct {
	Name      string     `json:"name"`
	Phase     string     `json:"phase"`
	Tasks     int64      `json:"tasks"`
	FirstTask int64      `json:"first_task"`
	Items     int64      `json:"items"`
	Blocks    []BlockRef `json:"blocks,omitempty"`
	BlocksRef *Ref       `json:"blocks_ref,omitempty"`
	Index     []IndexRef `json:"index,omitempty"`
	IndexRef  *Ref       `json:"index_ref,omitempty"`
}

// SchemaBlock is the schema of Block.
const SchemaBlock = "hayrick.block/v1"

// Block is a block file: the tasks of one block. Its fields, and those of Index,
// stand in the order of the canonical form, because a job of a million tasks
// writes thousands of them.
type Block struct {
	Block  int         `json:"block"`
	Group  string      `json:"group"`
	JobID  string      `json:"job_id"`
	Role   string      `json:"role"`
	Schema string      `json:"schema"`
	Tasks  []BlockTask `json:"tasks"`
}

// BlockTask is one task of a block.
type BlockTask struct {
	BatchID *string `json:"batch_id"`        // nil for an aggregator task
	Merge   *Span   `json:"merge,omitempty"` // an aggregator task: which inputs of the plan it merges
	Range   *int64  `json:"range,omitempty"` // one of the second level: which range of keys it merges
	TaskID  string  `json:"task_id"`
}

// Span is a range of consecutive entries.
type Span struct {
	Count int64 `json:"count"`
	First int64 `json:"first"`
}

// SchemaIndex is the schema of Index.
const SchemaIndex = "hayrick.index/v1"

// Index is an index object: where the batches of one block lie, in the order of
// the block's tasks.
type Index struct {
	Batches []Batch `json:"batches"`
	Block   int     `json:"block"`
	Group   string  `json:"group"`
	JobID   string  `json:"job_id"`
	Schema  string  `json:"schema"`
}

// StoreScheme marks an object of the job's own folder; what follows is its key
// relative to that folder. Any other object is a path or URI of the input.
const StoreScheme = "store:"

// Batch is one immutable slice of items: the Length bytes at Offset of Object hold
// Items records. In an input the first has ordinal FirstOrdinal and stands on line
// FirstLine of the object (from 1); in a retry segment (Retry) each line is a
// RetryItem that carries its own ordinal.
type Batch struct {
	BatchID      string `json:"batch_id"`
	FirstLine    int64  `json:"first_line"`
	FirstOrdinal int64  `json:"first_ordinal"`
	Items        int    `json:"items"`
	Length       int64  `json:"length"`
	Object       string `json:"object"`
	Offset       int64  `json:"offset"`
	Retry        bool   `json:"retry,omitempty"`
	SHA256       string `json:"sha256"`
	// Version is that of Object which was indexed, where its store keeps versions: it
	// can be read when the object has been replaced.
	Version string `json:"version,omitempty"`
}

// RetryItem is one line of a retry segment: an item with what its earlier tasks
// spent on it. Classes are those of its failures, one a task group, in order; Infra
// is how many of them cost the item no try.
type RetryItem struct {
	Ordinal int64           `json:"ordinal"`
	Item    json.RawMessage `json:"item"`
	Tries   int             `json:"tries"`
	Losses  int             `json:"losses"`
	Classes []string        `json:"classes"`
	Infra   int             `json:"infra,omitempty"`
	// Raw has the record instead of Item when it is not one JSON value: a batch that
	// no worker could open is tried again with its damaged lines as they stand.
	Raw []byte `json:"raw,omitempty"`
}

// line keeps the record's bytes as they stand, so that an item reads the same in a
// retry as in the input; encoding/json would drop its white space.
func (r RetryItem) line() ([]byte, error) {
	record := []byte(r.Item)
	if !json.Valid(record) || bytes.IndexByte(record, '\n') >= 0 {
		r.Raw, record = record, []byte("null")
	}
	spent, err := EncodeLine(struct {
		Tries   int      `json:"tries"`
		Losses  int      `json:"losses"`
		Classes []string `json:"classes"`
		Infra   int      `json:"infra,omitempty"`
		Raw     []byte   `json:"raw,omitempty"`
	}{r.Tries, r.Losses, r.Classes, r.Infra, r.Raw})
	if err != nil {
		return nil, err
	}
	b := strconv.AppendInt([]byte(`{"ordinal":`), r.Ordinal, 10)
	b = append(append(b, `,"item":`...), record...)
	return append(append(b, ','), spent[1:]...), nil
}

// EncodeLine returns v as one line of a list or segment, with its newline. Field
// order is the type's.
func EncodeLine(v any) ([]byte, error) {
	if r, ok := v.(RetryItem); ok {
		return r.line()
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return buf.Bytes(), nil
}
