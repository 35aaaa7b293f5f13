package hayrick

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// JobDefinition is a resolved job file: profile applied, defaults filled, secrets
// left out. Its JSON (and therefore YAML) form uses the keys of the job file, so
// the copy stored beside a run is itself a job file. Its identity is the SHA-256
// of that form.
type JobDefinition struct {
	Version     int     `json:"version"`               // of the form of job files: 1
	Name        string  `json:"name"`                  // run ids begin with it
	Description string  `json:"description,omitempty"` // what the job is for
	Handler     Handler `json:"handler"`               // the code that each item is given to
	Input       Input   `json:"input"`                 // where the items come from
	Batch       Batches `json:"batch"`                 // how the input is cut
	Run         Run     `json:"run"`                   // the bounds of the execution
	Rates       []Rate  `json:"rates,omitempty"`       // global limits, each with a name
	Retry       Retry   `json:"retry"`                 // what is tried again, and when
	Output      Output  `json:"output"`                // where the dataset is published
	Merge       Merge   `json:"merge"`                 // the shape of the merge tree
	Budget      *Budget `json:"budget,omitempty"`      // what a run may cost; it is paused before it passes that
}

// Handler names the user's code: a registered Go handler, or a program that speaks
// hayrick-handler/1.
type Handler struct {
	Builtin string          `json:"builtin,omitempty"` // a registered Go handler, e.g. atproto.repo
	Params  json.RawMessage `json:"params,omitempty"`  // the handler's own, a JSON object

	Exec          []string          `json:"exec,omitempty"`            // a program and its arguments, e.g. [python3, handler.py], started in the job's folder
	Env           map[string]string `json:"env,omitempty"`             // its environment, beside PATH, HOME, LANG, TMPDIR and HAYRICK_*
	PassEnv       []string          `json:"pass_env,omitempty"`        // variables of the worker that it gets too, by name: the place for secrets
	Processes     int               `json:"processes,omitempty"`       // processes a task; 0 = 1
	ItemsInFlight int               `json:"items_in_flight,omitempty"` // items sent ahead to a process; 0 = 64
	Rows          string            `json:"rows,omitempty"`            // jsonl (default) | arrow
	Memory        Bytes             `json:"memory,omitempty"`          // what one process may allocate, and it and all it forks have in memory; 0 = any
}

// Label names the handler for people: builtin, or the command.
func (h Handler) Label() string {
	if len(h.Exec) > 0 {
		return strings.Join(h.Exec, " ")
	}
	return h.Builtin
}

// Input says where the items come from.
type Input struct {
	URI         string   `json:"uri,omitempty"`         // a file, a folder (it ends in a slash), a pattern of names, or - ; empty with Items
	Items       bool     `json:"items,omitempty"`       // the handler lists its own items
	Format      string   `json:"format"`                // jsonl | csv | tsv | lines | parquet | files (an item a file)
	Compression string   `json:"compression,omitempty"` // none | gzip | zstd; "" = by the suffix of each name
	Columns     []string `json:"columns,omitempty"`     // of csv and tsv whose first record does not name them
	Delimiter   string   `json:"delimiter,omitempty"`   // between the fields of csv: one character, such as ";"; "" = a comma
	Key         string   `json:"key,omitempty"`         // the field that labels an item; "" = the ordinal
	Limit       int64    `json:"limit,omitempty"`       // only the first n items; 0 = all
	OnBadItem   string   `json:"on_bad_item"`           // fail (pause and say where) | skip (permanent, class bad_item)
	Snapshot    string   `json:"snapshot"`              // auto (clone where it costs no bytes, else pin) | copy
}

// IsDelimiter says that s can stand between the fields of a CSV.
func IsDelimiter(s string) bool {
	r, size := utf8.DecodeRuneInString(s)
	return size == len(s) && r != utf8.RuneError && !strings.ContainsRune("\"\r\n\ufeff\x00", r)
}

// Batches says how the input is cut.
type Batches struct {
	Items int    `json:"items"`           // items a batch
	Bytes Bytes  `json:"bytes,omitempty"` // a batch also ends with the item in which it reaches so many bytes of JSON lines; 0 = items alone decide
	Order string `json:"order,omitempty"` // input (as they stand there) | shuffle (spread over all batches); "" = input
}

// The values of batch.order.
const (
	OrderInput   = "input"
	OrderShuffle = "shuffle"
)

