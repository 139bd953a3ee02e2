package cloudsim

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	testInstance    = "ins-0123456789abcdef"
	testApplication = "app-ins-0123456789abcdef"
	noCertificate   = "cer-" + noUUID
)

// identityBench is an account with two application instances.
type identityBench struct{ *bench }

func newIdentityBench(t *testing.T, change func(*Config)) *identityBench {
	t.Helper()
	return &identityBench{newBench(t, func(c *Config) {
		c.Instances = []IdentityInstance{{ID: testInstance, Applications: []Application{{ID: testApplication, Name: "Jira"}, {}}}, {}}
		if change != nil {
			change(c)
		}
	})}
}

// ic makes a signed call below the application instance.
func (b *identityBench) ic(method, path string, body any) reply {
	b.t.Helper()
	return b.signed(method, "/v1/instances/"+testInstance+"/application-instances/"+testApplication+path, body)
}

func (b *identityBench) signed(method, path string, body any) reply {
	b.t.Helper()
	return b.send(method, path, body, signAs(testAK, testSK))
}

// object returns the one object of an answer.
func (r reply) object(name string) map[string]any {
	inner, _ := r.json[name].(map[string]any)
	return inner
}

func (b *identityBench) create() map[string]any {
	b.t.Helper()
	r := b.ic("POST", "/certificates", nil)
	wantStatus(b.t, r, 201)
	return r.object("application_instance_certificate")
}

func (b *identityBench) list(query string) (rows []map[string]any, page map[string]any) {
	b.t.Helper()
	r := b.ic("GET", "/certificates"+query, nil)
	wantStatus(b.t, r, 200)
	list, _ := r.json["application_instance_certificates"].([]any)
	for _, row := range list {
		rows = append(rows, row.(map[string]any))
	}
	return rows, r.object("page_info")
}

// wantIdentityError checks the shape of Identity Center too: reference 6.1, [S000].
func wantIdentityError(t *testing.T, r reply, status int, code string) {
	t.Helper()
	wantError(t, r, status, code)
	_, encoded := r.json["encoded_authorization_message"]
	if r.str("request_id") != r.header.Get("X-Request-Id") || encoded != (status == 403) {
		t.Errorf("shape of %s", r.text)
	}
}

