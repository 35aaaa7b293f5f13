package demo

import (
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// State is what a host says of an account: "" when its repository is there, else
// the name of the XRPC error.
type State string

// The states.
const (
	Active      State = ""
	Deleted     State = "RepoNotFound"
	Deactivated State = "RepoDeactivated"
	Takendown   State = "RepoTakendown"
	Suspended   State = "RepoSuspended"
)

// Account is one account of the demo.
type Account struct {
	DID  string
	Host string // pds-3.demo.invalid
}

// Item is the input record of the account.
func (a Account) Item() []byte {
	return fmt.Appendf(nil, `{"did":%q,"pds":%q}`, a.DID, a.Host)
}

// List returns all accounts, in the order of the input.
func (s Settings) List() []Account {
	out := make([]Account, s.Accounts)
	for i := range out {
		did := s.did(i)
		out[i] = Account{DID: did, Host: s.host(did)}
	}
	return out
}

// did is the i-th account's.
func (s Settings) did(i int) string {
	sum := s.digest("", "did", i)
	return "did:plc:" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:15]))
}

func hostName(n int) string { return fmt.Sprintf("pds-%d.demo.invalid", n) }

func (s Settings) host(did string) string {
	return hostName(int(s.draw(did, "host", 0) % uint64(s.Hosts)))
}

// State says what became of the account: about 2.6 % are gone.
func (s Settings) State(did string) State {
	switch n := s.draw(did, "state", 0) % 1000; {
	case n < 12:
		return Deleted
	case n < 18:
		return Deactivated
	case n < 22:
		return Takendown
	case n < 26:
		return Suspended
	}
	return Active
}

// key is the account's signing key.
func (s Settings) key(did string) *atcrypto.PrivateKeyK256 {
	for n := 0; ; n++ {
		sum := s.digest(did, "key", n)
		// Refused with a probability of 2^-127: a number beyond the curve's order.
		if k, err := atcrypto.ParsePrivateBytesK256(sum[:]); err == nil {
			return k
		}
	}
}
