package huaweicloud

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/rotatord/rotatord/internal/providers"
)

// Password logs a user in at IAM and sends the token with every call (reference
// 1.2). Regional services get a token of the project, global ones a token of the
// account; each is asked for when it is first needed.
type Password struct {
	// User is the IAM user's name and Domain the account's.
	User, Domain string
	Password     Secret
	// Project is the name of the project; empty: Config.ProjectID, else the
	// project that has the region's name.
	Project string
}

func (p Password) open(c *Client) (session, error) {
	switch {
	case p.User == "" || p.Domain == "" || p.Password.IsZero():
		return nil, errors.New("password: want user, domain and password")
	case p.Project == "" && c.config.ProjectID == "" && c.region == "":
		return nil, errors.New("password: want a project, a project id or a region")
	case c.bases[IAM] == nil:
		return nil, errors.New("password: no endpoint for iam")
	}
	return &passwordSession{
		login: p, client: c,
		tokens: make(map[scope]*iamToken),
		turn:   make(chan struct{}, 1),
		renews: rate.NewLimiter(rate.Every(time.Minute), 3),
	}, nil
}

type scope string

const (
	projectScope scope = "project"
	domainScope  scope = "domain"
)

type iamToken struct {
	value     string
	projectID string
	renewAt   time.Time
}

// passwordSession holds the tokens of one login.
type passwordSession struct {
	login  Password
	client *Client
	flight singleflight.Group
	// turn lets one login run at a time: of several with a wrong password only
	// the first counts towards the lock of the account.
	turn chan struct{}
	// renews bounds how often a refused token leads to a login at once, for the
	// case that a service refuses every token that IAM gives.
	renews *rate.Limiter

	mu      sync.Mutex
	tokens  map[scope]*iamToken
	refused refusal
}

// refusal remembers a password that IAM did not take.
type refusal struct {
	sum   [sha256.Size]byte // of the password: a changed one is tried at once
	times int
	until time.Time
}

func (s *passwordSession) authorize(ctx context.Context, req *http.Request, _ []byte, sub subject) error {
	sc := projectScope
	if sub.global {
		sc = domainScope
	}
	t, err := s.token(ctx, sc)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-Token", t.value)
	return nil
}

// renew drops the token of the refused request unless that has been done already.
func (s *passwordSession) renew(refused *http.Request) bool {
	value := refused.Header.Get("X-Auth-Token")
	s.mu.Lock()
	defer s.mu.Unlock()
	for sc, t := range s.tokens {
		if t.value != value {
			continue
		}
		if !s.renews.Allow() {
			return false
		}
		delete(s.tokens, sc)
	}
	return true
}

func (s *passwordSession) projectID(ctx context.Context) (string, error) {
	t, err := s.token(ctx, projectScope)
	if err != nil {
		return "", err
	}
	if t.projectID == "" {
		return "", errors.New("the token names no project; set project_id")
	}
	return t.projectID, nil
}

// token returns a token that is good for a while yet. All callers that come
// without one share a login.
func (s *passwordSession) token(ctx context.Context, sc scope) (*iamToken, error) {
	if t := s.cached(sc); t != nil {
		return t, nil
	}
	return shared(ctx, &s.flight, string(sc), 2*s.client.timeout, func(ctx context.Context) (*iamToken, error) {
		if t := s.cached(sc); t != nil { // from a flight that ended just now
			return t, nil
		}
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return s.logIn(ctx, sc)
	})
}

func (s *passwordSession) cached(sc scope) *iamToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[sc]; t != nil && time.Now().Before(t.renewAt) {
		return t
	}
	return nil
}

