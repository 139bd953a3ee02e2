package cloudsim

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Private certificates after their making: reference 4.4 and 4.6.

const (
	privateIssued  = "ISSUED"
	privateRevoked = "REVOKED"
	privateExpired = "EXPIRED"
)

var revocationReasons = []string{
	"UNSPECIFIED", "KEY_COMPROMISE", "CERTIFICATE_AUTHORITY_COMPROMISE", "AFFILIATION_CHANGED", "SUPERSEDED",
	"CESSATION_OF_OPERATION", "CERTIFICATE_HOLD", "PRIVILEGE_WITHDRAWN", "ATTRIBUTE_AUTHORITY_COMPROMISE",
}

func (p *privateCertificate) statusAt(now time.Time) string {
	switch {
	case p.revoked != "":
		return privateRevoked
	case now.After(p.cert.NotAfter):
		return privateExpired
	}
	return privateIssued
}

// listedPrivate are the certificates that lists and searches know already.
func (s *Sim) listedPrivate(now time.Time) []*privateCertificate {
	return slices.DeleteFunc(slices.Clone(s.pca.certs), func(p *privateCertificate) bool {
		return now.Before(p.made.Add(s.cfg.ListLag))
	})
}

// listPrivate is GET /v1/private-certificates. Rows have no names, no PEM and no tags.
func (s *Sim) listPrivate(c *call) answer {
	if err := pcaQuery(c, "limit", "offset", "name", "status", "sort_key", "sort_dir"); err != nil {
		return refusePCA(err)
	}
	status, err := oneOf(c, "status", privateIssued, privateRevoked, privateExpired)
	if err != nil {
		return refusePCA(err)
	}
	found := slices.DeleteFunc(s.listedPrivate(c.now), func(p *privateCertificate) bool {
		return !strings.Contains(p.name.commonName, c.query.Get("name")) || status != "" && p.statusAt(c.now) != status
	})
	err = sortRows(c, found, map[string]func(a, b *privateCertificate) int{
		"create_time": func(a, b *privateCertificate) int {
			return a.made.Truncate(time.Second).Compare(b.made.Truncate(time.Second))
		},
		"common_name": func(a, b *privateCertificate) int { return strings.Compare(a.name.commonName, b.name.commonName) },
		"issuer_name": func(a, b *privateCertificate) int {
			return strings.Compare(a.issuer.name.commonName, b.issuer.name.commonName)
		},
		"not_after": func(a, b *privateCertificate) int { return a.cert.NotAfter.Compare(b.cert.NotAfter) },
	}, func(p *privateCertificate) string { return p.id })
	if err != nil {
		return refusePCA(err)
	}
	from, to, err := pcaPage(c, len(found))
	if err != nil {
		return refusePCA(err)
	}
	rows := []any{}
	for _, p := range found[from:to] {
		rows = append(rows, p.row(c.now))
	}
	return answer{status: 200, body: object{"total": len(found), "certificates": rows}}
}

func (p *privateCertificate) row(now time.Time) object {
	return object{
		"certificate_id": p.id, "status": p.statusAt(now), "issuer_id": p.issuer.id, "issuer_name": p.issuer.name.commonName,
		"key_algorithm": p.keyAlgorithm, "signature_algorithm": p.hash, "freeze_flag": 0, "gen_mode": p.genMode,
		"serial_number": p.serial, "create_time": millis(p.made), "delete_time": nil,
		"not_before": millis(p.cert.NotBefore), "not_after": millis(p.cert.NotAfter),
		"distinguished_name": p.name.object(), "enc_cert_info": nil, "enterprise_project_id": p.eps,
	}
}

// showPrivate is GET /v1/private-certificates/{certificate_id}.
func (s *Sim) showPrivate(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	p, refusal, ok := s.findPrivate(c)
	if !ok {
		return refusal
	}
	return answer{status: 200, body: p.row(c.now), objects: []string{p.id}}
}

// showPrivateQuota is GET /v1/private-certificates/quotas.
func (s *Sim) showPrivateQuota(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	return quotaAnswer("CERTIFICATE", len(s.pca.certs), s.cfg.PrivateCertificateQuota)
}

// revokePrivate is POST /v1/private-certificates/{certificate_id}/revoke. Without a reason the body is {}.
func (s *Sim) revokePrivate(c *call) answer {
	body, err := pcaBody(c, "reason")
	if err != nil {
		return refusePCA(err)
	}
	reason, given, err := body.text("reason")
	if err != nil {
		return refusePCA(err)
	}
	if given && !slices.Contains(revocationReasons, reason) {
		return refuse(400, codePCAParameter, "reason is not among the reasons")
	}
	p, refusal, ok := s.findPrivate(c)
	if !ok {
		return refusal
	}
	setDefault(&reason, revocationReasons[0])
	if refusal, ok := p.revoke(reason, c.now); !ok {
		return refusal
	}
	return answer{status: 204, effect: true, objects: []string{p.id}}
}

// revoke needs an active or disabled CA [HW ccm_06_0010], and a certificate that is still worth it.
func (p *privateCertificate) revoke(reason string, now time.Time) (answer, bool) {
	if status := p.issuer.statusAt(now); status != authorityActive && status != authorityDisabled {
		return refuse(400, codePCAAuthorityState, "The CA is in a state that does not allow the operation: "+status+"."), false
	}
	switch p.statusAt(now) {
	case privateRevoked:
		return refuse(403, codePCAAlready, "The certificate has already been revoked."), false
	case privateExpired:
		return refuse(400, codePCAState, "The certificate has expired."), false
	}
	p.revoked = reason
	return answer{}, true
}

// deletePrivate is DELETE /v1/private-certificates/{certificate_id}, in any state, at once and for good; it does not
// revoke.
func (s *Sim) deletePrivate(c *call) answer {
	if err := pcaQuery(c); err != nil {
		return refusePCA(err)
	}
	p, refusal, ok := s.findPrivate(c)
	if !ok {
		return refusal
	}
	s.removePrivate(p)
	return answer{status: 204, effect: true, objects: []string{p.id}}
}

func (s *Sim) removePrivate(p *privateCertificate) {
	at := slices.Index(s.pca.certs, p)
	s.pca.certs = slices.Delete(s.pca.certs, at, at+1)
}

// info is what the console shows.
func (p *privateCertificate) info(now time.Time) PrivateCertificateInfo {
	return PrivateCertificateInfo{
		ID: p.id, CommonName: p.name.commonName, IssuerID: p.issuer.id, Status: p.statusAt(now), SerialNumber: p.serial,
		Fingerprint: p.fingerprint(), GenMode: p.genMode, NotBefore: p.cert.NotBefore, NotAfter: p.cert.NotAfter,
		RevokedReason: p.revoked, Tags: maps.Clone(p.tags),
	}
}
