package atrepo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	blockstore "github.com/ipfs/go-ipfs-blockstore"
	"github.com/ipld/go-car"
	"github.com/ipld/go-car/util"
	"github.com/multiformats/go-multihash"

	"hayrick"
)

const testDID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"

// builder writes CARs that no honest host would.
type builder struct {
	t      testing.TB
	blocks []block
}

type block struct {
	c    cid.Cid
	data []byte
}

func (b *builder) put(data []byte) cid.Cid {
	b.t.Helper()
	c, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(data)
	if err != nil {
		b.t.Fatal(err)
	}
	b.blocks = append(b.blocks, block{c, data})
	return c
}

func (b *builder) node(n mst.NodeData) cid.Cid {
	b.t.Helper()
	data, _, err := n.Bytes()
	if err != nil {
		b.t.Fatal(err)
	}
	return b.put(data)
}

// car ends the file with a signed commit over root.
func (b *builder) car(root cid.Cid) []byte {
	b.t.Helper()
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		b.t.Fatal(err)
	}
	commit := repo.Commit{DID: testDID, Version: 3, Data: root, Rev: "3k67up3j7hf2x"}
	if err := commit.Sign(key); err != nil {
		b.t.Fatal(err)
	}
	var head bytes.Buffer
	if err := commit.MarshalCBOR(&head); err != nil {
		b.t.Fatal(err)
	}
	return b.file(b.put(head.Bytes()))
}

func (b *builder) file(commit cid.Cid) []byte {
	b.t.Helper()
	var out bytes.Buffer
	if err := car.WriteHeader(&car.CarHeader{Roots: []cid.Cid{commit}, Version: 1}, &out); err != nil {
		b.t.Fatal(err)
	}
	for _, blk := range b.blocks {
		if err := util.LdWrite(&out, blk.c.Bytes(), blk.data); err != nil {
			b.t.Fatal(err)
		}
	}
	return out.Bytes()
}

// record is {"x": n}.
func (b *builder) record(n byte) cid.Cid { return b.put([]byte{0xa1, 0x61, 'x', n}) }

func entry(prefix int64, suffix string, value cid.Cid, right *cid.Cid) mst.EntryData {
	return mst.EntryData{PrefixLen: prefix, KeySuffix: []byte(suffix), Value: value, Right: right}
}

// keyAt finds a key of the given height.
func keyAt(height, skip int) string {
	for i := 0; ; i++ {
		k := fmt.Sprintf("app.bsky.feed.post/%06d", i)
		if mst.HeightForKey([]byte(k)) == height {
			if skip--; skip < 0 {
				return k
			}
		}
	}
}

