package huaweicloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

const testPassword = "hunter2-hunter2-hunter2-hunter2-hunter2"

// iamFake is IAM and one service behind it.
type iamFake struct {
	mu       sync.Mutex
	password string
	life     time.Duration
	issued   int
	valid    map[string]bool
	scopes   []string
	refusal  func() *http.Response // what the service answers to a bad token
}

func newIAM() *iamFake {
	return &iamFake{
		password: testPassword, life: 24 * time.Hour, valid: map[string]bool{},
		refusal: func() *http.Response {
			return reply(401, `{"error_code":"APIGW.0301","error_msg":"decrypt token fail"}`)
		},
	}
}

func (f *iamFake) handle(r *http.Request, body []byte) (*http.Response, error) {
	time.Sleep(10 * time.Millisecond) // so that callers meet
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path != "/v3/auth/tokens" {
		if !f.valid[r.Header.Get("X-Auth-Token")] {
			return f.refusal(), nil
		}
		return reply(200, `{"id":"1"}`), nil
	}
	var login struct {
		Auth struct {
			Identity struct {
				Password struct{ User struct{ Password string } }
			}
			Scope json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &login); err != nil || r.URL.Query().Get("nocatalog") == "" {
		return reply(400, `{}`), nil
	}
	if login.Auth.Identity.Password.User.Password != f.password {
		return reply(401, `{"error":{"code":401,"message":"The username or password is wrong.","title":"Unauthorized"}}`), nil
	}
	f.scopes = append(f.scopes, string(login.Auth.Scope))
	f.issued++
	token := fmt.Sprintf("token-%d-%s", f.issued, strings.Repeat("x", 60))
	f.valid[token] = true
	const layout = "2006-01-02T15:04:05.000000Z"
	now := time.Now().UTC()
	return reply(201, fmt.Sprintf(`{"token":{"expires_at":%q,"issued_at":%q,"project":{"id":%q}}}`,
		now.Add(f.life).Format(layout), now.Format(layout), testProject), "X-Subject-Token", token), nil
}

func (f *iamFake) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.valid = map[string]bool{}
}

func passwordConfig(password Secret) Config {
	cfg := keyConfig()
	cfg.ProjectID = ""
	cfg.Auth = Password{User: "robot", Domain: "acme", Password: password}
	return cfg
}

const loginCall = "POST /v3/auth/tokens"

func TestFiftyCallersOneLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iam := newIAM()
		meter := &recorder{}
		cfg := passwordConfig(SecretText(testPassword))
		cfg.Meter = meter
		c, cloud := fakeClient(t, cfg, iam.handle)
		all := func() {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if err := c.Do(t.Context(), getCall(nil)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		all()
		if n := cloud.count(loginCall); n != 1 {
			t.Fatalf("%d logins, want 1", n)
		}
		if left := time.Until(meter.expiry); left < 23*time.Hour || left > 24*time.Hour {
			t.Errorf("expiry is %s away", left)
		}
		if iam.scopes[0] != `{"project":{"name":"eu-west-101"}}` {
			t.Errorf("scope %s", iam.scopes[0])
		}
		// All of them are refused at once and renew together.
		iam.revoke()
		all()
		if n := cloud.count(loginCall); n != 2 {
			t.Errorf("%d logins after the refusal, want 2", n)
		}
	})
}

// A caller that gives up does not take the login away from the others.
func TestLoginOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iam := newIAM()
		c, cloud := fakeClient(t, passwordConfig(SecretText(testPassword)), iam.handle)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error), make(chan error)
		go func() { first <- c.Do(ctx, createCall(nil, nil)) }()
		synctest.Wait() // the first one is in its login
		go func() { second <- c.Do(t.Context(), createCall(nil, nil)) }()
		synctest.Wait()
		cancel()
		err := <-first
		wantKind(t, err, providers.KindUnavailable) // it was never sent
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := <-second; err != nil {
			t.Error(err)
		}
		if n := cloud.count(loginCall); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
	})
}