// [S000], reference 5.2, 5.4: create, list, activate, show, delete.
func TestIdentityLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIdentityBench(t, func(c *Config) { c.ClockOffset = 10 * time.Minute })
		now := b.sim.now()
		first, page := b.list("")
		if len(first) != 1 || first[0]["status"] != "ACTIVE" || page["next_marker"] != nil || page["current_count"] != 1.0 {
			t.Fatalf("at first %v, %v", first, page)
		}
		made := b.create()
		entry := lastEntry(b.bench)
		cert := fromCRLF(t, made["certificate"].(string))[0]
		sum := sha256.Sum256(cert.Raw)
		if entry.Service != "identity_center" || entry.Operation != "create_certificate" || !entry.Effect || entry.Auth != "signature" ||
			entry.Fingerprint != hex.EncodeToString(sum[:]) || !slices.Contains(entry.Objects, made["certificate_id"].(string)) {
			t.Errorf("ledger %+v", entry)
		}
		expiry := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC) // the bubble starts at midnight of 2000-01-01
		if made["status"] != "INACTIVE" || made["algorithm"] != "SHA256withRSA" || made["key_size"] != "2048" || len(made) != 7 ||
			made["issue_date"] != float64(now.UnixMilli()) || made["expiry_date"] != float64(expiry.UnixMilli()) || !cert.NotAfter.Equal(expiry) ||
			!cert.NotBefore.Equal(now) || cert.SignatureAlgorithm != x509.SHA256WithRSA || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
			t.Errorf("made %v, %s to %s", made, cert.NotBefore, cert.NotAfter)
		}
		id := made["certificate_id"].(string)
		r := b.ic("PUT", "/certificates/"+id, nil)
		wantStatus(t, r, 200)
		if got := r.object("application_instance_certificate"); got["status"] != "ACTIVE" || got["certificate"] != made["certificate"] || !lastEntry(b.bench).Effect {
			t.Errorf("activated %v", got)
		}
		wantStatus(t, b.ic("PUT", "/certificates/"+id, "{}"), 200)
		if lastEntry(b.bench).Effect {
			t.Error("the same once more is a change")
		}
		shown := b.ic("GET", "", nil).object("application_instance")
		if shown["active_certificate"].(map[string]any)["certificate_id"] != id || shown["name"] != "Jira" || shown["status"] != "ENABLED" ||
			shown["security_config"].(map[string]any)["ttl"] != "P5Y" || !strings.HasPrefix(shown["identity_provider_config"].(map[string]any)["metadata_url"].(string), "https://") {
			t.Errorf("shown %v", shown)
		}
		rows, _ := b.list("")
		if len(rows) != 2 || rows[0]["status"] != "INACTIVE" || rows[1]["certificate_id"] != id {
			t.Errorf("rows %v", rows)
		}
		refused := b.ic("DELETE", "/certificates/"+id, nil)
		wantIdentityError(t, refused, 400, "IIC.1002")
		old := first[0]["certificate_id"].(string)
		r = b.ic("DELETE", "/certificates/"+old, nil)
		wantStatus(t, r, 200)
		if r.text != "" || !lastEntry(b.bench).Effect {
			t.Errorf("deleted %q", r.text)
		}
		wantIdentityError(t, b.ic("DELETE", "/certificates/"+old, nil), 404, "IIC.404")
		wantIdentityError(t, b.ic("PUT", "/certificates/"+old, nil), 404, "IIC.404")
		if app := b.sim.Applications()[0]; app.InstanceID != testInstance || len(app.Certificates) != 1 || app.Certificates[0].Status != "ACTIVE" ||
			app.Certificates[0].Fingerprint != entry.Fingerprint || !app.Certificates[0].ExpiryDate.Equal(expiry) || !strings.HasPrefix(app.Certificates[0].PEM, "-----BEGIN") {
			t.Errorf("console %+v", app)
		}
	})
}

// The seed's own example: made on 2025-08-07 06:27:41 for five years, it ends on 2030-08-07 at midnight UTC [S000].
func TestIdentityExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := time.UnixMilli(1754548061000)
		b := newIdentityBench(t, func(c *Config) { c.ClockOffset = time.Until(made) })
		sign := func(r *http.Request) { signIndependently(r, testAK, testSK, made) }
		for ttl, want := range map[string]string{
			"P5Y": "2030-08-07", "P60M": "2030-08-07", "P6M": "2026-02-07", "P9M": "2026-05-07", "P12M": "2026-08-07", "P1Y": "2026-08-07",
			"P24M": "2027-08-07", "P2Y": "2027-08-07", "P36M": "2028-08-07", "P3Y": "2028-08-07", "P48M": "2029-08-07", "P4Y": "2029-08-07",
		} {
			path := "/v1/instances/" + testInstance + "/application-instances/" + testApplication
			body := map[string]any{"security_config": map[string]any{"ttl": ttl}}
			r := b.send("PUT", path+"/security-configuration", body, sign)
			wantStatus(t, r, 200)
			if shown := b.send("GET", path, nil, sign).object("application_instance"); r.text != "" || shown["security_config"].(map[string]any)["ttl"] != ttl {
				t.Errorf("%s: %q, %v", ttl, r.text, shown)
			}
			cert := b.send("POST", path+"/certificates", nil, sign).object("application_instance_certificate")
			want, _ := time.Parse(time.DateOnly, want)
			if cert["expiry_date"] != float64(want.UnixMilli()) || cert["issue_date"] != 1754548061000.0 {
				t.Errorf("%s: %v", ttl, cert)
			}
		}
	})
}

