package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"hayrick"
	"hayrick/manifest"
)

// A hint works as it is pasted: its commands name the store that -C named, and its
// `run --new` names the job. What is recorded in a run says neither, for stores move.

// commandsIn finds the commands of a text.
var commandsIn = regexp.MustCompile(`(?:\bhayrick )?\brun --new\b|\bhayrick (?:run|submit|worker|check|pause|resume|cancel|ls|plan|watch|status|failures|inspect|audit|redrive|retry|merge|explain|gc|purge|doctor|logs|report|infra (?:up|down))\b`)

// advise makes the commands in a text work as they are pasted; again is the command
// that starts a new run of the job that the text is about.
func (c *cli) advise(text, again string) string {
	var out strings.Builder
	at := 0
	for _, m := range commandsIn.FindAllStringIndex(text, -1) {
		found := text[m[0]:m[1]]
		if m[0] > 0 && strings.ContainsRune("./-_", rune(text[m[0]-1])) {
			continue // the end of a path, such as that of a store: .hayrick run
		}
		out.WriteString(text[at:m[0]])
		at = m[1]
		if strings.HasSuffix(found, "run --new") {
			out.WriteString(again)
		} else {
			out.WriteString(c.command(strings.TrimPrefix(found, "hayrick ")))
		}
	}
	return out.String() + text[at:]
}

// advice is advise where no job is known.
func (c *cli) advice(text string) string { return c.advise(text, c.command("run")+" <job> --new") }

// command is a verb as it is typed for the store that -C names.
func (c *cli) command(verb string) string {
	if !c.storeTyped {
		return "hayrick " + verb
	}
	return "hayrick -C " + shellQuote(c.storeDir) + " " + verb
}

// again is the command that starts a new run of the job file of a run. Paths in a job
// file are relative to the folder it was run in: from elsewhere that comes first.
func (c *cli) again(p manifest.Plan) string {
	job := "<job>"
	if p.Job.ConfigFile != "" {
		job = shellQuote(p.Job.ConfigFile)
	}
	wd, err := os.Getwd()
	if err != nil || p.Job.Folder == "" || p.Job.Folder == wd {
		return c.command("run") + " " + job + " --new"
	}
	store, err := filepath.Abs(c.storeDir)
	if err != nil {
		store = c.storeDir
	}
	return "cd " + shellQuote(p.Job.Folder) + " && hayrick -C " + shellQuote(store) + " run " + job + " --new"
}

// jobFolder is the folder of a run's job file, as it is named from here; "" when the
// run has none, or a handler that is not in it.
func jobFolder(p manifest.Plan, def hayrick.JobDefinition) string {
	if len(def.Handler.Exec) == 0 || p.Job.ConfigFile == "" || p.BundleSHA256 == "" {
		return ""
	}
	dir := filepath.Dir(p.Job.ConfigFile)
	if wd, err := os.Getwd(); err == nil && p.Job.Folder != "" && p.Job.Folder != wd && !filepath.IsAbs(dir) {
		dir = filepath.Join(p.Job.Folder, dir)
	}
	return dir
}

// newCode tells that a run goes on with its handler as it was submitted, where the folder
// of the job has another by now; next is what takes that one. What cannot be compared is
// not told of.
func (c *cli) newCode(ctx context.Context, r *roles, p manifest.Plan, def hayrick.JobDefinition, next func(dir string) string) {
	dir := jobFolder(p, def)
	if dir == "" {
		return
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return // the job came from another machine
	}
	name, err := r.coordinator.ChangedCode(ctx, p, dir)
	if err != nil || name == "" {
		return
	}
	c.mustTell("%s has changed since %s took its code: the handler runs as it was then. %s", filepath.Join(dir, name), p.JobID, next(shellQuote(dir)))
}

// restOf is how what is left of an unfinished run is done by its handler as it is now.
func (c *cli) restOf(p manifest.Plan) func(dir string) string {
	return func(dir string) string {
		return fmt.Sprintf("For what is left as it is now: %s %s --yes && %s %s --code %s; for all items: %s", c.command("cancel"), p.JobID, c.command("redrive"), p.JobID, dir, c.again(p))
	}
}

// again is the command line of a submission, with --new.
func (o submitOptions) again(c *cli) string {
	words := []string{c.command(o.verb), shellQuote(o.job)}
	if o.profile != "" {
		words = append(words, "--profile", shellQuote(o.profile))
	}
	for _, s := range o.sets {
		words = append(words, "--set", shellQuote(s))
	}
	for _, f := range o.keyed {
		words = append(words, f.Name, shellQuote(f.Value))
	}
	if o.detach {
		words = append(words, "--detach")
	}
	if o.strict {
		words = append(words, "--strict")
	}
	return strings.Join(append(words, "--new"), " ")
}

var shellPlain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellQuote is one word of a shell command.
func shellQuote(s string) string {
	if shellPlain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
