package providers

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/rotatord/rotatord/internal/certs"
)

// Remote names have the form
//
//	rd_<readable>_<owner>_<fingerprint>
//
// with up to 20 letters, digits and underscores that tell a person what it is,
// 8 hexadecimal digits of the owner's hash and 16 of the leaf's SHA-256. That is
// at most 49 characters of [A-Za-z0-9_] with a letter first: inside the rules of
// every service (WAF at most 64, APIG 4 to 50 and a letter first).
const (
	namePrefix        = "rd_"
	maxReadable       = 20
	ownerDigits       = 8
	fingerprintDigits = 16
)

// CertificateName is the deterministic name of the remote object that holds the
// bundle with this leaf for this owner. An object made before a crash is found
// again by it.
func CertificateName(o Owner, f certs.Fingerprint) string {
	return NamePrefix(o) + f.String()[:fingerprintDigits]
}

// Owns reports whether a remote name was made by CertificateName for this owner,
// with whatever leaf.
func Owns(o Owner, name string) bool {
	rest, ok := strings.CutPrefix(name, NamePrefix(o))
	if !ok || len(rest) != fingerprintDigits {
		return false
	}
	return strings.Trim(rest, "0123456789abcdef") == ""
}

// NamePrefix is what the names of all remote objects of an owner begin with: a
// listing filter for services that have one.
func NamePrefix(o Owner) string {
	return namePrefix + readable(o.Certificate) + ownerPart(o)
}

// ownerPart separates owners whose readable parts are equal.
func ownerPart(o Owner) string {
	// The separator cannot occur in a policy name, so no two owners share an input.
	sum := sha256.Sum256([]byte(o.Policy + "/" + o.Certificate))
	return "_" + hex.EncodeToString(sum[:ownerDigits/2]) + "_"
}

func readable(certificate string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r == '*':
			return 'w' // a wildcard stays visible
		default:
			return '_'
		}
	}, certificate)
	if len(clean) > maxReadable {
		clean = clean[:maxReadable]
	}
	return clean
}