// Run bounds the execution.
type Run struct {
	MaxParallel   int      `json:"max_parallel"`    // tasks at once in this process
	ItemsInFlight int      `json:"items_in_flight"` // items at once in one task; a program has handler.processes
	TaskTimeout   Duration `json:"task_timeout"`    // an attempt checkpoints and hands back after this
	ItemTimeout   Duration `json:"item_timeout"`    // one try of one item
	Lease         Duration `json:"lease"`           // of a claim
	Linger        Duration `json:"linger"`          // how long an idle worker waits for more
}

// Rate is a named global limit.
type Rate struct {
	Name  string   `json:"name"`            // handlers ask by it
	Key   string   `json:"key,omitempty"`   // $(item.<field>): one bucket a value; "" = one bucket
	Limit PerTime  `json:"limit"`           // 10/s, 3000/5m
	Burst int      `json:"burst"`           // above limit x window, in any window
	Scope string   `json:"scope,omitempty"` // store (default; jobs share the limit) | job
	Learn bool     `json:"learn"`           // obey 429 and Retry-After
	Auto  bool     `json:"auto"`            // the host takes one token before it hands out an item
	Idle  Duration `json:"idle,omitempty"`  // a bucket nobody used for so long is forgotten
}

// Retry is the policy of the retry planner and of tries within a task.
type Retry struct {
	InTask   InTask                 `json:"in_task"`            // tries within one attempt of a task
	Passes   int                    `json:"passes"`             // retry_batch_1 .. retry_batch_<passes>
	Backoff  Backoff                `json:"backoff"`            // between groups
	Classify []ClassRule            `json:"classify,omitempty"` // renames a failure by status, message or class; the first that holds
	Classes  map[string]Disposition `json:"classes,omitempty"`  // class -> disposition; wins over the handler
	Lists    map[string]string      `json:"lists,omitempty"`    // class -> name of the list it goes to
	StopIf   *StopIf                `json:"stop_if,omitempty"`  // pause the run when too much fails
}

// InTask bounds the tries of an item within one attempt of its task.
type InTask struct {
	Attempts int      `json:"attempts"` // tries of an item
	Initial  Duration `json:"initial"`  // the wait before the second one; it doubles
	Max      Duration `json:"max"`      // ... up to this
}

// Backoff is exponential with full jitter between Initial and Max.
type Backoff struct {
	Initial Duration `json:"initial"` // the wait before the first retry group; it doubles
	Max     Duration `json:"max"`     // ... up to this
}

// Until is how long a group that starts at notBefore is away from now. It is never more
// than the longest backoff: of two clocks that are further apart one is wrong.
func (r Retry) Until(notBefore, now time.Time) time.Duration {
	return min(max(0, notBefore.Sub(now)), r.Backoff.Max.D())
}

// StopIf pauses the job by an order when too much fails.
type StopIf struct {
	FailedFraction float64 `json:"failed_fraction"` // of the items that have ended
	AfterItems     int64   `json:"after_items"`     // not before so many have ended
}

// Output is where the dataset is published.
type Output struct {
	URI         string `json:"uri"`         // a folder; $(run.id) is the job id
	Format      string `json:"format"`      // parquet | csv | jsonl
	Compression string `json:"compression"` // zstd; of csv and jsonl also gzip or none
	IfExists    string `json:"if_exists"`   // error | overwrite | append
	// Columns by whose values the dataset is cut into folders: column=value/column=value.
	// At most 10,000 of them; with more the run ends FAILED, code partition.
	PartitionBy []string `json:"partition_by,omitempty"`
	// The columns of the dataset, in order. A row that has another one, or a value of
	// another type, fails its item. Left out: whatever the rows have.
	Schema []Column `json:"schema,omitempty"`
	// Columns of which no two rows of the dataset are alike; nulls are alike. The
	// dataset is then in the order of these columns.
	UniqueBy []string `json:"unique_by,omitempty"`
	// Which of the rows that are alike stays: first or last by item, then by emission;
	// or error, which ends the run FAILED. "" = first.
	Keep string `json:"keep,omitempty"`
}

// Column is a column of the dataset.
type Column struct {
	Name string `json:"name"` // of the column
	Type string `json:"type"` // string | bytes | int | float | bool | time
}

// Which row of those with one key stays: the values of output.keep.
const (
	KeepFirst = "first"
	KeepLast  = "last"
	KeepError = "error"
)

