package coordinator

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

// unshuffled puts the items of a shuffled plan back into the order of the input.
func unshuffled(p manifest.Plan, items []string) []string {
	out := make([]string, len(items))
	for ordinal, it := range items {
		out[p.InputOrdinal(int64(ordinal))] = it
	}
	return out
}

// Any input can be shuffled: the items are those of the input, the order is the one that
// the plan says, batches are full whatever objects items come from, and whoever submits
// again after a crash makes the same objects.
func TestShuffledInputs(t *testing.T) {
	const n = 50
	var lines strings.Builder
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf(`{"did":"%02d"}`, i))
		fmt.Fprintf(&lines, " \t%s\r\n\n", want[i])
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, lines.String())
	z.Close()
	folder := func(r *rig, s *Submission) {
		for i := range n {
			r.mem.SetInput(fmt.Sprintf("%s%03d.jsonl", folderURI, i), []byte(want[i])) // no newline at its end
		}
		s.Definition.Input.URI = folderURI
	}
	for name, set := range map[string]func(r *rig, s *Submission){
		"jsonl": func(r *rig, s *Submission) { r.mem.SetInput(inputURI, []byte("\xef\xbb\xbf"+lines.String())) },
		"copied": func(r *rig, s *Submission) {
			r.mem.SetInput(inputURI, []byte(lines.String()))
			s.Definition.Input.Snapshot = "copy"
		},
		"cloned":  func(r *rig, s *Submission) { r.mem.SetInput(inputURI, []byte(lines.String())); r.mem.CanClone = true },
		"folder":  folder,
		"pattern": func(r *rig, s *Submission) { folder(r, s); s.Definition.Input.URI = folderURI + "*.jsonl" },
		"standard": func(r *rig, s *Submission) {
			s.Definition.Input.URI, s.Stdin = StdinURI, strings.NewReader(lines.String())
		},
		"gzip": func(r *rig, s *Submission) {
			r.mem.SetInput("./a.jsonl.gz", packed.Bytes())
			s.Definition.Input.URI = "./a.jsonl.gz"
		},
		"csv": func(r *rig, s *Submission) {
			r.mem.SetInput("./a.csv", []byte("did\n"+strings.ReplaceAll(strings.ReplaceAll(strings.Join(want, "\n"), `{"did":"`, ""), `"}`, "")))
			s.Definition.Input.URI, s.Definition.Input.Format = "./a.csv", "csv"
		},
		"listed": func(r *rig, s *Submission) {
			s.Definition.Input.URI, s.Definition.Input.Items = "", true
			s.Items = func(_ context.Context, emit func(json.RawMessage) error) error {
				for _, it := range want {
					if err := emit(json.RawMessage(it)); err != nil {
						return err
					}
				}
				return nil
			}
		},
	} {
		for _, limit := range []int64{0, 33} {
			t.Run(fmt.Sprint(name, limit), func(t *testing.T) {
				r := newRig(t)
				s := submission()
				set(r, &s)
				s.Definition.Batch = hayrick.Batches{Items: 7, Order: hayrick.OrderShuffle}
				s.Definition.Input.Limit = limit
				want := want[:n]
				if limit > 0 {
					want = want[:limit]
				}
				var piped []byte
				if s.Stdin != nil {
					piped, _ = io.ReadAll(s.Stdin)
				}
				// A submission that dies before its plan is there leaves objects; the next makes the same.
				submit := func(o *noting) (Submitted, error) {
					if piped != nil {
						s.Stdin = bytes.NewReader(piped)
					}
					r.Store = &manifest.Store{Objects: o, Clock: r.clock}
					return r.Submit(t.Context(), s)
				}
				dead, alive := &noting{Objects: r.mem, refuses: true}, &noting{Objects: r.mem}
				if _, err := submit(dead); !errors.Is(err, errRefused) {
					t.Fatal(err)
				}
				got, err := submit(alive)
				if err != nil {
					t.Fatal(err)
				}
				if len(dead.put) == 0 || !maps.Equal(dead.put, alive.put) {
					t.Errorf("stored %v, and before %v", alive.put, dead.put)
				}
				if got.Resumed || got.Plan.Shuffle == nil || got.Plan.Items != int64(len(want)) || got.Plan.Group.Tasks != int64(len(want)+6)/7 {
					t.Errorf("plan %+v", got.Plan)
				}
				have := r.items(t, got.Plan)
				if slices.Equal(have, want) || !slices.Equal(unshuffled(got.Plan, have), want) {
					t.Errorf("items %q", have)
				}
				if again, err := submit(alive); err != nil || !again.Resumed || again.JobID != got.JobID {
					t.Errorf("the same again: %+v, %v", again, err)
				}
				s.New = true
				other, err := submit(alive)
				if err != nil {
					t.Fatal(err)
				}
				if *other.Plan.Shuffle == *got.Plan.Shuffle || slices.Equal(r.items(t, other.Plan), have) {
					t.Error("another run has the same order")
				}
				s.New, s.JobID = true, "fresh"
				if piped != nil {
					s.Stdin = bytes.NewReader(piped)
				}
				p, err := r.Preview(t.Context(), s, io.Discard)
				if err != nil || p.Items != got.Plan.Items || p.Tasks != got.Plan.Group.Tasks {
					t.Errorf("a preview says %d items in %d tasks, %v", p.Items, p.Tasks, err)
				}
			})
		}
	}
}

