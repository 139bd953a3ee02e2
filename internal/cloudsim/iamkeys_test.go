package cloudsim

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const securityTokens, securityKey = "/v3.0/OS-CREDENTIAL/securitytokens", "http://169.254.169.254/openstack/latest/securitykey"

type issuedKey struct {
	access, secret, security string
	expires                  time.Time
}

func keyOf(t *testing.T, r reply) issuedKey {
	t.Helper()
	row, _ := r.json["credential"].(map[string]any)
	text := func(name string) string { v, _ := row[name].(string); return v }
	key := issuedKey{access: text("access"), secret: text("secret"), security: text("securitytoken")}
	var err error
	if key.expires, err = time.Parse(iamTime, text("expires_at")); err != nil || key.access == "" || key.secret == "" || len(key.security) < 100 {
		t.Fatalf("no key: %d %s %v", r.status, r.text, err)
	}
	return key
}

// signed makes a WAF call with a temporary key.
func (b *bench) signed(key issuedKey) reply {
	b.t.Helper()
	return b.send("GET", "/v1/"+b.sim.Config().ProjectID+"/waf/certificate", nil, func(r *http.Request) {
		r.Header.Set("X-Security-Token", key.security)
		signIndependently(r, key.access, key.secret, time.Now(), "x-sdk-date", "x-security-token")
	})
}

func identity(method string, inner any) map[string]any {
	id := map[string]any{"methods": []string{method}}
	if inner != nil {
		id[method] = inner
	}
	return map[string]any{"auth": map[string]any{"identity": id}}
}

func agencyOf(more ...any) map[string]any {
	body := map[string]any{"agency_name": "rotators", "domain_name": testDomain}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return body
}

func withAgency(c *Config) { c.Agency = "rotators" }

// Reference 1.3: a token is traded for a key of 900 s by default, which signs until it ends.
func TestSecurityTokenByToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for _, how := range []string{"header", "body"} {
			var r reply
			if how == "header" {
				r = b.send("POST", securityTokens, identity("token", nil), b.withToken)
			} else {
				r = b.send("POST", securityTokens, identity("token", map[string]any{"id": b.token, "duration_seconds": 900}))
			}
			wantStatus(t, r, 201)
			key := keyOf(t, r)
			if left := time.Until(key.expires); left != 900*time.Second {
				t.Errorf("lives %s", left)
			}
			wantStatus(t, b.signed(key), 200)
			wrong := key
			wrong.security = ""
			wantError(t, b.signed(wrong), 401, "APIGW.0301")
			wrong = key
			wrong.secret += "x"
			wantError(t, b.signed(wrong), 401, "APIGW.0301")
			time.Sleep(900*time.Second - 1)
			wantStatus(t, b.signed(key), 200)
			time.Sleep(time.Nanosecond)
			wantError(t, b.signed(key), 401, "APIGW.0301")
		}
		for _, seconds := range []any{899, 86401, "900", 1.5} {
			wantStatus(t, b.send("POST", securityTokens, identity("token", map[string]any{"duration_seconds": seconds}), b.withToken), 400)
		}
		long := keyOf(t, b.send("POST", securityTokens, identity("token", map[string]any{"duration_seconds": 86400}), b.withToken))
		b.sim.ExpireKeys()
		wantStatus(t, b.signed(long), 401)
		for _, body := range []any{identity("password", nil), identity("totp", nil), map[string]any{"auth": map[string]any{}}, "x", identity("token", map[string]any{"x": 1})} {
			wantStatus(t, b.send("POST", securityTokens, body, b.withToken), 400)
		}
		wantStatus(t, b.send("POST", securityTokens, identity("token", nil)), 401)
		wantStatus(t, b.send("POST", securityTokens, identity("token", map[string]any{"id": "x"}), b.withToken), 401)
		wantStatus(t, b.send("POST", securityTokens, identity("token", nil), b.withToken, func(r *http.Request) { r.Header.Del("Content-Type") }), 400)
	})
}

