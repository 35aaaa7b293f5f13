package sim

import (
	"os"
	"runtime/debug"
	"testing"

	"hayrick/internal/rows"
)

func TestMain(m *testing.M) {
	rows.Warm()
	debug.SetGCPercent(400) // a run holds little and makes much
	os.Exit(m.Run())
}
