package atrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car"
	"github.com/multiformats/go-multihash"

	"hayrick"
)

// ErrSignature says that a commit is not signed by the key it was checked with.
var ErrSignature = errors.New("the commit's signature does not verify")

// Repository is one account's records as of one commit.
type Repository struct {
	commit repo.Commit
	tree   *mst.Tree
	blocks blockMap
}

// blockMap holds the data of every block by its CID. The hashes have been checked.
type blockMap map[cid.Cid][]byte

// Read reads a whole CAR from r. The commit must be that of did. With checkTree
// the tree must also be canonical: keys ascend, each lies at the height its hash
// gives it, and encoding the tree again gives the root that the commit signs.
//
// Every block's hash is checked and every node must be there in either case;
// a missing record shows in Records.
func Read(ctx context.Context, r io.Reader, did syntax.DID, checkTree bool) (*Repository, error) {
	root, blocks, err := readBlocks(ctx, r)
	if err != nil {
		return nil, err
	}
	commit, err := readCommit(blocks, root, did)
	if err != nil {
		return nil, err
	}
	tree, err := readTree(ctx, blocks, commit.Data)
	if err != nil {
		return nil, err
	}
	if checkTree {
		if err := verifyTree(tree, commit.Data); err != nil {
			return nil, err
		}
	}
	return &Repository{commit: commit, tree: tree, blocks: blocks}, nil
}

// VerifySignature checks the commit against the account's signing key. Only
// low-S signatures are accepted, as the atproto specification asks.
func (r *Repository) VerifySignature(key atcrypto.PublicKey) error {
	if err := r.commit.VerifySignature(key); err != nil {
		return fmt.Errorf("%w (%v)", ErrSignature, err)
	}
	return nil
}

// readBlocks reads the CAR to its end. The first root is the commit.
func readBlocks(ctx context.Context, r io.Reader) (cid.Cid, blockMap, error) {
	src := &stickyReader{r: r}
	fail := func(err error) (cid.Cid, blockMap, error) {
		if src.err != nil && src.err != io.EOF { // the stream broke; the format is not to blame
			return cid.Undef, nil, fmt.Errorf("read CAR: %w", src.err)
		}
		return cid.Undef, nil, corrupt("read CAR: %v", err)
	}
	cr, err := car.NewCarReader(src)
	if err != nil {
		return fail(err)
	}
	root := cr.Header.Roots[0]
	blocks := blockMap{}
	for {
		if err := ctx.Err(); err != nil {
			return cid.Undef, nil, err
		}
		b, err := cr.Next() // checks the hash
		if err == io.EOF && (src.err == nil || src.err == io.EOF) {
			return root, blocks, nil
		}
		if err != nil {
			return fail(err)
		}
		if err := checkCID(b.Cid()); err != nil {
			return fail(err)
		}
		blocks[b.Cid()] = b.RawData()
	}
}

// checkCID refuses CIDs whose hash proves nothing: a CAR may name its blocks by
// an identity "hash", by a broken one, or by one byte of a good one.
func checkCID(c cid.Cid) error {
	p := c.Prefix()
	if p.Version != 1 || p.Codec != cid.DagCBOR || p.MhType != multihash.SHA2_256 || p.MhLength != 32 {
		return fmt.Errorf("CID %s is not a version 1, dag-cbor, SHA-256 one", c)
	}
	return nil
}

func readCommit(blocks blockMap, root cid.Cid, did syntax.DID) (repo.Commit, error) {
	var c repo.Commit
	data, ok := blocks[root]
	if !ok {
		return c, corrupt("read commit: block %s is missing", root)
	}
	if err := checkNesting(data); err != nil { // the generated decoder skips unknown fields by recursion
		return c, corrupt("read commit: %v", err)
	}
	if err := c.UnmarshalCBOR(bytes.NewReader(data)); err != nil {
		return c, corrupt("read commit: %v", err)
	}
	// indigo's Commit.VerifyStructure would refuse version 2, which old accounts
	// that were never migrated still have.
	if c.Version != 2 && c.Version != 3 {
		return c, corrupt("read commit: repository version %d is neither 2 nor 3", c.Version)
	}
	if c.Version == 3 {
		if _, err := syntax.ParseTID(c.Rev); err != nil {
			return c, corrupt("read commit: rev %q: %v", c.Rev, err)
		}
	}
	if c.DID != did.String() {
		return c, corrupt("read commit: it is of %q, not of %s", c.DID, did)
	}
	return c, nil
}

// stickyReader remembers how its stream ended, so that a broken stream is told
// from broken bytes.
type stickyReader struct {
	r   io.Reader
	err error
}

func (s *stickyReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", hayrick.ErrCorrupt, fmt.Sprintf(format, args...))
}
