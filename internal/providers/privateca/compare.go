package privateca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// problems are differences, each in words.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// differences tells how a certificate differs from what was asked for, in words; nil if
// in nothing that matters. made is when the service says that it was issued, zero where
// it does not tell. Whose key it is for is looked at elsewhere.
func (s Spec) differences(e exported, made time.Time) []string {
	var p problems
	s.compareSubject(&p, e.leaf)
	s.compareNames(&p, e.leaf)
	s.compareKey(&p, e.leaf)
	s.compareUsages(&p, e.leaf)
	s.compareExtension(&p, e.leaf)
	s.compareValidity(&p, e.leaf, made)
	if e.leaf.IsCA {
		p.add("asked for a certificate that signs no others, got that of a CA")
	}
	if e.problem != "" {
		p.add("chain: %s", e.problem)
	}
	return p
}

// differs notes a difference.
func (p *problems) differs(what, asked, got string) {
	if got == "" {
		got = "none"
	}
	p.add("%s: asked for %s, got %s", what, asked, got)
}

func (s Spec) compareSubject(p *problems, leaf *x509.Certificate) {
	got := leaf.Subject
	for _, part := range []struct {
		what, asked string
		got         []string
	}{
		{"common name", s.CommonName, []string{got.CommonName}},
		{"state", s.State, got.Province},
		{"locality", s.Locality, got.Locality},
		{"organization", s.Organization, got.Organization},
		{"organizational unit", s.OrganizationalUnit, got.OrganizationalUnit},
	} {
		if part.asked != "" && !slices.Equal(part.got, []string{part.asked}) {
			p.differs(part.what, fmt.Sprintf("%q", part.asked), quoted(part.got))
		}
	}
	if s.Country != "" && (len(got.Country) != 1 || !strings.EqualFold(got.Country[0], s.Country)) {
		p.differs("country", fmt.Sprintf("%q", s.Country), quoted(got.Country))
	}
}

func quoted(texts []string) string {
	var all []string
	for _, t := range texts {
		if t != "" {
			all = append(all, fmt.Sprintf("%q", t))
		}
	}
	return strings.Join(all, ", ")
}

// compareNames takes names as sets. That the common name may be among them although
// nobody asked for it changes nothing: it is in the certificate anyway.
func (s Spec) compareNames(p *problems, leaf *x509.Certificate) {
	asked, got := canonicalNames(s.Names), namesOf(leaf)
	extra := Name{DNS, s.CommonName}.canonical()
	if !slices.Contains(asked, extra) {
		got = slices.DeleteFunc(got, func(n Name) bool { return n == extra })
	}
	if !slices.Equal(asked, got) {
		p.differs("names", listNames(asked), listNames(got))
	}
}

func namesOf(leaf *x509.Certificate) []Name {
	var names []Name
	for _, n := range leaf.DNSNames {
		names = append(names, Name{DNS, n})
	}
	for _, a := range leaf.IPAddresses {
		if address, ok := netip.AddrFromSlice(a); ok {
			names = append(names, Name{IP, address.String()})
		}
	}
	for _, m := range leaf.EmailAddresses {
		names = append(names, Name{EMAIL, m})
	}
	for _, u := range leaf.URIs {
		names = append(names, Name{URI, u.String()})
	}
	return canonicalNames(names)
}

func listNames(names []Name) string {
	var all []string
	for _, n := range names {
		all = append(all, strings.ToLower(n.Type)+":"+n.Value)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, " ")
}

func (s Spec) compareKey(p *problems, leaf *x509.Certificate) {
	if got := certs.KeyAlgorithm(leaf.PublicKey); got != s.KeyAlgorithm {
		p.differs("key algorithm", s.KeyAlgorithm, got)
	}
	// For a request the service leaves no choice (reference 4.3).
	if got := hashOf(leaf.SignatureAlgorithm); s.Held == HeldCloud && got != s.Signature {
		p.differs("signature", s.Signature, got)
	}
}

func hashOf(a x509.SignatureAlgorithm) string {
	switch a {
	case x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256:
		return "SHA256"
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		return "SHA384"
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		return "SHA512"
	}
	return a.String()
}

