package policy

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config is the daemon's configuration, rotatord.yaml.
//
// After Load every path is absolute and every default filled in.
type Config struct {
	// Policies is the directory whose *.yaml files are the policies. Default: the
	// directory "policies" beside the configuration file.
	Policies string `yaml:"policies"`
	// State is the directory of the embedded NATS server's journal and queues.
	// Default /var/lib/rotatord, or $STATE_DIRECTORY under systemd. Mode 0700.
	State string `yaml:"state"`
	// Node is this daemon's name among several on one NATS: the owner of its local
	// directories. Default: the host name.
	Node string `yaml:"node"`
	// Socket is the unix socket over which the running daemon is asked and told; whoever may
	// write to it may rotate. Mode 0660. If it is not given: /run/rotatord/rotatord.sock, or
	// below $RUNTIME_DIRECTORY; with a state directory of its own, rotatord.sock in that.
	Socket string `yaml:"socket"`
	HTTP   HTTP   `yaml:"http"`
	NATS   NATS   `yaml:"nats"`
	// Clouds are the accounts that policies may name.
	Clouds map[string]Cloud `yaml:"clouds"`
	Brake  Brake            `yaml:"brake"`
	Audit  Audit            `yaml:"audit"`
	Log    Log              `yaml:"log"`

	// File is where the configuration was read from.
	File string `yaml:"-"`
}

// Audit is the history of what was decided and done.
type Audit struct {
	// Retain is how long it is kept: 1h, in which an event that is told twice is recognised, or
	// longer. Default 400d.
	Retain Duration `yaml:"retain"`
}

// Brake stops changes that are too many at once, and asks. What replaces nothing that is
// served does not count.
type Brake struct {
	// MaxShare is the share of all assignments that may change within an hour; it counts
	// from the eleventh change on. Default 20%.
	MaxShare Percent `yaml:"max_share"`
	// MaxPerHour is how many may; 0 has every change confirmed. Default 200.
	MaxPerHour *int `yaml:"max_per_hour"`
}

// HTTP is the read-only listener: status page, read API, metrics and health.
type HTTP struct {
	// Listen is host:port. Default 127.0.0.1:9847; port 0 lets the system choose. Not used
	// where systemd has bound the socket (rotatord.socket).
	Listen string `yaml:"listen"`
	// WebConfig is a file that says who may ask and over what: TLS, client certificates, users
	// with passwords, in the format of the Prometheus exporter toolkit. Default: everybody who
	// reaches the port, in the clear.
	WebConfig string `yaml:"web_config"`
}

// NATS says which server carries triggers, work, events and the journal. With no URL
// it is the embedded one.
type NATS struct {
	// URL is one or several server URLs, comma separated.
	URL string `yaml:"url"`
	// At most one of CredentialsFile (a .creds file), NKeySeedFile, and User with
	// PasswordFile.
	CredentialsFile SecretFile `yaml:"credentials_file"`
	NKeySeedFile    SecretFile `yaml:"nkey_seed_file"`
	User            string     `yaml:"user"`
	PasswordFile    SecretFile `yaml:"password_file"`
	// TLS is the client side of TLS.
	TLS *NATSTLS `yaml:"tls"`
	// Prefix begins every subject, stream and bucket. Default "rotatord".
	Prefix string `yaml:"prefix"`
	// Replicas of the streams and buckets that rotatord creates: 1, 3 or 5. Default 1.
	Replicas int `yaml:"replicas"`
	// Embedded, instead of URL, opens a listener of the embedded server for local
	// publishers.
	Embedded *EmbeddedNATS `yaml:"embedded"`
}

// NATSTLS is the client side of TLS to an external server.
type NATSTLS struct {
	// CAFile holds PEM roots that replace the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile are the client certificate, PEM.
	CertFile string     `yaml:"cert_file"`
	KeyFile  SecretFile `yaml:"key_file"`
}

// EmbeddedNATS is the listener of the embedded server. It must be on loopback.
type EmbeddedNATS struct {
	// Listen is host:port, as in 127.0.0.1:4222; port 0 lets the system choose.
	Listen string `yaml:"listen"`
	// User and PasswordFile are what publishers log in with; without them anybody on this
	// host may publish.
	User         string     `yaml:"user"`
	PasswordFile SecretFile `yaml:"password_file"`
}

// Log is the logging of the daemon; a command line flag wins.
type Log struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is auto (text on a terminal, JSON otherwise), text or json. Default auto.
	Format string `yaml:"format"`
}

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)
	nodePattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// complete fills defaults in, resolves paths and checks everything.