func TestReadRefusesHostileTrees(t *testing.T) {
	low0, low1, high := keyAt(0, 0), keyAt(0, 1), keyAt(1, 0)
	for name, c := range map[string]struct {
		build     func(b *builder) cid.Cid
		anyCheck  bool // refused without checkTree too
		because   string
		unchecked string // without checkTree, when that differs
	}{
		"prefix longer than the key before it": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(7, low0, b.record(1), nil)}})
		}, true, "shares 7 bytes", ""},
		"negative prefix": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(-1, low0, b.record(1), nil)}})
		}, true, "shares -1 bytes", ""},
		"empty key": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, "", b.record(1), nil)}})
		}, true, "a key of 0 bytes", ""},
		"endless key": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, strings.Repeat("k", 1025), b.record(1), nil)}})
		}, true, "a key of 1025 bytes", ""},
		"doubling at each level": {func(b *builder) cid.Cid { // 2^200 paths through 200 nodes
			v := b.record(1)
			c := b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, v, nil)}})
			for range 200 {
				below := c
				c = b.node(mst.NodeData{Left: &below, Entries: []mst.EntryData{entry(0, high, v, &below)}})
			}
			return c
		}, true, "pointed to twice", ""},
		"deeper than any hash": {func(b *builder) cid.Cid {
			c := b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, b.record(1), nil)}})
			for range 100_000 {
				below := c
				c = b.node(mst.NodeData{Left: &below, Entries: []mst.EntryData{}})
			}
			return c
		}, true, "its top has no key", "deeper than"},
		"missing node": {func(b *builder) cid.Cid {
			gone := b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, b.record(1), nil)}})
			b.blocks = b.blocks[:len(b.blocks)-1]
			return b.node(mst.NodeData{Left: &gone, Entries: []mst.EntryData{entry(0, high, b.record(2), nil)}})
		}, true, "is missing", ""},
		"missing record": {func(b *builder) cid.Cid {
			gone := b.record(1)
			b.blocks = nil
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, gone, nil)}})
		}, true, "is missing", ""},
		"key without a collection": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, "3k67up3j7hf2x", b.record(1), nil)}})
		}, true, "is not collection/rkey", ""},
		"keys out of order": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low1, b.record(1), nil), entry(0, low0, b.record(2), nil)}})
		}, false, "out of order", ""},
		"the same key twice": {func(b *builder) cid.Cid {
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, b.record(1), nil), entry(int64(len(low0)), "", b.record(2), nil)}})
		}, false, "duplicate key", ""},
		"a key at the wrong height": {func(b *builder) cid.Cid {
			keys := []string{low0, high}
			slices.Sort(keys)
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, keys[0], b.record(1), nil), entry(0, keys[1], b.record(2), nil)}})
		}, false, "wrong height", ""},
		"prefixes not used": {func(b *builder) cid.Cid { // the same set of keys, another root
			return b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, b.record(1), nil), entry(0, low1, b.record(2), nil)}})
		}, false, "shares more with the one before it", ""},
		"a field nobody knows": {func(b *builder) cid.Cid { // the same set of keys, another root
			b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, b.record(1), nil)}})
			data := slices.Concat([]byte{0xa3}, b.blocks[len(b.blocks)-1].data[1:], []byte{0x61, 'z', 0xf6})
			b.blocks = b.blocks[:len(b.blocks)-1]
			return b.put(data)
		}, false, "not encoded as it has to be", ""},
		"an empty node below": {func(b *builder) cid.Cid {
			below := b.node(mst.NodeData{Entries: []mst.EntryData{}})
			return b.node(mst.NodeData{Left: &below, Entries: []mst.EntryData{entry(0, high, b.record(1), nil)}})
		}, false, "is empty", ""},
		"nodes below height 0": {func(b *builder) cid.Cid {
			below := b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, b.record(1), nil)}})
			return b.node(mst.NodeData{Left: &below, Entries: []mst.EntryData{entry(0, low1, b.record(2), nil)}})
		}, false, "at height 0", ""},
		"a path of huge nodes": {func(b *builder) cid.Cid {
			v := b.record(1)
			c := b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, low0, v, nil)}})
			for level := range 12 {
				below, n := c, mst.NodeData{}
				for i := range 8192 {
					n.Entries = append(n.Entries, entry(0, fmt.Sprintf("app.bsky.feed.post/%02d%06d", level, i), v, nil))
				}
				n.Entries[8191].Right = &below
				c = b.node(n)
			}
			return c
		}, true, "at height 0", "have more than 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &builder{t: t}
			file := b.car(c.build(b))
			_, err := read(t.Context(), file, testDID, true)
			if !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), c.because) {
				t.Errorf("checkTree: %v; want ErrCorrupt because %q", err, c.because)
			}
			because := cmp.Or(c.unchecked, c.because)
			_, err = read(t.Context(), file, testDID, false)
			if errors.Is(err, hayrick.ErrCorrupt) != c.anyCheck || (err != nil && !strings.Contains(err.Error(), because)) {
				t.Errorf("no checkTree: %v; refused because %q: want %v", err, because, c.anyCheck)
			}
		})
	}
}

