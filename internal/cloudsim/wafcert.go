package cloudsim

import (
	"slices"
	"strings"
	"time"
)

// WAF certificates: reference 2.2 to 2.6, [S003].

// upload is a name with a checked pair, or with none when only the name is to change.
type upload struct {
	name     string
	material *material
}

// createCertificate is POST …/waf/certificate.
func (s *Sim) createCertificate(c *call) answer {
	var allowed []string
	if !s.cfg.OpenTelekom {
		allowed = []string{"verify_cert_key"} // not on OTC (reference 2.2)
	}
	eps, refusal, ok := s.wafQuery(c, true, allowed...)
	if !ok {
		return refusal
	}
	verify := c.query.Get("verify_cert_key")
	if verify != "" && verify != "true" && verify != "false" {
		return refuse(400, codeBadRequest, "verify_cert_key must be true or false")
	}
	body, refusal, ok := wafBody(c, "name", "content", "key")
	if !ok {
		return refusal
	}
	up, refusal, ok := s.readUpload(body, true)
	if !ok {
		return refusal
	}
	if verify == "true" {
		if refusal, ok := s.verifyPair(up.material, c.now); !ok {
			return refusal
		}
	}
	cert, refusal, ok := s.addCertificate(up, eps, c.now)
	if !ok {
		return refusal
	}
	row := s.certificateHead(cert)
	if s.cfg.Misbehave {
		// The table of [S003] has neither, its example has both: an answer to a create may carry the key.
		row["content"], row["key"] = reflowed(up.material.content), up.material.key
	}
	return answer{
		status: 200, body: row, effect: true, objects: []string{cert.id},
		fingerprint: up.material.fingerprint(), name: cert.name,
	}
}

// readUpload checks name, content and key. Content and key must be there when needPair, and else come together.
func (s *Sim) readUpload(body members, needPair bool) (upload, answer, bool) {
	var up upload
	bad := func(err error) (upload, answer, bool) { return up, refuse(400, codeBody, err.Error()), false }
	name, err := body.needText("name")
	if err != nil {
		return bad(err)
	}
	if !s.validName(name) {
		// The text of WAF.00021005 says 64, [S003] says 256 and names the characters.
		return up, refuse(400, codeName, "The certificate name is invalid"), false
	}
	up.name = name
	content, hasContent, err := body.text("content")
	if err != nil {
		return bad(err)
	}
	key, hasKey, err := body.text("key")
	if err != nil {
		return bad(err)
	}
	if hasContent != hasKey || needPair && !hasContent {
		return up, refuse(400, codeBody, "content and key are needed together"), false
	}
	if !hasContent {
		return up, answer{}, true
	}
	if up.material, err = parseMaterial(content, key, s.cfg.TolerateKeyForm); err != nil {
		return up, refuse(400, s.illegalCode(), err.Error()), false
	}
	return up, answer{}, true
}

// illegalCode is the code for an illegal certificate; the Huawei table has one of its own.
func (s *Sim) illegalCode() string {
	if s.cfg.OpenTelekom {
		return codeIllegalOTC
	}
	return codeIllegal
}

// validName allows digits, letters, "-", "_" and "." [S003].
func (s *Sim) validName(name string) bool {
	const marks = "-_."
	bad := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(marks, r)
	}
	return name != "" && len(name) <= s.cfg.NameLimit && !strings.ContainsFunc(name, bad)
}

// verifyPair is what verify_cert_key=true adds (reference 2.2).
func (s *Sim) verifyPair(m *material, now time.Time) (answer, bool) {
	switch {
	case !m.matches:
		return refuse(400, codeIllegal, "The certificate and the private key do not match"), false
	case now.After(m.chain[0].NotAfter):
		return refuse(400, codeExpired, "The certificate has expired"), false
	}
	return answer{}, true
}

// addCertificate is the part of a create that the console shares. Conflicts are told before the quota, so that a
// repeated create is told that it was carried out the first time.
func (s *Sim) addCertificate(up upload, eps string, now time.Time) (*wafCertificate, answer, bool) {
	if refusal, ok := s.conflicts(up, nil); !ok {
		return nil, refusal, false
	}
	if quota := s.cfg.CertificateQuota; quota >= 0 && len(s.waf.certs) >= quota {
		// The table has three codes for it and no rule which is used when.
		codes := []string{"WAF.00013001", "WAF.00013007", "WAF.00014012"}
		code := codes[0]
		if s.cfg.Misbehave {
			code = codes[s.hash("quota")%3]
		}
		return nil, refuse(400, code, "insufficient.quota"), false
	}
	cert := &wafCertificate{id: s.newID(), name: up.name, eps: eps, material: up.material, created: now}
	s.waf.add(cert)
	return cert, answer{}, true
}

