package demo

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"hayrick/jobs"
	"hayrick/jobs/backfill/atrepo"
)

// Count is the number of the account's records: 0 for one in twenty, 1 to 83 for
// the others, few mostly, 20 on average.
func (s Settings) Count(did string) int {
	if s.draw(did, "empty", 0)%20 == 0 {
		return 0
	}
	u := s.draw(did, "count", 0) % 1000
	return 1 + int(83*u*u*u/1_000_000_000)
}

// Rows are the output rows of an account that is not gone, in their order.
func (s Settings) Rows(did string) ([]jobs.Row, error) {
	recs, err := s.records(did)
	if err != nil {
		return nil, err
	}
	out := make([]jobs.Row, len(recs))
	for i, r := range recs {
		out[i], _ = r.Row(did)
	}
	return out, nil
}

// records builds the account's records in key order: posts, likes, follows, and
// most often a profile, which has no date.
func (s Settings) records(did string) ([]atrepo.Record, error) {
	rng := rand.New(rand.NewPCG(s.draw(did, "records", 0), s.draw(did, "records", 1)))
	at := time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rng.IntN(86_400)) * time.Second)
	out := make([]atrepo.Record, s.Count(did))
	for i := range out {
		at = at.Add(time.Duration(1+rng.IntN(20_000_000)) * time.Millisecond)
		r := atrepo.Record{RKey: syntax.NewTIDFromTime(at, uint(rng.IntN(1024))).String()}
		var value map[string]any
		switch n := rng.IntN(20); {
		case i == 0 && n > 3:
			r.Collection, r.RKey, value = "app.bsky.actor.profile", "self", profile(rng)
		case n < 8:
			r.Collection, value = "app.bsky.feed.post", s.post(rng)
		case n < 17:
			r.Collection, value = "app.bsky.feed.like", map[string]any{"subject": s.strongRef(rng)}
		default:
			r.Collection, value = "app.bsky.graph.follow", map[string]any{"subject": s.anyone(rng)}
		}
		value["$type"] = r.Collection
		if r.RKey != "self" {
			value["createdAt"] = at.Format(syntax.AtprotoDatetimeLayout)
		}
		var err error
		if r.Data, err = atdata.MarshalCBOR(value); err != nil {
			return nil, fmt.Errorf("encode record %d of %s: %w", i, did, err)
		}
		if r.CID, err = sum(r.Data); err != nil {
			return nil, err
		}
		out[i] = r
	}
	slices.SortFunc(out, func(a, b atrepo.Record) int {
		return cmp.Compare(a.Collection+"/"+a.RKey, b.Collection+"/"+b.RKey)
	})
	return out, nil
}

// sum is the CID of DAG-CBOR data.
func sum(data []byte) (cid.Cid, error) {
	return cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(data)
}

func profile(rng *rand.Rand) map[string]any {
	return map[string]any{"displayName": sentence(rng, 2), "description": sentence(rng, 8)}
}

func (s Settings) post(rng *rand.Rand) map[string]any {
	v := map[string]any{"text": sentence(rng, 3+rng.IntN(25)), "langs": []any{"en"}}
	switch rng.IntN(6) {
	case 0:
		v["reply"] = map[string]any{"root": s.strongRef(rng), "parent": s.strongRef(rng)}
	case 1:
		image := atdata.Blob{Ref: atdata.CIDLink(anyCID(rng)), MimeType: "image/jpeg", Size: rng.Int64N(900_000)}
		v["embed"] = map[string]any{"$type": "app.bsky.embed.images", "images": []any{
			map[string]any{"alt": sentence(rng, 5), "image": image},
		}}
	}
	return v
}

// strongRef points to a post that may be anyone's.
func (s Settings) strongRef(rng *rand.Rand) map[string]any {
	rkey := syntax.NewTID(1_720_000_000_000_000+rng.Int64N(20_000_000_000_000), 0)
	return map[string]any{"uri": "at://" + s.anyone(rng) + "/app.bsky.feed.post/" + rkey.String(), "cid": anyCID(rng).String()}
}

// anyone is the DID of some account.
func (s Settings) anyone(rng *rand.Rand) string { return s.did(rng.IntN(s.Accounts)) }

func anyCID(rng *rand.Rand) cid.Cid {
	c, err := sum(fmt.Append(nil, rng.Uint64()))
	if err != nil {
		panic(err) // SHA-256 of eight bytes
	}
	return c
}

var words = strings.Fields(`a about after again all and any around as at away back be before bird black
	blue but by came can cloud cold come could day did do down each early even field find first for found
	from garden get give go good grass great had half hand has have hay he her here high his home how I if
	in into is it just keep kind know last leave light like little long look made make many more morning
	most much my never new night no not now of off old on one or other our out over own paper people place
	quiet rain red rick river road round said same see she should show side small so some spring still
	stone such sun take tell than that the their them then there they thing think this though time to too
	tree turn two under up us use very walk want was water way we well went were what when where which
	while white who why will wind with wood word work world would year yes you young your 🌾 "naïve" café`)

func sentence(rng *rand.Rand, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(words[rng.IntN(len(words))])
	}
	return b.String()
}
