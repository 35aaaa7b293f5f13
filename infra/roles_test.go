package infra

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// lab is the stack of the golden file: all that there can be.
func lab(t testing.TB) *Stack {
	t.Helper()
	return stack(t, map[string]string{"CodeKey": "code/hayrick-1f0c22aa41b7.zip", "AlarmEmail": "oncall@example.com", "KeepDays": "400", "InputBuckets": "genomes,crawl.2026"})
}

func stack(t testing.TB, values map[string]string) *Stack {
	t.Helper()
	s, err := Resolve(labParams(values))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func labParams(values map[string]string) Params {
	p := Params{Account: "111122223333", Region: "eu-central-1", Values: map[string]string{"Name": "lab.hayrick", "BudgetEmail": "lab@example.com"}}
	maps.Copy(p.Values, values)
	return p
}

// wish is a line of a table: somebody asks for something.
type wish struct {
	line int
	role string
	Request
}

// wishes reads a table of testdata.
func wishes(t testing.TB, s *Stack, file string) []wish {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"bucket": s.Bucket().ARN}
	r, _ := s.Resource("Table")
	places["table"] = r.arn
	for _, q := range s.Queues() {
		places[q.Name[strings.LastIndex(q.Name, "-")+1:]] = q.ARN
	}
	var out []wish
	for n, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 3 {
			t.Fatalf("%s:%d: %q", file, n+1, line)
		}
		req := Request{Action: f[1], Resource: f[2], Context: map[string][]string{
			"aws:SecureTransport": {"true"}, "aws:PrincipalAccount": {"111122223333"},
		}}
		if strings.HasPrefix(f[1], "s3:") {
			req.Context["s3:TlsVersion"] = []string{"1.3"}
		}
		if place, key, _ := strings.Cut(f[2], "/"); places[place] != "" {
			req.Resource = places[place]
			if key != "" {
				req.Resource += "/" + key
			}
		}
		for _, c := range f[3:] {
			key, value, given := strings.Cut(c, "=")
			switch {
			case key == "absent":
				req.Context["s3:if-none-match"] = []string{"*"}
			case key == "pk":
				req.Context["dynamodb:LeadingKeys"] = strings.Split(value, ",")
			case key == "prefix":
				req.Context["s3:prefix"] = []string{value}
			case given:
				req.Context[key] = []string{value}
			default: // a key alone takes it away
				if _, ok := req.Context[key]; !ok {
					t.Fatalf("%s:%d: there is no %s to take away", file, n+1, key)
				}
				delete(req.Context, key)
			}
		}
		for _, role := range strings.Split(f[0], ",") {
			if !slices.Contains(Roles(), role) {
				t.Fatalf("%s:%d: there is no role %s", file, n+1, role)
			}
			out = append(out, wish{n + 1, role, req})
		}
	}
	return out
}

// resourcePolicies are those of the bucket and the queues.
func resourcePolicies(s *Stack) map[string]Policy {
	out := map[string]Policy{"bucket": s.Bucket().Policy}
	for _, q := range s.Queues() {
		out[q.Name] = q.Policy
	}
	return out
}

// world is who may do what: the policies of the roles, and those of what they use.
type world struct {
	roles, resources map[string]Policy
}

func worldOf(s *Stack) world {
	w := world{roles: map[string]Policy{}, resources: resourcePolicies(s)}
	for _, role := range Roles() {
		w.roles[role] = s.Policy(role)
	}
	return w
}

func (w world) decide(q wish) (Decision, error) {
	policies := []Policy{w.roles[q.role]}
	for _, name := range slices.Sorted(maps.Keys(w.resources)) {
		policies = append(policies, w.resources[name])
	}
	return Evaluate(policies, q.Request)
}

// failures lists the lines that do not come out as their table says, most at most.
func (w world) failures(t testing.TB, allowed, forbidden []wish, most int) []string {
	t.Helper()
	var out []string
	for _, table := range []struct {
		file string
		want bool
		asks []wish
	}{{"allowed.txt", true, allowed}, {"forbidden.txt", false, forbidden}} {
		for _, q := range table.asks {
			d, err := w.decide(q)
			if err != nil {
				t.Fatalf("%s:%d: %v", table.file, q.line, err)
			}
			if len(out) == most {
				return out
			}
			if d.Allowed != table.want {
				out = append(out, fmt.Sprintf("%s:%d: %s %s: %s", table.file, q.line, q.role, q.Request, d.Because))
			}
		}
	}
	return out
}

