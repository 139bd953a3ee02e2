package huaweicloud

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/rotatord/rotatord/internal/providers"
)

// lookUp keeps the answer to a question that is asked once for each owner of keys. It
// is safe for concurrent use.
type lookUp struct {
	flight singleflight.Group
	mu     sync.Mutex
	owner  string
	answer string
}

// get returns the answer. Callers that come while it is on its way share it.
func (l *lookUp) get(ctx context.Context, c *Client, owner string, ask func(context.Context) (string, error)) (string, error) {
	if known := l.known(owner); known != "" {
		return known, nil
	}
	return shared(ctx, &l.flight, owner, c.patience(), func(ctx context.Context) (string, error) {
		if known := l.known(owner); known != "" { // from a flight that ended just now
			return known, nil
		}
		id, err := ask(ctx)
		if err != nil {
			return "", err
		}
		l.mu.Lock()
		l.owner, l.answer = owner, id
		l.mu.Unlock()
		return id, nil
	})
}

func (l *lookUp) known(owner string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner != owner {
		return ""
	}
	return l.answer
}

// shared runs fn once for all callers that come meanwhile. A caller that gives up
// does not stop it for the others; limit ends it. fn runs with the values of the
// first caller's context.
func shared(ctx context.Context, g *singleflight.Group, key string, limit time.Duration,
	fn func(context.Context) (string, error),
) (string, error) {
	result := g.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return fn(ctx)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// findProject finds the project that has the region's name (reference 1.5). Sub-projects
// are named region_name, so exactly one must be found.
func (s *keySession) findProject(ctx context.Context) (string, error) {
	region := s.client.region
	var answer struct {
		Projects []named `json:"projects"`
	}
	j := &job{
		Call: Call{
			Service: IAM, Operation: opListProjects, Op: "look up the project of region " + region,
			Method: http.MethodGet, Path: "/v3/projects", Query: url.Values{"name": {region}}, Out: &answer,
		},
		by: s, errand: true,
	}
	if err := s.client.do(ctx, j); err != nil {
		return "", err
	}
	var ids []string
	for _, p := range answer.Projects {
		if p.Name == region || p.Name == "" {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) != 1 || ids[0] == "" {
		return "", j.fail(providers.KindInvalid,
			fmt.Sprintf("%d projects have the region's name, want 1; set project_id", len(ids)), nil)
	}
	return ids[0], nil
}

// findDomain finds the account that the keys are of: the first one (reference 1.5), or
// with an agency the one that made it, by its name.
func (s *keySession) findDomain(ctx context.Context) (string, error) {
	var answer struct {
		Domains []named `json:"domains"`
	}
	j := &job{
		Call: Call{
			Service: IAM, Operation: opListDomains, Op: "look up the account's id",
			Method: http.MethodGet, Path: "/v3/auth/domains", Out: &answer,
		},
		by: s, global: true, errand: true,
	}
	if err := s.client.do(ctx, j); err != nil {
		return "", err
	}
	for _, d := range answer.Domains {
		if d.ID != "" && (s.account == "" || d.Name == s.account) {
			return d.ID, nil
		}
	}
	text := "no account is named; set domain_id"
	if s.account != "" {
		text = fmt.Sprintf("account %q is not among the %d that are named; set domain_id", s.account, len(answer.Domains))
	}
	return "", j.fail(providers.KindInvalid, text, nil)
}

// named is an object of IAM.
type named struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// LogIn makes sure that the credentials are good, by a question to IAM that changes
// nothing. That they may not ask it is a success: they were recognised.
func (c *Client) LogIn(ctx context.Context) error {
	if c.bases[IAM] == nil {
		return nil // there is nobody to ask, and calls that need nobody go well
	}
	var answer struct {
		Projects []named `json:"projects"`
	}
	err := c.Do(ctx, Call{
		Service: IAM, Operation: opListProjects, Op: "look up the project of region " + c.region,
		Method: http.MethodGet, Path: "/v3/projects", Query: url.Values{"name": {c.region}}, Out: &answer,
	})
	switch providers.KindOf(err) {
	case providers.KindDenied, providers.KindNotFound:
		return nil
	default:
		return err
	}
}
