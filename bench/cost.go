package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hayrick/aws"
	"hayrick/cost"
	"hayrick/internal/standins"
	"hayrick/internal/wirecount"
)

// What Step Functions Distributed Map bills, list prices of us-east-1, 2026-11-20
// (aws.amazon.com/step-functions/pricing): a Standard child workflow is two transitions,
// its start and its one Task; an Express one a request and its duration in steps of
// 100 ms at 64 MB, and perhaps a transition of the parent. Each child invokes a function
// once. What the map itself reads and writes in S3 is left out, in its favour.
const (
	transitionUSD = 25.0 / 1e6
	expressUSD    = 1.0 / 1e6
	expressGBsUSD = 16.67 / 1e6
	expressGB     = 0.0625
	itemSeconds   = 0.010
)

// mapped is what a million items cost there, in children of so many.
func mapped(batch int64, invocation float64) (standard, expressLow, expressHigh float64) {
	children := float64((1_000_000 + batch - 1) / batch)
	secs := math.Max(0.1, math.Ceil(float64(batch)*itemSeconds*10)/10)
	standard = children * (2*transitionUSD + invocation)
	expressLow = children * (expressUSD + secs*expressGB*expressGBsUSD + invocation)
	return standard, expressLow, expressLow + children*transitionUSD
}

// wires is what passed on the wire for one whole job.
type wires struct {
	tasks int64
	n     map[string]int64
	units map[string]float64
	puts  int64 // of worker tasks
}

// benchCost counts every request of whole jobs on the stand-ins of AWS, and sets what
// they cost beside Step Functions.
func benchCost(ctx context.Context, b *bench) error {
	if os.Getenv("AWS_ENDPOINT_URL_S3") == "" {
		b.report.missing("requests on the wire", fmt.Errorf("no stand-ins: localstack/up, then . localstack/env"))
		return nil
	}
	counted := map[int64]wires{} // by items a batch
	for _, batch := range []int64{100, 1000} {
		w, err := b.wires(ctx, b.scaled(1_000_000/batch))
		if err != nil {
			return err
		}
		counted[batch] = w
	}
	w := counted[100]
	sum := func(names ...string) (n float64) {
		for _, name := range names {
			n += float64(w.n[name])
		}
		return n
	}
	t := float64(w.tasks)
	puts := sum("s3.PutObject", "s3.CopyObject", "s3.UploadPart", "s3.UploadPartCopy", "s3.CreateMultipartUpload", "s3.CompleteMultipartUpload", "s3.ListObjectsV2")
	writes := sum("dynamodb.PutItem", "dynamodb.UpdateItem", "dynamodb.DeleteItem")
	messages := sum("sqs.SendMessageBatch", "sqs.ReceiveMessage", "sqs.DeleteMessageBatch")
	queue := messages + sum("sqs.GetQueueAttributes", "sqs.GetQueueUrl", "sqs.ChangeMessageVisibilityBatch")
	note := fmt.Sprintf("%d tasks with rows, none failed, counted between the process and the servers", w.tasks)
	var s strings.Builder
	fmt.Fprintf(&s, "A job of %s tasks with rows, none failed:\n\n| requests a task | counted | at most |\n|---|--:|--:|\n", thousands(t))
	for _, x := range []struct {
		what string
		n    float64
		most float64
	}{
		{"S3 PUT, of worker tasks", float64(w.puts), 3.0}, {"DynamoDB writes, of worker tasks", writes - 4, 2.02}, {"SQS, of worker tasks", messages, 0.35},
		{"S3 PUT and LIST, of the whole job", puts, 3.4}, {"DynamoDB writes, of the whole job", writes, 2.3}, {"SQS, of the whole job", queue, 0.4},
	} {
		b.report.addValue(row{What: x.what, Unit: "requests", Value: x.n / t, Note: note}, atMost(x.most))
		note = ""
		fmt.Fprintf(&s, "| %s | %.3f | %.2f |\n", x.what, x.n/t, x.most)
	}
	b.report.cost = s.String() + "\n" + costTable(counted)
	return nil
}

