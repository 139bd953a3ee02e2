package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Hash is a shortened SHA-256 that links facts to each other. It decides which
// files are tried together; LoadPair then compares the real keys and signatures.
type Hash [16]byte

// IsZero reports whether there is nothing to link by.
func (h Hash) IsZero() bool { return h == Hash{} }

func hashOf(data []byte) Hash {
	if len(data) == 0 {
		return Hash{}
	}
	sum := sha256.Sum256(data)
	return Hash(sum[:16])
}

// publicKeyHash hashes the numbers of a public key, so that certificate and key
// agree however the certificate encoded it. (Encoding it as DER would cost a
// fifth of reading a file.)
func publicKeyHash(public any) Hash {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if point, err := key.Bytes(); err == nil {
			return hashOf(append(point, "EC"...)) // the length tells the curve
		}
	case ed25519.PublicKey:
		return hashOf(append(slices.Clone(key), "Ed"...))
	case *rsa.PublicKey:
		return hashOf(fmt.Appendf(key.N.Bytes(), "RSA%d", key.E))
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Hash{}
	}
	return hashOf(der)
}

// CertificateFacts is what assembling needs of one certificate. It is immutable
// and shared between all files that hold the same intermediate.
type CertificateFacts struct {
	Info Info
	// Name is the certificate's PrimaryName; may be empty.
	Name                         string
	PublicKey                    Hash
	Subject, Issuer              Hash
	SubjectKeyID, AuthorityKeyID Hash // zero where absent
	IsCA                         bool
	SelfSigned                   bool // by name and key id; the signature was not checked
}

// FactsOf condenses a certificate.
func FactsOf(c *x509.Certificate) *CertificateFacts {
	facts := &CertificateFacts{
		Info:           InfoOf(c),
		Name:           PrimaryName(c),
		PublicKey:      publicKeyHash(c.PublicKey),
		Subject:        hashOf(c.RawSubject),
		Issuer:         hashOf(c.RawIssuer),
		SubjectKeyID:   hashOf(c.SubjectKeyId),
		AuthorityKeyID: hashOf(c.AuthorityKeyId),
		IsCA:           c.BasicConstraintsValid && c.IsCA,
	}
	for i, name := range facts.Info.Names { // one string instead of two
		if name == facts.Name {
			facts.Name = facts.Info.Names[i]
		}
	}
	facts.SelfSigned = facts.issuedBy(facts)
	return facts
}

// issuedBy reports whether names and key ids say that issuer issued f. A key id
// that one side lacks decides nothing (RFC 5280, 4.2.1.1).
func (f *CertificateFacts) issuedBy(issuer *CertificateFacts) bool {
	return f.Issuer == issuer.Subject &&
		(f.AuthorityKeyID.IsZero() || issuer.SubjectKeyID.IsZero() || f.AuthorityKeyID == issuer.SubjectKeyID)
}

// NewerThan orders versions of one certificate: by start, then by end, then by
// fingerprint, so that there is always exactly one newest.
func (i Info) NewerThan(other Info) bool { return i.newer(&other) }

func (i *Info) newer(other *Info) bool {
	if order := i.NotBefore.Compare(other.NotBefore); order != 0 {
		return order > 0
	}
	if order := i.NotAfter.Compare(other.NotAfter); order != 0 {
		return order > 0
	}
	return string(i.Fingerprint[:]) > string(other.Fingerprint[:])
}

// CertificateAt is a certificate at a place in a file.
type CertificateAt struct {
	*CertificateFacts
	// Chain says that it is chain material: a CA, or the issuer of a
	// certificate before it in the same file (as roots of version 1 are).
	Chain bool
	Block int
}

// KeyAt is a private key at a place in a file: of the key itself nothing is
// kept.
type KeyAt struct {
	PublicKey Hash
	Block     int
}

// FileFacts is what one file holds. It is immutable once made. A file with
// Problems contributes nothing to any pair; what could be read of it tells whose
// file is broken.
type FileFacts struct {
	Path         string
	Certificates []CertificateAt
	Keys         []KeyAt
	Problems     []Problem
}

// Empty reports whether there is nothing in the file that matters here.
func (f *FileFacts) Empty() bool {
	return len(f.Certificates) == 0 && len(f.Keys) == 0 && len(f.Problems) == 0
}

