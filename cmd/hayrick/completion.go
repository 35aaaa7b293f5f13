package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/jobfile"
	"hayrick/manifest"
)

func completionCommand(c *cli) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion <bash|zsh|fish|powershell>", Short: "Print a script that completes verbs, runs, jobs and classes in a shell",
		Long: `Print the script that makes a shell complete what is typed: verbs and flags, the
runs of the store, job files, profiles and classes of failures.

  bash        source <(hayrick completion bash)         in ~/.bashrc; needs bash-completion
  zsh         source <(hayrick completion zsh)          in ~/.zshrc, after compinit
  fish        hayrick completion fish | source          in ~/.config/fish/config.fish
  powershell  hayrick completion powershell | Out-String | Invoke-Expression   in $PROFILE`,
		Example:     "  hayrick completion bash > /etc/bash_completion.d/hayrick",
		Annotations: map[string]string{exitsNote: "0 2 75", storelessNote: "yes"},
		Args:        arguments(1, 1),
		ValidArgs:   shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.out)
			}
			return &hayrick.UserError{What: fmt.Sprintf("no completion for %q", args[0]), Hint: "write one of " + strings.Join(shells, ", ")}
		},
	}
}

// completionPatience is how long somebody who pressed the tabulator waits.
const completionPatience = 2 * time.Second

// The bounds of what a completion looks at: it is asked for with every key.
const (
	completedRuns  = 1000
	completedLines = 10_000
)

// completes gives every verb that names a run or a job in its usage, and every flag of
// the name of a profile or class, what may stand there. What cannot be found out is
// not offered: a completion tells no errors, and writes nothing.
func (c *cli) completes(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		c.completes(cmd)
		if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil {
			switch _, operand, _ := strings.Cut(cmd.Use, " "); operand {
			case "<job>":
				cmd.ValidArgsFunction = c.offer(c.jobsHere, cobra.ShellCompDirectiveDefault)
			case "<run>", "[run]":
				cmd.ValidArgsFunction = c.offer(c.runsHere, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
			case "":
				cmd.ValidArgsFunction = cobra.NoFileCompletions
			}
		}
		for flag, values := range map[string]func(context.Context, []string, string) ([]string, error){"profile": c.profilesHere, "class": c.classesHere} {
			if cmd.Flags().Lookup(flag) == nil {
				continue
			}
			// The error is that it was registered already: by the verb, which knows better.
			_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				found, err := c.look(cmd.Context(), values, args, typed)
				if err != nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return found, cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
}

// offer makes values those of the first argument.
func (c *cli) offer(values func(context.Context, []string, string) ([]string, error), how cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := c.look(cmd.Context(), values, args, typed)
		if err != nil {
			return nil, how
		}
		return found, how
	}
}

// look asks for values in the store that the words before them name.
func (c *cli) look(ctx context.Context, values func(context.Context, []string, string) ([]string, error), args []string, typed string) ([]string, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := context.WithTimeout(ctx, completionPatience)
	defer stop()
	c.quiet = true // whatever there is to tell would land in the middle of a command line
	if err := errors.Join(c.prepare(), c.settle()); err != nil {
		return nil, err
	}
	found, err := values(ctx, args, typed)
	return slices.DeleteFunc(found, func(s string) bool {
		return !strings.HasPrefix(s, typed) || plain(s) != s && !strings.Contains(s, "\t")
	}), err
}

// idOfRun is the name of a job within the id of a run.
var idOfRun = regexp.MustCompile(`^(.+)-([0-9]{8})-[a-z]{6}$`)

// runsHere are the runs of the store, those of the newest input first, and before
// these @ and @<name>.
func (c *cli) runsHere(ctx context.Context, _ []string, typed string) ([]string, error) {
	if err := c.storeExists(); err != nil {
		return nil, err
	}
	r, store, err := openToRead(ctx, c)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	ids, err := r.lister.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !hayrick.ValidID(id) })
	date := func(id string) string {
		if m := idOfRun.FindStringSubmatch(id); m != nil {
			return m[2]
		}
		return ""
	}
	slices.SortFunc(ids, func(a, b string) int {
		if d := strings.Compare(date(b), date(a)); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	names := map[string]bool{}
	for _, id := range ids {
		if m := idOfRun.FindStringSubmatch(id); m != nil {
			names[m[1]] = true
		}
	}
	var out []string
	if len(ids) > 0 && strings.HasPrefix(typed, latest) || typed == "" && len(ids) > 0 {
		out = append(out, latest+"\tthe latest run")
		for _, name := range slices.Sorted(maps.Keys(names)) {
			out = append(out, latest+name+"\tthe latest run of "+name)
		}
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, typed) })
	return append(out, ids[:min(len(ids), completedRuns)]...), nil
}

// jobsHere are the folders below jobs/ and below the one that is being typed that have
// a job file; files are the shell's own to complete.
func (c *cli) jobsHere(_ context.Context, _ []string, typed string) ([]string, error) {
	var out []string
	for _, pattern := range []string{"jobs/*/" + jobfile.Name, "*/" + jobfile.Name} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			out = append(out, filepath.ToSlash(filepath.Dir(path)))
		}
	}
	if dir := filepath.Dir(typed); strings.Contains(typed, "/") && dir != "jobs" {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return out, nil
		}
		for _, e := range entries {
			if _, err := os.Stat(filepath.Join(dir, e.Name(), jobfile.Name)); err == nil {
				out = append(out, typed[:strings.LastIndexByte(typed, '/')+1]+e.Name())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// profilesHere are the profiles of the job that is named before the flag.
func (c *cli) profilesHere(_ context.Context, args []string, _ string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	return jobfile.Profiles(args[0], jobfile.SettingsFiles(c.get)), nil
}

// classesHere are the classes of failures of the run that is named before the flag, of
// the latest one else: those that its job file names, those that its retry plans
// count, and those of the items that were given up.
func (c *cli) classesHere(ctx context.Context, args []string, _ string) ([]string, error) {
	if err := c.storeExists(); err != nil {
		return nil, err
	}
	r, store, err := openToRead(ctx, c)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	id, err := r.findRun(ctx, append(args, latest)[0])
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	plan, _, err := r.manifests.Plan(ctx, id)
	if err != nil {
		return nil, err
	}
	if def, err := r.manifests.Definition(ctx, plan); err == nil {
		for class := range def.Retry.Classes {
			found[class] = true
		}
		for class := range def.Retry.Lists {
			found[class] = true
		}
	}
	for n := 1; ; n++ {
		p, _, err := r.manifests.RetryPlan(ctx, id, n)
		if err != nil {
			break // the last one, or one that cannot be read
		}
		for class := range p.ErrorTypes {
			found[class] = true
		}
		for _, l := range []*manifest.Ref{p.PermanentList, p.ExhaustedList} {
			lines := 0
			if l == nil {
				continue
			}
			_ = manifest.ReadLines(ctx, r.manifests, id, *l, func(x manifest.ListLine) error { // what is read by then is offered
				found[x.Class] = true
				if lines++; lines == completedLines {
					return errEnough
				}
				return nil
			})
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}
