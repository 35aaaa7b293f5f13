package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/aws"
	"hayrick/infra"
)

type infraUpOptions struct {
	sets        []string
	binary      string
	noFunctions bool
	yes, dryRun bool
}

func infraUpCommand(c *cli) *cobra.Command {
	var o infraUpOptions
	cmd := &cobra.Command{
		Use: "up", Short: "Make the store that -C names, or bring it up to date", Args: arguments(0, 0),
		Long: `Make the stack of the store that -C names, or bring it up to date with this version
of Hayrick and with what --set chooses. It shows what it will do, asks, and then tells
what happens. It may be interrupted and run again at any point: the stack goes on by
itself, and the same command goes on from there.

A new store is made in three steps: the stack without functions, the functions' zip into
its bucket, the functions. A bucket that an earlier store of this name left is taken over
with what is in it.`,
		Example: `  hayrick -C s3://lab-hayrick infra up --set BudgetEmail=you@example.com
  hayrick -C s3://lab-hayrick infra up --set MaxConcurrency=200 --dry-run
  hayrick -C s3://lab-hayrick infra up --no-functions --yes       for Slurm and machines alone`,
		Annotations: endsWith(exitConflict),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runInfraUp(cmd.Context(), c, o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.sets, "set", nil, "`parameter=value` of the template; what is not set stays as it is")
	f.StringVar(&o.binary, "binary", "", "a hayrick built for Linux, for the functions, when this one is not")
	f.BoolVar(&o.noFunctions, "no-functions", false, "make no functions, or remove them: work is done by `hayrick worker`")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be done, and leave")
	return cmd
}

// stackReport is the result of infra up and down.
type stackReport struct {
	Schema  string            `json:"schema"`
	Store   string            `json:"store"`
	Stack   string            `json:"stack"`
	Status  string            `json:"status"` // CloudFormation's; GONE without a stack
	DryRun  bool              `json:"dry_run,omitempty"`
	Changes []stackChange     `json:"changes"`
	Outputs map[string]string `json:"outputs,omitempty"`
}

type stackChange struct {
	Action  string `json:"action"`
	ID      string `json:"id"`
	Type    string `json:"type"`
	Replace string `json:"replace,omitempty"`
}

func runInfraUp(ctx context.Context, c *cli, o infraUpOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	u := infra.Upkeep{Values: map[string]string{}}
	for _, s := range o.sets {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return &hayrick.UserError{What: fmt.Sprintf("--set %s: there is no value", plain(s)), Hint: "write --set MaxConcurrency=100"}
		}
		u.Values[name] = value
	}
	code := &functionCode{binary: o.binary}
	d, report, err := openDeployer(ctx, c, code, o.yes, o.dryRun)
	if err != nil {
		return err
	}
	if u.Store = report.Store; !o.noFunctions {
		if u.CodeKey, u.Architecture, err = code.pack(); err != nil {
			return err
		}
		defer code.close()
	}
	s, err := d.Up(ctx, u)
	if errors.Is(err, infra.ErrLookedOnly) {
		return c.printStack(report, s)
	}
	if err != nil {
		return stackInterrupted(err)
	}
	if err := c.printStack(report, s); err != nil || c.json {
		return err
	}
	store := aws.Scheme + report.Store
	c.tell("next: hayrick -C %s doctor, then hayrick -C %s run <job>", store, store)
	return nil
}

