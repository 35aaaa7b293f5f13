package manifest

import (
	"fmt"

	"hayrick"
)

// corrupt is an ErrCorrupt that says which fact broke.
func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, hayrick.ErrCorrupt)...)
}