// Names lists the primary names of the file's leaves, also of a broken file.
func (f *FileFacts) Names() []string {
	var names []string
	for _, at := range f.Certificates {
		if !at.Chain {
			names = append(names, nameIn(at.CertificateFacts, f.Path))
		}
	}
	return names
}

// nameIn returns the certificate's name; where it has none at all, the file's.
func nameIn(facts *CertificateFacts, path string) string {
	if facts.Name != "" {
		return facts.Name
	}
	base := filepath.Base(path)
	return strings.ToLower(strings.TrimSuffix(base, filepath.Ext(base)))
}

// Reader turns files into facts. It parses an intermediate that many files share
// only once. Safe for concurrent use.
type Reader struct {
	password []byte
	buffers  sync.Pool // of *[]byte, for what is read

	mu          sync.Mutex
	authorities map[Fingerprint]*CertificateFacts
	issuers     map[string]string // the one copy of each issuer's name
}

// maxAuthorities bounds the memory of shared intermediates; beyond it the Reader
// forgets all and learns anew.
const maxAuthorities = 4096

// NewReader returns a Reader that opens encrypted keys with password; empty
// means that there is none.
func NewReader(password []byte) *Reader {
	return &Reader{
		password:    password,
		authorities: make(map[Fingerprint]*CertificateFacts),
		issuers:     make(map[string]string),
	}
}

// Read reads a file; links are followed. Failures are Problems in the facts.
func (r *Reader) Read(path string) *FileFacts {
	buffer, _ := r.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	data, err := readFile(path, *buffer)
	if err != nil {
		problem, ok := errors.AsType[*Problem](err)
		if !ok {
			problem = FileProblem(path, err)
		}
		return &FileFacts{Path: path, Problems: []Problem{*problem}}
	}
	facts := r.Parse(path, data) // which keeps nothing of data
	clear(data)                  // there may be a key in it
	*buffer = data
	r.buffers.Put(buffer)
	return facts
}

// Parse condenses the bytes of a file.
func (r *Reader) Parse(path string, data []byte) *FileFacts {
	facts := &FileFacts{Path: path}
	blocks, problems := scan(data)
	for _, b := range blocks {
		switch b.kind() {
		case kindCertificate:
			certificate, problem := r.certificate(b)
			if problem != nil {
				problems = append(problems, *problem)
				continue
			}
			chain := certificate.IsCA || facts.issuedEarlier(certificate)
			facts.Certificates = append(facts.Certificates, CertificateAt{certificate, chain, b.number})
		case kindKey:
			key, problem := b.key(r.password)
			if problem != nil {
				problems = append(problems, *problem)
				continue
			}
			facts.Keys = append(facts.Keys, KeyAt{publicKeyHash(key.Public()), b.number})
		case kindIgnored:
		}
	}
	for i := range problems {
		problems[i].Path = path
	}
	facts.Problems = problems
	return facts
}

func (f *FileFacts) issuedEarlier(issuer *CertificateFacts) bool {
	for _, at := range f.Certificates {
		if at.Info.Fingerprint != issuer.Info.Fingerprint && at.issuedBy(issuer) {
			return true
		}
	}
	return false
}

func (r *Reader) certificate(b pemBlock) (*CertificateFacts, *Problem) {
	fingerprint := Fingerprint(sha256.Sum256(b.Bytes))
	if b.Type != "TRUSTED CERTIFICATE" {
		r.mu.Lock()
		known := r.authorities[fingerprint]
		r.mu.Unlock()
		if known != nil {
			return known, nil
		}
	}
	certificate, problem := b.certificate()
	if problem != nil {
		return nil, problem
	}
	facts := FactsOf(certificate)
	r.mu.Lock()
	defer r.mu.Unlock()
	if one, ok := r.issuers[facts.Info.IssuerCN]; ok {
		facts.Info.IssuerCN = one
	} else {
		if len(r.issuers) >= maxAuthorities {
			clear(r.issuers)
		}
		r.issuers[facts.Info.IssuerCN] = facts.Info.IssuerCN
	}
	if facts.IsCA {
		if len(r.authorities) >= maxAuthorities {
			clear(r.authorities)
		}
		r.authorities[fingerprint] = facts
	}
	return facts, nil
}
