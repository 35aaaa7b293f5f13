package backfill

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"hayrick"
	"hayrick/jobs"
	"hayrick/jobs/backfill/demo"
)

func TestParseParams(t *testing.T) {
	defaults := params{Verify: "mst", MaxBytes: 128 << 20, IdleTimeout: hayrick.Duration(30 * time.Second), PLC: "https://plc.directory", PDSRate: "pds"}
	with := func(change func(*params)) params {
		p := defaults
		change(&p)
		return p
	}
	for raw, want := range map[string]params{
		``:                               defaults,
		`{}`:                             defaults,
		`{"verify":"none"}`:              with(func(p *params) { p.Verify = "none" }),
		`{"max_bytes":"512MiB"}`:         with(func(p *params) { p.MaxBytes = 512 << 20 }),
		`{"idle_timeout":"300ms"}`:       with(func(p *params) { p.IdleTimeout = hayrick.Duration(300 * time.Millisecond) }),
		`{"plc":"https://p.example/x/"}`: with(func(p *params) { p.PLC = "https://p.example/x" }),
		`{"pds_rate":"hosts","resolver_rate":"plc"}`: with(func(p *params) { p.PDSRate, p.ResolverRate = "hosts", "plc" }),
		`{"collections":["app.bsky.feed.post"]}`:     with(func(p *params) { p.Collections = []string{"app.bsky.feed.post"} }),
		`{"demo":{}}`: with(func(p *params) {
			p.PLC, p.Demo = demo.DirectoryURL, &demo.Settings{Accounts: 2000, Hosts: 8, Seed: 1}
		}),
		`{"demo":{"accounts":10,"seed":7}}`: with(func(p *params) {
			p.PLC, p.Demo = demo.DirectoryURL, &demo.Settings{Accounts: 10, Hosts: 8, Seed: 7}
		}),
	} {
		got, err := parseParams(json.RawMessage(raw))
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", raw, err, d)
		}
	}
}

// Every mistake is a user error that names the parameter and what to do.
func TestParamsAreStrict(t *testing.T) {
	for raw, names := range map[string][]string{
		`{"verfy":"mst"}`:                {"handler.params.verfy", "verify"},
		`{"verify":"yes"}`:               {"handler.params.verify", "signature"},
		`{"verify":true}`:                {"handler.params.verify", "signature"},
		`{"max_bytes":512}`:              {"handler.params.max_bytes", "unit"},
		`{"max_bytes":"0B"}`:             {"max_bytes"},
		`{"max_bytes":"769MiB"}`:         {"handler.params.max_bytes", "768MiB"},
		`{"idle_timeout":30}`:            {"handler.params.idle_timeout", "unit"},
		`{"idle_timeout":"-1s"}`:         {"handler.params.idle_timeout", "unit"},
		`{"plc":"http://plc.directory"}`: {"handler.params.plc", "https"},
		`{"plc":7}`:                      {"handler.params.plc", "https"},
		`{"collections":"all"}`:          {"handler.params.collections", "[app.bsky.feed.post]"},
		`{"collections":["post"]}`:       {"handler.params.collections", "app.bsky.feed.post"},
		`{"pds_rate":7}`:                 {"handler.params.pds_rate", "rate"},
		`{"demo":true}`:                  {"handler.params.demo", "accounts"},
		`{"demo":{"acounts":5}}`:         {"handler.params.demo", "acounts"},
		`{"demo":{"accounts":0}}`:        {"handler.params.demo", "accounts"},
		`{"demo":{"hosts":65}}`:          {"handler.params.demo", "hosts"},
		`[]`:                             {"handler.params", "mapping"},
	} {
		_, err := Factory(t.Context(), jobs.Env{World: hayrick.RealWorld("test"), Params: json.RawMessage(raw)})
		var user *hayrick.UserError
		if !errors.As(err, &user) || user.Hint == "" {
			t.Errorf("%s: %v, want a user error with a hint", raw, err)
			continue
		}
		for _, name := range names {
			if !strings.Contains(user.Error()+" "+user.Hint, name) {
				t.Errorf("%s: %v (hint: %s) does not say %q", raw, err, user.Hint, name)
			}
		}
	}
}

// merge lays a profile over the job file: mappings are joined, all else replaced.
func merge(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range over {
		b, isMap := out[k].(map[string]any)
		if o, ok := v.(map[string]any); ok && isMap {
			v = merge(b, o)
		}
		out[k] = v
	}
	return out
}

// The job file has only keys of a JobDefinition, and its handler accepts the
// params, as it stands and with the profile demo.
func TestConfigIsAJobDefinition(t *testing.T) {
	raw, err := os.ReadFile("config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := map[string]any{}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	profiles := file["profiles"].(map[string]any)
	delete(file, "profiles")
	if got := slices.Collect(maps.Keys(profiles)); !slices.Equal(got, []string{"demo"}) {
		t.Errorf("profiles %q", got)
	}
	for name, resolved := range map[string]map[string]any{"": file, "demo": merge(file, profiles["demo"].(map[string]any))} {
		text, err := json.Marshal(resolved)
		if err != nil {
			t.Fatal(err)
		}
		var def hayrick.JobDefinition
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&def); err != nil {
			t.Fatalf("profile %q: %v", name, err)
		}
		h, err := Factory(t.Context(), jobs.Env{World: hayrick.RealWorld("test"), Params: def.Handler.Params})
		if err != nil {
			t.Fatalf("profile %q: %v", name, err)
		}
		defer h.(jobs.Closer).Close()
		p, err := parseParams(def.Handler.Params)
		if err != nil {
			t.Fatal(err)
		}
		if def.Handler.Builtin != Name {
			t.Errorf("profile %q: handler %q", name, def.Handler.Builtin)
		}
		for _, rate := range []string{p.PDSRate, p.ResolverRate} {
			if _, ok := def.Rate(rate); !ok {
				t.Errorf("profile %q: no rate %q", name, rate)
			}
		}
		// Left out it would mean true: a token of the directory for every try.
		for _, r := range resolved["rates"].([]any) {
			if r := r.(map[string]any); r["name"] == p.ResolverRate && r["auto"] != false {
				t.Errorf("profile %q: rate %s has auto: %v, want false", name, p.ResolverRate, r["auto"])
			}
		}
		for class := range def.Retry.Lists {
			if def.Retry.DispositionOf(class, "") != hayrick.Permanent {
				t.Errorf("profile %q: %s is listed and not permanent", name, class)
			}
		}
		if _, lists := h.(jobs.Lister); lists != (name == "demo") || def.Input.Items != lists {
			t.Errorf("profile %q: lists its items: %v, input.items: %v", name, lists, def.Input.Items)
		}
		if name == "demo" && (p.Verify != verifySignature || def.Input.URI != "" || def.Retry.Passes < 2) {
			t.Errorf("demo: verify %s, uri %q, %d passes", p.Verify, def.Input.URI, def.Retry.Passes)
		}
	}
}