func (c *Config) complete(d *document, r resolver, getenv func(string) string) {
	c.Policies = r.path(c.Policies)
	if c.Policies == "" {
		c.Policies = filepath.Join(r.base, "policies")
	}
	c.completeState(r, getenv)
	c.completeSocket(d, r, getenv)
	if c.Audit.Retain == 0 {
		c.Audit.Retain = defaultAudit
	}
	if c.Audit.Retain < minAudit {
		d.addAt("$.audit.retain", "retain %s is shorter than %s", c.Audit.Retain, minAudit)
	}
	c.completeNode(d)
	c.HTTP.complete(d, r)
	c.NATS.complete(d, r)
	for _, name := range sortedKeys(c.Clouds) {
		cloud := c.Clouds[name]
		cloud.complete(d, r, "$.clouds."+name)
		c.Clouds[name] = cloud
		if !namePattern.MatchString(name) {
			d.addAtKey("$.clouds."+name, "a cloud's name has 1 to 63 of a-z, 0-9 and hyphens; %q has not", name)
		}
	}
	c.Brake.complete(d)
	c.Log.complete(d)
}

const (
	defaultState  = "/var/lib/rotatord"
	defaultSocket = "/run/rotatord/rotatord.sock"
	socketName    = "rotatord.sock"
	defaultAudit  = Duration(400 * 24 * time.Hour)
	minAudit      = Duration(time.Hour)
	// maxSocket is what fits into a sockaddr_un besides its ending (unix(7)).
	maxSocket = 107
)

func (c *Config) completeState(r resolver, getenv func(string) string) {
	c.State = r.path(cmp.Or(c.State, getenv("STATE_DIRECTORY"), defaultState))
}

// completeSocket finds the socket, the same for the daemon and for whoever asks it. Only the
// daemon has $RUNTIME_DIRECTORY, and a unit that sets it otherwise says so in the
// configuration too.
func (c *Config) completeSocket(d *document, r resolver, getenv func(string) string) {
	switch {
	case c.Socket != "":
		c.Socket = r.path(c.Socket)
	case getenv("RUNTIME_DIRECTORY") != "":
		c.Socket = filepath.Join(getenv("RUNTIME_DIRECTORY"), socketName)
	case c.State == defaultState:
		c.Socket = defaultSocket
	default:
		c.Socket = filepath.Join(c.State, socketName)
	}
	if len(c.Socket) > maxSocket {
		d.addAt("$.socket", "the socket's path %s has %d bytes, and the system takes %d; set a shorter one", c.Socket, len(c.Socket), maxSocket)
	}
}

// The brake's defaults: what an operator changes on purpose is mostly less, and what a
// mistake changes is mostly more.
const (
	defaultMaxShare   = Percent(20)
	defaultMaxPerHour = 200
)

func (b *Brake) complete(d *document) {
	if b.MaxShare == 0 {
		b.MaxShare = defaultMaxShare
	}
	if b.MaxPerHour == nil {
		b.MaxPerHour = new(defaultMaxPerHour)
	}
	d.checkWhole("$.brake.max_per_hour")
	if *b.MaxPerHour < 0 {
		d.addAt("$.brake.max_per_hour", "max_per_hour is %d; it cannot be negative", *b.MaxPerHour)
	}
}

func (c *Config) completeNode(d *document) {
	if c.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			d.addAt("$", "the host name cannot be read (%v); set node", err)
			return
		}
		c.Node = host
	}
	// The work queue calls the place of work that every node can do "any".
	if c.Node == "any" {
		d.addAt("$.node", "node cannot be called \"any\"")
	}
	if !nodePattern.MatchString(c.Node) {
		d.addAt("$.node", "node %q must have 1 to 63 letters, digits, dots, hyphens or underscores", c.Node)
	}
}

func (h *HTTP) complete(d *document, r resolver) {
	if h.Listen == "" {
		h.Listen = "127.0.0.1:9847"
	}
	if _, port, err := net.SplitHostPort(h.Listen); err != nil || !isListenPort(port) {
		d.addAt("$.http.listen", "%q is not host:port, as in 127.0.0.1:9847", h.Listen)
	}
	h.WebConfig = checkedFile(d, r, "$.http.web_config", h.WebConfig)
}

func (n *NATS) complete(d *document, r resolver) {
	if n.Prefix == "" {
		n.Prefix = "rotatord"
	}
	if !prefixPattern.MatchString(n.Prefix) {
		d.addAt("$.nats.prefix", "prefix %q must be a letter and then up to 31 letters, digits, hyphens or underscores", n.Prefix)
	}
	if n.Replicas == 0 {
		n.Replicas = 1
	}
	d.checkWhole("$.nats.replicas")
	if n.URL == "" {
		n.completeEmbedded(d, r)
		return
	}
	if n.Embedded != nil {
		d.addAt("$.nats.embedded", "nats has both url and embedded; take one")
	}
	if !slices.Contains(replicaCounts, n.Replicas) {
		d.addAt("$.nats.replicas", "replicas is %d; JetStream takes 1, 3 or 5", n.Replicas)
	}
	for one := range strings.SplitSeq(n.URL, ",") {
		if problem := urlProblem(strings.TrimSpace(one), "nats", "tls", "ws", "wss"); problem != "" {
			d.addAt("$.nats.url", "%s", problem)
		}
	}
	n.completeLogin(d, r)
}

