package cloudsim

import (
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"strings"
	"time"
)

// IAM: tokens by password or agency, projects and domains (reference 1.2 and 1.5; [HW iam_30_0001], [OTC-I]).

const (
	serviceIAM = "iam"
	// iamTime is UTC RFC 3339 with six decimals (reference 1.2).
	iamTime = "2006-01-02T15:04:05.000000Z"
	// lockAfter wrong passwords lock the user for lockFor [HW iam FAQ].
	lockAfter = 5
	lockFor   = 15 * time.Minute
)

type iamState struct {
	tokens map[string]token
	// failures are the times of wrong passwords of each user name, the newest last.
	failures map[string][]time.Time
	// lockedUntil is when a user name may try again.
	lockedUntil map[string]time.Time
	// keys are the temporary ones by access key, expired ones among them; machineKey is the one of the metadata service.
	keys       map[string]temporaryKey
	machineKey string
	sessions   map[string]time.Time // of the metadata service, with their ends
}

type token struct {
	issued, expires time.Time
	projectID       string // "" when scoped to the domain or to nothing
	domainScoped    bool
	assumed         bool // by an agency
	body            object
}

func newIAMState() iamState {
	return iamState{
		tokens: map[string]token{}, failures: map[string][]time.Time{}, lockedUntil: map[string]time.Time{},
		keys: map[string]temporaryKey{}, sessions: map[string]time.Time{},
	}
}

func iamRoutes() []route {
	return []route{
		{service: serviceIAM, operation: "CreateToken", method: "POST", pattern: "/v3/auth/tokens", handle: (*Sim).createToken},
		{service: serviceIAM, operation: "ValidateToken", method: "GET", pattern: "/v3/auth/tokens", auth: authAny, handle: (*Sim).validateToken},
		{service: serviceIAM, operation: "CreateSecurityToken", method: "POST", pattern: "/v3.0/OS-CREDENTIAL/securitytokens", auth: authMaybe, handle: (*Sim).createSecurityToken},
		{service: serviceIAM, operation: "ListProjects", method: "GET", pattern: "/v3/projects", auth: authAny, handle: (*Sim).listProjects},
		{service: serviceIAM, operation: "ListAuthDomains", method: "GET", pattern: "/v3/auth/domains", auth: authAny, handle: (*Sim).listDomains},
	}
}

