// Package certs knows what a bundle is: it parses PEM strictly, matches keys to
// leaves, orders chains, compares, fingerprints and writes files atomically.
//
// It imports the standard library only and knows nothing of policies, targets
// or the network.
//
// Invariants: a Bundle's key belongs to its leaf; parsing never guesses (a block
// that does not decode is a Problem, not a shorter list); a PrivateKey prints as
// [redacted] whatever it is printed with.
package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"
)

// Fingerprint is the SHA-256 of a leaf certificate's DER: the identity of a
// bundle. The zero Fingerprint means "none" or "not known".
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// ParseFingerprint reads 64 hexadecimal digits, as String writes them.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	if len(s) != 2*len(f) {
		return Fingerprint{}, fmt.Errorf("fingerprint has %d digits, want %d", len(s), 2*len(f))
	}
	if _, err := hex.Decode(f[:], []byte(s)); err != nil {
		return Fingerprint{}, fmt.Errorf("fingerprint: %w", err)
	}
	return f, nil
}

// String returns 64 lower-case hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Short returns the first 12 digits, for people.
func (f Fingerprint) Short() string { return f.String()[:12] }

// IsZero reports whether there is no fingerprint.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// MarshalText writes the digits; nothing for the zero Fingerprint.
func (f Fingerprint) MarshalText() ([]byte, error) {
	if f.IsZero() {
		return nil, nil
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*f = Fingerprint{}
		return nil
	}
	parsed, err := ParseFingerprint(string(text))
	if err != nil {
		return err
	}
	*f = parsed
	return nil
}

// Info is what is kept of a leaf certificate: enough to decide, plan and show,
// small enough for 100,000 of them. It holds no PEM and no key.
type Info struct {
	Fingerprint Fingerprint `json:"fingerprint"`
	// SerialNumber is lower-case hexadecimal without separators.
	SerialNumber string `json:"serial_number"`
	// SubjectCN and IssuerCN are the common names; either may be empty.
	SubjectCN string `json:"subject_cn,omitempty"`
	IssuerCN  string `json:"issuer_cn,omitempty"`
	// Names are the subject alternative names: DNS names in lower case, then IP
	// addresses, e-mail addresses and URIs, each kind sorted.
	Names []string `json:"names,omitempty"`
	// KeyAlgorithm is RSA2048, EC256, Ed25519 and so on.
	KeyAlgorithm string    `json:"key_algorithm"`
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
}

// Bundle is one concrete leaf certificate, its chain and (mostly) its key.
type Bundle struct {
	Leaf *x509.Certificate
	// Chain holds the intermediates, the leaf's issuer first. The root is left
	// out where it was recognised as one.
	Chain []*x509.Certificate
	// Key belongs to Leaf; the zero PrivateKey where the holder of the key is
	// somebody else.
	Key PrivateKey
}

// Fingerprint returns the leaf's fingerprint.
func (b *Bundle) Fingerprint() Fingerprint { return FingerprintOf(b.Leaf) }
