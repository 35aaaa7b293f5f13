package manifest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hayrick"
	. "hayrick/manifest"
)

// The tree of progress records: from every block the chain of marks reaches the
// root, members add up at every level, and no two records share a name.
func TestMembersTree(t *testing.T) {
	for _, tasks := range []int{1, 2, 255, 256, 257, 512, 65536, 65537} {
		t.Run(fmt.Sprint(tasks), func(t *testing.T) {
			s, _ := newStore()
			ctx := t.Context()
			w := NewGroupWriter(s, "j", "retry_batch_1", hayrick.RoleWorker, 40)
			for i := range tasks {
				if err := w.Add(ctx, Batch{Object: "in", FirstOrdinal: int64(i), Items: 3}); err != nil {
					t.Fatal(err)
				}
			}
			g, err := w.Close(ctx)
			if err != nil || g.Tasks != int64(tasks) || g.Items != 3*int64(tasks) || g.FirstTask != 40 || g.Phase != "retry" {
				t.Fatalf("%d tasks, %d items, %v", g.Tasks, g.Items, err)
			}
			m, err := s.Members(ctx, "j", 5, g)
			if err != nil {
				t.Fatal(err)
			}
			blocks := (tasks + 255) / 256
			if m.Blocks() != blocks || m.Width(0) != blocks {
				t.Fatalf("%d blocks, want %d", m.Blocks(), blocks)
			}
			root, _ := m.At(m.Levels()-1, 0)
			if m.Width(m.Levels()-1) != 1 || root.Level != m.Levels()-1 {
				t.Fatalf("root %+v of %d levels", root, m.Levels())
			}
			names := map[hayrick.BlockID]bool{}
			for level := range m.Levels() {
				sum := 0
				below := tasks
				if level > 0 {
					below = m.Width(level - 1)
				}
				for n := range m.Width(level) {
					id, total := m.At(level, n)
					if total < 1 || total > hayrick.BlockSize || id.Generation != 5 || id.JobID != "j" || names[id] {
						t.Fatalf("record %+v of %d members", id, total)
					}
					names[id] = true
					sum += total
				}
				if sum != below {
					t.Errorf("level %d has %d members, the level below %d", level, sum, below)
				}
			}
			// Marking every block upwards fills exactly the records above it.
			full := map[hayrick.BlockID]hayrick.BlockState{}
			for n := range blocks {
				id, _ := m.At(0, n)
				for {
					mark, ok := m.Up(id)
					if !ok {
						if id != root {
							t.Fatalf("the chain of block %d ends at %+v", n, id)
						}
						break
					}
					st := full[mark.Block]
					st.Total = mark.Total
					if st.Done.Has(mark.Position) && mark.Block.Level == 1 {
						t.Fatalf("blocks share position %d of %+v", mark.Position, mark.Block)
					}
					st.Done.Add(mark.Position)
					full[mark.Block] = st
					id = mark.Block
				}
			}
			for id, st := range full {
				if !st.Full() {
					t.Errorf("%+v has %d of %d", id, st.Done.Count(), st.Total)
				}
			}
			if want := len(names) - blocks; len(full) != want {
				t.Errorf("%d records above the blocks were marked, %d exist", len(full), want)
			}
			// The last task is where its number says.
			last, err := m.Block(ctx, s, blocks-1)
			if err != nil {
				t.Fatal(err)
			}
			index, err := m.Index(ctx, s, blocks-1)
			if err != nil {
				t.Fatal(err)
			}
			n := len(last.Tasks) - 1
			if id := TaskID(40 + int64(tasks) - 1); last.Tasks[n].TaskID != id || *last.Tasks[n].BatchID != index.Batches[n].BatchID || index.Batches[n].FirstOrdinal != int64(tasks)-1 {
				t.Errorf("the last task is %+v of %+v", last.Tasks[n], index.Batches[n])
			}
			for _, n := range []int{-1, blocks} {
				if _, err := m.Block(ctx, s, n); !errors.Is(err, hayrick.ErrNotFound) {
					t.Errorf("block %d: %v", n, err)
				}
			}
		})
	}
}

