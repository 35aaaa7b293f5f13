package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/cost"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/manifest"
)

// planOptions are the flags of plan.
type planOptions struct {
	submitOptions
	printPrices bool
	origins     bool
	probe       int // items
	against     string
}

func planCommand(c *cli) *cobra.Command {
	o := planOptions{submitOptions: submitOptions{verb: "run"}}
	cmd := &cobra.Command{
		Use: "plan <job>", Short: "Say what a run would do and cost, and do nothing",
		Long: `Check a job file and its input as run does, index the input, and say what a run would
come to: items, tasks, the time that its rates need at least, and on a store on AWS
every request and what they cost. Nothing is written.

Counts marked "exact" are those of a run without faults. The others depend on time, or
on what the handler emits: say what you know of it with --item-time and --item-rows, or
measure it: --probe 20 runs 20 items, drawn from the whole input, through the handler as
a task would, and keeps no row. It is the real handler: what it asks of an API, writes or
deletes happens. Its tokens are taken from the rates of the store, as a run takes them.
Costs leave out storage, and bytes that leave a region. --against @ says in what the run
would differ from the latest one.`,
		Example:     "  hayrick plan jobs/backfill --probe 20\n  hayrick -C s3://lab-hayrick plan jobs/backfill --detach --item-time 300ms --item-rows 40\n  hayrick plan --print-prices > prices.json",
		Annotations: endsWith(exitNotFound, exitBudget, exitConflict),
		Args:        arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.printPrices {
				_, err := c.out.Write(cost.ListPrices().JSON())
				return err
			}
			if err := arguments(1, 1)(cmd, args); err != nil {
				return err
			}
			if err := parseSubmit(&o.submitOptions, args, cmd.Flags().Changed); err != nil {
				return err
			}
			if err := parsePlan(&o, cmd.Flags().Changed); err != nil {
				return err
			}
			if o.origins {
				return runOrigins(cmd.Context(), c, o.submitOptions)
			}
			return runPlan(cmd.Context(), c, o)
		},
	}
	o.flags(c, cmd)
	f := cmd.Flags()
	f.BoolVar(&o.detach, "detach", false, "plan for the functions of the store, as run --detach leaves it to them")
	f.DurationVar(&o.learned.itemTime, "item-time", 0, "how long the handler takes for an item, such as 300ms")
	f.Float64Var(&o.learned.itemRows, "item-rows", 0, "how many rows it emits for one, on average")
	f.IntVar(&o.probe, "probe", 0, "run so many sampled items through the handler, for the time that a run takes")
	f.StringVar(&o.against, "against", "", "say what differs from this `run`: keys of the job file, input, code")
	f.BoolVar(&o.origins, "show-origin", false, "print every key of the job with its value and where that comes from, and plan nothing")
	f.BoolVar(&o.printPrices, "print-prices", false, "print the table of prices, to be changed and given as --prices")
	return cmd
}

func parsePlan(o *planOptions, given func(flag string) bool) error {
	switch {
	case given("item-time") && o.learned.itemTime <= 0:
		return &hayrick.UserError{What: fmt.Sprintf("--item-time %v", o.learned.itemTime), Hint: "write a time such as 300ms"}
	case given("probe") && (o.probe < 1 || o.probe > mostProbed):
		return &hayrick.UserError{What: fmt.Sprintf("--probe %d", o.probe), Hint: fmt.Sprintf("write how many items to run, from 1 to %d", mostProbed)}
	case given("probe") && given("item-time"):
		return &hayrick.UserError{What: "--probe finds out what --item-time says", Hint: "give one of them"}
	case given("item-rows") && !(o.learned.itemRows >= 0):
		return &hayrick.UserError{What: fmt.Sprintf("--item-rows %g", o.learned.itemRows), Hint: "write a number of rows, from 0"}
	}
	o.learned.rowsGiven = given("item-rows")
	return nil
}

// plan is the result of plan.
type plan struct {
	Schema  string   `json:"schema"`
	JobID   string   `json:"job_id"`
	Resumed bool     `json:"resumed"` // run would go on with this run
	Because []string `json:"because"`
	Items   int64    `json:"items"`
	Tasks   int64    `json:"tasks"`
	Blocks  int64    `json:"blocks"`
	Batch   int      `json:"batch_items"`
	Store   string   `json:"store"`
	Where   string   `json:"where"` // this process, or functions
	// BatchBytes is where a batch ends that has fewer items; 0 = nowhere.
	BatchBytes int64 `json:"batch_bytes"`
	// FloorMS is how long the rates let it take at least; Rate is the one that does.
	FloorMS int64        `json:"floor_ms"`
	Rate    string       `json:"floor_rate,omitempty"`
	Time    *planTime    `json:"time"`
	Probe   *probe       `json:"probe,omitempty"`
	Lines   []cost.Line  `json:"lines"` // of the bill; none on this machine
	USD     cost.Dollars `json:"usd"`
	Budget  *planBudget  `json:"budget,omitempty"`
	Prices  *planPrices  `json:"prices,omitempty"`
	Against *against     `json:"against,omitempty"`
	totals  []priced     // of the lines
	reads   int64        // requests for an input in S3, of a store on this machine
	found   coordinator.Preview
	def     *hayrick.JobDefinition
	assumed [3]assumption // low, expected, high
}

