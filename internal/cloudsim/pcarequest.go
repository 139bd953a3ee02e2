package cloudsim

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What may stand in a request for a private certificate: [S002], reference 4.2.

const longestSANs = 20

var (
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidSmartCardLogon   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 2}
)

var pcaHashes = map[string]bool{"SHA256": true, "SHA384": true, "SHA512": true}

var pcaKeyUsages = map[string]x509.KeyUsage{
	"digitalSignature": x509.KeyUsageDigitalSignature, "nonRepudiation": x509.KeyUsageContentCommitment,
	"keyEncipherment": x509.KeyUsageKeyEncipherment, "dataEncipherment": x509.KeyUsageDataEncipherment,
	"keyAgreement": x509.KeyUsageKeyAgreement, "keyCertSign": x509.KeyUsageCertSign, "cRLSign": x509.KeyUsageCRLSign,
	"encipherOnly": x509.KeyUsageEncipherOnly, "decipherOnly": x509.KeyUsageDecipherOnly,
}

// pcaExtUsages are the members of extended_key_usage in the order of [S002]; smart_card_logon [SDK] has no constant.
var pcaExtUsages = []struct {
	name  string
	usage x509.ExtKeyUsage
}{
	{"server_auth", x509.ExtKeyUsageServerAuth}, {"client_auth", x509.ExtKeyUsageClientAuth},
	{"code_signing", x509.ExtKeyUsageCodeSigning}, {"email_protection", x509.ExtKeyUsageEmailProtection},
	{"time_stamping", x509.ExtKeyUsageTimeStamping}, {"smart_card_logon", x509.ExtKeyUsageAny},
}

// issuance is a certificate that is about to be signed.
type issuance struct {
	issuer             *authority
	genMode            string
	keyAlgorithm, hash string
	name               distinguishedName
	eps                string
	// template has everything but serial, key and signature.
	template *x509.Certificate
}

// readIssuance checks the body of an application.
func (s *Sim) readIssuance(body members, issuer *authority, now time.Time) (issuance, error) {
	i := issuance{issuer: issuer, genMode: genGenerate, template: &x509.Certificate{}}
	var err error
	if i.keyAlgorithm, err = body.needText("key_algorithm"); err != nil || !isKeyAlgorithm(i.keyAlgorithm) {
		return i, pcaError{codePCAKeyAlgorithm, "Invalid key algorithm. Only RSA2048, RSA4096, EC256, and EC384 are supported."}
	}
	if i.hash, err = body.needText("signature_algorithm"); err != nil || !pcaHashes[i.hash] {
		return i, pcaError{codePCAHash, "Invalid signature hash algorithm. Only SHA256, SHA384, and SHA512 are supported."}
	}
	if i.name, err = readName(body, issuer.name); err != nil {
		return i, err
	}
	i.template.Subject = i.name.subject()
	if err := s.readValidity(body, i.template, issuer, now); err != nil {
		return i, err
	}
	for _, read := range []func(members, *x509.Certificate) error{readKeyUsages, readSANs, readExtUsages, readExtension} {
		if err := read(body, i.template); err != nil {
			return i, err
		}
	}
	i.eps, err = readEPS(body)
	return i, err
}

// readEPS reads enterprise_project_id: 0 or a UUID; "all" is for reads.
func readEPS(body members) (string, error) {
	eps, given, err := body.text("enterprise_project_id")
	switch {
	case err != nil:
		return "", err
	case !given:
		return defaultEPS, nil
	case eps != defaultEPS && !isLowerUUID(eps):
		return "", errors.New("enterprise_project_id is neither 0 nor a UUID")
	}
	return eps, nil
}

// longestValidity bounds value, so that nothing overflows before 20 years are compared.
var longestValidity = map[string]int{"YEAR": 20, "MONTH": 20 * 12, "DAY": 20 * 366, "HOUR": 20 * 366 * 24}

// readValidity sets both ends of the certificate.
func (s *Sim) readValidity(body members, template *x509.Certificate, issuer *authority, now time.Time) error {
	given, err := body.need("validity", "type", "value", "start_from")
	if err != nil {
		return pcaError{codePCAValidity, err.Error()}
	}
	bad := pcaError{codePCAValidity, "Invalid validity period type or value."}
	kind, err := given.needText("type")
	if err != nil {
		return bad
	}
	value, err := given.whole("value")
	if err != nil || value < 1 || value > longestValidity[kind] {
		return bad
	}
	if kind == "HOUR" && s.either("hours of validity") { // doubt 19
		return pcaError{codePCAValidity, "Invalid validity period type or value. Only year, month, or day supported."}
	}
	start := now
	if _, there := given["start_from"]; there {
		ms, err := given.whole("start_from") // a JSON number (doubt 20)
		if err != nil {
			return pcaError{codePCAValidity, err.Error()}
		}
		if start = time.UnixMilli(int64(ms)); start.Before(now.Add(-5 * time.Minute)) {
			return pcaError{codePCAValidity, "start_from is more than 5 minutes ago."}
		}
	}
	template.NotBefore = start.UTC().Truncate(time.Second)
	template.NotAfter = validityEnd(template.NotBefore, kind, value)
	switch {
	case template.NotAfter.After(template.NotBefore.AddDate(20, 0, 0)):
		return pcaError{codePCAValidity, "A private certificate is valid for at most 20 years."}
	case template.NotAfter.After(issuer.cert.NotAfter):
		return pcaError{codePCAValidity, "The certificate would be valid for longer than its CA."}
	}
	return nil
}

