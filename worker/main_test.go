package worker_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var rewrite = flag.Bool("rewrite", false, "write what the conversations in testdata say now")

func TestMain(m *testing.M) {
	if dir := os.Getenv(envJournalDir); dir != "" {
		writeUntilKilled(dir) // this is the child of TestJournalOutlivesItsProcess
	}
	goleak.VerifyTestMain(m)
}
