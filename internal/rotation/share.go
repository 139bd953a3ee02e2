package rotation

import (
	"iter"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/internal/certs"
)

// Owners gives each endpoint to the one certificate of a policy that is to be served
// there. The answer depends on the certificates' names alone, so that two assignments
// never fight over an endpoint, whoever asks and in whatever order.
type Owners struct {
	best map[string]claim // by name as it stands in a certificate, wildcards included
	// only is the policy's certificate where it has exactly one; a directory of files
	// can hold no more.
	only string
}

// claim is a certificate that has a name.
type claim struct {
	certificate string
	names       int
}

// NewOwners reads all certificates of a policy.
func NewOwners(all iter.Seq2[string, certs.Info]) Owners {
	o := Owners{best: map[string]claim{}}
	count := 0
	for certificate, info := range all {
		count++
		o.only = certificate
		for _, name := range info.Names {
			c := claim{certificate, len(info.Names)}
			if have, ok := o.best[name]; !ok || c.beats(have, name) {
				o.best[name] = c
			}
		}
	}
	if count != 1 {
		o.only = ""
	}
	return o
}

// beats orders claims to one name: the certificate called like the name before others,
// the more specific (fewer names) before the broader, and the alphabet last.
func (c claim) beats(other claim, name string) bool {
	switch {
	case (c.certificate == name) != (other.certificate == name):
		return c.certificate == name
	case c.names != other.names:
		return c.names < other.names
	}
	return c.certificate < other.certificate
}

// Of returns the certificate for an endpoint: one with its exact name before one with a
// wildcard for its left-most label (RFC 9525, section 6.3); false if none covers it. A
// directory, which begins with a slash, has the policy's only certificate.
func (o Owners) Of(endpoint string) (certificate string, ok bool) {
	if isDirectory(endpoint) {
		return o.only, o.only != ""
	}
	if c, ok := o.best[endpoint]; ok {
		return c.certificate, true
	}
	label, parent, found := strings.Cut(endpoint, ".")
	if !found || label == "*" {
		return "", false
	}
	c, ok := o.best["*."+parent]
	return c.certificate, ok
}

// isDirectory reports whether an endpoint is a directory of files rather than a name.
func isDirectory(endpoint string) bool { return strings.HasPrefix(endpoint, "/") }

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
