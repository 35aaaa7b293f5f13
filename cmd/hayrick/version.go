package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/spf13/cobra"
)

// build is what is known of this binary.
type build struct {
	Schema  string `json:"schema"`
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Dirty   bool   `json:"dirty"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

var thisBuild = sync.OnceValue(func() build {
	b := build{Schema: "hayrick.version/v1", Version: "devel", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Dirty = s.Value == "true"
		}
	}
	return b
})

// codeVersion is the binary in manifests.
func codeVersion() string { return "hayrick " + thisBuild().Version }

func versionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: arguments(0, 0),
		Example:     "  hayrick version --json",
		Annotations: map[string]string{exitsNote: "0 2 75", storelessNote: "yes"},
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if c.json {
				return c.printJSON(b)
			}
			fmt.Fprintf(c.out, "hayrick %s", b.Version)
			if b.Commit != "" {
				fmt.Fprintf(c.out, " (%s)", short(b.Commit))
			}
			fmt.Fprintf(c.out, ", %s, %s\n", b.Go, b.System)
			return nil
		},
	}
}
