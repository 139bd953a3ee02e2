package rotation

import (
	"fmt"
	"time"
)

// clockSkew is how far the clock of whoever issued a bundle and ours may be apart without
// anything being wrong.
const clockSkew = 5 * time.Minute

// guard refuses to let a bundle near a target that it would make worse. It is asked
// only when something would be changed: a bundle that is served already is not judged.
func guard(o *Observation, v *View, now time.Time) (Step, bool) {
	info := o.Wanted.Info
	refuse := func(cause Cause, format string, args ...any) (Step, bool) {
		return Step{Kind: StepRefuse, Target: v.Name, Fingerprint: info.Fingerprint, Endpoints: v.Endpoints, Cause: cause, Reason: fmt.Sprintf(format, args...)}, true
	}
	if !info.NotAfter.After(now) {
		return refuse(CauseExpired, "the bundle expired at %s; put a valid one in its place", clock(info.NotAfter))
	}
	if ahead := info.NotBefore.Sub(now); ahead > 0 && ahead <= clockSkew {
		return Step{Kind: StepWait, Target: v.Name, Fingerprint: info.Fingerprint, Until: info.NotBefore, Cause: CauseNotYetValid, Reason: "the bundle is valid from " + clock(info.NotBefore)}, true
	}
	if info.NotBefore.After(now) {
		return refuse(CauseNotYetValid, "the bundle is not valid before %s, and it is %s here; wait, or correct the clock", clock(info.NotBefore), clock(now))
	}
	if o.issues() && !v.Last {
		for _, e := range v.Endpoints {
			if !isDirectory(e) && !info.Covers(e) {
				return refuse(CauseUncovered, "%s is not covered by the certificate in force; the next one is to have the name", e)
			}
		}
	}
	if o.Force {
		return Step{}, false
	}
	if o.Wanted.CA {
		return refuse(CauseCA, "the certificate is one of a CA, whose key must not leave the host; a forced trigger deploys it all the same")
	}
	if o.Wanted.Chain == 0 && o.Record.Chain > 0 && !o.issues() {
		return refuse(CauseChain, "no chain was found for the bundle, and its predecessor had one; put the intermediates beside it, or force it")
	}
	for _, e := range v.Observed.Endpoints {
		served := v.remote(e.Serves)
		if served == nil || served.Fingerprint == info.Fingerprint || !served.NotAfter.After(now) {
			continue
		}
		if served.NotBefore.After(info.NotBefore) {
			return refuse(CauseOlder, "%s serves a certificate that was issued later (%s) than the bundle (%s); a forced trigger deploys it all the same",
				e.Name, clock(served.NotBefore), clock(info.NotBefore))
		}
	}
	return Step{}, false
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
