package cloudsim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The private CA of the Cloud Certificate Manager (PCA v1): what its operations share. Codes are those of reference
// 6.4. It has no project: signatures, and tokens with the account as their scope (reference 0.2, 4).

const (
	servicePCA = "ccm"

	codePCAParameter    = "PCA.00020001"
	codePCAName         = "PCA.00020101"
	codePCAKeyAlgorithm = "PCA.00020102"
	codePCAHash         = "PCA.00020103"
	codePCAValidity     = "PCA.00020109"
	codePCADomain       = "PCA.00020110"
	codePCAIP           = "PCA.00020111"
	codePCASANType      = "PCA.00020112"
	codePCAAuthorityID  = "PCA.00020201"
	codePCAMissing404   = "PCA.00030102"
	codePCAMissing400   = "PCA.10010002"
	codePCAAlready      = "PCA.10010071" // said of the OCSP switch; the reference has no other "is already so"
	codePCAIDForm       = "PCA.10010105"

	// Made up, for want of a code in the reference (doubt 21).
	codePCAInternal       = "PCA.00010001"
	codePCABusy           = "PCA.00010002"
	codePCAToken          = "PCA.00000401"
	codePCADenied         = "PCA.00000403"
	codePCAAuthorityState = "PCA.10019001" // the CA is not in a state that allows it
	codePCAQuota          = "PCA.10019002"
	codePCAState          = "PCA.10019003" // the certificate is not in a state that allows it
	codePCATags           = "PCA.10019004" // more than 20

	privateQuota   = 100000 // reference 7.1
	authorityQuota = 100

	pcaCertificates = "/v1/private-certificates"
	pcaCertificate  = pcaCertificates + "/{certificate_id}"
	pcaAuthorities  = "/v1/private-certificate-authorities"
	pcaAuthority    = pcaAuthorities + "/{ca_id}"
)

type pcaState struct {
	authorities []*authority
	certs       []*privateCertificate // in the order of creation
	rsaKeys     map[string]int        // how many keys of an algorithm were taken from the pool
}

// pcaRoutes are the operations of reference 4.1 that concern private certificates and read CAs. Fixed paths stand
// before those with an id.
func pcaRoutes() []route {
	var routes []route
	add := func(operation, method, path string, handle func(*Sim, *call) answer) {
		routes = append(routes, route{
			service: servicePCA, operation: operation, method: method, pattern: path, auth: authDomain, handle: handle,
		})
	}
	add("create_certificate", "POST", pcaCertificates, (*Sim).createPrivate)
	add("create_certificate_by_csr", "POST", pcaCertificates+"/csr", (*Sim).createPrivateByCSR)
	add("parse_csr", "POST", pcaCertificates+"/csr/parse", (*Sim).parseCSR)
	add("list_certificates", "GET", pcaCertificates, (*Sim).listPrivate)
	add("show_quota", "GET", pcaCertificates+"/quotas", (*Sim).showPrivateQuota)
	add("filter_certificates", "POST", pcaCertificates+"/resource-instances/filter", (*Sim).filterPrivate)
	add("show_certificate", "GET", pcaCertificate, (*Sim).showPrivate)
	add("delete_certificate", "DELETE", pcaCertificate, (*Sim).deletePrivate)
	add("export_certificate", "POST", pcaCertificate+"/export", (*Sim).exportPrivate)
	add("revoke_certificate", "POST", pcaCertificate+"/revoke", (*Sim).revokePrivate)
	add("create_tags", "POST", pcaCertificate+"/tags/create", (*Sim).createTags)
	add("delete_tags", "DELETE", pcaCertificate+"/tags/delete", (*Sim).deleteTags)
	add("list_tags", "GET", pcaCertificate+"/tags", (*Sim).listTags)
	add("list_authorities", "GET", pcaAuthorities, (*Sim).listAuthorities)
	add("authority_quota", "GET", pcaAuthorities+"/quotas", (*Sim).showAuthorityQuota)
	add("show_authority", "GET", pcaAuthority, (*Sim).showAuthority)
	add("export_authority", "POST", pcaAuthority+"/export", (*Sim).exportAuthority)
	return routes
}

// pcaError is what is wrong with a request, with the code that says so. Its text is fixed: it never repeats what the
// caller sent, since messages are kept in the ledger.
type pcaError struct{ code, message string }

func (e pcaError) Error() string { return e.message }

// refusePCA is the answer for an error: 400, with the general code unless the error has one.
func refusePCA(err error) answer {
	if e, ok := errors.AsType[pcaError](err); ok {
		return refuse(400, e.code, e.message)
	}
	return refuse(400, codePCAParameter, err.Error())
}

