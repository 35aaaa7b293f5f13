package atrepo

import (
	"bytes"
	"context"
	"strings"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

const (
	// maxDepth bounds the depth of a tree. Heights count leading zero pairs of bits
	// of a SHA-256, so no honest tree comes near.
	maxDepth = 128
	// maxPath bounds the bytes of the nodes from the root down to the one in hand,
	// which are held decoded. Honest ones have some KiB.
	maxPath = 4 << 20
	// maxKey is what atproto allows: a collection of 317 bytes, a slash, and a record
	// key of 512.
	maxKey = 317 + 1 + 512
)

// walker visits a tree in key order. It holds the nodes of one path only: a key
// of 800 bytes may take 60 on the wire, so that all keys of a tree at once could
// take many times the bytes that came.
type walker struct {
	ctx    context.Context
	blocks *blocks
	// first is the first walk of the tree: no node may be pointed to twice. That
	// would make the walk exponential, and hold keys twice in any case.
	first bool
	// canonical asks that the tree be the one that its keys dictate.
	canonical bool
	// yield takes each key and what it points to; the key is lent.
	yield func(key []byte, val cid.Cid) error

	path int           // bytes of the nodes from the root to here
	last []byte        // the key before
	wire *bytes.Buffer // a node encoded again
}

// unknown is the height of the root, until its first key gives it.
const unknown = -1

// node walks what lies below c.
func (w *walker) node(c cid.Cid, depth, height int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	data, ok := w.blocks.get(c)
	if !ok {
		return corrupt("read tree: node %s is missing", c)
	}
	if depth > maxDepth {
		return corrupt("read tree: deeper than %d", maxDepth)
	}
	w.path += len(data)
	defer func() { w.path -= len(data) }()
	if w.path > maxPath {
		return corrupt("read tree: the nodes down to %s have more than %d bytes", c, maxPath)
	}
	n, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		return corrupt("read tree: node %s: %v", c, err)
	}
	if w.first {
		if err := w.point(n); err != nil {
			return err
		}
	}
	if w.canonical {
		if height, err = w.shape(c, n, data, height); err != nil {
			return err
		}
	}
	return w.entries(c, n, depth, height)
}

// point notes the nodes below n.
func (w *walker) point(n *mst.NodeData) error {
	mark := func(c *cid.Cid) error {
		if c == nil {
			return nil
		}
		switch before, ok := w.blocks.mark(*c); {
		case !ok:
			return corrupt("read tree: node %s is missing", c)
		case before:
			return corrupt("read tree: node %s is pointed to twice", c)
		}
		return nil
	}
	err := mark(n.Left)
	for i := 0; err == nil && i < len(n.Entries); i++ {
		err = mark(n.Entries[i].Right)
	}
	return err
}

// shape checks what makes a node canonical beside its keys: where it may be empty
// or have nodes below it, and its encoding. It returns the node's height.
func (w *walker) shape(c cid.Cid, n *mst.NodeData, data []byte, height int) (int, error) {
	root, children := height == unknown, n.Left != nil
	for i := range n.Entries {
		children = children || n.Entries[i].Right != nil
	}
	switch {
	case len(n.Entries) == 0 && root && children:
		return 0, corrupt("verify tree: its top has no key")
	case len(n.Entries) == 0 && !root && !children:
		return 0, corrupt("verify tree: node %s is empty", c)
	case root && len(n.Entries) > 0:
		height = mst.HeightForKey(n.Entries[0].KeySuffix) // the first one shares nothing, or is refused
	}
	if children && height == 0 {
		return 0, corrupt("verify tree: node %s is at height 0 and has nodes below it", c)
	}
	w.wire.Reset()
	if err := n.MarshalCBOR(w.wire); err != nil {
		return 0, corrupt("verify tree: node %s: %v", c, err)
	}
	if !bytes.Equal(w.wire.Bytes(), data) {
		return 0, corrupt("verify tree: node %s is not encoded as it has to be", c)
	}
	return height, nil
}

