package privateca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/bits"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// usages are the key usages by their names, in the order of their bits in RFC 5280.
var usages = []struct {
	name string
	bit  x509.KeyUsage
}{
	{"digitalSignature", x509.KeyUsageDigitalSignature},
	{"nonRepudiation", x509.KeyUsageContentCommitment},
	{"keyEncipherment", x509.KeyUsageKeyEncipherment},
	{"dataEncipherment", x509.KeyUsageDataEncipherment},
	{"keyAgreement", x509.KeyUsageKeyAgreement},
	{"keyCertSign", x509.KeyUsageCertSign},
	{"cRLSign", x509.KeyUsageCRLSign},
	{"encipherOnly", x509.KeyUsageEncipherOnly},
	{"decipherOnly", x509.KeyUsageDecipherOnly},
}

type extendedUsage struct {
	name  string
	usage x509.ExtKeyUsage
	oid   asn1.ObjectIdentifier
}

var extendedUsages = []extendedUsage{
	{"server_auth", x509.ExtKeyUsageServerAuth, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}},
	{"client_auth", x509.ExtKeyUsageClientAuth, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}},
	{"code_signing", x509.ExtKeyUsageCodeSigning, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}},
	{"email_protection", x509.ExtKeyUsageEmailProtection, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}},
	{"time_stamping", x509.ExtKeyUsageTimeStamping, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}},
}

var keyUsageNames, extendedKeyUsageNames = func() (basic, extended []string) {
	for _, u := range usages {
		basic = append(basic, u.name)
	}
	for _, u := range extendedUsages {
		extended = append(extended, u.name)
	}
	return basic, extended
}()

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// newKey makes a private key.
func newKey(algorithm string) (certs.PrivateKey, error) {
	var signer crypto.Signer
	var err error
	switch algorithm {
	case "EC256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EC384":
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA2048":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "RSA4096":
		signer, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		return certs.PrivateKey{}, fmt.Errorf("key algorithm %q is not known", algorithm)
	}
	if err != nil {
		return certs.PrivateKey{}, fmt.Errorf("make a key: %w", err)
	}
	return certs.NewPrivateKey(signer)
}

// request makes the certificate signing request, as DER. The service takes subject and
// public key from it, and is expected to take names, usages and the extension too (doubt
// 18); whether it did is checked in what it issued.
func (s Spec) request(key certs.PrivateKey) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: s.subject()}
	for _, n := range s.Names {
		switch n.Type {
		case DNS:
			template.DNSNames = append(template.DNSNames, n.Value)
		case IP:
			address, err := netip.ParseAddr(n.Value)
			if err != nil {
				return nil, err
			}
			template.IPAddresses = append(template.IPAddresses, address.Unmap().AsSlice())
		case EMAIL:
			template.EmailAddresses = append(template.EmailAddresses, n.Value)
		case URI:
			u, err := url.Parse(n.Value)
			if err != nil {
				return nil, err
			}
			template.URIs = append(template.URIs, u)
		}
	}
	extensions, err := s.extensions()
	if err != nil {
		return nil, err
	}
	template.ExtraExtensions = extensions
	return x509.CreateCertificateRequest(rand.Reader, template, key.Signer())
}

func (s Spec) subject() pkix.Name {
	one := func(text string) []string {
		if text == "" {
			return nil
		}
		return []string{text}
	}
	return pkix.Name{
		CommonName: s.CommonName, Country: one(s.Country), Province: one(s.State), Locality: one(s.Locality),
		Organization: one(s.Organization), OrganizationalUnit: one(s.OrganizationalUnit),
	}
}

