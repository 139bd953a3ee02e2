package cloudsim

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// APIG certificates: reference 3.2 to 3.5, [S001].

type apigCertificate struct {
	id, name         string
	instanceID       string // "" for a global one
	material         *material
	trusted          []*x509.Certificate // trusted_root_ca
	created, updated time.Time
}

func (a *apigCertificate) leaf() *x509.Certificate { return a.material.chain[0] }
func (a *apigCertificate) algorithm() string       { return algorithmOf(a.leaf()) }

func (a *apigCertificate) scope() string {
	if a.instanceID == "" {
		return typeGlobal
	}
	return typeInstance
}

// instance is the instance_id of an answer.
func (a *apigCertificate) instance() string {
	if a.instanceID == "" {
		return apigGlobalInstance
	}
	return a.instanceID
}

// certificateForm is the body of create and update.
type certificateForm struct {
	name, instanceID string
	material         *material
	trusted          []*x509.Certificate
	trustedGiven     bool
}

// readForm checks a form. All of it is needed each time: there is no partial update (reference 3.5).
func (s *Sim) readForm(c *call) (certificateForm, answer, bool) {
	var form certificateForm
	bad := func(refusal answer) (certificateForm, answer, bool) { return form, refusal, false }
	allowed := []string{"name", "cert_content", "private_key", "type", "instance_id", "trusted_root_ca"}
	if !s.cfg.OpenTelekom {
		allowed = append(allowed, "algorithm_type") // not on OTC (reference 3.10)
	}
	body, refusal, ok := apigBody(c, allowed...)
	if !ok {
		return bad(refusal)
	}
	texts := map[string]string{}
	for _, name := range allowed {
		text, given, err := body.text(name)
		if err != nil {
			return bad(refuseParameter(err.Error()))
		}
		if mandatory := slices.Contains(allowed[:3], name); mandatory && !given {
			return bad(refuseParameter(fmt.Sprintf("the parameter %q is missing", name)))
		}
		texts[name] = text
	}
	form.name = texts["name"]
	if !validAPIGName(form.name) {
		return bad(refuseParameter("The certificate name is invalid"))
	}
	if form.instanceID, refusal, ok = s.readScope(texts["type"], texts["instance_id"]); !ok {
		return bad(refusal)
	}
	if form.material, refusal, ok = parseAPIGPair(texts["cert_content"], texts["private_key"], c.now); !ok {
		return bad(refusal)
	}
	if named := texts["algorithm_type"]; named != "" && named != algorithmOf(form.material.chain[0]) {
		return bad(refuseParameter("algorithm_type is not the algorithm of the certificate")) // SM2 never is
	}
	_, form.trustedGiven = body["trusted_root_ca"]
	form.trusted, refusal, ok = parseTrustedCAs(texts["trusted_root_ca"])
	return form, refusal, ok
}

// validAPIGName is the rule of [S001]: 4 to 50 characters, a letter first, then letters, digits and "_".
func validAPIGName(name string) bool {
	if len(name) < 4 || len(name) > 50 {
		return false
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r != '_' && (r < '0' || r > '9')) {
			return false
		}
	}
	return true
}

// readScope reads type and instance_id: a gateway is needed for instance [S001]. A global certificate has none but
// "common", which its own answers show (reference 3.3).
func (s *Sim) readScope(scope, instanceID string) (string, answer, bool) {
	switch scope {
	case "", typeGlobal:
		if instanceID != "" && instanceID != apigGlobalInstance {
			return "", refuseParameter("instance_id is for the type instance only"), false
		}
		return "", answer{}, true
	case typeInstance:
		if instanceID == "" {
			return "", refuseParameter("instance_id is needed for the type instance"), false
		}
		if s.apig.gateway(instanceID) == nil {
			return "", missingGateway(instanceID), false
		}
		return instanceID, answer{}, true
	}
	return "", refuseParameter("type must be global or instance"), false
}

// createAPIGCertificate is POST …/certificates. Equal names and equal contents are no conflict: no code is listed for
// either (reference 6.3).
func (s *Sim) createAPIGCertificate(c *call) answer {
	if refusal, ok := apigQuery(c); !ok {
		return refusal
	}
	form, refusal, ok := s.readForm(c)
	if !ok {
		return refusal
	}
	cert := s.addAPIGCertificate(form, c.now)
	done := answer{
		status: 200, body: s.apigDetails(cert), effect: true, objects: []string{cert.id},
		fingerprint: form.material.fingerprint(), name: cert.name,
	}
	if s.either("status of an APIG create") {
		done.status = 201 // "accept 201" (reference 0.3)
	}
	return done
}