// Paging by markers of 24 hex digits; what is deleted between two pages costs no other row.
func TestIdentityPaging(t *testing.T) {
	for _, misbehave := range []bool{false, true} {
		for seed := range uint64(3) {
			b := newIdentityBench(t, func(c *Config) { c.Misbehave, c.Seed = misbehave, seed })
			want := map[string]bool{b.sim.Applications()[0].Certificates[0].ID: true}
			for range 4 {
				want[b.create()["certificate_id"].(string)] = true
			}
			query, pages := "?limit=2", 0
			for query != "" {
				rows, page := b.list(query)
				for _, row := range rows {
					id := row["certificate_id"].(string)
					if !want[id] {
						t.Errorf("%s came twice", id)
					}
					delete(want, id)
					if row["status"] == "INACTIVE" {
						wantStatus(t, b.ic("DELETE", "/certificates/"+id, nil), 200)
					}
				}
				query = ""
				if marker, more := page["next_marker"].(string); more {
					if len(marker) != 24 || strings.Trim(marker, "0123456789abcdef") != "" || page["current_count"] != 2.0 {
						t.Errorf("page %v", page)
					}
					query = "?limit=2&marker=" + marker
				}
				pages++
			}
			if len(want) > 0 || pages != 3 {
				t.Errorf("misbehave %v, seed %d: %d missing after %d pages", misbehave, seed, len(want), pages)
			}
		}
	}
	b := newIdentityBench(t, nil)
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "marker=", "marker=x", "marker=" + strings.Repeat("0", 24), "offset=1", "limit=1&limit=2"} {
		wantIdentityError(t, b.ic("GET", "/certificates?"+query, nil), 400, "IIC.400")
	}
}

// Config.ListLag: the list comes to know a certificate later; it can be activated at once.
func TestIdentityListLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIdentityBench(t, func(c *Config) { c.ListLag = time.Minute })
		id := b.create()["certificate_id"].(string)
		wantStatus(t, b.ic("PUT", "/certificates/"+id, nil), 200)
		if rows, _ := b.list(""); len(rows) != 1 || len(b.sim.Applications()[0].Certificates) != 2 {
			t.Errorf("too early: %v", rows)
		}
		time.Sleep(time.Minute)
		if rows, _ := b.list(""); len(rows) != 2 {
			t.Errorf("still not: %v", rows)
		}
	})
}

