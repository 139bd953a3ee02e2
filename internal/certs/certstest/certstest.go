// Package certstest makes certificates and lays them out on disk as the usual
// tools do: for tests of the whole project and for `rotatord demo`.
//
// It may import the standard library and internal/certs, and not testing.
//
// Invariants: every bundle verifies against its CA's RootPEM; the writers do
// their steps in the order, and with the system calls, of the tool they imitate.
package certstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// KeyType is the algorithm of an issued certificate's key.
type KeyType int

// The key types; the zero value is EC256.
const (
	EC256 KeyType = iota
	EC384
	RSA2048
	Ed25519
)

// CA is a root and one intermediate that issues. Safe for concurrent use.
type CA struct {
	root, intermediate *x509.Certificate
	key                *ecdsa.PrivateKey // of the intermediate
}

// Options describe a certificate to issue.
type Options struct {
	// Names are DNS names, IP addresses, mail addresses or URIs, in order.
	Names []string
	// CommonName is the subject's; empty means the first name.
	CommonName string
	// NoCommonName leaves the subject empty.
	NoCommonName bool
	// NotBefore defaults to an hour ago, NotAfter to 90 days after NotBefore.
	NotBefore, NotAfter time.Time
	KeyType             KeyType
	// Key is used instead of a new one, as for a renewal that keeps the key.
	Key crypto.Signer
}

// NewCA makes a CA whose certificates are valid for ten years either side of
// now, so that expired and future leaves can be issued.
func NewCA(name string) (*CA, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	root, err := authority(name+" root", nil, nil, rootKey)
	if err != nil {
		return nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	intermediate, err := authority(name+" intermediate", root, rootKey, key)
	if err != nil {
		return nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	return &CA{root: root, intermediate: intermediate, key: key}, nil
}

// authority makes a CA certificate for key; it signs itself where parent is nil.
func authority(name string, parent *x509.Certificate, parentKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{"rotatord"}},
		NotBefore:             time.Now().AddDate(-10, 0, 0),
		NotAfter:              time.Now().AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Root returns the root certificate.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Intermediate returns the issuing certificate.
func (ca *CA) Intermediate() *x509.Certificate { return ca.intermediate }

// RootPEM returns the root as PEM: what a client trusts.
func (ca *CA) RootPEM() []byte { return encode(ca.root.Raw) }

// IntermediatePEM returns the issuing certificate as PEM.
func (ca *CA) IntermediatePEM() []byte { return encode(ca.intermediate.Raw) }

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Issue issues a server certificate with its chain (the intermediate) and key.
func (ca *CA) Issue(options Options) (*certs.Bundle, error) {
	signer := options.Key
	if signer == nil {
		var err error
		if signer, err = newKey(options.KeyType); err != nil {
			return nil, fmt.Errorf("issue certificate: make key: %w", err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, options.template(), ca.intermediate, signer.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	key, err := certs.NewPrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return &certs.Bundle{Leaf: leaf, Chain: []*x509.Certificate{ca.intermediate}, Key: key}, nil
}

// Sign issues a server certificate for a request's public key, with its chain
// and without key: what a CA does that never sees the key.
func (ca *CA) Sign(request *x509.CertificateRequest, options Options) (*certs.Bundle, error) {
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, options.template(), ca.intermediate, request.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return &certs.Bundle{Leaf: leaf, Chain: []*x509.Certificate{ca.intermediate}}, nil
}

func (o Options) template() *x509.Certificate {
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-time.Hour)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = o.NotBefore.AddDate(0, 0, 90)
	}
	if o.CommonName == "" && len(o.Names) > 0 && !o.NoCommonName {
		o.CommonName = o.Names[0]
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: o.CommonName},
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range o.Names {
		address, addressErr := netip.ParseAddr(name)
		uri, uriErr := url.Parse(name)
		switch {
		case addressErr == nil:
			template.IPAddresses = append(template.IPAddresses, address.AsSlice())
		case uriErr == nil && uri.Scheme != "":
			template.URIs = append(template.URIs, uri)
		case strings.Contains(name, "@"):
			template.EmailAddresses = append(template.EmailAddresses, name)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case EC256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EC384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key type %d", kind)
}
