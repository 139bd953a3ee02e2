package cloudsim

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// APIG v2, dedicated gateways: what its operations share. Codes and statuses are those of the error table (reference
// 6.3); where the seed page prints another status, the seed wins (reference 0.1).

const (
	serviceAPIG = "apig"

	codeAPIGToken        = "APIG.1002"
	codeAPIGNoRight      = "APIG.1005"
	codeAPIGNoProject    = "APIG.1007" // 1007–1009: "without project / domain / user"
	codeAPIGParameter    = "APIG.2000"
	codeAPIGTaken        = "APIG.2029" // "a default certificate exists already"
	codeAPIGPorts        = "APIG.2051"
	codeAPIGKeyMismatch  = "APIG.2101"
	codeAPIGExpired      = "APIG.2102"
	codeAPIGDomain       = "APIG.2103"
	codeAPIGOrder        = "APIG.2104"
	codeAPIGEncrypted    = "APIG.2105"
	codeAPIGInvalid      = "APIG.2106"
	codeAPIGNoSAN        = "APIG.2109"
	codeAPIGNoGroup      = "APIG.3001" // made up: the reference has no code for a group that does not exist
	codeAPIGNoDomain     = "APIG.3020"
	codeAPIGNoCert       = "APIG.3021"
	codeAPIGNoCertOther  = "APIG.3025"
	codeAPIGNoGateway    = "APIG.3030"
	codeAPIGNoBinding    = "APIG.3097"
	codeAPIGExpiry2038   = "APIG.3148"
	codeAPIGWrongGroup   = "APIG.3474"
	codeAPIGStoreSync    = "APIG.3500"
	codeAPIGCAAlgorithm  = "APIG.3715"
	codeAPIGTaskRunning  = "APIG.3718"
	codeAPIGInUse        = "APIG.3799" // made up: no page names a code for it (doubt 7)
	codeAPIGTooMany      = "APIG.9008"
	codeAPIGInternal     = "APIG.9999"
	apigTime             = "2006-01-02T15:04:05Z" // reference 7.4
	apigGlobalInstance   = "common"               // instance_id of a global certificate (reference 3.3)
	apigDefaultLimit     = 20                     // reference 3.4
	apigLargestLimit     = 500
	apigDomainsPerGroup  = 5 // reference 7.1 [HW apig-pd-180307005]
	typeGlobal           = "global"
	typeInstance         = "instance"
	algorithmRSA         = "RSA"
	algorithmECC         = "ECC"
	algorithmSM2         = "SM2"
	apigBase             = "/v2/{project_id}/apigw"
	apigGroupsPath       = "/instances/{instance_id}/api-groups"
	apigGroupPath        = "/instances/{instance_id}/api-groups/{group_id}"
	apigCreateOperation  = "CreateCertificateV2"
	memberVerifiedClient = "verified_client_certificate_enabled"
)

type apigState struct {
	certs    []*apigCertificate // in the order of creation
	gateways []*apigGateway
}

type apigGateway struct {
	id, name string
	groups   []*apigGroup
}

type apigGroup struct {
	id, name string
	gateway  *apigGateway
	domains  []*apigDomain
	created  time.Time
}

// newAPIGState builds the gateways. Ids that the configuration leaves out are made up and written into it.
func newAPIGState(s *Sim) (apigState, error) {
	var a apigState
	named := map[string]*apigCertificate{}
	for i := range s.cfg.Gateways {
		gw := &s.cfg.Gateways[i]
		if gw.ID == "" {
			gw.ID = asUUID(s.newID()) // the seed's example of instance_id has dashes
		}
		gateway := &apigGateway{id: gw.ID, name: gw.Name}
		a.gateways = append(a.gateways, gateway)
		for j := range gw.Groups {
			gr := &gw.Groups[j]
			if gr.ID == "" {
				gr.ID = s.newID()
			}
			group := &apigGroup{id: gr.ID, name: gr.Name, gateway: gateway, created: s.now()}
			gateway.groups = append(gateway.groups, group)
			for k := range gr.Domains {
				domain, err := a.newDomain(s, group, &gr.Domains[k], named)
				if err != nil {
					return a, fmt.Errorf("domain %q: %w", gr.Domains[k].Name, err)
				}
				group.domains = append(group.domains, domain)
			}
		}
	}
	return a, nil
}

