// Command mkstore makes the parts of a store on the stand-ins of AWS, which have no
// CloudFormation: a bucket, a table and queues with the properties of infra's template.
// What is there already stays.
// On AWS, and on emulators that have it, `hayrick infra up` does more, and better.
package main

import (
	"context"
	"fmt"
	"os"

	"hayrick/aws"
	"hayrick/internal/standins"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkstore:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("write mkstore s3://<name>")
	}
	name, err := aws.NameOf(args[0])
	if err != nil {
		return err
	}
	cfg, err := aws.LoadConfig(ctx)
	if err != nil {
		return err
	}
	return standins.Make(ctx, cfg, name)
}
