package demo

import (
	"bytes"
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	blockformat "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	blockstore "github.com/ipfs/go-ipfs-blockstore"
	"github.com/ipld/go-car"
	"github.com/ipld/go-car/util"
)

// carFile builds the account's signed repository as a CAR file: commit, tree,
// records. All but the signature is the same every time.
func (s Settings) carFile(ctx context.Context, did string) ([]byte, error) {
	recs, err := s.records(did)
	if err != nil {
		return nil, err
	}
	tree := mst.NewEmptyTree()
	for _, r := range recs {
		if _, err := tree.Insert([]byte(r.Collection+"/"+r.RKey), r.CID); err != nil {
			return nil, fmt.Errorf("build tree of %s: %w", did, err)
		}
	}
	nodes := &nodeSink{}
	root, err := tree.WriteDiffBlocks(ctx, nodes)
	if err != nil {
		return nil, fmt.Errorf("build tree of %s: %w", did, err)
	}
	commit := repo.Commit{DID: did, Version: repo.ATPROTO_REPO_VERSION, Data: *root, Rev: s.rev(did)}
	if err := commit.Sign(s.key(did)); err != nil {
		return nil, fmt.Errorf("sign commit of %s: %w", did, err)
	}
	var head bytes.Buffer
	if err := commit.MarshalCBOR(&head); err != nil {
		return nil, fmt.Errorf("encode commit of %s: %w", did, err)
	}
	headCID, err := sum(head.Bytes())
	if err != nil {
		return nil, err
	}

	var out bytes.Buffer // writes to it cannot fail
	car.WriteHeader(&car.CarHeader{Roots: []cid.Cid{headCID}, Version: 1}, &out)
	util.LdWrite(&out, headCID.Bytes(), head.Bytes())
	for _, b := range nodes.blocks {
		util.LdWrite(&out, b.Cid().Bytes(), b.RawData())
	}
	for _, r := range recs {
		util.LdWrite(&out, r.CID.Bytes(), r.Data)
	}
	return out.Bytes(), nil
}

// rev is the revision of the account's only commit.
func (s Settings) rev(did string) string {
	return syntax.NewTID(1_740_000_000_000_000+int64(s.draw(did, "rev", 0)%1_000_000_000_000), 0).String()
}

// nodeSink is as much of a Blockstore as writing a tree needs.
type nodeSink struct {
	blockstore.Blockstore
	blocks []blockformat.Block
}

// Put keeps the block.
func (n *nodeSink) Put(_ context.Context, b blockformat.Block) error {
	n.blocks = append(n.blocks, b)
	return nil
}
