package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
)

// cli is one call of the command: its environment and the flags of every verb.
type cli struct {
	environment
	storeDir  string
	json      bool
	quiet     bool
	verbosity int

	outColour, errColour bool
	screen               *screen // stderr
	log                  *slog.Logger
	world                hayrick.World
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, env environment, args []string) int {
	c := &cli{environment: env, world: hayrick.RealWorld(workerName()), screen: newScreen(env.err, env.width)}
	c.outColour, c.errColour = wantsColour(env, env.outTTY), wantsColour(env, env.errTTY)
	c.err = c.screen
	root := newRoot(c)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	c.screen.clear()
	c.complain(err)
	return exitCode(err)
}

// workerName names this process in claims, manifests and logs.
func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "hayrick",
		Short: "Run batch jobs over many items, from one job file",
		Long: `Hayrick splits an input into batches, runs a handler over each item under global
rate limits, retries what can be retried, and merges the results into one verified
Parquet dataset. Whatever crashes, the same command goes on where it stopped.

A run is named by its id, by any prefix of it that is unique, by @ (the latest run)
or by @name (the latest run of that job).`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			what := fmt.Sprintf("unknown command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				what += fmt.Sprintf("; did you mean %q?", near[0])
			}
			return &hayrick.UserError{What: what, Hint: "hayrick help lists the commands"}
		},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.prepare() },
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &hayrick.UserError{What: err.Error(), Hint: cmd.CommandPath() + " --help lists the flags"}
	})
	f := root.PersistentFlags()
	f.StringVarP(&c.storeDir, "store", "C", "", "folder of the store (default .hayrick, or $HAYRICK_STORE)")
	f.BoolVar(&c.json, "json", false, "print the result as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "tell nothing but errors")
	f.CountVarP(&c.verbosity, "verbose", "v", "tell more; twice: everything")
	root.AddGroup(&cobra.Group{ID: "do", Title: "Run jobs:"}, &cobra.Group{ID: "see", Title: "Look at runs:"})
	for _, add := range []struct {
		group string
		make  func(*cli) *cobra.Command
	}{
		{"do", runCommand}, {"do", submitCommand}, {"do", workerCommand},
		{"do", pauseCommand}, {"do", resumeCommand}, {"do", cancelCommand},
		{"see", lsCommand}, {"see", statusCommand}, {"see", failuresCommand}, {"see", inspectCommand}, {"see", auditCommand},
		{"", versionCommand}, {"", jobFileTopic}, {"", exitCodesTopic},
	} {
		cmd := add.make(c)
		cmd.GroupID = add.group
		root.AddCommand(cmd)
	}
	root.SetHelpTemplate(root.HelpTemplate() + "{{if .Runnable}}\n" + exitHelp + "{{end}}")
	return root
}

// arguments checks how many there are.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		return &hayrick.UserError{What: fmt.Sprintf("%s is given", count(int64(len(args)), "argument")), Hint: "write " + cmd.UseLine()}
	}
}

// prepare makes what the flags decide.
func (c *cli) prepare() error {
	if c.storeDir == "" {
		c.storeDir = c.get("HAYRICK_STORE")
	}
	if c.storeDir == "" {
		c.storeDir = ".hayrick"
	}
	level := slog.LevelWarn
	switch {
	case c.quiet:
		level = slog.LevelError
	case c.verbosity == 1:
		level = slog.LevelInfo
	case c.verbosity > 1:
		level = slog.LevelDebug
	}
	c.log = slog.New(slog.NewTextHandler(c.screen, &slog.HandlerOptions{Level: level, ReplaceAttr: shortTime}))
	return nil
}

// shortTime leaves the date out of log lines.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
}

func exitCodesTopic(*cli) *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: strings.TrimSpace(exitHelp)}
}

// untilInterrupt ends ctx with the first interrupt: for everything that has nothing
// in hand that would be worth ending.
func (c *cli) untilInterrupt(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-c.drain:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
