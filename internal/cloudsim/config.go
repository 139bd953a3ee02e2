package cloudsim

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Config describes the simulated account. It is read once, by New. The zero value of a field means the default
// that its comment names.
type Config struct {
	// Region is the name of the region and of its project. Default eu-west-101.
	Region string
	// ProjectID and DomainID are 32 letters or digits each. Defaults are made up.
	ProjectID, DomainID string

	// AccessKey and SecretKey are the pair that may sign requests; without them no signature is accepted.
	// When SecurityToken is set the pair is a temporary one: requests must carry and sign X-Security-Token.
	AccessKey, SecretKey, SecurityToken string

	// User, Password and Domain are what IAM's password login accepts; without them it accepts nobody.
	User, Password, Domain string
	// TokenValidity is how long a token lives. Default 24 hours.
	TokenValidity time.Duration
	// TokenErrorsInService moves the refusal of a bad token from the front gateway (401 APIGW.0301) into the
	// service (400 WAF.00012001, 401 APIG.1002, 401 PCA.00000401). Both are documented, the last code is made up.
	TokenErrorsInService bool

	// Agency is the name of an agency by which this account has delegated its rights: assume_role and the metadata
	// service act for it. The delegating account is this one too.
	Agency string
	// Metadata adds the metadata service of an ECS that has an agency: a listener of its own (see MetadataURL), and
	// 169.254.169.254 of Transport.
	Metadata bool
	// MetadataMode is MetadataV1, MetadataV2 or, by default, "": both with and without session tokens.
	MetadataMode string
	// MetadataKeyValidity is how long a key of the metadata service lives. Default 24 hours.
	MetadataKeyValidity time.Duration

	// Hosts are the domains that WAF protects, in the order of creation.
	Hosts []Host
	// CertificateQuota is the number of certificates that the account may hold. Default: the number of hosts.
	// Negative: no limit. Certificates of Hosts count, and are never refused for it.
	CertificateQuota int
	// NameLimit is the longest certificate name in characters. Default 64; the seed page says 256.
	NameLimit int
	// TolerateKeyForm also accepts PKCS#8 keys (the seed's own example sends one). Default: refused.
	TolerateKeyForm bool
	// EffectNeedsServer makes a PATCH of a cloud host's certificate without "server" answer 200 and change nothing.
	EffectNeedsServer bool
	// OpenTelekom is the WAF-Dedicated variant: dedicated hosts only, no apply-to-hosts, no enterprise projects,
	// no verify_cert_key.
	OpenTelekom bool

	// Gateways are the dedicated gateways of APIG, in the order of creation.
	Gateways []Gateway
	// KeepTrustedCA lets an APIG certificate keep its trusted CA when an update leaves trusted_root_ca out. Default:
	// it is dropped. An empty trusted_root_ca drops it always.
	KeepTrustedCA bool
	// RefuseReplacement refuses to attach an APIG certificate to a domain that has another one of the same algorithm
	// type. Default: that one is replaced.
	RefuseReplacement bool

	// Authorities are the CAs of the private CA service, in the order of creation. Ids that are empty are made up and
	// can be read from Sim.Config or Sim.Authorities.
	Authorities []Authority
	// PrivateCertificateQuota is the number of private certificates that the account may hold. Default 100000.
	PrivateCertificateQuota int
	// IgnoreCSRExtensions lets a certificate that is made from a CSR have neither its names nor its extended key usage
	// nor any other extension but the key usage (doubt 18). Default: they are copied.
	IgnoreCSRExtensions bool
	// PrivateNotFound404 says 404 PCA.00030102 of private certificates and CAs that do not exist (doubt 17). Default:
	// 400 PCA.10010002.
	PrivateNotFound404 bool

	// Instances are the Identity Center instances, in the order of creation. Ids that are empty are made up and can be
	// read from Sim.Config or Sim.Applications.
	Instances []IdentityInstance

	// ListLag is the time from the making of a private certificate, or of one of Identity Center, to its showing in a
	// list or a search. What asks for it by its id finds it at once. Default 0.
	ListLag time.Duration

	// Propagation is the time from a binding to edge 0 serving it. Default 0.
	Propagation time.Duration
	// Edges is the number of edge listeners. Default 1. Edge i serves a new binding i*EdgeLag after edge 0.
	Edges   int
	EdgeLag time.Duration

	// Listen is the address of the API listener. Default 127.0.0.1:0.
	Listen string
	// Management mounts ManagementHandler under /sim/ of the API listener and of Handler, without authentication.
	Management bool

	// Latency is spent on every API call between its arrival and its effect, whether or not the caller still waits.
	Latency time.Duration
	// ClockOffset is how far the cloud's clock is ahead of this process's: it shows in the Date header, in every
	// time of an answer and in the check of X-Sdk-Date.
	ClockOffset time.Duration
	// Misbehave turns on what a client must bear although no page promises it; see the package comment.
	Misbehave bool
	// Seed drives ids, tokens and misbehaviour. Equal seeds and equal sequences of calls give equal answers, but for the
	// keys and certificates that the private CA and Identity Center make.
	Seed uint64
	// Logger gets one line for each call. It never gets a body. Default: discard.
	Logger *slog.Logger
}

