package cloudsim

import (
	"bytes"
	"cmp"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WAF: what its operations share. Codes and statuses are those of the error table (reference 6.2).

const (
	serviceWAF = "waf"

	codeURL          = "WAF.00011002"
	codeBody         = "WAF.00011003"
	codeIDForm       = "WAF.00011004"
	codeHost         = "WAF.00011006"
	codePage         = "WAF.00011010"
	codePageSize     = "WAF.00011011"
	codeHeader       = "WAF.00011014"
	codeNameExists   = "WAF.00011016"
	codeIllegal      = "WAF.00011019" // Huawei table only
	codeExpired      = "WAF.00011021" // Huawei table only
	codeEPSWrite     = "WAF.00012010"
	codeAPINotFound  = "WAF.00014009"
	codeExists       = "WAF.00014002"
	codeName         = "WAF.00021005"
	codeIllegalOTC   = "WAF.00021013"
	codeInUse        = "WAF.00022003"
	codeMissing404   = "WAF.00022001"
	codeMissing400   = "WAF.00014001"
	codeBadRequest   = "WAF.00011001"
	expiresSoon      = 30 * 24 * time.Hour // exp_status 2: "within a month" (reference 2.3)
	largestPage      = 100
	wafDefaultPaging = 10
)

type wafState struct {
	certs []*wafCertificate // in the order of creation
	hosts []*wafHost
	// The same by id. Hosts stay for ever.
	certsByID map[string]*wafCertificate
	// names are those of certs on a line each, and lines where they begin: one search through
	// all of them is a hundred times faster than one through each.
	names     []byte
	lines     []int
	hostsByID map[string]*wafHost
	bound     map[string][]*wafHost // by the current certificate's id, in the order of hosts
	sweeps    int                   // how many listings were begun; unstable order changes with it
}

type wafCertificate struct {
	id, name, eps string
	material      *material
	created       time.Time
}

func emptyWAF() wafState {
	return wafState{certsByID: map[string]*wafCertificate{}, hostsByID: map[string]*wafHost{}, bound: map[string][]*wafHost{}}
}

func newWAFState(s *Sim) (wafState, error) {
	w := emptyWAF()
	for i, h := range s.cfg.Hosts {
		host := newHost(s, h)
		host.place = i
		w.hosts = append(w.hosts, host)
		w.hostsByID[host.id] = host
		if h.Certificate.Name == "" {
			continue
		}
		cert := w.byName(h.Certificate.Name)
		if cert == nil {
			// A person's browser converts the key where WAF asks for it, so the form is not held against them.
			m, err := parseMaterial(string(h.Certificate.CertPEM), string(h.Certificate.KeyPEM), true)
			if err != nil {
				return w, fmt.Errorf("certificate of host %q: %w", h.Name, err)
			}
			cert = &wafCertificate{id: s.newID(), name: h.Certificate.Name, eps: host.eps, material: m, created: s.now()}
			w.add(cert)
		}
		w.bind(host, cert, time.Time{})
	}
	return w, nil
}

// wafRoutes are the operations of reference 2.1. OTC's WAF-Dedicated has neither apply-to-hosts nor cloud hosts
// (reference 2.12, 8.2).
func wafRoutes(openTelekom bool) []route {
	const root = "/v1/{project_id}"
	var routes []route
	add := func(operation, method, path string, handle func(*Sim, *call) answer) {
		routes = append(routes, route{
			service: serviceWAF, operation: operation, method: method, pattern: root + path, auth: authProject, handle: handle,
		})
	}
	add("CreateCertificate", "POST", "/waf/certificate", (*Sim).createCertificate)
	add("ListCertificates", "GET", "/waf/certificate", (*Sim).listCertificates)
	add("ShowCertificate", "GET", "/waf/certificate/{certificate_id}", (*Sim).showCertificate)
	add("UpdateCertificate", "PUT", "/waf/certificate/{certificate_id}", (*Sim).updateCertificate)
	add("DeleteCertificate", "DELETE", "/waf/certificate/{certificate_id}", (*Sim).deleteCertificate)
	add("ListPremiumHost", "GET", "/premium-waf/host", (*Sim).listPremiumHosts)
	add("ShowPremiumHost", "GET", "/premium-waf/host/{host_id}", (*Sim).showPremiumHost)
	add("UpdatePremiumHost", "PUT", "/premium-waf/host/{host_id}", (*Sim).updatePremiumHost)
	const apply = "/waf/certificate/{certificate_id}/apply-to-hosts"
	if openTelekom {
		add("ApplyCertificateToHost", "POST", apply, (*Sim).wafNotOffered)
		return routes
	}
	add("ApplyCertificateToHost", "POST", apply, (*Sim).applyCertificate)
	add("ListHost", "GET", "/waf/instance", (*Sim).listCloudHosts)
	add("ShowHost", "GET", "/waf/instance/{instance_id}", (*Sim).showCloudHost)
	add("UpdateHost", "PATCH", "/waf/instance/{instance_id}", (*Sim).updateCloudHost)
	add("ListCompositeHosts", "GET", "/composite-waf/host", (*Sim).listCompositeHosts)
	add("ShowCompositeHost", "GET", "/composite-waf/host/{host_id}", (*Sim).showCompositeHost)
	return routes
}

func isWAFRoot(segment string) bool {
	return segment == "waf" || segment == "premium-waf" || segment == "composite-waf"
}

// wafNotOffered answers for paths that this variant does not have. The table prints 400 beside the code; a gateway
// would say 404. A client must go by the code.
func (s *Sim) wafNotOffered(*call) answer {
	if s.either("status of API not found") {
		return refuse(400, codeAPINotFound, "API not found")
	}
	return refuse(404, codeAPINotFound, "API not found")
}

// wafMissing is the answer for an id that does not exist in the enterprise project asked for. Two forms are documented
// (reference 2.6); misbehaving, the simulator uses both.
func (s *Sim) wafMissing(c *call) answer {
	if s.cfg.Misbehave && c.entry.Seq%2 == 0 {
		return refuse(400, codeMissing400, "The resource does not exist")
	}
	return refuse(404, codeMissing404, "The resource is not found")
}

// isJSONContent accepts application/json with any parameters ([S003] table 2 names application/json;charset=utf8, the
// SDK sends it bare, and both work: reference 0.3).
func isJSONContent(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// wafBody reads a request body strictly.
func wafBody(c *call, allowed ...string) (members, answer, bool) {
	if !isJSONContent(c.r) {
		return nil, refuse(400, codeHeader, "Content-Type must be application/json;charset=utf8"), false
	}
	body, err := parseMembers(c.body, allowed...)
	if err != nil {
		return nil, refuse(400, codeBody, err.Error()), false
	}
	return body, answer{}, true
}

// wafQuery checks the query of a call: only documented parameters, each at most once, and an enterprise project that
// fits. It returns the enterprise project, "0" without one (reference 2.2).
func (s *Sim) wafQuery(c *call, write bool, allowed ...string) (eps string, refusal answer, ok bool) {
	if c.query == nil && c.r.URL.RawQuery != "" {
		return "", refuse(400, codeURL, "The query cannot be parsed"), false
	}
	if !s.cfg.OpenTelekom {
		allowed = append(allowed, "enterprise_project_id") // not on OTC [S003]
	}
	for name, values := range c.query {
		if !slices.Contains(allowed, name) || len(values) != 1 {
			return "", refuse(400, codeURL, fmt.Sprintf("The query parameter %q is unknown or repeated", name)), false
		}
	}
	if !c.query.Has("enterprise_project_id") {
		return defaultEPS, answer{}, true
	}
	eps = c.query.Get("enterprise_project_id")
	switch {
	case eps == allGrantedEPS && write:
		return "", refuse(400, codeEPSWrite, "all_granted_eps is not allowed for this operation"), false
	case eps != allGrantedEPS && eps != defaultEPS && !isUUID(eps):
		return "", refuse(400, codeBadRequest, "enterprise_project_id is neither 0 nor a UUID"), false
	}
	return eps, answer{}, true
}

// inProject tells whether an object of project own is seen by a call for project asked (TF #2939, #3019: without the
// right enterprise project it is not found).
func inProject(own, asked string) bool { return asked == allGrantedEPS || own == asked }

func isUUID(text string) bool {
	parts := strings.Split(text, "-")
	if len(text) != 36 || len(parts) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if len(parts[i]) != n || strings.Trim(parts[i], "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}

// paging reads page and pagesize and returns the bounds of the page among total rows. minusOne says whether -1 means
// all rows (reference 2.3 for OTC, 2.8 for cloud hosts).
func paging(c *call, total, preset int, minusOne bool) (from, to int, refusal answer, ok bool) {
	page, err := queryInt(c, "page", 1)
	if err != nil || page < 1 {
		return 0, 0, refuse(400, codePage, "page must be a positive number"), false
	}
	size, err := queryInt(c, "pagesize", preset)
	if err != nil || (size < 1 || size > largestPage) && (size != -1 || !minusOne) {
		return 0, 0, refuse(400, codePageSize, "pagesize must be 1 to 100"), false
	}
	if size == -1 {
		return 0, total, answer{}, true
	}
	if page > total/size+1 {
		return total, total, answer{}, true
	}
	return min((page-1)*size, total), min(page*size, total), answer{}, true
}

func queryInt(c *call, name string, preset int) (int, error) {
	if !c.query.Has(name) {
		return preset, nil
	}
	return strconv.Atoi(c.query.Get(name))
}

// sweepOrder puts rows into the order of this listing. No page promises an order; misbehaving, each listing that
// starts at page 1 or offset 0 has another one, which its later pages keep.
func sweepOrder[T any](s *Sim, c *call, rows []T, id func(T) string) {
	if !s.cfg.Misbehave {
		return
	}
	page, offset := c.query.Get("page"), c.query.Get("offset")
	if (page == "" || page == "1") && (offset == "" || offset == "0") {
		s.waf.sweeps++
	}
	salt := strconv.Itoa(s.waf.sweeps)
	type placed struct {
		place uint64
		row   T
	}
	order := make([]placed, len(rows))
	for i, row := range rows {
		order[i] = placed{s.hash(salt + id(row)), row}
	}
	slices.SortFunc(order, func(a, b placed) int { return cmp.Compare(a.place, b.place) })
	for i, p := range order {
		rows[i] = p.row
	}
}

func (w *wafState) byName(name string) *wafCertificate {
	for _, cert := range w.certs {
		if cert.name == name {
			return cert
		}
	}
	return nil
}

// certificate finds a certificate by id.
func (w *wafState) certificate(id string) *wafCertificate {
	return w.certsByID[id]
}

func (w *wafState) add(cert *wafCertificate) {
	w.certs = append(w.certs, cert)
	w.certsByID[cert.id] = cert
	w.addName(cert.name)
}

func (w *wafState) addName(name string) {
	w.lines = append(w.lines, len(w.names))
	w.names = append(append(w.names, name...), '\n')
}

// remove takes away the certificate at an index.
func (w *wafState) remove(at int) {
	cert, line := w.certs[at], w.lines[at]
	delete(w.certsByID, cert.id)
	w.certs = slices.Delete(w.certs, at, at+1)
	long := len(cert.name) + 1
	w.names, w.lines = slices.Delete(w.names, line, line+long), slices.Delete(w.lines, at, at+1)
	for i := range w.lines[at:] {
		w.lines[at+i] -= long
	}
}

// gatherNames is for when one has changed.
func (w *wafState) gatherNames() {
	w.names, w.lines = w.names[:0], w.lines[:0]
	for _, cert := range w.certs {
		w.addName(cert.name)
	}
}

// named are the certificates whose names hold a text ("fuzzy" in OTC's text), in their order.
func (w *wafState) named(text string) []*wafCertificate {
	if text == "" || strings.Contains(text, "\n") {
		return slices.DeleteFunc(slices.Clone(w.certs), func(cert *wafCertificate) bool { return !strings.Contains(cert.name, text) })
	}
	var found []*wafCertificate
	for from := 0; ; {
		i := bytes.Index(w.names[from:], []byte(text))
		if i < 0 {
			return found
		}
		line, exact := slices.BinarySearch(w.lines, from+i)
		if !exact {
			line--
		}
		found = append(found, w.certs[line])
		if line+1 == len(w.lines) {
			return found
		}
		from = w.lines[line+1]
	}
}

// boundHosts are the hosts whose current certificate is cert. The list is not to be changed.
func (w *wafState) boundHosts(cert *wafCertificate) []*wafHost { return w.bound[cert.id] }