// Reference 5.2: patterns; [S000]: no body; reference 6.5: codes.
func TestIdentityRefusals(t *testing.T) {
	b := newIdentityBench(t, func(c *Config) { c.Instances[0].Applications[0].CertificateLimit = 2 })
	const base = "/v1/instances/"
	app := base + testInstance + "/application-instances/" + testApplication
	for _, body := range []any{`{"name":"x"}`, "x", "[]", "null"} {
		wantIdentityError(t, b.ic("POST", "/certificates", body), 400, "IIC.400")
		wantIdentityError(t, b.ic("PUT", "/certificates/"+noCertificate, body), 400, "IIC.400")
		wantIdentityError(t, b.ic("DELETE", "/certificates/"+noCertificate, body), 400, "IIC.400")
	}
	wantStatus(t, b.ic("POST", "/certificates", " {} "), 201)
	wantIdentityError(t, b.ic("POST", "/certificates", nil), 409, "IIC.1007")
	for path, want := range map[string]string{
		base + "a_b/application-instances/" + testApplication:                                "400 IIC.400",
		base + strings.Repeat("a", 65) + "/application-instances":                            "400 IIC.400",
		base + "unknown/application-instances":                                               "404 IIC.404",
		base + testInstance + "/application-instances/app-ins-012":                           "400 IIC.400",
		base + testInstance + "/application-instances/ins-0123456789abcdef":                  "400 IIC.400",
		base + testInstance + "/application-instances/app-ins-0123456789abcde-":              "400 IIC.400",
		base + testInstance + "/application-instances/app-ins-ffffffffffffffff":              "404 IIC.404",
		base + testInstance + "/application-instances/app-ins-ffffffffffffffff/certificates": "404 IIC.404",
		app + "?x=1":             "400 IIC.400",
		base + "?limit=1":        "404 APIGW.0101",
		app + "/certificates/x":  "404 APIGW.0101", // there is no call that shows one
		"/v1/instances?limit=no": "400 IIC.400",
		base + testInstance + "/application-instances?limit=no": "400 IIC.400",
	} {
		r := b.signed("GET", path, nil)
		if got := fmt.Sprint(r.status, " ", r.code()); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	for _, id := range []string{"x", noUUID, "cer-x", "cer-" + strings.Repeat("0", 36)} {
		wantIdentityError(t, b.ic("PUT", "/certificates/"+id, nil), 400, "IIC.400")
		wantIdentityError(t, b.ic("DELETE", "/certificates/"+id, nil), 400, "IIC.400")
	}
	wantIdentityError(t, b.ic("PUT", "/certificates/"+noCertificate+"?x=1", nil), 400, "IIC.400")
	for _, body := range []any{nil, "{}", `{"security_config":{}}`, `{"security_config":{"ttl":"P7M"}}`, `{"security_config":{"ttl":5}}`, `{"ttl":"P1Y"}`} {
		wantIdentityError(t, b.ic("PUT", "/security-configuration", body), 400, "IIC.400")
	}
	wantIdentityError(t, b.signed("PUT", base+testInstance+"/application-instances/app-ins-ffffffffffffffff/security-configuration",
		map[string]any{"security_config": map[string]any{"ttl": "P1Y"}}), 404, "IIC.404")
	plain := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
	wantIdentityError(t, b.send("PUT", app+"/security-configuration", `{"security_config":{"ttl":"P1Y"}}`, plain, signAs(testAK, testSK)), 400, "IIC.400")
	const nowhere = base + testInstance + "/application-instances/app-ins-ffffffffffffffff/certificates"
	wantIdentityError(t, b.signed("POST", nowhere, nil), 404, "IIC.404")
	if n := len(b.sim.Applications()[0].Certificates); n != 2 {
		t.Errorf("%d certificates", n)
	}
}

// An expired certificate cannot be activated (reference 5.5).
func TestIdentityExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newIdentityBench(t, func(c *Config) { c.Instances[0].Applications[0].TTL = "P6M" })
		id := b.create()["certificate_id"].(string)
		time.Sleep(190 * 24 * time.Hour)
		wantIdentityError(t, b.ic("PUT", "/certificates/"+id, nil), 400, "IIC.1002")
	})
}

// Reference 5.1: application instances and instances.
func TestIdentityLists(t *testing.T) {
	b := newIdentityBench(t, nil)
	r := b.signed("GET", "/v1/instances", nil)
	wantStatus(t, r, 200)
	instances := r.json["instances"].([]any)
	cfg := b.sim.Config().Instances
	if len(instances) != 2 || instances[0].(map[string]any)["instance_id"] != testInstance || instances[1].(map[string]any)["instance_id"] != cfg[1].ID {
		t.Errorf("instances %s", r.text)
	}
	r = b.signed("GET", "/v1/instances/"+testInstance+"/application-instances?limit=1", nil)
	wantStatus(t, r, 200)
	apps := r.json["application_instances"].([]any)
	if len(apps) != 1 || apps[0].(map[string]any)["application_instance_id"] != testApplication {
		t.Errorf("applications %s", r.text)
	}
	r = b.signed("GET", "/v1/instances/"+testInstance+"/application-instances?marker="+r.object("page_info")["next_marker"].(string), nil)
	apps = r.json["application_instances"].([]any)
	second := cfg[0].Applications[1]
	if len(apps) != 1 || apps[0].(map[string]any)["application_instance_id"] != second.ID || second.Name != "application-2" || second.TTL != "P5Y" ||
		!isApplicationID(second.ID) || b.sim.Applications()[1].ID != second.ID {
		t.Errorf("applications %s, config %+v", r.text, second)
	}
	if r := b.signed("GET", "/v1/instances/"+cfg[1].ID+"/application-instances", nil); len(r.json["application_instances"].([]any)) != 0 {
		t.Errorf("applications %s", r.text)
	}
}

