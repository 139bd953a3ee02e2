package huaweicloud

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// verdict is what an error code means.
type verdict struct {
	kind providers.Kind
	// wait is how long the documents ask to wait; zero if they do not say.
	wait time.Duration
	// server says that the service failed half-way: nothing happened by a read,
	// but a write may have taken effect. It overrides kind.
	server bool
}

// A codeTable holds the error codes of one service. A new service adds its table
// in a file of its own and its prefix to tableOf.
type codeTable map[string]verdict

// tableOf returns the table for a code by what stands before its dot. Codes, not
// the called service, decide: the front gateway answers for all of them.
func tableOf(code string) codeTable {
	prefix, _, _ := strings.Cut(code, ".")
	switch prefix {
	case "WAF":
		return wafCodes
	case "APIG":
		return apigCodes
	case "PCA":
		return pcaCodes
	case "CBC":
		return orderCodes
	case "IIC":
		return identityCodes
	case "APIGW":
		return gatewayCodes
	}
	return nil
}

// gatewayCodes are those of the front gateway (reference 6.6).
var gatewayCodes = codeTable{
	// Authentication information wrong: expired token, bad signature, clock skew.
	"APIGW.0301": {kind: providers.KindUnauthenticated},
	// Limit reached; the message says which.
	"APIGW.0308": {kind: providers.KindThrottled, wait: minThrottle},
}

// judge classifies an answer: by code first, by status second (reference 6.2:
// WAF says "not found" and "bad token" with status 400).
func judge(status int, code string, write bool) (kind providers.Kind, wait time.Duration) {
	v, known := tableOf(code)[code]
	switch {
	case known:
	case isAPIGQuota(status, code):
		v = verdict{kind: providers.KindQuota}
	default:
		v = byStatus(status)
	}
	if v.server {
		v.kind = providers.KindUnavailable
		if write {
			v.kind = providers.KindUnknownOutcome
		}
	}
	return v.kind, v.wait
}

func byStatus(status int) verdict {
	switch status {
	case http.StatusUnauthorized:
		return verdict{kind: providers.KindUnauthenticated}
	case http.StatusForbidden, http.StatusProxyAuthRequired:
		return verdict{kind: providers.KindDenied}
	case http.StatusNotFound, http.StatusGone:
		return verdict{kind: providers.KindNotFound}
	case http.StatusConflict, http.StatusLocked:
		return verdict{kind: providers.KindConflict}
	case http.StatusTooManyRequests:
		return verdict{kind: providers.KindThrottled, wait: minThrottle}
	case http.StatusNotImplemented:
		return verdict{kind: providers.KindInvalid}
	case http.StatusRequestTimeout:
		return verdict{server: true}
	}
	switch {
	case status >= 500:
		return verdict{server: true}
	case status >= 400:
		return verdict{kind: providers.KindInvalid}
	}
	// A redirect, which is not followed: a proxy or a wrong endpoint answered.
	return verdict{kind: providers.KindUnavailable}
}

// After a refusal for too many calls nothing is sent for at least a minute
// (reference 6.6: no Retry-After was ever seen, "wait up to a minute"), and for
// no longer than half an hour whatever the answer says.
const (
	minThrottle = time.Minute
	maxThrottle = 30 * time.Minute
)

// ratelimit is the gateway's text: "policy user over ratelimit,limit:200,time:5 minute".
var ratelimit = regexp.MustCompile(`limit:\s*\d+\s*,\s*time:\s*(\d+)\s*(second|minute|hour|day)?`)

// askedWait is how long a throttled caller is told to wait: by the Retry-After header,
// else the whole window that the message names, since the wait then surely suffices;
// between a minute and half an hour. It is 0 where nothing is told.
func askedWait(h http.Header, message string, now time.Time) time.Duration {
	wait := headerWait(h.Get("Retry-After"), now)
	if m := ratelimit.FindStringSubmatch(message); wait == 0 && m != nil {
		wait = window(m[1], m[2])
	}
	if wait == 0 {
		return 0
	}
	return min(max(wait, minThrottle), maxThrottle)
}

func headerWait(value string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(value); err == nil && n > 0 {
		return time.Duration(min(n, 86400)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now)
	}
	return 0
}

func window(number, unit string) time.Duration {
	n, err := strconv.Atoi(number)
	if err != nil || n > 86400 {
		return maxThrottle
	}
	units := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
	if d, ok := units[unit]; ok {
		return time.Duration(n) * d
	}
	return time.Duration(n) * time.Second
}
