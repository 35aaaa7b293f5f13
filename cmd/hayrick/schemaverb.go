package main

import (
	"github.com/spf13/cobra"

	"hayrick/schema"
)

func schemaCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of job files, for editors",
		Long: `Print the JSON Schema of job files. An editor with a YAML language server checks and
completes a job file whose first line is

  # yaml-language-server: $schema=job.v1.json

with the path of the schema, relative to the file.`,
		Example:     "  hayrick schema > job.v1.json",
		Annotations: map[string]string{exitsNote: "0 2 75", storelessNote: "yes"},
		Args:        arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := c.out.Write(schema.Job)
			return err
		},
	}
}
