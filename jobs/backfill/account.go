package backfill

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// account is the item: whose repository, and where it is.
type account struct {
	DID syntax.DID
	PDS string // as the item has it: the key of its rate bucket, $(item.pds)
	URL url.URL
}

// parseAccount reads an item. scheme is what a bare host means, and the only
// scheme that is accepted.
func parseAccount(data json.RawMessage, scheme string) (account, error) {
	var rec struct {
		DID string `json:"did"`
		PDS string `json:"pds"`
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return account{}, fmt.Errorf("not an object with did and pds: %v", err)
	}
	if rec.DID == "" {
		return account{}, fmt.Errorf("no did")
	}
	did, err := syntax.ParseDID(rec.DID)
	if err != nil {
		return account{}, fmt.Errorf("did %q: %v", rec.DID, err)
	}
	u, err := parseHost(rec.PDS, scheme)
	if err != nil {
		return account{}, fmt.Errorf("pds %q: %v", rec.PDS, err)
	}
	return account{DID: did, PDS: rec.PDS, URL: u}, nil
}

// parseHost reads "host", "host:port" or "https://host". A path, a query or a
// user would let a list of accounts write requests of its own.
func parseHost(s, scheme string) (url.URL, error) {
	if s == "" {
		return url.URL{}, fmt.Errorf("it is missing")
	}
	full := s
	if !strings.Contains(s, "://") {
		full = scheme + "://" + s
	}
	u, err := url.Parse(full)
	if err != nil {
		return url.URL{}, fmt.Errorf("not a host or an %s URL", scheme)
	}
	switch {
	case u.Scheme != scheme:
		return url.URL{}, fmt.Errorf("the scheme must be %s", scheme)
	case u.Hostname() == "" || strings.ContainsAny(u.Host, " \t\r\n"):
		return url.URL{}, fmt.Errorf("it has no host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || (u.Path != "" && u.Path != "/"):
		return url.URL{}, fmt.Errorf("only a host is wanted, without path, query or user")
	}
	return url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// repoURL is where the repository is.
func (a account) repoURL() string {
	u := a.URL
	u.Path = "/xrpc/com.atproto.sync.getRepo"
	u.RawQuery = url.Values{"did": {a.DID.String()}}.Encode()
	return u.String()
}
