package policy

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Target is one place that must serve the bundle. Exactly one of the kinds is set.
type Target struct {
	// Name is unique in the policy, with the same letters as a policy's.
	Name string `yaml:"name"`
	WAF  *WAF   `yaml:"waf"`
	APIG *APIG  `yaml:"apig"`
	File *File  `yaml:"file"`
	// Application activates what an Identity Center source made. No document has it: it is
	// added to the policies with that source.
	Application *IdentityCenter `yaml:"-"`
}

// Kind is the target's kind as metrics and messages call it.
func (t Target) Kind() string {
	switch {
	case t.WAF != nil:
		return "waf"
	case t.APIG != nil:
		return "apig"
	case t.File != nil:
		return "file"
	case t.Application != nil:
		return "identity_center"
	}
	return ""
}

// Last says that the target is changed only when every other target of the policy serves
// the bundle.
func (t Target) Last() bool { return t.Application != nil }

// reloads says that a program is told to take the bundle, which it may do in a new process.
func (t Target) reloads() bool { return t.File != nil && t.File.Reload != nil }

// Endpoints are the names that the target is to serve at; of a file target, the
// directory.
func (t Target) Endpoints() Names {
	switch {
	case t.WAF != nil:
		return t.WAF.Hosts
	case t.APIG != nil:
		return t.APIG.Domains
	case t.File != nil:
		return Names{List: []string{t.File.Directory}}
	case t.Application != nil:
		return Names{List: []string{t.Application.ApplicationInstanceID}}
	}
	return Names{}
}

// WAF is the web application firewall.
type WAF struct {
	// Cloud is the name of a cloud in the configuration. Default "default".
	Cloud string `yaml:"cloud"`
	// Mode is cloud (default) or dedicated.
	Mode string `yaml:"mode"`
	// EnterpriseProject is "0", the default project, or a UUID: where hosts and
	// certificates are looked for and made. Not on Open Telekom Cloud.
	EnterpriseProject string `yaml:"enterprise_project"`
	// Hosts are protected domain names, or the word covered: every host that speaks
	// HTTPS and that a certificate of this policy covers. Each is served by the
	// certificate that covers it best.
	Hosts Names `yaml:"hosts"`
}

// APIG is the API gateway.
type APIG struct {
	// Cloud is the name of a cloud in the configuration. Default "default".
	Cloud string `yaml:"cloud"`
	// Scope is instance (default) or global: where certificates are made and looked for.
	Scope string `yaml:"scope"`
	// InstanceID is the gateway's id.
	InstanceID string `yaml:"instance_id"`
	// Domains are names bound to API groups of the gateway, or covered.
	Domains Names `yaml:"domains"`
	// TrustedRootCAFile holds the CAs for client certificates, PEM. It cannot be read back
	// from the service, so it is needed wherever client certificates are asked for.
	TrustedRootCAFile string `yaml:"trusted_root_ca_file"`
	// Replace is in_place (default: the content of the bound certificate is replaced) or
	// new (a new certificate is bound instead of the old).
	Replace string `yaml:"replace"`
}

// File is a directory on this host from which some program reads its certificate.
type File struct {
	// Directory holds the files; it must exist.
	Directory string `yaml:"directory"`
	// The files that are wanted, by name; at least one with the certificate.

	// Certificate is the name of the file with the leaf alone.
	Certificate string `yaml:"certificate"`
	// Chain is the name of the file with the certificates above the leaf.
	Chain string `yaml:"chain"`
	// FullChain is the name of the file with the leaf and those above it.
	FullChain string `yaml:"full_chain"`
	// Key is the name of the file with the private key.
	Key string `yaml:"key"`
	// Combined is the name of the file with the full chain and the key.
	Combined string `yaml:"combined"`
	// PKCS12 is the name of the file with all of it as PKCS #12; it needs PKCS12PasswordFile.
	PKCS12 string `yaml:"pkcs12"`
	// PKCS12PasswordFile holds the password of that file.
	PKCS12PasswordFile SecretFile `yaml:"pkcs12_password_file"`
	// Owner and Group of the files, by name or number. Default: as they come; not enforced.
	Owner string `yaml:"owner"`
	Group string `yaml:"group"`
	// Mode of the files that hold a key. Default 0600; the others get 0644.
	Mode   FileMode `yaml:"mode"`
	Reload *Reload  `yaml:"reload"`
}

