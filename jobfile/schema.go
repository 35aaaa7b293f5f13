package jobfile

import (
	"regexp"
	"time"

	"hayrick"
)

// Defaults is the definition of a file that says nothing.
func Defaults() hayrick.JobDefinition {
	d := hayrick.JobDefinition{
		Input: hayrick.Input{Format: "jsonl", OnBadItem: "fail", Snapshot: "auto"},
		Batch: hayrick.Batches{Items: 100},
		Run: hayrick.Run{
			MaxParallel: 8, ItemsInFlight: 8,
			TaskTimeout: dur(30 * time.Minute), ItemTimeout: dur(90 * time.Second),
			Lease: dur(time.Minute), Linger: dur(30 * time.Second),
		},
		Retry: hayrick.Retry{
			InTask:  hayrick.InTask{Attempts: 3, Initial: dur(500 * time.Millisecond), Max: dur(30 * time.Second)},
			Passes:  3,
			Backoff: hayrick.Backoff{Initial: dur(time.Second), Max: dur(5 * time.Minute)},
		},
		Output: hayrick.Output{URI: "./out/" + runID + "/", Format: "parquet", Compression: "zstd", IfExists: "error"},
		Merge:  hayrick.Merge{FanIn: 10, TargetRows: 122_880, TargetBytes: 64 << 20, RowGroup: 122_880},
	}
	return d
}

func dur(d time.Duration) hayrick.Duration { return hayrick.Duration(d) }

// storeKey names the store that a file's runs are kept in.
const storeKey = "store"

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const (
	maxBatchItems = 1_000_000
	maxParallel   = 10_000
	maxPasses     = 100
	maxRowGroup   = 1 << 30
)

