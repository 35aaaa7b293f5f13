package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"golang.org/x/term"

	"hayrick"
	"hayrick/coordinator"
	"hayrick/jobfile"
	"hayrick/jobs"
	"hayrick/manifest"
	"hayrick/ratelimit"
)

// submitOptions are the flags of run and submit.
type submitOptions struct {
	verb    string // run or submit, as it was typed
	job     string
	profile string
	sets    []string
	keyed   []jobfile.Flag // the flags that stand for a key: --limit, --budget, --wall
	limit   int64
	fresh   bool
	jobID   string
	budget  float64
	wall    time.Duration
	prices  string
	detach  bool
	dry     bool
	learned learned // of the handler; plan asks
	strict  bool
}

func (o *submitOptions) flags(c *cli, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.profile, "profile", "p", c.get("HAYRICK_PROFILE"), "profile of the job file (default $HAYRICK_PROFILE)")
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the job file, such as run.max_parallel=4")
	f.Int64Var(&o.limit, "limit", 0, "only the first `n` items")
	f.BoolVar(&o.fresh, "new", false, "start a new run, whatever is unfinished or is submitted at the same moment")
	f.StringVar(&o.jobID, "job-id", "", "run under this id")
	f.Float64Var(&o.budget, "budget", 0, "what the run may cost, in `USD`, for budget.usd of the job file")
	f.DurationVar(&o.wall, "wall", 0, "how long it may take, such as 6h, for budget.wall")
	f.StringVar(&o.prices, "prices", "", "`file` of prices, as hayrick plan --print-prices prints them")
}

func runCommand(c *cli) *cobra.Command {
	o := submitOptions{verb: "run"}
	cmd := &cobra.Command{
		Use: "run <job>", Short: "Run a job, or go on with its unfinished run",
		Long: `Run a job file (or the config.yaml of a folder) in this process until it has ended.
Typed again it goes on with the unfinished run of the same job file and input.

The first Ctrl-C (or TERM, or the end of the terminal) ends the items in hand and
leaves the rest for later; the second stops at once. Neither loses anything.`,
		Example:     "  hayrick run jobs/backfill --profile demo\n  hayrick run my-job.yaml --limit 20 --set run.max_parallel=4\n  hayrick run my-job.yaml --detach && hayrick worker",
		Annotations: endsWith(exitUnwell, exitNotFound, exitBudget, exitConflict),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := parseSubmit(&o, args, cmd.Flags().Changed); err != nil {
				return err
			}
			if o.dry {
				return runPlan(cmd.Context(), c, planOptions{submitOptions: o})
			}
			if o.detach {
				return runSubmit(cmd.Context(), c, o)
			}
			return runRun(cmd.Context(), c, o)
		},
	}
	o.flags(c, cmd)
	cmd.Flags().BoolVar(&o.detach, "detach", false, "plan and leave the work to hayrick worker, like submit")
	cmd.Flags().BoolVar(&o.strict, "strict", false, "exit 3 when any item failed")
	cmd.Flags().BoolVar(&o.dry, "dry-run", false, "only say what it would do and cost, like hayrick plan")
	return cmd
}

func parseSubmit(o *submitOptions, args []string, given func(flag string) bool) error {
	o.job = args[0]
	if given("limit") {
		if o.limit < 1 {
			return &hayrick.UserError{What: fmt.Sprintf("--limit %d", o.limit), Hint: "write how many items to take, from 1; leave it out to take all"}
		}
		o.keyed = append(o.keyed, jobfile.Flag{Name: "--limit", Path: "input.limit", Value: strconv.FormatInt(o.limit, 10)})
	}
	b, err := parseBudget(o.budget, o.wall, given)
	if err != nil || b == nil {
		return err
	}
	if given("budget") {
		o.keyed = append(o.keyed, jobfile.Flag{Name: "--budget", Path: "budget.usd", Value: strconv.FormatFloat(b.USD, 'f', -1, 64)})
	}
	if given("wall") {
		text, _ := b.Wall.MarshalText()
		o.keyed = append(o.keyed, jobfile.Flag{Name: "--wall", Path: "budget.wall", Value: string(text)})
	}
	return nil
}

// parseBudget reads --budget and --wall; nil when neither is given.
func parseBudget(usd float64, wall time.Duration, given func(flag string) bool) (*hayrick.Budget, error) {
	switch {
	case given("budget") && !(usd > 0 && usd <= 1e9):
		return nil, &hayrick.UserError{What: fmt.Sprintf("--budget %g", usd), Hint: "write US dollars above 0, such as 25 or 0.5"}
	case given("wall") && wall <= 0:
		return nil, &hayrick.UserError{What: fmt.Sprintf("--wall %v", wall), Hint: "write a time such as 6h"}
	case !given("budget") && !given("wall"):
		return nil, nil
	}
	return &hayrick.Budget{USD: usd, Wall: hayrick.Duration(wall)}, nil
}

