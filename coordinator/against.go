package coordinator

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"hayrick"
	"hayrick/manifest"
)

// Against says, in words, in what the run that was previewed would differ from the one of
// plan p: keys of the job file, which were was and are is now, and the input. Nothing:
// both take the same.
func Against(p manifest.Plan, was, is hayrick.JobDefinition, found Preview) []string {
	out := allChanges(was, is)
	if then := InputIdentityOf(p.Input[0]); then != InputIdentityOf(found.Input) && then.URI == found.Input.URI {
		out = append(out, fmt.Sprintf("the input was %s and is %s now", pinWords(p.Input[0].Pin), pinWords(found.Input.Pin)))
	}
	return out
}

// pinWords is which version of an input a pin is, for people.
func pinWords(pin manifest.Pin) string {
	words := humanize.IBytes(uint64(max(0, pin.Size)))
	if !pin.MTime.IsZero() {
		words += " of " + pin.MTime.UTC().Format(time.DateTime)
	}
	return words
}
