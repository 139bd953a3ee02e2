package cloudsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// The ways to give an APIG domain a certificate and to take it away: reference 3.6.

// bindTarget is a domain that a call names, with the flag for client certificates as far as it is given.
type bindTarget struct {
	domain *apigDomain
	verify *bool
}

// attachDomains is POST …/certificates/{id}/domains/attach. Everything is checked before anything is bound
// (FaultPartial stops half way).
func (s *Sim) attachDomains(c *call) answer {
	cert, targets, refusal, ok := s.readTargets(c)
	if !ok {
		return refusal
	}
	for _, target := range targets {
		if refusal, ok := target.domain.checkAttach(cert, s.cfg.RefuseReplacement); !ok {
			return refusal
		}
	}
	return s.changeTargets(c, cert, targets, func(t bindTarget) bool { return t.domain.attach(cert, t.verify, c.now) })
}

// detachDomains is POST …/certificates/{id}/domains/detach. A domain that does not have the certificate is "no valid
// domain name" [TF], also among others that have it.
func (s *Sim) detachDomains(c *call) answer {
	cert, targets, refusal, ok := s.readTargets(c)
	if !ok {
		return refusal
	}
	for _, target := range targets {
		if !target.domain.has(cert) {
			return refuseParameter("no valid domain name")
		}
	}
	return s.changeTargets(c, cert, targets, func(t bindTarget) bool { return t.domain.detach(cert, c.now) })
}

// changeTargets carries change out, for the first half only when FaultPartial struck.
func (s *Sim) changeTargets(c *call, cert *apigCertificate, targets []bindTarget, change func(bindTarget) bool) answer {
	if c.partial != nil {
		targets = targets[:len(targets)/2]
	}
	done := answer{status: 204, objects: []string{cert.id}}
	for _, target := range targets {
		changed := change(target)
		done.effect = done.effect || changed
		done.objects = append(done.objects, target.domain.ids()...)
	}
	if c.partial != nil && c.partial.Status >= 400 {
		failed := c.faultAnswer(*c.partial)
		failed.effect, failed.objects = done.effect, done.objects
		return failed
	}
	return done
}

// readTargets reads {domains:[{domain, instance_ids?, verified_client_certificate_enabled?}]}.
func (s *Sim) readTargets(c *call) (*apigCertificate, []bindTarget, answer, bool) {
	bad := func(refusal answer) (*apigCertificate, []bindTarget, answer, bool) { return nil, nil, refusal, false }
	if refusal, ok := s.apigWrite(c); !ok {
		return bad(refusal)
	}
	body, refusal, ok := apigBody(c, "domains")
	if !ok {
		return bad(refusal)
	}
	rows, _, err := body.list("domains")
	if err != nil || len(rows) == 0 {
		return bad(refuseParameter(`the parameter "domains" is missing, empty or not a list`))
	}
	cert, refusal, ok := s.findAPIGCertificate(c)
	if !ok {
		return bad(refusal)
	}
	var targets []bindTarget
	for _, raw := range rows {
		more, refusal, ok := s.readTarget(raw, cert)
		if !ok {
			return bad(refusal)
		}
		for _, target := range more {
			if !slices.ContainsFunc(targets, func(t bindTarget) bool { return t.domain == target.domain }) {
				targets = append(targets, target)
			}
		}
	}
	return cert, targets, answer{}, true
}

func (s *Sim) readTarget(raw json.RawMessage, cert *apigCertificate) ([]bindTarget, answer, bool) {
	bad := func(refusal answer) ([]bindTarget, answer, bool) { return nil, refusal, false }
	m, err := parseMembers(raw, "domain", "instance_ids", memberVerifiedClient)
	if err != nil {
		return bad(refuseParameter(fmt.Sprintf(`in "domains": %v`, err)))
	}
	name, err := m.needText("domain")
	if err != nil {
		return bad(refuseParameter(err.Error()))
	}
	instances, err := m.texts("instance_ids")
	if err != nil {
		return bad(refuseParameter(err.Error()))
	}
	verify, err := readFlag(m)
	if err != nil {
		return bad(refuseParameter(err.Error()))
	}
	switch {
	case cert.instanceID == "" && len(instances) == 0:
		// "needed for global certificates to say which gateways"
		return bad(refuseParameter("instance_ids is needed for a global certificate"))
	case cert.instanceID != "" && slices.ContainsFunc(instances, func(id string) bool { return id != cert.instanceID }):
		return bad(refuseParameter("instance_ids names a gateway that the certificate does not belong to"))
	case cert.instanceID != "":
		instances = []string{cert.instanceID}
	}
	var targets []bindTarget
	for _, id := range instances {
		gateway := s.apig.gateway(id)
		if gateway == nil {
			return bad(missingGateway(id))
		}
		domain := gateway.domain(name)
		if domain == nil {
			return bad(missingDomain(name))
		}
		targets = append(targets, bindTarget{domain, verify})
	}
	return targets, answer{}, true
}