// runRun submits and works until the run has ended.
func runRun(ctx context.Context, c *cli, o submitOptions) error {
	start := c.world.Clock.Now()
	r, s, err := submit(ctx, c, o)
	if err != nil {
		return err
	}
	defer r.close()
	return c.finish(ctx, r, s.JobID, start, o.strict)
}

// finish works on a run that has just been swept until it has ended, and prints how.
func (c *cli) finish(ctx context.Context, r *roles, jobID string, start time.Time, strict bool) error {
	k, _, err := r.known(ctx, jobID)
	if err != nil {
		return ofRun(jobID, fmt.Errorf("open run %s: %w", jobID, err))
	}
	if k.Purging() {
		return beingPurged(jobID)
	}
	d := &drive{roles: r, progress: newProgress(c, r.limits.grants), jobID: jobID}
	err = d.run(ctx, k.Definition.Run.MaxParallel, d.follow(jobID))
	c.screen.clear()
	var paused *pausedError
	switch {
	case errors.Is(err, errInterrupted) && c.onAWS():
		return c.stopped(exitInterrupted, "detached; nothing is lost, and whoever else works on the store goes on", "follow it with hayrick watch "+jobID+", or go on here with hayrick resume "+jobID,
			"detached; nothing is lost, and whoever else works on the store goes on.\n  follow it:   hayrick watch %s\n  go on here:  hayrick resume %s", jobID, jobID)
	case errors.Is(err, errInterrupted):
		return c.stopped(exitInterrupted, "interrupted; nothing is lost", "go on with hayrick resume "+jobID,
			"interrupted; nothing is lost. Go on with: hayrick resume %s", jobID)
	case errors.As(err, &paused):
		return c.stopped(paused.exit, paused.Error(), paused.hint, "%s %s", c.paint(bold, "paused:"), paused.reason)
	case err != nil:
		return ofRun(jobID, fmt.Errorf("run %s stopped: %w", jobID, err))
	}
	if k, _, err = r.known(context.WithoutCancel(ctx), jobID); err != nil {
		return err
	}
	if err := r.republish(context.WithoutCancel(ctx), jobID, k); err != nil {
		return err
	}
	return c.printResult(context.WithoutCancel(ctx), r, k, c.world.Clock.Now().Sub(start), strict)
}

// republish puts back what is gone from the output folder of a run that SUCCEEDED, and
// says so.
func (r *roles) republish(ctx context.Context, jobID string, k *coordinator.Known) error {
	again, err := r.aggregator.Republish(ctx, jobID, k.Generation)
	if err != nil {
		return err
	}
	if again.Taken != "" {
		r.tell("%s holds the dataset of %s now, and was left alone", fromHere(again.Folder), again.Taken)
	}
	if len(again.Files) > 0 {
		names := strings.Join(again.Files[:min(5, len(again.Files))], ", ")
		if more := len(again.Files) - 5; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		r.tell("missing or damaged in %s, and published again: %s", fromHere(again.Folder), names)
	}
	return nil
}

// submit loads and checks a job file, opens the store and makes the run exist. The
// caller closes the roles.
func submit(ctx context.Context, c *cli, o submitOptions) (*roles, coordinator.Submitted, error) {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	var none coordinator.Submitted
	f, h, err := c.load(ctx, o)
	if err != nil {
		return nil, none, err
	}
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	if err := c.affordable(ctx, f, h, o); err != nil {
		return nil, none, err
	}
	r, err := openToWork(ctx, c)
	if err != nil {
		return nil, none, err
	}
	s, err := r.submit(ctx, c, f, h, o)
	if err != nil {
		return nil, none, errors.Join(err, r.close())
	}
	c.tellPlan(r, f, s)
	if s.Resumed {
		c.newCode(ctx, r, s.Plan, f.Definition, c.restOf(s.Plan))
	}
	return r, s, nil
}

