package backfill

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"hayrick"
	"hayrick/jobs"
	"hayrick/jobs/backfill/atrepo"
	"hayrick/jobs/backfill/demo"
)

// Name is what a job file writes as handler.builtin.
const Name = "atproto.repo"

// keysRemembered bounds the cache of signing keys; an entry has about 300 bytes.
const keysRemembered = 20_000

// Factory builds the handler from handler.params. With params.demo the handler
// also lists its own items (jobs.Lister) and serves the hosts they name.
func Factory(_ context.Context, env jobs.Env) (jobs.Handler, error) {
	p, err := parseParams(env.Params)
	if err != nil {
		return nil, err
	}
	if p.Demo == nil {
		return newHandler(p, newUpstream(env.World, "https", guardedDial, nil, p.IdleTimeout.D())), nil
	}
	servers := demo.NewNetwork(env.World, *p.Demo)
	up := newUpstream(env.World, "http", servers.DialContext, nil, p.IdleTimeout.D())
	up.tag = demo.Tag
	return &demoHandler{handler: newHandler(p, up), servers: servers}, nil
}

// handler runs one account at a time, as many at once as it is asked to.
type handler struct {
	params params
	up     *upstream
	keys   Resolver
}

func newHandler(p params, up *upstream) *handler {
	keys := newCachingResolver(&didResolver{up: up, plc: p.PLC, rate: p.ResolverRate}, keysRemembered)
	return &handler{params: p, up: up, keys: keys}
}

// Handle fetches, verifies and emits one account's repository.
func (h *handler) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	acc, err := parseAccount(it.Data, h.up.scheme)
	if err != nil {
		return outcome(hayrick.ClassBadItem, hayrick.Permanent, err)
	}
	repo, err := h.fetch(ctx, it.Host, acc)
	if err == nil && h.params.Verify == verifySignature {
		err = h.checkSignature(ctx, it.Host, acc.DID, repo)
	}
	if err == nil {
		err = h.emit(ctx, it.Host, acc, repo, emit)
	}
	return classify(ctx, err)
}

// Close lets go of idle connections.
func (h *handler) Close() error {
	h.up.client.CloseIdleConnections()
	return nil
}

// fetch streams the repository from the account's host, and verifies it while
// and after it comes.
func (h *handler) fetch(ctx context.Context, host jobs.Host, acc account) (*atrepo.Repository, error) {
	body, err := h.up.get(ctx, host, request{
		url: acc.repoURL(), accept: "application/vnd.ipld.car", limit: int64(h.params.MaxBytes), rate: h.params.PDSRate, key: acc.PDS,
	})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return atrepo.Read(ctx, body, acc.DID, h.params.Verify != verifyNone)
}

// checkSignature looks the key up only now: damaged bodies and dead accounts
// cost the directory nothing. A key that does not fit is looked up once more,
// because it may have been changed since it was remembered.
func (h *handler) checkSignature(ctx context.Context, host jobs.Host, did syntax.DID, repo *atrepo.Repository) error {
	var bad error
	for range 2 {
		key, err := h.keys.Key(ctx, host, did)
		if err != nil {
			return err
		}
		if bad = repo.VerifySignature(key); bad == nil {
			return nil
		}
		h.keys.Forget(did)
	}
	return bad
}

// rowSize is at least what the worker counts for a row: the values as they are
// encoded, and 100 bytes for the names, kinds and lengths of six columns.
func rowSize(row jobs.Row) int64 {
	n := 100
	for _, c := range row {
		switch v := c.Value.(type) {
		case string:
			n += len(v)
		case json.RawMessage:
			n += len(v)
		}
	}
	return int64(n)
}

// emit hands over one row a record, in key order. The rows of an account are
// bounded like its repository: a record is one block however many keys point to it,
// and a key that takes 60 bytes in the tree may have 800.
func (h *handler) emit(ctx context.Context, host jobs.Host, acc account, repo *atrepo.Repository, emit jobs.Emit) error {
	var emitted, unreadable, size int64
	limit := h.params.rowBytes()
	err := repo.Records(ctx, func(rec atrepo.Record) error {
		if err := ctx.Err(); err != nil { // a node may have many records
			return err
		}
		if len(h.params.Collections) > 0 && !slices.Contains(h.params.Collections, rec.Collection) {
			return nil
		}
		row, readable := rec.Row(acc.DID.String())
		if !readable {
			unreadable++
		}
		if size += rowSize(row); size > limit {
			return fmt.Errorf("%w: its rows take more than %d bytes", errTooLarge, limit)
		}
		emitted++
		return emit(row)
	})
	if err != nil {
		return err
	}
	host.Add("records", emitted)
	if unreadable > 0 {
		host.Add("records_unreadable", unreadable)
	}
	return nil
}

// demoHandler runs against the servers of this process.
type demoHandler struct {
	*handler
	servers *demo.Network
}

// Handle tells the servers which try this is: the demo's faults depend on it, so
// that a run that was killed meets the same ones again.
func (h *demoHandler) Handle(ctx context.Context, it jobs.Item, emit jobs.Emit) jobs.Outcome {
	return h.handler.Handle(demo.WithTry(ctx, it.Try), it, emit)
}

// Items lists the demo's accounts.
func (h *demoHandler) Items(ctx context.Context, emit func(record json.RawMessage) error) error {
	for _, acc := range h.params.Demo.List() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := emit(acc.Item()); err != nil {
			return err
		}
	}
	return nil
}

// Close stops the servers.
func (h *demoHandler) Close() error {
	h.handler.Close()
	return h.servers.Close()
}

var (
	_ jobs.Closer = (*handler)(nil)
	_ jobs.Lister = (*demoHandler)(nil)
)
