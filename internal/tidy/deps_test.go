package tidy

import (
	"os"
	"strings"
	"testing"
)

// Every direct dependency says in docs/decisions why it is there.
func TestDirectDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/decisions/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || !strings.HasPrefix(line, "\t") { // an indirect one has a comment
			continue
		}
		direct++
		name := fields[0]
		if !strings.Contains(string(page), "`"+name+"`") && !strings.Contains(string(page), "`"+name[strings.LastIndex(name, "/")+1:]+"`") {
			t.Errorf("docs/decisions/dependencies.md does not say why %s is there", name)
		}
	}
	if direct < 5 {
		t.Errorf("only %d direct dependencies found in go.mod", direct)
	}
}