func asUUID(id string) string {
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// apigRoutes are the operations of reference 3.1 under the SDK's names, without the legacy ones.
func apigRoutes() []route {
	var routes []route
	add := func(operation, method, path string, handle func(*Sim, *call) answer) {
		routes = append(routes, route{
			service: serviceAPIG, operation: operation, method: method, pattern: apigBase + path, auth: authProject, handle: handle,
		})
	}
	const one, domain = "/certificates/{certificate_id}", apigGroupPath + "/domains/{domain_id}"
	add(apigCreateOperation, "POST", "/certificates", (*Sim).createAPIGCertificate)
	add("ListCertificatesV2", "GET", "/certificates", (*Sim).listAPIGCertificates)
	add("ShowDetailsOfCertificateV2", "GET", one, (*Sim).showAPIGCertificate)
	add("UpdateCertificateV2", "PUT", one, (*Sim).updateAPIGCertificate)
	add("DeleteCertificateV2", "DELETE", one, (*Sim).deleteAPIGCertificate)
	add("ListAttachedDomainsV2", "GET", one+"/attached-domains", (*Sim).listAttachedDomains)
	add("BatchAssociateDomainsV2", "POST", one+"/domains/attach", (*Sim).attachDomains)
	add("BatchDisassociateDomainsV2", "POST", one+"/domains/detach", (*Sim).detachDomains)
	add("BatchAssociateCertsV2", "POST", domain+"/certificates/attach", (*Sim).attachCertificates)
	add("BatchDisassociateCertsV2", "POST", domain+"/certificates/detach", (*Sim).detachCertificates)
	add("UpdateDomainV2", "PUT", domain, (*Sim).updateDomain)
	add("ShowDetailsOfApiGroupV2", "GET", apigGroupPath, (*Sim).showGroup)
	add("ListApiGroupsV2", "GET", apigGroupsPath, (*Sim).listGroups)
	return routes
}

// refuseParameter is the general code for what is wrong with a request.
func refuseParameter(message string) answer { return refuse(400, codeAPIGParameter, message) }

// apigBody reads a request body strictly.
func apigBody(c *call, allowed ...string) (members, answer, bool) {
	if !isJSONContent(c.r) {
		return nil, refuseParameter("Content-Type must be application/json"), false
	}
	body, err := parseMembers(c.body, allowed...)
	if err != nil {
		return nil, refuseParameter(err.Error()), false
	}
	return body, answer{}, true
}

// apigQuery lets documented query parameters pass, each at most once.
func apigQuery(c *call, allowed ...string) (answer, bool) {
	if c.query == nil && c.r.URL.RawQuery != "" {
		return refuseParameter("The query cannot be parsed"), false
	}
	for name, values := range c.query {
		if !slices.Contains(allowed, name) || len(values) != 1 {
			return refuseParameter(fmt.Sprintf("The query parameter %q is unknown or repeated", name)), false
		}
	}
	return answer{}, true
}

// apigPage reads offset and limit and returns the bounds among total rows (reference 3.4: an offset below 0 is 0, a
// limit above 500 is 500).
func apigPage(c *call, total int) (from, to int, refusal answer, ok bool) {
	offset, err := queryInt(c, "offset", 0)
	if err != nil {
		return 0, 0, refuseParameter("offset must be a number"), false
	}
	limit, err := queryInt(c, "limit", apigDefaultLimit)
	if err != nil || limit < 1 {
		return 0, 0, refuseParameter("limit must be 1 to " + strconv.Itoa(apigLargestLimit)), false
	}
	from = min(max(offset, 0), total)
	return from, min(from+min(limit, apigLargestLimit), total), answer{}, true
}

// apigWrite is how every call that changes a gateway begins: no query, and, misbehaving, nobody else at work on the
// gateway (reference 3.5, "Concurrency").
func (s *Sim) apigWrite(c *call) (answer, bool) {
	if refusal, ok := apigQuery(c); !ok {
		return refusal, false
	}
	if !s.cfg.Misbehave || !s.ledger.underWay(c.entry.Seq, isRivalOf(c.entry)) {
		return answer{}, true
	}
	if c.entry.Seq%2 == 0 {
		return refuse(500, codeAPIGStoreSync, "Failed to synchronize the configuration"), false
	}
	return refuse(409, codeAPIGTaskRunning, "A task of the gateway is in progress"), false
}

// isRivalOf tells which calls write to the gateway that e writes to: all writes but creates, unless both paths name a
// gateway and name different ones.
func isRivalOf(e Entry) func(Entry) bool {
	gateway := func(path string) string {
		parts := strings.Split(path, "/")
		if len(parts) > 5 && parts[4] == "instances" {
			return parts[5]
		}
		return ""
	}
	own := gateway(e.Path)
	return func(other Entry) bool {
		theirs := gateway(other.Path)
		return other.Service == serviceAPIG && other.Method != http.MethodGet && other.Operation != apigCreateOperation &&
			(own == "" || theirs == "" || own == theirs)
	}
}

// Missing objects: the code says which kind, the text is like the seed's example.

func missingGateway(id string) answer {
	return refuse(404, codeAPIGNoGateway, "The instance does not exist;id:"+shownID(id))
}

func missingDomain(name string) answer {
	return refuse(404, codeAPIGNoDomain, "The domain does not exist;id:"+shownID(name))
}

func (s *Sim) missingAPIGCertificate(id string) answer {
	code := codeAPIGNoCert // the table has two codes and no rule which is used when
	if s.either("code of a missing certificate") {
		code = codeAPIGNoCertOther
	}
	return refuse(404, code, "The certificate does not exist;id:"+shownID(id))
}

// shownID is an id as an error message may repeat it; messages are kept in the ledger.
func shownID(id string) string {
	odd := func(r rune) bool {
		return !strings.ContainsRune("-_.*", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	if len(id) > 80 || strings.ContainsFunc(id, odd) {
		return "?"
	}
	return id
}

func (a *apigState) gateway(id string) *apigGateway {
	for _, gateway := range a.gateways {
		if gateway.id == id {
			return gateway
		}
	}
	return nil
}

func (a *apigState) certificate(id string) *apigCertificate {
	for _, cert := range a.certs {
		if cert.id == id {
			return cert
		}
	}
	return nil
}

// domains are all domains in the order of the configuration.
func (a *apigState) domains() []*apigDomain {
	var all []*apigDomain
	for _, gateway := range a.gateways {
		for _, group := range gateway.groups {
			all = append(all, group.domains...)
		}
	}
	return all
}

// boundDomains are the domains that have cert. It is derived from the domains, never stored twice.
func (a *apigState) boundDomains(cert *apigCertificate) []*apigDomain {
	return slices.DeleteFunc(a.domains(), func(d *apigDomain) bool { return !d.has(cert) })
}

// findAPIGCertificate looks the certificate of the path up.
func (s *Sim) findAPIGCertificate(c *call) (*apigCertificate, answer, bool) {
	id := c.params["certificate_id"]
	if cert := s.apig.certificate(id); cert != nil {
		return cert, answer{}, true
	}
	return nil, s.missingAPIGCertificate(id), false
}

// findGroup looks gateway and group of the path up.
func (s *Sim) findGroup(c *call) (*apigGroup, answer, bool) {
	gateway := s.apig.gateway(c.params["instance_id"])
	if gateway == nil {
		return nil, missingGateway(c.params["instance_id"]), false
	}
	for _, group := range gateway.groups {
		if group.id == c.params["group_id"] {
			return group, answer{}, true
		}
	}
	return nil, refuse(404, codeAPIGNoGroup, "The API group does not exist;id:"+shownID(c.params["group_id"])), false
}

// findDomain looks the domain of the path up, and which of its ports is meant. A group that is not the domain's is
// told apart from a domain that does not exist (APIG.3474).
func (s *Sim) findDomain(c *call) (*apigDomain, *domainPort, answer, bool) {
	group, refusal, ok := s.findGroup(c)
	if !ok {
		return nil, nil, refusal, false
	}
	for _, domain := range s.apig.domains() {
		port := domain.port(c.params["domain_id"])
		switch {
		case port == nil || domain.group.gateway != group.gateway:
		case domain.group != group:
			return nil, nil, refuse(403, codeAPIGWrongGroup, "The group of the URL is not the group of the domain"), false
		default:
			return domain, port, answer{}, true
		}
	}
	return nil, nil, missingDomain(c.params["domain_id"]), false
}

// refuseAPIGProject is what a caller of another project, or of none, is told.
func (s *Sim) refuseAPIGProject(who caller) answer {
	if who.projectID == "" {
		return refuse(401, codeAPIGNoProject, "The token has no project")
	}
	status := 403 // as [S001] prints it
	if s.either("status of APIG.1005") {
		status = 401 // as the table prints it
	}
	return refuse(status, codeAPIGNoRight, "No permissions to request this method")
}

// checkedGateways returns a deep copy of gateways with defaults, or what is wrong with them. taken are the hosts of WAF.
func checkedGateways(gateways []Gateway, taken []Host) ([]Gateway, error) {
	var problems []error
	ids := map[string]bool{}
	checkID := func(id string) {
		if id == "" {
			return
		}
		if !isID(id) && !isUUID(id) || ids[id] {
			problems = append(problems, fmt.Errorf("id %q is there twice, or neither 32 letters or digits nor a UUID", id))
		}
		ids[id] = true
	}
	hosts := map[string]bool{}
	for _, host := range taken {
		hosts[host.Name] = true
	}
	gateways = slices.Clone(gateways)
	for i := range gateways {
		gw := &gateways[i]
		checkID(gw.ID)
		setDefault(&gw.Name, "gateway-"+strconv.Itoa(i+1))
		seen := map[string]bool{}
		gw.Groups = slices.Clone(gw.Groups)
		for j := range gw.Groups {
			gr := &gw.Groups[j]
			checkID(gr.ID)
			setDefault(&gr.Name, "group-"+strconv.Itoa(j+1))
			if len(gr.Domains) > apigDomainsPerGroup {
				problems = append(problems, fmt.Errorf("group %q: a group has at most %d domains", gr.Name, apigDomainsPerGroup))
			}
			gr.Domains = slices.Clone(gr.Domains)
			for k := range gr.Domains {
				d := &gr.Domains[k]
				checkID(d.ID)
				if hosts[d.Name] {
					problems = append(problems, fmt.Errorf("domain %q is a host of WAF too: an edge could not know which is meant", d.Name))
				}
				if seen[d.Name] {
					problems = append(problems, fmt.Errorf("domain %q is there twice on one gateway", d.Name))
				}
				seen[d.Name] = true
				if err := d.complete(); err != nil {
					problems = append(problems, fmt.Errorf("domain %q: %w", d.Name, err))
				}
			}
		}
	}
	return gateways, errors.Join(problems...)
}

// complete sets defaults and refuses nonsense.
func (d *Domain) complete() error {
	setDefault(&d.MinTLS, "TLSv1.2")
	if d.Ports = slices.Clone(d.Ports); len(d.Ports) == 0 {
		d.Ports = []int{443}
	}
	switch {
	case d.Name == "" || d.Name != strings.ToLower(d.Name):
		return errors.New("the name must be given in lower case")
	case !validMinTLS(d.MinTLS):
		return fmt.Errorf("min TLS %q", d.MinTLS)
	case d.ID != "" && len(d.Ports) > 1:
		return errors.New("a domain with several ports has several ids, which are made up")
	}
	return nil
}