// conflicts refuses a name or a content that another certificate of the account has (WAF.00011016; reference 2.2
// "Duplicates" and doubt 11).
func (s *Sim) conflicts(up upload, self *wafCertificate) (answer, bool) {
	for _, other := range s.waf.certs {
		switch {
		case other == self:
		case other.name == up.name:
			return refuse(400, codeNameExists, "The certificate name already exists"), false
		case up.material != nil && other.material.sameContent(up.material):
			return refuse(400, codeExists, "The resource already exists"), false
		}
	}
	return answer{}, true
}

// findCertificate checks the id of the path and looks it up.
func (s *Sim) findCertificate(c *call, eps string) (*wafCertificate, answer, bool) {
	id := c.params["certificate_id"]
	if !isID(id) {
		return nil, refuse(400, codeIDForm, "The certificate id is invalid"), false
	}
	cert := s.waf.certificate(id)
	if cert == nil || !inProject(cert.eps, eps) {
		return nil, s.wafMissing(c), false
	}
	return cert, answer{}, true
}

// showCertificate is GET …/waf/certificate/{id}. It returns the private key in clear (reference 2.4).
func (s *Sim) showCertificate(c *call) answer {
	eps, refusal, ok := s.wafQuery(c, false)
	if !ok {
		return refusal
	}
	cert, refusal, ok := s.findCertificate(c, eps)
	if !ok {
		return refusal
	}
	row := s.certificateHead(cert)
	delete(row, "cert_type")
	row["exp_status"] = expStatus(cert, c.now)
	row["bind_host"] = bindHosts(s.waf.boundHosts(cert))
	row["content"], row["key"] = cert.material.content, cert.material.key
	if s.cfg.Misbehave {
		row["content"] = reflowed(cert.material.content)
	}
	return answer{status: 200, body: row, objects: []string{cert.id}}
}

// updateCertificate is PUT …/waf/certificate/{id}: a certificate that a host uses can be neither changed nor renamed
// (reference 2.5).
func (s *Sim) updateCertificate(c *call) answer {
	eps, refusal, ok := s.wafQuery(c, true)
	if !ok {
		return refusal
	}
	body, refusal, ok := wafBody(c, "name", "content", "key")
	if !ok {
		return refusal
	}
	up, refusal, ok := s.readUpload(body, false)
	if !ok {
		return refusal
	}
	cert, refusal, ok := s.findCertificate(c, eps)
	if !ok {
		return refusal
	}
	if len(s.waf.boundHosts(cert)) > 0 {
		return refuse(400, codeInUse, "Resource is in use")
	}
	if refusal, ok := s.conflicts(up, cert); !ok {
		return refusal
	}
	changed := cert.name != up.name
	cert.name = up.name
	s.waf.gatherNames()
	if up.material != nil {
		changed = changed || !cert.material.sameContent(up.material) || cert.material.key != up.material.key
		cert.material = up.material
	}
	row := s.certificateHead(cert)
	delete(row, "cert_type")
	return answer{
		status: 200, body: row, effect: changed, objects: []string{cert.id},
		fingerprint: cert.material.fingerprint(), name: cert.name,
	}
}

// deleteCertificate is DELETE …/waf/certificate/{id} (reference 2.6).
func (s *Sim) deleteCertificate(c *call) answer {
	eps, refusal, ok := s.wafQuery(c, true)
	if !ok {
		return refusal
	}
	cert, refusal, ok := s.findCertificate(c, eps)
	if !ok {
		return refusal
	}
	if refusal, ok := s.removeCertificate(cert); !ok {
		return refusal
	}
	gone := answer{status: 200, body: s.certificateHead(cert), effect: true, objects: []string{cert.id}}
	if s.cfg.Misbehave && c.entry.Seq%2 == 1 {
		gone.status, gone.body = 204, nil // "older: 204"
	}
	return gone
}

// removeCertificate is the part of a delete that the console shares.
func (s *Sim) removeCertificate(cert *wafCertificate) (answer, bool) {
	if len(s.waf.boundHosts(cert)) > 0 {
		return refuse(400, codeInUse, "Resource is in use"), false
	}
	s.waf.remove(slices.Index(s.waf.certs, cert))
	return answer{}, true
}

// certificateHead is what every answer about a certificate begins with ([S003] table 4; times are ms).
func (s *Sim) certificateHead(cert *wafCertificate) object {
	return object{
		"id": cert.id, "name": cert.name, "cert_type": "",
		"timestamp":   cert.created.UnixMilli(),
		"expire_time": cert.material.chain[0].NotAfter.UnixMilli(),
	}
}

// expStatus is 0 valid, 1 expired, 2 expires within a month (reference 2.3).
func expStatus(cert *wafCertificate, now time.Time) int {
	left := cert.material.chain[0].NotAfter.Sub(now)
	switch {
	case left <= 0:
		return 1
	case left <= expiresSoon:
		return 2
	}
	return 0
}

// bindHosts is the list of hosts that use a certificate.
func bindHosts(hosts []*wafHost) []any {
	rows := []any{}
	for _, h := range hosts {
		rows = append(rows, object{"id": h.id, "hostname": h.name, "waf_type": h.wafType(), "mode": h.mode()})
	}
	return rows
}
