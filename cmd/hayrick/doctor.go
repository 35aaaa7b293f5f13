package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"hayrick/aws"
	"hayrick/doctor"
	"hayrick/local"
)

// What a race of doctor is made of.
const (
	raceWriters = 64
	raceRounds  = 5
)

func doctorCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with the store and this machine", Args: arguments(0, 0),
		Long: fmt.Sprintf(`Look at everything that a store needs, and say what is wrong and how to mend it.

Of a store on AWS: credentials, region, bucket, table, queues, functions, quotas, the
clock; and whether the bucket holds put-if-absent, on which everything rests: %d writers
at once, of which exactly one must win, %d times. It writes a few objects below doctor/,
which are gone after a day. What a stand-in of AWS cannot show is said, never passed.
Of a store on this machine: the disk, fsync, link and flock, open files, the clock.

Exit 0: nothing is FAIL.`, raceWriters, raceRounds),
		Example:     "  hayrick doctor\n  hayrick -C s3://lab-hayrick doctor --json | jq -r '.lines[] | select(.status == \"FAIL\") | .fix'",
		Annotations: endsWith(exitUnwell, exitNotFound),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), c) },
	}
}

// diagnosis is the result of doctor.
type diagnosis struct {
	Schema string        `json:"schema"`
	Store  string        `json:"store"`
	Exit   int           `json:"exit"`
	Lines  []doctor.Line `json:"lines"`
}

func runDoctor(ctx context.Context, c *cli) error {
	ctx, stop := c.untilInterrupt(ctx)
	defer stop()
	d := diagnosis{Schema: "hayrick.doctor/v1", Store: c.storeDir}
	if c.onAWS() {
		name, err := aws.NameOf(c.storeDir)
		if err != nil {
			return err
		}
		cfg, err := aws.LoadConfig(ctx)
		if err != nil {
			return err
		}
		facts, err := aws.Examine(ctx, cfg, name, c.world, c.log, raceWriters, raceRounds)
		if err != nil {
			return err
		}
		if d.Lines, err = doctor.JudgeAWS(facts); err != nil {
			return err
		}
	} else {
		d.Lines = doctor.JudgeLocal(local.Examine(c.storeDir, c.world, raceWriters, raceRounds))
	}
	for i := range d.Lines {
		d.Lines[i].Fix = c.advice(d.Lines[i].Fix)
	}
	d.Exit = doctor.Worst(d.Lines)
	if c.json {
		if err := c.printJSON(d); err != nil {
			return err
		}
	} else {
		c.printDiagnosis(d)
	}
	if d.Exit != exitDone {
		return ended(d.Exit)
	}
	return nil
}

// printDiagnosis prints a line each, with its fix below where there is one.
func (c *cli) printDiagnosis(d diagnosis) {
	count, wide := map[doctor.Status]int64{}, 0
	for _, l := range d.Lines {
		wide = max(wide, len(l.Check))
	}
	for _, l := range d.Lines {
		count[l.Status]++
		colour := map[doctor.Status]string{doctor.OK: green, doctor.Fail: red}[l.Status]
		if colour == "" {
			colour = bold
		}
		c.print("%s  %-*s  %s", c.paintOut(colour, fmt.Sprintf("%-14s", l.Status)), wide, l.Check, l.What)
		if l.Fix != "" {
			c.print("%14s  %*s  fix: %s", "", wide, "", l.Fix)
		}
	}
	c.tell("%s: %s ok, %s warn, %s FAIL, %s not shown here", d.Store, number(count[doctor.OK]), number(count[doctor.Warn]), number(count[doctor.Fail]), number(count[doctor.Unshown]))
}
