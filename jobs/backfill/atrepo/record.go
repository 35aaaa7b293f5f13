package atrepo

import (
	"encoding/json"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"hayrick/jobs"
)

// Record is one record as it stands in the repository.
type Record struct {
	Collection string // an NSID: app.bsky.feed.post
	RKey       string // its key within the collection
	CID        cid.Cid
	Data       []byte // DAG-CBOR
}

// Row is the record as an output row of did: did, collection, rkey, cid,
// created_at (timestamp) and record (JSON text). created_at is null when the
// record has no createdAt, or one that is not a datetime of the years 1 to 9999;
// both are null, and readable is false, when the bytes are not DAG-CBOR.
func (r Record) Row(did string) (row jobs.Row, readable bool) {
	var createdAt, record any
	text, created, err := toJSON(r.Data)
	if err == nil {
		record = json.RawMessage(text)
		if t, ok := parseTime(created); ok {
			createdAt = t
		}
	}
	return jobs.Row{
		{Name: "did", Value: did},
		{Name: "collection", Value: r.Collection},
		{Name: "rkey", Value: r.RKey},
		{Name: "cid", Value: r.CID.String()},
		{Name: "created_at", Value: createdAt},
		{Name: "record", Value: record},
	}, err == nil
}

// parseTime reads an atproto datetime, also the forms old clients wrote. The
// columns of a dataset hold microseconds. Times that leave the four-digit years, in
// UTC, are none: many readers of Parquet cannot hold them.
func parseTime(s string) (time.Time, bool) {
	d, err := syntax.ParseDatetimeLenient(s)
	if err != nil {
		return time.Time{}, false
	}
	t := d.Time().UTC().Truncate(time.Microsecond)
	return t, t.Year() >= 1 && t.Year() <= 9999
}
