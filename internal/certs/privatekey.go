package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// PrivateKey holds a private key and prints as [redacted], whatever it is
// printed with. The zero PrivateKey means "none" and prints as [none].
//
// It is a value that may be copied and used from several goroutines.
type PrivateKey struct {
	// A pointer to an interface, because fmt does not ask for methods where an
	// enclosing struct has the key in an unexported field, and follows pointers
	// to structs and slices for a verb that does not fit; this it shows as an
	// address, whatever the verb.
	hidden *crypto.Signer
}

// KeyForm says how a key is written as PEM.
type KeyForm int

const (
	// PKCS8 is "PRIVATE KEY" (RFC 5958) for every algorithm.
	PKCS8 KeyForm = iota
	// Traditional is "RSA PRIVATE KEY" (PKCS #1, RFC 8017) or "EC PRIVATE KEY"
	// (SEC 1, RFC 5915). Ed25519 has no such form and is written as PKCS #8.
	Traditional
)

// NewPrivateKey wraps an RSA, ECDSA or Ed25519 key. Its error never tells
// anything of the key but its type.
func NewPrivateKey(signer crypto.Signer) (PrivateKey, error) {
	switch key := signer.(type) {
	case *rsa.PrivateKey:
		if key == nil {
			return PrivateKey{}, errors.New("private key is nil")
		}
	case *ecdsa.PrivateKey:
		if key == nil {
			return PrivateKey{}, errors.New("private key is nil")
		}
	case ed25519.PrivateKey:
		if len(key) != ed25519.PrivateKeySize {
			return PrivateKey{}, errors.New("ed25519 private key has the wrong length")
		}
	case nil:
		return PrivateKey{}, errors.New("private key is nil")
	default:
		return PrivateKey{}, fmt.Errorf("private key of type %T is not supported", signer)
	}
	return PrivateKey{hidden: &signer}, nil
}

// IsZero reports whether there is no key.
func (k PrivateKey) IsZero() bool { return k.hidden == nil }

// Public returns the public half; nil for the zero PrivateKey.
func (k PrivateKey) Public() crypto.PublicKey {
	if k.hidden == nil {
		return nil
	}
	return (*k.hidden).Public()
}

// Signer returns the key itself, for signing and TLS; nil for the zero
// PrivateKey. The caller must not print it.
func (k PrivateKey) Signer() crypto.Signer {
	if k.hidden == nil {
		return nil
	}
	return *k.hidden
}

// PEM returns the key as one unencrypted PEM block with a trailing newline.
func (k PrivateKey) PEM(form KeyForm) ([]byte, error) {
	if k.hidden == nil {
		return nil, errors.New("encode private key: there is no key")
	}
	block, err := k.block(form)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

func (k PrivateKey) block(form KeyForm) (*pem.Block, error) {
	if form == Traditional {
		switch key := (*k.hidden).(type) {
		case *rsa.PrivateKey:
			return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}, nil
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(key)
			return &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}, err
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(*k.hidden)
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, err
}

// Matches reports whether the key belongs to the certificate.
func (k PrivateKey) Matches(c *x509.Certificate) bool {
	public, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// String returns [redacted].
func (k PrivateKey) String() string {
	if k.hidden == nil {
		return "[none]"
	}
	return "[redacted]"
}

// GoString returns [redacted].
func (k PrivateKey) GoString() string { return k.String() }

// Format writes [redacted] for every verb and flag.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue returns [redacted].
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns [redacted].
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON returns "[redacted]".
func (k PrivateKey) MarshalJSON() ([]byte, error) { return []byte(`"` + k.String() + `"`), nil }