// Reference 1.3: a key of an agency, for a caller with a token or a signature.
func TestSecurityTokenByAgency(t *testing.T) {
	b := newBench(t, withAgency)
	byKey := func(r *http.Request) { signIndependently(r, testAK, testSK, time.Now(), "x-sdk-date") }
	body := identity("assume_role", agencyOf("duration_seconds", 3600, "session_user", map[string]any{"name": "rotatord"}))
	for _, auth := range []func(*http.Request){b.withToken, byKey} {
		r := b.send("POST", securityTokens, body, auth)
		wantStatus(t, r, 201)
		wantStatus(t, b.signed(keyOf(t, r)), 200)
	}
	wantStatus(t, b.send("POST", securityTokens, body), 401)
	for _, wrong := range []map[string]any{agencyOf("agency_name", "others"), agencyOf("domain_name", "x"), agencyOf("domain_id", "x")} {
		wantStatus(t, b.send("POST", securityTokens, identity("assume_role", wrong), b.withToken), 404)
	}
	for _, wrong := range []any{
		nil, map[string]any{"agency_name": "rotators"}, map[string]any{"domain_name": testDomain}, agencyOf("x", 1), agencyOf("session_user", map[string]any{}),
		agencyOf("session_user", "x"), agencyOf("duration_seconds", 1), agencyOf("agency_name", 7),
	} {
		wantStatus(t, b.send("POST", securityTokens, identity("assume_role", wrong), b.withToken), 400)
	}
	wantStatus(t, newBench(t, nil).send("POST", securityTokens, body), 401)
	none := newBench(t, nil)
	wantStatus(t, none.send("POST", securityTokens, body, none.withToken), 404)
	// expire-token ends the very key that signs.
	key := keyOf(t, b.send("POST", securityTokens, body, b.withToken))
	b.add(Fault{Service: "waf", Name: FaultExpireToken, Count: 1})
	wantStatus(t, b.signed(key), 401)
	wantStatus(t, b.signed(key), 401)
	text := fmt.Sprintf("%+v %+v", b.sim.Ledger(), b.sim.state())
	if strings.Contains(text, key.secret) || strings.Contains(text, key.security) {
		t.Error("a secret leaked")
	}
}

// Reference 1.2: a token by assume_role, for the scope of the delegating account.
func TestAssumeRoleToken(t *testing.T) {
	b := newBench(t, withAgency)
	body := identity("assume_role", agencyOf())
	body["auth"].(map[string]any)["scope"] = map[string]any{"project": map[string]any{"name": b.sim.Config().Region}}
	r := b.send("POST", "/v3/auth/tokens?nocatalog=true", body, b.withToken)
	wantStatus(t, r, 201)
	if token := r.json["token"].(map[string]any); fmt.Sprint(token["methods"]) != "[assume_role]" || token["user"].(map[string]any)["name"] != testDomain+"/rotators" {
		t.Errorf("token: %s", r.text)
	}
	wantStatus(t, b.send("POST", "/v3/auth/tokens", body), 401)
	user := b.token
	b.token = r.header.Get("X-Subject-Token")
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
	// From one agency to the next there is no way.
	wantStatus(t, b.send("POST", "/v3/auth/tokens", body, b.withToken), 403)
	wantStatus(t, b.send("POST", securityTokens, identity("assume_role", agencyOf()), b.withToken), 403)
	wantStatus(t, b.send("POST", securityTokens, identity("token", nil), b.withToken), 201)
	b.token = user
	wantStatus(t, b.send("POST", "/v3/auth/tokens", identity("assume_role", agencyOf("agency_name", "others")), b.withToken), 404)
	wantStatus(t, b.send("POST", "/v3/auth/tokens", identity("assume_role", map[string]any{"agency_name": "rotators"}), b.withToken), 400)
	scoped := identity("assume_role", agencyOf())
	scoped["auth"].(map[string]any)["scope"] = map[string]any{"project": map[string]any{"name": "x"}}
	wantStatus(t, b.send("POST", "/v3/auth/tokens", scoped, b.withToken), 400)
}

// machine asks the metadata service in process.
func (b *bench) machine(method, url string, header ...string) reply {
	b.t.Helper()
	base := b.base
	b.base = ""
	defer func() { b.base = base }()
	return b.send(method, url, nil, func(r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
	})
}

