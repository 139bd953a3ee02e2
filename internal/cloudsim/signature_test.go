package cloudsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"testing"
	"time"
)

// Known answers: AccessKey/SecretKey vectors of the official SDKs' signer tests (Go TestSigner_Sign, whose JSON encoder
// ends the body with a newline; Python test_signer1 and 2, which sign the host).
func TestSignatureKnownAnswers(t *testing.T) {
	tests := map[string]struct {
		method, url, body, date, headers, want string
	}{
		"go get":      {"GET", "https://example.huaweicloud.com/path?limit=1", "", "20060102T150405Z", "x-sdk-date", "5a2ce64c865e0e6046321c6f3d5a77ba8413eeaf355c3166c03d58d02ac79624"},
		"go post":     {"POST", "https://example.huaweicloud.com/path?key=value", `{"Name":"test","Id":1}` + "\n", "20060102T150405Z", "x-sdk-date", "cecc2af119b18ab70b4d094c0750f3b42c02f254903179a0fc2cc72fc9db4f59"},
		"python get":  {"GET", "https://service.endpoint.myhuaweicloud.com/resources?size=1", "", "20200608T023900Z", "host;x-sdk-date", "cfb4171acec81de07d50e53d57eb77edd537414d66ddb1d7d780f128e12cd842"},
		"python post": {"POST", "https://service.endpoint.myhuaweicloud.com/resources?size=1", `{"name":"test","id":1}`, "20200608T023900Z", "host;x-sdk-date", "436b1ac0a1ae03705934bb70ef2f2e09f7bfed2117d731a38235053199323a1f"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.url, nil)
			r.Header.Set("X-Sdk-Date", tt.date)
			r.Header.Set("Content-Type", "application/json")
			sig, err := parseSignature("SDK-HMAC-SHA256 Access=AccessKey, SignedHeaders=" + tt.headers + ", Signature=" + tt.want)
			if err != nil {
				t.Fatal(err)
			}
			now, _ := time.Parse(signDateLayout, tt.date)
			if err := verifySignature(r, []byte(tt.body), sig, "SecretKey", "", now); err != nil {
				t.Errorf("a right signature is refused: %v", err)
			}
			if err := verifySignature(r, []byte(tt.body+" "), sig, "SecretKey", "", now); err == nil {
				t.Error("a changed body is accepted")
			}
			if err := verifySignature(r, []byte(tt.body), sig, "SecretKez", "", now); err == nil {
				t.Error("another key is accepted")
			}
		})
	}
}

// The query of the SDK's TestSigner_canonicalQueryString.
func TestCanonicalQuery(t *testing.T) {
	got, err := canonicalQuery("test=%E4%B8%80+(%26%3D%3F!%23%25.*)&path=/tmp/123&multi=3&multi=1&multi=2&limit=1&enable=true&empty")
	want := "empty=&enable=true&limit=1&multi=1&multi=2&multi=3&path=%2Ftmp%2F123&test=%E4%B8%80%20%28%26%3D%3F%21%23%25.%2A%29"
	if err != nil || got != want {
		t.Errorf("got %s (%v)\nwant %s", got, err, want)
	}
}

