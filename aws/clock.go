package aws

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"hayrick"
)

// Clock is service time: the clock it stands on, moved as little as the Date headers
// of AWS's replies ask for. A reply bounds the service's clock to its whole second
// and the time the request took; bounds of many replies are intersected, so that
// processes whose own clocks are right to a second are not moved at all. Leases and
// token buckets compare times of different machines, and need no more.
type Clock struct {
	hayrick.Clock

	mu        sync.Mutex
	low, high time.Duration // bounds of service time minus own time
	seen      time.Time     // own time of the last reply; zero = none yet
}

// drift is how far two clocks may run apart, and bounds are loosened, per second.
const drift = time.Millisecond / 2

// Now is service time.
func (c *Clock) Now() time.Time { return c.Clock.Now().Add(c.offset()) }

func (c *Clock) offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(max(0, c.low), c.high)
}

// observe takes in a reply: date is its header, sent and received are own times.
func (c *Clock) observe(sent, received, date time.Time) {
	low, high := date.Sub(received), date.Add(time.Second).Sub(sent)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen.IsZero() {
		loose := time.Duration(received.Sub(c.seen).Seconds() * float64(drift))
		l, h := max(low, c.low-loose), min(high, c.high+loose)
		if l <= h { // else one of the clocks was set
			low, high = l, h
		}
	}
	c.low, c.high, c.seen = low, high, received
}

// listen lets the clock hear of every reply of a client.
func (c *Clock) listen(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("HayrickServiceTime", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		sent := c.Clock.Now()
		out, meta, err := next.HandleDeserialize(ctx, in)
		if resp, ok := out.RawResponse.(*smithyhttp.Response); ok && resp != nil && resp.Response != nil {
			if date, derr := http.ParseTime(resp.Header.Get("Date")); derr == nil {
				c.observe(sent, c.Clock.Now(), date)
			}
		}
		return out, meta, err
	}), middleware.After)
}