// readFlag returns nil when the flag is left out.
func readFlag(m members) (*bool, error) {
	flag, given, err := m.truth(memberVerifiedClient)
	if err != nil || !given {
		return nil, err
	}
	return &flag, nil
}

func (g *apigGateway) domain(name string) *apigDomain {
	for _, group := range g.groups {
		for _, domain := range group.domains {
			if domain.name == name {
				return domain
			}
		}
	}
	return nil
}

// attachCertificates is POST …/domains/{id}/certificates/attach. One of several ports cannot get another certificate
// than the rest (APIG.2051): that takes the certificate's side, which means them all.
func (s *Sim) attachCertificates(c *call) answer {
	cert, domain, verify, refusal, ok := s.readSide(c)
	if !ok {
		return refusal
	}
	if held := domain.bound[cert.algorithm()]; held != nil && held != cert && len(domain.ports) > 1 {
		return refuse(400, codeAPIGPorts, "One domain cannot have different certificates on its ports")
	}
	if refusal, ok := domain.checkAttach(cert, s.cfg.RefuseReplacement); !ok {
		return refusal
	}
	effect := domain.attach(cert, verify, c.now)
	return answer{status: 204, effect: effect, objects: append([]string{cert.id}, domain.ids()...)}
}

// detachCertificates is POST …/domains/{id}/certificates/detach.
func (s *Sim) detachCertificates(c *call) answer {
	cert, domain, _, refusal, ok := s.readSide(c)
	if !ok {
		return refusal
	}
	if !domain.has(cert) {
		if s.either("detach on the domain's side without a binding") {
			return refuse(404, codeAPIGNoBinding, "The binding record does not exist")
		}
		return refuseParameter("no valid domain name")
	}
	domain.detach(cert, c.now)
	return answer{status: 204, effect: true, objects: append([]string{cert.id}, domain.ids()...)}
}

// readSide reads {certificate_ids:[exactly one], verified_client_certificate_enabled?}. A certificate of another
// gateway does not exist for this one.
func (s *Sim) readSide(c *call) (*apigCertificate, *apigDomain, *bool, answer, bool) {
	bad := func(refusal answer) (*apigCertificate, *apigDomain, *bool, answer, bool) {
		return nil, nil, nil, refusal, false
	}
	if refusal, ok := s.apigWrite(c); !ok {
		return bad(refusal)
	}
	body, refusal, ok := apigBody(c, "certificate_ids", memberVerifiedClient)
	if !ok {
		return bad(refusal)
	}
	ids, err := body.texts("certificate_ids")
	if err != nil || len(ids) != 1 {
		return bad(refuseParameter(`the parameter "certificate_ids" must hold exactly one id`))
	}
	verify, err := readFlag(body)
	if err != nil {
		return bad(refuseParameter(err.Error()))
	}
	domain, _, refusal, ok := s.findDomain(c)
	if !ok {
		return bad(refusal)
	}
	cert := s.apig.certificate(ids[0])
	if cert == nil || cert.instanceID != "" && cert.instanceID != domain.group.gateway.id {
		return bad(s.missingAPIGCertificate(ids[0]))
	}
	return cert, domain, verify, answer{}, true
}

// checkAttach tells whether cert may be bound to the domain. Another certificate of the same algorithm type is
// replaced (inferred from ssl_infos), or stands in the way (doubt 5).
func (d *apigDomain) checkAttach(cert *apigCertificate, refuseReplacement bool) (answer, bool) {
	if !covers(cert.leaf(), d.name) {
		return refuse(400, codeAPIGDomain, "The certificate does not match the domain "+d.name), false
	}
	if held := d.bound[cert.algorithm()]; held != nil && held != cert && refuseReplacement {
		return refuse(400, codeAPIGTaken, "The domain has a certificate of this algorithm type already"), false
	}
	return d.checkCAs(cert, cert.trusted)
}

// attach binds cert and tells whether that changed anything. A flag that is left out means on when the certificate
// has a trusted_root_ca, else off, whatever it was before [SDK AttachOrDetachDomainInfo].
func (d *apigDomain) attach(cert *apigCertificate, verify *bool, now time.Time) bool {
	flag := len(cert.trusted) > 0
	if verify != nil {
		flag = *verify
	}
	if d.has(cert) && d.verify == flag {
		return false
	}
	d.bound[cert.algorithm()], d.verify = cert, flag
	d.record(now)
	return true
}

func (d *apigDomain) detach(cert *apigCertificate, now time.Time) bool {
	delete(d.bound, cert.algorithm())
	d.verify = d.verify && len(d.bound) > 0
	d.record(now)
	return true
}