// definition reads a whole file, or a profile of one, over what d says.
func (r *reader) definition(n *node, d *hayrick.JobDefinition) {
	r.object(n, "", fields{
		"version":     whole(r, &d.Version, 1, 1),
		"name":        r.text(&d.Name),
		"description": r.text(&d.Description),
		"handler": func(n *node, path string) {
			r.object(n, path, fields{
				"builtin": r.text(&d.Handler.Builtin),
				"params":  r.json(&d.Handler.Params),
				"exec": func(n *node, path string) {
					d.Handler.Exec = nil
					r.each(func(n *node, path string) {
						var arg string
						r.text(&arg)(n, path)
						d.Handler.Exec = append(d.Handler.Exec, arg)
					})(n, path)
				},
				"env": r.entries(func(p pair, path string) {
					if !variableName.MatchString(p.key) {
						r.problems.add(p.Place, "%s: %q is no name of a variable; write letters, digits and _", path, p.key)
						return
					}
					var v string
					r.text(&v)(p.value, path)
					if d.Handler.Env == nil {
						d.Handler.Env = map[string]string{}
					}
					d.Handler.Env[p.key] = v
				}),
				"pass_env": func(n *node, path string) {
					d.Handler.PassEnv = nil
					r.each(func(n *node, path string) {
						var name string
						r.text(&name)(n, path)
						if name != "" && !variableName.MatchString(name) {
							r.bad(n, path, "%q is no name of a variable; write letters, digits and _", name)
						}
						d.Handler.PassEnv = append(d.Handler.PassEnv, name)
					})(n, path)
				},
				"processes":       whole(r, &d.Handler.Processes, 1, 1000),
				"items_in_flight": whole(r, &d.Handler.ItemsInFlight, 1, maxParallel),
				"rows":            r.oneOf(&d.Handler.Rows, "jsonl", "arrow"),
				"memory":          r.unit(&d.Handler.Memory, "2GiB"),
			})
		},
		"input": func(n *node, path string) {
			r.object(n, path, fields{
				"uri":         r.text(&d.Input.URI),
				"items":       r.flag(&d.Input.Items),
				"format":      r.oneOf(&d.Input.Format, "jsonl", "csv", "tsv", "lines", "parquet", "files"),
				"compression": r.oneOf(&d.Input.Compression, "none", "gzip", "zstd"),
				"columns":     r.texts(&d.Input.Columns),
				"delimiter":   r.text(&d.Input.Delimiter),
				"key":         r.text(&d.Input.Key),
				"limit":       whole(r, &d.Input.Limit, 0, 1<<62),
				"on_bad_item": r.oneOf(&d.Input.OnBadItem, "fail", "skip"),
				"snapshot":    r.oneOf(&d.Input.Snapshot, "auto", "copy"),
			})
			// Where the file does not say, the suffix does.
			if n.get("format") == nil && n.get("uri") != nil && hayrick.FormatOf(d.Input.URI) != "" {
				d.Input.Format = hayrick.FormatOf(d.Input.URI)
			}
		},
		"batch": func(n *node, path string) {
			r.object(n, path, fields{
				"items": whole(r, &d.Batch.Items, 1, maxBatchItems),
				"bytes": r.unit(&d.Batch.Bytes, "16MiB"),
				"order": r.oneOf(&d.Batch.Order, hayrick.OrderInput, hayrick.OrderShuffle),
			})
		},
		"run": func(n *node, path string) {
			r.object(n, path, fields{
				"max_parallel":    whole(r, &d.Run.MaxParallel, 1, maxParallel),
				"items_in_flight": whole(r, &d.Run.ItemsInFlight, 1, maxParallel),
				"task_timeout":    r.unit(&d.Run.TaskTimeout, "30m"),
				"item_timeout":    r.unit(&d.Run.ItemTimeout, "90s"),
				"lease":           r.unit(&d.Run.Lease, "60s"),
				"linger":          r.unit(&d.Run.Linger, "30s"),
			})
		},
		"rates": func(n *node, path string) { d.Rates = nil; r.each(r.rate(&d.Rates))(n, path) },
		"retry": func(n *node, path string) { r.retry(n, path, &d.Retry) },
		"output": func(n *node, path string) {
			r.object(n, path, fields{
				"uri":          r.text(&d.Output.URI),
				"format":       r.oneOf(&d.Output.Format, "parquet", "csv", "jsonl"),
				"compression":  r.oneOf(&d.Output.Compression, "zstd", "gzip", "none"),
				"if_exists":    r.oneOf(&d.Output.IfExists, "error", "overwrite", "append"),
				"schema":       r.schema(&d.Output.Schema),
				"partition_by": r.columns(&d.Output.PartitionBy),
				"unique_by":    r.columns(&d.Output.UniqueBy),
				"keep":         r.oneOf(&d.Output.Keep, hayrick.KeepFirst, hayrick.KeepLast, hayrick.KeepError),
			})
		},
		"budget": func(n *node, path string) {
			if n.kind == null {
				return
			}
			if d.Budget == nil {
				d.Budget = &hayrick.Budget{}
			}
			r.object(n, path, fields{
				"usd":  r.dollars(&d.Budget.USD),
				"wall": r.unit(&d.Budget.Wall, "6h"),
			})
		},
		storeKey:    r.text(new(string)), // Load reads it: a run does not depend on where it is kept
		extendsKey:  r.topOnly("text"),
		profilesKey: r.topOnly("names"),
		"merge": func(n *node, path string) {
			r.object(n, path, fields{
				"fan_in":         whole(r, &d.Merge.FanIn, 2, maxBatchItems),
				"target_rows":    whole(r, &d.Merge.TargetRows, 1, 1<<62),
				"target_bytes":   r.unit(&d.Merge.TargetBytes, "64MiB"),
				"by_count":       r.flag(&d.Merge.ByCount),
				"row_group_rows": whole(r, &d.Merge.RowGroup, 1, maxRowGroup),
				"part_bytes":     r.unit(&d.Merge.PartBytes, "512MiB"),
				"dictionary":     r.optional(&d.Merge.Dictionary),
				"read_back":      r.optional(&d.Merge.ReadBack),
			})
		},
	})
}

// rate reads one item of rates. What it leaves out is: one bucket for the store,
// one second's worth of burst, learning, and a token before each item.
func (r *reader) rate(to *[]hayrick.Rate) func(n *node, path string) {
	return func(n *node, path string) {
		x := hayrick.Rate{Scope: "store", Learn: true, Auto: true, Idle: dur(24 * time.Hour)}
		r.object(n, path, fields{
			"name":  r.text(&x.Name),
			"key":   r.text(&x.Key),
			"limit": r.unit(&x.Limit, "10/s"),
			"burst": whole(r, &x.Burst, 1, 1<<30),
			"scope": r.oneOf(&x.Scope, "store", "job"),
			"learn": r.flag(&x.Learn),
			"auto":  r.flag(&x.Auto),
			"idle":  r.unit(&x.Idle, "24h"),
		})
		if n.kind == null {
			r.bad(n, path, "nothing; write {name: api, limit: 10/s}")
		}
		if x.Burst == 0 && x.Limit.Per > 0 {
			x.Burst = 1 + int(min(x.Limit.PerSecond()+1, 1<<30))
		}
		*to = append(*to, x)
	}
}

