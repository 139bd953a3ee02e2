package cloudsim

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// APIG domains: what is bound to them, what edges make of it, and the calls of reference 3.7 and 3.8.

// apigDomain is a domain of an API group. All its ports have the same certificates (APIG.2051) and the same flag for
// client certificates (reference 3.6), so it is one object with one row for each port.
type apigDomain struct {
	name     string
	group    *apigGroup
	ports    []*domainPort
	minTLS   string
	redirect bool
	verify   bool // verified_client_certificate_enabled
	// bound holds at most one certificate of each algorithm type.
	bound map[string]*apigCertificate
	// history is what edges have to know, the current state last. Edges that lag read the older ones.
	history []domainState
}

type domainPort struct {
	id          string
	http, https int
}

// domainState is a domain from a moment on, with the pairs as they were then.
type domainState struct {
	at           time.Time // zero: from the beginning
	fingerprints []string  // ECC first, as the pairs
	pairs        []tls.Certificate
	minTLS       uint16
	clientCAs    *x509.CertPool // nil: clients are not asked for a certificate
}

func validMinTLS(level string) bool { return level == "TLSv1.1" || level == "TLSv1.2" }

// newDomain builds a domain with what a person bound in the console before the story begins.
func (a *apigState) newDomain(s *Sim, group *apigGroup, d *Domain, named map[string]*apigCertificate) (*apigDomain, error) {
	domain := &apigDomain{
		name: d.Name, group: group, minTLS: d.MinTLS, verify: d.ClientVerification,
		bound: map[string]*apigCertificate{},
	}
	for _, port := range d.Ports {
		domain.ports = append(domain.ports, &domainPort{id: s.newID(), http: 80, https: port})
	}
	if d.ID != "" {
		domain.ports[0].id = d.ID
	}
	d.ID = domain.ports[0].id
	for _, given := range d.Certificates {
		instanceID := ""
		if given.Instance {
			instanceID = group.gateway.id
		}
		key := instanceID + "/" + given.Name
		cert := named[key]
		if cert == nil {
			form, err := uploadedForm(given, instanceID, s.now())
			if err != nil {
				return nil, err
			}
			cert = &apigCertificate{
				id: s.newID(), name: form.name, instanceID: instanceID, material: form.material, trusted: form.trusted,
				created: s.now(), updated: s.now(),
			}
			named[key] = cert
			a.certs = append(a.certs, cert)
		}
		if refusal, ok := domain.checkAttach(cert, true); !ok {
			return nil, errors.New(refusal.message)
		}
		domain.bound[cert.algorithm()] = cert
	}
	if d.ClientVerification && !domain.hasTrustedCA() {
		return nil, errors.New("client verification needs a trusted CA in every certificate")
	}
	domain.record(time.Time{})
	return domain, nil
}

// uploadedForm is a form as a person fills it in.
func uploadedForm(given GatewayCertificate, instanceID string, now time.Time) (certificateForm, error) {
	form := certificateForm{name: given.Name, instanceID: instanceID, trustedGiven: true}
	if !validAPIGName(given.Name) {
		return form, fmt.Errorf("the certificate name %q is invalid", given.Name)
	}
	var refusal answer
	var ok bool
	if form.material, refusal, ok = parseAPIGPair(string(given.CertPEM), string(given.KeyPEM), now); !ok {
		return form, errors.New(refusal.message)
	}
	if form.trusted, refusal, ok = parseTrustedCAs(string(given.TrustedCAPEM)); !ok {
		return form, errors.New(refusal.message)
	}
	return form, nil
}

// port finds a row by its id.
func (d *apigDomain) port(id string) *domainPort {
	for _, port := range d.ports {
		if port.id == id {
			return port
		}
	}
	return nil
}

func (d *apigDomain) ids() []string {
	var ids []string
	for _, port := range d.ports {
		ids = append(ids, port.id)
	}
	return ids
}

func (d *apigDomain) has(cert *apigCertificate) bool { return d.bound[cert.algorithm()] == cert }

// certificates are the bound ones, ECC first.
func (d *apigDomain) certificates() []*apigCertificate {
	var certs []*apigCertificate
	for _, algorithm := range []string{algorithmECC, algorithmRSA} {
		if cert := d.bound[algorithm]; cert != nil {
			certs = append(certs, cert)
		}
	}
	return certs
}

// hasTrustedCA is is_has_trusted_root_ca of a domain: all its certificates have one [SDK model_url_domain].
func (d *apigDomain) hasTrustedCA() bool {
	return len(d.bound) > 0 && !slices.ContainsFunc(d.certificates(), func(c *apigCertificate) bool { return len(c.trusted) == 0 })
}

