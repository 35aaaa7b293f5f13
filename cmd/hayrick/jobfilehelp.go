package main

import (
	_ "embed"

	"github.com/spf13/cobra"
)

// jobFileHelp is an example that a test loads and compares with what may be written.
//
//go:embed jobfile.yaml
var jobFileHelp string

func jobFileTopic(*cli) *cobra.Command {
	return &cobra.Command{
		Use: "job-file", Short: "What may be written in a job file",
		Long: "A job file, with every key there is and its default:\n\n" + jobFileHelp,
	}
}
