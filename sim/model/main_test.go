package model

import (
	"os"
	"testing"

	"hayrick/internal/rows"
)

func TestMain(m *testing.M) {
	rows.Warm() // its encoders must not be of a bubble
	os.Exit(m.Run())
}
