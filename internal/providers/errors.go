package providers

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind classifies a failure of a provider. It alone drives retry, log level and
// metric labels: nothing above an adapter looks at status codes.
type Kind uint8

// The kinds, a closed set. The zero Kind is KindUnknown, which no adapter
// returns on purpose: it stands for an error that was never classified.
const (
	KindUnknown         Kind = iota
	KindNotFound             // the object is not there
	KindInUse                // the object is served and cannot be changed or removed
	KindExists               // an object with this name or content is there already
	KindQuota                // the account may not hold more objects
	KindThrottled            // too many requests; RetryAfter says how long to wait
	KindUnauthenticated      // credentials refused
	KindDenied               // credentials fine, permission missing
	KindInvalid              // the request can never succeed as it is
	KindConflict             // another change is going on; the same request may succeed later
	KindUnavailable          // the request had no effect: refused before it was sent, or a service failure that says so
	KindUnknownOutcome       // the request left and no answer came: it may have taken effect
)

var kindNames = [...]string{
	KindUnknown:         "unknown",
	KindNotFound:        "not_found",
	KindInUse:           "in_use",
	KindExists:          "exists",
	KindQuota:           "quota",
	KindThrottled:       "throttled",
	KindUnauthenticated: "unauthenticated",
	KindDenied:          "denied",
	KindInvalid:         "invalid",
	KindConflict:        "conflict",
	KindUnavailable:     "unavailable",
	KindUnknownOutcome:  "unknown_outcome",
}

// String returns the kind as it stands in metrics, records and events.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[KindUnknown]
}

// Kinds returns every kind, for pre-creating metric series.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Error is a classified failure of a provider. Its text is safe to log: adapters
// put no request or response body into it beyond the service's own short message.
type Error struct {
	Kind Kind
	// Op is what was being done, as a short verb phrase: "create certificate".
	Op string
	// Service is the outside system: "waf", "iam", ...
	Service string
	// Code and Message are the service's own, Message cut to 512 bytes.
	Code    string
	Message string
	// RequestID is the service's id of the call, for a support ticket. It is not in the text:
	// the same failure has the same text each time.
	RequestID string
	// RetryAfter is how long to wait before the next try; zero if nobody said. It comes
	// with KindThrottled, and may come with KindUnavailable (the service is busy and says
	// for how long, or is down and left alone until a trial call; a login whose answer was
	// lost is not repeated at once), with KindConflict (a change that may be made once in a
	// while only) and with KindUnauthenticated (a password that was refused is held back,
	// lest the account be locked).
	RetryAfter time.Duration
	// Err is the underlying error, if any.
	Err error
}

// Error tells what was being done, how it failed and what the service said.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", e.Service, e.Op, strings.ReplaceAll(e.Kind.String(), "_", " "))
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// RequestIDOf is the service's id of the call that failed; empty where there is none.
func RequestIDOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RequestID
	}
	return ""
}

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first *Error in err's chain, or KindUnknown.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindUnknown
}