// wires runs a job of so many one-item tasks, each with a row, and counts.
func (b *bench) wires(ctx context.Context, tasks int64) (wires, error) {
	cfg, err := aws.LoadConfig(ctx)
	if err != nil {
		return wires{}, err
	}
	name := fmt.Sprintf("hayrick-bench-%x", time.Now().UnixNano())
	if err := standins.Make(ctx, cfg, name); err != nil {
		return wires{}, err
	}
	m, err := wirecount.Start()
	if err != nil {
		return wires{}, err
	}
	defer m.Close()
	for k, v := range m.Env() {
		was := os.Getenv(k)
		os.Setenv(k, v)
		defer os.Setenv(k, was)
	}
	dir, err := b.fresh("cost")
	if err != nil {
		return wires{}, err
	}
	store := aws.Scheme + name
	text := fmt.Sprintf("version: 1\nname: count\nhandler: {builtin: noop, params: {items: %d, rows: 1}}\ninput: {items: true}\nbatch: {items: 1}\nrun: {max_parallel: 16}\noutput: {uri: %s/out/}\n", tasks, store)
	if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(text), 0o644); err != nil {
		return wires{}, err
	}
	var out bytes.Buffer
	p, err := b.run(ctx, dir, &out, "-C", store, "run", "job.yaml", "--quiet")
	if err != nil {
		return wires{}, err
	}
	b.report.say("  %d tasks on the stand-ins: %.0f s", tasks, p.Seconds)
	return wires{tasks, m.Counts(), m.Units(), m.Of("s3.PutObject", "tasks/task")}, nil
}

// usd is what was counted, with an invocation of a function for each task.
func (w wires) usd(p cost.Prices) float64 {
	price := func(op cost.Op) float64 { return p.USD[op] / 1e6 }
	sum := float64(w.tasks) * price(cost.Invocation)
	for name, n := range w.n {
		service, op, _ := strings.Cut(name, ".")
		switch {
		case service == "sqs":
			sum += float64(n) * price(cost.SQS)
		case service == "dynamodb" && (op == "GetItem" || op == "Query"):
			sum += w.units[name] * price(cost.DBRead)
		case service == "dynamodb":
			sum += w.units[name] * price(cost.DBWrite)
		case op == "GetObject" || op == "HeadObject":
			sum += float64(n) * price(cost.S3Read)
		case op == "DeleteObject" || op == "AbortMultipartUpload":
		default:
			sum += float64(n) * price(cost.S3Write)
		}
	}
	return sum
}

// costTable is the table of docs/cost.md.
func costTable(counted map[int64]wires) string {
	p := cost.ListPrices()
	var s strings.Builder
	fmt.Fprintf(&s, "Prices: %s, %s. Standard and Express are Step Functions Distributed Map.\n\n", p.Region, p.AsOf)
	fmt.Fprintf(&s, "| items a batch | tasks | ours | from | Standard | Express | Standard / ours | Express / ours |\n|--:|--:|--:|---|--:|--:|--:|--:|\n")
	for _, batch := range []int64{1, 10, 100, 1000} {
		tasks := 1_000_000 / batch
		ours, from := 0.0, "the function `plan` uses"
		if w, ok := counted[batch]; ok {
			ours, from = w.usd(p)*float64(tasks)/float64(w.tasks), "the wire"
			if w.tasks != tasks {
				from = fmt.Sprintf("the wire, at %d tasks", w.tasks)
			}
		} else {
			j := cost.Job{
				Submit: cost.Submit{Copied: 1}, Publish: true, Exists: "error", Processes: 1,
				Groups: []cost.Group{{Planned: tasks, Tasks: tasks, Items: 1_000_000, Rows: tasks, Closed: true}},
				Merge:  &cost.Merge{Results: tasks, Rows: tasks, Nodes: 8, Done: 8, Parts: 1, Bytes: 4 << 20},
			}
			ours = cost.Estimate(j, j, j, p).USD.Expected + float64(tasks)*p.USD[cost.Invocation]/1e6
		}
		standard, low, high := mapped(batch, p.USD[cost.Invocation]/1e6)
		fmt.Fprintf(&s, "| %s | %s | $%s | %s | $%s | $%s to %s | %sx | %s to %sx |\n", thousands(float64(batch)), thousands(float64(tasks)),
			digits(ours), from, digits(standard), digits(low), digits(high), short(standard/ours), short(low/ours), short(high/ours))
	}
	return s.String()
}

// digits is an amount with three digits that count.
func digits(usd float64) string {
	if usd >= 1 {
		return short(usd)
	}
	return fmt.Sprintf("%.*f", 2-int(math.Floor(math.Log10(usd))), usd)
}
