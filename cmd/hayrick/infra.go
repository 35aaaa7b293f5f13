package main

import (
	"github.com/spf13/cobra"

	"hayrick/infra"
)

func infraCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "infra", Short: "What a store on AWS is made of: its template, and the zip of its functions",
		Example:     "  hayrick infra print > hayrick.yaml\n  hayrick infra zip",
		Annotations: endsWith(exitNotFound), SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0], "infra cannot")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(infraPrintCommand(c), infraZipCommand(c))
	return cmd
}

func infraPrintCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "print", Short: "Print the template of a store on AWS",
		Long: `Print the CloudFormation template of a store on AWS: a bucket, a table and three
queues of one name, and the roles that may use them. Deploy it with what deploys
your stacks; then -C s3://<name> is the store.`,
		Example:     "  hayrick infra print > hayrick.yaml\n  hayrick -C s3://lab-hayrick run jobs/backfill",
		Annotations: map[string]string{exitsNote: "0 2 75"},
		Args:        arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := c.out.Write(infra.Template())
			return err
		},
	}
}
