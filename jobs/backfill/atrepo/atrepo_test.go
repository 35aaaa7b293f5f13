package atrepo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/go-cmp/cmp"

	"hayrick"
)

// realRepos are repositories of the network that come with the indigo module,
// with the number of records each is known to have.
var realRepos = []struct {
	file, did string
	records   int
	doc       string // its DID document, where one comes along
	signed    bool   // the document's key verifies the commit
}{
	// Made by an early client: a high-S signature, which the protocol refuses.
	{"fakermaker.repo.car", "did:plc:dpg45vsnuir2vqqqadsn6afg", 142, "fakermaker.didDoc.json", false},
	{"paul_staging.repo.car", "did:plc:cmpvykrzb2l22kj4ojlv3ox4", 185, "paul_staging.didDoc.json", true},
	{"greenground.repo.car", "did:plc:kzcqyc3unb33eh5sxzsfs25z", 2, "greenground.didDoc.json", true},
	{"divy.repo", "did:plc:fz36gecghqb353ek23nem3ca", 6, "", false},
	{"bafyreieovfuizojpw3zresz7sx3nk4trm2by23pt5rxbey3jme4uo5ogiu.car", "did:plc:z5vnbioquyhivxirw3bbljmu", 6, "", false},
}

// testdata reads a file that comes with the indigo module.
func testdata(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bluesky-social/indigo").Output()
	if err != nil {
		t.Fatalf("find the indigo module: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testing", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// read returns the records of a CAR as lines, or the error that reading it ends in.
func read(ctx context.Context, car []byte, did string, checkTree bool) ([]string, error) {
	r, err := Read(ctx, bytes.NewReader(car), syntax.DID(did), checkTree)
	if err != nil {
		return nil, err
	}
	var out []string
	err = r.Records(ctx, func(rec Record) error {
		out = append(out, fmt.Sprintf("%s/%s %s %x", rec.Collection, rec.RKey, rec.CID, rec.Data))
		return nil
	})
	return out, err
}

func TestReadRealRepositories(t *testing.T) {
	for _, real := range realRepos {
		t.Run(real.file, func(t *testing.T) {
			car := testdata(t, real.file)
			lines, err := read(t.Context(), car, real.did, true)
			if err != nil {
				t.Fatal(err)
			}
			if len(lines) != real.records {
				t.Errorf("%d records, want %d", len(lines), real.records)
			}
			if !slices.IsSorted(lines) {
				t.Error("the records do not come in key order")
			}
			if again, err := read(t.Context(), car, real.did, false); err != nil || !slices.Equal(again, lines) {
				t.Errorf("read without checking the tree: %v, or other records", err)
			}
			if _, err := read(t.Context(), car, "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", true); !errors.Is(err, hayrick.ErrCorrupt) {
				t.Errorf("read as another account's: %v, want ErrCorrupt", err)
			}
			if real.doc == "" {
				return
			}
			var doc identity.DIDDocument
			if err := json.Unmarshal(testdata(t, real.doc), &doc); err != nil {
				t.Fatal(err)
			}
			ident := identity.ParseIdentity(&doc)
			key, err := ident.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			r, err := Read(t.Context(), bytes.NewReader(car), syntax.DID(real.did), true)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.VerifySignature(key); errors.Is(err, ErrSignature) == real.signed {
				t.Errorf("VerifySignature = %v; verifies: want %v", err, real.signed)
			}
		})
	}
}

// A slice of a repository holds a commit and part of the tree: nothing in it is
// damaged, and yet rows would be missing.
func TestReadRefusesPartialRepository(t *testing.T) {
	car := testdata(t, "repo_slice.car")
	for _, checkTree := range []bool{false, true} {
		lines, err := read(t.Context(), car, "did:plc:6evlgoug7wwijzxhzt2riyic", checkTree)
		if !errors.Is(err, hayrick.ErrCorrupt) || !strings.Contains(err.Error(), "missing") {
			t.Errorf("checkTree %v: %d records, %v; want ErrCorrupt because something is missing", checkTree, len(lines), err)
		}
	}
}

// Whichever bit of a repository flips, wherever it ends, reading it fails or
// gives the very same records.
func TestEveryFlippedBitIsFound(t *testing.T) {
	const did = "did:plc:kzcqyc3unb33eh5sxzsfs25z"
	car := testdata(t, "greenground.repo.car")
	want, err := read(t.Context(), car, did, true)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(car) * 8 {
		bad := bytes.Clone(car)
		bad[bit/8] ^= 1 << (bit % 8)
		got, err := read(t.Context(), bad, did, true)
		if err == nil && !slices.Equal(got, want) {
			t.Fatalf("bit %d: other records and no error", bit)
		}
		if err != nil && !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("bit %d: %v, want ErrCorrupt", bit, err)
		}
	}
	for n := range len(car) {
		if _, err := read(t.Context(), car[:n], did, true); !errors.Is(err, hayrick.ErrCorrupt) {
			t.Fatalf("cut after %d bytes: %v, want ErrCorrupt", n, err)
		}
	}
}

// A stream that breaks is not a repository that is damaged.
func TestReadGivesTheStreamsError(t *testing.T) {
	car := testdata(t, "greenground.repo.car")
	broken := errors.New("the line went dead")
	for _, n := range []int{0, 1, len(car) / 2, len(car)} {
		r := io.MultiReader(bytes.NewReader(car[:n]), iotest.ErrReader(broken))
		_, err := Read(t.Context(), r, "did:plc:kzcqyc3unb33eh5sxzsfs25z", true)
		if !errors.Is(err, broken) || errors.Is(err, hayrick.ErrCorrupt) {
			t.Errorf("after %d bytes: %v, want the stream's own error", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, bytes.NewReader(car), "did:plc:kzcqyc3unb33eh5sxzsfs25z", true); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The JSON of every real record is what indigo's own data model makes of it.
func TestRowsAgreeWithIndigo(t *testing.T) {
	for _, real := range realRepos {
		r, err := Read(t.Context(), bytes.NewReader(testdata(t, real.file)), syntax.DID(real.did), true)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Records(t.Context(), func(rec Record) error {
			row, readable := rec.Row(real.did)
			value, err := atdata.UnmarshalCBOR(rec.Data)
			if err != nil || !readable {
				t.Fatalf("%s/%s: readable %v, indigo says %v", rec.Collection, rec.RKey, readable, err)
			}
			var got, want map[string]any
			if err := json.Unmarshal(row[5].Value.(json.RawMessage), &got); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s/%s: record differs (-indigo +ours):\n%s", rec.Collection, rec.RKey, d)
			}
			if created, ok := want["createdAt"].(string); ok {
				at, err := time.Parse(time.RFC3339Nano, created)
				if err != nil || row[4].Value != at.UTC() {
					t.Errorf("%s/%s: created_at %v, want %s", rec.Collection, rec.RKey, row[4].Value, created)
				}
			} else if row[4].Value != nil {
				t.Errorf("%s/%s: created_at %v, want null", rec.Collection, rec.RKey, row[4].Value)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