// Doubt 2: only signatures are documented, so a token is refused, whatever its scope.
func TestIdentityAuthentication(t *testing.T) {
	b := newIdentityBench(t, nil)
	get := func(change ...func(*http.Request)) reply { return b.send("GET", "/v1/instances", nil, change...) }
	named := func(id string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("X-Domain-Id", id) } }
	for _, scope := range []string{"domain", "project"} {
		b.token = b.login(scope)
		wantError(t, get(b.withToken), 401, "APIGW.0301")
	}
	wantError(t, get(), 401, "APIGW.0301")
	wantStatus(t, get(b.withToken, signAs(testAK, testSK)), 200)
	wantStatus(t, get(named(b.sim.Config().DomainID), signAs(testAK, testSK)), 200)
	wantIdentityError(t, get(named(b.sim.Config().ProjectID), signAs(testAK, testSK)), 403, "IIC.1001")
	wantError(t, get(signAs(testAK, "wrong")), 401, "APIGW.0301")
	temporary := newIdentityBench(t, func(c *Config) { c.SecurityToken = "temporary" })
	wantError(t, temporary.signed("GET", "/v1/instances", nil), 401, "APIGW.0301")
	wantStatus(t, temporary.send("GET", "/v1/instances", nil, func(r *http.Request) {
		r.Header.Set("X-Security-Token", "temporary")
		signIndependently(r, testAK, testSK, time.Now(), "x-security-token")
	}), 200)
}

// Named answers have the service's own codes and its shape.
func TestIdentityFaults(t *testing.T) {
	b := newIdentityBench(t, nil)
	for name, tt := range map[string]struct {
		status int
		code   string
	}{
		FaultInternal: {500, "IIC.500"}, FaultBusy: {409, "IIC.1006"}, FaultTokenInvalid: {401, "IIC.401"},
		FaultThrottle: {429, "APIGW.0308"}, FaultUnauthorized: {401, "APIGW.0301"},
	} {
		for _, phase := range []Phase{Before, After} {
			before := len(b.sim.Applications()[0].Certificates)
			b.add(Fault{Service: "identity_center", Operation: "create_certificate", Name: name, Phase: phase, Count: 1})
			wantIdentityError(t, b.ic("POST", "/certificates", nil), tt.status, tt.code)
			if effect := len(b.sim.Applications()[0].Certificates) > before; effect != (phase == After) || lastEntry(b.bench).Effect != effect {
				t.Errorf("%s %s: effect %v", name, phase, effect)
			}
		}
	}
	for _, name := range []string{FaultLost, FaultCut} {
		before := len(b.sim.Applications()[0].Certificates)
		b.add(Fault{Service: "identity_center", Name: name, Count: 1})
		if r := b.ic("POST", "/certificates", nil); r.err == nil || len(b.sim.Applications()[0].Certificates) != before+1 {
			t.Errorf("%s: %v", name, r.err)
		}
	}
}

// Misbehaving, a write while another is under way on the same application instance is refused.
func TestIdentityConcurrency(t *testing.T) {
	b := newIdentityBench(t, func(c *Config) { c.Misbehave = true })
	hold := b.add(Fault{Service: "identity_center", Operation: "create_certificate", Name: FaultHold, Count: 1})
	var group sync.WaitGroup
	group.Go(func() { b.create() })
	if _, err := b.sim.Faults().WaitHeld(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	wantIdentityError(t, b.ic("POST", "/certificates", nil), 409, "IIC.1006")
	wantStatus(t, b.ic("GET", "/certificates", nil), 200)
	other := b.sim.Applications()[1].ID
	wantStatus(t, b.signed("POST", "/v1/instances/"+testInstance+"/application-instances/"+other+"/certificates", nil), 201)
	b.sim.Faults().Release(hold)
	group.Wait()
	b.create()
}

// Many at once, for the race detector: each certificate is there once, and one is active.
func TestIdentityParallel(t *testing.T) {
	b := newIdentityBench(t, nil)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			id := b.create()["certificate_id"].(string)
			b.ic("PUT", "/certificates/"+id, nil)
			b.list("?limit=3")
			b.sim.Applications()
		})
	}
	group.Wait()
	active := 0
	certs := b.sim.Applications()[0].Certificates
	for _, cert := range certs {
		if cert.Status == "ACTIVE" {
			active++
		}
	}
	if len(certs) != 9 || active != 1 {
		t.Errorf("%d certificates, %d active", len(certs), active)
	}
}

