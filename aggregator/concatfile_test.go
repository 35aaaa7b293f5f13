package aggregator_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hayrick"
	"hayrick/aggregator"
	"hayrick/internal/rows"
)

// closing is a file in memory.
type closing struct {
	*bytes.Reader
	open *int
}

func (c closing) Close() error { *c.open--; return nil }

// opened gives the source the bytes that Concat reads.
func opened(s aggregator.Source, b []byte) aggregator.Source {
	open := 0
	s.Open = func() (aggregator.SourceReader, error) {
		open++
		return closing{bytes.NewReader(b), &open}, nil
	}
	return s
}

// Whatever happened to a source after its commit, it is an error that
// names it, and never a file that looks whole.
func TestConcatReadsDamagedSources(t *testing.T) {
	sound := concatFile(t, rows.WriterOptions{GroupRows: 200}, concatRows(1, 500))
	victim := concatFile(t, rows.WriterOptions{GroupRows: 100}, concatRows(2, 300))
	as, first := sourceOf(t, "victim", victim), opened(sourceOf(t, "sound", sound), sound)
	try := func(b []byte, digest bool) error {
		s := as
		s.Open = func() (aggregator.SourceReader, error) { return closing{bytes.NewReader(b), new(int)}, nil }
		var out bytes.Buffer
		_, _, err := aggregator.Concat(context.Background(), &out, []aggregator.Source{first, s}, aggregator.ConcatOptions{Digest: digest})
		if err != nil && (!strings.Contains(err.Error(), "victim") || !errors.Is(err, hayrick.ErrCorrupt) && !errors.Is(err, aggregator.ErrUnlike)) {
			t.Fatal(err)
		}
		if err == nil && digest {
			t.Errorf("a source is accepted that is not what its results.done says")
		}
		return err
	}
	for n := 0; n < len(victim); n += 1 + len(victim)/53 {
		if err := try(victim[:n], false); err == nil {
			t.Errorf("a source cut to %d of %d bytes is accepted unread", n, len(victim))
		}
	}
	footer := len(victim) - 8 - int(binary.LittleEndian.Uint32(victim[len(victim)-8:]))
	rng := rand.New(rand.NewPCG(5, 5))
	unread, refused := 0, 0
	for i := range 600 {
		b := append([]byte(nil), victim...)
		from := []int{0, footer, footer}[i%3]
		for range 1 + rng.IntN(3) {
			b[from+rng.IntN(len(b)-from)] ^= byte(1 + rng.IntN(255))
		}
		try(b, true)
		if from == footer {
			unread++
			if try(b, false) != nil {
				refused++
			}
		}
	}
	// Also unread, most damage of a footer shows; what does not is in statistics,
	// names and the like, and costs the reader of the output, not this process.
	if refused*2 < unread {
		t.Errorf("%d of %d damaged footers are refused unread", refused, unread)
	}
}

func TestConcatReadErrors(t *testing.T) {
	b := concatFile(t, rows.WriterOptions{}, concatRows(1, 50))
	run := func(ctx context.Context, dst io.Writer, s ...aggregator.Source) error {
		_, _, err := aggregator.Concat(ctx, dst, s, aggregator.ConcatOptions{})
		return err
	}
	ctx := context.Background()
	sound := opened(sourceOf(t, "b", b), b)
	gone := sourceOf(t, "a", b)
	gone.Open = func() (aggregator.SourceReader, error) { return nil, os.ErrNotExist }
	if err := run(ctx, io.Discard, sound, gone); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "concat a") {
		t.Errorf("%v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := run(done, io.Discard, sound); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	r, w := io.Pipe()
	r.Close()
	if err := run(ctx, w, sound); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

// Files are copied from descriptor to descriptor, one source open at a time.
func TestConcatFiles(t *testing.T) {
	files, _ := mixed(t)
	want, _ := concat(t, files...)
	dir := t.TempDir()
	sources := sourcesOf(t, files)
	open := 0
	for i := range sources {
		name := filepath.Join(dir, sources[i].Name)
		if err := os.WriteFile(name, files[i], 0o600); err != nil {
			t.Fatal(err)
		}
		sources[i].Open = func() (aggregator.SourceReader, error) {
			if open++; open > 1 {
				t.Errorf("%d sources are open at once", open)
			}
			f, err := os.Open(name)
			return counted{f, &open}, err
		}
	}
	for _, kernel := range []bool{false, true} {
		if kernel {
			for i := range sources {
				name := filepath.Join(dir, sources[i].Name)
				sources[i].Open = func() (aggregator.SourceReader, error) { return os.Open(name) }
			}
		}
		out, err := os.Create(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := aggregator.Concat(context.Background(), out, sources, aggregator.ConcatOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("kernel %v: the file differs, %v", kernel, err)
		}
	}
}

type counted struct {
	*os.File
	open *int
}

func (c counted) Close() error { *c.open--; return c.File.Close() }

// BenchmarkConcat compares concatenation with the copying of the same bytes, both
// from 1,000 files into one; ns/op of the two are to be compared.
func BenchmarkConcat(b *testing.B) {
	dir := b.TempDir()
	data := concatFile(b, rows.WriterOptions{}, concatRows(1, 5000))
	one := sourceOf(b, "", data)
	sources := make([]aggregator.Source, 1000)
	for i := range sources {
		name := filepath.Join(dir, fmt.Sprint("file-", i))
		if err := os.WriteFile(name, data, 0o600); err != nil {
			b.Fatal(err)
		}
		sources[i] = one
		sources[i].Name = name
		sources[i].Open = func() (aggregator.SourceReader, error) { return os.Open(name) }
	}
	for _, run := range []struct {
		name string
		f    func(out *os.File) error
	}{
		{"concat", func(out *os.File) error {
			_, _, err := aggregator.Concat(context.Background(), out, sources, aggregator.ConcatOptions{})
			return err
		}},
		{"concat-digest", func(out *os.File) error {
			_, _, err := aggregator.Concat(context.Background(), out, sources, aggregator.ConcatOptions{Digest: true})
			return err
		}},
		{"cat", func(out *os.File) error {
			for _, s := range sources {
				f, err := os.Open(s.Name)
				if err != nil {
					return err
				}
				if _, err := io.Copy(out, f); err != nil {
					return err
				}
				f.Close()
			}
			return nil
		}},
	} {
		b.Run(run.name, func(b *testing.B) {
			b.SetBytes(int64(len(sources) * len(data)))
			b.ReportAllocs()
			for b.Loop() {
				out, err := os.Create(filepath.Join(dir, "out"))
				if err != nil {
					b.Fatal(err)
				}
				if err := run.f(out); err != nil {
					b.Fatal(err)
				}
				out.Close()
			}
		})
	}
}