// signIndependently is a second implementation of reference 1.4, as naive as possible and sharing no code with the
// verifier.
func signIndependently(r *http.Request, ak, sk string, at time.Time, names ...string) {
	r.Header.Set("X-Sdk-Date", at.UTC().Format("20060102T150405Z"))
	body := ""
	if r.Body != nil {
		data, _ := io.ReadAll(r.Body)
		body = string(data)
		r.Body = io.NopCloser(strings.NewReader(body))
	}
	escape := func(text string) string {
		var out strings.Builder
		for i := range len(text) {
			if strings.Contains("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~", text[i:i+1]) {
				out.WriteString(text[i : i+1])
			} else {
				out.WriteString("%" + strings.ToUpper(fmt.Sprintf("%02x", text[i])))
			}
		}
		return out.String()
	}
	uri := strings.TrimSuffix(strings.ReplaceAll(escape(r.URL.Path), "%2F", "/"), "/") + "/"
	var query []string
	for key, values := range r.URL.Query() {
		for _, value := range values {
			query = append(query, escape(key)+"="+escape(value))
		}
	}
	sort.Strings(query)
	names = append([]string{"x-sdk-date"}, names...)
	sort.Strings(names)
	var headers strings.Builder
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.URL.Host
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	canonical := r.Method + "\n" + uri + "\n" + strings.Join(query, "&") + "\n" + headers.String() + "\n" + strings.Join(names, ";") + "\n" +
		fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	mac := hmac.New(sha256.New, []byte(sk))
	fmt.Fprintf(mac, "SDK-HMAC-SHA256\n%s\n%x", r.Header.Get("X-Sdk-Date"), sha256.Sum256([]byte(canonical)))
	r.Header.Set("Authorization", fmt.Sprintf("SDK-HMAC-SHA256 Access=%s, SignedHeaders=%s, Signature=%x", ak, strings.Join(names, ";"), mac.Sum(nil)))
}

// Reference 1.4 and 6.6: every way to sign wrongly is 401 APIGW.0301 and does not reach the service.
func TestSignedCalls(t *testing.T) {
	b := newBench(t, nil)
	path := "/v1/" + b.sim.Config().ProjectID + "/waf/certificate"
	sign := func(change func(*http.Request), names ...string) func(*http.Request) {
		return func(r *http.Request) {
			signIndependently(r, testAK, testSK, time.Now(), names...)
			if change != nil {
				change(r)
			}
		}
	}
	p := newPair(apiHost)
	good := b.send("POST", path+"?verify_cert_key=true&enterprise_project_id=0", upl("signed one", p),
		func(r *http.Request) { r.Header.Set("X-Project-Id", b.sim.Config().ProjectID) }, sign(nil, "host", "x-project-id"))
	wantError(t, good, 400, codeName) // it reached the service, which does not like blanks
	wantStatus(t, b.send("GET", path+"?name=a%20b%2B%2F&host=true", nil, sign(nil)), 200)
	wantStatus(t, b.send("GET", "/v3/projects?name=x", nil, sign(nil, "host")), 200)
	wantStatus(t, b.send("POST", path, upl("unsigned-payload", p), func(r *http.Request) {
		r.Header.Set("X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD")
		data, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(data)))
		// The hash of the body is replaced by the header's value: sign by hand.
		canonical := "POST\n" + path + "/\n\nx-sdk-date:" + date(r) + "\n\nx-sdk-date\nUNSIGNED-PAYLOAD"
		mac := hmac.New(sha256.New, []byte(testSK))
		fmt.Fprintf(mac, "SDK-HMAC-SHA256\n%s\n%x", date(r), sha256.Sum256([]byte(canonical)))
		r.Header.Set("Authorization", fmt.Sprintf("SDK-HMAC-SHA256 Access=%s, SignedHeaders=x-sdk-date, Signature=%x", testAK, mac.Sum(nil)))
	}), 200)

	before := len(b.sim.Certificates())
	bad := map[string]func(*http.Request){
		"nothing":           func(*http.Request) {},
		"key":               func(r *http.Request) { signIndependently(r, testAK, "other", time.Now()) },
		"access":            func(r *http.Request) { signIndependently(r, "OTHER", testSK, time.Now()) },
		"slow clock":        func(r *http.Request) { signIndependently(r, testAK, testSK, time.Now().Add(-16*time.Minute)) },
		"fast clock":        func(r *http.Request) { signIndependently(r, testAK, testSK, time.Now().Add(16*time.Minute)) },
		"no date":           sign(func(r *http.Request) { r.Header.Del("X-Sdk-Date") }),
		"path":              sign(func(r *http.Request) { r.URL.Path += "/" + strings.Repeat("a", 32); r.Method = "GET" }),
		"query":             sign(func(r *http.Request) { r.URL.RawQuery = "verify_cert_key=true" }),
		"header changed":    sign(func(r *http.Request) { r.Header.Set("X-Project-Id", "other") }, "x-project-id"),
		"header gone":       sign(func(r *http.Request) { r.Header.Del("X-Project-Id") }, "x-project-id"),
		"algorithm":         sign(func(r *http.Request) { swapAuth(r, "SDK-HMAC-SHA256", "SDK-HMAC-SM3") }),
		"missing part":      sign(func(r *http.Request) { swapAuth(r, "SignedHeaders=x-sdk-date, ", "") }),
		"unknown part":      sign(func(r *http.Request) { swapAuth(r, "Access", "Scope=a, Access") }),
		"upper-case header": sign(func(r *http.Request) { swapAuth(r, "x-sdk-date", "X-Sdk-Date") }),
		"body hash":         sign(func(r *http.Request) { r.Header.Set("X-Sdk-Content-Sha256", strings.Repeat("0", 64)) }),
		"security token":    sign(func(r *http.Request) { r.Header.Set("X-Security-Token", "not ours") }),
	}
	for name, change := range bad {
		t.Run(name, func(t *testing.T) {
			r := b.send("POST", path, upl("never", newPair(apiHost)), change)
			if name == "path" {
				r = b.send("POST", path, nil, change)
			}
			wantError(t, r, 401, "APIGW.0301")
			if !strings.HasPrefix(r.str("error_msg"), "Incorrect IAM authentication information: ") || r.str("request_id") == "" {
				t.Errorf("the gateway's answer is %s", r.text)
			}
		})
	}
	if got := len(b.sim.Certificates()); got != before {
		t.Errorf("%d certificates, want %d: a refused call reached the service", got, before)
	}
}