// load reads and checks a job file, and takes its store where none is named otherwise.
// The caller closes the handler.
func (c *cli) load(ctx context.Context, o submitOptions) (jobfile.File, jobs.Handler, error) {
	f, err := jobfile.Options{
		Settings: jobfile.SettingsFiles(c.get), Profile: o.profile, Getenv: c.get, Environ: c.environ, Sets: o.sets, Flags: o.keyed,
	}.Load(o.job)
	if errors.Is(err, hayrick.ErrNotFound) {
		err = &hayrick.UserError{What: fmt.Sprintf("there is no job file at %s", o.job), Hint: "name a job file, or a folder with a " + jobfile.Name, Exit: exitNotFound}
	}
	if errors.As(err, new(jobfile.Problems)) && holdsItems(o.job) {
		err = &hayrick.UserError{What: o.job + " holds items; it is no job file", Hint: "write a job file whose input.uri names it: hayrick help job-file"}
	}
	if err != nil {
		return f, nil, err
	}
	if f.Store != "" && !c.storeNamed && f.Store != c.storeSettled {
		c.storeDir, c.storeNamed, c.storeTyped = f.Store, true, true // other verbs have to be told
	}
	if c.prices, err = readPrices(o.prices); err != nil {
		return f, nil, err
	}
	h, err := c.checkFile(ctx, f)
	if over := f.Definition.Run.ItemTimeout; err == nil && o.detach && c.onAWS() && over.D() >= longestFunction {
		text, _ := over.MarshalText()
		err = jobfile.Problems{{Place: f.At("run.item_timeout"), What: fmt.Sprintf("run.item_timeout: %s, and no function of AWS lives longer than %v; write less, or leave --detach out and work with hayrick worker", text, longestFunction)}}
	}
	if err == nil && f.Definition.Input.URI == coordinator.StdinURI && f.Definition.Budget != nil && f.Definition.Budget.USD > 0 && c.onAWS() {
		err = jobfile.Problems{{Place: f.At("budget.usd"), What: "budget.usd: what the run costs is found out by reading the input first, and standard input can be read once; write it to a file and name that in input.uri"}}
	}
	if err == nil && !o.detach { // what other machines have, they find out
		err = checkHandler(ctx, f, h)
	}
	return f, h, err
}

// longestFunction is how long AWS lets an invocation take.
const longestFunction = 15 * time.Minute

func (r *roles) submit(ctx context.Context, c *cli, f jobfile.File, h jobs.Handler, o submitOptions) (coordinator.Submitted, error) {
	if err := c.checkInput(ctx, r.store, f.Definition); err != nil {
		return coordinator.Submitted{}, err
	}
	ask, err := c.submission(ctx, f, h, o, r.store)
	if err != nil {
		return coordinator.Submitted{}, err
	}
	s, err := r.submitAsked(ctx, ask)
	return s, c.adviseSubmit(err, o)
}

// submission is what coordinator is asked for.
func (c *cli) submission(ctx context.Context, f jobfile.File, h jobs.Handler, o submitOptions, out listsOutput) (coordinator.Submission, error) {
	ask := coordinator.Submission{
		Definition: f.Definition, ConfigFile: f.Path, ConfigTime: f.ModTime, SubmittedBy: submitter(c), CodeVersion: codeVersion(),
		New: o.fresh, JobID: o.jobID,
		Check: func(record []byte) (string, int) { return damage(record, f.Definition) },
	}
	wd, err := os.Getwd()
	if err != nil {
		return ask, fmt.Errorf("find the working directory: %w", err)
	}
	ask.Folder = wd
	if st, err := os.Stat(o.job); err == nil && st.IsDir() || len(f.Definition.Handler.Exec) > 0 {
		ask.BundleDir = f.Dir // a job file alone has no folder, unless its handler lies beside it
	}
	if l, ok := h.(jobs.Lister); ok {
		ask.Items = l.Items
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		ask.Stdin = os.Stdin
	}
	if f.Definition.Input.URI == coordinator.StdinURI && ask.Stdin != nil {
		in := bufio.NewReaderSize(os.Stdin, checkedBytes)
		if ask.Stdin, err = in, c.checkStdin(in, f.Definition); err != nil {
			return ask, err
		}
	}
	ask.GitCommit, ask.GitDirty = gitState(ctx, f.Dir)
	ask.Admit = func(ctx context.Context, jobID string) error { return outputFree(ctx, out, f.Definition, jobID) }
	return ask, nil
}

// adviseSubmit makes the hint of a refused submission one that works as it is pasted.
func (c *cli) adviseSubmit(err error, o submitOptions) error {
	var user *hayrick.UserError
	if errors.As(err, &user) {
		if strings.HasPrefix(user.What, "the input has changed") { // a resume of what has changed would only pause again
			user.Hint = strings.Replace(user.Hint, "go on with it as it was planned:", "restore the file first, then go on with it as it was planned:", 1)
		}
		user.Hint = c.advise(user.Hint, o.again(c))
	}
	return err
}

