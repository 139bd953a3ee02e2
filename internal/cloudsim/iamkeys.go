package cloudsim

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// Temporary access keys and agencies: reference 1.2 and 1.3.

const (
	methodToken       = "token"
	methodPassword    = "password"
	methodAssumeRole  = "assume_role"
	shortestKey       = 900 // seconds, also the default (reference 1.3)
	longestKey        = 86400
	errKeyMethods     = iamError(`the methods are "token" or "assume_role", one of them`)
	errKeyDuration    = iamError("duration_seconds must be 900 to 86400")
	errAgencyIdentity = iamError("assume_role needs agency_name, and domain_name or domain_id")
)

// temporaryKey is an access key with an end.
type temporaryKey struct {
	access, secret, security string
	expires                  time.Time
}

// issueKey makes a temporary key.
func (s *Sim) issueKey(now time.Time, life time.Duration) temporaryKey {
	key := temporaryKey{
		access:   "HST3" + strings.ToUpper(hex.EncodeToString(s.randomBytes(8))),
		secret:   hex.EncodeToString(s.randomBytes(20)),
		security: "hQ" + strings.ReplaceAll(base64.StdEncoding.EncodeToString(s.randomBytes(600)), "/", "-"),
		expires:  now.Add(life),
	}
	s.iam.keys[key.access] = key
	return key
}

// credential is a key as IAM and the metadata service show it.
func (k temporaryKey) credential() object {
	return object{"credential": object{
		"access": k.access, "secret": k.secret, "securitytoken": k.security, "expires_at": k.expires.UTC().Format(iamTime),
	}}
}

// signingKey finds the secret of an access key: the account's own, or a temporary one that is not over.
func (s *Sim) signingKey(access string, now time.Time) (secret, security string, ok bool) {
	if s.cfg.AccessKey != "" && subtle.ConstantTimeCompare([]byte(access), []byte(s.cfg.AccessKey)) == 1 {
		return s.cfg.SecretKey, s.cfg.SecurityToken, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok := s.iam.keys[access]
	return key.secret, key.security, ok && now.Before(key.expires)
}

// ExpireKeys ends every temporary access key that was issued. The pair of the configuration stays.
func (s *Sim) ExpireKeys() { s.expireKey("") }

// expireKey ends the key that belongs to a security token; "" ends all.
func (s *Sim) expireKey(security string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for access, key := range s.iam.keys {
		if security == "" || key.security == security {
			delete(s.iam.keys, access)
		}
	}
}

// agencyIdentity reads assume_role{agency_name, domain_name|domain_id} and what else allowed names.
func agencyIdentity(identity members, allowed ...string) (inner members, name, domainName, domainID string, err error) {
	inner, err = identity.need(methodAssumeRole, append(allowed, "agency_name", "domain_name", "domain_id")...)
	if err != nil {
		return nil, "", "", "", err
	}
	for member, into := range map[string]*string{"agency_name": &name, "domain_name": &domainName, "domain_id": &domainID} {
		if *into, _, err = inner.text(member); err != nil {
			return nil, "", "", "", err
		}
	}
	if name == "" || domainName == "" && domainID == "" {
		return nil, "", "", "", errAgencyIdentity
	}
	return inner, name, domainName, domainID, nil
}

// agencyExists tells whether the account has delegated to an agency of that name. The one simulated account is both
// sides of it.
func (s *Sim) agencyExists(name, domainName, domainID string) bool {
	return s.cfg.Agency != "" && name == s.cfg.Agency && (domainName == "" || domainName == s.cfg.Domain) &&
		(domainID == "" || domainID == s.cfg.DomainID)
}

func refuseAgency() answer { return refuseIAM(404, "The agency does not exist.") }

// assumeRole is POST /v3/auth/tokens with the method assume_role, on behalf of the user whose token the call carries.
func (s *Sim) assumeRole(c *call, l login) answer {
	caller, ok := s.iam.tokens[c.r.Header.Get("X-Auth-Token")]
	switch {
	case !ok || !c.now.Before(caller.expires):
		return refuseIAM(401, "The request you have made requires authentication.")
	case caller.assumed:
		return refuseIAM(403, "An agency token cannot assume an agency.")
	case !s.agencyExists(l.agency, l.agencyDomainName, l.agencyDomainID):
		return refuseAgency()
	}
	return s.answerLogin(c, l)
}

// createSecurityToken is POST /v3.0/OS-CREDENTIAL/securitytokens.
func (s *Sim) createSecurityToken(c *call) answer {
	if !isJSONContent(c.r) {
		return refuseIAM(400, "Content-Type must be application/json.")
	}
	root, err := parseMembers(c.body, "auth")
	if err != nil {
		return refuseIAM(400, err.Error())
	}
	auth, err := root.need("auth", "identity")
	if err != nil {
		return refuseIAM(400, err.Error())
	}
	identity, err := auth.need("identity", "methods", methodToken, methodAssumeRole)
	if err != nil {
		return refuseIAM(400, err.Error())
	}
	methods, err := identity.texts("methods")
	switch {
	case err != nil || len(methods) != 1:
		return refuseIAM(400, string(errKeyMethods))
	case methods[0] == methodToken:
		return s.keyByToken(c, identity)
	case methods[0] == methodAssumeRole:
		return s.keyByAgency(c, identity)
	}
	return refuseIAM(400, string(errKeyMethods))
}

// keyByToken trades a token, of the body or else of the header, for a key. The member token may be left out then.
func (s *Sim) keyByToken(c *call, identity members) answer {
	inner, id := members{}, c.r.Header.Get("X-Auth-Token")
	if _, given := identity[methodToken]; given {
		var err error
		if inner, err = identity.need(methodToken, "id", "duration_seconds"); err != nil {
			return refuseIAM(400, err.Error())
		}
	}
	named, given, err := inner.text("id")
	if err != nil {
		return refuseIAM(400, err.Error())
	}
	if given {
		id = named
	}
	if tok, ok := s.iam.tokens[id]; !ok || !c.now.Before(tok.expires) {
		return refuseIAM(401, "The request you have made requires authentication.")
	}
	return s.answerKey(c, inner)
}

// keyByAgency gives a key of an agency to a caller with a token or a signature.
func (s *Sim) keyByAgency(c *call, identity members) answer {
	inner, name, domainName, domainID, err := agencyIdentity(identity, "duration_seconds", "session_user")
	if err != nil {
		return refuseIAM(400, err.Error())
	}
	if _, given := inner["session_user"]; given {
		user, err := inner.need("session_user", "name")
		if err == nil {
			_, err = user.needText("name")
		}
		if err != nil {
			return refuseIAM(400, err.Error())
		}
	}
	switch {
	case c.entry.Auth == "":
		return refuseIAM(401, "The request you have made requires authentication.")
	case s.iam.tokens[c.r.Header.Get("X-Auth-Token")].assumed:
		return refuseIAM(403, "An agency token cannot assume an agency.")
	case !s.agencyExists(name, domainName, domainID):
		return refuseAgency()
	}
	return s.answerKey(c, inner)
}

func (s *Sim) answerKey(c *call, inner members) answer {
	seconds := shortestKey
	if _, given := inner["duration_seconds"]; given {
		var err error
		if seconds, err = inner.whole("duration_seconds"); err != nil {
			return refuseIAM(400, err.Error())
		}
	}
	if seconds < shortestKey || seconds > longestKey {
		return refuseIAM(400, string(errKeyDuration))
	}
	key := s.issueKey(c.now, time.Duration(seconds)*time.Second)
	return answer{status: 201, body: key.credential(), effect: true}
}
