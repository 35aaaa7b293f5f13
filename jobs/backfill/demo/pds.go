package demo

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"hayrick"
)

// What a host allows before it throttles for real. A client that keeps to the
// job file's rates never meets it.
const (
	hostRate  = 80.0 // requests a second
	hostBurst = 80.0
)

// pds is one host.
func (n *Network) pds(host string) http.Handler {
	limit := &bucket{clock: n.world.Clock, level: hostBurst}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepo", func(w http.ResponseWriter, r *http.Request) {
		ok := limit.take(w.Header())
		did := r.URL.Query().Get("did")
		fault := n.settings.Fault(did, tryOf(r))
		state := n.settings.State(did)
		switch {
		case !ok || fault == Throttle:
			w.Header().Set("Retry-After", "1")
			xrpcError(w, http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded")
		case n.accounts[did] != host:
			xrpcError(w, http.StatusBadRequest, string(Deleted), "Could not find repo for DID: "+did)
		case fault == Unavailable:
			w.Header().Set("Retry-After", "1")
			xrpcError(w, http.StatusServiceUnavailable, "ServiceUnavailable", "the host is being restarted")
		case fault == ServerError:
			status := http.StatusInternalServerError + int(n.settings.draw(did, "5xx", tryOf(r))%2)*2
			xrpcError(w, status, "InternalServerError", "Internal Server Error")
		case state != Active:
			xrpcError(w, http.StatusBadRequest, string(state), "the repository of "+did+" is not available")
		default:
			n.serveRepo(w, r, did, fault)
		}
	})
	return mux
}

// serveRepo sends the account's repository, or what the fault leaves of it.
func (n *Network) serveRepo(w http.ResponseWriter, r *http.Request, did string, fault Fault) {
	file, err := n.settings.carFile(r.Context(), did)
	if err != nil {
		xrpcError(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}
	how := n.settings.draw(did, "how", tryOf(r))
	w.Header().Set("Content-Type", "application/vnd.ipld.car")
	if fault != Cut || how%2 == 0 { // the others come in chunks
		w.Header().Set("Content-Length", strconv.Itoa(len(file)))
	}
	switch fault {
	case Stall:
		w.Write(file[:len(file)/2])
		http.NewResponseController(w).Flush()
		<-r.Context().Done() // until the client gives up
	case Cut:
		w.Write(file[:len(file)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // closes the connection
	case Damage:
		blocks := file[1+file[0]:] // behind the header, where some bits mean nothing
		blocks[how/8%uint64(len(blocks))] ^= 1 << (how % 8)
		w.Write(file)
	default:
		w.Write(file)
	}
}

func xrpcError(w http.ResponseWriter, status int, name, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": name, "message": message})
}

// bucket is a host's own limit.
type bucket struct {
	clock hayrick.Clock
	mu    sync.Mutex // guards what follows
	level float64
	at    time.Time
}

// take takes one token if there is one, and writes the headers that say so.
func (b *bucket) take(h http.Header) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	if !b.at.IsZero() {
		b.level = min(hostBurst, b.level+hostRate*now.Sub(b.at).Seconds())
	}
	b.at = now
	ok := b.level >= 1
	if ok {
		b.level--
	}
	reset := now.Add(time.Duration((hostBurst - b.level) / hostRate * float64(time.Second)))
	h.Set("RateLimit-Limit", strconv.Itoa(int(hostBurst)))
	h.Set("RateLimit-Remaining", strconv.Itoa(int(b.level)))
	h.Set("RateLimit-Reset", strconv.FormatInt(int64(math.Ceil(float64(reset.UnixMilli())/1000)), 10))
	return ok
}
