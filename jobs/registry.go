package jobs

import (
	"slices"
	"strings"
)

// names lists the registered handlers, sorted.
func (r Registry) names() string {
	var out []string
	for n := range r {
		if n != External {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
