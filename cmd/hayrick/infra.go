package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"hayrick"
	"hayrick/infra"
)

func infraCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "infra print", Short: "Print the template of a store on AWS",
		Long: `Print the CloudFormation template of a store on AWS: a bucket, a table and three
queues of one name, and the roles that may use them. Deploy it with what deploys
your stacks; then -C s3://<name> is the store.`,
		Example:     "  hayrick infra print > hayrick.yaml\n  hayrick -C s3://lab-hayrick run jobs/backfill",
		Annotations: map[string]string{exitsNote: "0 2 75"},
		Args:        arguments(1, 1), ValidArgs: []string{"print"},
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "print" {
				return &hayrick.UserError{What: fmt.Sprintf("infra cannot %s", plain(args[0])), Hint: "hayrick infra print"}
			}
			_, err := c.out.Write(infra.Template())
			return err
		},
	}
}