// A block whose CID proves nothing is refused, or a signed root would vouch for
// bytes that anyone may choose.
func TestReadRefusesWeakHashes(t *testing.T) {
	data := []byte{0xa1, 0x61, 'x', 1}
	for name, prefix := range map[string]cid.Prefix{
		"identity":            {Version: 1, Codec: cid.DagCBOR, MhType: multihash.IDENTITY, MhLength: -1},
		"SHA-1":               {Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA1, MhLength: -1},
		"one byte of SHA-256": {Version: 1, Codec: cid.DagCBOR, MhType: multihash.SHA2_256, MhLength: 1},
		"raw":                 {Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: -1},
	} {
		c, err := prefix.Sum(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := &builder{t: t, blocks: []block{{c, data}}}
		root := b.node(mst.NodeData{Entries: []mst.EntryData{entry(0, keyAt(0, 0), c, nil)}})
		if _, err := read(t.Context(), b.car(root), testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func TestReadRefusesBadCommits(t *testing.T) {
	for name, change := range map[string]func(*repo.Commit){
		"version 1":       func(c *repo.Commit) { c.Version = 1 },
		"version 4":       func(c *repo.Commit) { c.Version = 4 },
		"no rev":          func(c *repo.Commit) { c.Rev = "" },
		"another account": func(c *repo.Commit) { c.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb" },
	} {
		b := &builder{t: t}
		commit := repo.Commit{DID: testDID, Version: 3, Rev: "3k67up3j7hf2x", Sig: []byte{1}, Data: b.node(mst.NodeData{Entries: []mst.EntryData{}})}
		change(&commit)
		var head bytes.Buffer
		if err := commit.MarshalCBOR(&head); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t.Context(), b.file(b.put(head.Bytes())), testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	for name, head := range map[string][]byte{
		"not a map":                {0x01},
		"cut":                      {0xa1, 0x63},
		"arrays in an extra field": append([]byte{0xa1, 0x65, 'e', 'x', 't', 'r', 'a'}, bytes.Repeat([]byte{0x81}, 1<<20)...),
	} {
		b := &builder{t: t}
		if _, err := read(t.Context(), b.file(b.put(head)), testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// An unsigned commit never passes for a signed one.
func TestVerifySignatureNeedsASignature(t *testing.T) {
	b := &builder{t: t}
	commit := repo.Commit{DID: testDID, Version: 3, Rev: "3k67up3j7hf2x", Data: b.node(mst.NodeData{Entries: []mst.EntryData{}})}
	var head bytes.Buffer
	if err := commit.MarshalCBOR(&head); err != nil {
		t.Fatal(err)
	}
	r, err := Read(t.Context(), bytes.NewReader(b.file(b.put(head.Bytes()))), testDID, true)
	if err != nil {
		t.Fatal(err)
	}
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.VerifySignature(pub); !errors.Is(err, ErrSignature) {
		t.Errorf("VerifySignature = %v, want ErrSignature", err)
	}
}

// sink keeps the nodes of a tree.
type sink struct {
	blockstore.Blockstore
	b *builder
}

func (s sink) Put(_ context.Context, blk blockformat.Block) error {
	s.b.blocks = append(s.b.blocks, block{blk.Cid(), blk.RawData()})
	return nil
}

// A large honest repository passes every check that the hostile ones fail.
func TestReadLargeRepository(t *testing.T) {
	const n = 20_000
	b := &builder{t: t}
	tree := mst.NewEmptyTree()
	for i := range n {
		rec := b.put(fmt.Appendf([]byte{0xa1, 0x61, 'x', 0x66}, "%06d", i))
		if _, err := tree.Insert(fmt.Appendf(nil, "app.bsky.feed.post/%06d", i), rec); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.WriteDiffBlocks(t.Context(), sink{b: b})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := read(t.Context(), b.car(*root), testDID, true)
	if err != nil || len(lines) != n || !slices.IsSorted(lines) {
		t.Errorf("%d records, %v; want %d in order", len(lines), err, n)
	}
}
