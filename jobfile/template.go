package jobfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A template is $(...) in a value. There are five, and each is read where it has a
// meaning and nowhere else:
//
//	$(run.id)        output.uri       the id of the run; filled in when it publishes
//	$(item.<field>)  rates[].key      a field of the item; filled in for each item
//	$(job.name)      uris, store      the name of the job
//	$(profile)       uris, store      the profile that is applied
//	$(env.<NAME>)    uris, store      a variable of whoever submits
//
// The last three are filled in here, so what is stored beside a run has them no more.
// For the same reason the environment is read into no other key: what is stored would
// hold a secret.
var templatesOf = []struct {
	key  *regexp.Regexp
	read []string
}{
	{regexp.MustCompile(`^output\.uri$`), []string{"run.id", "job.name", "profile", "env."}},
	{regexp.MustCompile(`^(input\.uri|store)$`), []string{"job.name", "profile", "env."}},
	{regexp.MustCompile(`^rates\[\d+\]\.key$`), []string{"item."}},
}

var (
	everyTemplate = []string{"run.id", "item.", "job.name", "profile", "env."}
	template      = regexp.MustCompile(`\$\(([^()]*)\)?`)
	envName       = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// expander fills in the templates of a tree.
type expander struct {
	getenv        func(string) string
	name, profile string
	problems      Problems
	failed        []string
}

// expand is n with its templates filled in. n is not changed.
func (e *expander) expand(n *node, path string) *node {
	switch n.kind {
	case text:
		if !strings.Contains(n.value, "$(") {
			return n
		}
		out, before := *n, len(e.failed)
		out.value = template.ReplaceAllStringFunc(n.value, func(found string) string { return e.one(n, path, found) })
		if len(e.failed) > before {
			out.kind = null // nothing more is said of it
		}
		return &out
	case list:
		out := *n
		out.items = make([]*node, len(n.items))
		for i, it := range n.items {
			out.items[i] = e.expand(it, fmt.Sprintf("%s[%d]", path, i))
		}
		return &out
	case mapping:
		out := *n
		out.pairs = make([]pair, len(n.pairs))
		for i, p := range n.pairs {
			out.pairs[i] = p
			if !theirs(join(path, p.key)) {
				out.pairs[i].value = e.expand(p.value, join(path, p.key))
			}
		}
		return &out
	}
	return n
}

// theirs says that $(...) at a path is not ours to read: what a shell is given, and
// the keys that are the user's.
func theirs(path string) bool {
	if strings.HasPrefix(path, "handler.params.") {
		return false
	}
	return path == "handler.exec" || strings.HasPrefix(path[strings.LastIndexByte(path, '.')+1:], "x-")
}

// one is what a template stands for; what is filled in later stays as it is.
func (e *expander) one(n *node, path, found string) string {
	bad := func(format string, args ...any) string {
		e.failed = append(e.failed, path)
		e.problems.add(n.Place, "%s: %s", shortened(path), fmt.Sprintf(format, args...))
		return found
	}
	name, whole := strings.CutSuffix(strings.TrimPrefix(found, "$("), ")")
	if !whole {
		return bad("%s has no end; close it with )", shortened(found))
	}
	here := templatesAt(path)
	root, field, _ := strings.Cut(name, ".")
	which := name
	if root == "item" || root == "env" {
		which = root + "."
	}
	if !slices.Contains(everyTemplate, which) {
		return bad("there is no template %s%s", shortened(found), meant(name, words(everyTemplate)))
	}
	if !slices.Contains(here, which) {
		switch {
		case which == "env.":
			return bad("%s is not read here: what is written here is stored beside the run, and may be a secret; let the handler look at its own environment", shortened(found))
		case len(here) == 0:
			return bad("%s is not read here; a uri takes %s, the key of a rate takes $(item.<field>)", shortened(found), listed(templatesAt("output.uri")))
		}
		return bad("%s is not read here; here it takes %s", shortened(found), listed(here))
	}
	switch which {
	case "job.name":
		if e.name == "" {
			return bad("$(job.name): the job has no name; write name: at the top")
		}
		return e.name
	case "profile":
		if e.profile == "" {
			return bad("$(profile): no profile is applied; say -p <name>, or write the value out")
		}
		return e.profile
	case "item.":
		if field == "" {
			return bad("%s names no field; write $(item.<field>)", shortened(found))
		}
	case "env.":
		return e.variable(field, bad)
	}
	return found
}

// variable is the value of a variable that is no secret.
func (e *expander) variable(name string, bad func(string, ...any) string) string {
	switch {
	case !envName.MatchString(name):
		return bad("$(env.%s) names no variable; write $(env.<NAME>)", shortened(name))
	case isSecret(name):
		return bad("$(env.%s) looks like a secret, and what is written here is stored beside the run; let the handler look at its own environment", name)
	case e.getenv == nil || e.getenv(name) == "":
		return bad("$(env.%s): the variable is not set; export %s=..", name, name)
	}
	value := e.getenv(name)
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return bad("$(env.%s): the variable holds control characters; export it anew", name)
	}
	return value
}

func templatesAt(path string) []string {
	for _, t := range templatesOf {
		if t.key.MatchString(path) {
			return t.read
		}
	}
	return nil
}

// words are templates as a person writes them.
func words(templates []string) []string {
	out := make([]string, len(templates))
	for i, t := range templates {
		switch t {
		case "item.":
			t = "item.<field>"
		case "env.":
			t = "env.<NAME>"
		}
		out[i] = t
	}
	return out
}

func listed(templates []string) string {
	var out []string
	for _, w := range words(templates) {
		out = append(out, "$("+w+")")
	}
	return strings.Join(out, ", ")
}