func date(r *http.Request) string {
	if r.Header.Get("X-Sdk-Date") == "" {
		r.Header.Set("X-Sdk-Date", time.Now().UTC().Format("20060102T150405Z"))
	}
	return r.Header.Get("X-Sdk-Date")
}

func swapAuth(r *http.Request, from, to string) {
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), from, to, 1))
}

// Reference 1.3: temporary keys need X-Security-Token, and it must be signed.
func TestTemporaryKeys(t *testing.T) {
	b := newBench(t, func(c *Config) { c.SecurityToken = "sts-token" })
	path := "/v1/" + b.sim.Config().ProjectID + "/waf/certificate"
	token := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Security-Token", value) }
	}
	sign := func(names ...string) func(*http.Request) {
		return func(r *http.Request) { signIndependently(r, testAK, testSK, time.Now(), names...) }
	}
	wantStatus(t, b.send("GET", path, nil, token("sts-token"), sign("x-security-token")), 200)
	wantError(t, b.send("GET", path, nil, token("sts-token"), sign()), 401, "APIGW.0301")
	wantError(t, b.send("GET", path, nil, token("other"), sign("x-security-token")), 401, "APIGW.0301")
	wantError(t, b.send("GET", path, nil, sign()), 401, "APIGW.0301")
}

// Doubt 23: the cloud's clock is in the Date header, and the skew is judged by it.
func TestClockOffset(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ClockOffset = time.Hour })
	path := "/v1/" + b.sim.Config().ProjectID + "/waf/certificate"
	r := b.send("GET", path, nil, func(r *http.Request) { signIndependently(r, testAK, testSK, time.Now()) })
	wantError(t, r, 401, "APIGW.0301")
	server, err := http.ParseTime(r.header.Get("Date"))
	if err != nil || time.Until(server) < 50*time.Minute {
		t.Fatalf("Date is %q", r.header.Get("Date"))
	}
	wantStatus(t, b.send("GET", path, nil, func(r *http.Request) { signIndependently(r, testAK, testSK, server) }), 200)
}
