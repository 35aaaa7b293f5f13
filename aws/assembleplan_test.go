package aws

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"hayrick/manifest"
)

// Whatever the ranges are, the parts hold their bytes in order, S3 takes every one of
// them, and no more bytes pass through here than the small ranges, what fills them up
// to a part, and the tail.
func TestPlanAssembly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.OneOf(rapid.Int64Range(0, 64<<10), rapid.Int64Range(minPartBytes-2, minPartBytes+2), rapid.Int64Range(0, 4*minPartBytes), rapid.Int64Range(copyBytes-1, 3*copyBytes))
		var ranges []manifest.Range
		var small, runs int64
		for i := range rapid.IntRange(0, 30).Draw(t, "ranges") {
			r := manifest.Range{Key: string(rune('a' + i%3)), Offset: rapid.Int64Range(0, 10).Draw(t, "offset"), Length: length.Draw(t, "length")}
			ranges = append(ranges, r)
			if r.Length < minPartBytes {
				small += r.Length
				runs++
			}
		}
		tail := rapid.IntRange(0, 100).Draw(t, "tail")
		pieces, err := planAssembly(ranges, tail)
		if err != nil {
			t.Fatal(err)
		}
		var got []manifest.Range
		var passed int64
		for i, p := range pieces {
			last, size := i == len(pieces)-1, p.copy.Length
			if p.copy.Length > 0 {
				got = append(got, p.copy)
			}
			for _, g := range p.glue {
				got = append(got, g)
				size += g.Length
				passed += g.Length
			}
			if p.tail {
				size += int64(tail)
			}
			switch {
			case p.tail && !last, p.copy.Length > 0 && len(p.glue) > 0, p.copy.Length > 5<<30:
				t.Fatalf("part %d of %d is %+v", i, len(pieces), p)
			case !last && size < minPartBytes:
				t.Fatalf("part %d of %d has %d bytes", i, len(pieces), size)
			}
		}
		if tail > 0 && (len(pieces) == 0 || !pieces[len(pieces)-1].tail) {
			t.Fatal("the tail is lost")
		}
		if a, b := joined(got), joined(ranges); len(a) != len(b) {
			t.Fatalf("the parts hold %v, not %v", a, b)
		} else {
			for i := range a {
				if a[i] != b[i] {
					t.Fatalf("the parts hold %v, not %v", a, b)
				}
			}
		}
		if passed > small+2*minPartBytes*runs {
			t.Fatalf("%d bytes pass through, of %d in %d small ranges", passed, small, runs)
		}
	})
}

// Large sources are copied by S3 alone.
func TestPlanAssemblyCopies(t *testing.T) {
	var ranges []manifest.Range
	for i := range 100 {
		ranges = append(ranges, manifest.Range{Key: string(rune('a' + i)), Offset: 4, Length: 64 << 20})
	}
	pieces, err := planAssembly(ranges, 1000)
	if err != nil || len(pieces) != 101 {
		t.Fatalf("%d parts, %v", len(pieces), err)
	}
	for _, p := range pieces[:100] {
		if p.copy.Length != 64<<20 {
			t.Fatalf("a part is %+v", p)
		}
	}
}

func TestPlanAssemblyTooManyParts(t *testing.T) {
	if _, err := planAssembly(make10001(), 0); err == nil {
		t.Fatal("more parts than S3 takes are planned")
	}
}

func make10001() []manifest.Range {
	ranges := make([]manifest.Range, maxParts+1)
	for i := range ranges {
		ranges[i] = manifest.Range{Key: "a", Offset: int64(i) * 2 * minPartBytes, Length: minPartBytes}
	}
	return ranges
}

// As many stretches as a part of a dataset may have fit into one upload, however large
// they are and however small the ones between them.
func TestPlanAssemblyOfTheMostStretches(t *testing.T) {
	const most = 9000 // aggregator.MaxSources
	for name, size := range map[string]func(i int) int64{
		"large":                func(int) int64 { return 64 << 20 },
		"small":                func(int) int64 { return 1000 },
		"in turn":              func(i int) int64 { return []int64{1000, 64 << 20}[i%2] },
		"in turn, just enough": func(i int) int64 { return []int64{1000, 2 * minPartBytes}[i%2] },
		"huge":                 func(int) int64 { return 2 << 30 },
	} {
		var ranges []manifest.Range
		for i := range most {
			ranges = append(ranges, manifest.Range{Key: strconv.Itoa(i), Offset: 4, Length: size(i)})
		}
		pieces, err := planAssembly(ranges, 1000)
		if err != nil || len(pieces) > maxParts {
			t.Errorf("%s: %d parts, %v", name, len(pieces), err)
		}
	}
}
