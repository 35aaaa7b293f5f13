package jobfile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
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
	What    string
	Excerpt string // the line, and a line that points at the place; "" = there is none to show
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
	*ps = append(*ps, Problem{Place: at, What: fmt.Sprintf(format, args...)})
}

// maxProblems are told; a file with more of them is no job file.
const maxProblems = 100

// shortened is a word as a message has it.
func shortened(word string) string {
	if r := []rune(word); len(r) > 64 {
		return string(r[:61]) + "..."
	}
	return word
}

// excerpt is a line of a text with its number, and below it marks under the word that
// begins at col. Of a line that is longer than a terminal is wide, what is around that
// word.
func excerpt(src string, line, col int) string {
	if line < 1 {
		return ""
	}
	n := 1
	for ; n < line && src != ""; n++ {
		_, src, _ = strings.Cut(src, "\n")
	}
	text, _, _ := strings.Cut(src, "\n")
	shown := []rune(strings.TrimPrefix(strings.TrimRight(text, "\r"), bom))
	if n < line || col < 1 || col > len(shown) {
		return ""
	}
	for i, r := range shown {
		if r < ' ' || r == 0x7f { // what is not one column wide
			shown[i] = ' '
		}
	}
	from, at := 0, col-1
	if len(shown) > excerptWidth && at > excerptWidth/2 {
		from = min(at-excerptWidth/2, len(shown)-excerptWidth)
	}
	shown = shown[from:min(len(shown), from+excerptWidth)]
	at -= from
	end := at + 1
	if shown[at] != '"' && shown[at] != '\'' {
		for end < len(shown) && !strings.ContainsRune(" ,]}[{:\"'", shown[end]) {
			end++
		}
	} else {
		for end < len(shown) && shown[end-1] != shown[at] || end == at+1 && end < len(shown) {
			end++
		}
	}
	number := fmt.Sprintf("%5d | ", line)
	return number + string(shown) + "\n" + strings.Repeat(" ", len(number)-2) + "| " + strings.Repeat(" ", at) + strings.Repeat("^", end-at)
}

// excerptWidth is how much of a line is shown.
const excerptWidth = 100

// quoted is a word of a file as a message has it: not longer than somebody reads.
func quoted(word string) string {
	return strconv.Quote(shortened(word))
}

// Sorted is ps in reading order without repetitions: a profile is read alone, to
// check it, and again where it is merged.
func (ps Problems) Sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(min(a.Line, 1), min(b.Line, 1)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	var out Problems
	seen := make(map[Problem]bool, len(ps))
	for _, p := range ps {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	if more := len(out) - maxProblems; more > 0 {
		out = append(out[:maxProblems], Problem{Place: Place{File: out[maxProblems].File}, What: fmt.Sprintf("and %d more problems; mend these first", more)})
	}
	return out
}

// meant is the end of a message about a word that is not known.
func meant(word string, known []string) string {
	if best := Nearest(word, known); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; one of: " + strings.Join(known, ", ")
}

// Nearest is the word of known that is word but for a typing mistake; "" when none is.
func Nearest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(word), strings.ToLower(k)); d < distance && 2*d <= len(k) {
			best, distance = k, d
		}
	}
	return best
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
