package huaweicloud

import (
	"net/http"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

const (
	// "A gateway parameter may change once a minute."
	apigOncePerMinute = time.Minute
	// A change takes effect in 5 to 10 s (reference 3.5); before that the store is not
	// worth asking again.
	apigSync = 15 * time.Second
)

// apigCodes are the error codes of API Gateway (reference 6.3).
var apigCodes = codeTable{
	// Who asks, and for what. 1005 is a 401 that other credentials do not cure.
	"APIG.1000": {kind: providers.KindUnauthenticated},
	"APIG.1001": {kind: providers.KindUnauthenticated},
	"APIG.1002": {kind: providers.KindUnauthenticated},
	"APIG.1003": {kind: providers.KindUnauthenticated},
	"APIG.1007": {kind: providers.KindUnauthenticated},
	"APIG.1008": {kind: providers.KindUnauthenticated},
	"APIG.1009": {kind: providers.KindUnauthenticated},
	"APIG.1005": {kind: providers.KindDenied},
	"APIG.1115": {kind: providers.KindDenied}, // no right on this certificate
	"APIG.1301": {kind: providers.KindDenied}, // no right on this domain

	// The request is wrong.
	"APIG.2000": {kind: providers.KindInvalid}, // parameter; at a detachment: nothing to detach
	"APIG.2029": {kind: providers.KindExists},  // there is a default certificate
	"APIG.2051": {kind: providers.KindInvalid}, // one domain, several ports, different certificates
	"APIG.2101": {kind: providers.KindInvalid}, // key mismatch
	"APIG.2102": {kind: providers.KindInvalid}, // expired
	"APIG.2103": {kind: providers.KindInvalid}, // domain not covered
	"APIG.2104": {kind: providers.KindInvalid}, // chain order
	"APIG.2105": {kind: providers.KindInvalid}, // encrypted key
	"APIG.2106": {kind: providers.KindInvalid}, // no certificate
	"APIG.2109": {kind: providers.KindInvalid}, // no alternative names
	"APIG.3148": {kind: providers.KindInvalid}, // expires after 2038-01-19
	"APIG.3474": {kind: providers.KindInvalid}, // the domain is of another group
	"APIG.3708": {kind: providers.KindInvalid}, // key usage, with status 409
	"APIG.3709": {kind: providers.KindInvalid}, // signature algorithm, with status 409
	"APIG.3715": {kind: providers.KindInvalid}, // CAs of different algorithms

	"APIG.3020": {kind: providers.KindNotFound}, // domain
	"APIG.3021": {kind: providers.KindNotFound}, // certificate
	"APIG.3025": {kind: providers.KindNotFound}, // certificate
	"APIG.3030": {kind: providers.KindNotFound}, // gateway
	"APIG.3097": {kind: providers.KindNotFound}, // binding

	"APIG.3100": {kind: providers.KindQuota},
	"APIG.3108": {kind: providers.KindQuota}, // domain names

	// Another change is going on.
	"APIG.3711": {kind: providers.KindConflict, wait: apigOncePerMinute},
	"APIG.3718": {kind: providers.KindConflict, wait: apigSync},

	// The service itself.
	"APIG.3500": {kind: providers.KindUnavailable, wait: apigSync},  // store sync failed
	"APIG.9008": {kind: providers.KindThrottled, wait: minThrottle}, // with status 500
	"APIG.9999": {server: true},
}

// isAPIGQuota reports whether a code that is not in the table is one of the quota group,
// APIG.3100 and the following: each kind of object has its own, certificates are not
// named, and only the status tells that it is one (reference 6.3).
func isAPIGQuota(status int, code string) bool {
	return status == http.StatusForbidden && len(code) == len("APIG.3100") && strings.HasPrefix(code, "APIG.31")
}
