package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/aws"
	"hayrick/cost"
	"hayrick/jobfile"
)

// cli is one call of the command: its environment and the flags of every verb.
type cli struct {
	environment
	storeDir   string
	storeNamed bool // by -C or $HAYRICK_STORE
	storeTyped bool // by -C: hints name it
	storeFlag  bool // by -C, and not by a job file
	// storeSettled is the store that the settings name; "" = they name none. A job file
	// may name another.
	storeSettled string
	memory       string // --memory
	memoryMax    hayrick.Bytes
	json         bool
	quiet        bool
	verbosity    int

	outColour, errColour bool
	screen               *screen // stderr
	log                  *slog.Logger
	world                hayrick.World
	prices               cost.Prices // for --prices; none = those that are built in
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, env environment, args []string) int {
	c := &cli{environment: env, world: hayrick.RealWorld(workerName()), screen: newScreen(env.err, env.width)}
	out := &stdout{to: env.out}
	c.out = out
	c.outColour, c.errColour = wantsColour(env, env.outTTY), wantsColour(env, env.errTTY)
	c.err = c.screen
	root := newRoot(c)
	root.SetArgs(args)
	err := out.verdict(root.ExecuteContext(ctx))
	c.json = c.json || slices.Contains(args, "--json") // also where the flags before it could not be read
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
			return unknownCommand(cmd, args[0], "unknown command")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			c.storeFlag = cmd.Flags().Changed("store")
			if c.storeTyped = c.storeFlag; c.storeTyped && c.storeDir == "" {
				return &hayrick.UserError{What: "-C names no folder", Hint: "write the folder of the store after it, or leave it out for .hayrick"}
			}
			if err := c.prepare(); err != nil || cmd.Annotations[storelessNote] != "" {
				return err
			}
			return c.settle()
		},
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.Name() == "resume" && err.Error() == "unknown flag: --set" {
			return &hayrick.UserError{
				What: "a run keeps its job file until it has ended, but for --budget and --wall",
				Hint: "hayrick cancel <run>, then hayrick redrive <run> --set KEY=VALUE runs what had no end with the change; what is ok stays ok",
			}
		}
		return &hayrick.UserError{What: err.Error(), Hint: cmd.CommandPath() + " --help lists the flags"}
	})
	f := root.PersistentFlags()
	f.StringVarP(&c.storeDir, "store", "C", "", "folder of the store, or s3://name of one on AWS (default .hayrick, or $HAYRICK_STORE)")
	f.StringVar(&c.memory, "memory", "", "what this process may take, such as 512MiB: merges and files of rows hold less and wait for each other; a row must fit eight times, and what the items in hand have emitted comes on top")
	f.BoolVar(&c.json, "json", false, "print the result as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "tell nothing but errors, beside what was asked for: --json, a table, an id")
	f.CountVarP(&c.verbosity, "verbose", "v", "tell more; twice: everything")
	root.AddGroup(&cobra.Group{ID: "do", Title: "Run jobs:"}, &cobra.Group{ID: "see", Title: "Look at runs:"}, &cobra.Group{ID: "keep", Title: "Keep the store:"})
	for _, add := range []struct {
		group string
		make  func(*cli) *cobra.Command
	}{
		{"do", initCommand}, {"do", planCommand}, {"do", runCommand}, {"do", submitCommand}, {"do", workerCommand},
		{"do", handlerCommand}, {"do", simCommand}, {"do", pauseCommand}, {"do", resumeCommand}, {"do", cancelCommand}, {"do", redriveCommand}, {"do", mergeCommand},
		{"see", lsCommand}, {"see", statusCommand}, {"see", watchCommand}, {"see", failuresCommand}, {"see", logsCommand}, {"see", inspectCommand}, {"see", explainCommand}, {"see", reportCommand}, {"see", auditCommand},
		{"keep", gcCommand}, {"keep", purgeCommand},
		{"", doctorCommand}, {"", infraCommand}, {"", lambdaCommand}, {"", versionCommand}, {"do", checkCommand}, {"", schemaCommand}, {"", completionCommand}, {"", jobFileTopic}, {"", exitCodesTopic},
	} {
		cmd := add.make(c)
		cmd.GroupID = add.group
		root.AddCommand(cmd)
	}
	c.completes(root)
	root.SetHelpCommand(helpCommand())
	root.SetHelpTemplate(root.HelpTemplate() + "{{if not .HasParent}}\n" + exitHelp +
		"{{else if .Annotations." + exitsNote + "}}\nExit codes: {{.Annotations." + exitsNote + "}}   (what they mean: hayrick help exit-codes)\n{{end}}")
	return root
}

