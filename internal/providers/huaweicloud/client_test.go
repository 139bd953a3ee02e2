package huaweicloud

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/providers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a real TLS server and returns a configuration that reaches it.
func serve(t *testing.T, handler http.HandlerFunc) Config {
	t.Helper()
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	cfg := keyConfig()
	cfg.RootCAs = roots
	cfg.Endpoints = map[string]string{WAF: s.URL + "/base", IAM: s.URL}
	return cfg
}

// netClient is a Client over a real connection, whose idle connections are
// closed at the end.
func netClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := newClient(t, cfg)
	t.Cleanup(c.transport.(*http.Transport).CloseIdleConnections)
	return c
}

func TestRequestAsSent(t *testing.T) {
	var got *http.Request
	var body []byte
	c := netClient(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		body, _ = io.ReadAll(r.Body)
		io.WriteString(w, `{"id":"1","unknown":[1]}`)
	}))
	var out struct{ ID string }
	call := createCall(map[string]string{"name": "a<b>"}, &out)
	call.Path = "/v1/{project_id}/thing/a%2Fb"
	call.Query = url.Values{"z": {""}, "a": {"2 3", "1"}}
	call.ContentType = "application/json;charset=utf8"
	if err := c.Do(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if out.ID != "1" {
		t.Errorf("decoded %+v", out)
	}
	if want := "/base/v1/" + testProject + "/thing/a%2Fb?a=2+3&a=1&z="; got.RequestURI != want {
		t.Errorf("sent %s, want %s", got.RequestURI, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json;charset=utf8", "Accept": "application/json",
		"X-Project-Id": testProject, "User-Agent": "rotatord",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	// What arrived must verify: sign it again on this side.
	again := got.Clone(context.Background())
	again.Header = http.Header{"X-Project-Id": got.Header["X-Project-Id"]}
	at, err := time.Parse(dateLayout, got.Header.Get(headerDate))
	if err != nil {
		t.Fatal(err)
	}
	Sign(again, body, "AKID", testSecret, at)
	if again.Header.Get("Authorization") != got.Header.Get("Authorization") {
		t.Errorf("the signature does not fit the request that arrived: %s", got.Header.Get("Authorization"))
	}
}

func TestSecurityTokenAndDomain(t *testing.T) {
	cfg := keyConfig()
	cfg.DomainID = "d1"
	cfg.Auth = AccessKey{ID: "AKID", Secret: SecretText(testSecret), SecurityToken: SecretText("tok")}
	c, _ := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
		if r.Header.Get("X-Security-Token") != "tok" || !strings.Contains(r.Header.Get("Authorization"), "x-security-token") {
			t.Errorf("token missing or not signed: %v", r.Header)
		}
		if global := strings.HasPrefix(r.URL.Host, "ccm"); global != (r.Header.Get("X-Domain-Id") == "d1") || global == (r.Header.Get("X-Project-Id") != "") {
			t.Errorf("%s: %v", r.URL.Host, r.Header)
		}
		return reply(200, `{}`), nil
	})
	if err := c.Do(t.Context(), getCall(nil)); err != nil {
		t.Error(err)
	}
	global := Call{Service: CCM, Operation: "o", Op: "o", Method: "GET", Path: "/v1/private-certificates"}
	if err := c.Do(t.Context(), global); err != nil {
		t.Error(err)
	}
}

