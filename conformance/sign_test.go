package conformance

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/signer"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/request"
	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// sample is one request in a form that both sides can be given.
type sample struct {
	method, host string
	segments     []string // of the path, not escaped
	slash        bool     // the path ends with one
	query        map[string][]string
	header       map[string]string
	body         string
	accessKey    string
	secret       string
	at           time.Time
}

func (s sample) path() string {
	p := "/" + strings.Join(s.segments, "/")
	if s.slash && !strings.HasSuffix(p, "/") {
		p += "/"
	}
	return p
}

// fataler is what *testing.T and *rapid.T have in common and is needed here.
type fataler interface{ Fatal(args ...any) }

// theirs is the Authorization header that the SDK makes.
func (s sample) theirs(t fataler) string {
	b := request.NewHttpRequestBuilder().WithMethod(s.method).WithEndpoint("https://" + s.host).WithPath(s.path())
	if s.body != "" {
		b.WithBody("body", s.body)
	}
	for k, values := range s.query {
		b.AddQueryParam(k, reflect.ValueOf(values))
	}
	for k, v := range s.header {
		b.AddHeaderParam(k, v)
	}
	b.AddHeaderParam("Host", s.host)
	b.AddHeaderParam("X-Sdk-Date", s.at.UTC().Format("20060102T150405Z"))
	signed, err := signer.Sign(b.Build(), s.accessKey, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	return signed["Authorization"]
}

// ours is the header that huaweicloud.Sign makes for the request as it is sent.
func (s sample) ours(t fataler) string {
	escaped := make([]string, len(s.segments))
	for i, seg := range s.segments {
		escaped[i] = url.PathEscape(seg)
	}
	path := "/" + strings.Join(escaped, "/")
	if s.slash && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	target := "https://" + s.host + path
	if len(s.query) > 0 {
		target += "?" + url.Values(s.query).Encode()
	}
	req, err := http.NewRequest(s.method, target, strings.NewReader(s.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range s.header {
		req.Header.Set(k, v)
	}
	req.Header.Set("User-Agent", "rotatord") // left out of the signature
	huaweicloud.Sign(req, []byte(s.body), s.accessKey, s.secret, s.at)
	return req.Header.Get("Authorization")
}

func samples() *rapid.Generator[sample] {
	plain := rapid.StringMatching(`[a-z0-9]{1,8}`)
	odd := rapid.StringMatching(`[A-Za-z0-9 ~!@#$%^&*()_+=,.;:'"<>?|\\{}\[\]一ü🔑\x60-]{1,10}`)
	value := rapid.OneOf(plain, odd, rapid.Just(""), rapid.Just("a/b"), rapid.Just("%2F"), rapid.Just("+"), rapid.String())
	text := rapid.StringMatching(`[A-Za-z0-9 .,;=/+-]{1,20}`)
	return rapid.Custom(func(t *rapid.T) sample {
		s := sample{
			method:    rapid.SampledFrom([]string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"}).Draw(t, "method"),
			host:      rapid.SampledFrom([]string{"waf.eu-west-101.myhuaweicloud.com", "127.0.0.1:8443", "h", "[::1]:443"}).Draw(t, "host"),
			segments:  rapid.SliceOfN(rapid.OneOf(plain, odd), 0, 5).Draw(t, "segments"),
			slash:     rapid.Bool().Draw(t, "slash"),
			query:     rapid.MapOfN(rapid.OneOf(plain, odd), rapid.SliceOfN(value, 1, 4), 0, 4).Draw(t, "query"),
			header:    map[string]string{},
			body:      rapid.OneOf(rapid.Just(""), rapid.Just("{}"), rapid.String()).Draw(t, "body"),
			accessKey: rapid.StringMatching(`[A-Z0-9]{1,20}`).Draw(t, "access key"),
			secret:    rapid.StringN(1, 40, -1).Draw(t, "secret"),
			at:        time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), 0),
		}
		optional := map[string]*rapid.Generator[string]{
			"X-Security-Token":     text,
			"X-Project-Id":         rapid.StringMatching(`[0-9a-f]{32}`),
			"X-Domain-Id":          rapid.StringMatching(`[0-9a-f]{32}`),
			"X-Language":           text,
			"Content-Type":         rapid.SampledFrom([]string{"application/json", "application/json;charset=utf8"}),
			"X-Under_Score":        text,
			"X-Sdk-Content-Sha256": rapid.Just("UNSIGNED-PAYLOAD"),
		}
		for name, values := range optional {
			if rapid.Bool().Draw(t, name) {
				s.header[name] = values.Draw(t, "value of "+name)
			}
		}
		return s
	})
}

// Every request must get the signature that the SDK would give it, to the byte.
func TestSignatureIsTheSDKs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := samples().Draw(t, "request")
		if ours, theirs := s.ours(t), s.theirs(t); ours != theirs {
			t.Fatalf("\nours   %s\ntheirs %s", ours, theirs)
		}
	})
}

// The vectors that the unit test of Sign pins.
func TestPinnedVectors(t *testing.T) {
	at := time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC)
	vectors := []sample{
		{method: "GET", host: "example.huaweicloud.com", segments: []string{"path"}, query: map[string][]string{"limit": {"1"}},
			header: map[string]string{"TEST_UNDERSCORE": "TEST_VALUE"}},
		{method: "POST", host: "example.huaweicloud.com", segments: []string{"path"}, query: map[string][]string{"key": {"value"}},
			header: map[string]string{"TEST_UNDERSCORE": "TEST_VALUE", "Content-Type": "application/json;charset=utf8"},
			body:   `{"Name":"test","Id":1}`},
		{method: "PUT", host: "waf.example:8443", segments: []string{"v1", "a b", "一", "(c)"},
			query:  map[string][]string{"a": {"一 (&=?!#%.*)", "", "~"}, "b": {"2"}, "c": {""}},
			header: map[string]string{"X-Security-Token": " tok ", "X-Project-Id": "0123456789abcdef0123456789abcdef"}, body: "{}"},
		{method: "POST", host: "example.huaweicloud.com",
			header: map[string]string{"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"}, body: "binary"},
	}
	want := []string{"7eb88c06474c7197e670e0ae61651746453587eb5fad98074266578511cf3c01", "8b36b588a2135b461dcd2427c1a87a938d8cb3f94c74e85aa0baff2fa60eff9b", "6449457e65249210748b7ec52732f8f1779e36ab8a2c0c3e25b0520329a00f13", "17180ab4f77eeccaefd240e3ce17299e19c6ae9cf9ee691633e6111ff03bc79d"}
	for i, v := range vectors {
		v.accessKey, v.secret, v.at = "AccessKey", "SecretKey", at
		if got := v.theirs(t); !strings.HasSuffix(got, "Signature="+want[i]) {
			t.Errorf("vector %d: %s", i, got)
		}
		if v.ours(t) != v.theirs(t) {
			t.Errorf("vector %d: ours is %s", i, v.ours(t))
		}
	}
}
