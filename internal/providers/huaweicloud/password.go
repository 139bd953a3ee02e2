package huaweicloud

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

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

func (p Password) open(c *Client, expiry func(time.Time)) (session, error) {
	switch {
	case p.User == "" || p.Domain == "" || p.Password.IsZero():
		return nil, errors.New("password: want user, domain and password")
	case p.Project == "" && c.config.ProjectID == "" && c.region == "":
		return nil, errors.New("password: want a project, a project id or a region")
	case c.bases[IAM] == nil:
		return nil, errors.New("password: no endpoint for iam")
	}
	s := &passwordSession{
		login: p, client: c, expiry: expiry, turn: make(chan struct{}, 1),
		memory: memory{path: c.config.PasswordMemory, rounds: digestRounds},
	}
	s.tokens = make(map[scope]*held[iamToken])
	for _, sc := range []scope{projectScope, domainScope} {
		s.tokens[sc] = newHeld(c.patience(), func(ctx context.Context) (lease[iamToken], error) { return s.logInInTurn(ctx, sc) }, c.renewedLate)
	}
	return s, nil
}

type scope string

const (
	projectScope scope = "project"
	domainScope  scope = "domain"
)

type iamToken struct {
	value     string
	projectID string
}

// Format writes [redacted] for every verb and flag.
func (iamToken) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// passwordSession holds the tokens of one login.
type passwordSession struct {
	login  Password
	client *Client
	expiry func(time.Time)
	tokens map[scope]*held[iamToken]
	// turn lets one login run at a time: of several with a wrong password only
	// the first counts towards the lock of the account.
	turn chan struct{}

	// refused and memory are for whoever has the turn.
	refused refusal
	memory  memory
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
	t, err := s.tokens[sc].get(ctx)
	if err != nil {
		return err
	}
	req.Header.Set("X-Auth-Token", t.value)
	return nil
}

func (s *passwordSession) renew(refused *http.Request) bool {
	value := refused.Header.Get("X-Auth-Token")
	for _, h := range s.tokens {
		if !h.drop(func(t iamToken) bool { return t.value == value }) {
			return false
		}
	}
	return true
}

func (s *passwordSession) signs() bool { return false }

func (s *passwordSession) projectID(ctx context.Context) (string, error) {
	t, err := s.tokens[projectScope].get(ctx)
	if err != nil {
		return "", err
	}
	if t.projectID == "" {
		return "", errors.New("the token names no project; set project_id")
	}
	return t.projectID, nil
}

func (s *passwordSession) logInInTurn(ctx context.Context, sc scope) (lease[iamToken], error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return lease[iamToken]{}, ctx.Err()
	}
	return s.logIn(ctx, sc)
}

// lostPause is the least time to the next login after one whose answer was lost: it may
// have been a refusal that IAM has counted.
const lostPause = 5 * time.Second

// logIn asks IAM for a token. A password that was refused is not sent again
// until its time has passed: five failures lock the account (reference 1.2).
func (s *passwordSession) logIn(ctx context.Context, sc scope) (lease[iamToken], error) {
	none := lease[iamToken]{}
	password, err := s.login.Password.value()
	if err != nil {
		return none, fmt.Errorf("password of user %q: %w", s.login.User, err)
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
		anonymous: true, errand: true, header: &header,
	}
	sum := sha256.Sum256([]byte(password))
	s.recall(password, sum)
	if err := s.heldBack(j, sum); err != nil {
		return none, err
	}
	if err := s.client.do(ctx, j); err != nil {
		return none, s.noteFailure(err, password, sum)
	}
	token := iamToken{value: header.Get("X-Subject-Token"), projectID: answer.Token.Project.ID}
	if token.value == "" || strings.ContainsFunc(token.value, notInToken) {
		return none, j.fail(providers.KindUnavailable, "the answer holds no token", nil)
	}
	life, err := answer.life(header)
	if err != nil {
		return none, j.fail(providers.KindUnavailable, "", err)
	}
	s.refused = refusal{}
	if err := s.memory.forget(); err != nil {
		s.warn(ctx, err)
	}
	l := newLease(token, life, tokenMargin(life))
	s.expiry(l.ends)
	return l, nil
}

// recall takes over what an earlier process remembered of this password.
func (s *passwordSession) recall(password string, sum [sha256.Size]byte) {
	if r := s.memory.load(); r != nil && s.memory.is(r, s.login, password) {
		s.refused = refusal{sum: sum, times: r.Times, until: r.Until}
	}
}

func (s *passwordSession) warn(ctx context.Context, err error) {
	s.client.log.LogAttrs(ctx, slog.LevelWarn, "the memory of refused passwords cannot be kept",
		slog.String("cloud", s.client.name), slog.String("err", err.Error()))
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

// noteFailure remembers a refused password and says in the error until when.
func (s *passwordSession) noteFailure(err error, password string, sum [sha256.Size]byte) error {
	e, ok := errors.AsType[*providers.Error](err)
	switch {
	case !ok:
		return err
	case e.Kind == providers.KindUnknownOutcome:
		e.Kind, e.RetryAfter = providers.KindUnavailable, lostPause
		return err
	case e.Kind != providers.KindUnauthenticated:
		return err
	}
	if s.refused.sum != sum {
		s.refused = refusal{sum: sum}
	}
	pause := min(firstPause<<min(s.refused.times, 8), lastPause)
	s.refused.times++
	s.refused.until = time.Now().Add(pause)
	if err := s.memory.keep(s.refused, s.login, password); err != nil {
		s.warn(context.Background(), err)
	}
	e.RetryAfter = pause
	e.Message = strings.TrimPrefix(fmt.Sprintf("%s; the password is not tried again until %s",
		e.Message, s.refused.until.UTC().Format(time.RFC3339)), "; ")
	return e
}

// tokenRequest is the body of a login (reference 1.2).
func (s *passwordSession) tokenRequest(password string, sc scope) any {
	target := named{Name: s.login.Project}
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

// tokenMargin is how long before its end a token is renewed (reference 1.2).
func tokenMargin(life time.Duration) time.Duration { return max(time.Minute, life/10) }

// life is how long the token is good, by IAM's own clock.
func (a *tokenAnswer) life(h http.Header) (time.Duration, error) {
	if life := a.Token.ExpiresAt.Sub(a.Token.IssuedAt); !a.Token.ExpiresAt.IsZero() && !a.Token.IssuedAt.IsZero() && life > 0 {
		return life, nil
	}
	return lifeOf(a.Token.ExpiresAt, h, tokenLife)
}