func (s Spec) compareUsages(p *problems, leaf *x509.Certificate) {
	if len(s.KeyUsages) > 0 && leaf.KeyUsage != s.keyUsage() {
		var got []string
		for _, u := range usages {
			if leaf.KeyUsage&u.bit != 0 {
				got = append(got, u.name)
			}
		}
		p.differs("key usages", strings.Join(sortedOnce(s.KeyUsages), " "), strings.Join(sortedOnce(got), " "))
	}
	if len(s.ExtendedKeyUsages) == 0 {
		return
	}
	var got []string
	for _, have := range leaf.ExtKeyUsage {
		at := slices.IndexFunc(extendedUsages, func(u extendedUsage) bool { return u.usage == have })
		if at < 0 {
			got = append(got, fmt.Sprintf("number-%d", have))
			continue
		}
		got = append(got, extendedUsages[at].name)
	}
	for _, id := range leaf.UnknownExtKeyUsage {
		got = append(got, id.String())
	}
	if asked := sortedOnce(s.ExtendedKeyUsages); !slices.Equal(asked, sortedOnce(got)) {
		p.differs("extended key usages", strings.Join(asked, " "), strings.Join(sortedOnce(got), " "))
	}
}

// compareExtension looks for the text in the extension: in which ASN.1 type the service
// puts it is not documented.
func (s Spec) compareExtension(p *problems, leaf *x509.Certificate) {
	if s.Extension == nil {
		return
	}
	id := objectIdentifier(s.Extension.OID)
	for _, x := range leaf.Extensions {
		if !x.Id.Equal(id) {
			continue
		}
		if !holds(x.Value, s.Extension.Value) {
			p.add("custom extension %s: it does not hold the value %q", s.Extension.OID, s.Extension.Value)
		}
		return
	}
	p.add("custom extension %s: asked for it, and it is not there", s.Extension.OID)
}

// holds reports whether the value of an extension is the text, bare or as any ASN.1 type
// around its bytes, once or twice.
func holds(value []byte, text string) bool {
	for range 3 {
		if string(value) == text {
			return true
		}
		var inner asn1.RawValue
		rest, err := asn1.Unmarshal(value, &inner)
		if err != nil || len(rest) > 0 {
			return false
		}
		if inner.Class == asn1.ClassUniversal && inner.Tag == asn1.TagBMPString {
			return bytes.Equal(inner.Bytes, utf16Of(text))
		}
		value = inner.Bytes
	}
	return false
}

func utf16Of(text string) []byte {
	var b []byte
	for _, r := range text {
		b = append(b, byte(r>>8), byte(r)) //nolint:gosec // BMPString has no others
	}
	return b
}

// compareValidity allows for what a unit may mean (a year has 365 days or 12 months of
// 31), and for a service that rounds.
func (s Spec) compareValidity(p *problems, leaf *x509.Certificate, made time.Time) {
	least, most := s.Validity.span()
	slack := min(max(least/10, 10*time.Minute), 48*time.Hour)
	if got := leaf.NotAfter.Sub(leaf.NotBefore); got < least-slack || got > most+slack {
		p.differs("validity", fmt.Sprintf("%d %s", s.Validity.Value, s.Validity.Type), fmt.Sprintf("%s (%s to %s)",
			roughly(got), leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339)))
	}
	if made.IsZero() {
		return
	}
	if begin := leaf.NotBefore; begin.After(made.Add(10*time.Minute)) || begin.Before(made.Add(-24*time.Hour)) {
		p.differs("beginning of validity", made.Format(time.RFC3339), begin.UTC().Format(time.RFC3339))
	}
}

// span is how long a validity is, by the shortest and by the longest reading.
func (v Validity) span() (least, most time.Duration) {
	unit := map[string][2]time.Duration{
		Year: {365 * day, 12 * 31 * day}, Month: {28 * day, 31 * day}, Day: {day, day}, Hour: {time.Hour, time.Hour},
	}[v.Type]
	return time.Duration(v.Value) * unit[0], time.Duration(v.Value) * unit[1]
}

func roughly(d time.Duration) string {
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Round(time.Minute).String()
}
