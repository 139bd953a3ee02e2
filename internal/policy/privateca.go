package policy

import (
	"encoding/asn1"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"github.com/rotatord/rotatord/internal/certs"
)

// PrivateCA has certificates issued by a private CA of the cloud.
//
// Limits and closed sets are those of the API page "Applying for a Certificate"; see the
// reference, section 4.
type PrivateCA struct {
	// Cloud is the name of a cloud in the configuration. Default "default".
	Cloud string `yaml:"cloud"`
	// IssuerID is the id of the CA, a UUID.
	IssuerID string `yaml:"issuer_id"`
	// CommonName has 1 to 64 characters. It is the certificate's name in this policy, too.
	CommonName string  `yaml:"common_name"`
	Subject    Subject `yaml:"subject"`
	// Names are the alternative names, at most 20, each with its kind: dns:, ip:, email: or
	// uri:. Default: dns: and the common name, where that is a host name.
	Names []AlternativeName `yaml:"names"`
	Key   IssuedKey         `yaml:"key"`
	// Signature is the hash, SHA256 (default), SHA384 or SHA512. A certificate for a key held
	// locally is always signed with SHA384: the service leaves no choice.
	Signature string   `yaml:"signature"`
	Validity  Validity `yaml:"validity"`
	// Backdate moves the beginning of validity into the past, for peers whose clocks are
	// behind; at most 5m.
	Backdate Duration `yaml:"backdate"`
	// KeyUsages are what the key may be used for, by their names in RFC 5280.
	KeyUsages []string `yaml:"key_usages"`
	// ExtendedKeyUsages are what the certificate may be used for.
	ExtendedKeyUsages []string         `yaml:"extended_key_usages"`
	CustomExtension   *CustomExtension `yaml:"custom_extension"`
	// EnterpriseProject is "0", the default project, or a UUID.
	EnterpriseProject string `yaml:"enterprise_project"`
	// Superseded is keep (default) or revoke, once nothing serves a certificate any more and
	// retain lets it go.
	Superseded string `yaml:"superseded"`
}

// Subject is the distinguished name but for the common name. What is left out is taken
// from the CA's own.
type Subject struct {
	// Country is a code of two letters (C).
	Country string `yaml:"country"`
	// State or province (ST), at most 128 characters.
	State string `yaml:"state"`
	// Locality, mostly a town (L), at most 128 characters.
	Locality string `yaml:"locality"`
	// Organization (O), at most 64 characters.
	Organization string `yaml:"organization"`
	// OrganizationalUnit (OU), at most 64 characters.
	OrganizationalUnit string `yaml:"organizational_unit"`
}

// IssuedKey is the key of a certificate that is issued.
type IssuedKey struct {
	// Algorithm is EC256 (default), EC384, RSA2048 or RSA4096.
	Algorithm string `yaml:"algorithm"`
	// Held is local (default: made on this host, which sends a request with the public half)
	// or cloud (made and kept by the CA, and fetched when a target needs it).
	Held string `yaml:"held"`
}

// CustomExtension is one extension of the policy's own.
type CustomExtension struct {
	// OID is its dotted object identifier, as in 1.3.6.1.4.1.2011.4.99.
	OID string `yaml:"oid"`
	// Value has at most 64 characters.
	Value string `yaml:"value"`
}

// Where the key of an issued certificate is held.
const (
	HeldLocal = "local"
	HeldCloud = "cloud"
)

// AlternativeName is one name with its kind: DNS, IP, EMAIL or URI.
type AlternativeName struct{ Type, Value string }

// UnmarshalYAML implements the YAML library's NodeUnmarshaler.
func (n *AlternativeName) UnmarshalYAML(node ast.Node) error {
	text := scalar(node)
	kind, value, found := strings.Cut(text, ":")
	kind = strings.ToUpper(kind)
	if !found || value == "" || !slices.Contains(nameKinds, kind) {
		return &nodeError{startOf(node), fmt.Sprintf("%q is not a name with its kind, as in dns:shop.example.com, ip:10.0.0.7, email:ops@example.com, uri:spiffe://example.com/shop", text)}
	}
	n.Type, n.Value = kind, value
	if kind == "DNS" {
		n.Value = strings.ToLower(value)
	}
	return nil
}

// Validity is how long an issued certificate is valid, in the units that the CA knows.
type Validity struct {
	// Type is YEAR (12 months), MONTH (31 days), DAY or HOUR.
	Type  string
	Value int
}

var validityPattern = regexp.MustCompile(`^(\d{1,6})(y|mo|d|h)$`)

// UnmarshalYAML implements the YAML library's NodeUnmarshaler.
func (v *Validity) UnmarshalYAML(n ast.Node) error {
	parts := validityPattern.FindStringSubmatch(scalar(n))
	if parts == nil {
		return &nodeError{startOf(n), fmt.Sprintf("%q is not a validity; write a whole number of hours (12h), days (90d), months (6mo) or years (1y)", scalar(n))}
	}
	v.Value, _ = strconv.Atoi(parts[1]) // the pattern lets digits through, and few of them
	v.Type = map[string]string{"y": "YEAR", "mo": "MONTH", "d": "DAY", "h": "HOUR"}[parts[2]]
	return nil
}

