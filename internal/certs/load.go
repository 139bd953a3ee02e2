package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// LoadPair reads a pair's files again and returns the bundle. It fails, with a
// *Problem in the error where a file is to blame, if a file of the leaf or the
// key is broken, if the leaf is no longer the pair's or if no key belongs to it.
// The chain has only certificates whose signatures verify; a further chain file
// that has become unreadable shortens it.
func LoadPair(pair Pair, password []byte) (*Bundle, error) {
	leafFile, err := loadFile(pair.LeafFile, password)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", pair.Certificate, err)
	}
	keyFile := leafFile
	if pair.KeyFile != pair.LeafFile {
		if keyFile, err = loadFile(pair.KeyFile, password); err != nil {
			return nil, fmt.Errorf("load %s: %w", pair.Certificate, err)
		}
	}
	i := slices.IndexFunc(leafFile.Certificates, func(b CertificateBlock) bool {
		return FingerprintOf(b.Certificate) == pair.Info.Fingerprint
	})
	if i < 0 {
		return nil, fmt.Errorf("load %s: %s no longer holds certificate %s", pair.Certificate, pair.LeafFile, pair.Info.Fingerprint.Short())
	}
	leaf := leafFile.Certificates[i].Certificate
	k := slices.IndexFunc(keyFile.Keys, func(b KeyBlock) bool { return b.Key.Matches(leaf) })
	if k < 0 {
		return nil, fmt.Errorf("load %s: %w", pair.Certificate,
			&Problem{Reason: KeyMismatch, Path: pair.KeyFile, Detail: "no key for certificate " + pair.Info.Fingerprint.Short()})
	}
	candidates := leafFile.Certificates
	for _, path := range pair.ChainFiles {
		if chainFile, err := loadFile(path, password); err == nil {
			candidates = append(candidates, chainFile.Certificates...)
		}
	}
	return &Bundle{Leaf: leaf, Chain: verifiedChain(leaf, candidates), Key: keyFile.Keys[k].Key}, nil
}

func loadFile(path string, password []byte) (Contents, error) {
	data, err := ReadFile(path)
	if err != nil {
		return Contents{}, err
	}
	contents, problems := ParsePEM(data, password)
	if len(problems) > 0 {
		problems[0].Path = path
		return Contents{}, &problems[0]
	}
	return contents, nil
}

// verifiedChain walks up from the leaf over candidates that really signed; the
// first in order wins. A self-signed root ends the chain and is left out.
func verifiedChain(leaf *x509.Certificate, candidates []CertificateBlock) []*x509.Certificate {
	var chain []*x509.Certificate
	current := leaf
	for len(chain) < maxChain && !isRoot(current) {
		i := slices.IndexFunc(candidates, func(b CertificateBlock) bool {
			issuer := b.Certificate
			return bytes.Equal(current.RawIssuer, issuer.RawSubject) && !issuer.Equal(current) &&
				!issuer.Equal(leaf) && !slices.ContainsFunc(chain, issuer.Equal) &&
				current.CheckSignatureFrom(issuer) == nil
		})
		if i < 0 || isRoot(candidates[i].Certificate) {
			break
		}
		current = candidates[i].Certificate
		chain = append(chain, current)
	}
	return chain
}

// isRoot reports whether the certificate names itself as issuer. Whether the
// signature holds does not matter: clients do not check it either.
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) &&
		(len(c.AuthorityKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

// ChainProblem reports what is wrong with the order or the signatures of a
// bundle's chain, or nil. It does not look for missing issuers, dates or trust.
func ChainProblem(b *Bundle) error {
	if b.Leaf == nil {
		return errors.New("chain: there is no leaf")
	}
	current := b.Leaf
	for i, issuer := range b.Chain {
		if issuer.Equal(b.Leaf) {
			return fmt.Errorf("chain: certificate %d is the leaf again", i+1)
		}
		if !bytes.Equal(current.RawIssuer, issuer.RawSubject) {
			return fmt.Errorf("chain: certificate %d (%s) is not the issuer of %s", i+1, issuer.Subject, current.Subject)
		}
		if err := current.CheckSignatureFrom(issuer); err != nil {
			return fmt.Errorf("chain: certificate %d (%s) did not sign %s: %w", i+1, issuer.Subject, current.Subject, err)
		}
		current = issuer
	}
	return nil
}

// CertificatePEM returns the leaf as PEM, with one trailing newline.
func (b *Bundle) CertificatePEM() []byte { return encode(b.Leaf) }

// ChainPEM returns the intermediates as PEM, the leaf's issuer first; empty if
// there are none.
func (b *Bundle) ChainPEM() []byte { return encode(b.Chain...) }

// FullChainPEM returns the leaf and then the intermediates as PEM.
func (b *Bundle) FullChainPEM() []byte { return append(b.CertificatePEM(), b.ChainPEM()...) }

func encode(certificates ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certificates {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer does not fail
	}
	return out.Bytes()
}