// Reload is how the program is told. Exactly one of Unit and Command.
type Reload struct {
	// Unit is a systemd unit that is reloaded, or restarted where it cannot be.
	Unit string `yaml:"unit"`
	// Command is run without a shell; its first word is an absolute path.
	Command []string `yaml:"command"`
	// Timeout of the command. Default 30s.
	Timeout Duration `yaml:"timeout"`
}

// FileMode is an octal file mode, written as a string: "0640".
type FileMode fs.FileMode

var modePattern = regexp.MustCompile(`^0?[0-7]{3}$`)

// UnmarshalYAML implements the YAML library's NodeUnmarshaler. The text is read as it
// stands: YAML would take 0640 without quotes for a number of another base.
func (m *FileMode) UnmarshalYAML(n ast.Node) error {
	text := n.GetToken().Value
	bits, err := strconv.ParseUint(text, 8, 12)
	if err != nil || !modePattern.MatchString(text) {
		return &nodeError{n.GetToken(), fmt.Sprintf(`%q is not a file mode, as in "0640"`, text)}
	}
	*m = FileMode(bits)
	return nil
}

const (
	defaultKeyMode     = FileMode(0o600)
	defaultReloadLimit = Duration(30 * time.Second)
	maxReloadLimit     = Duration(10 * time.Minute)
)

var (
	wafModes         = []string{"cloud", "dedicated"}
	apigScopes       = []string{"instance", "global"}
	apigReplacements = []string{"in_place", "new"}
)

