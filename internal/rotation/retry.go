package rotation

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// How long to wait after the n-th failure in a row; the last entry repeats. Elapsed
// times in comments. The service's own word (RetryAfter) wins where it is longer.
//
//	kind             delays      because
//	unavailable      transient   it had no effect, and the service will be back
//	unknown outcome  transient   it may have had one: the next try begins with a look
//	conflict         transient   another change is going on, or a read back was too early
//	in use           transient   something binds what was to go; told apart at retiring
//	unknown          transient   never classified: be it a bug, it is not hammered
//	throttled        60 s        no service says how long; doubling is the client's
//	unauthenticated  stubborn    somebody must change a login (a password is held back)
//	denied           stubborn    somebody must grant a permission
//	invalid          stubborn    somebody must change the policy, the bundle or the CA
//	quota            stubborn    somebody must make room
//	not found        stubborn    somebody must create it, or correct the policy
//	exists           stubborn    somebody must rename or remove what is in the way
var (
	// transientDelays: something is down or busy, and will be back.
	transientDelays = []time.Duration{
		2 * time.Second,  // 2 s
		5 * time.Second,  // 7 s
		15 * time.Second, // 22 s
		time.Minute,      // ~1.5 min
		2 * time.Minute,  // ~3.5 min
		5 * time.Minute,  // ~8 min
		10 * time.Minute, // ~18 min
		30 * time.Minute, // then twice an hour
	}
	// stubbornDelays: a person has to change something; a look now and then notices.
	stubbornDelays = []time.Duration{
		time.Minute,      // 1 min
		5 * time.Minute,  // 6 min
		15 * time.Minute, // 21 min
		time.Hour,        // then every hour
	}
	// proofDelays: edges take seconds, sometimes minutes, to serve what they are told.
	proofDelays = []time.Duration{
		250 * time.Millisecond, // 0.25 s
		500 * time.Millisecond, // 0.75 s
		time.Second,            // 1.75 s
		2 * time.Second,        // ~4 s
		5 * time.Second,        // ~9 s
		10 * time.Second,       // ~19 s
		30 * time.Second,       // then twice a minute
	}
)

// successGap is the pause between proofs that must succeed in a row.
const successGap = 250 * time.Millisecond

// lateProofDelay is the pause between proofs once verify.within has passed.
const lateProofDelay = 5 * time.Minute

// minThrottle is the least pause after a service said that we ask too much: none of
// them is documented to say how long.
const minThrottle = time.Minute

// retryDelay says how long to wait after a failure, the n-th in a row (from 1), with
// up to a tenth more so that many assignments do not come back at once.
func retryDelay(err error, n int) time.Duration {
	var d time.Duration
	switch kind := providers.KindOf(err); kind {
	case providers.KindThrottled:
		d = minThrottle
	case providers.KindUnauthenticated, providers.KindDenied, providers.KindInvalid, providers.KindQuota, providers.KindNotFound, providers.KindExists:
		d = nth(stubbornDelays, n)
	default:
		d = nth(transientDelays, n)
	}
	if e, ok := errors.AsType[*providers.Error](err); ok {
		d = max(d, e.RetryAfter)
	}
	return d + rand.N(d/10+1)
}

func nth(delays []time.Duration, n int) time.Duration {
	return delays[min(max(n, 1), len(delays))-1]
}
