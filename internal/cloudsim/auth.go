package cloudsim

const (
	codeGatewayAuth  = "APIGW.0301"
	textGatewayAuth  = "Incorrect IAM authentication information: "
	codeGatewayRoute = "APIGW.0101"
)

// authKind says what a route asks of its caller.
type authKind int

const (
	authNone    authKind = iota
	authMaybe            // none, or valid ones; the service decides
	authAny              // any valid token or signature
	authProject          // of the project in the path
	authDomain           // of the account: a signature, or a token with the account as its scope
	authSigned           // of the account, and by a signature
)

// caller is who a request comes from.
type caller struct {
	how       string // token, signature
	projectID string // "" for a token without a project
	domain    bool   // may act for the account: a signature, or a token with the account as its scope
}

// authenticate decides whether the call may reach its service, and as whom. ok false means that refusal is the answer.
func (s *Sim) authenticate(c *call, kind authKind) (refusal answer, ok bool) {
	if kind == authNone {
		return answer{}, true
	}
	if kind == authMaybe && c.r.Header.Get("Authorization") == "" && c.r.Header.Get("X-Auth-Token") == "" {
		return answer{}, true
	}
	if kind == authSigned && c.r.Header.Get("Authorization") == "" {
		return c.refuseGateway(401, codeGatewayAuth, textGatewayAuth+"the request is not signed"), false
	}
	who, refusal, ok := s.identify(c)
	if !ok {
		return refusal, false
	}
	c.entry.Auth = who.how
	switch kind {
	case authProject:
		return s.checkProject(c, who)
	case authDomain, authSigned:
		return s.checkDomain(c, who)
	default:
		return answer{}, true
	}
}

// checkProject compares path, header and caller. Reference 6.2: WAF.00012002, "project id does not fit the token". A
// domain-scoped token fits none.
func (s *Sim) checkProject(c *call, who caller) (answer, bool) {
	named := c.r.Header.Get("X-Project-Id")
	switch {
	case who.projectID != "" && c.params["project_id"] == who.projectID && (named == "" || named == who.projectID):
		return answer{}, true
	case c.entry.Service == serviceAPIG:
		return s.refuseAPIGProject(who), false
	}
	return refuse(400, "WAF.00012002", "The project id does not match the token"), false
}

// checkDomain compares header and caller of a service that has no project (reference 0.2, 1.2, 1.4).
func (s *Sim) checkDomain(c *call, who caller) (answer, bool) {
	named := c.r.Header.Get("X-Domain-Id")
	switch {
	case who.domain && (named == "" || named == s.cfg.DomainID):
		return answer{}, true
	case c.entry.Service == serviceIdentity:
		return c.refuseIdentity(403, codeIdentityDenied, "Access denied"), false
	}
	return refuse(403, codePCADenied, "No permission: the caller is not one of the account"), false
}

// identify accepts a signature or, without one, a token.
func (s *Sim) identify(c *call) (caller, answer, bool) {
	if header := c.r.Header.Get("Authorization"); header != "" {
		return s.identifySignature(c, header)
	}
	text := c.r.Header.Get("X-Auth-Token")
	if text == "" {
		return caller{}, c.refuseGateway(401, codeGatewayAuth, textGatewayAuth+"token or signature is missing"), false
	}
	tok, ok := s.liveToken(text, c.now)
	switch {
	case ok:
		return caller{how: "token", projectID: tok.projectID, domain: tok.domainScoped}, answer{}, true
	case c.entry.Service == serviceIAM:
		return caller{}, refuseIAM(401, "The request you have made requires authentication."), false
	case s.cfg.TokenErrorsInService && c.entry.Service == serviceAPIG:
		return caller{}, refuse(401, codeAPIGToken, "Incorrect token or token resolution failed"), false
	case s.cfg.TokenErrorsInService && c.entry.Service == servicePCA:
		return caller{}, refuse(401, codePCAToken, "Authentication failed"), false
	case s.cfg.TokenErrorsInService:
		return caller{}, refuse(400, "WAF.00012001", "Invalid token"), false
	}
	return caller{}, c.refuseGateway(401, codeGatewayAuth, textGatewayAuth+"decrypt token fail"), false
}

// identifySignature refuses with one code and different words (reference 6.6: APIGW.0301 is also used for bad
// signatures and clock skew).
func (s *Sim) identifySignature(c *call, header string) (caller, answer, bool) {
	refused := func(reason string) (caller, answer, bool) {
		return caller{}, c.refuseGateway(401, codeGatewayAuth, textGatewayAuth+reason), false
	}
	sig, err := parseSignature(header)
	if err != nil {
		return refused(err.Error())
	}
	secret, security, ok := s.signingKey(sig.access, c.now)
	if !ok {
		return refused("the access key does not exist")
	}
	if err := verifySignature(c.r, c.body, sig, secret, security, c.now); err != nil {
		return refused(err.Error())
	}
	return caller{how: "signature", projectID: s.cfg.ProjectID, domain: true}, answer{}, true
}

// refuse is an error answer of a service: {"error_code","error_msg"} (reference 6.1).
func refuse(status int, code, message string) answer {
	return answer{status: status, code: code, message: message, body: object{"error_code": code, "error_msg": message}}
}

// refuseGateway is an error answer of the gateway in front of every service, which adds the request id (reference 6.1).
func (c *call) refuseGateway(status int, code, message string) answer {
	a := refuse(status, code, message)
	a.body["request_id"] = c.entry.RequestID
	return a
}