// A list of blocks that does not add up is refused.
func TestMembersRefuses(t *testing.T) {
	s, _ := newStore()
	for what, g := range map[string]Group{
		"a task too few":          {Tasks: 3, Blocks: []BlockRef{{Tasks: 2}}},
		"a half block in between": {Tasks: 3, Blocks: []BlockRef{{Tasks: 1}, {Tasks: 2}}},
		"an empty block":          {Tasks: 256, Blocks: []BlockRef{{Tasks: 256}, {Tasks: 0}}},
		"a block too large":       {Tasks: 257, Blocks: []BlockRef{{Tasks: 257}}},
		"an index too many":       {Tasks: 1, Blocks: []BlockRef{{Tasks: 1}}, Index: []IndexRef{{}, {}}},
	} {
		if _, err := s.Members(t.Context(), "j", 0, g); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if m, err := s.Members(t.Context(), "j", 0, Group{}); err != nil || m.Blocks() != 0 {
		t.Errorf("a group without tasks: %v", err)
	}
}

// A record reads the same in a retry as in the input, byte by byte, be it JSON or
// not.
func TestRetryItemKeepsTheRecord(t *testing.T) {
	record := rapid.OneOf(
		rapid.SampledFrom([]string{`{"did": "x",  "n": 1.0}`, `null`, `"a"`, `{"a":"<&>\u2028"}`, "{\"a\":\"\xff\"}", `{"did": "cut`, "\xef\xbb\xbf{}", "{\r\t}", `{"a":1,"a":2}`}),
		rapid.StringMatching(`[^\n]*[^\s]`),
	).Filter(func(s string) bool {
		return !strings.Contains(s, "\n") && len(TrimRecord([]byte(s))) == len(s) && s != ""
	})
	rapid.Check(t, func(t *rapid.T) {
		var body []byte
		var want []RetryItem
		for i := range rapid.IntRange(1, 4).Draw(t, "items") {
			it := RetryItem{Ordinal: int64(i) * 3, Item: []byte(record.Draw(t, "record")), Tries: i, Losses: 2 * i, Classes: []string{"rate_limit", "timeout"}, Infra: i % 2}
			line, err := EncodeLine(it)
			if err != nil {
				t.Fatal(err)
			}
			body = append(body, line...)
			want = append(want, it)
		}
		b := Batch{Object: "store:x", FirstLine: 5, Items: len(want), Length: int64(len(body)), SHA256: SHA256(body), Retry: true}
		got, err := OpenBatch(b, strings.NewReader(string(body)+"what follows in the object"))
		if err != nil {
			t.Fatalf("%v of %q", err, body)
		}
		for i, g := range got {
			w := want[i]
			if g.Ordinal != w.Ordinal || string(g.Data) != string(w.Item) || g.Tries != w.Tries || g.Losses != w.Losses || g.Infra != w.Infra || len(g.Classes) != 2 || g.Line != 5+int64(i) {
				t.Fatalf("%q came back as %+v (%q)", body, g, g.Data)
			}
		}
		// One bit flipped, or the end missing: damage of the store's own bytes.
		at := rapid.IntRange(0, len(body)-1).Draw(t, "flip")
		bad := append([]byte(nil), body...)
		bad[at] ^= 1
		for _, b2 := range [][]byte{bad, body[:at]} {
			if _, err := OpenBatch(b, strings.NewReader(string(b2))); !errors.Is(err, hayrick.ErrCorrupt) {
				t.Fatalf("%q: %v", b2, err)
			}
		}
	})
}

// An input batch has its items by line; other bytes than the planned ones are a
// changed input, whatever they hold.
func TestOpenBatch(t *testing.T) {
	body := "{\"a\":1}\r\n\n  \n {\"a\":2} \nnot json"
	b := Batch{BatchID: "batch-0001", Object: "in.jsonl", FirstLine: 10, FirstOrdinal: 100, Items: 3, Length: int64(len(body)), SHA256: SHA256([]byte(body))}
	got, err := OpenBatch(b, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []BatchItem{{Ordinal: 100, Line: 10, Data: []byte(`{"a":1}`)}, {Ordinal: 101, Line: 13, Data: []byte(`{"a":2}`)}, {Ordinal: 102, Line: 14, Data: []byte("not json")}} {
		if got[i].Ordinal != want.Ordinal || got[i].Line != want.Line || string(got[i].Data) != string(want.Data) {
			t.Errorf("item %d is %+v (%s)", i, got[i], got[i].Data)
		}
	}
	for _, other := range []string{"", body[:5], strings.Replace(body, "1", "2", 1)} {
		_, err := OpenBatch(b, strings.NewReader(other))
		if !errors.Is(err, hayrick.ErrInputChanged) || !strings.Contains(err.Error(), "in.jsonl (lines from 10)") {
			t.Errorf("%q: %v", other, err)
		}
	}
	b.Items = 4
	if _, err := OpenBatch(b, strings.NewReader(body)); !errors.Is(err, hayrick.ErrCorrupt) {
		t.Errorf("an item too few: %v", err)
	}
}
