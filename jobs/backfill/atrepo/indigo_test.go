package atrepo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// fullEntry is an entry of a node with its key written out.
type fullEntry struct {
	key   string
	value cid.Cid
	right *cid.Cid
}

// fullNode is a node with its keys written out.
type fullNode struct {
	left    *cid.Cid
	entries []fullEntry
}

func (b *builder) full(c cid.Cid) fullNode {
	for _, blk := range b.blocks {
		if blk.c != c {
			continue
		}
		n, err := mst.NodeDataFromCBOR(bytes.NewReader(blk.data))
		if err != nil {
			b.t.Fatal(err)
		}
		out, key := fullNode{left: n.Left}, ""
		for _, e := range n.Entries {
			key = key[:e.PrefixLen] + string(e.KeySuffix)
			out.entries = append(out.entries, fullEntry{key, e.Value, e.Right})
		}
		return out
	}
	b.t.Fatalf("no block %s", c)
	return fullNode{}
}

func (b *builder) putFull(n fullNode, less int) cid.Cid {
	data, before := mst.NodeData{Left: n.left, Entries: []mst.EntryData{}}, ""
	for _, e := range n.entries {
		p := max(mst.CountPrefixLen([]byte(before), []byte(e.key))-less, 0)
		data.Entries = append(data.Entries, entry(int64(p), e.key[p:], e.value, e.right))
		before = e.key
	}
	return b.node(data)
}

// rebuild puts the tree below c again, with change made to every node: most leave
// it as it is.
func (b *builder) rebuild(c cid.Cid, change func(n *fullNode) (less int)) cid.Cid {
	n := b.full(c)
	less := change(&n)
	again := func(c *cid.Cid) *cid.Cid {
		if c == nil {
			return nil
		}
		put := b.rebuild(*c, change)
		return &put
	}
	n.left = again(n.left)
	for i := range n.entries {
		n.entries[i].right = again(n.entries[i].right)
	}
	return b.putFull(n, less)
}

// spoil makes one random change to a node, some of which do no harm. less is by how
// many bytes its keys share less than they could.
func spoil(rng *rand.Rand, n *fullNode) (less int) {
	i := 0
	if len(n.entries) > 0 {
		i = rng.IntN(len(n.entries))
	}
	switch kind := rng.IntN(8); {
	case len(n.entries) == 0 || kind == 0:
		n.left = nil
	case kind == 1:
		n.entries[i].right = nil
	case kind == 2:
		n.entries = append(n.entries[:i:i], n.entries[i+1:]...)
	case kind == 3:
		j := rng.IntN(len(n.entries))
		n.entries[i].key, n.entries[j].key = n.entries[j].key, n.entries[i].key
	case kind == 4:
		n.entries[i].key = n.entries[i].key[:len(n.entries[i].key)-1] + string(rune('0'+rng.IntN(10)))
	case kind == 5:
		n.entries = append(n.entries[:i:i], append([]fullEntry{{n.entries[i].key, n.entries[i].value, nil}}, n.entries[i:]...)...)
	case kind == 6:
		less = 1
	case kind == 7:
		j := rng.IntN(len(n.entries))
		n.entries[i].value, n.entries[j].value = n.entries[j].value, n.entries[i].value
	}
	return less
}

// Get is mst.MSTBlockSource.
func (b *builder) Get(_ context.Context, c cid.Cid) (blockformat.Block, error) {
	for _, blk := range b.blocks {
		if blk.c == c {
			return blockformat.NewBlockWithCid(blk.data, c)
		}
	}
	return nil, fmt.Errorf("no block %s", c)
}

// accepts says whether indigo loads the tree, finds it sound, and encodes it with
// the same root again.
func (b *builder) accepts(root cid.Cid) bool {
	tree, err := mst.LoadTreeFromStore(b.t.Context(), b, root)
	if err != nil || tree.Verify() != nil {
		return false
	}
	forget(tree.Root)
	got, err := tree.RootCID()
	return err == nil && got.Equals(root)
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

// The walk accepts the trees that indigo, which loads them, accepts, and no other.
func TestWalkAgreesWithIndigo(t *testing.T) {
	accepted, refused := 0, 0
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 0))
		b := &builder{t: t}
		b.record(1)
		b.record(2)
		keys := map[string]cid.Cid{}
		for range rng.IntN(60) {
			keys[fmt.Sprintf("app.bsky.feed.post/%03d", rng.IntN(1000))] = b.blocks[rng.IntN(2)].c
		}
		tree, err := mst.LoadTreeFromMap(keys)
		if err != nil {
			t.Fatal(err)
		}
		sound, err := tree.WriteDiffBlocks(t.Context(), sink{b: b})
		if err != nil {
			t.Fatal(err)
		}
		at := rng.IntN(len(b.blocks) - 2) // the node, counted as they are visited
		root := b.rebuild(*sound, func(n *fullNode) (less int) {
			if at--; at == -1 {
				return spoil(rng, n)
			}
			return 0
		})
		want := b.accepts(root)
		_, err = read(t.Context(), b.car(root), testDID, true)
		if (err == nil) != want {
			t.Errorf("seed %d: %v; indigo accepts: %v", seed, err, want)
		}
		if lines, err := read(t.Context(), b.car(*sound), testDID, true); err != nil || len(lines) != len(keys) {
			t.Errorf("seed %d, unspoilt: %d records of %d, %v", seed, len(lines), len(keys), err)
		}
		if want {
			accepted++
		} else {
			refused++
		}
	}
	if accepted < 100 || refused < 100 {
		t.Errorf("%d trees were accepted and %d refused: the test shows little", accepted, refused)
	}
}
