package atrepo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"hayrick"
)

// tree puts a canonical tree of keys that all point to val.
func (b *builder) tree(val cid.Cid, keys ...string) cid.Cid {
	b.t.Helper()
	tree := mst.NewEmptyTree()
	for _, k := range keys {
		if _, err := tree.Insert([]byte(k), val); err != nil {
			b.t.Fatal(err)
		}
	}
	root, err := tree.WriteDiffBlocks(b.t.Context(), sink{b: b})
	if err != nil {
		b.t.Fatal(err)
	}
	return *root
}

// numbered are n keys; those of one collection share all but seven bytes.
func numbered(n int, collection, rkey string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s/%s%07d", collection, rkey, i)
	}
	return out
}

// live is the heap that is in use after a collection.
func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a repository holds in memory, while its tree is walked too, is at most
// three times the bytes that came, whatever they say. Honest ones stay far below.
func TestMemoryIsBounded(t *testing.T) {
	const fixed = 256 << 10 // of the runtime, and of the smallest repository
	for name, c := range map[string]struct {
		build     func(b *builder) cid.Cid
		canonical bool
		times     float64
	}{
		"an honest one": {func(b *builder) cid.Cid {
			for i := range 10_000 {
				b.put(append(fmt.Appendf([]byte{0xa1, 0x61, 'x', 0x79, 0, 206}, "%06d", i), strings.Repeat("x", 200)...))
			}
			return b.tree(b.blocks[0].c, numbered(10_000, "app.bsky.feed.post", "3k")...)
		}, true, 1.5},
		"keys of 520 bytes that take 60": {func(b *builder) cid.Cid {
			return b.tree(b.record(1), numbered(40_000, "app.bsky.feed.post", strings.Repeat("k", 500))...)
		}, true, 3},
		"the smallest blocks": {func(b *builder) cid.Cid {
			for i := range 150_000 {
				b.put(binary.BigEndian.AppendUint32([]byte{0x1a}, uint32(i)))
			}
			return b.tree(b.record(1), keyAt(0, 0))
		}, true, 3},
		"blocks that just do not fit a chunk": {func(b *builder) cid.Cid {
			for i := range 40 {
				b.put(binary.BigEndian.AppendUint32(make([]byte, 128<<10), uint32(i)))
			}
			return b.tree(b.record(1), keyAt(0, 0))
		}, true, 3},
		"full nodes of long keys": {func(b *builder) cid.Cid {
			v := b.record(1)
			var root mst.NodeData
			for i := range 20 {
				var n mst.NodeData
				base := fmt.Sprintf("app.bsky.feed.post/%02d%s", i, strings.Repeat("k", 500))
				for j := range 8000 {
					if j == 0 {
						n.Entries = append(n.Entries, entry(0, base+"0000", v, nil))
					} else {
						n.Entries = append(n.Entries, entry(int64(len(base)), fmt.Sprintf("%04d", j), v, nil))
					}
				}
				below := b.node(n)
				root.Entries = append(root.Entries, entry(0, fmt.Sprintf("app.bsky.feed.post/%02d", i), v, &below))
			}
			return b.node(root)
		}, false, 3},
	} {
		b := &builder{t: t}
		car := b.car(c.build(b))
		b.blocks = nil
		before := live()
		r, err := Read(t.Context(), bytes.NewReader(car), testDID, c.canonical)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		records, most := 0, live()
		err = r.Records(t.Context(), func(Record) error {
			if records++; records%10_000 == 0 {
				most = max(most, live())
			}
			return nil
		})
		if err != nil || records == 0 {
			t.Errorf("%s: %d records, %v", name, records, err)
		}
		if got, bound := most-before, int64(c.times*float64(len(car)))+fixed; got > bound {
			t.Errorf("%s: %d bytes are held for a body of %d, %.1f times as many; at most %.1f times are allowed", name, got, len(car), float64(got)/float64(len(car)), c.times)
		}
		runtime.KeepAlive(car)
	}
}

