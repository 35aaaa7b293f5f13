package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"hayrick/coordinator"
	"hayrick/jobs"
)

func checkCommand(c *cli) *cobra.Command {
	var o submitOptions
	var keys bool
	cmd := &cobra.Command{
		Use: "check <job>", Short: "Look for what is wrong with a job before it runs, and write nothing",
		Long: `Look for what is wrong with a job: its file, profile applied, with the rules between its
keys; its handler, which is started where it is a program; the rates, for the clocks of
the store; the output folder; and the first items of the input, as a worker would read
them. All problems of the file are told at once. Nothing is written and no item is
handled.

With --keys it reads the whole input and tells items without a key, and keys that more
than one item has, with where they stand: the first 20 of each, the rest as a number. It
sorts the keys in the folder for temporary files ($TMPDIR), in about 64 MiB of memory.`,
		Example:     "  hayrick check jobs/backfill\n  hayrick check my-job.yaml -p small --set run.max_parallel=4 --json\n  hayrick check my-job.yaml --keys",
		Annotations: endsWith(exitNotFound, exitUnwell),
		Args:        arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.verb, o.job = "run", args[0]
			return runCheck(cmd.Context(), c, o, keys)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.profile, "profile", "p", c.get("HAYRICK_PROFILE"), "profile of the job file (default $HAYRICK_PROFILE)")
	f.BoolVar(&keys, "keys", false, "find keys that are missing or there twice, in the whole input; exit 3 when there are some")
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
	Keys    *checkedKeys   `json:"keys,omitempty"` // with --keys
}

type checkedHandler struct {
	Name  string `json:"name"`
	Items bool   `json:"items"` // it lists items of its own
}

// runCheck is what run does before it makes a store.
func runCheck(ctx context.Context, c *cli, o submitOptions, keys bool) error {
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
		Handler: checkedHandler{Name: f.Definition.Handler.Label()}, Input: f.Definition.Input.URI, Output: f.Definition.Output.URI, Store: c.storeDir,
	}
	_, res.Handler.Items = h.(jobs.Lister)
	st, err := c.openToPlan(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if !keys { // which looks at all of them
		if err := c.checkInput(ctx, noClones{st}, f.Definition); err != nil {
			return err
		}
	} else if res.Keys, err = c.checkKeys(ctx, noClones{st}, f, h); err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(res)
	} else {
		err = c.sayChecked(res, o)
	}
	if err == nil && res.Keys != nil && res.Keys.Missing+res.Keys.Twice > 0 {
		return ended(exitUnwell)
	}
	return err
}

func (c *cli) sayChecked(res checked, o submitOptions) error {
	file := res.File
	if res.Profile != "" {
		file += "  (profile " + res.Profile + ")"
	}
	input := res.Input + "  its first items are good"
	switch {
	case res.Input == "":
		input = "the handler's own items"
	case res.Input == coordinator.StdinURI:
		input = "standard input, which run reads"
	}
	if res.Keys != nil {
		return c.sayKeys(res)
	}
	rows := [][]string{{"file", file}, {"handler", res.Handler.Name}, {"input", input}, {"output", res.Output}, {"store", res.Store}}
	for _, r := range rows {
		c.print("%s %-8s %s", c.paintOut(green, "ok"), r[0], r[1])
	}
	o.verb = "plan"
	c.tell("next: %s", strings.TrimSuffix(o.again(c), " --new"))
	return nil
}
