package huaweicloud

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The signatures below are those of the official SDK v0.1.207 for the same
// requests; conformance/ compares many more.
func TestSign(t *testing.T) {
	at := time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC)
	tests := []struct {
		name, method, url, body string
		header                  map[string]string
		signed, signature       string
	}{
		{
			name: "query", method: "GET", url: "https://example.huaweicloud.com/path?limit=1",
			header:    map[string]string{"TEST_UNDERSCORE": "TEST_VALUE"},
			signed:    "host;x-sdk-date",
			signature: "7eb88c06474c7197e670e0ae61651746453587eb5fad98074266578511cf3c01",
		},
		{
			name: "body", method: "POST", url: "https://example.huaweicloud.com/path?key=value",
			body:      `{"Name":"test","Id":1}`,
			header:    map[string]string{"TEST_UNDERSCORE": "TEST_VALUE", "Content-Type": "application/json;charset=utf8", "User-Agent": "x"},
			signed:    "host;x-sdk-date",
			signature: "8b36b588a2135b461dcd2427c1a87a938d8cb3f94c74e85aa0baff2fa60eff9b",
		},
		{
			name: "odd path, odd query, token", method: "PUT",
			url:       "https://waf.example:8443/v1/a%20b/%E4%B8%80/(c)?b=2&a=%E4%B8%80%20%28%26%3D%3F%21%23%25.%2A%29&a=&a=%7E&c",
			body:      "{}",
			header:    map[string]string{"X-Security-Token": " tok ", "X-Project-Id": testProject},
			signed:    "host;x-project-id;x-sdk-date;x-security-token",
			signature: "6449457e65249210748b7ec52732f8f1779e36ab8a2c0c3e25b0520329a00f13",
		},
		{
			name: "unsigned payload", method: "POST", url: "https://example.huaweicloud.com/",
			body:      "binary",
			header:    map[string]string{"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"},
			signed:    "host;x-sdk-content-sha256;x-sdk-date",
			signature: "17180ab4f77eeccaefd240e3ce17299e19c6ae9cf9ee691633e6111ff03bc79d",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, tt.url, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
			Sign(req, []byte(tt.body), "AccessKey", "SecretKey", at)
			want := "SDK-HMAC-SHA256 Access=AccessKey, SignedHeaders=" + tt.signed + ", Signature=" + tt.signature
			if got := req.Header.Get("Authorization"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if got := req.Header.Get("X-Sdk-Date"); got != "20060102T150405Z" {
				t.Errorf("date %s", got)
			}
			if req.URL.String() != tt.url {
				t.Errorf("the URL changed to %s", req.URL)
			}
		})
	}
}

func TestSignAgainReplaces(t *testing.T) {
	req, _ := http.NewRequest(http.MethodGet, "https://h/p", nil)
	Sign(req, nil, "a", "s", time.Unix(0, 0))
	first := req.Header.Get("Authorization")
	Sign(req, nil, "a", "s", time.Unix(60, 0))
	if req.Header.Get("Authorization") == first || len(req.Header["Authorization"]) != 1 || len(req.Header["X-Sdk-Date"]) != 1 {
		t.Errorf("headers %v", req.Header)
	}
	Sign(req, nil, "a", "s", time.Unix(0, 0))
	if req.Header.Get("Authorization") != first {
		t.Error("the earlier signature became part of the later one")
	}
}

// The example of the official SDK's own test.
func TestCanonicalQuery(t *testing.T) {
	u := &url.URL{RawQuery: url.Values{
		"limit": {"1"}, "enable": {"true"}, "test": {"一 (&=?!#%.*)"}, "path": {"/tmp/123"}, "multi": {"3", "1", "2"}, "empty": {""},
	}.Encode()}
	want := "empty=&enable=true&limit=1&multi=1&multi=2&multi=3&path=%2Ftmp%2F123&test=%E4%B8%80%20%28%26%3D%3F%21%23%25.%2A%29"
	if got := canonicalQuery(u); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCanonicalURI(t *testing.T) {
	for given, want := range map[string]string{
		"https://h":            "/",
		"https://h/":           "/",
		"https://h/a/b":        "/a/b/",
		"https://h/a/b/":       "/a/b/",
		"https://h/a%2Fb/c":    "/a%2Fb/c/",
		"https://h/a+b/~c/*":   "/a%2Bb/~c/%2A/",
		"https://h/a//b":       "/a//b/",
		"https://h/%E4%B8%80:": "/%E4%B8%80%3A/",
	} {
		u, err := url.Parse(given)
		if err != nil {
			t.Fatal(err)
		}
		if got := canonicalURI(u); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}
