package huaweicloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Config says how to reach one account in one region.
type Config struct {
	// Name is the cloud's name in the configuration: metric label, messages.
	Name string
	// Region is for instance "eu-west-101". Endpoints and the project are derived
	// from it; it may be empty where both are given.
	Region string
	// ProjectID of the regional services. Empty: the one that the credentials are
	// bound to, else the one that has the region's name.
	ProjectID string
	// DomainID is the account's id, which global services are told with signed calls.
	// Empty: looked up.
	DomainID string
	// Auth is how to log in: AccessKey, Password, Agency, Metadata or Environment.
	Auth Auth
	// Endpoints are base URLs by service. Absent: derived from Region.
	Endpoints map[string]string
	// RootCAs are what servers are checked against; nil: the system's.
	RootCAs *x509.CertPool
	// ClientCertificate is shown to servers that ask for one. It is called at each
	// connection, so that a renewed certificate is used; nil: none is shown.
	ClientCertificate func() (*tls.Certificate, error)
	// Proxy is a URL; empty: HTTPS_PROXY and NO_PROXY of the environment.
	Proxy string
	// Timeout of one request and its answer, waiting behind Limits not counted;
	// 0: 30 s.
	Timeout time.Duration
	// Limits by service; absent: see Limit.
	Limits map[string]Limit
	// PasswordMemory is a file in which a refused password is remembered over a restart:
	// a time and a digest. Empty: it is remembered in this process only.
	PasswordMemory string
	// Logger gets one debug line for each request, and a warning when a service goes
	// down or credentials cannot be renewed; nil: none.
	Logger *slog.Logger
	// Meter is told of every request; nil: nobody is.
	Meter Meter
	// Transport replaces the network in tests, also towards the metadata service; nil: a
	// transport made from RootCAs, ClientCertificate and Proxy.
	Transport http.RoundTripper
}

// Client calls the services of one account in one region. It is safe for
// concurrent use.
type Client struct {
	name      string
	region    string
	config    Config // Auth excepted: sess holds it
	bases     map[string]*url.URL
	gates     map[string]*gate
	circuits  map[string]*circuit
	sess      session
	transport http.RoundTripper
	timeout   time.Duration
	log       *slog.Logger
	meter     Meter
}

// New checks the configuration and returns a Client. It sends nothing.
func New(cfg Config) (*Client, error) {
	c := &Client{
		name: cfg.Name, region: cfg.Region, config: cfg,
		gates: make(map[string]*gate), circuits: make(map[string]*circuit), transport: cfg.Transport,
		timeout: cfg.Timeout, log: cfg.Logger, meter: cfg.Meter,
	}
	if c.timeout == 0 {
		c.timeout = 30 * time.Second
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.meter == nil {
		c.meter = noMeter{}
	}
	if err := c.build(cfg); err != nil {
		return nil, fmt.Errorf("cloud %q: %w", cfg.Name, err)
	}
	return c, nil
}

func (c *Client) build(cfg Config) (err error) {
	if cfg.Region == "" && len(cfg.Endpoints) == 0 {
		return errors.New("want a region, or the endpoints themselves")
	}
	if strings.Trim(cfg.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("region %q: want lower-case letters, digits and -", cfg.Region)
	}
	if cfg.Timeout < 0 {
		return fmt.Errorf("timeout %s: want more than 0", cfg.Timeout)
	}
	if c.bases, err = endpoints(cfg.Endpoints, cfg.Region); err != nil {
		return err
	}
	if cfg.Auth == nil {
		return errors.New("auth: want a way to log in")
	}
	if c.sess, err = cfg.Auth.open(c, c.meter.CredentialsExpiry); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	for service, l := range cfg.Limits {
		if c.bases[service] == nil {
			return fmt.Errorf("limits: no service %q here", service)
		}
		if err := l.validate(); err != nil {
			return fmt.Errorf("limits of %s: %w", service, err)
		}
	}
	for service := range c.bases {
		c.gates[service] = newGate(cfg.Limits[service].withDefaults())
		c.circuits[service] = &circuit{}
	}
	if c.transport == nil {
		if c.transport, err = newTransport(cfg, c.timeout, c.Concurrency()); err != nil {
			return err
		}
	}
	return nil
}

func newTransport(cfg Config, timeout time.Duration, concurrency int) (*http.Transport, error) {
	proxy := http.ProxyFromEnvironment
	if cfg.Proxy != "" {
		u, err := url.Parse(cfg.Proxy)
		if err != nil || u.Host == "" {
			return nil, errors.New("proxy: not a URL with a host") // its text may hold a password
		}
		proxy = http.ProxyURL(u)
	}
	config := &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}
	if own := cfg.ClientCertificate; own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	return &http.Transport{
		Proxy:             proxy,
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		// As many as calls may be under way: one more would be closed after each call, and its
		// successor greeted with a handshake.
		MaxIdleConns:          4 * concurrency,
		MaxIdleConnsPerHost:   concurrency,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: timeout,
		// Tokens come in a header and may be 32 KB long (reference 1.1).
		MaxResponseHeaderBytes: 256 << 10,
	}, nil
}