// extensions are those that x509 does not make by itself.
func (s Spec) extensions() ([]pkix.Extension, error) {
	var all []pkix.Extension
	add := func(id asn1.ObjectIdentifier, critical bool, value any) error {
		der, err := asn1.Marshal(value)
		all = append(all, pkix.Extension{Id: id, Critical: critical, Value: der})
		return err
	}
	if len(s.KeyUsages) > 0 {
		if err := add(oidKeyUsage, true, usageBits(s.keyUsage())); err != nil {
			return nil, err
		}
	}
	if len(s.ExtendedKeyUsages) > 0 {
		var ids []asn1.ObjectIdentifier
		for _, u := range extendedUsages {
			if slices.Contains(s.ExtendedKeyUsages, u.name) {
				ids = append(ids, u.oid)
			}
		}
		if err := add(oidExtendedKeyUsage, false, ids); err != nil {
			return nil, err
		}
	}
	if x := s.Extension; x != nil {
		text := asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte(x.Value)}
		if err := add(objectIdentifier(x.OID), false, text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// keyUsage is the sum of the key usages.
func (s Spec) keyUsage() x509.KeyUsage {
	var sum x509.KeyUsage
	for _, u := range usages {
		if slices.Contains(s.KeyUsages, u.name) {
			sum |= u.bit
		}
	}
	return sum
}

// usageBits writes key usages as ASN.1 does: the first bit is the highest, and there are
// no zeros at the end.
func usageBits(u x509.KeyUsage) asn1.BitString {
	b := asn1.BitString{
		Bytes:     []byte{bits.Reverse8(byte(u & 0xff)), bits.Reverse8(byte(u >> 8 & 0xff))},
		BitLength: bits.Len(uint(u)),
	}
	b.Bytes = b.Bytes[:(b.BitLength+7)/8]
	return b
}

// requestPEM is a request as it is sent.
func requestPEM(der []byte) string {
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
}

// The bodies of both calls that issue (reference 4.2, 4.3).

type validityBody struct {
	Type  string `json:"type"`
	Value int    `json:"value"`
	// StartFrom is in milliseconds since 1970; left out, it is now.
	StartFrom int64 `json:"start_from,omitempty"`
}

type requestBody struct {
	IssuerID string       `json:"issuer_id"`
	CSR      string       `json:"csr"`
	Validity validityBody `json:"validity"`
	// Type is sent although it is the default: the other one would make a CA.
	Type              string `json:"type"`
	EnterpriseProject string `json:"enterprise_project_id,omitempty"`
}

type subjectBody struct {
	CommonName         string `json:"common_name"`
	Country            string `json:"country,omitempty"`
	State              string `json:"state,omitempty"`
	Locality           string `json:"locality,omitempty"`
	Organization       string `json:"organization,omitempty"`
	OrganizationalUnit string `json:"organizational_unit,omitempty"`
}

type nameBody struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

type extensionBody struct {
	OID   string `json:"object_identifier"`
	Value string `json:"value"`
}

type specBody struct {
	IssuerID          string          `json:"issuer_id"`
	KeyAlgorithm      string          `json:"key_algorithm"`
	Signature         string          `json:"signature_algorithm"`
	Subject           subjectBody     `json:"distinguished_name"`
	Validity          validityBody    `json:"validity"`
	KeyUsages         []string        `json:"key_usages,omitempty"`
	Names             []nameBody      `json:"subject_alternative_names,omitempty"`
	ExtendedKeyUsages map[string]bool `json:"extended_key_usage,omitempty"`
	Extension         *extensionBody  `json:"customized_extension,omitempty"`
	EnterpriseProject string          `json:"enterprise_project_id,omitempty"`
}

// onTheWay is taken off the longest backdate: what is 5 minutes ago here is longer ago
// when the request arrives, and is refused then.
const onTheWay = 20 * time.Second

func (s Spec) validityBody(now time.Time) validityBody {
	v := s.Validity.canonical()
	body := validityBody{Type: v.Type, Value: v.Value}
	if s.Backdate > 0 {
		body.StartFrom = now.Add(-min(s.Backdate, maxBackdate-onTheWay)).UnixMilli()
	}
	return body
}

// byRequest is the body for a key that is held locally.
func (s Spec) byRequest(csr string, now time.Time) requestBody {
	return requestBody{
		IssuerID: s.IssuerID, CSR: csr, Validity: s.validityBody(now), Type: "ENTITY_CERT", EnterpriseProject: s.EnterpriseProject,
	}
}

// bySpec is the body for a key that the service makes.
func (s Spec) bySpec(now time.Time) specBody {
	body := specBody{
		IssuerID: s.IssuerID, KeyAlgorithm: s.KeyAlgorithm, Signature: s.Signature, Validity: s.validityBody(now),
		Subject:   subjectBody{s.CommonName, s.Country, s.State, s.Locality, s.Organization, s.OrganizationalUnit},
		KeyUsages: s.KeyUsages, EnterpriseProject: s.EnterpriseProject,
	}
	for _, n := range s.Names {
		body.Names = append(body.Names, nameBody(n))
	}
	for _, u := range s.ExtendedKeyUsages {
		if body.ExtendedKeyUsages == nil {
			body.ExtendedKeyUsages = make(map[string]bool)
		}
		body.ExtendedKeyUsages[u] = true
	}
	if x := s.Extension; x != nil {
		body.Extension = &extensionBody{x.OID, x.Value}
	}
	return body
}

// maxRequest is the longest request that the service takes, in characters (reference 4.3).
const maxRequest = 5120

// maxBackdate is how far back validity may begin (reference 4.2).
const maxBackdate = 5 * time.Minute

// objectIdentifier reads a dotted object identifier; what is none becomes one that no
// encoder takes.
func objectIdentifier(text string) asn1.ObjectIdentifier {
	var id asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			return nil
		}
		id = append(id, n)
	}
	return id
}
