package cloudsim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
)

// What WAF takes as PEM: reference 7.3 and [S003] table 3.

// material is an uploaded pair after the checks.
type material struct {
	content, key string // as they were uploaded
	chain        []*x509.Certificate
	signer       crypto.Signer
	matches      bool // key and leaf belong together
}

// parseMaterial checks what is checked without verify_cert_key: the form of both, not that they belong together
// (reference 2.2, "Verification depth").
func parseMaterial(content, key string, tolerateKeyForm bool) (*material, error) {
	chain, err := parseChain(content)
	if err != nil {
		return nil, err
	}
	signer, err := parseKey(key, tolerateKeyForm)
	if err != nil {
		return nil, err
	}
	return newMaterial(content, key, chain, signer), nil
}

func newMaterial(content, key string, chain []*x509.Certificate, signer crypto.Signer) *material {
	m := &material{content: content, key: key, chain: chain, signer: signer}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	m.matches = ok && public.Equal(chain[0].PublicKey)
	return m
}

// parseChain wants PEM certificates and nothing else, the leaf first and then each one's issuer [OTC-D faq incomplete
// chain]. A chain that ends early is accepted (same page), and signatures are not checked (reference 2.2).
func parseChain(content string) ([]*x509.Certificate, error) {
	chain, err := parseCertificates(content)
	if err != nil {
		return nil, err
	}
	return chain, chainOrder(chain)
}

func parseCertificates(content string) ([]*x509.Certificate, error) {
	blocks, err := parseBlocks(content)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, errors.New("the certificate file holds a block that is no certificate")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("the certificate file holds a broken certificate")
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

func chainOrder(chain []*x509.Certificate) error {
	for i, cert := range chain[1:] {
		if !bytes.Equal(chain[i].RawIssuer, cert.RawSubject) {
			return errors.New("the certificate chain is not in order: leaf first, then each one's issuer")
		}
	}
	if len(chain) > 1 && chain[0].IsCA {
		return errors.New("the certificate chain does not start with the leaf")
	}
	return nil
}

// parseKey wants one unencrypted PEM block: RSA in PKCS#1 or EC in SEC 1. PKCS#8 is refused ([HW CCM FAQ]; the seed's
// own example sends it, so tolerate accepts it). Ed25519 is not mentioned anywhere and refused always.
func parseKey(key string, tolerate bool) (crypto.Signer, error) {
	blocks, err := parseBlocks(key)
	if err != nil {
		return nil, err
	}
	block := blocks[0]
	switch {
	case len(blocks) > 1:
		return nil, errors.New("the private key file holds more than one block")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["Proc-Type"] != "":
		return nil, errors.New("the private key is encrypted")
	case block.Type == "PRIVATE KEY" && !tolerate:
		return nil, errors.New("incorrect private key format: PKCS#8 is not supported")
	}
	var signer any
	switch block.Type {
	case "RSA PRIVATE KEY":
		signer, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		signer, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		signer, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, errors.New("the private key file holds a block that is no private key")
	}
	if err != nil {
		return nil, errors.New("the private key is broken")
	}
	switch typed := signer.(type) {
	case *rsa.PrivateKey:
		return typed, nil
	case *ecdsa.PrivateKey:
		return typed, nil
	}
	return nil, errors.New("the private key is neither RSA nor EC")
}

// parseBlocks returns the PEM blocks of text, at least one, and refuses everything around them: bag attributes and
// comments are for the caller to strip, and line ends are \n (reference 7.3, [S003]).
func parseBlocks(text string) ([]*pem.Block, error) {
	if strings.Contains(text, "\r") {
		return nil, errors.New("line ends must be \\n")
	}
	var blocks []*pem.Block
	rest := []byte(strings.TrimSpace(text))
	for len(rest) > 0 {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, errors.New("the file is not PEM, or something stands around the PEM blocks")
		}
		block, after := pem.Decode(rest)
		// pem.Decode skips a broken block and takes the next one: then more than one BEGIN was eaten.
		if block == nil || bytes.Count(rest[:len(rest)-len(after)], []byte("-----BEGIN ")) != 1 {
			return nil, errors.New("the PEM is broken")
		}
		blocks = append(blocks, block)
		rest = bytes.TrimSpace(after)
	}
	if len(blocks) == 0 {
		return nil, errors.New("the file is empty")
	}
	return blocks, nil
}

// fingerprint is the lower-case hex SHA-256 of the leaf.
func (m *material) fingerprint() string {
	sum := sha256.Sum256(m.chain[0].Raw)
	return hex.EncodeToString(sum[:])
}

// sameContent tells whether two uploads hold the same certificates, however the PEM is laid out.
func (m *material) sameContent(other *material) bool {
	if len(m.chain) != len(other.chain) {
		return false
	}
	for i, cert := range m.chain {
		if !cert.Equal(other.chain[i]) {
			return false
		}
	}
	return true
}

// served is the pair as an edge uses it; nil when the key does not match, for then no handshake can succeed.
func (m *material) served() *tls.Certificate {
	if !m.matches {
		return nil
	}
	cert := &tls.Certificate{PrivateKey: m.signer, Leaf: m.chain[0]}
	for _, c := range m.chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// reflowed is PEM with each body on one line, as the example answer of [S003] shows it: the same certificates, other
// bytes.
func reflowed(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if strings.Contains(text, ": ") {
		return text // PEM headers live in lines of their own
	}
	var b strings.Builder
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "-----BEGIN "):
			b.WriteString(line + "\n")
		case strings.HasPrefix(line, "-----END "):
			b.WriteString("\n" + line + "\n")
		default:
			b.WriteString(strings.TrimSpace(line))
		}
	}
	return strings.TrimSpace(b.String())
}
