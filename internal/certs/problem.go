package certs

import (
	"strconv"
	"strings"
)

// Reason is why a file or a pair cannot be used: a closed set (see Reasons), fit
// for a metric label.
type Reason string

// The reasons, from the file inwards.
const (
	Unreadable     Reason = "unreadable"      // cannot be opened or read, or is no regular file
	SymlinkLoop    Reason = "symlink_loop"    // a symbolic link that leads to itself
	TooLarge       Reason = "too_large"       // larger than MaxFileSize
	NotPEM         Reason = "not_pem"         // no PEM block, or PEM that was folded or indented
	Truncated      Reason = "truncated"       // a BEGIN without its END, or the reverse
	BadBlock       Reason = "bad_block"       // a complete block that is not base64
	BadCertificate Reason = "bad_certificate" // a certificate that cannot be parsed or is refused
	BadKey         Reason = "bad_key"         // a private key that cannot be parsed
	UnsupportedKey Reason = "unsupported_key" // a kind of key or of encryption that is not known
	EncryptedKey   Reason = "encrypted_key"   // an encrypted key, and no password is configured
	BadPassword    Reason = "bad_password"    // the configured password does not open the key
	KeyMismatch    Reason = "key_mismatch"    // a leaf beside a key that belongs to nothing
	NoKey          Reason = "no_key"          // a leaf without any key
	NoCertificate  Reason = "no_certificate"  // a key whose leaf has gone
)

// Reasons returns every Reason, in a fixed order: for pre-creating metric
// series.
func Reasons() []Reason {
	return []Reason{
		Unreadable, SymlinkLoop, TooLarge, NotPEM, Truncated, BadBlock, BadCertificate, BadKey,
		UnsupportedKey, EncryptedKey, BadPassword, KeyMismatch, NoKey, NoCertificate,
	}
}

// Problem is one reason why a file, a block of it or a pair cannot be used. It
// is an error and never holds content of the file beyond a PEM label.
type Problem struct {
	Reason Reason `json:"reason"`
	// Path is the file; empty where the bytes came from elsewhere.
	Path string `json:"path,omitempty"`
	// Block counts PEM blocks from 1; 0 means the whole file.
	Block int `json:"block,omitempty"`
	// Detail says more, for people, in words that may change.
	Detail string `json:"detail,omitempty"`
}

// Error returns for instance
// "/dir/shop.pem: block 2: truncated: BEGIN CERTIFICATE without a matching END".
func (p Problem) Error() string {
	parts := make([]string, 0, 4)
	if p.Path != "" {
		parts = append(parts, p.Path)
	}
	if p.Block > 0 {
		parts = append(parts, "block "+strconv.Itoa(p.Block))
	}
	parts = append(parts, string(p.Reason))
	if p.Detail != "" {
		parts = append(parts, p.Detail)
	}
	return strings.Join(parts, ": ")
}