// Span is how long that is at least.
func (v Validity) Span() time.Duration {
	const day = 24 * time.Hour
	unit := map[string]time.Duration{"YEAR": 365 * day, "MONTH": 31 * day, "DAY": day, "HOUR": time.Hour}[v.Type]
	return time.Duration(v.Value) * unit
}

const (
	maxNames    = 20
	maxBackdate = Duration(5 * time.Minute)
	// maxSpan: a private certificate and the CA that signs it are valid for at most 20 years
	// together; what is left is checked against the CA before a certificate is asked for.
	maxSpan = 20 * 366 * 24 * time.Hour
)

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	// The service takes Latin letters without marks and Chinese ones.
	commonNamePattern = regexp.MustCompile(`^[A-Za-z0-9\p{Han}\-_ .,*]{1,64}$`)
	dnPattern         = regexp.MustCompile(`^[A-Za-z0-9\p{Han}\-_ .,]*$`)
	countryPattern    = regexp.MustCompile(`^[A-Za-z]{2}$`)
	oidPattern        = regexp.MustCompile(`^[0-2](\.(0|[1-9]\d*))+$`)

	nameKinds        = []string{"DNS", "IP", "EMAIL", "URI"}
	issuedSuperseded = []string{SupersededKeep, SupersededRevoke}
	keyAlgorithms    = []string{"EC256", "EC384", "RSA2048", "RSA4096"}
	keyHolders       = []string{HeldLocal, HeldCloud}
	signatures       = []string{"SHA256", "SHA384", "SHA512"}
	keyUsages        = []string{
		"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly",
	}
	extendedKeyUsages = []string{"server_auth", "client_auth", "code_signing", "email_protection", "time_stamping"}
)

func (ca *PrivateCA) complete(d *document, at string, c *Config) {
	ca.Cloud = completeCloud(d, at, ca.Cloud, c)
	required(d, at, "issuer_id", ca.IssuerID)
	if ca.IssuerID != "" && !uuidPattern.MatchString(ca.IssuerID) {
		d.addAt(at+".issuer_id", "%q is not the id of a CA, which is a UUID", ca.IssuerID)
	}
	required(d, at, "common_name", ca.CommonName)
	if ca.CommonName != "" && !commonNamePattern.MatchString(ca.CommonName) {
		d.addAt(at+".common_name", "a common name has 1 to 64 letters without marks, digits, spaces and - _ . , *; %q has not", ca.CommonName)
	}
	ca.Subject.complete(d, at+".subject")
	ca.completeNames(d, at)
	ca.completeKey(d, at)
	ca.completeValidity(d, at)
	ca.completeUsages(d, at)
	if p := ca.EnterpriseProject; p != "" && !enterprisePattern.MatchString(p) {
		d.addAt(at+".enterprise_project", "enterprise_project %q is neither 0 nor a UUID", p)
	}
	if ca.Superseded == "" {
		ca.Superseded = SupersededKeep
	}
	oneOf(d, at+".superseded", ca.Superseded, issuedSuperseded)
}

func (s *Subject) complete(d *document, at string) {
	if s.Country != "" && !countryPattern.MatchString(s.Country) {
		d.addAt(at+".country", "country %q is not a code of two letters", s.Country)
	}
	for _, part := range []struct {
		field, value string
		most         int
	}{{"state", s.State, 128}, {"locality", s.Locality, 128}, {"organization", s.Organization, 64}, {"organizational_unit", s.OrganizationalUnit, 64}} {
		if n := utf8.RuneCountInString(part.value); n > part.most {
			d.addAt(at+"."+part.field, "%s has %d characters, and at most %d can be asked for", part.field, n, part.most)
		}
		if !dnPattern.MatchString(part.value) {
			d.addAt(at+"."+part.field, "the CA takes letters without marks, digits, spaces and - _ . , in a subject; %q has others", part.value)
		}
	}
}

func (ca *PrivateCA) completeNames(d *document, at string) {
	if len(ca.Names) == 0 && hostPattern.MatchString(strings.ToLower(ca.CommonName)) {
		ca.Names = []AlternativeName{{"DNS", strings.ToLower(ca.CommonName)}}
	}
	if len(ca.Names) == 0 && commonNamePattern.MatchString(ca.CommonName) {
		d.addAt(at, "names is missing; the common name is no host name, and no client would accept a certificate without names")
	}
	if len(ca.Names) > maxNames {
		d.addAt(at+".names", "%d names are asked for, and the CA takes at most %d", len(ca.Names), maxNames)
	}
	for i, name := range ca.Names {
		at := at + ".names[" + strconv.Itoa(i) + "]"
		switch problem := name.problem(); {
		case problem != "":
			d.addAt(at, "%s", problem)
		case slices.Index(ca.Names, name) < i:
			d.addAt(at, "name %q is there twice", name.Value)
		}
	}
}

