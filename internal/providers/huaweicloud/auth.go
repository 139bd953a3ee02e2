package huaweicloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Auth is a way to prove who is calling: AccessKey, Password, Agency, Metadata or
// Environment. The set is closed to this package, because a session must keep its
// invariants.
type Auth interface {
	// open checks the settings and returns the session that uses them. It sends
	// nothing. expiry is told when temporary credentials end.
	open(c *Client, expiry func(time.Time)) (session, error)
}

// session authorizes requests. It is safe for concurrent use.
type session interface {
	// authorize adds credentials to a request, getting them first where needed.
	// It may be called again for the same request and then replaces its own.
	authorize(ctx context.Context, req *http.Request, body []byte, s subject) error
	// renew is told that a service refused the credentials of this request. It
	// reports whether the next authorize will use others, so that one repetition
	// makes sense.
	renew(refused *http.Request) bool
	// projectID returns the project of the regional services.
	projectID(ctx context.Context) (string, error)
	// signs reports whether requests are signed, which Identity Center needs.
	signs() bool
}

// subject is what the credentials of a request are wanted for.
type subject struct {
	project string // empty for a call that names none
	global  bool   // credentials of the account instead of a project's
	account bool   // the service wants to be told the account's id
}

// projectFor returns the project that a call needs, or nothing if it needs none.
func (c *Client) projectFor(ctx context.Context, j *job) (string, error) {
	switch {
	case !containsPlaceholder(j.Path):
		return "", nil
	case c.config.ProjectID != "":
		return c.config.ProjectID, nil
	}
	return c.sess.projectID(ctx)
}

// patience bounds what happens on the way to credentials, which may take several calls.
func (c *Client) patience() time.Duration { return 4 * c.timeout }

// renewedLate tells that credentials could not be renewed ahead of time.
func (c *Client) renewedLate(err error, ends time.Time) {
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "credentials could not be renewed early; the old ones are used on",
		slog.String("cloud", c.name), slog.Time("until", ends.UTC()), slog.String("err", err.Error()))
}

// keys are what requests are signed with.
type keys struct {
	id, secret string
	token      string // of a temporary pair
	// project and domain are set where the source of the keys tells them.
	project, domain string
}

// Format writes [redacted] for every verb and flag.
func (keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// keySource gives keys. It is safe for concurrent use.
type keySource interface {
	// get returns keys for services of the account (global) or of a project.
	get(ctx context.Context, global bool) (keys, error)
	// refused is told that a service did not take the keys with this security token. It
	// reports whether the next get gives others.
	refused(token string) bool
	// owner is constant while the keys are of one account, however often they change.
	owner(k keys) string
}

// AccessKey signs every request with a key pair; with a security token if the
// pair is temporary.
type AccessKey struct {
	ID     string
	Secret Secret
	// SecurityToken belongs to a temporary pair; zero for a permanent one.
	SecurityToken Secret
}

func (a AccessKey) open(c *Client, _ func(time.Time)) (session, error) {
	if a.ID == "" || a.Secret.IsZero() {
		return nil, errors.New("access key: want id and secret")
	}
	return &keySession{source: a, client: c}, nil
}

// get reads the secrets each time, so there is nothing to renew.
func (a AccessKey) get(context.Context, bool) (keys, error) {
	secret, err := a.Secret.value()
	if err != nil {
		return keys{}, fmt.Errorf("access key %s: %w", a.ID, err)
	}
	k := keys{id: a.ID, secret: secret}
	if !a.SecurityToken.IsZero() {
		if k.token, err = a.SecurityToken.value(); err != nil {
			return keys{}, fmt.Errorf("security token of access key %s: %w", a.ID, err)
		}
	}
	return k, nil
}

func (AccessKey) refused(string) bool { return false }

func (AccessKey) owner(k keys) string { return k.id }

// leasedKeys are temporary keys that are renewed here.
type leasedKeys struct{ *held[keys] }

func (l leasedKeys) get(ctx context.Context, _ bool) (keys, error) { return l.held.get(ctx) }

func (l leasedKeys) refused(token string) bool {
	return l.drop(func(k keys) bool { return k.token == token })
}

func (leasedKeys) owner(keys) string { return "" }

// keysMargin is how long before their end temporary keys are renewed: 10 % of their
// life, at least 5 minutes and at most half. A request that waits for its turn is signed
// with keys that outlive it, and IAM may be away for some minutes even for keys of the
// shortest life, 15 minutes.
func keysMargin(life time.Duration) time.Duration {
	return min(max(life/10, 5*time.Minute), life/2)
}

// keysAnswer is how IAM and the metadata service give temporary keys (reference 1.3).
type keysAnswer struct {
	Credential struct {
		Access        string    `json:"access"`
		Secret        string    `json:"secret"`
		SecurityToken string    `json:"securitytoken"`
		ExpiresAt     time.Time `json:"expires_at"`
	} `json:"credential"`
}

func (a *keysAnswer) lease(h http.Header, fallback time.Duration, expiry func(time.Time)) (lease[keys], error) {
	c := a.Credential
	if c.Access == "" || c.Secret == "" || c.SecurityToken == "" || strings.ContainsFunc(c.Access+c.SecurityToken, notInToken) {
		return lease[keys]{}, errors.New("the answer holds no keys")
	}
	life, err := lifeOf(c.ExpiresAt, h, fallback)
	if err != nil {
		return lease[keys]{}, err
	}
	l := newLease(keys{id: c.Access, secret: c.Secret, token: c.SecurityToken}, life, keysMargin(life))
	expiry(l.ends)
	return l, nil
}

// keySession signs requests.
type keySession struct {
	source keySource
	client *Client
	// domain is the account's id where the way to log in names it, account its name.
	domain, account   string
	projects, domains lookUp
}

func (s *keySession) authorize(ctx context.Context, req *http.Request, body []byte, sub subject) error {
	k, err := s.source.get(ctx, sub.global)
	if err != nil {
		return err
	}
	domain := ""
	if sub.account {
		if domain, err = s.domainID(ctx, k); err != nil {
			return err
		}
	}
	for header, value := range map[string]string{"X-Security-Token": k.token, "X-Project-Id": sub.project, "X-Domain-Id": domain} {
		if value == "" {
			req.Header.Del(header)
			continue
		}
		req.Header.Set(header, value)
	}
	Sign(req, body, k.id, k.secret, time.Now())
	return nil
}

func (s *keySession) renew(refused *http.Request) bool {
	return s.source.refused(refused.Header.Get("X-Security-Token"))
}

func (s *keySession) signs() bool { return true }

func (s *keySession) projectID(ctx context.Context) (string, error) {
	k, err := s.source.get(ctx, false)
	if err != nil {
		return "", err
	}
	if k.project != "" {
		return k.project, nil
	}
	return s.projects.get(ctx, s.client, s.source.owner(k), s.findProject)
}

// domainID is the account's id: as configured, as told with the keys, else looked up.
// Without an endpoint of IAM it is not told: the header is optional (reference 1.8).
func (s *keySession) domainID(ctx context.Context, k keys) (string, error) {
	switch {
	case s.client.config.DomainID != "":
		return s.client.config.DomainID, nil
	case s.domain != "":
		return s.domain, nil
	case k.domain != "" || s.client.bases[IAM] == nil:
		return k.domain, nil
	}
	return s.domains.get(ctx, s.client, s.source.owner(k), s.findDomain)
}

func containsPlaceholder(path string) bool { return strings.Contains(path, projectPlaceholder) }
