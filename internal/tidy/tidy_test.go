package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the import path of the root package.
const module = "hayrick"

// mayImport says which packages of the module a package may import, tests
// excepted. ARCHITECTURE.md draws it. A folder stands for the packages below it.
var mayImport = map[string][]string{
	"":                   {},
	"internal/rows":      {""},
	"internal/records":   {""},
	"internal/heldclock": {},
	"internal/durable":   {""},
	"manifest":           {""},
	"jobs":               {"", "internal/rows"},
	"jobs/noop":          {"", "jobs"},
	"jobs/extproc":       {"", "jobs", "internal/rows", "internal/processtree"},
	"jobs/backfill":      {"", "jobs", "internal/rows", "jobs/backfill"},
	"jobfile":            {""},
	"schema":             {},
	"ratelimit":          {""},
	"cost":               {"", "manifest"},
	"web":                {"", "manifest"},

	"coordinator":  {"", "manifest", "cost", "internal/records"},
	"worker":       {"", "manifest", "jobs", "ratelimit", "internal/rows", "internal/records"},
	"retryplanner": {"", "manifest"},
	"aggregator":   {"", "manifest", "internal/rows"},
	"audit":        {"", "manifest", "internal/rows"},

	"mem":   {"", "manifest", "ratelimit"},
	"local": {"", "manifest", "ratelimit", "internal/durable", "doctor"},
	"aws":   {"", "manifest", "ratelimit", "infra", "doctor"},

	"infra":               {""},
	"doctor":              {"infra"},
	"internal/standins":   {"aws", "infra"},
	"localstack/mkstore":  {"aws", "internal/standins"},
	"internal/lambdatest": {"infra"},
	"internal/wirelog":    {"infra", "internal/wireproxy"},

	"internal/dispatch":    {"", "coordinator", "worker", "retryplanner", "aggregator"},
	"sim":                  {"", "internal/dispatch", "manifest", "jobs", "ratelimit", "internal/rows", "mem", "coordinator", "worker", "retryplanner", "aggregator", "audit"},
	"sim/model":            {"", "manifest", "mem", "coordinator", "worker", "retryplanner", "aggregator"},
	"internal/storetest":   {"", "manifest", "ratelimit", "coordinator", "worker", "retryplanner", "aggregator", "audit"},
	"internal/keysort":     {},
	"internal/processtree": {},
	"internal/tidy":        {},
	"internal/wirecount":   {"internal/wireproxy"},
	"internal/wireproxy":   {},
	"cmd/hayrick":          {"", "internal/dispatch", "manifest", "jobs", "jobs/noop", "jobs/extproc", "jobs/backfill", "jobfile", "schema", "ratelimit", "internal/rows", "internal/records", "internal/processtree", "internal/keysort", "coordinator", "worker", "retryplanner", "aggregator", "audit", "local", "aws", "infra", "doctor", "cost", "web", "sim"},
}

// impure is what a decide.go or plan.go may not import: the world.
var impure = []string{"context", "os", "net", "net/http", "database/sql", "math/rand", "math/rand/v2", "log/slog", "sync"}

// hidden is what no role and no mechanism reaches for by itself: hayrick.World
// hands it in.
var hidden = map[string][]string{
	"time":         {"Now", "Sleep", "After", "Tick", "NewTimer", "NewTicker", "AfterFunc", "Since", "Until"},
	"math/rand":    nil,
	"math/rand/v2": nil,
}

// worldless are the packages that must not reach for the world.
var worldless = []string{"manifest", "cost", "jobs", "ratelimit", "coordinator", "worker", "retryplanner", "aggregator", "audit", "internal/rows"}

// file is one Go file of the module.
type file struct {
	path    string // slash-separated, from the module's root
	pkg     string // the folder
	test    bool
	ast     *ast.File
	imports []string
}

func files(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			// A folder with a go.mod of its own is another module; in localstack/run things
			// come and go.
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && rel != "." || strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || rel == "localstack/run" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		f := file{path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), ast: parsed}
		if f.pkg == "." {
			f.pkg = ""
		}
		for _, i := range parsed.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			f.imports = append(f.imports, name)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("found %d Go files: the walk does not see the tree", len(out))
	}
	return out
}

