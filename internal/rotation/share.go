package rotation

import (
	"iter"
	"slices"

	"github.com/rotatord/rotatord/internal/certs"
)

// Owners gives each endpoint to the one certificate of a policy that is to be served
// there. An endpoint that none covers is not in the result. The answer depends on the
// certificates' names alone, so that two assignments never fight over an endpoint,
// whoever asks and in whatever order.
func Owners(endpoints []string, all iter.Seq2[string, certs.Info]) map[string]string {
	best := map[string]claim{}
	for name, info := range all {
		for _, endpoint := range endpoints {
			if !info.Covers(endpoint) {
				continue
			}
			c := claim{certificate: name, exact: slices.Contains(info.Names, endpoint), names: len(info.Names)}
			if have, ok := best[endpoint]; !ok || c.beats(have, endpoint) {
				best[endpoint] = c
			}
		}
	}
	owners := make(map[string]string, len(best))
	for endpoint, c := range best {
		owners[endpoint] = c.certificate
	}
	return owners
}

// claim is a certificate that covers an endpoint.
type claim struct {
	certificate string
	exact       bool // by name, not by wildcard
	names       int
}

// beats orders claims to one endpoint: the exact name before the wildcard, the
// certificate called like the endpoint before others, the more specific (fewer names)
// before the broader, and the alphabet last.
func (c claim) beats(other claim, endpoint string) bool {
	switch {
	case c.exact != other.exact:
		return c.exact
	case (c.certificate == endpoint) != (other.certificate == endpoint):
		return c.certificate == endpoint
	case c.names != other.names:
		return c.names < other.names
	}
	return c.certificate < other.certificate
}

// share splits a target's endpoints into those of one certificate, sorted, and those
// that no certificate of the policy covers.
func share(endpoints []string, certificate string, source Source) (mine, orphans []string) {
	for _, endpoint := range endpoints {
		switch owner, ok := source.Owner(endpoint); {
		case !ok:
			orphans = append(orphans, endpoint)
		case owner == certificate:
			mine = append(mine, endpoint)
		}
	}
	slices.Sort(mine)
	slices.Sort(orphans)
	return slices.Compact(mine), slices.Compact(orphans)
}
