package rotation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
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
		if o.Skew < 0 && !info.NotBefore.After(now.Add(clockTolerance-o.Skew)) {
			return refuse(CauseNotYetValid, "the bundle is valid from %s; this host's clock is %s behind the cloud's: correct it", clock(info.NotBefore), (-o.Skew).Round(time.Second))
		}
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
	if bits, weak := weakKey(info.KeyAlgorithm); weak {
		return refuse(CauseWeakKey, "the key is %s, and fewer than %d bits can be broken; issue it with a longer one, or force it", info.KeyAlgorithm, bits)
	}
	if left, least := info.NotAfter.Sub(now), o.Policy.Guard.MinRemaining.Std(); left < least {
		return refuse(CauseRemaining, "the bundle ends in %s, and guard.min_remaining asks for %s; renew it, or force it", left.Round(time.Minute), o.Policy.Guard.MinRemaining)
	}
	if step, refused := guardPredecessor(o, v, refuse); refused {
		return step, true
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

// guardPredecessor compares the bundle with the version of the same certificate that the
// target serves.
func guardPredecessor(o *Observation, v *View, refuse func(Cause, string, ...any) (Step, bool)) (Step, bool) {
	info, g := o.Wanted.Info, o.Policy.Guard
	for _, e := range v.Observed.Endpoints {
		served := v.remote(e.Serves)
		if served == nil || served.Fingerprint == info.Fingerprint {
			continue
		}
		i := slices.IndexFunc(o.Record.Leaves, func(l certs.Info) bool { return l.Fingerprint == served.Fingerprint })
		if i < 0 {
			continue // somebody else's, or of a time that nobody remembers
		}
		before := o.Record.Leaves[i]
		lost := slices.DeleteFunc(slices.Clone(before.Names), func(name string) bool {
			return slices.Contains(info.Names, name) || info.Covers(name) || g.AllowsLost(name)
		})
		if len(lost) > 0 && !o.issues() { // what a policy asks to be issued it asks for by name
			return refuse(CauseLostNames, "the bundle lost %s, which its predecessor at %s has; issue it with them, allow it by guard.allow_lost_names, or force it", strings.Join(lost, ", "), e.Name)
		}
		if g.AllowIssuerChange != nil && !*g.AllowIssuerChange && before.IssuerCN != info.IssuerCN {
			return refuse(CauseIssuer, "the bundle was issued by %q, its predecessor at %s by %q, and guard.allow_issuer_change is false; allow it, or force it", info.IssuerCN, e.Name, before.IssuerCN)
		}
	}
	return Step{}, false
}

// weakKey reports whether a key of this algorithm is too short to be served, and how many
// bits it should have (NIST SP 800-57 part 1, table 2: 112 bits of strength).
func weakKey(algorithm string) (bits int, weak bool) {
	for prefix, least := range map[string]int{"RSA": 2048, "EC": 224} {
		if n, err := strconv.Atoi(strings.TrimPrefix(algorithm, prefix)); err == nil && strings.HasPrefix(algorithm, prefix) {
			return least, n < least
		}
	}
	return 0, false
}
