package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	outcome jobs.Outcome
	status  int
}

func (r *refusal) Error() string { return r.outcome.Message }

// throttled says whether the head of an answer asks to be asked less often, and
// what the limiter should hear then.
func throttled(status int, h http.Header, now time.Time) (f jobs.Feedback, yes bool) {
	if status != http.StatusTooManyRequests && (status != http.StatusServiceUnavailable || h.Get("Retry-After") == "") {
		return jobs.Feedback{}, false
	}
	return jobs.Feedback{Throttled: true, RetryAfter: retryAfter(h, now)}, true
}

// classifyStatus says what an answer other than 200 means.
func classifyStatus(host string, status int, h http.Header, body []byte, now time.Time) *refusal {
	var xrpc struct{ Error, Message string }
	_ = json.Unmarshal(body, &xrpc) // another form leaves it empty
	said := strings.TrimSpace(xrpc.Error + " " + xrpc.Message)
	r := &refusal{status: status, outcome: jobs.Fail(classUpstream4xx, "%s", line(fmt.Sprintf("%d from %s %s", status, host, said)))}
	o := &r.outcome
	o.Status = status
	switch class, final := gone[xrpc.Error]; {
	case final && status < 500:
		o.Class, o.Disposition = class, hayrick.Permanent
	case status == http.StatusTooManyRequests:
		o.Class, o.Disposition = hayrick.ClassRateLimit, hayrick.RateLimit
		o.RetryAfter = retryAfter(h, now)
	case status >= 500:
		o.Class, o.Disposition = classUpstream5xx, hayrick.Transient
		o.RetryAfter = retryAfter(h, now)
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
	var wait float64 // seconds
	if v := strings.TrimSpace(h.Get("Retry-After")); v != "" {
		n, ok := parseSeconds(v)
		if t, err := http.ParseTime(v); !ok && err == nil {
			n = t.Sub(now).Seconds()
		}
		wait = n
	} else if n, ok := parseSeconds(strings.TrimSpace(h.Get("RateLimit-Reset"))); ok {
		if n > 1e9 { // later than 2001: a time, not a wait
			n -= float64(now.Unix())
		}
		wait = n
	}
	wait = min(max(wait, 0), maxRetryAfter.Seconds())
	return time.Duration(math.Ceil(wait)) * time.Second
}

// parseSeconds reads a number of any length. Some hosts write fractions.
func parseSeconds(s string) (n float64, ok bool) {
	if strings.Trim(s, "+-.0123456789") != "" { // of what ParseFloat reads, only plain numbers
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange) // then n is infinite
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