// logIn asks IAM for a token. A password that was refused is not sent again
// until its time has passed: five failures lock the account (reference 1.2).
func (s *passwordSession) logIn(ctx context.Context, sc scope) (*iamToken, error) {
	password, err := s.login.Password.value()
	if err != nil {
		return nil, fmt.Errorf("password of user %q: %w", s.login.User, err)
	}
	var answer tokenAnswer
	var header http.Header
	j := &job{
		Call: Call{
			Service: IAM, Operation: opCreateToken, Op: "log in",
			Method: http.MethodPost, Path: "/v3/auth/tokens",
			// Without the catalog the answer is much smaller.
			Query:  url.Values{"nocatalog": {"true"}},
			Body:   s.tokenRequest(password, sc),
			Out:    &answer,
			Redact: true,
		},
		anonymous: true, harmless: true, header: &header,
	}
	sum := sha256.Sum256([]byte(password))
	if err := s.heldBack(j, sum); err != nil {
		return nil, err
	}
	if err := s.client.do(ctx, j); err != nil {
		return nil, s.noteRefusal(err, sum)
	}
	t, expires := answer.token(header.Get("X-Subject-Token"), time.Now())
	if t.value == "" {
		return nil, j.fail(providers.KindUnavailable, "the answer holds no token", nil)
	}
	s.mu.Lock()
	s.tokens[sc], s.refused = t, refusal{}
	s.mu.Unlock()
	s.client.meter.CredentialsExpiry(expires)
	return t, nil
}

// The first refusal of a password holds it back for firstPause, each further one
// for twice as long up to lastPause. The default lock counts five failures within
// fifteen minutes.
const (
	firstPause = 5 * time.Minute
	lastPause  = 30 * time.Minute
)

// heldBack is the error for a password that is known to be refused.
func (s *passwordSession) heldBack(j *job, sum [sha256.Size]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := time.Until(s.refused.until)
	if s.refused.sum != sum || left <= 0 {
		return nil
	}
	e := j.fail(providers.KindUnauthenticated,
		fmt.Sprintf("the password of user %q was refused; not tried again until %s", s.login.User,
			s.refused.until.UTC().Format(time.RFC3339)), nil)
	e.RetryAfter = left
	return e
}

// noteRefusal remembers a refused password and says in the error until when.
func (s *passwordSession) noteRefusal(err error, sum [sha256.Size]byte) error {
	e, ok := errors.AsType[*providers.Error](err)
	if !ok || e.Kind != providers.KindUnauthenticated {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused.sum != sum {
		s.refused = refusal{sum: sum}
	}
	pause := min(firstPause<<min(s.refused.times, 8), lastPause)
	s.refused.times++
	s.refused.until = time.Now().Add(pause)
	e.RetryAfter = pause
	e.Message = strings.TrimPrefix(fmt.Sprintf("%s; the password is not tried again until %s",
		e.Message, s.refused.until.UTC().Format(time.RFC3339)), "; ")
	return e
}

// tokenRequest is the body of a login (reference 1.2).
func (s *passwordSession) tokenRequest(password string, sc scope) any {
	type named struct {
		Name string `json:"name,omitempty"`
		ID   string `json:"id,omitempty"`
	}
	target := named{Name: s.login.Project, ID: ""}
	switch {
	case sc == domainScope:
		target = named{Name: s.login.Domain}
	case target.Name != "":
	case s.client.config.ProjectID != "":
		target = named{ID: s.client.config.ProjectID}
	default:
		target = named{Name: s.client.region}
	}
	return map[string]any{"auth": map[string]any{
		"identity": map[string]any{
			"methods": []string{"password"},
			"password": map[string]any{"user": map[string]any{
				"name": s.login.User, "password": password, "domain": named{Name: s.login.Domain},
			}},
		},
		"scope": map[scope]named{sc: target},
	}}
}

// tokenAnswer is what is needed of IAM's answer.
type tokenAnswer struct {
	Token struct {
		ExpiresAt time.Time `json:"expires_at"`
		IssuedAt  time.Time `json:"issued_at"`
		Project   struct {
			ID string `json:"id"`
		} `json:"project"`
	} `json:"token"`
}

// tokenLife is the documented validity, for an answer that does not tell.
const tokenLife = 24 * time.Hour

// token works out when to renew: 10 % of its life before it ends, at least a
// minute. It counts from now and not from the issue time, so that a wrong clock
// of this host does not matter.
func (a *tokenAnswer) token(value string, now time.Time) (t *iamToken, expires time.Time) {
	life := tokenLife
	switch expires := a.Token.ExpiresAt; {
	case expires.IsZero():
	case !a.Token.IssuedAt.IsZero():
		life = expires.Sub(a.Token.IssuedAt)
	default:
		life = expires.Sub(now)
	}
	margin := max(time.Minute, life/10)
	return &iamToken{value: value, projectID: a.Token.Project.ID, renewAt: now.Add(life - margin)}, now.Add(life)
}