func TestEndpoints(t *testing.T) {
	tests := []struct{ region, service, want string }{
		{"cn-north-4", WAF, "https://waf.cn-north-4.myhuaweicloud.com"},
		{"cn-north-9", WAF, "https://waf.cn-north-9.myhuaweicloud.cn"},
		{"eu-west-101", WAF, "https://waf.eu-west-101.myhuaweicloud.com"},
		{"eu-west-101", APIG, "https://apig.eu-west-101.myhuaweicloud.eu"},
		{"eu-west-101", IAM, "https://iam.eu-west-101.myhuaweicloud.eu"},
		{"eu-west-101", CCM, "https://ccm.eu-west-101.myhuaweicloud.com"},
		{"sa-brazil-1", CCM, "https://ccm.myhuaweicloud.com"},
		{"ae-ad-1", IdentityCenter, "https://identitycenter.myhuaweicloud.com"},
		{"eu-de", IAM, "https://iam.eu-de.otc.t-systems.com"},
		{"eu-nl", WAF, "https://waf.eu-nl.otc.t-systems.com"},
		{"eu-de", CCM, ""},
		{"eu-de", IdentityCenter, ""},
	}
	for _, tt := range tests {
		bases, err := endpoints(nil, tt.region)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if b := bases[tt.service]; b != nil {
			got = b.String()
		}
		if got != tt.want {
			t.Errorf("%s in %s: %q, want %q", tt.service, tt.region, got, tt.want)
		}
	}
	if !slices.IsSorted(Services()) || !slices.IsSorted(Operations()) {
		t.Error("enumerations are not sorted")
	}
}

func TestBadConfigurations(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no region", func(c *Config) { c.Region = "" }, "want a region"},
		{"odd region", func(c *Config) { c.Region = "eu.evil.example/" }, "lower-case"},
		{"no auth", func(c *Config) { c.Auth = nil }, "want a way to log in"},
		{"no secret", func(c *Config) { c.Auth = AccessKey{ID: "a"} }, "want id and secret"},
		{"no user", func(c *Config) { c.Auth = Password{Domain: "d", Password: SecretText("p")} }, "want user"},
		{"unknown service", func(c *Config) { c.Endpoints = map[string]string{"wfa": "https://h"} }, `unknown service "wfa"`},
		{"plain http", func(c *Config) { c.Endpoints = map[string]string{WAF: "http://waf.example"} }, "want https"},
		{"password in URL", func(c *Config) { c.Endpoints = map[string]string{WAF: "https://u:hunter2@waf.example"} }, "without user"},
		{"no URL", func(c *Config) { c.Endpoints = map[string]string{WAF: "https://u:hunter2@ /"} }, "not a URL"},
		{"bad proxy", func(c *Config) { c.Proxy = "http://u:hunter2@[::1/" }, "proxy: not a URL"},
		{"negative limit", func(c *Config) { c.Limits = map[string]Limit{WAF: {Rate: -1}} }, "none negative"},
		{"limit of nothing", func(c *Config) { c.Limits = map[string]Limit{"x": {}} }, `no service "x"`},
		{"negative timeout", func(c *Config) { c.Timeout = -1 }, "want more than 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := keyConfig()
			tt.change(&cfg)
			_, err := New(cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), `cloud "test": `) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a password shows: %v", err)
			}
		})
	}
	cfg := keyConfig()
	cfg.Endpoints = map[string]string{WAF: "http://127.0.0.1:1"}
	newClient(t, cfg) // plain HTTP is good enough for loopback
}

func TestIncompleteCalls(t *testing.T) {
	cfg := keyConfig()
	cfg.Region = "eu-de"
	c, cloud := fakeClient(t, cfg, nil)
	for _, call := range []Call{
		{},
		{Service: CCM, Operation: "o", Op: "o", Method: "GET", Path: "/"},
		{Service: WAF, Op: "o", Method: "GET", Path: "/"},
		{Service: WAF, Operation: "o", Op: "o", Method: "GET", Path: "x"},
		{Service: WAF, Operation: "o", Op: "o", Method: "G T", Path: "/x"},
		{Service: WAF, Operation: "o", Op: "o", Method: "POST", Path: "/x", Body: func() {}},
		{Service: WAF, Operation: "o", Op: "o", Method: "GET", Path: "/%zz"},
	} {
		wantKind(t, c.Do(t.Context(), call), providers.KindInvalid)
	}
	if len(cloud.calls) != 0 {
		t.Errorf("sent %v", cloud.calls)
	}
}