type planTime struct {
	LowMS      int64 `json:"low_ms"`
	ExpectedMS int64 `json:"expected_ms"`
	HighMS     int64 `json:"high_ms"`
}

type planBudget struct {
	USD    float64 `json:"usd,omitempty"`
	WallMS int64   `json:"wall_ms,omitempty"`
}

type planPrices struct {
	Region string `json:"region"`
	AsOf   string `json:"as_of"`
	Source string `json:"source"`
}

// priced is one operation over all steps.
type priced struct {
	op cost.Op
	n  cost.Range
	us cost.Dollars
}

// runPlan prints what a run would come to.
func runPlan(ctx context.Context, c *cli, o planOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	f, h, err := c.load(ctx, o.submitOptions)
	if err != nil {
		return err
	}
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	p, err := c.plan(ctx, f, h, o)
	if err != nil {
		return err
	}
	if o.against != "" {
		if p.Against, err = c.against(ctx, p, f, o.against); err != nil {
			return err
		}
	}
	if c.json {
		err = c.printJSON(p)
	} else {
		err = c.sayPlan(p)
	}
	if err != nil {
		return err
	}
	if p.tooDear() {
		return c.stopped(exitBudget, p.dear(), "raise --budget, or plan fewer items with --limit", "%s", painted(plain(p.dear())))
	}
	return nil
}

// affordable refuses a run whose budget is less than the least that it can cost. Where
// there is no budget, or nothing costs anything, it looks at nothing.
func (c *cli) affordable(ctx context.Context, f jobfile.File, h jobs.Handler, o submitOptions) error {
	if f.Definition.Budget == nil || f.Definition.Budget.USD == 0 || !c.onAWS() {
		return nil
	}
	p, err := c.plan(ctx, f, h, planOptions{submitOptions: o})
	if err != nil || p.Resumed || !p.tooDear() { // a run that is under way is watched as it goes
		return err
	}
	return &hayrick.UserError{
		What: p.dear(), Hint: "raise --budget, or take fewer items with --limit: hayrick plan says what they cost", Exit: exitBudget,
	}
}

func (p *plan) tooDear() bool {
	return !p.Resumed && p.Budget != nil && p.Budget.USD > 0 && p.USD.Low > p.Budget.USD
}

func (p *plan) dear() string {
	return fmt.Sprintf("a run costs %s at least, and its budget is %s", dollars(p.USD.Low), dollars(p.Budget.USD))
}

// planStore is what planning takes of a store.
type planStore interface {
	reads
	Stat(ctx context.Context, uri string) (manifest.Pin, error)
	ListSources(ctx context.Context, uri string, fn func(object string, pin manifest.Pin) error) error
	OpenSource(ctx context.Context, uri string) (io.ReadCloser, manifest.Pin, error)
}

// openToPlan opens a store to look, also one that is not there yet: that one is empty.
func (c *cli) openToPlan(ctx context.Context) (planStore, error) {
	if c.onAWS() {
		st, _, err := openBackend(ctx, c)
		if err != nil {
			return nil, err
		}
		return st.(planStore), nil
	}
	st, err := openReadsHere(ctx, c, c.storeDir)
	if !errors.Is(err, hayrick.ErrNotFound) {
		return st, err
	}
	none, err := os.MkdirTemp("", "hayrick-plan-")
	if err != nil {
		return nil, fmt.Errorf("make a scratch folder: %w", err)
	}
	defer os.Remove(none) // it stays open, and empty
	return openReadsHere(ctx, c, none)
}

// noClones are sources from which nothing is copied.
type noClones struct{ planStore }

func (noClones) Clone(context.Context, string, string) (bool, error) { return false, nil }

