package certs

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Contents is what one PEM file holds, in file order.
type Contents struct {
	Certificates []CertificateBlock
	Keys         []KeyBlock
	// Ignored are well-formed blocks that are neither: requests, public keys,
	// parameters, revocation lists.
	Ignored []IgnoredBlock
}

// CertificateBlock is a certificate and the number, from 1, of its PEM block.
type CertificateBlock struct {
	Certificate *x509.Certificate
	Block       int
}

// KeyBlock is a private key and the number, from 1, of its PEM block.
type KeyBlock struct {
	Key   PrivateKey
	Block int
}

// IgnoredBlock is the label and the number, from 1, of a block that was skipped.
type IgnoredBlock struct {
	Label string
	Block int
}

// ParsePEM reads every block of a PEM file (RFC 7468, text between blocks is
// allowed). It never guesses: each BEGIN yields a certificate, a key, an ignored
// block or a Problem. Who finds problems should not use the rest: it is there to
// tell whose file is broken.
//
// password opens encrypted keys; empty means that there is none. The problems
// have no Path.
func ParsePEM(data, password []byte) (Contents, []Problem) {
	var contents Contents
	blocks, problems := scan(data)
	for _, b := range blocks {
		switch b.kind() {
		case kindCertificate:
			certificate, problem := b.certificate()
			if problem != nil {
				problems = append(problems, *problem)
				continue
			}
			contents.Certificates = append(contents.Certificates, CertificateBlock{certificate, b.number})
		case kindKey:
			key, problem := b.key(password)
			if problem != nil {
				problems = append(problems, *problem)
				continue
			}
			contents.Keys = append(contents.Keys, KeyBlock{key, b.number})
		default:
			contents.Ignored = append(contents.Ignored, IgnoredBlock{b.Type, b.number})
		}
	}
	return contents, problems
}

// Whoever may write a file that is watched must not keep this host's processors busy with it:
// the work of reading a key grows with the cube of its length, and a megabyte of it takes hours.
const (
	// maxRSA is the longest RSA key, in bits: twice what TLS takes.
	maxRSA = 16384
	// maxKeyBlock is the longest block of a private key, in bytes: one of maxRSA has some 9,400
	// of them, and a wrapping around it.
	maxKeyBlock = 12 << 10
	// maxEncrypted is how many encrypted keys of a file are opened, each of which may take
	// seconds.
	maxEncrypted = 8
)

// pemBlock is a decoded block; number counts BEGIN lines from 1.
type pemBlock struct {
	*pem.Block
	number int
}

type blockKind int

const (
	kindIgnored blockKind = iota
	kindCertificate
	kindKey
)

func (b pemBlock) kind() blockKind {
	switch b.Type {
	case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
		return kindCertificate
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY":
		return kindKey
	}
	return kindIgnored
}

func (b pemBlock) problem(reason Reason, detail string) *Problem {
	return &Problem{Reason: reason, Block: b.number, Detail: detail}
}

// isEncrypted reports whether a password is needed for the block.
func (b pemBlock) isEncrypted() bool {
	return b.Type == "ENCRYPTED PRIVATE KEY" || b.kind() == kindKey && strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED")
}

// certificate parses the block and refuses what no peer of ours would verify.
func (b pemBlock) certificate() (*x509.Certificate, *Problem) {
	if b.Type == "TRUSTED CERTIFICATE" {
		return nil, b.problem(BadCertificate, "TRUSTED CERTIFICATE is OpenSSL's own form; convert it with `openssl x509`")
	}
	certificate, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		detail := strings.TrimPrefix(err.Error(), "x509: ")
		if strings.Contains(detail, "negative serial") {
			detail += " (RFC 5280 wants a positive one; have it issued again)"
		}
		return nil, b.problem(BadCertificate, detail)
	}
	if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 1024 {
		return nil, b.problem(BadCertificate, "RSA key shorter than 1024 bits")
	}
	if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
		return nil, b.problem(BadCertificate, fmt.Sprintf("RSA key longer than %d bits", maxRSA))
	}
	if certificate.PublicKey == nil {
		return nil, b.problem(BadCertificate, "public key algorithm is not supported")
	}
	switch certificate.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		// Nobody checks the signature of a root, so an old one may stay.
		if !bytes.Equal(certificate.RawIssuer, certificate.RawSubject) {
			return nil, b.problem(BadCertificate, "signed with "+certificate.SignatureAlgorithm.String()+", which clients refuse")
		}
	}
	return certificate, nil
}

// key parses the block as a private key. The details are fixed texts: an error
// of a parser may quote what it could not parse.
func (b pemBlock) key(password []byte) (PrivateKey, *Problem) {
	der := b.Bytes
	label := strings.TrimPrefix(b.Type, "ENCRYPTED ")
	encrypted := b.isEncrypted()
	switch {
	case b.Type == "DSA PRIVATE KEY":
		return PrivateKey{}, b.problem(UnsupportedKey, "DSA keys are not supported")
	case len(der) > maxKeyBlock:
		return PrivateKey{}, b.problem(UnsupportedKey, fmt.Sprintf("the key has %d bytes; RSA keys of up to %d bits are supported", len(der), maxRSA))
	}
	if encrypted {
		if len(password) == 0 {
			return PrivateKey{}, b.problem(EncryptedKey, "the key is encrypted and no key password is configured")
		}
		var problem *Problem
		if der, problem = b.decrypt(password); problem != nil {
			return PrivateKey{}, problem
		}
	}
	key, err := parseKey(label, der)
	switch {
	case err == nil:
		return key, nil
	case encrypted:
		// Padding that looks right by chance: one wrong password in 256.
		return PrivateKey{}, b.problem(BadPassword, errBadPassword.Error())
	case strings.Contains(err.Error(), "insecure"):
		return PrivateKey{}, b.problem(BadKey, "RSA key shorter than 1024 bits")
	case strings.Contains(err.Error(), "unknown") || strings.Contains(err.Error(), "not supported"):
		return PrivateKey{}, b.problem(UnsupportedKey, "only RSA, ECDSA P-256, P-384, P-521 and Ed25519 keys are supported")
	}
	return PrivateKey{}, b.problem(BadKey, b.Type+" cannot be parsed")
}

func (b pemBlock) decrypt(password []byte) ([]byte, *Problem) {
	if b.Type != "ENCRYPTED PRIVATE KEY" {
		der, err := x509.DecryptPEMBlock(b.Block, password) //nolint:staticcheck // old files have it; that it is weak harms nobody who only reads
		if err == nil {
			return der, nil
		}
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, b.problem(BadPassword, errBadPassword.Error())
		}
		return nil, b.problem(UnsupportedKey, "the DEK-Info encryption cannot be read")
	}
	der, err := decryptPKCS8(b.Bytes, password, maxIterations)
	switch {
	case err == nil:
		return der, nil
	case errors.Is(err, errBadPassword):
		return nil, b.problem(BadPassword, err.Error())
	case errors.Is(err, errUnsupportedEncryption), errors.Is(err, errTooManyIterations):
		return nil, b.problem(UnsupportedKey, err.Error())
	}
	return nil, b.problem(BadKey, err.Error())
}