// submitAsked submits until the run is one that was asked for. Where a new one was,
// and another submission of the same was faster at this very moment, that one has its
// run now and this one takes the next.
func (r *roles) submitAsked(ctx context.Context, ask coordinator.Submission) (coordinator.Submitted, error) {
	for {
		s, err := r.coordinator.Submit(ctx, ask)
		if err != nil || !ask.New || !s.Resumed {
			return s, err
		}
	}
}

// listsOutput lists a published folder.
type listsOutput interface {
	ListOutput(ctx context.Context, folder string) ([]manifest.Object, error)
}

// outputFree refuses a run whose output folder already holds something, before any
// work is spent on it. The aggregator looks again before it publishes.
func outputFree(ctx context.Context, out listsOutput, def hayrick.JobDefinition, jobID string) error {
	if def.Output.IfExists != "error" {
		return nil
	}
	folder := manifest.OutputURI(def, "", jobID, 0)
	there, err := out.ListOutput(ctx, folder)
	if err != nil || len(there) == 0 {
		return err
	}
	return &hayrick.UserError{
		What: fmt.Sprintf("%s already holds %s, and output.if_exists is error", folder, there[0].Key),
		Hint: elsewhere(def.Output.URI),
		Exit: exitConflict,
	}
}

// elsewhere is what to do about an output folder that is in use. Runs of one job on one
// input have one id in every store.
func elsewhere(uri string) string {
	other := "choose another output.uri (such as ./out/$(run.id)/)"
	if strings.Contains(uri, "$(run.id)") {
		other = "give the run another id with --job-id"
	}
	return "move it away, " + other + ", or set output.if_exists to overwrite or append"
}

// submitter is user@host.
func submitter(c *cli) string {
	name := c.get("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}

// usable is how much of a limit can be used on the store, a second.
func (c *cli) usable(rate hayrick.Rate) float64 {
	l, err := ratelimit.LimitsOf(rate, c.timing())
	if err != nil {
		return rate.Limit.PerSecond() // checkFile has refused it
	}
	return l.Usable()
}

// kept are rates at the pace that they are kept at on the store.
func (c *cli) kept(rates []hayrick.Rate) []hayrick.Rate {
	out := slices.Clone(rates)
	for i, rate := range out {
		if usable := c.usable(rate); usable < rate.Limit.PerSecond() {
			out[i].Limit = hayrick.PerTime{N: 1, Per: time.Duration(float64(time.Second) / usable)}
		}
	}
	return out
}

// batchWords is how large batches become.
func batchWords(b hayrick.Batches) string {
	words := number(int64(b.Items))
	if b.Bytes > 0 {
		words += " or " + size(int64(b.Bytes))
	}
	return words
}

// taskWords is what one task has at work.
func taskWords(def hayrick.JobDefinition) string {
	if len(def.Handler.Exec) > 0 {
		return count(int64(max(1, def.Handler.Processes)), "process")
	}
	return count(int64(def.Run.ItemsInFlight), "item") + " in flight"
}

// tellPlan says what is about to happen.
func (c *cli) tellPlan(r *roles, f jobfile.File, s coordinator.Submitted) {
	p, def := s.Plan, f.Definition
	if s.Resumed {
		c.tell("going on with %s, submitted %s", c.paint(bold, s.JobID), clock(p.SubmittedAt.Time))
	}
	c.tell("plan   %s -> %s of %s   %d at once, %s each   store %s", count(p.Items, "item"), count(p.Group.Tasks, "task"),
		batchWords(def.Batch), def.Run.MaxParallel, taskWords(def), c.storeDir)
	for _, line := range c.rateLines(def.Rates, p.Items) {
		c.tell("       %s", line)
	}
}

// rateLines says what each rate comes to on the store.
func (c *cli) rateLines(rates []hayrick.Rate, items int64) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, rate := range rates {
		limit, _ := rate.Limit.MarshalText()
		usable := c.usable(rate)
		switch {
		case !rate.Auto:
			say("rate %s: %s, as the handler asks", rate.Name, limit)
		case rate.Key != "":
			say("rate %s: %s for each %s", rate.Name, limit, strings.TrimSuffix(strings.TrimPrefix(rate.Key, "$(item."), ")"))
		default:
			say("rate %s: %s; %s take %s at least", rate.Name, limit, count(items, "item"),
				ago(time.Duration(float64(items)/usable*float64(time.Second))))
		}
		if t := c.timing(); usable < rate.Limit.PerSecond()*0.999 {
			say("rate %s: kept at %.3g/s, for tokens here may be %v late and clocks %v off; with burst: %d it is %s",
				rate.Name, usable, t.Lateness, t.ClockBound, ratelimit.MinBurst(rate.Limit, t.ClockBound, t.Lateness), limit)
		}
	}
	return lines
}
