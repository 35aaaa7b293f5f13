package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/schema"
)

//go:embed templates
var templateFiles embed.FS

// jobTemplate is a job that init writes.
type jobTemplate struct {
	name, job string
	what      string
	args      string // what the first run takes beside the job
	needs     string // a program that has to be there
}

var jobTemplates = []jobTemplate{
	{"python", "words", "a Python handler over lines of JSON", "", "python3"},
	{"files", "files", "a Python handler over the files of a folder", "", "python3"},
	{"backfill", "backfill", "the builtin handler of atproto accounts, with a demo inside the process", " --profile demo", ""},
}

// initOptions are the flags of init.
type initOptions struct {
	dir      string
	template string
	force    bool
}

func initCommand(c *cli) *cobra.Command {
	var o initOptions
	names, list := make([]string, len(jobTemplates)), ""
	for i, t := range jobTemplates {
		names[i] = t.name
		list += fmt.Sprintf("\n  %-10s jobs/%-10s %s", t.name, t.job, t.what)
	}
	cmd := &cobra.Command{
		Use: "init [dir]", Short: "Write a job to begin with: job file, handler, sample items", Args: arguments(0, 1),
		Long: `Write a job to begin with into a folder, which is made when it is missing (this one
when none is named): its job file, its handler, 20 sample items, a README, and the
JSON Schema that editors check the job file with. It runs as written.

Templates:` + list + `

A file that is there is not touched, and then nothing is written; --force replaces it.`,
		Example:     "  hayrick init demo\n  hayrick init --template files",
		Annotations: map[string]string{exitsNote: "0 2 5 7 75", storelessNote: "yes"},
		RunE: func(_ *cobra.Command, args []string) error {
			if o.dir = "."; len(args) > 0 {
				o.dir = args[0]
			}
			return runInit(c, o)
		},
	}
	cmd.Flags().StringVar(&o.template, "template", "python", "what to begin with: "+strings.Join(names, ", "))
	cmd.Flags().BoolVar(&o.force, "force", false, "replace files that are there")
	if err := cmd.RegisterFlagCompletionFunc("template", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there
	}
	return cmd
}

// initFile is a file that init writes, below its folder.
type initFile struct {
	name string
	body []byte
}

// initialized is what init says with --json.
type initialized struct {
	Schema   string   `json:"schema"`
	Template string   `json:"template"`
	Job      string   `json:"job"` // from the folder that was named
	Dir      string   `json:"dir"`
	Files    []string `json:"files"`
	Next     string   `json:"next"`
}

func runInit(c *cli, o initOptions) error {
	i := slices.IndexFunc(jobTemplates, func(t jobTemplate) bool { return t.name == o.template })
	if i < 0 {
		return &hayrick.UserError{What: fmt.Sprintf("there is no template %q", o.template), Hint: "write --template python, files or backfill"}
	}
	t := jobTemplates[i]
	files, err := t.files()
	if err != nil {
		return err
	}
	if err := placeFiles(o.dir, files, o.force); err != nil {
		return err
	}
	job := "jobs/" + t.job
	did := initialized{Schema: "hayrick.init/v1", Template: t.name, Job: job, Dir: o.dir, Next: "hayrick run " + job + t.args}
	for _, f := range files {
		did.Files = append(did.Files, f.name)
	}
	if o.dir != "." {
		did.Next = "cd " + shellQuote(o.dir) + " && " + did.Next
	}
	if c.json {
		return c.printJSON(did)
	}
	c.print("wrote %s: %s", filepath.Join(o.dir, job), t.what)
	if t.needs != "" {
		if _, err := exec.LookPath(t.needs); err != nil {
			c.tell("%s %s is not on this machine, and the handler needs it", c.paint(bold, "warning:"), t.needs)
		}
	}
	c.tell("next: %s", did.Next)
	return nil
}

// files is what the template is made of: what config.yaml reads lies beside jobs/, not
// in the job's folder, which every worker gets a copy of.
func (t jobTemplate) files() ([]initFile, error) {
	out := []initFile{{"job.v1.json", schema.Job}}
	entries, err := templateFiles.ReadDir("templates/" + t.name)
	if err != nil {
		return nil, fmt.Errorf("read the template %s: %w", t.name, err)
	}
	for _, e := range entries {
		body, err := templateFiles.ReadFile("templates/" + t.name + "/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read the template %s: %w", t.name, err)
		}
		name := "jobs/" + t.job + "/" + e.Name()
		if strings.HasSuffix(e.Name(), ".jsonl") {
			name = e.Name()
		}
		out = append(out, initFile{name, body})
	}
	if t.name == "files" {
		for n := range 20 {
			out = append(out, initFile{fmt.Sprintf("in/%02d.txt", n), []byte(strings.Repeat(fmt.Sprintf("line of file %d\n", n), n))})
		}
	}
	return out, nil
}

// placeFiles writes all of the files or, when one is there and may not be replaced, none.
func placeFiles(dir string, files []initFile, force bool) error {
	var there []string
	for _, f := range files {
		_, err := os.Lstat(filepath.Join(dir, f.name))
		switch {
		case err == nil && f.name != "job.v1.json": // the schema is ours, and the same for all jobs
			there = append(there, f.name)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look at %s: %w", f.name, err)
		}
	}
	if len(there) > 0 && !force {
		what := there[0] + " is there already"
		if len(there) > 1 {
			what = fmt.Sprintf("%s and %s are there already", there[0], count(int64(len(there)-1), "other file"))
		}
		return &hayrick.UserError{What: what + "; nothing was written", Hint: "name another folder, such as hayrick init demo, or replace them with --force", Exit: exitConflict}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the folder of %s: %w", f.name, err)
		}
		if err := os.WriteFile(path, f.body, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return nil
}