func TestRoles(t *testing.T) {
	s := lab(t)
	allowed, forbidden := wishes(t, s, "testdata/allowed.txt"), wishes(t, s, "testdata/forbidden.txt")
	for _, f := range worldOf(s).failures(t, allowed, forbidden, -1) {
		t.Error(f)
	}
	count := map[string]int{}
	for _, q := range forbidden {
		count[q.role]++
	}
	for _, role := range Roles() {
		if count[role] < 30 {
			t.Errorf("only %d things are forbidden to the %s", count[role], role)
		}
	}
}

// mutants are policies with one fault each; the tables have to notice every one.
func mutants(p Policy) map[string]Policy {
	out := map[string]Policy{}
	mutate := func(name string, i int, change func(*Statement)) {
		m := p
		m.Statements = slices.Clone(p.Statements)
		change(&m.Statements[i])
		out[fmt.Sprintf("%s/%s: %s", p.Name, p.Statements[i].name(i), name)] = m
	}
	for i, s := range p.Statements {
		if len(p.Statements) > 1 {
			m := p
			m.Statements = slices.Delete(slices.Clone(p.Statements), i, i+1)
			out[fmt.Sprintf("%s/%s: left out", p.Name, s.name(i))] = m
		}
		mutate("turned round", i, func(s *Statement) {
			s.Effect = map[string]string{Allow: Deny, Deny: Allow}[s.Effect]
			s.Principal = "" // also of a resource: everybody of the account
		})
		for n, a := range s.Action {
			if len(s.Action) > 1 {
				mutate("without "+a, i, func(s *Statement) { s.Action = slices.Delete(slices.Clone(s.Action), n, n+1) })
			}
		}
		for n, r := range s.Resource {
			rest := slices.Delete(slices.Clone(s.Resource), n, n+1)
			if len(rest) > 0 && !anyARN(rest, r) { // one that another covers is there for the reader
				mutate("without "+r, i, func(s *Statement) { s.Resource = rest })
			}
			if head, _, ok := strings.Cut(r, "/jobs/"); ok {
				mutate("all of the bucket for "+r, i, func(s *Statement) {
					s.Resource = slices.Clone(s.Resource)
					s.Resource[n] = head + "/*"
				})
			}
		}
		if s.Effect == Allow {
			service, _, _ := strings.Cut(s.Action[0], ":")
			mutate("every action", i, func(s *Statement) { s.Action = Strings{service + ":*"} })
			mutate("every resource", i, func(s *Statement) { s.Resource = Strings{"*"} })
		}
		for op, keys := range s.Condition {
			for key, values := range keys {
				mutate("without "+op+" "+key, i, func(s *Statement) {
					s.Condition = maps.Clone(s.Condition)
					delete(s.Condition, op)
				})
				for n, v := range values {
					if len(values) > 1 {
						mutate("without "+op+" "+key+" "+v, i, func(s *Statement) {
							s.Condition = maps.Clone(s.Condition)
							s.Condition[op] = map[string]Strings{key: slices.Delete(slices.Clone(values), n, n+1)}
						})
					}
				}
			}
		}
	}
	return out
}

// The tables tell every policy from one that is a little wider or narrower.
func TestTablesNoticeEveryFault(t *testing.T) {
	s := lab(t)
	allowed, forbidden := wishes(t, s, "testdata/allowed.txt"), wishes(t, s, "testdata/forbidden.txt")
	n := 0
	check := func(w world, name string) {
		n++
		if len(w.failures(t, allowed, forbidden, 1)) == 0 {
			t.Errorf("nobody notices %s", name)
		}
	}
	for role, p := range worldOf(s).roles {
		for name, m := range mutants(p) {
			w := worldOf(s)
			w.roles[role] = m
			check(w, name)
		}
	}
	for resource, p := range worldOf(s).resources {
		for name, m := range mutants(p) {
			w := worldOf(s)
			w.resources[resource] = m
			check(w, resource+" "+name)
		}
		w := worldOf(s)
		delete(w.resources, resource)
		check(w, "no policy of "+resource)
	}
	if n < 200 {
		t.Errorf("only %d mutants", n)
	}
	t.Logf("%d faults", n)
}