// Reference 1.3: v1 without and v2 with a session token; the key signs, and is another one long before it ends.
func TestMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.Metadata, c.MetadataKeyValidity = true, 6*time.Hour })
		const session = "http://169.254.169.254/meta-data/latest/api/token"
		first := keyOf(t, b.machine("GET", securityKey))
		if left := time.Until(first.expires); left != 6*time.Hour {
			t.Errorf("lives %s", left)
		}
		wantStatus(t, b.signed(first), 200)
		token := b.machine("PUT", session, "X-Metadata-Token-Ttl-Seconds", "21600")
		if token.status != 200 || len(token.text) < 40 || token.json != nil {
			t.Errorf("session: %d %q", token.status, token.text)
		}
		if again := keyOf(t, b.machine("GET", securityKey, "X-Metadata-Token", token.text)); again != first {
			t.Error("another key at once")
		}
		for _, ttl := range []string{"", "0", "21601", "x"} {
			wantStatus(t, b.machine("PUT", session, "X-Metadata-Token-Ttl-Seconds", ttl), 400)
		}
		wantStatus(t, b.machine("GET", securityKey, "X-Metadata-Token", "x"), 401)
		time.Sleep(4 * time.Hour)
		second := keyOf(t, b.machine("GET", securityKey))
		if second == first {
			t.Error("the same key near its end")
		}
		wantStatus(t, b.signed(first), 200)
		wantStatus(t, b.signed(second), 200)
		time.Sleep(2 * time.Hour)
		wantStatus(t, b.machine("GET", securityKey, "X-Metadata-Token", token.text), 401)
		b.sim.ExpireKeys()
		wantStatus(t, b.signed(second), 401)
		wantStatus(t, b.signed(keyOf(t, b.machine("GET", securityKey))), 200)
		if e := b.sim.Ledger()[1]; e.Service != "metadata" || e.Operation != "GetSecurityKey" || !e.Effect || e.Status != 200 {
			t.Errorf("ledger: %+v", e)
		}
		b.add(Fault{Service: "metadata", Name: FaultLost, Count: 1})
		if r := b.machine("GET", securityKey); !errors.Is(r.err, io.ErrUnexpectedEOF) {
			t.Errorf("lost: %v", r.err)
		}

		old := newBench(t, func(c *Config) { c.Metadata, c.MetadataMode = true, MetadataV1 })
		wantStatus(t, old.machine("PUT", session, "X-Metadata-Token-Ttl-Seconds", "21600"), 404)
		keyOf(t, old.machine("GET", securityKey))
		strict := newBench(t, func(c *Config) { c.Metadata, c.MetadataMode = true, MetadataV2 })
		wantStatus(t, strict.machine("GET", securityKey), 401)
		keyOf(t, strict.machine("GET", securityKey, "X-Metadata-Token", strict.machine("PUT", session, "X-Metadata-Token-Ttl-Seconds", "60").text))
		wantStatus(t, newBench(t, nil).machine("GET", securityKey), 404) // off by default
	})
	if _, err := New(Config{MetadataMode: "v3"}); err == nil {
		t.Error("mode v3")
	}
}

// The listener speaks plain HTTP and has nothing of the API.
func TestMetadataListener(t *testing.T) {
	b := started(t, func(c *Config) { c.Metadata = true })
	url := b.sim.MetadataURL()
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Fatalf("URL %q", url)
	}
	keyOf(t, b.machine("GET", url+"/openstack/latest/securitykey"))
	wantStatus(t, b.machine("GET", url+"/v3/projects"), 404)
	wantStatus(t, b.send("GET", "/openstack/latest/securitykey", nil), 404)
	if b.sim.state()["metadata_url"] != url {
		t.Error("state has no URL")
	}
	if err := b.sim.Close(); err != nil {
		t.Error(err)
	}
	if r := b.machine("GET", url+"/openstack/latest/securitykey"); r.err == nil {
		t.Error("answers after Close")
	}
	if got := newBench(t, nil).sim.MetadataURL(); got != "" {
		t.Errorf("URL %q without a listener", got)
	}
}
