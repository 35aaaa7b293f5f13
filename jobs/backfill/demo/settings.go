package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// Settings name one demo network.
type Settings struct {
	Accounts int   `json:"accounts"`
	Hosts    int   `json:"hosts"`
	Seed     int64 `json:"seed"`
}

// ParseSettings reads the parameter demo of the job file; what it leaves out is
// 2,000 accounts on 8 hosts, seed 1.
func ParseSettings(raw json.RawMessage) (Settings, error) {
	s := Settings{Accounts: 2000, Hosts: 8, Seed: 1}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("write it as {accounts: 2000, hosts: 8, seed: 1}: %w", err)
	}
	switch {
	case s.Accounts < 1 || s.Accounts > 1_000_000:
		return s, errors.New("accounts must be 1 to 1000000")
	case s.Hosts < 1 || s.Hosts > 64:
		return s, errors.New("hosts must be 1 to 64")
	}
	return s, nil
}

// draw returns 64 bits that depend on the seed, the account, the purpose and n,
// and on nothing else.
func (s Settings) draw(did, purpose string, n int) uint64 {
	sum := s.digest(did, purpose, n)
	return binary.BigEndian.Uint64(sum[:])
}

func (s Settings) digest(did, purpose string, n int) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "hayrick demo\x00%d\x00%s\x00%s\x00%d", s.Seed, did, purpose, n))
}
