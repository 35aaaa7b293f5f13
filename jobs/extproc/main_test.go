package extproc

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"go.uber.org/goleak"

	"hayrick/internal/processtree"
)

// envMode makes of the test's binary a handler that does what programs do.
const envMode = "HAYRICK_TEST_MODE"

func TestMain(m *testing.M) {
	if processtree.Supervising(os.Args) {
		os.Exit(processtree.Supervise(os.Args))
	}
	if mode := os.Getenv(envMode); mode != "" {
		program(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

// program is the child's side of the tests.
func program(mode string) {
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...); out.Flush() }
	switch mode {
	case "silent":
		fmt.Fprintln(os.Stderr, "importing the world")
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "dies":
		fmt.Fprintln(os.Stderr, "Traceback\nSyntaxError: invalid syntax")
		os.Exit(3)
	case "future":
		say(`{"t":"ready","proto":2}`)
		select {}
	case "quits": // after ready, again and again
		say(`{"t":"ready","proto":1}`)
		return
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	var rows *ipc.Writer
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "_item", Type: arrow.PrimitiveTypes.Int64}, {Name: "name", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "x", Type: arrow.PrimitiveTypes.Float32},
		{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "tags", Type: arrow.ListOf(arrow.PrimitiveTypes.Int8)},
	}, nil)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var f struct {
			T        string
			ID       int64
			Task     string
			Key      string
			InFlight int `json:"in_flight"`
			RowsFD   int `json:"rows_fd"`
			Item     struct {
				Do string
			}
		}
		if json.Unmarshal(line, &f) != nil {
			os.Exit(9)
		}
		switch f.T {
		case "hello":
			if f.RowsFD > 0 {
				rows = ipc.NewWriter(os.NewFile(uintptr(f.RowsFD), "rows"), ipc.WithSchema(schema))
			}
			if mode == "parallel" {
				say(`{"t":"ready","proto":1,"at_once":2}`)
			} else {
				say(`{"t":"ready","proto":1,"name":"test","version":"1"}`)
			}
		case "task":
			fmt.Fprintln(os.Stderr, "now for", f.Task)
		case "list":
			switch mode {
			case "lists badly":
				say(`{"t":"record","id":%d,"item":{"n":1}}`, f.ID)
				say(`{"t":"err","id":%d,"class":"api","msg":"no such bucket"}`, f.ID)
			case "lists and dies":
				say(`{"t":"record","id":%d,"item":{"n":1}}`, f.ID)
				os.Exit(4)
			default:
				for n := range 3 {
					say(`{"t":"record","id":%d,"item":{"n":%d}}`, f.ID, n)
				}
				say(`{"t":"ok","id":%d}`, f.ID)
			}
		case "stop":
			if mode == "deaf" {
				signal.Ignore(syscall.SIGTERM)
				say(`{"t":"beat","id":1}`)
				select {}
			}
			say(`{"t":"bye"}`)
			return
		case "item":
			do(f.Item.Do, f.ID, f.Key, say, out, func(n int) {
				b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
				for i := range n {
					b.Field(0).(*array.Int64Builder).Append(f.ID)
					if i == 0 {
						b.Field(1).AppendNull()
					} else {
						b.Field(1).(*array.StringBuilder).Append(fmt.Sprint(f.Key, i))
					}
					b.Field(2).(*array.Float32Builder).Append(0.5)
					b.Field(3).(*array.TimestampBuilder).Append(1500)
					l := b.Field(4).(*array.ListBuilder)
					l.Append(true)
					l.ValueBuilder().(*array.Int8Builder).Append(7)
				}
				_ = rows.Write(b.NewRecordBatch())
			})
		}
	}
}

// do carries out the words of an item.
func do(what string, id int64, key string, say func(string, ...any), out *bufio.Writer, arrowRows func(int)) {
	ok := func() { say(`{"t":"ok","id":%d}`, id) }
	switch what {
	case "ok":
		ok()
	case "environment":
		wd, _ := os.Getwd()
		var names []string
		for _, kv := range os.Environ() {
			name, _, _ := strings.Cut(kv, "=")
			names = append(names, name)
		}
		text, _ := json.Marshal(map[string]string{"wd": wd, "env": strings.Join(names, " ")})
		say(`{"t":"row","id":%d,"row":%s}`, id, text)
		ok()
	case "exit0":
		os.Exit(0)
	case "bye":
		say(`{"t":"bye"}`)
		os.Exit(0)
	case "fork", "escape": // a grandchild that has our pipes, in our group or out of it
		c := exec.Command("sleep", "1000")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if what == "escape" {
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		}
		if err := c.Start(); err != nil {
			panic(err)
		}
		say(`{"t":"row","id":%d,"row":{"pid":%d}}`, id, c.Process.Pid)
		os.Exit(0)
	case "flood":
		junk := strings.Repeat("x", 1<<20)
		for range 18 {
			out.WriteString(junk)
		}
		out.WriteString("\n")
		ok()
	case "flood and frame":
		out.WriteString(strings.Repeat("x", 18<<20))
		say(`{"t":"row","id":%d,"row":{"x":1}}`, id)
		ok()
	case "cut":
		out.WriteString(`{"t":"row","id":1,"row":{`)
		out.Flush()
		os.Exit(1)
	case "delete":
		wd, _ := os.Getwd()
		os.RemoveAll(wd)
		ok()
		os.Exit(0)
	case "log":
		fmt.Fprintf(os.Stderr, "of %s\n", key)
		ok()
	case "log by id":
		fmt.Fprintf(os.Stderr, `{"msg":"of %s","id":%d}`+"\n", key, id)
		ok()
	case "endless stderr":
		junk := strings.Repeat("y", 1<<20)
		for range 4 {
			fmt.Fprint(os.Stderr, junk)
		}
		fmt.Fprintln(os.Stderr, "END")
		ok()
	case "long frame":
		say(`{"t":"row","id":%d,"row":{"x":"%s"}}`, id, strings.Repeat("x", MaxFrame))
		ok()
	case "print":
		say("Loading model... 100%%")
		say(`{"progress": 3}`)
		say("")
		ok()
	case "glued":
		out.WriteString("no newline")
		ok()
	case "half":
		say(`{"t":"row",`)
		ok()
	case "nan":
		say(`{"t": "row", "id": %d, "row": {"x": NaN}}`, id)
		ok()
	case "unknown id":
		say(`{"t":"ok","id":%d}`, id+1000)
		ok()
	case "twice":
		ok()
		ok()
		say(`{"t":"row","id":%d,"row":{"late":1}}`, id)
		say(`{"t":"of the future","id":%d}`, id)
	case "big int":
		say(`{"t":"row","id":%d,"row":{"x":99999999999999999999}}`, id)
		ok()
	case "arrow 3":
		say(`{"t":"ok","id":%d,"rows":3}`, id) // before its rows
		arrowRows(2)
		arrowRows(1)
	case "arrow 0":
		say(`{"t":"ok","id":%d,"rows":0}`, id)
	case "arrow err":
		arrowRows(2)
		say(`{"t":"err","id":%d,"class":"x","retry":false}`, id)
	case "hold": // until somebody else's frame
		fmt.Fprintln(os.Stderr, "holding")
		say(`{"t":"beat","id":%d,"done":1}`, id)
	}
}
