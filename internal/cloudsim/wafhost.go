package cloudsim

import (
	"cmp"
	"crypto/tls"
	"slices"
	"strings"
	"time"
)

// WAF hosts: reference 2.8 and 2.9.

// wafHost is a protected domain.
type wafHost struct {
	id, hostID, name, protocol, eps string
	place                           int // among all hosts
	dedicated                       bool
	origins                         []Origin
	tls, cipher                     string
	proxy                           bool
	created                         time.Time
	// bindings is the history of certificates, the current one last. Edges that lag read the older ones.
	bindings []binding
}

// Origin is one server behind a host.
type Origin struct {
	FrontProtocol string `json:"front_protocol"`
	BackProtocol  string `json:"back_protocol"`
	Address       string `json:"address"`
	Port          int    `json:"port"`
	Type          string `json:"type"` // ipv4 or ipv6
	Weight        int    `json:"weight,omitempty"`
	VPCID         string `json:"vpc_id,omitempty"` // dedicated hosts only
}

// binding is a certificate from a moment on. It keeps the pair as it was then: the certificate object may be changed
// or deleted later, while edges go on serving what they had.
type binding struct {
	at            time.Time // zero: from the beginning
	certificateID string
	fingerprint   string
	pair          *tls.Certificate // nil: no handshake succeeds
}

func newBinding(cert *wafCertificate, at time.Time) binding {
	return binding{at: at, certificateID: cert.id, fingerprint: cert.material.fingerprint(), pair: cert.material.served()}
}

func newHost(s *Sim, h Host) *wafHost {
	host := &wafHost{
		id: s.newID(), name: h.Name, protocol: h.Protocol, eps: h.EnterpriseProject, dedicated: h.Dedicated,
		tls: "TLS v1.2", cipher: "cipher_2", created: s.now(),
	}
	host.hostID = host.id // both are "the domain id" (reference 2.7)
	origin := Origin{FrontProtocol: "HTTPS", BackProtocol: "HTTP", Address: "192.0.2.10", Port: 8080, Type: "ipv4", Weight: 1}
	if h.Protocol == "HTTP" {
		origin.FrontProtocol = "HTTP"
	}
	if h.Dedicated {
		origin.VPCID, origin.Weight = "cf6dbace-b36a-4d51-ae04-52a3319ae247", 0
	}
	second := origin
	second.Address = "192.0.2.11"
	host.origins = []Origin{origin, second}
	return host
}

// certificateID is the current certificate, "" without one.
func (h *wafHost) certificateID() string {
	if len(h.bindings) == 0 {
		return ""
	}
	return h.bindings[len(h.bindings)-1].certificateID
}

// bind makes cert a host's current certificate and tells whether that changed anything.
func (w *wafState) bind(h *wafHost, cert *wafCertificate, at time.Time) bool {
	before := h.certificateID()
	if before == cert.id {
		return false
	}
	if i, ok := slices.BinarySearchFunc(w.bound[before], h.place, byPlace); ok {
		if w.bound[before] = slices.Delete(w.bound[before], i, i+1); len(w.bound[before]) == 0 {
			delete(w.bound, before)
		}
	}
	i, _ := slices.BinarySearchFunc(w.bound[cert.id], h.place, byPlace)
	w.bound[cert.id] = slices.Insert(w.bound[cert.id], i, h)
	h.bindings = append(h.bindings, newBinding(cert, at))
	return true
}

func byPlace(h *wafHost, place int) int { return cmp.Compare(h.place, place) }

// takesCertificate tells whether the client side speaks TLS.
func (h *wafHost) takesCertificate() bool { return strings.Contains(h.protocol, "HTTPS") }

func (h *wafHost) wafType() string {
	if h.dedicated {
		return "premium"
	}
	return "cloud"
}

func (h *wafHost) mode() string {
	if h.dedicated {
		return "premium-waf"
	}
	return "cname"
}

// findHost looks a host up by the id in the path; which says which hosts the call knows.
func (s *Sim) findHost(c *call, param, eps string, which func(*wafHost) bool) (*wafHost, answer, bool) {
	id := c.params[param]
	if !isID(id) {
		return nil, refuse(400, codeIDForm, "The host id is invalid"), false
	}
	if host := s.hostByID(id, eps, which); host != nil {
		return host, answer{}, true
	}
	return nil, s.wafMissing(c), false
}

func (s *Sim) hostByID(id, eps string, which func(*wafHost) bool) *wafHost {
	if host := s.waf.hostsByID[id]; host != nil && which(host) && inProject(host.eps, eps) {
		return host
	}
	return nil
}

func isCloud(h *wafHost) bool     { return !h.dedicated }
func isDedicated(h *wafHost) bool { return h.dedicated }
func isAny(*wafHost) bool         { return true }

func (s *Sim) listCloudHosts(c *call) answer   { return s.listHosts(c, isCloud) }
func (s *Sim) listPremiumHosts(c *call) answer { return s.listHosts(c, isDedicated) }

