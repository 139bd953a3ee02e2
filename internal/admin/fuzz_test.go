package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRequests: whatever is asked of the listener, the answer is one of those that there are, is
// what it says it is, and never the fault of the daemon; pages of a list have each row once.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		"/", "/metrics", "/livez", "/readyz", "/policies", "/policies/shop", "/history?policy=shop&before=60", "/assignments/shop/shop.example.com", "/assignments/shop/?certificate=..",
		"/?q=a&state=failed,expired&sort=expires&expiring_within=30d&page=2", "/api/v1/assignments?limit=2&sort=urgency", "/api/v1/assignments?cursor=eyJvIjoibmFtZSIsInAiOiJtYWlsIiwiYyI6IiJ9&limit=1",
		"/api/v1/assignments?cursor=e30", "/api/v1/assignments?state=failed&state=nonsense", "/api/v1/assignments?expiring_within=999999999999d", "/api/v1/history?before=18446744073709551615&limit=1000",
		"/api/v1/history?before=0", "/api/v1/assignments/shop/a%2Fb", "/api/v1/assignments/%00/%ff", "/api/v1/openapi.json?x=1", "/api/v1/status?;=&=", "/?page=99999999999999999999", "/?q=%ff%fe<script>", "//", "/..%2f..%2fetc/passwd",
		"/static/../admin.go", "/debug/pprof/", "/api/v1/assignments?q=" + strings.Repeat("x", 300),
	} {
		f.Add("GET", seed, "")
	}
	f.Add("POST", "/api/v1/assignments", "1")
	f.Add("HEAD", "/api/v1/history", `W/"x", *`)
	handler := Handler(Config{Metrics: http.NotFoundHandler(), Reader: estate(), Ready: func() []Component { return nil }, Alive: func() error { return nil }, Logger: discard()})
	ask := func(method, path, tag string) *httptest.ResponseRecorder {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(u.Path, "/events") {
			return nil // the server refuses the first before it comes here, the stream has no end
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, &http.Request{Method: method, URL: u, Host: "localhost", RequestURI: path, Header: http.Header{"If-None-Match": {tag}}, Body: http.NoBody, ProtoMajor: 1, ProtoMinor: 1})
		return w
	}
	f.Fuzz(func(t *testing.T, method, path, tag string) {
		w := ask(method, path, tag)
		if w == nil {
			return
		}
		switch w.Code {
		case http.StatusOK, http.StatusNotModified, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		if method != http.MethodGet && method != http.MethodHead && w.Code == http.StatusOK {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
		body, kind := w.Body.Bytes(), w.Header().Get("Content-Type")
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Code != http.StatusNotModified && len(body) > 0 && !utf8.Valid(body) {
			t.Errorf("%s: headers %v, %d bytes", path, w.Header(), len(body))
		}
		if strings.Contains(kind, "json") && len(body) > 0 && !json.Valid(body) {
			t.Errorf("%s is not %s: %s", path, kind, body)
		}
		if strings.HasPrefix(kind, "text/html") && w.Code < 300 && strings.Contains(strings.ToLower(string(body)), "<script>") {
			t.Errorf("%s puts a script into the page", path)
		}
		u, _ := url.ParseRequestURI(path)
		if u.Path == "/api/v1/assignments" && w.Code == http.StatusOK && method == http.MethodGet && !u.Query().Has("cursor") {
			wholeList(t, u, ask)
		}
	})
}

// wholeList goes from page to page of a list.
func wholeList(t *testing.T, u *url.URL, ask func(method, path, tag string) *httptest.ResponseRecorder) {
	q := u.Query()
	q.Set("limit", "3")
	var seen []string
	for range 20 {
		w := ask(http.MethodGet, u.Path+"?"+q.Encode(), "")
		var page Assignments
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %v", q.Encode(), w.Code, err)
		}
		for _, a := range page.Assignments {
			name := a.Policy + "/" + a.Certificate
			if slices.Contains(seen, name) {
				t.Fatalf("%s comes twice", name)
			}
			seen = append(seen, name)
		}
		if page.NextCursor == "" {
			if len(seen) != page.Total {
				t.Errorf("%d of %d", len(seen), page.Total)
			}
			return
		}
		q.Set("cursor", page.NextCursor)
	}
	t.Errorf("%s has no end", u)
}

// FuzzAsked: whatever the query of a request over the socket is, it is an object of texts, which
// a verb can read or refuse.
func FuzzAsked(f *testing.F) {
	f.Add("of=shop/a&limit=3")
	f.Add("a=%ff&a=2&;&=x&%zz")
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{RawQuery: query}}
		request, err := requestOf(httptest.NewRecorder(), r)
		var fields map[string]string
		if err != nil || json.Unmarshal(request, &fields) != nil {
			t.Fatalf("%s, %v", request, err)
		}
		var w Wish
		if err := Decode(request, &w); err != nil {
			if status, _ := Answer(nil, err); status != http.StatusConflict {
				t.Errorf("%d: %v", status, err)
			}
		}
	})
}
