package audit

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hayrick/manifest"
)

// leftovers are the keys under which an attempt, planner or submission that crashed
// or came second leaves data that nobody names. Everything of it has the digest of its
// bytes in its key.
var leftovers = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`tasks/([a-z0-9._-]+)/[a-z0-9._-]+_[0-9a-f]{8}_[0-9a-f]{12}(?:\.parquet|\.run|_(?:failures|log)\.jsonl|\.(?:csv|jsonl)(?:\.gz|\.zst)?)`,
	`tasks/([a-z0-9._-]+)/checkpoint/[0-9]{8,}-[0-9a-f]{8}-[0-9a-f]{12}`,
	`batches/[a-z0-9_]+/(?:index-[0-9]+-[0-9a-f]{12}|seg-[0-9]+-[0-9a-f]{12}\.jsonl|indexes-[0-9a-f]{12}\.jsonl)`,
	`groups/[a-z0-9_]+/(?:block-[0-9]+-[0-9a-f]{12}\.json|blocks-[0-9a-f]{12}\.jsonl)`,
	`retries/retry-[0-9]+/(?:results|permanent|exhausted)-[0-9a-f]{12}\.jsonl`,
	`aggregation/[0-9]+/(?:part-[0-9]{5,}-[0-9a-f]{12}\.(?:parquet|(?:csv|jsonl)(?:\.gz|\.zst)?)|inputs-[0-9a-f]{12}\.jsonl|lists/[a-z0-9._-]+-[0-9a-f]{12}\.jsonl)`,
	`control/ordinals-[0-9a-f]{12}\.jsonl`,
	`config-[0-9a-f]{12}\.yaml`, `bundle-[0-9a-f]{12}\.tar\.zst`, `input/(?:[0-9a-f]{12}-[a-z0-9._-]+|objects-[0-9a-f]{12}\.jsonl)`,
}, `|`) + `)$`)

var control = regexp.MustCompile(`^control/([0-9]+)\.json$`)

// late says that a key is an order which was on its way when the outcome was committed:
// the outcome does not name it.
func (a *auditor) late(ctx context.Context, rel string) bool {
	m := control.FindStringSubmatch(rel)
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || a.job.Rel(a.job.Control(n)) != rel {
		return false
	}
	o, _, err := a.Store.Control(ctx, a.JobID, n)
	return err == nil && o.Generation <= a.n && (o.Order == manifest.OrderPause || o.Order == manifest.OrderResume || o.Order == manifest.OrderCancel)
}

// strangers lists the job's folder for what no commit names.
func (a *auditor) strangers(ctx context.Context) error {
	if a.blind {
		return nil
	}
	if a.n < a.current {
		a.note("what no commit names was not looked for: generations after this one have theirs")
		return nil
	}
	slices.Sort(a.named)
	named := func(rel string) bool {
		_, found := slices.BinarySearch(a.named, nameHash(rel))
		return found
	}
	var found []Finding
	var seen, more int64
	err := a.Store.Objects.List(ctx, a.job.Prefix(), func(o manifest.Object) error {
		seen++
		if seen%10_000 == 0 {
			a.progress("strangers", seen, 0)
		}
		rel := a.job.Rel(o.Key)
		if named(rel) {
			return nil
		}
		f := Finding{Stranger, CodeStranger, rel, "no commit names it"}
		// Data of an attempt is a leftover where its task is one of the plans'.
		if m := leftovers.FindStringSubmatch(rel); m != nil {
			if task := m[1] + m[2]; task == "" || task == manifest.PartialTask || named(a.job.Rel(a.job.Done(task))) {
				f = Finding{Leftover, CodeLeftover, rel, "no commit names it: its writer crashed or came second"}
			}
		}
		if a.late(ctx, rel) {
			f = Finding{Leftover, CodeLeftover, rel, "an order that came when the generation had ended: it has no effect"}
		}
		if len(found) >= 2*maxFindings {
			more++
			a.report.Counts[f.Severity]++
			return nil
		}
		found = append(found, f)
		return nil
	})
	if unreadable(err) {
		a.lost(CodeForm, a.job.Prefix(), "it cannot be listed: %v", err)
	} else if err != nil {
		return fmt.Errorf("list %s: %w", a.job.Prefix(), err)
	}
	if more > 0 {
		a.note("%d more objects that no commit names", more)
	}
	slices.SortFunc(found, func(x, y Finding) int { return strings.Compare(x.Key, y.Key) })
	a.found = append(a.found, found...)
	return nil
}