// listHosts lists cloud or dedicated hosts. Rows do not say which certificate is in use.
func (s *Sim) listHosts(c *call, which func(*wafHost) bool) answer {
	allowed := []string{"page", "pagesize", "hostname", "policyname", "protect_status"}
	rows, _, refusal, ok := s.hostRows(c, which, allowed, true)
	if !ok {
		return refusal
	}
	return answer{status: 200, body: rows}
}

// listCompositeHosts is GET …/composite-waf/host, which counts both kinds.
func (s *Sim) listCompositeHosts(c *call) answer {
	which := isAny
	switch c.query.Get("waf_type") {
	case "cloud":
		which = isCloud
	case "premium":
		which = isDedicated
	case "":
	default:
		return refuse(400, codeBadRequest, "waf_type must be cloud or premium")
	}
	allowed := []string{"page", "pagesize", "hostname", "policyname", "protect_status", "waf_type", "is_https"}
	body, found, refusal, ok := s.hostRows(c, which, allowed, false)
	if !ok {
		return refusal
	}
	cloud := 0
	for _, host := range found {
		if !host.dedicated {
			cloud++
		}
	}
	body["cloud_total"], body["premium_total"] = cloud, len(found)-cloud
	return answer{status: 200, body: body}
}

func (s *Sim) hostRows(c *call, which func(*wafHost) bool, allowed []string, minusOne bool) (object, []*wafHost, answer, bool) {
	eps, refusal, ok := s.wafQuery(c, false, allowed...)
	if !ok {
		return nil, nil, refusal, false
	}
	https := c.query.Get("is_https")
	if https != "" && https != "true" && https != "false" {
		return nil, nil, refuse(400, codeBadRequest, "is_https must be true or false"), false
	}
	var found []*wafHost
	for _, host := range s.waf.hosts {
		if which(host) && inProject(host.eps, eps) && strings.Contains(host.name, c.query.Get("hostname")) &&
			(https == "" || (https == "true") == host.takesCertificate()) {
			found = append(found, host)
		}
	}
	sweepOrder(s, c, found, func(h *wafHost) string { return h.id })
	from, to, refusal, ok := paging(c, len(found), wafDefaultPaging, minusOne)
	if !ok {
		return nil, nil, refusal, false
	}
	rows := []any{}
	for _, host := range found[from:to] {
		rows = append(rows, host.row())
	}
	return object{"items": rows, "total": len(found)}, found, answer{}, true
}

// row is what every answer about a host holds; no certificate.
func (h *wafHost) row() object {
	row := object{
		"id": h.id, "hostname": h.name, "policyid": "", "protect_status": 1, "access_status": 1,
		"waf_type": h.wafType(), "timestamp": h.created.UnixMilli(), "enterprise_project_id": h.eps,
	}
	if h.dedicated {
		row["mode"], row["loadbalancer_id"], row["pool_ids"] = h.mode(), nil, []any{}
		return row
	}
	row["hostid"], row["paid_type"], row["server"] = h.hostID, "prePaid", h.servers()
	return row
}

func (h *wafHost) servers() []any {
	rows := []any{}
	for _, o := range h.origins {
		row := object{"front_protocol": o.FrontProtocol, "back_protocol": o.BackProtocol, "address": o.Address, "port": o.Port, "type": o.Type}
		if h.dedicated {
			row["vpc_id"] = o.VPCID
		} else {
			row["weight"] = o.Weight
		}
		rows = append(rows, row)
	}
	return rows
}

// details is the answer of Show and Update for a cloud or dedicated host.
func (s *Sim) hostDetails(h *wafHost) object {
	row := h.row()
	row["server"], row["protocol"], row["proxy"] = h.servers(), h.protocol, h.proxy
	if !h.takesCertificate() {
		return row
	}
	row["tls"], row["cipher"] = h.tls, h.cipher
	row["certificateid"], row["certificatename"] = "", ""
	if cert := s.waf.certificate(h.certificateID()); cert != nil {
		row["certificateid"], row["certificatename"] = cert.id, cert.name
	}
	return row
}

func (s *Sim) showCloudHost(c *call) answer   { return s.showHost(c, "instance_id", isCloud, true) }
func (s *Sim) showPremiumHost(c *call) answer { return s.showHost(c, "host_id", isDedicated, true) }

// showCompositeHost tells no certificate (reference 2.1).
func (s *Sim) showCompositeHost(c *call) answer { return s.showHost(c, "host_id", isAny, false) }

func (s *Sim) showHost(c *call, param string, which func(*wafHost) bool, details bool) answer {
	eps, refusal, ok := s.wafQuery(c, false)
	if !ok {
		return refusal
	}
	host, refusal, ok := s.findHost(c, param, eps, which)
	if !ok {
		return refusal
	}
	body := host.row()
	if details {
		body = s.hostDetails(host)
	}
	return answer{status: 200, body: body, objects: []string{host.id}}
}
