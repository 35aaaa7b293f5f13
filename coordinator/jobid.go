package coordinator

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"hayrick"
	"hayrick/manifest"
)

// Identity is what makes two submissions the same: the job's name, its definition
// and its input. Each of their runs has one more number.
type Identity struct {
	Name       string
	Definition string // SHA-256 of the resolved definition
	Inputs     []InputIdentity
}

// InputIdentity identifies an input: items that a handler listed by their SHA-256,
// any other by name and version. Device and inode are left out: they differ between
// the machines of a cluster and after a reboot. What is read is judged by the
// batches' digests, not by this.
type InputIdentity struct {
	URI    string `json:"uri"`
	Size   int64  `json:"size"`
	MTime  string `json:"mtime"`
	ETag   string `json:"etag"`
	SHA256 string `json:"sha256"`
}

// digestTag before a SHA-256 makes it the ETag of an input that has no other.
const digestTag = "sha256:"

// InputIdentityOf reduces an input as a plan names it.
func InputIdentityOf(in manifest.InputID) InputIdentity {
	if in.URI == "" {
		if sha, ok := strings.CutPrefix(in.Pin.ETag, digestTag); ok { // what is stored stands in another order
			return InputIdentity{SHA256: sha}
		}
		return InputIdentity{SHA256: in.SHA256}
	}
	id := InputIdentity{URI: in.URI, Size: in.Pin.Size, ETag: in.Pin.ETag}
	if !in.Pin.MTime.IsZero() {
		id.MTime = in.Pin.MTime.UTC().Format(time.RFC3339Nano)
	}
	return id
}

// IdentityOf is the identity of a job that was planned.
func IdentityOf(p manifest.Plan) Identity {
	id := Identity{Name: p.Job.JobType, Definition: p.DefinitionSHA256}
	for _, in := range p.Input {
		id.Inputs = append(id.Inputs, InputIdentityOf(in))
	}
	return id
}

// Same says whether two submissions are of the same three.
func (id Identity) Same(o Identity) bool {
	return id.Name == o.Name && id.Definition == o.Definition && slices.Equal(id.Inputs, o.Inputs)
}

// Letters are the six letters of the run-th run, from 0: the same for everybody who
// submits the same three after the same number of runs.
func (id Identity) Letters(run int) (string, error) {
	b, err := manifest.Encode(struct {
		Name       string          `json:"name"`
		Definition string          `json:"definition"`
		Inputs     []InputIdentity `json:"inputs"`
		Run        int             `json:"run"`
	}{id.Name, id.Definition, id.Inputs, run})
	if err != nil {
		return "", err
	}
	sum, err := hex.DecodeString(manifest.SHA256(b))
	if err != nil {
		return "", err
	}
	n := binary.BigEndian.Uint64(sum)
	letters := make([]byte, 6)
	for i := range letters {
		letters[i] = 'a' + byte(n%26)
		n /= 26
	}
	return string(letters), nil
}

// JobID puts a job id together: <name>-<yyyymmdd>-<6 letters>, the day in UTC.
func JobID(name string, day time.Time, letters string) (string, error) {
	id := fmt.Sprintf("%s-%s-%s", name, day.UTC().Format("20060102"), letters)
	if !hayrick.ValidID(id) {
		return "", &hayrick.UserError{
			What: fmt.Sprintf("%q cannot be the name of a job", name),
			Hint: "use at most 100 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit",
		}
	}
	return id, nil
}

// SplitJobID takes a job id apart; ok is false for ids that people chose.
func SplitJobID(id string) (name, day, letters string, ok bool) {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return "", "", "", false
	}
	j := strings.LastIndexByte(id[:i], '-')
	if j < 1 {
		return "", "", "", false
	}
	name, day, letters = id[:j], id[j+1:i], id[i+1:]
	ok = len(day) == 8 && len(letters) == 6 &&
		strings.Trim(day, "0123456789") == "" && strings.Trim(letters, "abcdefghijklmnopqrstuvwxyz") == ""
	return name, day, letters, ok
}
