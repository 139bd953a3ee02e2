package apig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/rotatord/rotatord/internal/providers"
)

// places remembers in which API group a domain is. A domain stays in its group; an entry
// goes when the service does not find the one or the other.
type places struct {
	mu     sync.Mutex
	groups map[string]string // by canonical endpoint
}

func (p *places) get(endpoint string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.groups[canonical(endpoint)]
}

func (p *places) put(endpoint, group string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.groups == nil {
		p.groups = make(map[string]string)
	}
	p.groups[canonical(endpoint)] = group
}

// forget drops the endpoints if err says that something of them is not where it was.
func (p *places) forget(err error, endpoints []string) {
	e, ok := errors.AsType[*providers.Error](err)
	if !ok || e.Kind != providers.KindNotFound && e.Code != "APIG.3474" { // 3474: of another group
		return
	}
	p.drop(endpoints)
}

func (p *places) drop(endpoints []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, endpoint := range endpoints {
		delete(p.groups, canonical(endpoint))
	}
}

// canonical is how domain names are compared.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// site is an endpoint as the gateway has it. With ports of its own a domain is there
// several times, and serves the same certificates on all of them (APIG.2051).
type site struct {
	name     string
	id       string
	bindings []binding
	verifies flag
	hasCA    bool
	noHTTPS  bool
}

// bound reports whether the site serves the certificate.
func (s *site) bound(id string) bool {
	return slices.ContainsFunc(s.bindings, func(b binding) bool { return string(b.ID) == id })
}

// serves is the certificate that a bundle of this algorithm would replace, or has
// replaced: the one of the same kind, else the first. The zero binding is none.
func (s *site) serves(algorithm string) binding {
	for _, b := range s.bindings {
		if algorithm != "" && strings.EqualFold(string(b.Algorithm), algorithm) {
			return b
		}
	}
	if len(s.bindings) == 0 {
		return binding{}
	}
	return s.bindings[0]
}

// add notes one row of a domain.
func (s *site) add(d domain) {
	if s.id == "" {
		s.id, s.name, s.verifies, s.noHTTPS = string(d.ID), canonical(string(d.Domain)), d.Verifies, true
	}
	s.noHTTPS = s.noHTTPS && d.HTTPSPort < 0
	s.hasCA = s.hasCA || d.HasCA.on()
	for _, b := range d.SSLs {
		if b.ID != "" && !s.bound(string(b.ID)) {
			s.bindings = append(s.bindings, b)
		}
	}
	if d.SSLID != "" && !s.bound(string(d.SSLID)) {
		b := binding{ID: d.SSLID, Name: d.SSLName, HasCA: d.HasCA}
		if len(d.SSLs) > 0 {
			b.Algorithm = rsaType // beside ssl_infos it is the RSA one
		}
		s.bindings = append(s.bindings, b)
	}
}

// fewGroups is up to how many groups are read one by one instead of all at once: a
// listing has all domains of the gateway in it.
const fewGroups = 2

// find returns the endpoints that the gateway has, as they are now. It costs one call
// for each 500 groups of the gateway, or, where the endpoints' groups are known and few,
// one for each of these. Both answers tell which certificates a domain serves (reference
// 3.7); the SDK has the listing as ListApiGroupsV2, with the same url_domains.
func (t *Target) find(ctx context.Context, endpoints []string) (map[string]*site, error) {
	var known []string
	for _, e := range endpoints {
		known = append(known, t.places.get(e))
	}
	slices.Sort(known)
	known = slices.Compact(known)
	if len(known) > 0 && len(known) <= fewGroups && known[0] != "" {
		var groups []group
		for _, id := range known {
			g, err := t.showGroup(ctx, id)
			if providers.KindOf(err) == providers.KindNotFound {
				break // a listing tells where the endpoints are now
			}
			if err != nil {
				return nil, err
			}
			groups = append(groups, g)
		}
		if found := t.pick(groups, endpoints); len(found) == len(endpoints) {
			return found, nil
		}
	}
	if len(endpoints) == 0 {
		return nil, nil
	}
	groups, err := t.listGroups(ctx)
	if err != nil {
		return nil, err
	}
	t.places.drop(endpoints)
	return t.pick(groups, endpoints), nil
}

// pick finds the endpoints in groups and remembers where they are.
func (t *Target) pick(groups []group, endpoints []string) map[string]*site {
	byName := make(map[string]*site)
	in := make(map[*site]string)
	for _, g := range groups {
		for _, d := range g.Domains {
			s := byName[canonical(string(d.Domain))]
			if s == nil {
				s = &site{}
				byName[canonical(string(d.Domain))] = s
				in[s] = string(g.ID)
			}
			s.add(d)
			byName[canonical(string(d.ID))] = s
		}
	}
	found := make(map[string]*site)
	for _, e := range endpoints {
		if s := byName[canonical(e)]; s != nil {
			found[e] = s
			t.places.put(e, in[s])
		}
	}
	return found
}

// locate is find for a change: all endpoints must be there. The sites are in the order
// of the endpoints, each once.
func (t *Target) locate(ctx context.Context, endpoints []string) ([]*site, error) {
	found, err := t.find(ctx, endpoints)
	if err != nil {
		return nil, err
	}
	var sites []*site
	var missing []string
	for _, e := range endpoints {
		switch s := found[e]; {
		case s == nil:
			missing = append(missing, e)
		case !slices.Contains(sites, s):
			sites = append(sites, s)
		}
	}
	if len(missing) > 0 {
		return nil, fail(providers.KindNotFound, opActivate, "gateway %s has no domain %s", t.instance, strings.Join(missing, ", "))
	}
	return sites, nil
}

// List returns the gateway's domains, but for those that no client can reach by HTTPS. It
// costs one call for each 500 API groups.
func (t *Target) List(ctx context.Context) ([]string, error) {
	groups, err := t.listGroups(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range groups {
		for _, d := range g.Domains {
			if d.HTTPSPort >= 0 {
				names = append(names, canonical(string(d.Domain)))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// attachments are the sites as attach and detach name them. global says that the
// certificate is one of all gateways: then this one must be named.
func (t *Target) attachments(sites []*site, global bool) []attachTo {
	var all []attachTo
	for _, s := range sites {
		a := attachTo{Domain: s.name, Verifies: s.verifies.value}
		if global {
			a.Instances = []string{t.instance}
		}
		all = append(all, a)
	}
	return all
}