// openDeployer is what changes the stack of the store that -C names, and the report
// that its changes go into.
func openDeployer(ctx context.Context, c *cli, code *functionCode, yes, dryRun bool) (*infra.Deployer, *stackReport, error) {
	if !c.onAWS() {
		return nil, nil, &hayrick.UserError{What: c.storeDir + " is no store on AWS", Hint: "name one: hayrick -C s3://<name> infra up"}
	}
	name, err := aws.NameOf(c.storeDir)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := aws.LoadConfig(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := aws.StacksReachable(cfg); err != nil {
		return nil, nil, err
	}
	report := &stackReport{Schema: "hayrick.stack/v1", Store: name, Stack: infra.StackName(name), Status: "GONE", Changes: []stackChange{}}
	stacks := aws.NewStacks(cfg, c.world, c.log)
	d := &infra.Deployer{
		Stacks: stacks, ChangeSets: stacks, Clock: c.world.Clock,
		Data: storeData{aws.New(cfg, name, c.world, c.log).Data(), code},
		Tell: func(e infra.Event) { c.tellEvent(e) },
		Confirm: func(because string, changes []infra.Change) error {
			for _, ch := range changes {
				report.Changes = append(report.Changes, stackChange{ch.Action, ch.ID, ch.Type, ch.Replace})
			}
			c.tellChanges(report.Stack, cfg.Region, because, changes)
			if report.DryRun = dryRun; dryRun {
				return infra.ErrLookedOnly
			}
			if yes {
				return nil
			}
			return c.confirm("Go ahead?")
		},
	}
	return d, report, nil
}

// storeData is the store's bucket, and the zip at hand.
type storeData struct {
	aws.Data
	code *functionCode
}

// PutCode uploads the zip.
func (d storeData) PutCode(ctx context.Context, key string) error {
	f, err := os.Open(d.code.file)
	if err != nil {
		return fmt.Errorf("read the function's zip: %w", err)
	}
	defer f.Close()
	return d.Put(ctx, key, f)
}

// functionCode is the zip of the functions on this machine.
type functionCode struct{ binary, file string }

// pack writes the zip into a scratch file and returns its key, which has its hash.
func (z *functionCode) pack() (key, architecture string, err error) {
	if z.binary == "" {
		if z.binary, err = thisBinary(); err != nil {
			return "", "", err
		}
	}
	if architecture, err = lambdaArchitecture(z.binary); err != nil {
		return "", "", err
	}
	f, err := os.CreateTemp("", "hayrick-*.zip")
	if err != nil {
		return "", "", fmt.Errorf("make a scratch file for the function's zip: %w", err)
	}
	z.file = f.Name()
	sum, _, err := lambdaZip(f, z.binary)
	if err = errors.Join(err, f.Close()); err != nil {
		z.close()
		return "", "", err
	}
	return "code/hayrick-" + short(sum) + ".zip", architecture, nil
}

func (z *functionCode) close() {
	if z.file != "" {
		os.Remove(z.file)
	}
}

// tellChanges shows what is about to be done.
func (c *cli) tellChanges(stack, region, because string, changes []infra.Change) {
	c.tell("stack %s in %s: %s", stack, region, because)
	for _, ch := range changes {
		note := ""
		switch {
		case ch.Replace == "True":
			note = "   made anew: what it holds is lost"
		case ch.Replace == "Conditional":
			note = "   perhaps made anew"
		}
		c.tell("  %-7s %-22s %s%s", ch.Action, ch.ID, ch.Type, note)
	}
	if len(changes) == 0 {
		c.tell("  no resource is added, removed or made anew")
	}
}

func (c *cli) tellEvent(e infra.Event) {
	why := ""
	if e.Reason != "" && strings.HasSuffix(e.Status, "_FAILED") {
		why = "   " + e.Reason
	}
	c.tell("  %-27s %-22s %s%s", e.Status, e.Resource, e.Type, why)
}

// printStack prints the stack as it is.
func (c *cli) printStack(r *stackReport, s *infra.Existing) error {
	if s != nil {
		r.Status, r.Outputs = s.Status, map[string]string{}
		for _, o := range s.Outputs {
			r.Outputs[o.Name] = o.Value
		}
	}
	if c.json {
		return c.printJSON(r)
	}
	if r.DryRun {
		c.tell("nothing was changed")
		return nil
	}
	rows := [][]string{{"STACK", r.Stack, r.Status}}
	if s != nil {
		for _, o := range s.Outputs {
			rows = append(rows, []string{o.Name, o.Value, o.Description})
		}
	}
	return c.table(rows)
}

// stackInterrupted says that a stack goes on without who looks at it.
func stackInterrupted(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return &hayrick.UserError{What: "interrupted; what CloudFormation has begun goes on by itself", Hint: "the same command goes on from there", Exit: exitInterrupted}
}
