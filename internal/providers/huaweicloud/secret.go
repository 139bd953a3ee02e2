package huaweicloud

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// notInToken reports what no token has in it that can be sent as a header.
func notInToken(r rune) bool { return r <= ' ' || r > '~' }

// Secret is a password, secret key or token. Whatever it is printed, logged or
// marshalled with, it shows as [redacted]. The zero Secret is "none".
type Secret struct {
	// A function and not a string: fmt and reflection based printers cannot look
	// into it.
	read func() (string, error)
}

// SecretText is a secret that is known already.
func SecretText(s string) Secret {
	return Secret{read: func() (string, error) { return s, nil }}
}

// SecretFrom is a secret that is read each time it is needed, so that a file
// which was replaced takes effect without a restart. The function must be safe
// for concurrent use, and its errors must not contain the secret.
func SecretFrom(read func() (string, error)) Secret { return Secret{read: read} }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.read == nil }

// value returns the secret itself; an error if it cannot be read or is empty.
func (s Secret) value() (string, error) {
	if s.read == nil {
		return "", errors.New("no secret is configured")
	}
	text, err := s.read()
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if text == "" {
		return "", errors.New("the secret is empty")
	}
	return text, nil
}

// String returns [redacted].
func (Secret) String() string { return redacted }

// GoString returns [redacted].
func (Secret) GoString() string { return redacted }

// Format writes [redacted] for every verb and flag.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is [redacted].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText writes [redacted]; it serves JSON and YAML too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
