package demo

import (
	"encoding/json"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// directory is the did:plc directory of all accounts.
func (n *Network) directory() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{did}", func(w http.ResponseWriter, r *http.Request) {
		did := r.PathValue("did")
		host, ok := n.accounts[did]
		switch {
		case !ok:
			http.Error(w, `{"message":"DID not registered: `+did+`"}`, http.StatusNotFound)
			return
		case n.settings.Fault(did, tryOf(r)) == Directory:
			http.Error(w, "the directory is resting", http.StatusInternalServerError)
			return
		}
		key, err := n.settings.key(did).PublicKey()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/did+ld+json")
		json.NewEncoder(w).Encode(identity.DIDDocument{
			DID:         syntax.DID(did),
			AlsoKnownAs: []string{"at://" + did[len("did:plc:"):] + ".demo.invalid"},
			VerificationMethod: []identity.DocVerificationMethod{{
				ID: did + "#atproto", Type: "Multikey", Controller: did, PublicKeyMultibase: key.Multibase(),
			}},
			Service: []identity.DocService{{
				ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", ServiceEndpoint: "https://" + host,
			}},
		})
	})
	return mux
}
