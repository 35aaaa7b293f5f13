package atrepo

import (
	"bytes"
	"context"
	"errors"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"hayrick"
)

// maxHeight bounds the depth of a tree. Heights count leading zero pairs of bits
// of a SHA-256, so no honest tree comes near.
const maxHeight = 128

// readTree loads the whole tree below root.
func readTree(ctx context.Context, blocks blockMap, root cid.Cid) (*mst.Tree, error) {
	src := &nodeSource{blocks: blocks, depth: map[cid.Cid]int{root: 0}}
	t, err := mst.LoadTreeFromStore(ctx, src, root)
	if errors.Is(err, hayrick.ErrCorrupt) {
		return nil, err
	}
	if err != nil {
		return nil, corrupt("read tree: %v", err)
	}
	return t, nil
}

// nodeSource gives tree nodes to indigo's loader, which recurses wherever the
// bytes point and slices keys by lengths the bytes give. It therefore checks each
// node before it hands it over.
type nodeSource struct {
	blocks blockMap
	depth  map[cid.Cid]int // of every node that has been pointed to
}

// Get returns the block of a node whose children, depth and keys are sound.
func (s *nodeSource) Get(ctx context.Context, c cid.Cid) (blockformat.Block, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, ok := s.blocks[c]
	if !ok { // not ipld.ErrNotFound: the loader would go on with a partial tree
		return nil, corrupt("read tree: node %s is missing", c)
	}
	node, err := mst.NodeDataFromCBOR(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("read tree: node %s: %v", c, err)
	}
	if err := s.children(c, node); err != nil {
		return nil, err
	}
	keyLen := 0
	for _, e := range node.Entries {
		if e.PrefixLen < 0 || e.PrefixLen > int64(keyLen) {
			return nil, corrupt("read tree: node %s: a key shares %d bytes with one of %d", c, e.PrefixLen, keyLen)
		}
		if keyLen = int(e.PrefixLen) + len(e.KeySuffix); keyLen == 0 || keyLen > mst.MAX_KEY_BYTES {
			return nil, corrupt("read tree: node %s: a key of %d bytes", c, keyLen)
		}
	}
	return blockformat.NewBlockWithCid(data, c)
}

// children notes the nodes below c. One that is pointed to twice would make the
// walk exponential, and holds duplicate keys in any case.
func (s *nodeSource) children(c cid.Cid, node *mst.NodeData) error {
	depth := s.depth[c] + 1
	point := func(child *cid.Cid) error {
		if child == nil {
			return nil
		}
		if _, seen := s.depth[*child]; seen {
			return corrupt("read tree: node %s is pointed to twice", child)
		}
		if depth > maxHeight {
			return corrupt("read tree: deeper than %d", maxHeight)
		}
		s.depth[*child] = depth
		return nil
	}
	err := point(node.Left)
	for i := 0; err == nil && i < len(node.Entries); i++ {
		err = point(node.Entries[i].Right)
	}
	return err
}

// verifyTree checks that the tree is the one its keys dictate, and that its
// canonical encoding has the CID root.
func verifyTree(t *mst.Tree, root cid.Cid) error {
	if err := t.Verify(); err != nil {
		return corrupt("verify tree: %v", err)
	}
	forget(t.Root)
	got, err := t.RootCID()
	if err != nil {
		return corrupt("verify tree: %v", err)
	}
	if !got.Equals(root) {
		return corrupt("verify tree: it encodes as %s, the commit has %s", got, root)
	}
	return nil
}

// forget drops the CIDs a tree was loaded by, so that RootCID computes them anew.
func forget(n *mst.Node) {
	n.CID, n.Dirty = nil, true
	for i := range n.Entries {
		if e := &n.Entries[i]; e.Child != nil {
			e.Dirty = true
			forget(e.Child)
		}
	}
}

// Records calls yield for every record in key order: by collection, then by
// record key. It stops at the first error, which it returns.
func (r *Repository) Records(yield func(Record) error) error {
	return r.tree.Walk(func(key []byte, val cid.Cid) error {
		collection, rkey, ok := bytes.Cut(key, []byte("/"))
		if !ok || !printable(key) {
			return corrupt("read records: key %q is not collection/rkey", key)
		}
		data, ok := r.blocks[val]
		if !ok {
			return corrupt("read records: block %s of %s is missing", val, key)
		}
		return yield(Record{Collection: string(collection), RKey: string(rkey), CID: val, Data: data})
	})
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
