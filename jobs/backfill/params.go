package backfill

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"hayrick"
	"hayrick/jobs/backfill/demo"
)

// How much of a repository is proven before its rows count. The hash of every
// block and the completeness of the tree are checked in any case.
const (
	verifyNone      = "none"      // the tree is taken as it comes
	verifyMST       = "mst"       // the tree is canonical: no key is hidden, doubled or misplaced
	verifySignature = "signature" // and the commit is signed by the account's key
)

// maxRows is what the worker allows one item in rows, 768 MiB. A repository that
// is larger still could never end ok.
const maxRows = 768 << 20

// rowBytes bounds the rows of one account, in bytes: twice its repository, which
// honest ones do not reach (1.3 times is common), and no more than the worker allows.
func (p params) rowBytes() int64 { return min(2*int64(p.MaxBytes), maxRows) }

// params is handler.params of the job file.
type params struct {
	Verify       string
	Collections  []string         // empty = all
	MaxBytes     hayrick.Bytes    // of one repository
	IdleTimeout  hayrick.Duration // no byte for so long ends the try
	PLC          string           // base URL of the did:plc directory
	PDSRate      string           // the rate that 429s of a PDS are reported to
	ResolverRate string           // the rate that directory look-ups take tokens of; "" = none
	Demo         *demo.Settings
}

// readers parse one parameter each.
var readers = map[string]func(p *params, raw json.RawMessage) error{
	"verify":        func(p *params, raw json.RawMessage) error { return readVerify(&p.Verify, raw) },
	"collections":   func(p *params, raw json.RawMessage) error { return readCollections(&p.Collections, raw) },
	"max_bytes":     func(p *params, raw json.RawMessage) error { return readText(raw, &p.MaxBytes) },
	"idle_timeout":  func(p *params, raw json.RawMessage) error { return readText(raw, &p.IdleTimeout) },
	"plc":           func(p *params, raw json.RawMessage) error { return readURL(&p.PLC, raw) },
	"pds_rate":      func(p *params, raw json.RawMessage) error { return readName(&p.PDSRate, raw) },
	"resolver_rate": func(p *params, raw json.RawMessage) error { return readName(&p.ResolverRate, raw) },
	"demo":          func(p *params, raw json.RawMessage) error { return readDemo(&p.Demo, raw) },
}

// parseParams reads handler.params. Every error is a user error that names the
// parameter; an unknown one is an error, because a typo would run for hours with
// a default.
func parseParams(raw json.RawMessage) (params, error) {
	p := params{
		Verify:      verifyMST,
		MaxBytes:    128 << 20,
		IdleTimeout: hayrick.Duration(30 * time.Second),
		PLC:         "https://plc.directory",
		PDSRate:     "pds",
	}
	given := map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			return p, userError("", "is not a mapping", "write one parameter a line below params:")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		read, ok := readers[name]
		if !ok {
			return p, userError("."+name, "is not a parameter of atproto.repo",
				"one of: "+strings.Join(slices.Sorted(maps.Keys(readers)), ", "))
		}
		if err := read(&p, given[name]); err != nil {
			return p, userError("."+name, err.Error(), "see docs/backfill.md")
		}
	}
	if p.MaxBytes <= 0 || p.IdleTimeout <= 0 {
		return p, userError("", "max_bytes and idle_timeout must be more than 0", "leave them out for the defaults")
	}
	if p.MaxBytes > maxRows {
		return p, userError(".max_bytes", "is more than 768MiB", "an account's rows may take 768MiB, so that a larger repository cannot end ok")
	}
	if p.Demo != nil {
		p.PLC = demo.DirectoryURL
	}
	return p, nil
}

func userError(param, what, hint string) error {
	return &hayrick.UserError{What: "handler.params" + param + ": " + what, Hint: hint}
}

func readVerify(to *string, raw json.RawMessage) error {
	known := []string{verifyNone, verifyMST, verifySignature}
	if json.Unmarshal(raw, to) != nil || !slices.Contains(known, *to) {
		return fmt.Errorf("%s is not one of %s", raw, strings.Join(known, ", "))
	}
	return nil
}

func readCollections(to *[]string, raw json.RawMessage) error {
	if json.Unmarshal(raw, to) != nil {
		return fmt.Errorf("%s is not a list of collections; write it as [app.bsky.feed.post]", raw)
	}
	for _, c := range *to {
		if _, err := syntax.ParseNSID(c); err != nil {
			return fmt.Errorf("%q is not a collection such as app.bsky.feed.post", c)
		}
	}
	return nil
}

// readText reads a quantity that is written as text with its unit.
func readText(raw json.RawMessage, to interface{ UnmarshalText([]byte) error }) error {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw) // a bare number: the unit's own error says what to write
	}
	return to.UnmarshalText([]byte(s))
}

func readURL(to *string, raw json.RawMessage) error {
	var s string
	u, err := &url.URL{}, json.Unmarshal(raw, &s)
	if err == nil {
		u, err = url.Parse(s)
	}
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("%s is not an https URL such as https://plc.directory", raw)
	}
	*to = strings.TrimRight(s, "/")
	return nil
}

func readName(to *string, raw json.RawMessage) error {
	if json.Unmarshal(raw, to) != nil {
		return fmt.Errorf("%s is not the name of a rate", raw)
	}
	return nil
}

func readDemo(to **demo.Settings, raw json.RawMessage) error {
	s, err := demo.ParseSettings(raw)
	if err != nil {
		return err
	}
	*to = &s
	return nil
}
