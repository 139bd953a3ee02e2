package cloudsim

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// IAM Identity Center (IC): application instances and what their operations share. Codes are those of reference 6.5.
// Requests must be signed: a token is not documented (reference 0.2, doubt 2), so it is refused.

const (
	serviceIdentity = "identity_center"

	codeIdentityBad      = "IIC.400"
	codeIdentityMissing  = "IIC.404"
	codeIdentityDenied   = "IIC.1001"
	codeIdentityRefused  = "IIC.1002"
	codeIdentityConflict = "IIC.1006"
	codeIdentityLimit    = "IIC.1007"

	// Made up, for want of a code in the reference.
	codeIdentityInternal = "IIC.500"
	codeIdentityToken    = "IIC.401"

	identityPage      = 100 // the default and the most (reference 5.2)
	identityBase      = "/v1/instances/{instance_id}/application-instances"
	identityOne       = identityBase + "/{application_instance_id}"
	applicationPrefix = "app-ins-"
	certificatePrefix = "cer-"
	identityAge       = 30 * 24 * time.Hour // of the certificate that an application starts with
)

// identityTTLs are the lives that a certificate may have, in months (reference 5.2).
var identityTTLs = map[string]int{
	"P6M": 6, "P9M": 9, "P12M": 12, "P24M": 24, "P36M": 36, "P48M": 48, "P60M": 60,
	"P1Y": 12, "P2Y": 24, "P3Y": 36, "P4Y": 48, "P5Y": 60,
}

type identityState struct {
	instances []*identityInstance
	made      int // certificates so far
}

type identityInstance struct {
	id, store string
	apps      []*identityApplication
}

// identityApplication is an application instance. Exactly one of its certificates is active.
type identityApplication struct {
	instance      *identityInstance
	id, name, ttl string
	limit         int // 0: none
	certs         []*identityCertificate
	active        *identityCertificate
}

// checkedInstances returns a deep copy of list with defaults, or what is wrong with it.
func checkedInstances(list []IdentityInstance) ([]IdentityInstance, error) {
	var problems []error
	ids := map[string]bool{"": false}
	check := func(id string, valid bool) {
		if id != "" && (!valid || ids[id]) {
			problems = append(problems, fmt.Errorf("id %q of Identity Center is there twice or has the wrong form", id))
		}
		ids[id] = true
	}
	list = slices.Clone(list)
	for i := range list {
		check(list[i].ID, isInstanceID(list[i].ID))
		list[i].Applications = slices.Clone(list[i].Applications)
		for j := range list[i].Applications {
			app := &list[i].Applications[j]
			check(app.ID, isApplicationID(app.ID))
			setDefault(&app.Name, "application-"+strconv.Itoa(j+1))
			setDefault(&app.TTL, "P5Y")
			if identityTTLs[app.TTL] == 0 || app.CertificateLimit < 0 {
				problems = append(problems, fmt.Errorf("application %q: TTL %q or certificate limit %d", app.Name, app.TTL, app.CertificateLimit))
			}
		}
	}
	return list, errors.Join(problems...)
}

// newIdentityState builds the instances. Ids that the configuration leaves out are made up and written into it.
func newIdentityState(s *Sim) (identityState, error) {
	var state identityState
	for i := range s.cfg.Instances {
		cfg := &s.cfg.Instances[i]
		if cfg.ID == "" {
			cfg.ID = "ins-" + s.newID()[:16]
		}
		instance := &identityInstance{id: cfg.ID, store: "d-" + s.newID()[:10]}
		state.instances = append(state.instances, instance)
		for j := range cfg.Applications {
			appCfg := &cfg.Applications[j]
			if appCfg.ID == "" {
				appCfg.ID = applicationPrefix + s.newID()[:16]
			}
			app := &identityApplication{
				instance: instance, id: appCfg.ID, name: appCfg.Name, ttl: appCfg.TTL, limit: appCfg.CertificateLimit,
			}
			first, err := state.newCertificate(s, app, s.now().Add(-identityAge))
			if err != nil {
				return state, fmt.Errorf("application %q: %w", app.name, err)
			}
			app.active = first
			instance.apps = append(instance.apps, app)
		}
	}
	return state, nil
}

func identityRoutes() []route {
	var routes []route
	add := func(operation, method, path string, handle func(*Sim, *call) answer) {
		routes = append(routes, route{
			service: serviceIdentity, operation: operation, method: method, pattern: path, auth: authSigned, handle: handle,
		})
	}
	const one = identityOne + "/certificates/{certificate_id}"
	add("list_instances", "GET", "/v1/instances", (*Sim).listInstances)
	add("list_applications", "GET", identityBase, (*Sim).listApplications)
	add("show_application", "GET", identityOne, (*Sim).showApplication)
	add("update_security_configuration", "PUT", identityOne+"/security-configuration", (*Sim).updateSecurity)
	add("create_certificate", "POST", identityOne+"/certificates", (*Sim).createIdentityCertificate)
	add("list_certificates", "GET", identityOne+"/certificates", (*Sim).listIdentityCertificates)
	add("activate_certificate", "PUT", one, (*Sim).activateIdentityCertificate)
	add("delete_certificate", "DELETE", one, (*Sim).deleteIdentityCertificate)
	return routes
}

