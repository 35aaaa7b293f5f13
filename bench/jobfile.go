package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// benchJobFile reads every bad job file of the corpus that the tests have, some rounds
// each, as the benchmark beside them does.
func benchJobFile(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkCorpus$", "-benchtime", "5x", "./jobfile")
	cmd.Dir = b.source
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run the benchmark of package jobfile: %w\n%s", err, out)
	}
	found := map[string]float64{}
	words := strings.Fields(string(out))
	for i, unit := range words[min(1, len(words)):] {
		if v, err := strconv.ParseFloat(words[i], 64); err == nil {
			found[unit] = v
		}
	}
	for _, unit := range []string{"slowest-ms", "most-MiB", "files"} {
		if _, ok := found[unit]; !ok {
			return fmt.Errorf("the benchmark of package jobfile says nothing of %s:\n%s", unit, out)
		}
	}
	note := fmt.Sprintf("%.0f files, the best of 5 rounds each; every one is refused in one line", found["files"])
	b.report.addValue(row{What: "the slowest bad job file", Unit: "s", Value: found["slowest-ms"] / 1000, Note: note}, atMost(0.100))
	b.report.addValue(row{What: "the bad job file that allocates most", Unit: "B", Value: found["most-MiB"] * (1 << 20), Note: "garbage included"}, atMost(64<<20))
	return nil
}