func (s *Sim) addAPIGCertificate(form certificateForm, now time.Time) *apigCertificate {
	cert := &apigCertificate{
		id: s.newID(), name: form.name, instanceID: form.instanceID, material: form.material, trusted: form.trusted,
		created: now, updated: now,
	}
	s.apig.certs = append(s.apig.certs, cert)
	return cert
}

// showAPIGCertificate is GET …/certificates/{id}. Neither PEM nor key is ever returned (reference 3.3).
func (s *Sim) showAPIGCertificate(c *call) answer {
	if refusal, ok := apigQuery(c); !ok {
		return refusal
	}
	cert, refusal, ok := s.findAPIGCertificate(c)
	if !ok {
		return refusal
	}
	return answer{status: 200, body: s.apigDetails(cert), objects: []string{cert.id}}
}

// updateAPIGCertificate is PUT …/certificates/{id}: allowed while bound, and every bound domain follows (reference
// 3.5). It changes neither the scope (no page says that it could) nor, while bound, the algorithm type (doubt 6).
func (s *Sim) updateAPIGCertificate(c *call) answer {
	refusal, ok := s.apigWrite(c)
	if !ok {
		return refusal
	}
	form, refusal, ok := s.readForm(c)
	if !ok {
		return refusal
	}
	cert, refusal, ok := s.findAPIGCertificate(c)
	if !ok {
		return refusal
	}
	trusted := form.trusted
	if !form.trustedGiven && s.cfg.KeepTrustedCA { // doubt 4
		trusted = cert.trusted
	}
	if cert.instanceID != form.instanceID {
		return refuseParameter("type and instance_id of a certificate cannot be changed")
	}
	bound := s.apig.boundDomains(cert)
	if refusal, ok := checkReplacement(cert, form.material, trusted, bound); !ok {
		return refusal
	}
	renewed := !cert.material.sameContent(form.material) || cert.material.key != form.material.key || !sameCertificates(cert.trusted, trusted)
	changed := renewed || cert.name != form.name
	cert.name, cert.material, cert.trusted, cert.updated = form.name, form.material, trusted, c.now
	done := answer{
		status: 200, effect: changed, objects: []string{cert.id}, fingerprint: form.material.fingerprint(), name: cert.name,
	}
	for _, domain := range bound {
		if renewed {
			domain.record(c.now)
		}
		done.objects = append(done.objects, domain.ids()...)
	}
	done.body = s.apigDetails(cert)
	return done
}

