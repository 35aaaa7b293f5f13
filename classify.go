package hayrick

import (
	"fmt"
	"regexp"
	"slices"
)

// ClassRule gives a failure the class As when all that it names holds.
type ClassRule struct {
	Class   string       `json:"class,omitempty"`  // the class that the handler gave; "" = any
	Status  []StatusCode `json:"status,omitempty"` // the upstream's status is one of these: 404, 5xx; none = any
	Message Expression   `json:"message,omitzero"` // found in the message; none = any
	As      string       `json:"as"`               // the class it becomes
}

// Expression is a regular expression in RE2's syntax, compiled; the zero value is none.
type Expression struct{ re *regexp.Regexp }

// MarshalText writes its source.
func (e Expression) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText compiles it.
func (e *Expression) UnmarshalText(b []byte) error {
	re, err := regexp.Compile(string(b))
	if err != nil {
		return fmt.Errorf("%q is not an expression of RE2; write one such as 'connection reset'", b)
	}
	e.re = re
	return nil
}

func (e Expression) String() string {
	if e.re == nil {
		return ""
	}
	return e.re.String()
}

// Equal says whether both are the same source.
func (e Expression) Equal(o Expression) bool { return e.String() == o.String() }

// StatusCode is an HTTP status, or a range of them: 404, 40x, 5xx.
type StatusCode string

var statusPattern = regexp.MustCompile(`^[1-5]([0-9][0-9]|[0-9]x|xx)$`)

// Valid says whether s can match anything.
func (s StatusCode) Valid() bool { return statusPattern.MatchString(string(s)) }

// matches says whether s names status, which has three digits.
func (s StatusCode) matches(status int) bool {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] != 'x' && s[i] != byte('0'+status%10) {
			return false
		}
		status /= 10
	}
	return status == 0
}

// Said is what a handler says of a try that failed.
type Said struct {
	Class       string
	Disposition Disposition // "" = it does not say
	Status      int         // of the upstream's reply; 0 = there was none
	Message     string
}

// Judge says what class a failure has, and what follows from it. The first rule of
// the job file that holds gives the class, and then the handler's disposition, which
// was that of another class, no longer counts. What follows is the job file's word on
// the class, else the handler's, else that of the reserved classes and of statuses;
// a failure that nothing knows is transient: tried again in_task.attempts times a
// group, in passes groups, then exhausted.
func (r Retry) Judge(s Said) (class string, d Disposition) {
	for _, rule := range r.Classify {
		if rule.holds(s) {
			s.Class, s.Disposition = rule.As, ""
			break
		}
	}
	if _, named := r.Classes[s.Class]; !named && s.Disposition == "" {
		s.Disposition = dispositionOfStatus(s.Status)
	}
	return s.Class, r.DispositionOf(s.Class, s.Disposition)
}

func (c ClassRule) holds(s Said) bool {
	return (c.Class == "" || c.Class == s.Class) &&
		(len(c.Status) == 0 || slices.ContainsFunc(c.Status, func(p StatusCode) bool { return p.matches(s.Status) })) &&
		(c.Message.re == nil || c.Message.re.MatchString(s.Message))
}

// dispositionOfStatus is the default for an HTTP status. 401 and 403 are transient: a
// key that has run out is nobody's item's fault.
func dispositionOfStatus(status int) Disposition {
	switch status {
	case 404, 405, 410, 411, 413, 414, 415, 422, 451, 400:
		return Permanent
	case 408, 504:
		return Timeout
	case 429:
		return RateLimit
	}
	return ""
}