// refuseIdentity is an error answer: with the request id, and for 403 with an "encrypted error message" [S000].
func (c *call) refuseIdentity(status int, code, message string) answer {
	a := refuse(status, code, message)
	a.body["request_id"] = c.entry.RequestID
	if status == 403 {
		a.body["encoded_authorization_message"] = strings.ToUpper(c.entry.RequestID) + "=="
	}
	return a
}

func (c *call) badIdentity(message string) answer {
	return c.refuseIdentity(400, codeIdentityBad, message)
}

// identityQuery lets documented query parameters pass, each at most once.
func identityQuery(c *call, allowed ...string) (answer, bool) {
	if err := pcaQuery(c, allowed...); err != nil {
		return c.badIdentity(err.Error()), false
	}
	return answer{}, true
}

// identityWrite is how a call begins that changes something and takes no body: none but {}. Misbehaving, it is refused
// while another one is under way on the same application instance (reference 6.5, IIC.1006).
func (s *Sim) identityWrite(c *call) (*identityApplication, answer, bool) {
	if refusal, ok := identityQuery(c); !ok {
		return nil, refusal, false
	}
	if len(bytes.TrimSpace(c.body)) > 0 {
		if _, err := parseMembers(c.body); err != nil {
			return nil, c.badIdentity("the call takes no body"), false
		}
	}
	app, refusal, ok := s.findApplication(c)
	if !ok {
		return nil, refusal, false
	}
	rival := func(e Entry) bool {
		return e.Service == serviceIdentity && e.Method != http.MethodGet && strings.Contains(e.Path, "/"+app.id+"/")
	}
	if s.cfg.Misbehave && s.ledger.underWay(c.entry.Seq, rival) {
		return nil, c.refuseIdentity(409, codeIdentityConflict, "A concurrent change is under way"), false
	}
	return app, answer{}, true
}

// isInstanceID is ^[a-zA-Z0-9-]{1,64}$ (reference 5.2).
func isInstanceID(id string) bool {
	return id != "" && len(id) <= 64 && isAlphanumeric(strings.ReplaceAll(id, "-", ""))
}

func isApplicationID(id string) bool {
	rest, ok := strings.CutPrefix(id, applicationPrefix)
	return ok && len(rest) == 16 && isAlphanumeric(rest)
}