// Every operation has its name in the ledger.
func TestIdentityOperations(t *testing.T) {
	b := newIdentityBench(t, nil)
	id := b.create()["certificate_id"].(string)
	const app = "/v1/instances/" + testInstance + "/application-instances/" + testApplication
	for _, call := range []struct {
		method, path string
		body         any
		operation    string
	}{
		{"GET", "/v1/instances", nil, "list_instances"}, {"GET", "/v1/instances/" + testInstance + "/application-instances", nil, "list_applications"},
		{"GET", app, nil, "show_application"}, {"POST", app + "/certificates", nil, "create_certificate"}, {"GET", app + "/certificates", nil, "list_certificates"},
		{"PUT", app + "/security-configuration", map[string]any{"security_config": map[string]any{"ttl": "P1Y"}}, "update_security_configuration"},
		{"DELETE", app + "/certificates/" + id, nil, "delete_certificate"},
		{"PUT", app + "/certificates/" + b.create()["certificate_id"].(string), nil, "activate_certificate"},
	} {
		r := b.signed(call.method, call.path, call.body)
		if e := lastEntry(b.bench); e.Operation != call.operation || r.status >= 300 || e.Service != "identity_center" {
			t.Errorf("%s %s: %s %s, %d", call.method, call.path, e.Service, e.Operation, r.status)
		}
		wantIdentityError(t, b.signed(call.method, call.path+"?surprise=1", call.body), 400, "IIC.400")
	}
}

// The console, in Go and over the management API.
func TestIdentityConsole(t *testing.T) {
	b := newIdentityBench(t, func(c *Config) { c.Management, c.Instances[0].Applications[0].CertificateLimit = true, 1 })
	r := b.send("POST", "/sim/console/identity/create", map[string]any{"application_id": testApplication})
	wantStatus(t, r, 200)
	wantStatus(t, b.send("POST", "/sim/console/identity/activate", map[string]any{"application_id": testApplication, "certificate_id": r.str("id")}), 200)
	certs := b.sim.Applications()[0].Certificates
	if len(certs) != 2 || certs[1].ID != r.str("id") || certs[1].Status != "ACTIVE" || certs[0].Status != "INACTIVE" || lastEntry(b.bench).Operation != "ActivateIdentity" {
		t.Errorf("certificates %+v", certs)
	}
	if state := b.send("GET", "/sim/state", nil); len(state.json["applications"].([]any)) != 2 || strings.Contains(state.text, "PRIVATE KEY") {
		t.Errorf("state %s", state.text)
	}
	if b.sim.ConsoleActivate("x", "y") == nil || b.sim.ConsoleActivate(testApplication, noCertificate) == nil {
		t.Error("no error")
	}
	if _, err := b.sim.ConsoleCreate("x"); err == nil {
		t.Error("no error")
	}
}

// New refuses instances that make no sense.
func TestIdentityConfig(t *testing.T) {
	app := func(a Application) []IdentityInstance { return []IdentityInstance{{Applications: []Application{a}}} }
	for name, list := range map[string][]IdentityInstance{
		"id": {{ID: "a_b"}}, "twice": {{ID: "a"}, {ID: "a"}}, "application": app(Application{ID: "x"}), "ttl": app(Application{TTL: "P7Y"}), "limit": app(Application{CertificateLimit: -1}),
		"application twice": {{Applications: []Application{{ID: testApplication}}}, {Applications: []Application{{ID: testApplication}}}},
	} {
		if _, err := New(Config{Instances: list}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A call that arrives over a real connection without a body or a Content-Type is fine.
func TestIdentityOverTheWire(t *testing.T) {
	b := newIdentityBench(t, nil)
	if err := b.sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.sim.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, b.sim.URL()+"/v1/instances/"+testInstance+"/application-instances/"+testApplication+"/certificates", nil)
	signIndependently(r, testAK, testSK, time.Now())
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusCreated || !bytes.Contains(text, []byte("application_instance_certificate")) {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
}
