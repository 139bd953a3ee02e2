package cloudsim

import (
	"slices"
	"strconv"
	"time"
)

// The list of certificates: reference 2.3.

// certificateFilter is what the query asks for.
type certificateFilter struct {
	eps, name string
	hosts     bool // the "host" parameter
	expStatus int  // -1: any
}

func (s *Sim) certificateFilter(c *call) (certificateFilter, answer, bool) {
	f := certificateFilter{expStatus: -1}
	var refusal answer
	var ok bool
	if f.eps, refusal, ok = s.wafQuery(c, false, "page", "pagesize", "name", "host", "exp_status", "query_scm"); !ok {
		return f, refusal, false
	}
	for name, into := range map[string]*bool{"host": &f.hosts, "query_scm": new(bool)} {
		text := c.query.Get(name)
		if c.query.Has(name) && text != "true" && text != "false" {
			return f, refuse(400, codeBadRequest, name+" must be true or false"), false
		}
		*into = text == "true"
	}
	if c.query.Has("exp_status") {
		status, err := strconv.Atoi(c.query.Get("exp_status"))
		if err != nil || status < 0 || status > 2 {
			return f, refuse(400, codeBadRequest, "exp_status must be 0, 1 or 2"), false
		}
		f.expStatus = status
	}
	f.name = c.query.Get("name")
	return f, answer{}, true
}

// hostAddsColumn settles doubt 10. Huawei's text: host=true lists only certificates with hosts, false (also by
// default) only those without. OTC's text: host=true adds columns. OTC means its own; Huawei means its own unless it
// misbehaves and the seed says otherwise.
func (s *Sim) hostAddsColumn() bool { return s.cfg.OpenTelekom || s.either("meaning of host") }

// listCertificates is GET …/waf/certificate. Rows carry no PEM.
func (s *Sim) listCertificates(c *call) answer {
	f, refusal, ok := s.certificateFilter(c)
	if !ok {
		return refusal
	}
	var found []*wafCertificate
	for _, cert := range s.waf.named(f.name) {
		if s.listed(cert, f, c.now) {
			found = append(found, cert)
		}
	}
	sweepOrder(s, c, found, func(cert *wafCertificate) string { return cert.id })
	preset := wafDefaultPaging
	if s.cfg.OpenTelekom {
		preset = -1
	}
	from, to, refusal, ok := paging(c, len(found), preset, s.cfg.OpenTelekom)
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, cert := range slices.Clone(found[from:to]) {
		rows = append(rows, s.certificateRow(cert, f, c.now))
	}
	return answer{status: 200, body: object{"items": rows, "total": len(found)}}
}

func (s *Sim) listed(cert *wafCertificate, f certificateFilter, now time.Time) bool {
	// What costs most comes last: ten thousand certificates are asked of ten thousand hosts otherwise.
	return inProject(cert.eps, f.eps) &&
		(f.expStatus == -1 || f.expStatus == expStatus(cert, now)) &&
		(s.hostAddsColumn() || f.hosts == (len(s.waf.boundHosts(cert)) > 0))
}

func (s *Sim) certificateRow(cert *wafCertificate, f certificateFilter, now time.Time) object {
	row := s.certificateHead(cert)
	delete(row, "cert_type")
	if s.hostAddsColumn() && !f.hosts {
		delete(row, "expire_time") // OTC's text: host=true adds bind_host, expire_time and exp_status
	} else {
		row["exp_status"] = expStatus(cert, now)
		row["bind_host"] = bindHosts(s.waf.boundHosts(cert))
	}
	if s.cfg.OpenTelekom {
		// "OTC rows may also hold …"
		row["certificateid"], row["certificatename"] = cert.id, cert.name
		row["enterprise_project_id"], row["share_status"], row["cert_type"] = cert.eps, 0, ""
	}
	return row
}