func TestTokenIsRenewedBeforeItEnds(t *testing.T) {
	for _, tt := range []struct{ life, keeps time.Duration }{
		{24 * time.Hour, 24*time.Hour - 144*time.Minute}, // 10 %
		{5 * time.Minute, 4 * time.Minute},               // 60 s
	} {
		synctest.Test(t, func(t *testing.T) {
			iam := newIAM()
			iam.life = tt.life
			c, cloud := fakeClient(t, passwordConfig(SecretText(testPassword)), iam.handle)
			do := func() {
				if err := c.Do(t.Context(), getCall(nil)); err != nil {
					t.Fatal(err)
				}
			}
			do()
			time.Sleep(tt.keeps - time.Second)
			do()
			if n := cloud.count(loginCall); n != 1 {
				t.Errorf("life %s: %d logins early, want 1", tt.life, n)
			}
			time.Sleep(2 * time.Second)
			do()
			if n := cloud.count(loginCall); n != 2 {
				t.Errorf("life %s: %d logins late, want 2", tt.life, n)
			}
		})
	}
}

// A refused token is renewed once, whichever way the refusal is said; the call
// is then repeated, also a write, since it had no effect.
func TestRefusedTokenIsRenewedOnce(t *testing.T) {
	for name, refusal := range map[string]string{
		"gateway": `401 {"error_code":"APIGW.0301","error_msg":"decrypt token fail"}`,
		"waf":     `400 {"error_code":"WAF.00012001","error_msg":"invalid token"}`,
		"plain":   `401 `,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iam := newIAM()
				iam.refusal = func() *http.Response {
					status, body, _ := strings.Cut(refusal, " ")
					if status == "400" {
						return reply(400, body)
					}
					return reply(401, body)
				}
				c, cloud := fakeClient(t, passwordConfig(SecretText(testPassword)), iam.handle)
				var out struct{ ID string }
				if err := c.Do(t.Context(), createCall(nil, &out)); err != nil {
					t.Fatal(err)
				}
				iam.revoke()
				if err := c.Do(t.Context(), createCall(nil, &out)); err != nil {
					t.Fatal(err)
				}
				if n := cloud.count(loginCall); n != 2 {
					t.Errorf("%d logins, want 2", n)
				}
			})
		})
	}
}

// A service that refuses every token must not make us log in without end.
func TestRenewalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iam := newIAM()
		c, cloud := fakeClient(t, passwordConfig(SecretText(testPassword)), func(r *http.Request, body []byte) (*http.Response, error) {
			if r.URL.Path != "/v3/auth/tokens" {
				return iam.refusal(), nil
			}
			return iam.handle(r, body)
		})
		for range 20 {
			wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
		}
		if n := cloud.count(loginCall); n > 4 {
			t.Errorf("%d logins for 20 refused calls", n)
		}
	})
}

func TestWrongPasswordIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iam := newIAM()
		password := "wrong-" + testPassword
		c, cloud := fakeClient(t, passwordConfig(SecretFrom(func() (string, error) { return password, nil })), iam.handle)

		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				e := wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
				if e.Service != IAM || !strings.Contains(e.Error(), "not tried again until") || strings.Contains(e.Error(), password) {
					t.Errorf("got %v", e)
				}
			})
		}
		wg.Wait()
		logins := 1
		// 5 minutes, then 10, 20, 30, 30.
		for _, pause := range []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, 30 * time.Minute} {
			if n := cloud.count(loginCall); n != logins {
				t.Fatalf("%d logins, want %d", n, logins)
			}
			time.Sleep(pause - time.Second)
			e := wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
			if e.RetryAfter <= 0 || e.RetryAfter > time.Second {
				t.Errorf("retry after %s, want a second at most", e.RetryAfter)
			}
			if n := cloud.count(loginCall); n != logins {
				t.Fatalf("%d logins before %s were over, want %d", n, pause, logins)
			}
			time.Sleep(time.Second)
			wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
			logins++
		}
		// A changed password is another matter: it is tried at once.
		password = testPassword
		if err := c.Do(t.Context(), getCall(nil)); err != nil {
			t.Errorf("with the right password: %v", err)
		}
	})
}

// Both kinds of token come from the same password: the second scope must not try
// what the first one found wrong.
func TestWrongPasswordHoldsForAllScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iam := newIAM()
		c, cloud := fakeClient(t, passwordConfig(SecretText("wrong")), iam.handle)
		var wg sync.WaitGroup
		for _, call := range []Call{getCall(nil), {Service: CCM, Operation: "o", Op: "o", Method: "GET", Path: "/v1/x"}} {
			wg.Go(func() { wantKind(t, c.Do(t.Context(), call), providers.KindUnauthenticated) })
		}
		wg.Wait()
		if n := cloud.count(loginCall); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
	})
}

func TestScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, change := range map[string]func(*Config){
			`{"project":{"name":"eu-west-101"}}`:       func(*Config) {},
			`{"project":{"id":"` + testProject + `"}}`: func(c *Config) { c.ProjectID = testProject },
			`{"project":{"name":"eu-west-101_shop"}}`: func(c *Config) {
				c.Auth = Password{User: "robot", Domain: "acme", Project: "eu-west-101_shop", Password: SecretText(testPassword)}
			},
		} {
			iam := newIAM()
			cfg := passwordConfig(SecretText(testPassword))
			change(&cfg)
			c, _ := fakeClient(t, cfg, iam.handle)
			if err := c.Do(t.Context(), getCall(nil)); err != nil {
				t.Fatal(err)
			}
			if err := c.Do(t.Context(), Call{Service: CCM, Operation: "o", Op: "o", Method: "GET", Path: "/v1/x"}); err != nil {
				t.Fatal(err)
			}
			if got := iam.scopes; len(got) != 2 || got[0] != want || got[1] != `{"domain":{"name":"acme"}}` {
				t.Errorf("got %q, want %q and the domain", got, want)
			}
		}
	})
}

// A login that fails for other reasons says nothing of the call behind it: that
// one was not sent, so its outcome is known.
func TestLoginLost(t *testing.T) {
	c, _ := fakeClient(t, passwordConfig(SecretText(testPassword)), func(*http.Request, []byte) (*http.Response, error) {
		return nil, io.ErrUnexpectedEOF
	})
	err := c.Do(t.Context(), createCall(nil, nil))
	wantKind(t, err, providers.KindUnavailable)
	if !strings.HasPrefix(err.Error(), "waf: create thing: iam: log in: ") {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableSecret(t *testing.T) {
	gone := errors.New("open /run/credentials/x: no such file or directory")
	read := SecretFrom(func() (string, error) { return "", gone })
	for name, auth := range map[string]Auth{
		"password": Password{User: "u", Domain: "d", Password: read},
		"key":      AccessKey{ID: "AKID", Secret: read},
		"token":    AccessKey{ID: "AKID", Secret: SecretText("x"), SecurityToken: read},
	} {
		cfg := keyConfig()
		cfg.Auth = auth
		c, cloud := fakeClient(t, cfg, nil)
		err := c.Do(t.Context(), getCall(nil))
		wantKind(t, err, providers.KindUnauthenticated)
		if !errors.Is(err, gone) || len(cloud.calls) != 0 {
			t.Errorf("%s: %v, calls %v", name, err, cloud.calls)
		}
	}
}

func TestProjectLookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		projects := `[{"id":"` + testProject + `","name":"eu-west-101"},{"id":"x","name":"eu-west-101_sub"}]`
		cfg := keyConfig()
		cfg.ProjectID = ""
		c, cloud := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
			time.Sleep(time.Millisecond)
			if r.URL.Path == "/v3/projects" {
				if r.URL.RawQuery != "name=eu-west-101" || r.Header.Get("Authorization") == "" {
					t.Errorf("query %s", r.URL.RawQuery)
				}
				return reply(200, `{"projects":`+projects+`}`), nil
			}
			return reply(200, `{}`), nil
		})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := c.Do(t.Context(), getCall(nil)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := cloud.count("GET /v3/projects"); n != 1 {
			t.Errorf("%d look-ups, want 1", n)
		}
		if n := cloud.count("GET /v1/" + testProject + "/thing"); n != 50 {
			t.Errorf("%d calls to the project", n)
		}

		for _, bad := range []string{`[]`, `[{"id":"a"},{"id":"b"}]`, `[{"id":"","name":"eu-west-101"}]`} {
			projects = bad
			c, _ := fakeClient(t, cfg, cloud.handle)
			err := c.Do(t.Context(), getCall(nil))
			wantKind(t, err, providers.KindInvalid)
			if !strings.Contains(err.Error(), "set project_id") {
				t.Errorf("got %v", err)
			}
		}
	})
}
