package policy

import (
	"fmt"
	"strings"
)

// place is something that one policy alone may care for: an endpoint at a service, a
// directory, an application.
type place struct {
	what string // how a person calls it
	key  string // equal for equal places
	at   string // where the policy names it
}

// places are those that a policy names. What it says with covered is found at run time
// only.
func (p *Policy) places() []place {
	var all []place
	for i, t := range p.Targets {
		at := fmt.Sprintf("$.targets[%d]", i)
		switch {
		case t.WAF != nil:
			for j, host := range t.WAF.Hosts.List {
				all = append(all, place{
					what: "host " + host, at: fmt.Sprintf("%s.waf.hosts[%d]", at, j),
					key: strings.Join([]string{"waf", t.WAF.Cloud, t.WAF.Mode, t.WAF.EnterpriseProject, strings.ToLower(host)}, "/"),
				})
			}
		case t.APIG != nil:
			for j, domain := range t.APIG.Domains.List {
				all = append(all, place{
					what: "domain " + domain, at: fmt.Sprintf("%s.apig.domains[%d]", at, j),
					key: strings.Join([]string{"apig", t.APIG.Cloud, t.APIG.InstanceID, strings.ToLower(domain)}, "/"),
				})
			}
		case t.File != nil:
			all = append(all, place{what: "directory " + t.File.Directory, key: "file/" + t.File.Directory, at: at + ".file.directory"})
		case t.Application != nil:
			all = append(all, place{
				what: "application instance " + t.Application.ApplicationInstanceID, key: "identity_center/" + t.Application.ApplicationInstanceID,
				at: "$.source.identity_center.application_instance_id",
			})
		}
	}
	return all
}

// checkPlaces refuses what is cared for already, by another policy or by this one: two
// would take it from each other for ever. first has where each place was first named.
func checkPlaces(d *document, p *Policy, first map[string]string) {
	for _, place := range p.places() {
		if where, taken := first[place.key]; taken {
			d.addAt(place.at, "%s is cared for already by %s; two would take it from each other", place.what, where)
			continue
		}
		first[place.key] = fmt.Sprintf("policy %q (%s)", p.Name, d.file)
	}
}
