package main

import (
	"github.com/spf13/cobra"

	"hayrick/infra"
)

func infraCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "infra <print|up|down|zip>", Short: "Make, update and take down a store on AWS",
		Long: `A store on AWS is one CloudFormation stack: a bucket, a table and queues of one name,
the policies of those who may use them, and the functions that work and sweep.
Idle, it costs about a dollar a month, without functions nothing but storage.`,
		Example:     "  hayrick -C s3://lab-hayrick infra up --set BudgetEmail=you@example.com\n  hayrick -C s3://lab-hayrick infra down\n  hayrick infra print > hayrick.yaml",
		Annotations: endsWith(exitUnwell, exitNotFound, exitConflict), SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0], "infra cannot")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(infraPrintCommand(c), infraUpCommand(c), infraDownCommand(c), infraZipCommand(c))
	return cmd
}

func infraPrintCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "print", Short: "Print the template of the stack",
		Long:        "Print the CloudFormation template of a store, to read it, or to deploy it with what\ndeploys your stacks.",
		Example:     "  hayrick infra print > hayrick.yaml",
		Annotations: map[string]string{exitsNote: "0 2 75", storelessNote: "yes"},
		Args:        arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := c.out.Write(infra.Template())
			return err
		},
	}
}