func isAlphanumeric(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// findInstance looks the instance of the path up.
func (s *Sim) findInstance(c *call) (*identityInstance, answer, bool) {
	id := c.params["instance_id"]
	if !isInstanceID(id) {
		return nil, c.badIdentity("instance_id is invalid"), false
	}
	for _, instance := range s.identity.instances {
		if instance.id == id {
			return instance, answer{}, true
		}
	}
	return nil, c.refuseIdentity(404, codeIdentityMissing, "The instance does not exist"), false
}

// findApplication looks instance and application instance of the path up.
func (s *Sim) findApplication(c *call) (*identityApplication, answer, bool) {
	instance, refusal, ok := s.findInstance(c)
	if !ok {
		return nil, refusal, false
	}
	id := c.params["application_instance_id"]
	if !isApplicationID(id) {
		return nil, c.badIdentity("application_instance_id is invalid"), false
	}
	for _, app := range instance.apps {
		if app.id == id {
			return app, answer{}, true
		}
	}
	return nil, c.refuseIdentity(404, codeIdentityMissing, "The application instance does not exist"), false
}

// identityList pages through rows, whose numbers rise. A marker is the number of the last row of the page before, made
// unreadable. Misbehaving, by the seed, the newest row comes first.
func identityList[T any](s *Sim, c *call, scope string, rows []T, number func(T) int) ([]T, object, answer, bool) {
	prefix := fmt.Sprintf("%016x", s.hash("marker of "+scope))
	descending := s.either("order of " + serviceIdentity)
	if descending {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
	}
	limit, err := queryInt(c, "limit", identityPage)
	if err != nil || limit < 1 || limit > identityPage {
		return nil, nil, c.badIdentity("limit must be 1 to 100"), false
	}
	if c.query.Has("marker") {
		text, ours := strings.CutPrefix(c.query.Get("marker"), prefix)
		last, err := strconv.ParseUint(text, 16, 32)
		if err != nil || !ours || len(text) != 8 {
			return nil, nil, c.badIdentity("marker is invalid"), false
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(row T) bool {
			return number(row) == int(last) || number(row) < int(last) != descending
		})
	}
	page := object{"next_marker": nil, "current_count": min(limit, len(rows))}
	if len(rows) > limit {
		rows = rows[:limit]
		page["next_marker"] = prefix + fmt.Sprintf("%08x", number(rows[limit-1]))
	}
	return rows, page, answer{}, true
}

// listInstances is GET /v1/instances.
func (s *Sim) listInstances(c *call) answer {
	if refusal, ok := identityQuery(c, "limit", "marker"); !ok {
		return refusal
	}
	found, page, refusal, ok := identityList(s, c, "instances", s.identity.instances, func(i *identityInstance) int {
		return slices.Index(s.identity.instances, i)
	})
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, instance := range found {
		rows = append(rows, object{
			"instance_id": instance.id, "identity_store_id": instance.store, "alias": instance.store,
			"instance_urn": "IdentityCenter::" + s.cfg.DomainID + ":instance:" + instance.id,
		})
	}
	return answer{status: 200, body: object{"instances": rows, "page_info": page}}
}

// listApplications is GET /v1/instances/{instance_id}/application-instances.
func (s *Sim) listApplications(c *call) answer {
	if refusal, ok := identityQuery(c, "limit", "marker"); !ok {
		return refusal
	}
	instance, refusal, ok := s.findInstance(c)
	if !ok {
		return refusal
	}
	found, page, refusal, ok := identityList(s, c, instance.id, instance.apps, func(a *identityApplication) int {
		return slices.Index(instance.apps, a)
	})
	if !ok {
		return refusal
	}
	rows := []any{}
	for _, app := range found {
		rows = append(rows, s.applicationRow(app))
	}
	return answer{status: 200, body: object{"application_instances": rows, "page_info": page}}
}

// showApplication is GET of one application instance: active_certificate is what signs assertions now.
func (s *Sim) showApplication(c *call) answer {
	if refusal, ok := identityQuery(c); !ok {
		return refusal
	}
	app, refusal, ok := s.findApplication(c)
	if !ok {
		return refusal
	}
	return answer{status: 200, body: object{"application_instance": s.applicationRow(app)}, objects: []string{app.id}}
}

// applicationRow is reference 5.3; what concerns SAML and not certificates is made up.
func (s *Sim) applicationRow(app *identityApplication) object {
	base := "https://signin." + s.cfg.Region + ".invalid/saml/" + app.id
	display := object{"display_name": app.name, "description": ""}
	subject := object{"source": []any{"${user:email}"}}
	response := object{"properties": object{}, "subject": subject, "relay_state": nil, "ttl": "PT1H"}
	schema := object{
		"properties": object{}, "subject": object{"name_id_format": "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress", "include": "REQUIRED"},
		"supported_name_id_formats": []any{},
	}
	provider := object{
		"audience": "urn:" + app.id, "require_request_signature": false, "start_url": nil,
		"consumers": []any{object{"binding": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST", "default_value": true, "location": base + "/acs"}},
	}
	return object{
		"application_instance_id": app.id, "name": app.name, "visible": true, "status": "ENABLED", "display": display,
		"active_certificate": app.row(app.active), "security_config": object{"ttl": app.ttl},
		"identity_provider_config": object{
			"issuer_url": base, "metadata_url": base + "/metadata", "remote_login_url": base + "/login", "remote_logout_url": base + "/logout",
		},
		"response_config": response, "response_schema_config": schema, "service_provider_config": provider,
		"template": object{
			"application":     object{"application_id": "app-" + app.id[len(applicationPrefix):], "display": display},
			"response_config": response, "response_schema_config": schema, "service_provider_config": provider,
			"security_config": object{"ttl": "P5Y"}, "sso_protocol": "SAML", "template_id": "tpl-0000000000000000", "template_version": "1",
		},
	}
}

// updateSecurity is PUT …/security-configuration: how long certificates live that are made from now on.
func (s *Sim) updateSecurity(c *call) answer {
	if refusal, ok := identityQuery(c); !ok {
		return refusal
	}
	if !isJSONContent(c.r) {
		return c.badIdentity("Content-Type must be application/json")
	}
	body, err := parseMembers(c.body, "security_config")
	if err != nil {
		return c.badIdentity(err.Error())
	}
	config, err := body.need("security_config", "ttl")
	if err != nil {
		return c.badIdentity(err.Error())
	}
	ttl, err := config.needText("ttl")
	if err != nil || identityTTLs[ttl] == 0 {
		return c.badIdentity("ttl must be P6M, P9M, P12M, P24M, P36M, P48M, P60M or P1Y to P5Y")
	}
	app, refusal, ok := s.findApplication(c)
	if !ok {
		return refusal
	}
	changed := app.ttl != ttl
	app.ttl = ttl
	return answer{status: 200, effect: changed, objects: []string{app.id}}
}
