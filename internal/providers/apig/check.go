package apig

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rsa"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// latestExpiry is what the service takes (reference 7.3).
var latestExpiry = time.Date(2038, 1, 19, 3, 14, 7, 0, time.UTC)

// check refuses a bundle that the service would refuse, before anything is sent. The
// codes are those that the service would give (reference 6.3).
func check(b *certs.Bundle, endpoints []string, now time.Time) error {
	refuse := func(format string, args ...any) error {
		return fail(providers.KindInvalid, opStage, format, args...)
	}
	if b == nil || b.Leaf == nil {
		return refuse("there is no certificate")
	}
	leaf := b.Leaf
	switch {
	case b.Key.IsZero():
		return refuse("the bundle has no private key")
	case !b.Key.Matches(leaf):
		return refuse("the private key does not belong to the certificate (APIG.2101)")
	case algorithmOf(b) == "":
		return refuse("API Gateway takes RSA and EC keys, this one is %s", b.Info().KeyAlgorithm)
	case now.After(leaf.NotAfter):
		return refuse("the certificate expired at %s (APIG.2102)", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotAfter.After(latestExpiry):
		return refuse("the certificate expires at %s; API Gateway takes none that expires after %s (APIG.3148)",
			leaf.NotAfter.UTC().Format(time.RFC3339), latestExpiry.Format(time.RFC3339))
	case len(b.Info().Names) == 0:
		return refuse("the certificate has no subject alternative names (APIG.2109)")
	}
	if err := certs.ChainProblem(b); err != nil {
		return refuse("%v (APIG.2104)", err)
	}
	if lost := uncovered(b.Info(), endpoints); len(lost) > 0 {
		return refuse("the certificate does not cover %s (APIG.2103)", strings.Join(lost, ", "))
	}
	return nil
}

// uncovered are the domains that the leaf may not serve. Ids tell nothing here.
func uncovered(leaf certs.Info, domains []string) []string {
	var lost []string
	for _, d := range domains {
		if !isID(d) && !leaf.Covers(d) {
			lost = append(lost, d)
		}
	}
	return lost
}

// isID reports whether an endpoint is given by its id: 32 letters or digits. No domain
// name has that form, since it has a dot.
func isID(s string) bool {
	return len(s) == 32 && strings.Trim(strings.ToLower(s), "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// The algorithm types of a certificate (reference 3.2); SM2 is not ours.
const (
	rsaType = "RSA"
	eccType = "ECC"
)

// algorithmOf is the service's name for the kind of the bundle's key; empty for one
// that it does not take.
func algorithmOf(b *certs.Bundle) string {
	switch b.Key.Public().(type) {
	case *rsa.PublicKey:
		return rsaType
	case *ecdsa.PublicKey:
		return eccType
	}
	return ""
}

// algorithmNamed is the same for certs.Info.
func algorithmNamed(info certs.Info) string {
	switch {
	case strings.HasPrefix(info.KeyAlgorithm, "RSA"):
		return rsaType
	case strings.HasPrefix(info.KeyAlgorithm, "EC"):
		return eccType
	}
	return ""
}

// formOf writes the bundle as a new object of this Target's scope: leaf first, no
// root, no white space around, the key in its traditional form (reference 7.3).
func (t *Target) formOf(name string, b *certs.Bundle) (form, error) {
	if !validName(name) {
		return form{}, fail(providers.KindInvalid, opStage, "%q is no name for a certificate: want a letter, then 3 to 49 letters, digits and _", name)
	}
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		return form{}, fail(providers.KindInvalid, opStage, "the private key cannot be encoded")
	}
	f := form{Name: name, Content: trimmed(b.FullChainPEM()), Key: trimmed(key), Type: t.scope}
	if t.scope == ScopeInstance {
		f.InstanceID = t.instance
	}
	return f, nil
}

func trimmed(pem []byte) string {
	return strings.TrimSpace(strings.ReplaceAll(string(pem), "\r\n", "\n"))
}

func validName(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	return len(s) >= 4 && len(s) <= 50 && strings.Contains(letters, s[:1]) && strings.Trim(s, letters+"0123456789_") == ""
}

// trustedCA reads the configured CA; empty for none.
func (t *Target) trustedCA() (string, error) {
	if t.ca == nil {
		return "", nil
	}
	pem, err := t.ca()
	if err != nil {
		return "", &providers.Error{Kind: providers.KindInvalid, Service: huaweicloud.APIG, Op: "read the trusted root CA", Err: err}
	}
	text := trimmed(pem)
	if text != "" && !strings.Contains(text, "-----BEGIN CERTIFICATE-----") || strings.Contains(text, "PRIVATE KEY-----") {
		return "", fail(providers.KindInvalid, "read the trusted root CA", "trusted_root_ca_file wants certificates as PEM, and nothing else")
	}
	return text, nil
}

// missingCA explains why a certificate object with a CA is not replaced without.
func missingCA(op string, c certificate) error {
	return fail(providers.KindInvalid, op, "certificate %s (%s) holds a CA that clients are checked against, which API Gateway does not show and may drop "+
		"when the certificate is replaced; set trusted_root_ca_file to that CA", c.ID, cmp.Or(string(c.Name), "no name"))
}