// entries walks the keys of a node and the nodes between them.
func (w *walker) entries(c cid.Cid, n *mst.NodeData, depth, height int) error {
	if n.Left != nil {
		if err := w.node(*n.Left, depth+1, height-1); err != nil {
			return err
		}
	}
	var key []byte
	for i := range n.Entries {
		e := &n.Entries[i]
		if e.PrefixLen < 0 || e.PrefixLen > int64(len(key)) {
			return corrupt("read tree: node %s: a key shares %d bytes with one of %d", c, e.PrefixLen, len(key))
		}
		if size := int(e.PrefixLen) + len(e.KeySuffix); size == 0 || size > maxKey {
			return corrupt("read tree: node %s: a key of %d bytes; it may have 1 to %d", c, size, maxKey)
		}
		more := int(e.PrefixLen) < len(key) && len(e.KeySuffix) > 0 && key[e.PrefixLen] == e.KeySuffix[0]
		key = append(key[:e.PrefixLen], e.KeySuffix...)
		if w.canonical {
			if err := w.order(key, height); err != nil {
				return err
			}
			if more {
				return corrupt("verify tree: node %s: key %q shares more with the one before it than it says", c, key)
			}
		}
		if err := w.yield(key, e.Value); err != nil {
			return err
		}
		if e.Right != nil {
			if err := w.node(*e.Right, depth+1, height-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// order checks that a key follows the one before, at its height.
func (w *walker) order(key []byte, height int) error {
	switch bytes.Compare(w.last, key) {
	case 0:
		return corrupt("verify tree: duplicate key %q", key)
	case 1:
		return corrupt("verify tree: key %q is out of order", key)
	}
	if h := mst.HeightForKey(key); h != height {
		return corrupt("verify tree: key %q of height %d is at the wrong height, %d", key, h, height)
	}
	w.last = append(w.last[:0], key...)
	return nil
}

// readTree walks the whole tree below root once: every node and every record is
// there, and every key is one.
func readTree(ctx context.Context, blocks *blocks, root cid.Cid, canonical bool) error {
	w := walker{ctx: ctx, blocks: blocks, first: true, canonical: canonical, wire: &bytes.Buffer{}}
	known := "" // the collection before: most keys have the same
	w.yield = func(key []byte, val cid.Cid) error {
		collection, rkey, ok := strings.Cut(string(key), "/")
		if !ok || !printable(key) {
			return corrupt("read tree: key %q is not collection/rkey", key)
		}
		if canonical {
			if err := checkKey(collection, rkey, known); err != nil {
				return corrupt("verify tree: key %q: %v", key, err)
			}
			known = collection
		}
		if _, ok := blocks.get(val); !ok {
			return corrupt("read tree: block %s of %s is missing", val, key)
		}
		return nil
	}
	return w.node(root, 0, unknown)
}

// checkKey asks atproto's syntax of a key. known is a collection that passed.
func checkKey(collection, rkey, known string) error {
	if collection != known || collection == "" {
		if _, err := syntax.ParseNSID(collection); err != nil {
			return err
		}
	}
	_, err := syntax.ParseRecordKey(rkey)
	return err
}

// printable says whether a key is visible ASCII, as NSIDs and record keys are.
func printable(key []byte) bool {
	for _, b := range key {
		if b <= ' ' || b >= 0x7f {
			return false
		}
	}
	return true
}

// Records calls yield for every record, in the order of the tree: keys
// (collection/rkey) ascend byte by byte. It stops at the first error, which it
// returns. The data of a record is lent as long as the repository lives.
func (r *Repository) Records(ctx context.Context, yield func(Record) error) error {
	w := walker{ctx: ctx, blocks: r.blocks}
	w.yield = func(key []byte, val cid.Cid) error {
		collection, rkey, _ := strings.Cut(string(key), "/")
		data, _ := r.blocks.get(val) // readTree has found it
		return yield(Record{Collection: collection, RKey: rkey, CID: val, Data: data})
	}
	return w.node(r.commit.Data, 0, unknown)
}
