package cloudsim

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"unicode/utf8"
)

// distinguishedName is the name of a CA or a private certificate (reference 4.2).
type distinguishedName struct {
	commonName, country, state, locality, organization, organizationalUnit string
}

// fields are the members of the JSON object with their longest lengths; all but the first are inherited from the CA
// when they are left out.
func (d *distinguishedName) fields() []nameField {
	return []nameField{
		{"common_name", &d.commonName, 64}, {"country", &d.country, 2}, {"state", &d.state, 128},
		{"locality", &d.locality, 128}, {"organization", &d.organization, 64}, {"organizational_unit", &d.organizationalUnit, 64},
	}
}

type nameField struct {
	name  string
	value *string
	limit int
}

func (f nameField) valid() bool {
	length := utf8.RuneCountInString(*f.value)
	if length < 1 || length > f.limit {
		return false
	}
	if f.name == "country" {
		return length == 2 && strings.Trim(strings.ToLower(*f.value), "abcdefghijklmnopqrstuvwxyz") == ""
	}
	marks := "-_ .,"
	if f.name == "common_name" {
		marks += "*"
	}
	return !strings.ContainsFunc(*f.value, func(r rune) bool { return !isNameRune(r) && !strings.ContainsRune(marks, r) })
}

// isNameRune allows letters, digits and Chinese characters.
func isNameRune(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '一' && r <= '龥'
}

// readName reads distinguished_name; what is left out comes from the CA.
func readName(body members, issuer distinguishedName) (distinguishedName, error) {
	var name distinguishedName
	fields, inherited := name.fields(), issuer.fields()
	var allowed []string
	for _, f := range fields {
		allowed = append(allowed, f.name)
	}
	given, err := body.need("distinguished_name", allowed...)
	if err != nil {
		return name, pcaError{codePCAName, err.Error()}
	}
	for i, f := range fields {
		text, there, err := given.text(f.name)
		if err != nil {
			return name, pcaError{codePCAName, err.Error()}
		}
		*f.value = text
		if !there && i > 0 {
			*f.value = *inherited[i].value
			continue
		}
		if !f.valid() {
			return name, pcaError{codePCAName, "Incorrect certificate distinguished name: " + f.name + "."}
		}
	}
	return name, nil
}

// nameOf reads a name back from a CSR or a certificate. Of several values it takes the first.
func nameOf(subject pkix.Name) distinguishedName {
	first := func(values []string) string {
		if len(values) == 0 {
			return ""
		}
		return values[0]
	}
	return distinguishedName{
		commonName: subject.CommonName, country: first(subject.Country), state: first(subject.Province),
		locality: first(subject.Locality), organization: first(subject.Organization), organizationalUnit: first(subject.OrganizationalUnit),
	}
}

func (d *distinguishedName) subject() pkix.Name {
	list := func(value string) []string {
		if value == "" {
			return nil
		}
		return []string{value}
	}
	return pkix.Name{
		CommonName: d.commonName, Country: list(d.country), Province: list(d.state), Locality: list(d.locality),
		Organization: list(d.organization), OrganizationalUnit: list(d.organizationalUnit),
	}
}

func (d *distinguishedName) object() object {
	shown := object{}
	for _, f := range d.fields() {
		shown[f.name] = *f.value
	}
	return shown
}

// pemOf writes certificates as PEM, with \n.
func pemOf(chain ...*x509.Certificate) string {
	var text strings.Builder
	for _, cert := range chain {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return text.String()
}