// checkCAs refuses CA certificates of several algorithm types on one domain (APIG.3715), when trusted becomes that of
// cert.
func (d *apigDomain) checkCAs(cert *apigCertificate, trusted []*x509.Certificate) (answer, bool) {
	all := slices.Clone(trusted)
	for algorithm, other := range d.bound {
		if algorithm != cert.algorithm() {
			all = append(all, other.trusted...)
		}
	}
	for _, ca := range all {
		if algorithmOf(ca) != algorithmOf(all[0]) {
			return refuse(400, codeAPIGCAAlgorithm, "A domain takes CA certificates of one algorithm type only"), false
		}
	}
	return answer{}, true
}

// record notes the present state for the edges.
func (d *apigDomain) record(now time.Time) {
	state := domainState{at: now, minTLS: tls.VersionTLS12}
	if d.minTLS == "TLSv1.1" {
		state.minTLS = tls.VersionTLS11
	}
	pool, trusted := x509.NewCertPool(), 0
	for _, cert := range d.certificates() {
		state.fingerprints = append(state.fingerprints, cert.material.fingerprint())
		state.pairs = append(state.pairs, *cert.material.served()) // it matches: parseAPIGPair saw to it
		for _, ca := range cert.trusted {
			pool.AddCert(ca)
			trusted++
		}
	}
	// "takes effect only with a certificate" [SDK model_url_domain]; without a CA there is nothing to verify against.
	if d.verify && trusted > 0 {
		state.clientCAs = pool
	}
	d.history = append(d.history, state)
}

// stateAt is the newest state that is at least delay old.
func (d *apigDomain) stateAt(now time.Time, delay time.Duration) domainState {
	for _, state := range slices.Backward(d.history) {
		if state.at.IsZero() || !now.Before(state.at.Add(delay)) {
			return state
		}
	}
	return domainState{} // not reached: the first state is from the beginning
}

// domainForName picks the domain for a server name like hostForName. A name that several gateways have is served by
// the first of them: real gateways have addresses of their own, edges have not.
func (a *apigState) domainForName(name string) *apigDomain {
	name = strings.ToLower(name)
	if name == "" || net.ParseIP(name) != nil {
		return nil
	}
	_, parent, hasParent := strings.Cut(name, ".")
	var wildcard *apigDomain
	for _, domain := range a.domains() {
		if domain.name == name {
			return domain
		}
		if wildcard == nil && hasParent && domain.name == "*."+parent {
			wildcard = domain
		}
	}
	return wildcard
}

// domainEdge completes config for one handshake with an APIG domain. crypto/tls takes the first pair that the
// ClientHello supports.
func domainEdge(config *tls.Config, state domainState) *tls.Config {
	config.Certificates, config.MinVersion = state.pairs, state.minTLS
	if state.clientCAs != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, state.clientCAs
	}
	return config
}

// listAttachedDomains is GET …/certificates/{id}/attached-domains. A domain with several ports is there several times
// (reference 3.6 "duplicates").
func (s *Sim) listAttachedDomains(c *call) answer {
	if refusal, ok := apigQuery(c, "offset", "limit", "url_domain"); !ok {
		return refusal
	}
	cert, refusal, ok := s.findAPIGCertificate(c)
	if !ok {
		return refusal
	}
	var all []object
	for _, domain := range s.apig.boundDomains(cert) {
		if !strings.Contains(domain.name, c.query.Get("url_domain")) {
			continue
		}
		for _, port := range domain.ports {
			row := domain.settings(port)
			row["ssl_id"], row["ssl_name"] = cert.id, cert.name
			row["api_group_id"], row["api_group_name"] = domain.group.id, domain.group.name
			row["instance_id"] = domain.group.gateway.id
			all = append(all, row)
		}
	}
	sweepOrder(s, c, all, func(row object) string { return row["id"].(string) })
	from, to, refusal, ok := apigPage(c, len(all))
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, row := range all[from:to] {
		rows = append(rows, row)
	}
	return answer{
		status: 200, body: object{"size": len(rows), "total": len(all), "bound_domains": rows}, objects: []string{cert.id},
	}
}

// settings is what attached-domains and the domain settings share. Status 3: the name is resolved.
func (d *apigDomain) settings(port *domainPort) object {
	return object{
		"url_domain": d.name, "id": port.id, "status": 3, "min_ssl_version": d.minTLS,
		"is_http_redirect_to_https": d.redirect, memberVerifiedClient: d.verify,
		"ingress_http_port": port.http, "ingress_https_port": port.https,
	}
}

// showGroup is GET …/api-groups/{id}.
func (s *Sim) showGroup(c *call) answer {
	if refusal, ok := apigQuery(c); !ok {
		return refusal
	}
	group, refusal, ok := s.findGroup(c)
	if !ok {
		return refusal
	}
	return answer{status: 200, objects: []string{group.id}, body: s.groupDetails(group)}
}