// Merge shapes the merge tree.
type Merge struct {
	FanIn       int   `json:"fan_in"`               // results a level-1 node takes at least
	TargetRows  int64 `json:"target_rows"`          // ... and until it holds so many rows
	TargetBytes Bytes `json:"target_bytes"`         // ... or bytes
	ByCount     bool  `json:"by_count,omitempty"`   // fan_in alone decides
	RowGroup    int64 `json:"row_group_rows"`       // rows a row group
	PartBytes   Bytes `json:"part_bytes,omitempty"` // a dataset of parts of about so many bytes; 0 = one part
	Dictionary  *bool `json:"dictionary,omitempty"` // force dictionaries on or off; nil = where they pay
	ReadBack    *bool `json:"read_back,omitempty"`  // verify every merged file by reading it again; nil = where its bytes pass through here; copied pages always are
}

// Budget is what a run may cost; it is paused before it passes that.
type Budget struct {
	USD  float64  `json:"usd,omitempty"`  // estimated high; 0 = any
	Wall Duration `json:"wall,omitempty"` // since the submission, pauses left out; 0 = any
}

// DispositionOf resolves what follows from a failure of class: the job file first,
// then the handler's suggestion, then the table of reserved classes; anything
// else is transient.
func (r Retry) DispositionOf(class string, suggested Disposition) Disposition {
	if d, ok := r.Classes[class]; ok {
		return d
	}
	if suggested != "" {
		return suggested
	}
	switch class {
	case ClassBadItem:
		return Permanent
	case ClassRateLimit:
		return RateLimit
	case ClassTimeout:
		return Timeout
	case ClassPoison:
		return Poison
	case ClassLostWorker, ClassBatchFailed, ClassHandler, ClassNoTime:
		return Infra
	}
	return Transient
}

// Rate returns the named limit.
func (d *JobDefinition) Rate(name string) (Rate, bool) {
	for _, r := range d.Rates {
		if r.Name == name {
			return r, true
		}
	}
	return Rate{}, false
}

// Duration is written with its unit: 90s, 1h30m.
type Duration time.Duration

// D is the standard library's form.
func (d Duration) D() time.Duration { return time.Duration(d) }

// MarshalText writes the shortest exact form.
func (d Duration) MarshalText() ([]byte, error) {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return []byte(s), nil
}

// UnmarshalText reads 500ms, 90s, 5m, 6h.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write it with a unit, such as 90s or 5m", b)
	}
	*d = Duration(v)
	return nil
}

// Bytes is written with its unit: 16MiB.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// MarshalText writes the largest binary unit that is exact.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, u := range byteUnits[:4] {
		if b != 0 && int64(b)%u.size == 0 {
			return []byte(strconv.FormatInt(int64(b)/u.size, 10) + u.name), nil
		}
	}
	return []byte(strconv.FormatInt(int64(b), 10) + "B"), nil
}

// UnmarshalText reads 16MiB, 1GB, 512B.
func (b *Bytes) UnmarshalText(t []byte) error {
	s := string(t)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			v, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			if err != nil || v < 0 || v > (1<<62)/u.size {
				break
			}
			*b = Bytes(v * u.size)
			return nil
		}
	}
	return fmt.Errorf("%q is not a size; write it with a unit, such as 16MiB", s)
}

// PerTime is a rate: N events per Per.
type PerTime struct {
	N   int64
	Per time.Duration
}

// PerSecond is the rate in events a second.
func (p PerTime) PerSecond() float64 { return float64(p.N) / p.Per.Seconds() }

// MarshalText writes 10/s, 3000/5m.
func (p PerTime) MarshalText() ([]byte, error) {
	per, _ := Duration(p.Per).MarshalText()
	s := strings.TrimPrefix(string(per), "1")
	if s == "" || (s[0] >= '0' && s[0] <= '9') || s[0] == '.' {
		s = string(per)
	}
	return []byte(strconv.FormatInt(p.N, 10) + "/" + s), nil
}

// UnmarshalText reads N/unit or N/duration: 10/s, 3000/5m.
func (p *PerTime) UnmarshalText(t []byte) error {
	n, per, ok := strings.Cut(string(t), "/")
	bad := fmt.Errorf("%q is not a rate; write it as 10/s or 3000/5m", t)
	if !ok || per == "" {
		return bad
	}
	v, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
	if err != nil || v <= 0 {
		return bad
	}
	if c := per[0]; c != '.' && (c < '0' || c > '9') {
		per = "1" + per
	}
	d, err := time.ParseDuration(per)
	if err != nil || d <= 0 {
		return bad
	}
	p.N, p.Per = v, d
	return nil
}
