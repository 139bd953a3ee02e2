package policy

import (
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Cloud is one account at one region.
type Cloud struct {
	// Region is the region's id, as in eu-west-101.
	Region string `yaml:"region"`
	// ProjectID is looked up by region where absent, DomainID (the account) at IAM.
	ProjectID string `yaml:"project_id"`
	DomainID  string `yaml:"domain_id"`
	Auth      Auth   `yaml:"auth"`
	// Endpoints are base URLs by service, for what cannot be derived from the region.
	Endpoints map[string]string `yaml:"endpoints"`
	// CAFile holds PEM roots that replace the system's for this cloud.
	CAFile string `yaml:"ca_file"`
	// ClientCertFile and ClientKeyFile are PEM files, shown to servers that ask for a
	// client certificate (a proxy in front of the cloud). Read at each connection.
	ClientCertFile string     `yaml:"client_cert_file"`
	ClientKeyFile  SecretFile `yaml:"client_key_file"`
	// Proxy is a URL; where absent, HTTPS_PROXY counts.
	Proxy string `yaml:"proxy"`
	// Timeout bounds one call. Default 30s.
	Timeout Duration `yaml:"timeout"`
	// Limits bound the calls, by service.
	Limits map[string]Limit `yaml:"limits"`
}

// Auth is how a cloud is logged in to: exactly one.
type Auth struct {
	AccessKey   *AccessKey   `yaml:"access_key"`
	Password    *Password    `yaml:"password"`
	Agency      *Agency      `yaml:"agency"`
	Metadata    *Metadata    `yaml:"metadata"`
	Environment *Environment `yaml:"environment"`
}

// AccessKey signs each request (SDK-HMAC-SHA256).
type AccessKey struct {
	// ID is the access key's id (AK).
	ID string `yaml:"id"`
	// SecretFile holds the secret access key (SK).
	SecretFile SecretFile `yaml:"secret_file"`
	// SecurityTokenFile holds the security token of a temporary key.
	SecurityTokenFile SecretFile `yaml:"security_token_file"`
}

// Password logs in to IAM for a token.
type Password struct {
	// User is the IAM user's name.
	User string `yaml:"user"`
	// PasswordFile holds the user's password.
	PasswordFile SecretFile `yaml:"password_file"`
	// Domain is the account's name.
	Domain string `yaml:"domain"`
	// Project is the project's name. Default: project_id, else the one called like the
	// region.
	Project string `yaml:"project"`
}

// Agency acts for another account (or another part of one's own), which has made an
// agency for the account that is logged in to: IAM gives temporary keys for it, which
// sign each request. The cloud's project_id and domain_id are the other account's.
type Agency struct {
	// Agency is its name.
	Agency string `yaml:"agency"`
	// Exactly one of Domain and DomainID: name or id of the account that made the agency.
	Domain   string `yaml:"domain"`
	DomainID string `yaml:"domain_id"`
	// Duration is how long the keys are to live, 15m to 24h. Default 1h.
	Duration Duration `yaml:"duration"`
	// The way to log in first: exactly one.

	AccessKey   *AccessKey   `yaml:"access_key"`
	Password    *Password    `yaml:"password"`
	Metadata    *Metadata    `yaml:"metadata"`
	Environment *Environment `yaml:"environment"`
}

// Metadata signs with the temporary keys that an ECS gets of the agency it is bound to.
type Metadata struct {
	// Endpoint is the metadata service. Default http://169.254.169.254. It must be a
	// loopback or link-local address, since keys come from there in clear.
	Endpoint string `yaml:"endpoint"`
}

// Environment signs with the keys that the official SDK would use: HUAWEICLOUD_SDK_AK and
// its siblings, else the profile file ~/.huaweicloud/credentials.
type Environment struct{}

// Limit bounds the calls to one service of one cloud.
type Limit struct {
	// Rate is calls a second. Default 5.
	Rate float64 `yaml:"rate"`
	// Burst is how many may come at once. Default 10.
	Burst int `yaml:"burst"`
	// Concurrency is how many may be under way. Default 4.
	Concurrency int `yaml:"concurrency"`
}

// Signs reports whether calls of this cloud are signed with access keys. A password alone
// gives a token, which Identity Center is not known to take.
func (c *Cloud) Signs() bool {
	a := c.Auth
	return a.Password == nil || a.AccessKey != nil || a.Agency != nil || a.Metadata != nil || a.Environment != nil
}

// The services that a cloud's endpoints and limits may name.
var services = []string{"apig", "ccm", "iam", "identity_center", "waf"}

var projectPattern = regexp.MustCompile(`^[A-Za-z0-9]{32}$`)

const (
	defaultCloudTimeout = Duration(30 * time.Second)
	minCloudTimeout     = Duration(time.Second)
	maxCloudTimeout     = Duration(10 * time.Minute)

	defaultAgencyDuration = Duration(time.Hour)
	minAgencyDuration     = Duration(15 * time.Minute)
	maxAgencyDuration     = Duration(24 * time.Hour)
)

func (c *Cloud) complete(d *document, r resolver, path string) {
	if c.Region == "" {
		d.addAt(path, "region is missing")
	}
	if c.ProjectID != "" && !projectPattern.MatchString(c.ProjectID) {
		d.addAt(path+".project_id", "project_id %q is not 32 letters and digits", c.ProjectID)
	}
	c.Auth.complete(d, r, path)
	if a := c.Auth.Agency; a != nil && c.DomainID != "" && a.DomainID != "" && c.DomainID != a.DomainID {
		d.addAt(path+".domain_id", "domain_id is not the agency's, %s; the cloud is the account that made the agency", a.DomainID)
	}
	for _, service := range sortedKeys(c.Endpoints) {
		at := path + ".endpoints." + service
		checkService(d, at, service)
		if problem := urlProblem(c.Endpoints[service], "https"); problem != "" {
			d.addAt(at, "%s", problem)
		}
	}
	for _, service := range sortedKeys(c.Limits) {
		at := path + ".limits." + service
		checkService(d, at, service)
		if l := c.Limits[service]; !(l.Rate >= 0) || math.IsInf(l.Rate, 0) || l.Burst < 0 || l.Concurrency < 0 {
			d.addAt(at, "a limit must be a number, and cannot be negative")
		}
		d.checkWhole(at + ".burst")
		d.checkWhole(at + ".concurrency")
	}
	c.completeConnection(d, r, path)
}

// completeConnection checks what a connection is made with.
func (c *Cloud) completeConnection(d *document, r resolver, path string) {
	c.CAFile = checkedFile(d, r, path+".ca_file", c.CAFile)
	c.ClientCertFile = checkedFile(d, r, path+".client_cert_file", c.ClientCertFile)
	c.ClientKeyFile = checkedSecret(d, r, path+".client_key_file", c.ClientKeyFile)
	switch {
	case c.ClientCertFile != "" && c.ClientKeyFile == "":
		d.addAtKey(path+".client_cert_file", "client_cert_file needs client_key_file beside it")
	case c.ClientCertFile == "" && c.ClientKeyFile != "":
		d.addAtKey(path+".client_key_file", "client_key_file needs client_cert_file beside it")
	}
	if c.Proxy != "" {
		if problem := urlProblem(c.Proxy, "http", "https", "socks5"); problem != "" {
			d.addAt(path+".proxy", "%s", problem)
		}
	}
	if c.Timeout == 0 {
		c.Timeout = defaultCloudTimeout
	}
	if c.Timeout < minCloudTimeout || c.Timeout > maxCloudTimeout {
		d.addAt(path+".timeout", "timeout %s is not between %s and %s", c.Timeout, minCloudTimeout, maxCloudTimeout)
	}
}

// ways are the names of those logins that are set, in the order of the documentation.
func ways(key *AccessKey, password *Password, agency *Agency, metadata *Metadata, environment *Environment) []string {
	var set []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"access_key", key != nil}, {"password", password != nil}, {"agency", agency != nil},
		{"metadata", metadata != nil}, {"environment", environment != nil},
	} {
		if way.set {
			set = append(set, way.name)
		}
	}
	return set
}