// listGroups is GET …/api-groups [SDK apig/v2 apig_meta.go ListApiGroupsV2]: rows are as detailed as Show's, paging is
// as for certificates, name matches in part unless precise_search names it.
func (s *Sim) listGroups(c *call) answer {
	if refusal, ok := apigQuery(c, "offset", "limit", "id", "name", "precise_search"); !ok {
		return refusal
	}
	gateway := s.apig.gateway(c.params["instance_id"])
	if gateway == nil {
		return missingGateway(c.params["instance_id"])
	}
	id, name, precise := c.query.Get("id"), c.query.Get("name"), c.query.Get("precise_search") == "name"
	var all []object
	for _, group := range gateway.groups {
		if id != "" && group.id != id || precise && group.name != name || !strings.Contains(group.name, name) {
			continue
		}
		all = append(all, s.groupDetails(group))
	}
	sweepOrder(s, c, all, func(row object) string { return row["id"].(string) })
	from, to, refusal, ok := apigPage(c, len(all))
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, row := range all[from:to] {
		rows = append(rows, row)
	}
	return answer{status: 200, body: object{"size": len(rows), "total": len(all), "groups": rows}}
}

func (s *Sim) groupDetails(group *apigGroup) object {
	domains := []any{}
	for _, domain := range group.domains {
		for _, port := range domain.ports {
			domains = append(domains, s.groupRow(domain, port))
		}
	}
	registered := group.created.UTC().Format(apigTime)
	return object{
		"id": group.id, "name": group.name, "status": 1, "sl_domain": group.id + ".apic." + s.cfg.Region + ".example",
		"register_time": registered, "update_time": registered, "on_sell_status": 2, "remark": "", "url_domains": domains,
	}
}

// groupRow is one of url_domains[]: ssl_id and ssl_name are the RSA certificate's (reference 3.7).
func (s *Sim) groupRow(d *apigDomain, port *domainPort) object {
	row := object{
		"id": port.id, "domain": d.name, "cname_status": 3, "min_ssl_version": d.minTLS, memberVerifiedClient: d.verify,
		"is_has_trusted_root_ca": d.hasTrustedCA(), "ingress_http_port": port.http, "ingress_https_port": port.https,
	}
	if cert := d.bound[algorithmRSA]; cert != nil {
		row["ssl_id"], row["ssl_name"] = cert.id, cert.name
	}
	infos := []any{}
	for _, cert := range d.certificates() {
		info := object{"ssl_id": cert.id, "ssl_name": cert.name, "type": 2, "is_has_trusted_root_ca": len(cert.trusted) > 0}
		if cert.instanceID != "" {
			info["type"] = 1
		}
		if !s.cfg.OpenTelekom {
			info["algorithm_type"] = cert.algorithm()
		}
		infos = append(infos, info)
	}
	row["ssl_infos"] = infos
	return row
}

// updateDomain is PUT …/domains/{id} (reference 3.8). What is left out falls back to its documented default, but for
// the ports, which stay [SDK model_url_domain_modify].
func (s *Sim) updateDomain(c *call) answer {
	refusal, ok := s.apigWrite(c)
	if !ok {
		return refusal
	}
	body, refusal, ok := apigBody(c, "min_ssl_version", "is_http_redirect_to_https", memberVerifiedClient,
		"ingress_http_port", "ingress_https_port")
	if !ok {
		return refusal
	}
	minTLS, err := body.needText("min_ssl_version")
	if err == nil && !validMinTLS(minTLS) {
		err = errors.New("min_ssl_version must be TLSv1.1 or TLSv1.2")
	}
	redirect, _, err2 := body.truth("is_http_redirect_to_https")
	verify, verifyGiven, err3 := body.truth(memberVerifiedClient)
	httpPort, err4 := readPort(body, "ingress_http_port", 80)
	httpsPort, err5 := readPort(body, "ingress_https_port", 443)
	if err := errors.Join(err, err2, err3, err4, err5); err != nil {
		return refuseParameter(err.Error())
	}
	domain, port, refusal, ok := s.findDomain(c)
	if !ok {
		return refusal
	}
	if !verifyGiven {
		verify = domain.hasTrustedCA()
	}
	if httpPort == 0 {
		httpPort = port.http
	}
	if httpsPort == 0 {
		httpsPort = port.https
	}
	effect := domain.minTLS != minTLS || domain.redirect != redirect || domain.verify != verify || port.http != httpPort || port.https != httpsPort
	domain.minTLS, domain.redirect, domain.verify, port.http, port.https = minTLS, redirect, verify, httpPort, httpsPort
	if effect {
		domain.record(c.now)
	}
	return answer{status: 200, body: domain.settings(port), effect: effect, objects: []string{port.id}}
}

// readPort reads an ingress port: 0 when it is left out, -1 for none, else the default or 1024 to 49151 [SDK
// model_url_domain_modify].
func readPort(body members, name string, preset int) (int, error) {
	port, err := body.whole(name)
	_, given := body[name]
	if err == nil && given && port != -1 && port != preset && (port < 1024 || port > 49151) {
		err = fmt.Errorf("%s must be -1 or 1024 to 49151", name)
	}
	return port, err
}
