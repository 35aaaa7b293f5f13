package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"hayrick/jobs"
)

func checkCommand(c *cli) *cobra.Command {
	var o submitOptions
	cmd := &cobra.Command{
		Use: "check <job>", Short: "Look for what is wrong with a job before it runs, and write nothing",
		Long: `Look for what is wrong with a job: its file, profile applied, with the rules between its
keys; its handler, which is started where it is a program; the rates, for the clocks of
the store; the output folder; and the first items of the input, as a worker would read
them. All problems of the file are told at once. Nothing is written and no item is
handled.`,
		Example:     "  hayrick check jobs/backfill\n  hayrick check my-job.yaml -p small --set run.max_parallel=4 --json",
		Annotations: endsWith(exitNotFound),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.verb, o.job = "run", args[0]
			return runCheck(cmd.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.profile, "profile", "p", c.get("HAYRICK_PROFILE"), "profile of the job file (default $HAYRICK_PROFILE)")
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the job file, such as run.max_parallel=4")
	return cmd
}

// checked is the result of check.
type checked struct {
	Schema  string         `json:"schema"`
	File    string         `json:"file"`
	Profile string         `json:"profile"`
	Name    string         `json:"name"`
	Handler checkedHandler `json:"handler"`
	Input   string         `json:"input"` // its uri; "" = the handler's own items
	Output  string         `json:"output"`
	Store   string         `json:"store"`
}

type checkedHandler struct {
	Name  string `json:"name"`
	Items bool   `json:"items"` // it lists items of its own
}

// runCheck is what run does before it makes a store.
func runCheck(ctx context.Context, c *cli, o submitOptions) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	f, h, err := c.load(ctx, o)
	if err != nil {
		return err
	}
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	res := checked{
		Schema: "hayrick.check/v1", File: f.Path, Profile: f.Profile, Name: f.Definition.Name,
		Handler: checkedHandler{Name: f.Definition.Handler.Builtin}, Input: f.Definition.Input.URI, Output: f.Definition.Output.URI, Store: c.storeDir,
	}
	_, res.Handler.Items = h.(jobs.Lister)
	st, err := c.openToPlan(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := c.checkInput(ctx, noClones{st}, f.Definition); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(res)
	}
	return c.sayChecked(res, o)
}

func (c *cli) sayChecked(res checked, o submitOptions) error {
	file := res.File
	if res.Profile != "" {
		file += "  (profile " + res.Profile + ")"
	}
	input := res.Input + "  its first items are good"
	if res.Input == "" {
		input = "the handler's own items"
	}
	rows := [][]string{{"file", file}, {"handler", res.Handler.Name}, {"input", input}, {"output", res.Output}, {"store", res.Store}}
	for _, r := range rows {
		c.print("%s %-8s %s", c.paintOut(green, "ok"), r[0], r[1])
	}
	o.verb = "plan"
	c.tell("next: %s", strings.TrimSuffix(o.again(c), " --new"))
	return nil
}