// unknownCommand is the error about a name that is no command of root.
func unknownCommand(root *cobra.Command, name, what string) error {
	what += fmt.Sprintf(" %q", name)
	if near := root.SuggestionsFor(name); len(near) > 0 {
		what += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return &hayrick.UserError{What: what, Hint: "hayrick help lists the commands"}
}

// exitsNote is the annotation of a verb with the exit codes that it can end with.
const exitsNote = "exits"

// endsWith is that annotation. Every verb can end with those of wrong usage, of a store
// that cannot be used, and of an interrupt.
func endsWith(codes ...int) map[string]string {
	codes = append(codes, exitDone, exitBug, exitUsage, exitPermission, exitTemporary, exitInterrupted)
	slices.Sort(codes)
	var words []string
	for _, c := range slices.Compact(codes) {
		words = append(words, strconv.Itoa(c))
	}
	return map[string]string{exitsNote: strings.Join(words, " ")}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [command or topic]", Short: "Help about a command or a topic",
		Example:     "  hayrick help run\n  hayrick help job-file     every key of a job file\n  hayrick help exit-codes",
		Annotations: map[string]string{exitsNote: "0 2 75"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			of, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, strings.Join(args, " "), "no help on")
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// arguments checks how many there are.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		given := "no argument is given"
		switch n := len(args); {
		case n == 1:
			given = "1 argument is given"
		case n > 1:
			given = count(int64(n), "argument") + " are given"
		}
		return &hayrick.UserError{What: given, Hint: "write " + cmd.UseLine()}
	}
}

// limitMemory says what this process may take: to Go, unless GOMEMLIMIT does, and to
// the merges, which hold less and wait for each other. 0 = nothing is said.
func (c *cli) limitMemory(most hayrick.Bytes) {
	c.memoryMax = most
	if most > 0 && c.get("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(most) * 85 / 100) // some is left to what Go does not count
	}
}

// prepare makes what the flags decide.
func (c *cli) prepare() error {
	if c.storeDir == "" {
		c.storeDir = c.get("HAYRICK_STORE")
	}
	if c.storeNamed = c.storeDir != ""; !c.storeNamed {
		c.storeDir = ".hayrick"
	}
	if err := c.sensibleStore(); err != nil {
		return err
	}
	if c.memory != "" {
		if err := c.memoryMax.UnmarshalText([]byte(c.memory)); err != nil || c.memoryMax < 128<<20 {
			return &hayrick.UserError{What: fmt.Sprintf("--memory %s", c.memory), Hint: "write 128MiB or more, such as 512MiB"}
		}
		c.limitMemory(c.memoryMax)
	}
	switch {
	case c.quiet:
		c.log = slog.New(newStoryLog(c, slog.LevelError))
	case c.verbosity == 0:
		c.log = slog.New(newStoryLog(c, slog.LevelWarn))
	default:
		level := slog.LevelInfo
		if c.verbosity > 1 {
			level = slog.LevelDebug
		}
		c.log = slog.New(slog.NewTextHandler(c.screen, &slog.HandlerOptions{Level: level, ReplaceAttr: logAttr(c.verbosity)}))
	}
	return nil
}

// sensibleStore refuses what was meant for a store on AWS and names a folder.
func (c *cli) sensibleStore() error {
	if scheme := strings.TrimSuffix(aws.Scheme, "//"); !c.onAWS() && len(c.storeDir) >= len(scheme) && strings.EqualFold(c.storeDir[:len(scheme)], scheme) {
		return &hayrick.UserError{
			What: fmt.Sprintf("%q is neither a store on AWS nor a folder", c.storeDir),
			Hint: "write " + aws.Scheme + strings.TrimLeft(c.storeDir[len(scheme):], "/") + ", or ./" + c.storeDir + " for a folder of that name",
		}
	}
	return nil
}

func exitCodesTopic(*cli) *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: strings.TrimSpace(exitHelp)}
}

// storelessNote is the annotation of a verb that looks at no store.
const storelessNote = "storeless"

// settle takes the store from the settings where nothing else names one, so that every
// verb looks where `run` keeps its runs.
func (c *cli) settle() error {
	if c.storeNamed {
		return nil
	}
	store, err := jobfile.SettledStore(jobfile.SettingsFiles(c.get), c.get)
	if err == nil && store != "" {
		c.storeDir, c.storeSettled = store, store
		return c.sensibleStore()
	}
	return err
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
