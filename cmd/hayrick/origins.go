package main

import (
	"context"

	"hayrick/jobfile"
	"hayrick/jobs"
)

// origins is the result of plan --show-origin.
type origins struct {
	Schema  string           `json:"schema"`
	File    string           `json:"file"`
	Profile string           `json:"profile"`
	Keys    []jobfile.Origin `json:"keys"`
}

// runOrigins prints every key of a job, its value, and who says it.
func runOrigins(ctx context.Context, c *cli, o submitOptions) error {
	f, h, err := c.load(ctx, o)
	if err != nil {
		return err
	}
	if closer, ok := h.(jobs.Closer); ok {
		defer closer.Close()
	}
	keys, err := f.Origins()
	if err != nil {
		return err
	}
	for i := range keys {
		if keys[i].Key == "store" {
			keys[i] = c.storeOrigin(keys[i])
		}
	}
	if c.json {
		return c.printJSON(origins{"hayrick.origins/v1", f.Path, f.Profile, keys})
	}
	rows := [][]string{{"KEY", "VALUE", "FROM"}}
	for _, k := range keys {
		from := k.From
		if k.About != "" {
			from += "  (" + k.About + ")"
		}
		rows = append(rows, []string{k.Key, k.Text(), from})
	}
	return c.table(rows)
}

// storeOrigin is that of the store, which more may name than a job file.
func (c *cli) storeOrigin(o jobfile.Origin) jobfile.Origin {
	switch {
	case c.storeFlag:
		o.From, o.Layer = "-C", "flag"
	case c.get("HAYRICK_STORE") != "":
		o.From, o.Layer = "$HAYRICK_STORE", "variable"
	}
	o.SetText(c.storeDir)
	return o
}