func (a *Auth) complete(d *document, r resolver, path string) {
	at := path + ".auth"
	switch set := ways(a.AccessKey, a.Password, a.Agency, a.Metadata, a.Environment); len(set) {
	case 0:
		// In YAML "metadata:" alone is null; meant was {}.
		d.addAt(at, "auth is missing; give one of auth.access_key, auth.password, auth.agency, auth.metadata: {}, auth.environment: {}")
	case 1:
		completeLogin(d, r, at, a.AccessKey, a.Password, a.Metadata)
		a.Agency.complete(d, r, at+".agency")
	default:
		d.addAt(at, "auth has %s; take one", strings.Join(set, " and "))
	}
}

// completeLogin checks whichever login is set.
func completeLogin(d *document, r resolver, path string, k *AccessKey, p *Password, m *Metadata) {
	switch {
	case k != nil:
		at := path + ".access_key"
		required(d, at, "id", k.ID)
		required(d, at, "secret_file", string(k.SecretFile))
		k.SecretFile = checkedSecret(d, r, at+".secret_file", k.SecretFile)
		k.SecurityTokenFile = checkedSecret(d, r, at+".security_token_file", k.SecurityTokenFile)
	case p != nil:
		at := path + ".password"
		required(d, at, "user", p.User)
		required(d, at, "domain", p.Domain)
		required(d, at, "password_file", string(p.PasswordFile))
		p.PasswordFile = checkedSecret(d, r, at+".password_file", p.PasswordFile)
	case m != nil && m.Endpoint != "":
		if problem := metadataProblem(m.Endpoint); problem != "" {
			d.addAt(path+".metadata.endpoint", "%s", problem)
		}
	}
}

