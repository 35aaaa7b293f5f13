package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"hayrick/manifest"
)

// A hint works as it is pasted: its commands name the store that -C named, and its
// `run --new` names the job. What is recorded in a run says neither, for stores move.

// commandsIn finds the commands of a text.
var commandsIn = regexp.MustCompile(`(?:\bhayrick )?\brun --new\b|\bhayrick (?:run|submit|worker|check|pause|resume|cancel|ls|plan|watch|status|failures|inspect|audit|redrive|retry|merge|explain|gc|purge|doctor|logs|report|infra (?:up|down))\b`)

// advise makes the commands in a text work as they are pasted; again is the command
// that starts a new run of the job that the text is about.
func (c *cli) advise(text, again string) string {
	return commandsIn.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasSuffix(found, "run --new") {
			return again
		}
		return c.command(strings.TrimPrefix(found, "hayrick "))
	})
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