var errRefused = errors.New("no plan today")

// noting notes what is stored, and commits nothing when it refuses.
type noting struct {
	manifest.Objects
	refuses bool

	mu  sync.Mutex
	put map[string]bool
}

func (o *noting) Put(ctx context.Context, key string, body io.Reader) error {
	o.mu.Lock()
	if o.put == nil {
		o.put = map[string]bool{}
	}
	o.put[key] = true
	o.mu.Unlock()
	return o.Objects.Put(ctx, key, body)
}

func (o *noting) Commit(ctx context.Context, key string, body []byte) (bool, error) {
	if o.refuses {
		return false, errRefused
	}
	return o.Objects.Commit(ctx, key, body)
}

// A line that is no item is told with its place in the input, for nobody finds it by its
// place in a run; with skip it becomes an item that says so.
func TestAShuffledLineThatIsNone(t *testing.T) {
	for _, skip := range []bool{false, true} {
		r := newRig(t)
		r.mem.SetInput(inputURI, []byte("{\"did\":1}\n\n  {\"é\":x}\n{\"did\":2}\n"))
		s := submission()
		s.Definition.Batch.Order = hayrick.OrderShuffle
		s.Check = func(record []byte) (string, int) {
			var syntax *json.SyntaxError
			if err := json.Unmarshal(record, new(any)); errors.As(err, &syntax) {
				return "it is no JSON", int(syntax.Offset)
			}
			return "", 0
		}
		if skip {
			s.Definition.Input.OnBadItem = "skip"
			got := r.submit(t, s)
			want := []string{`{"did":1}`, "!record ./users.jsonl:3:8: it is no JSON", `{"did":2}`}
			if have := unshuffled(got.Plan, r.items(t, got.Plan)); !slices.Equal(have, want) {
				t.Errorf("items %q", have)
			}
			continue
		}
		_, err := r.Submit(t.Context(), s)
		if user := (*hayrick.UserError)(nil); !errors.As(err, &user) || user.What != "./users.jsonl:3:8: it is no JSON" || len(r.plans()) != 0 {
			t.Errorf("%v", err)
		}
	}
	for _, body := range []string{"", "\n \n"} {
		r := newRig(t)
		r.mem.SetInput(inputURI, []byte(body))
		s := submission()
		s.Definition.Batch.Order = hayrick.OrderShuffle
		if _, err := r.Submit(t.Context(), s); err == nil || !strings.Contains(err.Error(), "holds no items") {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// arranged shuffles a file.
func arranged(t *testing.T, f *os.File, items, most int64, w io.Writer) {
	t.Helper()
	dir := t.TempDir()
	n := 0
	a := &arranger{order: manifest.ShuffleOf("job").Order(items), most: most, file: func() (*os.File, error) {
		n++
		return os.Create(filepath.Join(dir, fmt.Sprint(n)))
	}}
	defer a.close()
	if err := a.take(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := a.write(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

// The bytes are the same whatever memory there is, also where a line is longer than that.
func TestShufflingInRuns(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "lines"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const n = 2000
	for i := range n {
		fmt.Fprintf(f, "%d%s\n", i, strings.Repeat("x", i%97*(i%11)))
	}
	fmt.Fprintf(f, "%s\n", strings.Repeat("long", 200_000))
	var want bytes.Buffer
	arranged(t, f, n+1, 1<<30, &want)
	order := manifest.ShuffleOf("job").Order(n + 1)
	sc := bufio.NewScanner(&want)
	sc.Buffer(nil, 1<<20)
	body := bytes.Clone(want.Bytes())
	for place := int64(0); sc.Scan(); place++ {
		if record := order.RecordAt(place); record < n && strings.TrimRight(sc.Text(), "x") != fmt.Sprint(record) {
			t.Fatalf("at %d there is %.20q, want record %d", place, sc.Text(), record)
		}
	}
	for _, most := range []int64{1, 100, 5_000, 200_000} {
		var got bytes.Buffer
		if arranged(t, f, n+1, most, &got); !bytes.Equal(got.Bytes(), body) {
			t.Errorf("in runs of %d bytes it is another order", most)
		}
	}
}

// peaked looks at the heap now and then.
type peaked struct{ most, n uint64 }

func (p *peaked) Write(b []byte) (int, error) {
	if p.n++; p.n%(16<<10) == 0 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		p.most = max(p.most, m.HeapAlloc)
	}
	return len(b), nil
}

// The memory of shuffling does not grow with the input, but for what each run is read
// ahead.
func TestShufflingTakesTheSameMemory(t *testing.T) {
	peak := func(n int) uint64 {
		f, err := os.Create(filepath.Join(t.TempDir(), "lines"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := bufio.NewWriter(f)
		for i := range n {
			fmt.Fprintf(w, "%0100d\n", i)
		}
		w.Flush()
		p := &peaked{}
		arranged(t, f, int64(n), 1<<20, p)
		return p.most
	}
	peak(20_000)
	few, many := peak(40_000), peak(160_000)
	if many > few+6<<20 {
		t.Errorf("%d KiB of 40,000 lines, %d KiB of 160,000", few>>10, many>>10)
	}
}
