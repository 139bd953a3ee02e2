package rotation

import (
	"iter"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/internal/certs"
)

// Owners gives each endpoint to the one certificate of a policy that is to be served
// there. The answer depends on the certificates' names alone, so that two assignments
// never fight over an endpoint, whoever asks and in whatever order. It does not change.
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
func NewOwners(all iter.Seq2[string, certs.Info]) *Owners {
	o := &Owners{best: map[string]claim{}}
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
func (o *Owners) Of(endpoint string) (certificate string, ok bool) {
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

// division is who owns which endpoints of a target.
type division struct {
	endpoints []string // what was divided
	owners    *Owners
	// mine are the endpoints of each certificate, orphans those that none covers; each
	// sorted and without duplicates.
	mine    map[string][]string
	orphans []string
}

func divide(endpoints []string, owners *Owners) *division {
	d := &division{endpoints: endpoints, owners: owners, mine: map[string][]string{}}
	all := slices.Clone(endpoints)
	slices.Sort(all)
	for _, endpoint := range slices.Compact(all) {
		if owner, ok := owners.Of(endpoint); ok {
			d.mine[owner] = append(d.mine[owner], endpoint)
		} else {
			d.orphans = append(d.orphans, endpoint)
		}
	}
	return d
}

// divides reports whether this is what divide would return. Lists are compared by where
// they are: nobody writes to one.
func (d *division) divides(endpoints []string, owners *Owners) bool {
	return d.owners == owners && len(d.endpoints) == len(endpoints) && (len(endpoints) == 0 || &d.endpoints[0] == &endpoints[0])
}

// unlisted are those of the endpoints that a certificate served until now which it is to serve still, and which the
// target did not list. Whether they are gone the target is asked about each: a list may be short by mistake, and
// with it a certificate would be nobody's any more.
func (d *division) unlisted(certificate string, served []string) []string {
	var missing []string
	for _, endpoint := range served {
		_, listed := slices.BinarySearch(d.mine[certificate], endpoint)
		if owner, ok := d.owners.Of(endpoint); !listed && ok && owner == certificate {
			missing = append(missing, endpoint)
		}
	}
	return missing
}

// divided says which certificate owns which of a target's endpoints. It is worked out once, not for each of the
// assignments: these are as many as the endpoints. The answer is shared; nobody may write to it.
func (a *Assembly) divided(target string, endpoints []string) *division {
	owners := a.Source.Owners()
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.divisions[target]; d != nil && d.divides(endpoints, owners) {
		return d
	}
	if a.divisions == nil {
		a.divisions = map[string]*division{}
	}
	a.divisions[target] = divide(endpoints, owners)
	return a.divisions[target]
}
