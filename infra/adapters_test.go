package infra_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hayrick/aws"
	"hayrick/infra"
)

func lab(t *testing.T, name string) *infra.Stack {
	t.Helper()
	s, err := infra.Resolve(infra.Params{Account: "111122223333", Region: "eu-central-1", Values: map[string]string{"Name": name, "BudgetEmail": "lab@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The template calls the parts of a store what the adapters look for.
func TestNames(t *testing.T) {
	for _, name := range []string{"lab-hayrick", "lab.hayrick.2"} {
		s, want := lab(t, name), aws.NamesOf(name)
		got := aws.Names{Bucket: s.Bucket().Name, Table: s.Table().Name, Dead: s.Queues()[0].Name, Tasks: s.Queues()[1].Name}
		if got != want {
			t.Errorf("the template makes %+v, the adapters look for %+v", got, want)
		}
		if _, err := aws.NameOf(s.Outputs[slices.IndexFunc(s.Outputs, func(o infra.Output) bool { return o.Name == "Store" })].Value); err != nil {
			t.Errorf("the store that the stack tells of: %v", err)
		}
	}
}

var (
	versioned = regexp.MustCompile(`\bVersionId = &`)
	call      = regexp.MustCompile(`\bs\.(s3|db|sqs)\.([A-Z][A-Za-z0-9]*)\(`)
	paginator = regexp.MustCompile(`\b(s3|dynamodb)\.New([A-Za-z0-9]+)Paginator\(`)
)

// administration are the files for those who make, look over and remove stores. No role
// of a store may do what they do.
var administration = []string{"stacks.go", "data.go", "doctor.go"}

// Every operation that the adapters call is allowed to a role, and no role may do what
// no adapter calls.
func TestPoliciesAllowWhatTheAdaptersCall(t *testing.T) {
	files, err := filepath.Glob("../aws/*.go")
	if err != nil {
		t.Fatal(err)
	}
	called := map[string]string{} // permission -> operation
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || slices.Contains(administration, filepath.Base(f)) {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if versioned.Match(text) { // of a GetObject, which is GetObjectVersion to infra
			names, _ := infra.ActionsOf("s3", "GetObjectVersion")
			for _, n := range names {
				called[n] = "GetObject with a version"
			}
		}
		for _, m := range slices.Concat(call.FindAllStringSubmatch(string(text), -1), paginator.FindAllStringSubmatch(string(text), -1)) {
			service := strings.Replace(m[1], "db", "dynamodb", 1)
			if m[1] == "dynamodb" {
				service = m[1]
			}
			names, ok := infra.ActionsOf(service, m[2])
			if !ok {
				t.Errorf("%s calls %s of %s, which infra does not know", f, m[2], service)
			}
			for _, n := range names {
				called[n] = m[2]
			}
		}
	}
	if len(called) < 12 {
		t.Fatalf("only %d permissions are asked for: %v", len(called), called)
	}
	allowed := map[string]bool{}
	s := lab(t, "lab")
	for _, role := range infra.Roles() {
		for _, st := range s.Policy(role).Statements {
			for _, a := range st.Action {
				allowed[a] = true
				if called[a] == "" {
					t.Errorf("the %s may %s, which no adapter does", role, a)
				}
			}
		}
	}
	for a, op := range called {
		if !allowed[a] {
			t.Errorf("the adapters call %s, and nobody may %s", op, a)
		}
	}
}

// The keys of the table that the policies tell apart are those that the adapter uses.
func TestLeadingKeysAreTheAdapters(t *testing.T) {
	text := ""
	for _, f := range []string{"../aws/state.go", "../aws/buckets.go"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"([a-z]+#)[^"]*"`).FindAllStringSubmatch(text, -1) {
		used[m[1]] = true
	}
	allowed := map[string]bool{}
	s := lab(t, "lab")
	for _, role := range infra.Roles() {
		for _, st := range s.Policy(role).Statements {
			for _, v := range st.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] {
				key := strings.TrimSuffix(v, "*")
				if allowed[key] = true; !used[key] {
					t.Errorf("the %s may use items %s, which the adapter has not", role, v)
				}
			}
		}
	}
	for key := range used {
		if !allowed[key] {
			t.Errorf("the adapter has items %s, and nobody may use them", key)
		}
	}
	if len(used) != 4 {
		t.Errorf("the adapter has items %v", used)
	}
}