func (n *NATS) completeLogin(d *document, r resolver) {
	ways := 0
	for _, set := range []bool{n.CredentialsFile != "", n.NKeySeedFile != "", n.User != "" || n.PasswordFile != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		d.addAt("$.nats", "nats has more than one login; take one of credentials_file, nkey_seed_file, user with password_file")
	}
	if (n.User == "") != (n.PasswordFile == "") {
		d.addAt("$.nats", "nats needs user and password_file together")
	}
	n.CredentialsFile = checkedSecret(d, r, "$.nats.credentials_file", n.CredentialsFile)
	n.NKeySeedFile = checkedSecret(d, r, "$.nats.nkey_seed_file", n.NKeySeedFile)
	n.PasswordFile = checkedSecret(d, r, "$.nats.password_file", n.PasswordFile)
	if n.TLS == nil {
		return
	}
	n.TLS.CAFile = checkedFile(d, r, "$.nats.tls.ca_file", n.TLS.CAFile)
	n.TLS.CertFile = checkedFile(d, r, "$.nats.tls.cert_file", n.TLS.CertFile)
	n.TLS.KeyFile = checkedSecret(d, r, "$.nats.tls.key_file", n.TLS.KeyFile)
	if (n.TLS.CertFile == "") != (n.TLS.KeyFile == "") {
		d.addAt("$.nats.tls", "tls needs cert_file and key_file together")
	}
}

// completeEmbedded checks the embedded server: it takes no login for rotatord itself,
// which speaks to it inside the process.
func (n *NATS) completeEmbedded(d *document, r resolver) {
	for field, set := range map[string]bool{
		"credentials_file": n.CredentialsFile != "", "nkey_seed_file": n.NKeySeedFile != "",
		"user": n.User != "", "password_file": n.PasswordFile != "", "tls": n.TLS != nil,
	} {
		if set {
			d.addAt("$.nats."+field, "nats.%s is for an external server, and nats.url is not set", field)
		}
	}
	if n.Replicas != 1 {
		d.addAt("$.nats.replicas", "the embedded server is a single node: replicas must be 1, not %d", n.Replicas)
	}
	if n.Embedded == nil {
		return
	}
	e := n.Embedded
	host, port, err := net.SplitHostPort(e.Listen)
	if err != nil || !isListenPort(port) {
		d.addAt("$.nats.embedded.listen", "%q is not host:port, as in 127.0.0.1:4222", e.Listen)
	} else if !isLoopback(host) {
		d.addAt("$.nats.embedded.listen", "%q is not a loopback address; give other hosts an external NATS server with authentication and TLS", host)
	}
	e.PasswordFile = checkedSecret(d, r, "$.nats.embedded.password_file", e.PasswordFile)
	if (e.User == "") != (e.PasswordFile == "") {
		d.addAt("$.nats.embedded", "embedded needs user and password_file together")
	}
}

// isListenPort reports whether a listener can have the port; 0 is any free one.
func isListenPort(port string) bool { return port == "0" || isPort(port) }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (l *Log) complete(d *document) {
	if l.Level == "" {
		l.Level = "info"
	}
	if l.Format == "" {
		l.Format = "auto"
	}
	oneOf(d, "$.log.level", l.Level, LogLevels)
	oneOf(d, "$.log.format", l.Format, LogFormats)
}

// LogLevels and LogFormats are what log.level and log.format may say.
var (
	LogLevels  = []string{"debug", "info", "warn", "error"}
	LogFormats = []string{"auto", "text", "json"}
)

// replicaCounts are what JetStream takes.
var replicaCounts = []int{1, 3, 5}

func oneOf(d *document, at, value string, allowed []string) {
	if !slices.Contains(allowed, value) {
		d.addAt(at, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
}

func required(d *document, path, field, value string) {
	if value == "" {
		d.addAt(path, "%s is missing", field)
	}
}

func checkedSecret(d *document, r resolver, at string, f SecretFile) SecretFile {
	if f == "" {
		return ""
	}
	f = SecretFile(r.secret(string(f)))
	if problem := f.problem(); problem != "" {
		d.addHost(at, "%s", problem)
	}
	return f
}

func checkedFile(d *document, r resolver, at, path string) string {
	if path == "" {
		return ""
	}
	path = r.secret(path)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		d.addHost(at, "file %s: %s", path, plainError(err))
	case info.IsDir():
		d.addHost(at, "file %s is a directory", path)
	}
	return path
}

// urlProblem says what is wrong with a URL, or "". Credentials in a URL would end up
// in logs, so they are refused.
func urlProblem(s string, schemes ...string) string {
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"):
		return "a URL with user and password in it would show them in logs; use the login fields"
	case err != nil || u.Host == "" || u.Port() != "" && !isPort(u.Port()):
		return fmt.Sprintf("%q is not a URL, as in %s://host:port", s, schemes[0])
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Sprintf("%q begins with %s; want %s", s, u.Scheme, strings.Join(schemes, " or "))
	}
	return ""
}
