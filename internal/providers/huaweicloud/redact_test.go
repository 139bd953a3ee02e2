package huaweicloud

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// Whatever a service does with what it was sent, nothing of it shows.
func TestNothingSecretShows(t *testing.T) {
	keyBytes := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("key material "), 20))
	var lines strings.Builder
	for i := 0; i < len(keyBytes); i += 64 {
		lines.WriteString(keyBytes[i:min(i+64, len(keyBytes))] + "\n")
	}
	pem := "-----BEGIN RSA PRIVATE KEY-----\n" + lines.String() + "-----END RSA PRIVATE KEY-----\n"
	quoted, _ := json.Marshal(pem)
	inner := strings.Trim(string(quoted), `"`)
	secrets := []string{testSecret, testPassword, "token-1-xxx", "BEGIN RSA"}
	for i := 0; i+16 <= len(keyBytes); i += 16 {
		secrets = append(secrets, keyBytes[i:i+16])
	}

	echoes := map[string]func(sent string) *http.Response{
		"as message": func(s string) *http.Response {
			b, _ := json.Marshal(map[string]string{"error_code": "WAF.00011001", "error_msg": s})
			return reply(400, string(b))
		},
		"escaped twice": func(s string) *http.Response {
			b, _ := json.Marshal(map[string]string{"error_code": "WAF.00011001", "error_msg": "bad: " + inner})
			return reply(400, string(b))
		},
		"as code": func(s string) *http.Response {
			b, _ := json.Marshal(map[string]string{"error_code": s, "request_id": s})
			return reply(400, string(b))
		},
		"without PEM lines": func(s string) *http.Response {
			b, _ := json.Marshal(map[string]string{"error_msg": "illegal content: " + lines.String()})
			return reply(400, string(b))
		},
		"as it came": func(s string) *http.Response { return reply(500, s) },
		"as HTML":    func(s string) *http.Response { return reply(502, "<html><title>"+pem+"</title>"+s) },
		"as success": func(s string) *http.Response { return reply(200, s+"x") },
		"wrong type": func(s string) *http.Response { return reply(200, `{"id":{"key":`+string(quoted)+`}}`) },
		"in headers": func(s string) *http.Response {
			return reply(400, "", "X-Request-Id", keyBytes, "Retry-After", keyBytes)
		},
		"throttled":        func(s string) *http.Response { return reply(429, s) },
		"denied":           func(s string) *http.Response { return reply(403, s) },
		"refused for good": func(s string) *http.Response { return reply(401, s) },
	}
	auths := map[string]Auth{
		"key":      AccessKey{ID: "AKID", Secret: SecretText(testSecret), SecurityToken: SecretText(testPassword)},
		"password": Password{User: "robot", Domain: "acme", Password: SecretText(testPassword)},
	}
	for name, echo := range echoes {
		for kind, auth := range auths {
			t.Run(name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					out, meter, iam := &logs{}, &recorder{}, newIAM()
					cfg := keyConfig()
					cfg.Auth, cfg.Logger, cfg.Meter = auth, out.logger(), meter
					c, _ := fakeClient(t, cfg, func(r *http.Request, body []byte) (*http.Response, error) {
						if r.URL.Path == "/v3/auth/tokens" {
							return iam.handle(r, body)
						}
						return echo(string(body) + fmt.Sprint(r.Header)), nil
					})
					var answer struct {
						ID string `json:"id"`
					}
					err := c.Do(t.Context(), createCall(map[string]string{"key": pem}, &answer))
					if err == nil {
						t.Fatal("no error")
					}
					shown := fmt.Sprintf("%v %+v %#v %+v", err, err, asError(err), meter.requests) + out.String()
					if inner := errors.Unwrap(err); inner != nil {
						shown += fmt.Sprintf("%+v", inner)
					}
					for _, s := range secrets {
						if strings.Contains(shown, s) {
							t.Fatalf("%q shows in %s", s, shown)
						}
					}
				})
			})
		}
	}
}

// A login that is answered with what was sent.
func TestPasswordDoesNotShow(t *testing.T) {
	for _, status := range []int{200, 201, 400, 401, 403, 500} {
		out := &logs{}
		cfg := passwordConfig(SecretText(testPassword))
		cfg.Logger = out.logger()
		c, _ := fakeClient(t, cfg, func(_ *http.Request, body []byte) (*http.Response, error) {
			b, _ := json.Marshal(map[string]any{"error": map[string]string{"message": string(body)}})
			return reply(status, string(b)), nil
		})
		err := c.once(t.Context(), getCall(nil))
		if err == nil {
			t.Fatalf("%d: no error", status)
		}
		if shown := fmt.Sprintf("%+v", err) + out.String(); strings.Contains(shown, testPassword) {
			t.Errorf("%d: %s", status, shown)
		}
	}
}