func (r *reader) retry(n *node, path string, to *hayrick.Retry) {
	class := func(p pair, path string) bool {
		if !hayrick.ValidClass(p.key) {
			r.problems.add(p.Place, "%s: a class is 1 to 40 of a-z, 0-9 and _", path)
		}
		return hayrick.ValidClass(p.key)
	}
	classes := map[string]hayrick.Disposition{}
	r.object(n, path, fields{
		"in_task": func(n *node, path string) {
			r.object(n, path, fields{
				"attempts": whole(r, &to.InTask.Attempts, 1, 1000),
				"initial":  r.unit(&to.InTask.Initial, "500ms"),
				"max":      r.unit(&to.InTask.Max, "30s"),
			})
		},
		"passes": whole(r, &to.Passes, 0, maxPasses),
		"backoff": func(n *node, path string) {
			r.object(n, path, fields{
				"initial": r.unit(&to.Backoff.Initial, "1s"),
				"max":     r.unit(&to.Backoff.Max, "5m"),
			})
		},
		"classify": func(n *node, path string) { to.Classify = nil; r.each(r.classRule(&to.Classify))(n, path) },
		"permanent": r.each(func(n *node, path string) {
			var c string
			r.text(&c)(n, path)
			switch {
			case c == "":
			case !hayrick.ValidClass(c):
				r.bad(n, path, "a class is 1 to 40 of a-z, 0-9 and _")
			case classes[c] != "" && classes[c] != hayrick.Permanent:
				r.bad(n, path, "retry.classes says that %s is %s; keep one of the two", c, classes[c])
			default:
				classes[c] = hayrick.Permanent
			}
		}),
		"classes": r.entries(func(p pair, path string) {
			var d hayrick.Disposition
			r.disposition(&d)(p.value, path)
			switch {
			case !class(p, path):
			case d != "" && classes[p.key] != "" && classes[p.key] != d:
				r.problems.add(p.Place, "%s: retry.permanent has it too; keep one of the two", path)
			case d != "":
				classes[p.key] = d
			}
		}),
		"lists": r.entries(func(p pair, path string) {
			var name string
			r.text(&name)(p.value, path)
			switch {
			case !class(p, path):
			case !hayrick.ValidID(name):
				r.bad(p.value, path, "%s is not the name of a list; write a-z, 0-9, '.', '_' and '-'", quoted(name))
			case name == exhausted:
				r.bad(p.value, path, "the list %s holds what was given up; choose another name", exhausted)
			default:
				if to.Lists == nil {
					to.Lists = map[string]string{}
				}
				to.Lists[p.key] = name
			}
		}),
		"stop_if": func(n *node, path string) {
			if n.kind == null {
				return
			}
			to.StopIf = &hayrick.StopIf{FailedFraction: 0.5, AfterItems: 100}
			r.object(n, path, fields{
				"failed_fraction": r.fraction(&to.StopIf.FailedFraction),
				"after_items":     whole(r, &to.StopIf.AfterItems, 0, 1<<62),
			})
		},
	})
	if len(classes) > 0 {
		to.Classes = classes
	}
}

// classRule reads one item of retry.classify.
func (r *reader) classRule(to *[]hayrick.ClassRule) read {
	return func(n *node, path string) {
		var x hayrick.ClassRule
		class := func(to *string) read {
			return func(n *node, path string) {
				if r.text(to)(n, path); *to != "" && !hayrick.ValidClass(*to) {
					r.bad(n, path, "%q; a class is 1 to 40 of a-z, 0-9 and _", *to)
				}
			}
		}
		status := func(n *node, path string) {
			var s string
			if r.text(&s)(n, path); s != "" && !hayrick.StatusCode(s).Valid() {
				r.bad(n, path, "%q is not a status; write 404, or 5xx for all that begin so", s)
				return
			}
			x.Status = append(x.Status, hayrick.StatusCode(s))
		}
		r.object(n, path, fields{
			"class": class(&x.Class),
			"status": func(n *node, path string) {
				if n.kind == list {
					r.each(status)(n, path)
				} else {
					status(n, path)
				}
			},
			"message": func(n *node, path string) {
				var s string
				if r.text(&s)(n, path); s == "" {
					return
				}
				if len(s) > maxExpression {
					r.bad(n, path, "%d bytes; write an expression of up to %d", len(s), maxExpression)
				} else if err := x.Message.UnmarshalText([]byte(s)); err != nil {
					r.bad(n, path, "%v", err)
				}
			},
			"as": class(&x.As),
		})
		if n.kind == null || x.As == "" {
			r.bad(n, path, "no class to give; write {status: 404, as: not_found}")
		}
		*to = append(*to, x)
	}
}

// maxExpression bounds retry.classify's expressions, which every failure is matched with.
const maxExpression = 1000

// exhausted is the list of items whose tries are used up.
const exhausted = "exhausted"