func (a *Agency) complete(d *document, r resolver, path string) {
	if a == nil {
		return
	}
	if a.Duration == 0 {
		a.Duration = defaultAgencyDuration
	}
	required(d, path, "agency, the agency's name,", a.Agency)
	switch {
	case a.Domain == "" && a.DomainID == "":
		d.addAt(path, "domain is missing, or domain_id: the account that made the agency")
	case a.Domain != "" && a.DomainID != "":
		d.addAt(path, "agency has both domain and domain_id; take one")
	}
	if a.Duration < minAgencyDuration || a.Duration > maxAgencyDuration {
		d.addAt(path+".duration", "duration %s is not between %s and %s", a.Duration, minAgencyDuration, maxAgencyDuration)
	}
	switch set := ways(a.AccessKey, a.Password, nil, a.Metadata, a.Environment); len(set) {
	case 0:
		d.addAt(path, "agency has nothing to log in with; give one of access_key, password, metadata: {}, environment: {} below it")
	case 1:
		completeLogin(d, r, path, a.AccessKey, a.Password, a.Metadata)
	default:
		d.addAt(path, "agency has %s to log in with; take one", strings.Join(set, " and "))
	}
	if a.Password != nil && a.Password.Project != "" {
		d.addAtKey(path+".password.project", "project means nothing below agency; project_id of the cloud is the one that is worked in")
	}
}

// metadataProblem says why an address cannot be the metadata service's, or "". Keys come
// from there in clear, so nothing but this machine may hear them.
func metadataProblem(s string) string {
	if problem := urlProblem(s, "http"); problem != "" {
		return problem
	}
	u, err := url.Parse(s)
	if err != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "want http://address[:port] alone"
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" || err == nil && (ip.Unmap().IsLoopback() || ip.Unmap().IsLinkLocalUnicast()) {
		return ""
	}
	return "the metadata service is at a loopback or link-local address (127.0.0.1, 169.254.169.254); keys come from there in clear"
}

func checkService(d *document, at, service string) {
	if !slices.Contains(services, service) {
		d.addAtKey(at, "%q is not one of %s", service, strings.Join(services, ", "))
	}
}