// Host is one domain that WAF protects.
type Host struct {
	// Name is the domain name, "*.example.com" for a wildcard.
	Name string
	// Dedicated says that a dedicated engine protects it (premium-waf); else it is a cloud host.
	Dedicated bool
	// Protocol is the client side protocol: HTTPS, HTTP or "HTTP&HTTPS". Default HTTPS.
	Protocol string
	// EnterpriseProject is "0" or a UUID. Default "0".
	EnterpriseProject string
	// Certificate, when its Name is set, is what a person bound in the console before the story begins. Hosts that
	// name the same certificate share it.
	Certificate Certificate
}

// Certificate is a certificate as a person uploads it in the console.
type Certificate struct {
	Name    string
	CertPEM []byte // leaf first
	KeyPEM  []byte
}

// Gateway is a dedicated gateway of APIG. Ids that are empty are made up and can be read from Sim.Config or
// Sim.Domains; they are 32 letters or digits, or a UUID.
type Gateway struct {
	ID string
	// Name is for people. Default gateway-1 and so on.
	Name   string
	Groups []Group
}

// Group is an API group.
type Group struct {
	ID, Name string
	// Domains are at most five.
	Domains []Domain
}

// Domain is a domain of an API group.
type Domain struct {
	ID string
	// Name is the domain name, "*.example.com" for a wildcard. It must not be a host of WAF. When several gateways have
	// it, edges serve what it has on the first.
	Name string
	// Certificates are what a person bound in the console before the story begins: one RSA and one ECC at most.
	// Domains that name the same certificate share it.
	Certificates []GatewayCertificate
	// ClientVerification says that clients must show a certificate. It needs a trusted CA in every certificate.
	ClientVerification bool
	// MinTLS is TLSv1.1 or TLSv1.2. Default TLSv1.2.
	MinTLS string
	// Ports are the HTTPS ports. Default 443 alone. With several the domain is listed once for each.
	Ports []int
}

// GatewayCertificate is a certificate as a person uploads it in the console of APIG.
type GatewayCertificate struct {
	Name         string
	CertPEM      []byte // leaf first
	KeyPEM       []byte
	TrustedCAPEM []byte // for client authentication; may be empty
	// Instance says that it belongs to the gateway of the domain alone; else it is a global one. ConsoleAPIGUpload
	// does not look at it.
	Instance bool
}

// Authority is a CA of the private CA service. Its key and its certificate are made by New.
type Authority struct {
	ID string // a UUID
	// CommonName is 1 to 64 characters; no two authorities share it. The other members of the name are what
	// certificates inherit; they may be empty.
	CommonName, Country, State, Locality, Organization, OrganizationalUnit string
	// Parent is the CommonName of the authority that signed it. "": it is a root.
	Parent string
	// KeyAlgorithm is RSA2048, RSA4096, EC256 or EC384. Default EC256.
	KeyAlgorithm string
	// Status is ACTIVED, PENDING, DISABLED, DELETED, EXPIRED or REVOKED. Default ACTIVED.
	Status string
	// NotAfter is its end. Default: 10 years from now, but not after its parent's end, and yesterday for an EXPIRED
	// one. It has been valid for a year, or, when it ends earlier, since a year before its end.
	NotAfter time.Time
	// PathLength is how many further CAs may stand below a subordinate one. Default: as many as Authorities needs. A
	// root has no limit.
	PathLength int
}

// IdentityInstance is an instance of IAM Identity Center.
type IdentityInstance struct {
	ID           string // 1 to 64 letters, digits and "-"
	Applications []Application
}

// Application is an application instance of Identity Center. It starts with one ACTIVE certificate, 30 days old.
type Application struct {
	ID   string // app-ins- and 16 letters or digits
	Name string // for people. Default application-1 and so on.
	// TTL is how long a certificate lives: P6M, P9M, P12M, P24M, P36M, P48M, P60M or P1Y to P5Y. Default P5Y.
	TTL string
	// CertificateLimit is how many certificates it may have. Default 0: no limit.
	CertificateLimit int
}

