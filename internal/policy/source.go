package policy

import (
	"path"
	"path/filepath"
	"strconv"
)

// Source is where bundles come from. Exactly one of the kinds is set.
type Source struct {
	Directory      *Directory      `yaml:"directory"`
	PrivateCA      *PrivateCA      `yaml:"private_ca"`
	IdentityCenter *IdentityCenter `yaml:"identity_center"`
}

// The kinds of source, as metrics and messages call them.
const (
	SourceDirectory      = "directory"
	SourcePrivateCA      = "private_ca"
	SourceIdentityCenter = "identity_center"
)

// Kind is the source's kind.
func (s Source) Kind() string {
	switch {
	case s.Directory != nil:
		return SourceDirectory
	case s.PrivateCA != nil:
		return SourcePrivateCA
	case s.IdentityCenter != nil:
		return SourceIdentityCenter
	}
	return ""
}

// Issues reports whether the source makes its certificates when the policy says so,
// instead of finding them.
func (s Source) Issues() bool { return s.PrivateCA != nil || s.IdentityCenter != nil }

// Certificate is the name of the one certificate of a source that issues.
func (s Source) Certificate() string {
	switch {
	case s.PrivateCA != nil:
		return s.PrivateCA.CommonName
	case s.IdentityCenter != nil:
		return s.IdentityCenter.ApplicationInstanceID
	}
	return ""
}

func (p *Policy) completeSource(d *document, r resolver, c *Config) {
	const at = "$.source"
	kinds := 0
	for _, set := range []bool{p.Source.Directory != nil, p.Source.PrivateCA != nil, p.Source.IdentityCenter != nil} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		d.addAt(at, "source is missing; give one of source.directory, source.private_ca, source.identity_center")
	case kinds > 1:
		d.addAt(at, "source has more than one kind; take one of directory, private_ca, identity_center")
	case p.Source.Directory != nil:
		p.Source.Directory.complete(d, r, at+".directory")
	case p.Source.PrivateCA != nil:
		p.Source.PrivateCA.complete(d, at+".private_ca", c)
		if len(p.Targets) == 0 {
			d.addAt(at+".private_ca", "a certificate is issued for somebody; give at least one target")
		}
		p.completeCoverage(d)
	default:
		p.Source.IdentityCenter.complete(d, at+".identity_center", c)
		p.completeApplication(d)
	}
}

func (dir *Directory) complete(d *document, r resolver, at string) {
	required(d, at, "path", dir.Path)
	if dir.Path != "" && !filepath.IsAbs(dir.Path) {
		dir.Path = r.path(dir.Path)
	}
	dir.Path = filepath.Clean(dir.Path)
	dir.KeyPasswordFile = checkedSecret(d, r, at+".key_password_file", dir.KeyPasswordFile)
	for i, pattern := range dir.Match.DNSNames {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			d.addAt(at+".match.dns_names["+strconv.Itoa(i)+"]", "%q is not a pattern", pattern)
		}
	}
	if _, err := path.Match(dir.Match.Issuer, ""); err != nil {
		d.addAt(at+".match.issuer", "%q is not a pattern", dir.Match.Issuer)
	}
	if dir.Rescan == 0 {
		dir.Rescan = defaultRescan
	}
	if dir.Rescan < minRescan {
		d.addAt(at+".rescan", "rescan %s is shorter than %s", dir.Rescan, minRescan)
	}
}
