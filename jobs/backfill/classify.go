package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"hayrick"
	"hayrick/jobs"
	"hayrick/jobs/backfill/atrepo"
)

// The classes of this job, beside the reserved ones. docs/backfill.md explains
// them to users.
const (
	classNotFound     = "repo_not_found"
	classDeactivated  = "repo_deactivated"
	classTakendown    = "repo_takendown"
	classSuspended    = "repo_suspended"
	classUpstream5xx  = "upstream_5xx"
	classUpstream4xx  = "upstream_4xx"
	classConnection   = "connection"
	classTruncated    = "truncated"
	classDamaged      = "damaged"
	classTooLarge     = "too_large"
	classBlocked      = "blocked_host"
	classBadSignature = "bad_signature"
	classNoKey        = "no_signing_key"
	classInterrupted  = "interrupted"
	classConfig       = "misconfigured"
)

// gone maps the error names by which a PDS says that an account has no public
// repository. They are final: asking again is of no use until the account's
// owner or a moderator acts.
var gone = map[string]string{
	"RepoNotFound":    classNotFound,
	"RepoDeactivated": classDeactivated,
	"RepoTakendown":   classTakendown,
	"RepoSuspended":   classSuspended,
}

// maxRetryAfter bounds what a host may make us wait.
const maxRetryAfter = time.Hour

// refusal is an answer other than 200.
type refusal struct {
	outcome   jobs.Outcome
	status    int
	throttled bool // 429, or 503 with Retry-After: feeds the limiter
}

func (r *refusal) Error() string { return r.outcome.Message }

// classifyStatus says what an answer other than 200 means.
func classifyStatus(host string, status int, h http.Header, body []byte, now time.Time) *refusal {
	var xrpc struct{ Error, Message string }
	_ = json.Unmarshal(body, &xrpc) // another form leaves it empty
	said := strings.TrimSpace(xrpc.Error + " " + xrpc.Message)
	r := &refusal{status: status, outcome: jobs.Fail(classUpstream4xx, "%s", line(fmt.Sprintf("%d from %s %s", status, host, said)))}
	o := &r.outcome
	switch class, final := gone[xrpc.Error]; {
	case final && status < 500:
		o.Class, o.Disposition = class, hayrick.Permanent
	case status == http.StatusTooManyRequests:
		o.Class, o.Disposition, r.throttled = hayrick.ClassRateLimit, hayrick.RateLimit, true
		o.RetryAfter = retryAfter(h, now)
	case status >= 500:
		o.Class, o.Disposition = classUpstream5xx, hayrick.Transient
		o.RetryAfter = retryAfter(h, now)
		r.throttled = status == http.StatusServiceUnavailable && h.Get("Retry-After") != ""
	case status == http.StatusRequestTimeout:
		o.Class, o.Disposition = hayrick.ClassTimeout, hayrick.Timeout
	default: // a proxy's 403 or 404, a redirect without target: not the account's fault
		o.Disposition = hayrick.Transient
	}
	return r
}

// retryAfter reads how long a host wants to be left alone: Retry-After in seconds
// or as an HTTP date, else RateLimit-Reset in seconds or as Unix time. 0 = it did
// not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	var d time.Duration
	if v := strings.TrimSpace(h.Get("Retry-After")); v != "" {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			d = seconds(n)
		} else if t, err := http.ParseTime(v); err == nil {
			d = t.Sub(now)
		}
	} else if n, err := strconv.ParseInt(strings.TrimSpace(h.Get("RateLimit-Reset")), 10, 64); err == nil {
		if n > 1e9 { // later than 2001: a time, not a wait
			n -= now.Unix()
		}
		d = seconds(n)
	}
	return min(max(d, 0), maxRetryAfter)
}

// seconds converts without overflow.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
}

// classify says how a try ended.
func classify(ctx context.Context, err error) jobs.Outcome {
	var r *refusal
	var user *hayrick.UserError
	var slow net.Error
	switch {
	case err == nil:
		return jobs.OK()
	case errors.As(err, &r):
		return r.outcome
	case errors.Is(err, errIdle), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return outcome(hayrick.ClassTimeout, hayrick.Timeout, err)
	case ctx.Err() != nil: // the worker stops: nobody's fault
		return outcome(classInterrupted, hayrick.Infra, err)
	case errors.Is(err, hayrick.ErrThrottled):
		return outcome(hayrick.ClassRateLimit, hayrick.RateLimit, err)
	case errors.As(err, &user): // a rate that the job file does not have
		return outcome(classConfig, hayrick.Transient, fmt.Errorf("%w (%s)", err, user.Hint))
	case errors.Is(err, errTooLarge):
		return outcome(classTooLarge, hayrick.Permanent, err)
	case errors.Is(err, errBlocked):
		return outcome(classBlocked, hayrick.Permanent, err)
	case errors.Is(err, errNoKey):
		return outcome(classNoKey, hayrick.Permanent, err)
	case errors.Is(err, atrepo.ErrSignature):
		return outcome(classBadSignature, hayrick.Permanent, err)
	case errors.Is(err, errTruncated):
		return outcome(classTruncated, hayrick.Transient, err)
	case errors.Is(err, hayrick.ErrCorrupt):
		return outcome(classDamaged, hayrick.Transient, err)
	case errors.As(err, &slow) && slow.Timeout(): // of a dial or a handshake
		return outcome(hayrick.ClassTimeout, hayrick.Timeout, err)
	}
	return outcome(classConnection, hayrick.Transient, err)
}

func outcome(class string, d hayrick.Disposition, err error) jobs.Outcome {
	return jobs.Outcome{Class: class, Disposition: d, Message: line(err.Error())}
}

// line makes one printable line of what a stranger may have written.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if s = strings.Join(strings.Fields(s), " "); len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}