// checkReplacement tells whether every bound domain can follow.
func checkReplacement(cert *apigCertificate, m *material, trusted []*x509.Certificate, bound []*apigDomain) (answer, bool) {
	if len(bound) > 0 && algorithmOf(m.chain[0]) != cert.algorithm() {
		return refuseParameter("The algorithm type of a bound certificate cannot be changed"), false
	}
	for _, domain := range bound {
		if !covers(m.chain[0], domain.name) {
			return refuse(400, codeAPIGDomain, "The certificate does not match the domain "+domain.name), false
		}
		if refusal, ok := domain.checkCAs(cert, trusted); !ok {
			return refusal, false
		}
	}
	return answer{}, true
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// deleteAPIGCertificate is DELETE …/certificates/{id}. A bound one is refused with some 4xx (doubt 7).
func (s *Sim) deleteAPIGCertificate(c *call) answer {
	refusal, ok := s.apigWrite(c)
	if !ok {
		return refusal
	}
	cert, refusal, ok := s.findAPIGCertificate(c)
	if !ok {
		return refusal
	}
	if refusal, ok := s.removeAPIGCertificate(cert); !ok {
		return refusal
	}
	return answer{status: 204, effect: true, objects: []string{cert.id}}
}

func (s *Sim) removeAPIGCertificate(cert *apigCertificate) (answer, bool) {
	if len(s.apig.boundDomains(cert)) > 0 {
		return refuse(409, codeAPIGInUse, "The certificate is bound to a domain"), false
	}
	at := slices.Index(s.apig.certs, cert)
	s.apig.certs = slices.Delete(s.apig.certs, at, at+1)
	return answer{}, true
}

// listAPIGCertificates is GET …/certificates (reference 3.4). With instance_id it shows what that gateway can use: its
// own certificates and the global ones; type narrows that down.
func (s *Sim) listAPIGCertificates(c *call) answer {
	filters := []string{"name", "common_name", "signature_algorithm", "type", "instance_id"}
	if !s.cfg.OpenTelekom {
		filters = append(filters, "algorithm_type")
	}
	if refusal, ok := apigQuery(c, append(filters, "offset", "limit")...); !ok {
		return refusal
	}
	if refusal, ok := s.checkListQuery(c); !ok {
		return refusal
	}
	var found []*apigCertificate
	for _, cert := range s.apig.certs {
		if s.listedAPIG(c, cert) {
			found = append(found, cert)
		}
	}
	sweepOrder(s, c, found, func(cert *apigCertificate) string { return cert.id })
	from, to, refusal, ok := apigPage(c, len(found))
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, cert := range found[from:to] {
		rows = append(rows, s.apigRow(cert))
	}
	return answer{status: 200, body: object{"size": len(rows), "total": len(found), "certs": rows}}
}

func (s *Sim) checkListQuery(c *call) (answer, bool) {
	instance := c.query.Get("instance_id")
	switch {
	case instance == "" && s.either("instance_id in list"): // doubt 8
		return refuseParameter("instance_id is missing"), false
	case instance != "" && s.apig.gateway(instance) == nil:
		return missingGateway(instance), false
	case !slices.Contains([]string{"", typeGlobal, typeInstance}, c.query.Get("type")):
		return refuseParameter("type must be global or instance"), false
	case !slices.Contains([]string{"", algorithmRSA, algorithmECC, algorithmSM2}, c.query.Get("algorithm_type")):
		return refuseParameter("algorithm_type must be RSA, ECC or SM2"), false
	}
	return answer{}, true
}

func (s *Sim) listedAPIG(c *call, cert *apigCertificate) bool {
	instance := c.query.Get("instance_id")
	if instance != "" && cert.instanceID != "" && cert.instanceID != instance {
		return false
	}
	name := c.query.Get("name")
	if name != "" && s.either("exact name in list") && cert.name != name { // "name match kind not stated"
		return false
	}
	if !strings.Contains(cert.name, name) || !strings.Contains(cert.leaf().Subject.CommonName, c.query.Get("common_name")) {
		return false
	}
	for query, value := range map[string]string{
		"type": cert.scope(), "algorithm_type": cert.algorithm(), "signature_algorithm": cert.leaf().SignatureAlgorithm.String(),
	} {
		if asked := c.query.Get(query); asked != "" && asked != value {
			return false
		}
	}
	return true
}

// apigRow is a row of the list and the beginning of every other answer (reference 3.3).
func (s *Sim) apigRow(cert *apigCertificate) object {
	leaf := cert.leaf()
	row := object{
		"id": cert.id, "name": cert.name, "type": cert.scope(), "instance_id": cert.instance(), "project_id": s.cfg.ProjectID,
		"common_name": leaf.Subject.CommonName, "san": sans(leaf), "not_after": leaf.NotAfter.UTC().Format(apigTime),
		"signature_algorithm": leaf.SignatureAlgorithm.String(), "is_has_trusted_root_ca": len(cert.trusted) > 0,
		"create_time": cert.created.UTC().Format(apigTime), "update_time": cert.updated.UTC().Format(apigTime),
	}
	if !s.cfg.OpenTelekom && !s.either("algorithm_type as in the seed") { // [S001] has no algorithm_type
		row["algorithm_type"] = cert.algorithm()
	}
	return row
}

func (s *Sim) apigDetails(cert *apigCertificate) object {
	leaf, row := cert.leaf(), s.apigRow(cert)
	row["version"], row["not_before"] = leaf.Version, leaf.NotBefore.UTC().Format(apigTime)
	row["serial_number"] = s.serialText(leaf.SerialNumber)
	for name, values := range map[string][]string{
		"organization": leaf.Subject.Organization, "organizational_unit": leaf.Subject.OrganizationalUnit,
		"locality": leaf.Subject.Locality, "state": leaf.Subject.Province, "country": leaf.Subject.Country,
		"issuer": leaf.Issuer.Organization, // the example of [S001] looks like one
	} {
		row[name] = append([]string{}, values...)
	}
	return row
}

// serialText is decimal like the example of [S001]; doubt 9: or hex with colons.
func (s *Sim) serialText(serial *big.Int) string {
	if !s.either("form of serial_number") {
		return serial.String()
	}
	var text bytes.Buffer
	for i, b := range serial.Bytes() {
		if i > 0 {
			text.WriteByte(':')
		}
		fmt.Fprintf(&text, "%02X", b)
	}
	return text.String()
}