// validityEnd counts YEAR as 12 months and MONTH as 31 days [S002].
func validityEnd(start time.Time, kind string, value int) time.Time {
	switch kind {
	case "YEAR":
		return start.AddDate(value, 0, 0)
	case "MONTH":
		return start.AddDate(0, 0, 31*value)
	case "DAY":
		return start.AddDate(0, 0, value)
	}
	return start.Add(time.Duration(value) * time.Hour)
}

func readKeyUsages(body members, template *x509.Certificate) error {
	names, err := body.texts("key_usages")
	if err != nil {
		return err
	}
	for _, name := range names {
		usage, known := pcaKeyUsages[name]
		if !known {
			return errors.New("key_usages holds an unknown key usage")
		}
		template.KeyUsage |= usage
	}
	return nil
}

func readSANs(body members, template *x509.Certificate) error {
	list, _, err := body.list("subject_alternative_names")
	if err != nil {
		return err
	}
	if len(list) > longestSANs {
		return errors.New("subject_alternative_names holds more than 20 names")
	}
	for _, raw := range list {
		if err := readSAN(raw, template); err != nil {
			return err
		}
	}
	return nil
}

func readSAN(raw json.RawMessage, template *x509.Certificate) error {
	san, err := parseMembers(raw, "type", "value")
	if err != nil {
		return err
	}
	kind, err := san.needText("type")
	if err != nil {
		return err
	}
	value, err := san.needText("value")
	if err != nil {
		return err
	}
	switch kind {
	case "DNS":
		if len(value) > 253 || !isDomainName(value) {
			return pcaError{codePCADomain, "Incorrect domain name."}
		}
		template.DNSNames = append(template.DNSNames, value)
	case "IP":
		ip, err := netip.ParseAddr(value)
		if err != nil || len(value) > 39 || ip.Zone() != "" {
			return pcaError{codePCAIP, "Invalid IP."}
		}
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	case "EMAIL":
		local, domain, found := strings.Cut(value, "@")
		if len(value) > 256 || !found || local == "" || !isPrintable(local) || !isDomainName(domain) {
			return errors.New("subject_alternative_names holds an invalid EMAIL")
		}
		template.EmailAddresses = append(template.EmailAddresses, value)
	case "URI":
		uri, err := url.Parse(value)
		if err != nil || len(value) > 253 || !isPrintable(value) || uri.Scheme == "" || uri.Host == "" && uri.Opaque == "" {
			return errors.New("subject_alternative_names holds an invalid URI")
		}
		template.URIs = append(template.URIs, uri)
	default:
		return pcaError{codePCASANType, "Invalid alternative name type of the certificate subject."}
	}
	return nil
}

func isPrintable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// isDomainName wants labels of letters, digits and "-"; the first may be "*".
func isDomainName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	labels := strings.Split(strings.ToLower(name), ".")
	for i, label := range labels {
		if i == 0 && label == "*" && len(labels) > 2 {
			continue
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, letters) != "" {
			return false
		}
	}
	return true
}

func readExtUsages(body members, template *x509.Certificate) error {
	if _, given := body["extended_key_usage"]; !given {
		return nil
	}
	var names []string
	for _, u := range pcaExtUsages {
		names = append(names, u.name)
	}
	usages, err := body.need("extended_key_usage", names...)
	if err != nil {
		return err
	}
	for _, u := range pcaExtUsages {
		on, _, err := usages.truth(u.name)
		switch {
		case err != nil:
			return err
		case !on:
		case u.usage == x509.ExtKeyUsageAny:
			template.UnknownExtKeyUsage = append(template.UnknownExtKeyUsage, oidSmartCardLogon)
		default:
			template.ExtKeyUsage = append(template.ExtKeyUsage, u.usage)
		}
	}
	return nil
}

// readExtension reads customized_extension. No page says how the value is encoded; here it is a UTF8String.
func readExtension(body members, template *x509.Certificate) error {
	if _, given := body["customized_extension"]; !given {
		return nil
	}
	extension, err := body.need("customized_extension", "object_identifier", "value")
	if err != nil {
		return err
	}
	identifier, err := extension.needText("object_identifier")
	if err != nil {
		return err
	}
	oid, ok := parseOID(identifier)
	if !ok || len(identifier) > 64 || slices.Equal(oid[:2], asn1.ObjectIdentifier{2, 5}) {
		return errors.New("customized_extension holds an invalid object_identifier")
	}
	value, err := extension.needText("value")
	if err != nil {
		return err
	}
	if value == "" || len(value) > 64 {
		return errors.New("the value of customized_extension must have 1 to 64 characters")
	}
	der, err := asn1.MarshalWithParams(value, "utf8")
	if err != nil {
		return errors.New("the value of customized_extension is invalid")
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oid, Value: der})
	return nil
}

// parseOID reads dot-decimal notation.
func parseOID(text string) (asn1.ObjectIdentifier, bool) {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		arc, err := strconv.ParseInt(part, 10, 32)
		if err != nil || arc < 0 || part != strconv.FormatInt(arc, 10) {
			return nil, false
		}
		oid = append(oid, int(arc))
	}
	_, err := asn1.Marshal(oid)
	return oid, err == nil
}