// Name returns the cloud's name in the configuration.
func (c *Client) Name() string { return c.name }

// Concurrency is how many calls may be in flight at the service that takes the most.
func (c *Client) Concurrency() int {
	most := 0
	for _, g := range c.gates {
		most = max(most, cap(g.slots))
	}
	return most
}

// OpenTelekomCloud reports whether the account is one of Open Telekom Cloud,
// where some services know fewer calls (reference 2.12).
func (c *Client) OpenTelekomCloud() bool { return isOTC(c.region) }

// Signs reports whether the client signs its requests. With a password alone it does
// not, and calls to services that NeedSignature fail before anything is sent.
func (c *Client) Signs() bool { return c.sess.signs() }

// NeedsSignature reports whether a service takes signed requests only. Identity Center
// is not documented to take tokens (reference 1.1 and doubt 2).
func NeedsSignature(service string) bool { return service == IdentityCenter }

// ReportQuota is for adapters: the account holds used objects of a service and may hold
// limit. What a service does not tell, a limit of 0 or less, is not reported.
func (c *Client) ReportQuota(service string, used, limit int) {
	if c.bases[service] != nil && used >= 0 && limit > 0 {
		c.meter.Quota(service, used, limit)
	}
}

// Call describes one request.
type Call struct {
	Service string
	// Operation is the metric label, in snake case, from the adapter's closed set.
	Operation string
	// Op is what is being done, in words for errors: "create certificate".
	Op     string
	Method string
	// Path begins with a slash and holds escaped segments; "{project_id}" is
	// replaced.
	Path  string
	Query url.Values
	// Body is sent as JSON; nil: none.
	Body any
	// ContentType of the request; empty: application/json where there is a body.
	ContentType string
	// Out is what the answer's JSON is decoded into; nil: the answer is dropped.
	// Members that Out does not name are never kept.
	Out any
	// Creates says that the answer names a new object: a success without a
	// readable answer is then of kind UnknownOutcome. For other writes an empty
	// answer is good.
	Creates bool
	// MaxAnswer is the longest answer taken, in bytes, unpacked; 0: 4 MiB.
	MaxAnswer int64
	// Redact says that the request or the answer holds a key: the answer's buffer
	// is wiped, and the service's message is cleaned more strictly.
	Redact bool
}

const defaultMaxAnswer = 4 << 20

// job is a Call with what only this package may ask for.
type job struct {
	Call
	// by authorizes it instead of the client's session.
	by session
	// anonymous sends no credentials (the login itself).
	anonymous bool
	// global asks for credentials of the account although the service is regional.
	global bool
	// harmless says that a lost answer does not matter although it is no GET, again
	// that it is repeated like a GET.
	harmless, again bool
	// errand says that the call is made on the way to another one, whose caller must not
	// take a missing agency for a missing certificate.
	errand bool
	// header gets the answer's header of a success.
	header *http.Header
}

func (j *job) repeats() bool { return j.isRead() || j.again }
func (j *job) isRead() bool  { return j.Method == http.MethodGet }
func (j *job) isWrite() bool { return !j.isRead() && !j.harmless }