// rule finds the entry of the table for a package: its own, or a parent folder's.
func rule(pkg string) (string, bool) {
	for p := pkg; ; p = path.Dir(p) {
		if _, ok := mayImport[p]; ok && (p != "" || pkg == "") {
			return p, true
		}
		if p == "." || p == "" || p == "/" {
			return "", false
		}
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, f := range files(t) {
		entry, ok := rule(f.pkg)
		if !ok {
			t.Errorf("%s: package %q is not in the table of internal/tidy", f.path, f.pkg)
			continue
		}
		for _, i := range f.imports {
			target, ok := strings.CutPrefix(i, module+"/")
			if i == module {
				target, ok = "", true
			}
			if !ok {
				if f.pkg == "" && !f.test && strings.Contains(strings.Split(i, "/")[0], ".") {
					t.Errorf("%s imports %s: the root package has the standard library only", f.path, i)
				}
				continue
			}
			if f.test {
				if target == "internal/storetest" && f.pkg != "mem" && f.pkg != "local" && f.pkg != "aws" {
					t.Errorf("%s imports %s: only the adapters' tests do", f.path, i)
				}
				continue
			}
			if to, _ := rule(target); !slices.Contains(mayImport[entry], to) && to != entry {
				t.Errorf("%s imports %s, which %q may not", f.path, i, entry)
			}
		}
	}
}

func TestThinkingFilesArePure(t *testing.T) {
	seen := 0
	for _, f := range files(t) {
		if base := path.Base(f.path); base != "decide.go" && base != "plan.go" {
			continue
		}
		if f.pkg == "manifest" { // plan.go there is the record of that name
			continue
		}
		seen++
		for _, i := range f.imports {
			if slices.Contains(impure, i) {
				t.Errorf("%s imports %s: it decides, and is handed what it needs", f.path, i)
			}
		}
		if calls := callsOf(f, "time", hidden["time"]); len(calls) > 0 {
			t.Errorf("%s calls time.%s: now is an argument", f.path, calls[0])
		}
	}
	if seen < 4 {
		t.Errorf("only %d thinking files found", seen)
	}
}

func TestRolesReachForNoWorld(t *testing.T) {
	for _, f := range files(t) {
		if f.test || !slices.Contains(worldless, f.pkg) {
			continue
		}
		for _, i := range f.imports {
			names, ok := hidden[i]
			if !ok {
				continue
			}
			if names == nil {
				t.Errorf("%s imports %s: randomness is handed in", f.path, i)
				continue
			}
			for _, c := range callsOf(f, i, names) {
				t.Errorf("%s calls %s.%s: time is handed in", f.path, i, c)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine: hayrick.World.Go does", f.path)
			}
			return true
		})
	}
}

// callsOf lists which of the named functions of an imported package a file uses.
func callsOf(f file, pkg string, names []string) []string {
	var out []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == path.Base(pkg) && x.Obj == nil && slices.Contains(names, sel.Sel.Name) {
			out = append(out, sel.Sel.Name)
		}
		return true
	})
	return out
}

// Every package says what it is, and every exported thing has a comment.
func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	all := map[string]string{}
	for _, f := range files(t) {
		if f.test {
			continue
		}
		all[f.pkg] = f.path
		if f.ast.Doc != nil && len(f.ast.Doc.Text()) > 80 {
			documented[f.pkg] = true
		}
	}
	for pkg, at := range all {
		if !documented[pkg] {
			t.Errorf("package of %s has no doc comment worth reading", at)
		}
	}
}

// 002-29: manifests have one writer, manifest.Store: nobody else commits or replaces an
// object of the store.
func TestOnePackageWritesManifests(t *testing.T) {
	calls := 0
	for _, f := range files(t) {
		if f.test || f.pkg == "internal/storetest" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Commit" && sel.Sel.Name != "Replace" {
				return true
			}
			if of, ok := sel.X.(*ast.SelectorExpr); ok && of.Sel.Name == "Objects" {
				if calls++; f.pkg != "manifest" {
					t.Errorf("%s calls Objects.%s: records are written by manifest.Store", f.path, sel.Sel.Name)
				}
			}
			return true
		})
	}
	if calls < 2 {
		t.Errorf("%d calls found: the test looks in the wrong place", calls)
	}
}
