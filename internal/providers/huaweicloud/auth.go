package huaweicloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/rotatord/rotatord/internal/providers"
)

// Auth is a way to prove who is calling: AccessKey or Password. The set is
// closed to this package, because a session must keep its invariants.
type Auth interface {
	// open checks the settings and returns the session that uses them. It sends
	// nothing.
	open(c *Client) (session, error)
}

// session authorizes the requests of one Client. It is safe for concurrent use.
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
}

// subject is what the credentials of a request are wanted for.
type subject struct {
	project string // empty for a call that names none
	global  bool   // a service of the account, not of a project
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

// AccessKey signs every request with a key pair; with a security token if the
// pair is temporary.
type AccessKey struct {
	ID     string
	Secret Secret
	// SecurityToken belongs to a temporary pair; zero for a permanent one.
	SecurityToken Secret
}

func (a AccessKey) open(c *Client) (session, error) {
	if a.ID == "" || a.Secret.IsZero() {
		return nil, errors.New("access key: want id and secret")
	}
	return &keySession{key: a, client: c}, nil
}

// keySession reads the secrets each time, so there is nothing to renew.
type keySession struct {
	key    AccessKey
	client *Client

	flight  singleflight.Group
	mu      sync.Mutex
	project string // looked up; empty until then
}

func (s *keySession) authorize(_ context.Context, req *http.Request, body []byte, sub subject) error {
	secret, err := s.key.Secret.value()
	if err != nil {
		return fmt.Errorf("access key %s: %w", s.key.ID, err)
	}
	if !s.key.SecurityToken.IsZero() {
		token, err := s.key.SecurityToken.value()
		if err != nil {
			return fmt.Errorf("security token of access key %s: %w", s.key.ID, err)
		}
		req.Header.Set("X-Security-Token", token)
	}
	if sub.project != "" {
		req.Header.Set("X-Project-Id", sub.project)
	}
	if sub.global && s.client.config.DomainID != "" {
		req.Header.Set("X-Domain-Id", s.client.config.DomainID)
	}
	Sign(req, body, s.key.ID, secret, time.Now())
	return nil
}

func (s *keySession) renew(*http.Request) bool { return false }

// projectID looks the project up once (reference 1.5). Callers that come while
// the look-up is on its way share it.
func (s *keySession) projectID(ctx context.Context) (string, error) {
	s.mu.Lock()
	known := s.project
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	return shared(ctx, &s.flight, "project", 2*s.client.timeout, func(ctx context.Context) (string, error) {
		id, err := s.client.lookUpProject(ctx)
		if err != nil {
			return "", err
		}
		s.mu.Lock()
		s.project = id
		s.mu.Unlock()
		return id, nil
	})
}

// lookUpProject finds the project that has the region's name. Sub-projects are
// named region_name, so exactly one must be found.
func (c *Client) lookUpProject(ctx context.Context) (string, error) {
	var answer struct {
		Projects []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"projects"`
	}
	j := &job{Call: Call{
		Service: IAM, Operation: opListProjects, Op: "look up the project of region " + c.region,
		Method: http.MethodGet, Path: "/v3/projects", Query: url.Values{"name": {c.region}}, Out: &answer,
	}}
	if err := c.do(ctx, j); err != nil {
		return "", err
	}
	var ids []string
	for _, p := range answer.Projects {
		if p.Name == c.region || p.Name == "" {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) != 1 || ids[0] == "" {
		return "", j.fail(providers.KindInvalid,
			fmt.Sprintf("%d projects have the region's name, want 1; set project_id", len(ids)), nil)
	}
	return ids[0], nil
}

// shared runs fn once for all callers that come meanwhile. A caller that gives up
// does not stop it for the others; limit ends it. fn runs with the values of the
// first caller's context.
func shared[T any](ctx context.Context, g *singleflight.Group, key string, limit time.Duration,
	fn func(context.Context) (T, error),
) (T, error) {
	result := g.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return fn(ctx)
	})
	var none T
	select {
	case r := <-result:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func containsPlaceholder(path string) bool { return strings.Contains(path, projectPlaceholder) }