// Do sends one call and decodes its answer. Every error is, or wraps, a
// *providers.Error; errors.Is finds the context's error where it ended. Reads
// are repeated a few times while the service is unavailable; writes are not,
// except once after credentials were renewed.
func (c *Client) Do(ctx context.Context, call Call) error {
	return c.do(ctx, &job{Call: call})
}

// readRetries are the pauses between the tries of a read, each ±50 %. They bridge
// a restart of a gateway; what lasts longer is the caller's schedule.
var readRetries = [...]time.Duration{
	200 * time.Millisecond, // 0.2 s: a connection that was closed while idle
	time.Second,            // 1.2 s: one bad instance behind a balancer
	3 * time.Second,        // 4.2 s: a restart
}

func (c *Client) do(ctx context.Context, j *job) error {
	if err := c.check(j); err != nil {
		return err
	}
	body, err := encode(j.Body)
	if err != nil {
		return j.fail(providers.KindInvalid, "", err)
	}
	for try := 0; ; try++ {
		err := c.try(ctx, j, body)
		if err == nil || !j.repeats() || try == len(readRetries) || !worthRepeating(err) || !sleep(ctx, jitter(readRetries[try])) {
			return j.tamed(err)
		}
	}
}

// tamed keeps what IAM says of its own objects (there is no such agency) from being
// read as said of the object that the caller wants: NotFound would pass for deleted.
func (j *job) tamed(err error) error {
	e, ok := errors.AsType[*providers.Error](err)
	if !ok || !j.errand {
		return err
	}
	switch e.Kind {
	case providers.KindNotFound, providers.KindInUse, providers.KindExists, providers.KindConflict, providers.KindQuota:
		e.Kind = providers.KindInvalid
	default:
	}
	return err
}

// try makes one attempt, and a second one if the first was refused for its
// credentials and others could be had. A refused request had no effect, so this
// is safe for writes.
func (c *Client) try(ctx context.Context, j *job, body []byte) error {
	req, err := c.attempt(ctx, j, body)
	if req == nil || j.anonymous || providers.KindOf(err) != providers.KindUnauthenticated {
		return err
	}
	if !c.sessionOf(j).renew(req) {
		return err
	}
	_, err = c.attempt(ctx, j, body)
	return err
}

func (c *Client) sessionOf(j *job) session {
	if j.by != nil {
		return j.by
	}
	return c.sess
}

// worthRepeating reports whether a read may go better in a moment. One that
// nobody answered within the timeout has cost enough.
func worthRepeating(err error) bool {
	e, ok := errors.AsType[*providers.Error](err)
	return ok && e.Kind == providers.KindUnavailable && e.RetryAfter == 0 && !isTimeout(err)
}

// check refuses a call that this client cannot make at all.
func (c *Client) check(j *job) error {
	switch {
	case c.bases[j.Service] == nil:
		return j.fail(providers.KindInvalid, fmt.Sprintf("cloud %q has no endpoint for %s", c.name, j.Service), nil)
	case j.Op == "" || j.Operation == "" || j.Method == "" || !strings.HasPrefix(j.Path, "/"):
		return j.fail(providers.KindInvalid, "incomplete call: want op, operation, method and path", nil)
	case NeedsSignature(j.Service) && !c.sess.signs():
		return j.fail(providers.KindInvalid, fmt.Sprintf(
			"%s takes signed requests only, and cloud %q logs in with a password; use access_key, agency, metadata or environment", j.Service, c.name), nil)
	}
	return nil
}

// fail makes a *providers.Error about this call.
func (j *job) fail(kind providers.Kind, message string, err error) *providers.Error {
	return &providers.Error{Kind: kind, Op: j.Op, Service: j.Service, Message: message, Err: err}
}

// encode makes the body once; every attempt signs and sends the same bytes.
func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		// The error of a Marshaler could quote a value.
		return nil, fmt.Errorf("request of type %T cannot be encoded", body)
	}
	return b, nil
}

func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}

// sleep reports whether the time passed before the context ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
