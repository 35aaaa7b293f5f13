package jobfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Place is where something stands: a line and column of a file, both from 1, or an
// argument such as "--set a.b=c" with line 0.
type Place struct {
	File      string
	Line, Col int
}

func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Problem is one thing to mend. What ends in what to write instead.
type Problem struct {
	Place
	What string
}

func (p Problem) String() string { return p.Place.String() + ": " + p.What }

// Problems is everything that is wrong with a job file, in the order of its lines.
type Problems []Problem

// Error has one line a problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps *Problems) add(at Place, format string, args ...any) {
	*ps = append(*ps, Problem{at, fmt.Sprintf(format, args...)})
}

// Sorted is ps in reading order without repetitions: a profile is read alone, to
// check it, and again where it is merged.
func (ps Problems) Sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(min(a.Line, 1), min(b.Line, 1)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	var out Problems
	for _, p := range ps {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// meant is the end of a message about a word that is not known.
func meant(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(word, k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; one of: " + strings.Join(known, ", ")
}

// edits is how many letters must be put in, dropped, changed or swapped with their
// neighbour to make b of a.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	before, above := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := above[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