// Whoever hands out temporary keys, and whatever is wrong with the answer: the keys do
// not show, nor what they were asked for with.
func TestTemporaryKeysDoNotShow(t *testing.T) {
	const issued = "ISSUED-secret-ISSUED"
	answer := `{"credential":{"access":"HST3AAAA","secret":"` + issued + `","securitytoken":"` + issued + strings.Repeat("x", 60) + `"}}`
	profileFile := profile(t, twoSections, 0o600)
	auths := map[string]Auth{
		"metadata":           Metadata{},
		"environment":        Environment{Getenv: environ(envFile, profileFile)},
		"agency by key":      Agency{Name: "a", Domain: "acme", Base: AccessKey{ID: "AKID", Secret: SecretText(testSecret)}},
		"agency by password": Agency{Name: "a", Domain: "acme", Base: Password{User: "robot", Domain: "acme", Password: SecretText(testPassword)}},
		"agency by metadata": Agency{Name: "a", Domain: "acme", Base: Metadata{}},
	}
	echoes := map[string]func(sent string) *http.Response{
		"as message": func(s string) *http.Response {
			b, _ := json.Marshal(map[string]string{"error_code": "X.1", "error_msg": s})
			return reply(400, string(b))
		},
		"plain":      func(s string) *http.Response { return reply(401, s) },
		"failure":    func(s string) *http.Response { return reply(500, s) },
		"no JSON":    func(s string) *http.Response { return reply(200, s) },
		"wrong type": func(s string) *http.Response { return reply(200, `{"credential":{"secret":["`+issued+`"]}}`) },
		"bad time": func(s string) *http.Response {
			return reply(200, `{"credential":{"secret":"`+issued+`","expires_at":"`+issued+`"}}`)
		},
	}
	for name, auth := range auths {
		for how, echo := range echoes {
			for _, who := range []string{"issuer", "service"} {
				synctest.Test(t, func(t *testing.T) {
					out, meter, iam := &logs{}, &recorder{}, newIAM()
					cfg := keyConfig()
					cfg.Auth, cfg.Logger, cfg.Meter = auth, out.logger(), meter
					c, _ := fakeClient(t, cfg, func(r *http.Request, body []byte) (*http.Response, error) {
						fromService := strings.HasPrefix(r.URL.Path, "/v1/")
						switch {
						case r.URL.Path == "/v3/auth/tokens":
							return iam.handle(r, body)
						case fromService == (who == "service"):
							return echo(string(body) + fmt.Sprint(r.Header) + answer), nil
						case r.Method == http.MethodPut:
							return reply(200, issued), nil
						}
						return reply(200, answer), nil
					})
					err := c.Do(t.Context(), createCall(nil, &struct{ ID string }{}))
					if err == nil && !(how == "wrong type" || how == "bad time" || name == "environment") {
						t.Fatalf("%s, %s, %s: no error", name, how, who)
					}
					shown := fmt.Sprintf("%v %+v %#v", err, err, meter.requests) + fmt.Sprintf("%v %+v", cfg.Auth, c.sess != nil) + out.String()
					for _, s := range []string{issued, testSecret, testPassword} {
						if strings.Contains(shown, s) {
							t.Fatalf("%s, %s, %s: %q shows in %s", name, how, who, s, shown)
						}
					}
				})
			}
		}
	}
}

func TestSecretPrintsRedacted(t *testing.T) {
	s := SecretText(testSecret)
	type holder struct {
		S      Secret
		hidden Secret
	}
	h := holder{s, s}
	out := &logs{}
	out.logger().Info("x", "s", s, "h", h, "auth", AccessKey{ID: "a", Secret: s}, "cfg", keyConfig())
	j, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %d", s, h, h, s, s, s, s) + fmt.Sprintf("%+v %#v", &h, keyConfig()) + string(j) + out.String()
	if strings.Contains(shown, testSecret) || strings.Contains(shown, fmt.Sprintf("%x", testSecret)) {
		t.Errorf("the secret shows: %s", shown)
	}
	if s.LogValue().Kind() != slog.KindString || s.String() != "[redacted]" || s.GoString() != "[redacted]" {
		t.Error("want [redacted]")
	}
	if (Secret{}).IsZero() != true || s.IsZero() {
		t.Error("IsZero")
	}
	if _, err := (Secret{}).value(); err == nil {
		t.Error("the zero Secret has a value")
	}
	if _, err := SecretText("").value(); err == nil {
		t.Error("an empty secret has a value")
	}
}