var (
	enterprisePattern = regexp.MustCompile(`^(0|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	instancePattern   = regexp.MustCompile(`^[0-9a-zA-Z-]{1,64}$`)
	filePattern       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	ownerPattern      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?$`)
	unitPattern       = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|target|socket)$`)
)

func (p *Policy) completeTargets(d *document, r resolver, c *Config) {
	seen := map[string]bool{}
	for i := range p.Targets {
		t := &p.Targets[i]
		at := "$.targets[" + strconv.Itoa(i) + "]"
		switch {
		case t.Name == "":
			d.addAt(at, "name is missing")
		case !namePattern.MatchString(t.Name):
			d.addAt(at+".name", "a target's name has 1 to 63 of a-z, 0-9 and hyphens; %q has not", t.Name)
		case seen[t.Name]:
			d.addAt(at+".name", "target %q is there twice", t.Name)
		}
		seen[t.Name] = true
		t.complete(d, r, at, c)
	}
}

func (t *Target) complete(d *document, r resolver, at string, c *Config) {
	kinds := 0
	for _, set := range []bool{t.WAF != nil, t.APIG != nil, t.File != nil} {
		if set {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		d.addAt(at, "target %q has no kind; give one of waf, apig, file", t.Name)
	case kinds > 1:
		d.addAt(at, "target %q has more than one kind; take one of waf, apig, file", t.Name)
	case t.WAF != nil:
		t.WAF.complete(d, at+".waf", c)
	case t.APIG != nil:
		t.APIG.complete(d, r, at+".apig", c)
	default:
		t.File.complete(d, r, at+".file")
	}
}

func (w *WAF) complete(d *document, at string, c *Config) {
	w.Cloud = completeCloud(d, at, w.Cloud, c)
	if w.Mode == "" {
		w.Mode = "cloud"
	}
	oneOf(d, at+".mode", w.Mode, wafModes)
	if p := w.EnterpriseProject; p != "" && !enterprisePattern.MatchString(p) {
		d.addAt(at+".enterprise_project", "enterprise_project %q is neither 0 nor a UUID", p)
	}
	w.Hosts.complete(d, at, "hosts")
}

// complete checks the names under the field of this name.
func (n *Names) complete(d *document, at, field string) {
	if !n.Covered && len(n.List) == 0 {
		d.addAt(at, "%s is missing: a list of names, or covered", field)
	}
	for i, name := range n.List {
		n.List[i] = strings.ToLower(name)
		here := at + "." + field + "[" + strconv.Itoa(i) + "]"
		if !hostPattern.MatchString(n.List[i]) {
			d.addAt(here, "%q is not a host name", name)
		}
		if slices.Contains(n.List[:i], n.List[i]) {
			d.addAt(here, "host %q is there twice", name)
		}
	}
}

func (a *APIG) complete(d *document, r resolver, at string, c *Config) {
	a.Cloud = completeCloud(d, at, a.Cloud, c)
	if a.Scope == "" {
		a.Scope = "instance"
	}
	oneOf(d, at+".scope", a.Scope, apigScopes)
	if a.Replace == "" {
		a.Replace = "in_place"
	}
	oneOf(d, at+".replace", a.Replace, apigReplacements)
	required(d, at, "instance_id", a.InstanceID)
	if a.InstanceID != "" && !instancePattern.MatchString(a.InstanceID) {
		d.addAt(at+".instance_id", "instance_id %q is not an id of a gateway", a.InstanceID)
	}
	a.Domains.complete(d, at, "domains")
	a.TrustedRootCAFile = checkedFile(d, r, at+".trusted_root_ca_file", a.TrustedRootCAFile)
}

func (f *File) complete(d *document, r resolver, at string) {
	required(d, at, "directory", f.Directory)
	f.Directory = filepath.Clean(r.path(f.Directory))
	if f.Directory == "/" {
		d.addAt(at+".directory", "the root directory cannot be a target")
	}
	seen := map[string]string{}
	for _, file := range []struct{ field, name string }{
		{"certificate", f.Certificate}, {"chain", f.Chain}, {"full_chain", f.FullChain},
		{"key", f.Key}, {"combined", f.Combined}, {"pkcs12", f.PKCS12},
	} {
		if file.name == "" {
			continue
		}
		if !filePattern.MatchString(file.name) {
			d.addAt(at+"."+file.field, "%q is not a plain file name", file.name)
		}
		if other, twice := seen[file.name]; twice {
			d.addAt(at+"."+file.field, "%s and %s have the same file %q", other, file.field, file.name)
		}
		seen[file.name] = file.field
	}
	if f.Certificate+f.FullChain+f.Combined+f.PKCS12 == "" {
		d.addAt(at, "no file with the certificate is wanted; give at least one of certificate, full_chain, combined, pkcs12")
	}
	f.completePKCS12(d, r, at)
	for field, name := range map[string]string{"owner": f.Owner, "group": f.Group} {
		if name != "" && !ownerPattern.MatchString(name) {
			d.addAt(at+"."+field, "%s %q is neither a name nor a number", field, name)
		}
	}
	if f.Mode == 0 {
		f.Mode = defaultKeyMode
	}
	if f.Mode&0o007 != 0 {
		d.addAt(at+".mode", "mode %#o lets everybody on the host have the key; the last digit must be 0", uint32(f.Mode))
	}
	if f.Reload != nil {
		f.Reload.complete(d, at+".reload")
	}
}

func (f *File) completePKCS12(d *document, r resolver, at string) {
	if f.PKCS12 != "" && f.PKCS12PasswordFile == "" {
		d.addAt(at+".pkcs12", "pkcs12 needs pkcs12_password_file")
	}
	if f.PKCS12 == "" && f.PKCS12PasswordFile != "" {
		d.addAt(at+".pkcs12_password_file", "pkcs12_password_file is for pkcs12, which is not set")
	}
	f.PKCS12PasswordFile = checkedSecret(d, r, at+".pkcs12_password_file", f.PKCS12PasswordFile)
}

func (r *Reload) complete(d *document, at string) {
	switch {
	case r.Unit != "" && len(r.Command) > 0:
		d.addAt(at, "reload has both unit and command; take one")
	case r.Unit == "" && len(r.Command) == 0:
		d.addAt(at, "reload is empty; give unit or command")
	case r.Unit != "" && !unitPattern.MatchString(r.Unit):
		d.addAt(at+".unit", "%q is not the full name of a unit, as in nginx.service", r.Unit)
	case len(r.Command) > 0 && !strings.HasPrefix(r.Command[0], "/"):
		d.addAt(at+".command[0]", "%q is not an absolute path; no shell looks it up", r.Command[0])
	}
	if r.Timeout == 0 {
		r.Timeout = defaultReloadLimit
	}
	if r.Timeout > maxReloadLimit {
		d.addAt(at+".timeout", "timeout %s is longer than %s", r.Timeout, maxReloadLimit)
	}
}

// completeCloud fills in the default cloud and checks that it is configured.
func completeCloud(d *document, at, cloud string, c *Config) string {
	if cloud == "" {
		cloud = "default"
	}
	if _, ok := c.Clouds[cloud]; !ok {
		d.addAt(at+".cloud", "cloud %q is not in the configuration%s", cloud, knownClouds(c))
	}
	return cloud
}