// refuseIAM is IAM's own error shape, whose code is a number (reference 1.2).
func refuseIAM(status int, message string) answer {
	titles := map[int]string{400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
	return answer{
		status: status, message: message,
		body: object{"error": object{"code": status, "message": message, "title": titles[status]}},
	}
}

// login is a request for a token, read strictly.
type login struct {
	user, password, domain string
	projectName, projectID string
	domainName, domainID   string
	scopedTo               string // project, domain or ""
	// for assume_role
	agency, agencyDomainName, agencyDomainID string
}

func parseLogin(body []byte) (login, error) {
	var l login
	root, err := parseMembers(body, "auth")
	if err != nil {
		return l, err
	}
	auth, err := root.need("auth", "identity", "scope")
	if err != nil {
		return l, err
	}
	identity, err := auth.need("identity", "methods", methodPassword, methodAssumeRole)
	if err != nil {
		return l, err
	}
	methods, err := identity.texts("methods")
	if err != nil || len(methods) != 1 || methods[0] != methodPassword && methods[0] != methodAssumeRole {
		return l, errMethods
	}
	if methods[0] == methodAssumeRole {
		if _, l.agency, l.agencyDomainName, l.agencyDomainID, err = agencyIdentity(identity); err != nil {
			return l, err
		}
		return l, l.parseScope(auth)
	}
	password, err := identity.need(methodPassword, "user")
	if err != nil {
		return l, err
	}
	user, err := password.need("user", "name", "password", "domain")
	if err != nil {
		return l, err
	}
	if l.user, err = user.needText("name"); err != nil {
		return l, err
	}
	if l.password, err = user.needText("password"); err != nil {
		return l, err
	}
	domain, err := user.need("domain", "name")
	if err != nil {
		return l, err
	}
	if l.domain, err = domain.needText("name"); err != nil {
		return l, err
	}
	return l, l.parseScope(auth)
}

// parseScope reads scope: project by name or id, or domain by name or id.
func (l *login) parseScope(auth members) error {
	if _, given := auth["scope"]; !given {
		return nil
	}
	scope, err := auth.need("scope", "project", "domain")
	if err != nil {
		return err
	}
	if len(scope) != 1 {
		return errScope
	}
	name, id := &l.projectName, &l.projectID
	l.scopedTo = "project"
	if _, isDomain := scope["domain"]; isDomain {
		name, id = &l.domainName, &l.domainID
		l.scopedTo = "domain"
	}
	inner, err := scope.need(l.scopedTo, "name", "id")
	if err != nil {
		return err
	}
	if *name, _, err = inner.text("name"); err != nil {
		return err
	}
	if *id, _, err = inner.text("id"); err != nil {
		return err
	}
	if *name == "" && *id == "" {
		return errScope
	}
	return nil
}

type iamError string

func (e iamError) Error() string { return string(e) }

const (
	errMethods = iamError(`the simulator knows the methods "password" and "assume_role", and there must be one only`)
	errScope   = iamError(`scope must be one of project and domain, with a name or an id`)
)

// createToken is POST /v3/auth/tokens.
func (s *Sim) createToken(c *call) answer {
	if !isJSONContent(c.r) {
		return refuseIAM(400, "Content-Type must be application/json.")
	}
	l, err := parseLogin(c.body)
	if err != nil {
		return refuseIAM(400, err.Error())
	}
	if l.agency != "" {
		return s.assumeRole(c, l)
	}
	if c.now.Before(s.iam.lockedUntil[l.user]) {
		// The right password does not help either [HW iam FAQ].
		return refuseIAM(401, "The account is locked. Try again later.")
	}
	if !s.rightPassword(l) {
		s.noteFailure(l.user, c.now)
		return refuseIAM(401, "The username or password is wrong.")
	}
	delete(s.iam.failures, l.user)
	return s.answerLogin(c, l)
}

// answerLogin issues the token for somebody who is who they say.
func (s *Sim) answerLogin(c *call, l login) answer {
	if !s.scopeExists(l) {
		// acmesh-official/acme.sh #3497, #5261: a wrong project or domain name in the scope is met with 400.
		return refuseIAM(400, "The project or domain of the scope does not exist.")
	}
	text, tok := s.issueToken(c, l)
	body := maps.Clone(tok.body)
	if c.query.Get("nocatalog") == "" { // "any non-empty value drops token.catalog"
		body["catalog"] = s.catalog(c.base)
	}
	return answer{status: 201, header: map[string]string{"X-Subject-Token": text}, body: object{"token": body}, effect: true}
}

func (s *Sim) rightPassword(l login) bool {
	right := subtle.ConstantTimeCompare([]byte(l.password), []byte(s.cfg.Password)) == 1
	return right && s.cfg.User != "" && l.user == s.cfg.User && l.domain == s.cfg.Domain
}

// noteFailure counts a wrong password; old ones are forgotten after the time that a lock lasts.
func (s *Sim) noteFailure(user string, now time.Time) {
	var recent []time.Time
	for _, at := range s.iam.failures[user] {
		if now.Sub(at) < lockFor {
			recent = append(recent, at)
		}
	}
	recent = append(recent, now)
	if len(recent) >= lockAfter {
		s.iam.lockedUntil[user] = now.Add(lockFor)
		recent = nil
	}
	s.iam.failures[user] = recent
}

func (s *Sim) scopeExists(l login) bool {
	switch l.scopedTo {
	case "project":
		return (l.projectName == "" || l.projectName == s.cfg.Region) && (l.projectID == "" || l.projectID == s.cfg.ProjectID)
	case "domain":
		return (l.domainName == "" || l.domainName == s.cfg.Domain) && (l.domainID == "" || l.domainID == s.cfg.DomainID)
	}
	return true
}

// issueToken makes a token as long as real ones are with few roles (reference 1.1: 1–32 KB, WAF takes up to 4096).
func (s *Sim) issueToken(c *call, l login) (string, token) {
	text := "MII" + strings.ReplaceAll(base64.StdEncoding.EncodeToString(s.randomBytes(1500)), "/", "-")
	tok := token{issued: c.now, expires: c.now.Add(s.cfg.TokenValidity)}
	domain := object{"id": s.cfg.DomainID, "name": s.cfg.Domain}
	tok.body = object{
		"expires_at": tok.expires.UTC().Format(iamTime),
		"issued_at":  tok.issued.UTC().Format(iamTime),
		"methods":    []any{methodPassword},
		"user":       object{"id": s.newID(), "name": l.user, "domain": domain, "password_expires_at": ""},
		"roles":      []any{object{"id": "0", "name": "te_admin"}, object{"id": "0", "name": "op_gated_waf"}},
	}
	if l.agency != "" {
		tok.assumed = true
		tok.body["methods"] = []any{methodAssumeRole}
		tok.body["user"] = object{"id": s.newID(), "name": s.cfg.Domain + "/" + l.agency, "domain": domain}
	}
	switch l.scopedTo {
	case "project":
		tok.projectID = s.cfg.ProjectID
		tok.body["project"] = object{"id": s.cfg.ProjectID, "name": s.cfg.Region, "domain": domain}
	case "domain":
		tok.domainScoped = true
		tok.body["domain"] = domain
	}
	s.iam.tokens[text] = tok
	return text, tok
}

// liveToken returns the token that is known by text and not expired.
func (s *Sim) liveToken(text string, now time.Time) (token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tok, ok := s.iam.tokens[text]
	return tok, ok && now.Before(tok.expires)
}

// expireToken ends a token before its time; "" ends all.
func (s *Sim) expireToken(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == "" {
		clear(s.iam.tokens)
		return
	}
	delete(s.iam.tokens, text)
}

// ExpireTokens ends every token, as a change of the password does (reference 1.2).
func (s *Sim) ExpireTokens() { s.expireToken("") }

// validateToken is GET /v3/auth/tokens [OTC-I].
func (s *Sim) validateToken(c *call) answer {
	tok, ok := s.iam.tokens[c.r.Header.Get("X-Subject-Token")]
	if !ok || !c.now.Before(tok.expires) {
		return refuseIAM(404, "The token of X-Subject-Token cannot be found.")
	}
	body := maps.Clone(tok.body)
	return answer{status: 200, header: map[string]string{"X-Subject-Token": c.r.Header.Get("X-Subject-Token")}, body: object{"token": body}}
}

// listProjects is GET /v3/projects. Without a name it also shows a sub-project, named region_name (reference 1.5).
func (s *Sim) listProjects(c *call) answer {
	rows := []any{}
	all := []struct{ id, name string }{
		{strings.Repeat("a", 32), s.cfg.Region + "_sandbox"},
		{s.cfg.ProjectID, s.cfg.Region},
		{strings.Repeat("b", 32), "MOS"},
	}
	for _, p := range all {
		if name := c.query.Get("name"); name == "" || name == p.name {
			rows = append(rows, object{
				"id": p.id, "name": p.name, "domain_id": s.cfg.DomainID, "parent_id": s.cfg.DomainID,
				"enabled": true, "is_domain": false, "description": "",
			})
		}
	}
	return answer{status: 200, body: object{"projects": rows, "links": object{"self": c.base + "/v3/projects"}}}
}

// listDomains is GET /v3/auth/domains; "first entry" is the account (reference 1.5).
func (s *Sim) listDomains(c *call) answer {
	row := object{"id": s.cfg.DomainID, "name": s.cfg.Domain, "enabled": true, "description": ""}
	return answer{status: 200, body: object{"domains": []any{row}, "links": object{"self": c.base + "/v3/auth/domains"}}}
}

// catalog is the service catalog of a token. OTC's WAF-Dedicated is found in it only, as premium-waf (reference 8.2).
func (s *Sim) catalog(base string) []any {
	types := []string{"identity", "waf", serviceAPIG}
	if s.cfg.OpenTelekom {
		types = []string{"identity", "premium-waf", serviceAPIG}
	}
	var entries []any
	for _, kind := range types {
		url := base
		if kind == "identity" {
			url += "/v3"
		}
		endpoint := object{"id": s.newID(), "interface": "public", "region": s.cfg.Region, "region_id": s.cfg.Region, "url": url}
		entries = append(entries, object{"id": s.newID(), "name": kind, "type": kind, "endpoints": []any{endpoint}})
	}
	return entries
}