const (
	defaultRegion    = "eu-west-101"
	defaultProjectID = "0f3c5a9d7e1b4862a0c4d8f21b6e9357"
	defaultDomainID  = "7b1e94d2c85f4a03b6d7e0195c2a8f64"
	defaultEPS       = "0"
	allGrantedEPS    = "all_granted_eps"
)

// withDefaults returns c complete, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Region, defaultRegion)
	setDefault(&c.ProjectID, defaultProjectID)
	setDefault(&c.DomainID, defaultDomainID)
	setDefault(&c.Listen, "127.0.0.1:0")
	if c.TokenValidity == 0 {
		c.TokenValidity = 24 * time.Hour // [HW iam_30_0001]
	}
	if c.MetadataKeyValidity == 0 {
		c.MetadataKeyValidity = longestKey * time.Second
	}
	if c.Edges == 0 {
		c.Edges = 1
	}
	if c.PrivateCertificateQuota == 0 {
		c.PrivateCertificateQuota = privateQuota
	}
	if c.NameLimit == 0 {
		c.NameLimit = 64
	}
	if c.CertificateQuota == 0 {
		c.CertificateQuota = max(1, len(c.Hosts)) // [OTC-D umn uploading_a_certificate]
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var problems []error
	for name, id := range map[string]string{"ProjectID": c.ProjectID, "DomainID": c.DomainID} {
		if !isID(id) {
			problems = append(problems, fmt.Errorf("%s %q is not 32 letters or digits", name, id))
		}
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		problems = append(problems, errors.New("AccessKey and SecretKey go together"))
	}
	if c.Edges < 0 || c.Propagation < 0 || c.EdgeLag < 0 || c.Latency < 0 || c.TokenValidity < 0 ||
		c.MetadataKeyValidity < 0 || c.ListLag < 0 || c.PrivateCertificateQuota < 0 {
		problems = append(problems, errors.New("the number of edges, durations and the quota of private certificates must not be negative"))
	}
	if c.MetadataMode != "" && c.MetadataMode != MetadataV1 && c.MetadataMode != MetadataV2 {
		problems = append(problems, fmt.Errorf("metadata mode %q", c.MetadataMode))
	}
	hosts, err := checkedHosts(c.Hosts, c.OpenTelekom)
	c.Hosts = hosts
	gateways, err2 := checkedGateways(c.Gateways, c.Hosts)
	c.Gateways = gateways
	authorities, err3 := checkedAuthorities(c.Authorities)
	c.Authorities = authorities
	instances, err4 := checkedInstances(c.Instances)
	c.Instances = instances
	return c, errors.Join(append(problems, err, err2, err3, err4)...)
}

// checkedHosts returns a copy of hosts with defaults, or what is wrong with them.
func checkedHosts(hosts []Host, openTelekom bool) ([]Host, error) {
	var problems []error
	seen := map[string]bool{}
	checked := make([]Host, 0, len(hosts))
	for _, h := range hosts {
		setDefault(&h.Protocol, "HTTPS")
		setDefault(&h.EnterpriseProject, defaultEPS)
		switch {
		case h.Name == "" || h.Name != strings.ToLower(h.Name):
			problems = append(problems, fmt.Errorf("host %q: the name must be given in lower case", h.Name))
		case seen[h.Name]:
			problems = append(problems, fmt.Errorf("host %q is there twice", h.Name))
		case h.Protocol != "HTTPS" && h.Protocol != "HTTP" && h.Protocol != "HTTP&HTTPS":
			problems = append(problems, fmt.Errorf("host %q: protocol %q", h.Name, h.Protocol))
		case openTelekom && !h.Dedicated:
			problems = append(problems, fmt.Errorf("host %q: OpenTelekom has dedicated hosts only", h.Name))
		case openTelekom && h.EnterpriseProject != defaultEPS:
			problems = append(problems, fmt.Errorf("host %q: OpenTelekom has no enterprise projects", h.Name))
		}
		seen[h.Name] = true
		checked = append(checked, h)
	}
	return checked, errors.Join(problems...)
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// isID tells whether text has the form of a project, domain or WAF object id: 32 letters or digits ([S003] table 1,
// reference 2.2).
func isID(text string) bool {
	if len(text) != 32 {
		return false
	}
	for _, r := range text {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return true
}
