package privateca

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Where the key of a certificate is held.
const (
	// HeldLocal: it is made on this host, and a request with the public half is sent.
	HeldLocal = "local"
	// HeldCloud: the service makes and keeps it, and gives it out when asked.
	HeldCloud = "cloud"
)

// The kinds of an alternative name.
const (
	DNS   = "DNS"
	IP    = "IP"
	EMAIL = "EMAIL"
	URI   = "URI"
)

// The units of a validity.
const (
	Year  = "YEAR"  // 12 months
	Month = "MONTH" // 31 days
	Day   = "DAY"
	Hour  = "HOUR"
)

// Spec is what a policy asks for. Two Specs with the same digest (see Issuer.Asks) ask
// for the same: the order of names and usages, and Backdate, do not matter, nor does
// Signature where the key is held locally, since the service then leaves no choice.
type Spec struct {
	// IssuerID is the id of the CA.
	IssuerID string
	// CommonName and what follows are the subject; what is empty is left to the service,
	// which takes it from the CA's own.
	CommonName         string
	Country            string
	State              string
	Locality           string
	Organization       string
	OrganizationalUnit string
	// Names are the alternative names. The service does not add the common name to them.
	Names []Name
	// KeyAlgorithm is RSA2048, RSA4096, EC256 or EC384.
	KeyAlgorithm string
	// Signature is the hash, SHA256, SHA384 or SHA512. With HeldLocal the service always
	// takes SHA384 (reference 4.3), and it may be empty.
	Signature string
	Validity  Validity
	// Backdate is how far the beginning of validity lies in the past, at most 5 min;
	// 0: the service decides.
	Backdate time.Duration
	// KeyUsages are those of RFC 5280 by their names there; none: the service decides.
	KeyUsages []string
	// ExtendedKeyUsages are server_auth, client_auth, code_signing, email_protection and
	// time_stamping; none: the service decides.
	ExtendedKeyUsages []string
	// Extension is one extension of the policy's own; nil: none.
	Extension *Extension
	// Held is HeldLocal or HeldCloud.
	Held string
	// EnterpriseProject is "0", a UUID, or empty: nothing is sent.
	EnterpriseProject string
}

// Name is an alternative name with its kind: DNS, IP, EMAIL or URI.
type Name struct {
	Type  string
	Value string
}

// Validity is a number of Year, Month, Day or Hour.
type Validity struct {
	Type  string
	Value int
}

// Extension is a custom extension: an object identifier in dot-decimal form, and a text.
type Extension struct {
	OID   string
	Value string
}

var (
	keyAlgorithms = []string{"RSA2048", "RSA4096", "EC256", "EC384"}
	units         = []string{Year, Month, Day, Hour}
)

// incomplete says what no request could be made without. Everything else that the service
// would refuse is found where policies are read, with the line in which it stands.
func (s Spec) incomplete() error {
	switch {
	case s.IssuerID == "" || s.CommonName == "":
		return errors.New("want the id of a CA and a common name")
	case !slices.Contains(keyAlgorithms, s.KeyAlgorithm):
		return fmt.Errorf("key algorithm %q", s.KeyAlgorithm)
	case !slices.Contains(units, s.Validity.Type) || s.Validity.Value < 1:
		return fmt.Errorf("validity %d %s", s.Validity.Value, s.Validity.Type)
	case s.Held != HeldLocal && s.Held != HeldCloud:
		return fmt.Errorf("key held by %q", s.Held)
	case s.Extension != nil && objectIdentifier(s.Extension.OID) == nil:
		return fmt.Errorf("extension %q", s.Extension.OID)
	}
	return nil
}

// canonical returns the name in the form in which equal names are equal.
func (n Name) canonical() Name {
	switch n.Type {
	case DNS:
		n.Value = strings.ToLower(n.Value)
	case IP:
		if a, err := netip.ParseAddr(n.Value); err == nil {
			n.Value = a.Unmap().String()
		}
	case EMAIL:
		if at := strings.LastIndexByte(n.Value, '@'); at >= 0 {
			n.Value = n.Value[:at] + strings.ToLower(n.Value[at:])
		}
	case URI:
		if u, err := url.Parse(n.Value); err == nil {
			n.Value = u.String()
		}
	}
	return n
}

// canonical returns the names sorted, each once, in their canonical forms.
func canonicalNames(names []Name) []Name {
	var all []Name
	for _, n := range names {
		all = append(all, n.canonical())
	}
	slices.SortFunc(all, func(a, b Name) int {
		return strings.Compare(a.Type+":"+a.Value, b.Type+":"+b.Value)
	})
	return slices.Compact(all)
}

// canonical writes whole days as such: an old text of the service knows no hours
// (reference 11, doubt 19).
func (v Validity) canonical() Validity {
	if v.Type == Hour && v.Value > 0 && v.Value%24 == 0 {
		return Validity{Day, v.Value / 24}
	}
	return v
}

// end is when a certificate that begins at start ends.
func (v Validity) end(start time.Time) time.Time {
	switch v.Type {
	case Year:
		return start.AddDate(v.Value, 0, 0)
	case Month:
		return start.Add(time.Duration(v.Value) * 31 * day)
	case Day:
		return start.Add(time.Duration(v.Value) * day)
	}
	return start.Add(time.Duration(v.Value) * time.Hour)
}

const day = 24 * time.Hour

// digest is the same for Specs that ask for the same.
func (s Spec) digest() string {
	s.Names = canonicalNames(s.Names)
	s.KeyUsages = sortedOnce(s.KeyUsages)
	s.ExtendedKeyUsages = sortedOnce(s.ExtendedKeyUsages)
	s.Validity = s.Validity.canonical()
	s.Backdate = 0
	if s.Held == HeldLocal {
		s.Signature = ""
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic("privateca: a Spec cannot be encoded: " + err.Error()) // strings and numbers only
	}
	sum := sha256.Sum256(append([]byte("private_ca 1 "), text...))
	return hex.EncodeToString(sum[:16])
}

// sortedOnce returns the texts sorted, each once; nil for none.
func sortedOnce(texts []string) []string {
	if len(texts) == 0 {
		return nil
	}
	texts = slices.Clone(texts)
	slices.Sort(texts)
	return slices.Compact(texts)
}