// pcaBody reads a request body strictly. Every call that has one needs at least {} (reference 4.6).
func pcaBody(c *call, allowed ...string) (members, error) {
	if err := pcaQuery(c); err != nil {
		return nil, err
	}
	if !isJSONContent(c.r) {
		return nil, errors.New("Content-Type must be application/json")
	}
	return parseMembers(c.body, allowed...)
}

// pcaQuery lets documented query parameters pass, each at most once.
func pcaQuery(c *call, allowed ...string) error {
	if c.query == nil && c.r.URL.RawQuery != "" {
		return errors.New("the query cannot be parsed")
	}
	for name, values := range c.query {
		if !slices.Contains(allowed, name) || len(values) != 1 {
			return fmt.Errorf("the query parameter %s is unknown or repeated", shownName(name))
		}
	}
	return nil
}

// pcaPage reads limit and offset of a list: 10 rows by default, 1000 at most (reference 4.4).
func pcaPage(c *call, total int) (from, to int, err error) {
	limit, err := queryInt(c, "limit", 10)
	if err != nil || limit < 0 || limit > 1000 {
		return 0, 0, errors.New("limit must be 0 to 1000")
	}
	offset, err := queryInt(c, "offset", 0)
	if err != nil || offset < 0 {
		return 0, 0, errors.New("offset must not be negative")
	}
	from = min(offset, total)
	return from, min(from+limit, total), nil
}

// oneOf wants a query parameter, if it is there, to be one of values.
func oneOf(c *call, name string, values ...string) (string, error) {
	value := c.query.Get(name)
	if c.query.Has(name) && !slices.Contains(values, value) {
		return "", fmt.Errorf("%s must be one of %s", name, strings.Join(values, ", "))
	}
	return value, nil
}

// pcaMissing is the answer for what does not exist. Two forms are known (reference 6.4, doubt 17); misbehaving, the
// simulator uses both.
func (s *Sim) pcaMissing(c *call) answer {
	other := s.cfg.Misbehave && c.entry.Seq%2 == 0
	if s.cfg.PrivateNotFound404 != other {
		return refuse(404, codePCAMissing404, "CA or certificate is not found.")
	}
	return refuse(400, codePCAMissing400, "The certificate does not exist.")
}

// isLowerUUID is the form of every id of the service [HW ErrorCode, PCA.00020201].
func isLowerUUID(id string) bool { return isUUID(id) && id == strings.ToLower(id) }

func (p *pcaState) authority(id string) *authority {
	for _, a := range p.authorities {
		if a.id == id {
			return a
		}
	}
	return nil
}

func (p *pcaState) certificate(id string) *privateCertificate {
	for _, cert := range p.certs {
		if cert.id == id {
			return cert
		}
	}
	return nil
}

// findPrivate checks the id of the path and looks it up.
func (s *Sim) findPrivate(c *call) (*privateCertificate, answer, bool) {
	id := c.params["certificate_id"]
	if !isLowerUUID(id) {
		return nil, refuse(400, codePCAIDForm, "The format of the parameter is incorrect."), false
	}
	if cert := s.pca.certificate(id); cert != nil {
		return cert, answer{}, true
	}
	return nil, s.pcaMissing(c), false
}

// findAuthority looks up the CA that a path or a body names.
func (s *Sim) findAuthority(c *call, id string) (*authority, answer, bool) {
	if !isLowerUUID(id) {
		return nil, refuse(400, codePCAAuthorityID, "Invalid CA ID."), false
	}
	if a := s.pca.authority(id); a != nil {
		return a, answer{}, true
	}
	return nil, s.pcaMissing(c), false
}

// millis is a time as the service writes it: in ms, null where there is none. Its examples are all whole seconds.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Truncate(time.Second).UnixMilli()
}

// quotaAnswer is the answer of both quota calls (reference 7.1).
func quotaAnswer(kind string, used, quota int) answer {
	resource := object{"type": kind, "used": used, "quota": quota}
	return answer{status: 200, body: object{"quotas": object{"resources": []any{resource}}}}
}

// crlf lays PEM out as the service does in JSON: \r\n between the lines. Misbehaving, by the seed, one follows the
// last line too.
func (s *Sim) crlf(pem string) string {
	text := crlfLines(pem)
	if s.either("last newline of PEM") {
		text += "\r\n"
	}
	return text
}

func crlfLines(pem string) string { return strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\r\n") }