// Covers reports whether the certificate that is asked for may be served at host.
func (ca *PrivateCA) Covers(host string) bool {
	var info certs.Info
	for _, name := range ca.Names {
		if name.Type == "DNS" || name.Type == "IP" {
			info.Names = append(info.Names, name.Value)
		}
	}
	return info.Covers(host)
}

// completeCoverage refuses endpoints that the certificate would not be accepted at.
func (p *Policy) completeCoverage(d *document) {
	ca := p.Source.PrivateCA
	for i, t := range p.Targets {
		if t.File != nil {
			continue
		}
		for j, name := range t.Endpoints().List {
			if !ca.Covers(name) {
				field := map[string]string{"waf": "hosts", "apig": "domains"}[t.Kind()]
				d.addAt(fmt.Sprintf("$.targets[%d].%s.%s[%d]", i, t.Kind(), field, j), "no name of the certificate covers %s; add dns:%s to source.private_ca.names", name, name)
			}
		}
	}
	for i, endpoint := range p.Verify.Endpoints {
		if host, _, err := net.SplitHostPort(endpoint); err == nil && !ca.Covers(host) {
			d.addAt(fmt.Sprintf("$.verify.endpoints[%d]", i), "no name of the certificate covers %s, so it cannot be proven there", host)
		}
	}
}

// problem says why the CA would refuse the name, or "".
func (n AlternativeName) problem() string {
	most := map[string]int{"DNS": 253, "IP": 39, "EMAIL": 256, "URI": 253}[n.Type]
	if len(n.Value) > most {
		return fmt.Sprintf("the name has %d characters, and at most %d can be asked for", len(n.Value), most)
	}
	switch n.Type {
	case "DNS":
		if !hostPattern.MatchString(n.Value) {
			return fmt.Sprintf("%q is not a host name", n.Value)
		}
	case "IP":
		if _, err := netip.ParseAddr(n.Value); err != nil || strings.Contains(n.Value, "%") {
			return fmt.Sprintf("%q is not an IP address", n.Value)
		}
	case "EMAIL":
		if a, err := mail.ParseAddress(n.Value); err != nil || a.Address != n.Value {
			return fmt.Sprintf("%q is not a mail address", n.Value)
		}
	case "URI":
		if u, err := url.Parse(n.Value); err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" {
			return fmt.Sprintf("%q is not a URI with a scheme", n.Value)
		}
	}
	return ""
}

func (ca *PrivateCA) completeKey(d *document, at string) {
	if ca.Key.Algorithm == "" {
		ca.Key.Algorithm = "EC256"
	}
	if ca.Key.Held == "" {
		ca.Key.Held = HeldLocal
	}
	if ca.Signature == "" {
		ca.Signature = "SHA256"
	}
	oneOf(d, at+".key.algorithm", ca.Key.Algorithm, keyAlgorithms)
	oneOf(d, at+".key.held", ca.Key.Held, keyHolders)
	oneOf(d, at+".signature", ca.Signature, signatures)
}

func (ca *PrivateCA) completeValidity(d *document, at string) {
	switch {
	case ca.Validity.Type == "":
		d.addAt(at, "validity is missing, as in 90d")
	case ca.Validity.Value < 1:
		d.addAt(at+".validity", "a validity of %d cannot be asked for", ca.Validity.Value)
	case ca.Validity.Span() > maxSpan:
		d.addAt(at+".validity", "validity is longer than 20 years, which no certificate can have")
	}
	if ca.Backdate > maxBackdate {
		d.addAt(at+".backdate", "backdate %s is longer than the %s that the CA takes", ca.Backdate, maxBackdate)
	}
}

func (ca *PrivateCA) completeUsages(d *document, at string) {
	for i, usage := range ca.KeyUsages {
		oneOf(d, at+".key_usages["+strconv.Itoa(i)+"]", usage, keyUsages)
	}
	for i, usage := range ca.ExtendedKeyUsages {
		oneOf(d, at+".extended_key_usages["+strconv.Itoa(i)+"]", usage, extendedKeyUsages)
	}
	x := ca.CustomExtension
	if x == nil {
		return
	}
	at += ".custom_extension"
	required(d, at, "oid", x.OID)
	required(d, at, "value", x.Value)
	switch {
	case x.OID == "":
	case !isOID(x.OID):
		d.addAt(at+".oid", "%q is not an object identifier, as in 1.3.6.1.4.1.2011.4.99", x.OID)
	case strings.HasPrefix(x.OID, "2.5.29.") || strings.HasPrefix(x.OID, "1.3.6.1.5.5.7.1."):
		d.addAt(at+".oid", "%s is one of the standard extensions, whose content has a form of its own; take one of your own", x.OID)
	}
	if n := utf8.RuneCountInString(x.Value); n > 64 {
		d.addAt(at+".value", "the value has %d characters, and at most 64 can be asked for", n)
	}
}

// isOID reports whether text is a dotted object identifier that ASN.1 can hold.
func isOID(text string) bool {
	if len(text) > 64 || !oidPattern.MatchString(text) {
		return false
	}
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseInt(part, 10, 32) // larger ones are refused by most that read certificates
		if err != nil {
			return false
		}
		id = append(id, int(n))
	}
	_, err := asn1.Marshal(id)
	return err == nil
}
