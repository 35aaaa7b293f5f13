package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hayrick"
	"hayrick/manifest"
)

func logLine(n int, more string) []byte {
	return append(encodeLine(manifest.LogLine{Text: fmt.Sprintf("%d %s", n, more)}, nil), '\n')
}

// texts are the numbers of lines; <n> stands for so many left out.
func texts(t *testing.T, body []byte) string {
	t.Helper()
	var out []string
	for line := range bytes.Lines(body) {
		var l manifest.LogLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l.Dropped > 0 {
			out = append(out, fmt.Sprintf("<%d>", l.Dropped))
			continue
		}
		n, _, _ := strings.Cut(l.Text, " ")
		out = append(out, n)
	}
	return strings.Join(out, " ")
}

// Who follows a log sees all of it: what was before, what was written before anybody
// looked, and each line as it comes; then it is gone.
func TestLogIsShownWhileItGrows(t *testing.T) {
	dir := t.TempDir()
	ref := hayrick.TaskRef{JobID: "job-20261121-aaaaaa", TaskID: "task-0000"}
	files := FileLogs{Dir: dir}
	seen := func() (text string) {
		t.Helper()
		if err := files.Logs(ref.JobID, func(task, path string) error {
			body, err := os.ReadFile(path)
			text += task + ": " + texts(t, body)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return text
	}
	// A worker that crashed has left the log of its attempt.
	if _, err := files.Create(ref, "0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	var l taskLog
	began := 0
	l.begin = func() { began++ }
	l.goOn(bytes.Join([][]byte{logLine(1, ""), logLine(2, "")}, nil))
	l.add(logLine(3, ""))
	if got := seen(); got != "task-0000: " {
		t.Errorf("before: %q", got)
	}
	if err := l.follow(func() (io.WriteCloser, error) { return files.Create(ref, "fedcba9876543210") }); err != nil {
		t.Fatal(err)
	}
	l.add(logLine(4, ""))
	if got := seen(); got != "task-0000: 1 2 3 4" || began != 1 {
		t.Errorf("at work: %q, began %d times", got, began)
	}
	if body, lines, dropped := l.bytes(); texts(t, body) != "1 2 3 4" || lines != 4 || dropped != 0 {
		t.Errorf("the log: %s, %d lines, %d dropped", texts(t, body), lines, dropped)
	}
	long := strings.Repeat("x", maxLine)
	for n := range 2 * maxLive / maxLine {
		l.add(logLine(n, long))
	}
	if err := files.Logs(ref.JobID, func(_, path string) error {
		if at, err := os.Stat(path); err != nil || at.Size() > maxLive {
			t.Errorf("%d bytes, %v", at.Size(), err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l.end()
	l.add(logLine(5, ""))
	if left, err := os.ReadDir(filepath.Join(dir, "job", ref.JobID, "task")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := l.follow(func() (io.WriteCloser, error) { t.Error("shown after its end"); return nil, nil }); err != nil {
		t.Error(err)
	}
}

// A log that was cut goes on where it was, and no line is counted twice.
func TestLogGoesOnBehindACut(t *testing.T) {
	var first taskLog
	long := strings.Repeat("x", maxLine)
	const lines = 60
	for n := range lines {
		first.add(logLine(n, long))
	}
	body, n, dropped := first.bytes()
	if n != lines || dropped == 0 {
		t.Fatalf("%d lines, %d dropped", n, dropped)
	}
	var second taskLog
	second.goOn(body)
	second.add(logLine(lines, ""))
	again, n, more := second.bytes()
	if n != lines+1 || more < dropped || more > dropped+1 {
		t.Errorf("%d lines, %d dropped, %d before", n, more, dropped)
	}
	if got := texts(t, again); !strings.HasPrefix(got, "0 1 2 <") || !strings.HasSuffix(got, " 58 59 60") {
		t.Errorf("%s", got)
	}
	second.goOn(nil)
	if body, n, _ := second.bytes(); n != 1 || texts(t, body) != "60" {
		t.Errorf("taken back: %s", texts(t, body))
	}
}

// What a killed worker left is taken where it goes on with what is known already, up to
// the line that it was writing.
func TestLogGoesOnAfterACrash(t *testing.T) {
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	one, two, three := logLine(1, ""), logLine(2, ""), logLine(3, "")
	for name, c := range map[string]struct {
		before, left []byte
		want         string
		taken        bool
	}{
		"nothing is left":              {one, nil, "1 9", false},
		"nothing else is known":        {nil, join(one, two), "1 2 9", true},
		"more than is known":           {one, join(one, two, three), "1 2 3 9", true},
		"what is known":                {join(one, two), join(one, two), "1 2 9", false},
		"less than is known":           {join(one, two), one, "1 2 9", false},
		"of another attempt":           {join(one, two), join(one, three, three), "1 2 9", false},
		"cut in the middle of a line":  {nil, join(one, two[:5]), "1 9", true},
		"cut before the end of a line": {nil, join(one, two[:len(two)-1]), "1 9", true},
		"only a piece":                 {nil, two[:5], "9", false},
		"none of ours":                 {nil, []byte("text\n"), "9", false},
	} {
		var l taskLog
		l.goOn(c.before)
		taken := l.goOnAfterCrash(c.left)
		l.add(logLine(9, ""))
		if body, _, _ := l.bytes(); texts(t, body) != c.want || taken != c.taken {
			t.Errorf("%s: %s, taken %v", name, texts(t, body), taken)
		}
	}
}
