package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// noopPython is a handler that does nothing, and an outright simple one: it parses
// every frame and answers each at once.
const noopPython = `import json, sys
out = sys.__stdout__; sys.stdout = sys.stderr
for line in sys.stdin:
    f = json.loads(line)
    t = f["t"]
    if t == "item": out.write('{"t":"ok","id":%d}\n' % f["id"]); out.flush()
    elif t == "hello": out.write('{"t":"ready","proto":1}\n'); out.flush()
    elif t == "stop": break
`

// benchHandler runs a no-op Python handler, one process of it, and beside it the same
// program fed from a file: what it can take at most.
func benchHandler(ctx context.Context, b *bench) error {
	python, err := exec.LookPath("python3")
	if err != nil {
		b.report.missing("a handler in Python", err)
		return nil
	}
	items := b.scaled(1_000_000)
	path, err := b.input("items", items, plainItem)
	if err != nil {
		return err
	}
	frames := filepath.Join(b.dir, "frames")
	if err := handlerFrames(frames, items); err != nil {
		return err
	}
	script := filepath.Join(b.dir, "noop.py")
	if err := os.WriteFile(script, []byte(noopPython), 0o644); err != nil {
		return err
	}
	var whole, alone process
	took, err := b.interleave(1,
		contender{"hayrick", func() (float64, error) {
			dir, err := b.fresh("job")
			if err != nil {
				return 0, err
			}
			text := fmt.Sprintf("version: 1\nname: noop\nhandler: {exec: [%s, noop.py]}\ninput: {uri: %s}\nbatch: {items: 10000}\nrun: {max_parallel: 1}\noutput: {uri: ./out/}\n", strconv.Quote(python), strconv.Quote(path))
			if err := os.WriteFile(filepath.Join(dir, "noop.py"), []byte(noopPython), 0o644); err != nil {
				return 0, err
			}
			if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(text), 0o644); err != nil {
				return 0, err
			}
			whole, err = b.run(ctx, dir, nil, "run", "--json", "job.yaml")
			if err == nil && !bytes.Contains(whole.Out, []byte(fmt.Sprintf(`"ok":%d`, items))) {
				err = fmt.Errorf("not every item ended ok: %s", whole.Out)
			}
			return whole.Seconds, err
		}},
		contender{"python", func() (float64, error) {
			in, err := os.Open(frames)
			if err != nil {
				return 0, err
			}
			defer in.Close()
			out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				return 0, err
			}
			defer out.Close()
			cmd := command(ctx, python, script)
			cmd.Stdin, cmd.Stdout = in, out
			alone, err = measure(cmd)
			return alone.Seconds, err
		}},
	)
	if err != nil {
		return err
	}
	n := float64(items)
	b.report.addValue(row{
		What: "a no-op Python handler, one process, 10,000 a task", Unit: "items/s", Value: n / took["hayrick"],
		Note: fmt.Sprintf("%s from exec to exit; %s CPU an item, the handler's included; the handler alone, fed from a file, %s items/s at %s CPU an item",
			quantity(took["hayrick"], "s"), fmt.Sprintf("%.1f us", whole.CPU/n*1e6), thousands(n/took["python"]), fmt.Sprintf("%.1f us", alone.CPU/n*1e6)),
	}, atLeast(100_000))
	return nil
}

// handlerFrames writes the item frames of a whole run.
func handlerFrames(path string, items int64) error {
	var b bytes.Buffer
	b.WriteString(`{"t":"hello","proto":1}` + "\n")
	for i := range items {
		fmt.Fprintf(&b, `{"t":"item","id":%d,"ordinal":%d,"key":"%d","attempt":1,"left_ms":90000,"item":{"n":%d}}`+"\n", i+1, i, i, i)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
