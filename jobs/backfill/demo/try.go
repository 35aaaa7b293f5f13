package demo

import (
	"context"
	"net/http"
	"strconv"
)

// tryHeader says which try of its account a request belongs to.
const tryHeader = "X-Demo-Try"

type tryKey struct{}

// WithTry notes the number of the try for the requests made under ctx.
func WithTry(ctx context.Context, try int) context.Context {
	return context.WithValue(ctx, tryKey{}, try)
}

// Tag writes what WithTry noted into the request.
func Tag(req *http.Request) {
	if try, ok := req.Context().Value(tryKey{}).(int); ok {
		req.Header.Set(tryHeader, strconv.Itoa(try))
	}
}

// tryOf reads it; 0 = not said.
func tryOf(r *http.Request) int {
	n, _ := strconv.Atoi(r.Header.Get(tryHeader))
	return n
}
