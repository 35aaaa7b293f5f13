package atrepo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"hayrick"
)

// ErrSignature says that a commit is not signed by the key it was checked with.
var ErrSignature = errors.New("the commit's signature does not verify")

// Repository is one account's records as of one commit.
type Repository struct {
	commit repo.Commit
	blocks *blocks
}

// Read reads a whole CAR from r. The commit must be that of did. Every block's
// hash is checked, and every node and record must be there. With checkTree the
// tree must also be canonical: keys ascend, are what atproto allows as keys, lie at
// the height their hash gives them, and every node is encoded as its keys dictate.
func Read(ctx context.Context, r io.Reader, did syntax.DID, checkTree bool) (*Repository, error) {
	root, blocks, err := readBlocks(ctx, r)
	if err != nil {
		return nil, err
	}
	commit, err := readCommit(blocks, root, did)
	if err != nil {
		return nil, err
	}
	if err := readTree(ctx, blocks, commit.Data, checkTree); err != nil {
		return nil, err
	}
	return &Repository{commit: commit, blocks: blocks}, nil
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
func readBlocks(ctx context.Context, r io.Reader) (cid.Cid, *blocks, error) {
	src := &stickyReader{r: r}
	br := bufio.NewReaderSize(src, 32<<10)
	all := &blocks{index: map[uint64]uint64{}}
	root, err := readHeader(br)
	for err == nil {
		if err := ctx.Err(); err != nil {
			return cid.Undef, nil, err
		}
		err = all.next(br)
	}
	switch {
	case src.err != nil && src.err != io.EOF: // the stream broke; the format is not to blame
		return cid.Undef, nil, fmt.Errorf("read CAR: %w", src.err)
	case err != io.EOF:
		return cid.Undef, nil, corrupt("read CAR: %v", err)
	}
	return root, all, nil
}

func readCommit(blocks *blocks, root cid.Cid, did syntax.DID) (repo.Commit, error) {
	var c repo.Commit
	data, ok := blocks.get(root)
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