// Only the end between two sections is one.
func TestReadsTheCARToItsEnd(t *testing.T) {
	b := &builder{t: t}
	good := b.car(b.tree(b.record(1), keyAt(0, 0)))
	if _, err := read(t.Context(), good, testDID, true); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]string{
		"a section of no bytes":              "\x00",
		"sections of no bytes":               "\x00\x00\x00\x00",
		"a length and nothing":               "\x28",
		"half a length":                      "\x80",
		"a section that is a CID only":       "\x24" + cidPrefix + strings.Repeat("x", 32),
		"a section that is half a CID":       "\x02" + cidPrefix[:2],
		"an endless length":                  strings.Repeat("\xff", 100),
		"a section larger than any block is": string(binary.AppendUvarint(nil, maxSection+1)),
	} {
		if _, err := read(t.Context(), []byte(string(good)+more), testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	for name, file := range map[string][]byte{
		"no bytes":      {},
		"a length only": good[:1],
		"no header":     append([]byte{0}, good...),
		"a huge header": append(binary.AppendUvarint(nil, maxHeader+1), bytes.Repeat([]byte{0x81}, maxHeader+1)...),
	} {
		if _, err := read(t.Context(), file, testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	// A stream that does not end is not read for ever, nor left unread and called ok.
	endless := io.MultiReader(bytes.NewReader(good), zeros{})
	if _, err := Read(t.Context(), endless, testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("zeros without end: %v, want ErrCorrupt", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Blocks that come twice are held once.
func TestRepeatedBlocks(t *testing.T) {
	b := &builder{t: t}
	root := b.tree(b.record(1), numbered(100, "app.bsky.feed.post", "3k")...)
	b.put(make([]byte, 100_000)) // a chunk of its own
	b.blocks = append(b.blocks, b.blocks...)
	car := b.car(root)
	lines, err := read(t.Context(), car, testDID, true)
	if err != nil || len(lines) != 100 {
		t.Fatalf("%d records, %v", len(lines), err)
	}
	r, err := Read(t.Context(), bytes.NewReader(car), testDID, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(r.blocks.index), (len(b.blocks)-1)/2+1; got != want || r.blocks.size > len(car)*6/10 {
		t.Errorf("%d blocks in %d bytes are held, want %d and half of %d", got, r.blocks.size, want, len(car))
	}
}

// Two digests may start alike: whoever wants that needs some 2^32 hashes.
func TestDigestsThatStartAlike(t *testing.T) {
	all := &blocks{index: map[uint64]uint64{}}
	cids := make([]cid.Cid, 5)
	for i := range cids {
		raw := append([]byte(cidPrefix), bytes.Repeat([]byte{7}, 32)...)
		raw[cidLen-1] = byte(i)
		cids[i] = cid.MustParse(raw)
		if _, ok := all.get(cids[i]); ok {
			t.Fatalf("block %d is there before it came", i)
		}
		chunk, entry := all.room(cidLen + 1)
		binary.LittleEndian.PutUint32(entry, 1)
		copy(entry[len(cidPrefix):], raw[len(cidPrefix):])
		entry[cidLen] = byte(i)
		slot, _, _ := all.find(raw[len(cidPrefix):])
		all.index[slot] = all.keep(chunk, entry)
	}
	for i, c := range cids {
		if data, ok := all.get(c); !ok || len(data) != 1 || data[0] != byte(i) {
			t.Errorf("block %d is %v, %v", i, data, ok)
		}
		if before, ok := all.mark(c); before || !ok {
			t.Errorf("block %d: marked %v, there %v", i, before, ok)
		}
		if before, _ := all.mark(c); !before {
			t.Errorf("block %d is not marked", i)
		}
		if data, ok := all.get(c); !ok || len(data) != 1 || data[0] != byte(i) {
			t.Errorf("marked, block %d is %v, %v", i, data, ok)
		}
	}
}

// A key that atproto forbids is damage where the tree is checked. Without, it is
// taken as it comes.
func TestForbiddenKeys(t *testing.T) {
	long := strings.Repeat("k", 513)
	for key, anyCheck := range map[string]bool{
		"app.bsky.feed.post":                      true,
		"app.bsky.feed.post/a b":                  true,
		"app.bsky.feed.post/\xff":                 true,
		"app.bsky.feed.post/" + long + long[:300]: true,
		"app.bsky.feed.post/":                     false,
		"/a":                                      false,
		"/":                                       false,
		"x/a":                                     false,
		"app.bsky/a":                              false,
		"app.bsky.feed.post/a/b":                  false,
		"app.bsky.feed.post/.":                    false,
		"app.bsky.feed.post/..":                   false,
		"app.bsky.feed.post/<script>\"'|;":        false,
		"app.bsky.feed.post/" + long:              false,
		"app." + strings.Repeat("b.", 160) + "/":  false,
	} {
		b := &builder{t: t}
		// Beside a good one of the same collection, which is remembered.
		car := b.car(b.tree(b.record(1), "app.bsky.feed.like/self", "app.bsky.feed.post/-", key))
		if _, err := read(t.Context(), car, testDID, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%.40q: %v, want ErrCorrupt", key, err)
		}
		if lines, err := read(t.Context(), car, testDID, false); errors.Is(err, hayrick.ErrCorrupt) != anyCheck {
			t.Errorf("%.40q without checkTree: %d records, %v; refused: want %v", key, len(lines), err, anyCheck)
		}
	}
	good := []string{ // in the order of their bytes
		"app.bsky.feed-x.a/3k67up3j7hf2x", "app.bsky.feed.post/-", "app.bsky.feed.post/A:b~c_d.e-f", "app.bsky.feed.post/" + long[1:], "app.bsky.feed/self",
	}
	b := &builder{t: t}
	lines, err := read(t.Context(), b.car(b.tree(b.record(1), good...)), testDID, true)
	if err != nil || len(lines) != len(good) {
		t.Fatalf("%d records, %v", len(lines), err)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, good[i]+" ") {
			t.Errorf("record %d is %s, want %s", i, line, good[i])
		}
	}
}

// patience is a context that is done when it has been asked often enough.
type patience struct {
	context.Context
	asked, most int
}

func (p *patience) Err() error {
	if p.asked++; p.asked > p.most {
		return context.Canceled
	}
	return nil
}

// Whenever the caller gives up, Read stops: between two blocks or two nodes.
func TestReadStops(t *testing.T) {
	b := &builder{t: t}
	car := b.car(b.tree(b.record(1), numbered(300, "app.bsky.feed.post", "3k")...))
	nodes := len(b.blocks) - 2 // one record, one commit
	whole := &patience{t.Context(), 0, 1 << 30}
	if _, err := read(whole, car, testDID, true); err != nil {
		t.Fatal(err)
	}
	if want := len(b.blocks) + 2*nodes; whole.asked < want {
		t.Errorf("asked %d times, want once for each of %d blocks and %d nodes, walked twice", whole.asked, len(b.blocks), nodes)
	}
	for most := range whole.asked {
		if lines, err := read(&patience{t.Context(), 0, most}, car, testDID, true); !errors.Is(err, context.Canceled) {
			t.Fatalf("given up after %d checks: %d records, %v", most, len(lines), err)
		}
	}
}