// plan finds out what a run would come to.
func (c *cli) plan(ctx context.Context, f jobfile.File, h jobs.Handler, o planOptions) (*plan, error) {
	st, err := c.openToPlan(ctx)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	scratch, err := os.MkdirTemp("", "hayrick-plan-")
	if err != nil {
		return nil, fmt.Errorf("make a scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	if err := c.checkInput(ctx, noClones{st}, f.Definition); err != nil {
		return nil, err
	}
	ask, err := c.submission(ctx, f, h, o.submitOptions, st)
	if err != nil {
		return nil, err
	}
	shown := newIndexing(c)
	ask.Progress = shown.show
	keys, lines := newKeyCounts(f.Definition), &passing{limit: f.Definition.Input.Limit}
	if len(keys.rates) > 0 {
		lines.each = append(lines.each, keys.see)
	}
	drawn := drawing{most: o.probe, rand: c.world.Rand}
	if o.probe > 0 {
		lines.each = append(lines.each, drawn.see)
	}
	co := coordinator.Coordinator{
		Store: &manifest.Store{Objects: st, Clock: c.world.Clock}, Sources: noClones{st}, Lister: st,
		World: c.world, Log: c.log, Scratch: scratch,
	}
	found, err := co.Preview(ctx, ask, lines.writer())
	c.screen.clear()
	if err != nil {
		return nil, c.adviseSubmit(err, o.submitOptions)
	}
	lines.end()
	var probed *probe
	if o.probe > 0 {
		if found.Resumed {
			return nil, &hayrick.UserError{
				What: fmt.Sprintf("run would go on with %s as it was planned: there is nothing to probe for", found.JobID),
				Hint: "see how fast it goes: hayrick status " + found.JobID + "; or plan another run: --new",
			}
		}
		if probed, err = c.probe(ctx, f, h, found.JobID, drawn.items); err != nil {
			return nil, err
		}
	}
	return c.planOf(f.Definition, found, keys.most(), probed, o), nil
}

// planOf puts what was found together.
func (c *cli) planOf(def hayrick.JobDefinition, found coordinator.Preview, most map[string]int64, probed *probe, o planOptions) *plan {
	p := &plan{
		Schema: "hayrick.preview/v1", JobID: found.JobID, Resumed: found.Resumed, Items: found.Items, Tasks: found.Tasks,
		Blocks: (found.Tasks + manifest.BlockTasks - 1) / manifest.BlockTasks, Batch: def.Batch.Items, BatchBytes: int64(def.Batch.Bytes), Store: c.storeDir,
		Where: "this process", Lines: []cost.Line{}, def: &def, found: found, Because: reasons(def, found, o.submitOptions),
	}
	functions := o.detach && c.onAWS()
	if functions {
		p.Where = "the functions of the store"
	} else if o.detach {
		p.Where = "hayrick worker"
	}
	floor, rate := coordinator.FloorOf(c.kept(def.Rates), found.Items, most)
	p.assumed = assume(o.learned, c.onAWS())
	if probed != nil {
		if asked, by := probed.floorOf(c.kept(def.Rates), found.Items); asked > floor {
			floor, rate = asked, by
		}
		room := 0
		if p.Where == "this process" {
			if room = runtime.NumCPU(); len(def.Handler.Exec) > 0 { // its process, and what feeds it
				room = max(1, room/2)
			}
		}
		p.assumed = probed.assumed(p.assumed, o.learned.rowsGiven, room)
		p.Probe = probed
	}
	p.FloorMS, p.Rate = floor.Milliseconds(), rate
	shape := planShape{def: def, found: found, floor: floor, functions: functions, copied: c.copies(def)}
	low, expected, high := shape.job(p.assumed[0]), shape.job(p.assumed[1]), shape.job(p.assumed[2])
	p.Time = &planTime{low.Time.Expected.Milliseconds(), expected.Time.Expected.Milliseconds(), high.Time.Expected.Milliseconds()}
	if b := def.Budget; b != nil {
		p.Budget = &planBudget{b.USD, b.Wall.D().Milliseconds()}
	}
	if !c.onAWS() {
		p.reads = 3*found.Files + found.Tasks // looked at, opened, looked at again; and each batch
		return p
	}
	bill := cost.Estimate(low, expected, high, c.prices)
	p.Lines, p.USD = bill.Lines, bill.USD
	p.Prices = &planPrices{c.prices.Region, c.prices.AsOf, c.prices.Source}
	for _, op := range cost.Ops {
		if n, usd := bill.Total(op); n != (cost.Range{}) {
			p.totals = append(p.totals, priced{op, n, usd})
		}
	}
	return p
}

// reasons says why there will be which run.
func reasons(def hayrick.JobDefinition, found coordinator.Preview, o submitOptions) []string {
	switch {
	case found.Resumed:
		return []string{"an unfinished run of the same job file and input goes on as it was planned; --new starts another"}
	case o.fresh:
		return []string{coordinator.WhyNew + ": --new"}
	case found.Named > 0:
		return []string{fmt.Sprintf(coordinator.WhyNew+": of %s named %s none is an unfinished one of the same job file and input", count(int64(found.Named), "run"), def.Name)}
	}
	return []string{coordinator.WhyNew + ": no run is named " + def.Name}
}

// copies says that the input is copied into the store, and read from there.
func (c *cli) copies(def hayrick.JobDefinition) bool {
	_, converted := coordinator.ConversionOf(def.Input, def.Input.URI)
	return c.onAWS() && (def.Input.Items || onThisMachine(def.Input.URI) || converted || def.Batch.Order == hayrick.OrderShuffle || def.Input.Snapshot == "copy")
}

// readPrices reads a table of prices, the built-in one for no file.
func readPrices(path string) (cost.Prices, error) {
	if path == "" {
		return cost.ListPrices(), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return cost.Prices{}, &hayrick.UserError{What: "the prices cannot be read", Hint: "hayrick plan --print-prices prints a table", Err: err}
	}
	p, err := cost.ReadPrices(b)
	var user *hayrick.UserError
	if errors.As(err, &user) {
		user.What = path + ": " + user.What
	}
	return p, err
}

// sayPlan prints a plan in words.
func (c *cli) sayPlan(p *plan) error {
	c.print("plan   %s -> %s of %s in %s", count(p.Items, "item"), count(p.Tasks, "task"), batchWords(p.def.Batch), count(p.Blocks, "block"))
	c.print("run    %s   %s", p.JobID, strings.Join(p.Because, "; "))
	if p.Against != nil {
		c.sayAgainst(*p.Against)
	}
	c.print("where  %s, %d at once, %s each   store %s", p.Where, p.def.Run.MaxParallel, taskWords(*p.def), p.Store)
	for _, line := range c.rateLines(p.def.Rates, p.Items) {
		c.print("       %s", line)
	}
	if p.FloorMS > 0 {
		c.print("floor  %s: rate %s", ago(ms(p.FloorMS)), p.Rate)
	}
	lo, hi := p.assumed[0], p.assumed[2]
	if p.Probe != nil {
		c.sayProbe(p)
	} else if lo.itemTime == hi.itemTime {
		c.print("time   about %s, at %s an item%s", ago(ms(p.Time.ExpectedMS)), ago(lo.itemTime), oneByOne(*p.def))
	} else {
		c.print("time   %s to %s, if an item takes %s to %s%s: say --item-time, or measure it with --probe 20", ago(ms(p.Time.LowMS)), ago(ms(p.Time.HighMS)), ago(lo.itemTime), ago(hi.itemTime), oneByOne(*p.def))
	}
	switch {
	case p.Prices == nil && !p.def.Input.Items && !onThisMachine(p.def.Input.URI):
		c.print("cost   $0.00 here; S3 bills the reading of the input, about %s, and what leaves its region", count(p.reads, "request"))
		return nil
	case p.Prices == nil:
		c.print("cost   %s: nothing is asked of AWS", dollars(0))
		return nil
	}
	rows := [][]string{{"COST", "REQUESTS", "", "LOW", "LIKELY", "HIGH"}}
	for _, t := range p.totals {
		n, exact := number(t.n.Low)+" to "+number(t.n.High), ""
		if t.n.Exact() {
			n, exact = number(t.n.Low), "exact"
		}
		rows = append(rows, []string{opWords[t.op], n, exact, dollars(t.us.Low), dollars(t.us.Expected), dollars(t.us.High)})
	}
	rows = append(rows, []string{"total", "", "", dollars(p.USD.Low), dollars(p.USD.Expected), dollars(p.USD.High)})
	if err := c.table(rows); err != nil {
		return err
	}
	if lo.itemRows != hi.itemRows {
		c.print("       if an item has %.3g to %.3g rows: say --item-rows", lo.itemRows, hi.itemRows)
	}
	if b := p.Budget; b != nil && b.USD > 0 {
		c.print("budget %s", dollars(b.USD))
	}
	c.print("prices %s, %s; without storage and transfer", p.Prices.Region, p.Prices.AsOf)
	return nil
}

// oneByOne says what is taken for granted of a program that has not been asked.
func oneByOne(def hayrick.JobDefinition) string {
	if len(def.Handler.Exec) == 0 {
		return ""
	}
	return ", one at a time in each process"
}

var opWords = map[cost.Op]string{
	cost.S3Write: "S3 PUT, COPY, POST", cost.S3List: "S3 LIST", cost.S3Read: "S3 GET, HEAD", cost.DBWrite: "DynamoDB writes", cost.DBRead: "DynamoDB reads",
	cost.SQS: "SQS requests", cost.Invocation: "Lambda invocations", cost.LambdaMemory: "Lambda MiB-seconds",
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// dollars is an amount with as many digits as mean something.
func dollars(usd float64) string {
	switch {
	case usd == 0 || usd >= 10:
		return fmt.Sprintf("$%.2f", usd)
	case usd < 0.0001:
		return "<$0.0001"
	}
	return fmt.Sprintf("$%.4f", usd)
}
