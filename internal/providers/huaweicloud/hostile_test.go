package huaweicloud

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/providertest"
)

// endless writes the same until nobody takes it any more.
func endless(w io.Writer, text string) {
	chunk := []byte(strings.Repeat(text, max(1, 32<<10/len(text))))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
}

// TestHostileAnswers: whatever a server does with a call, it ends in its time, with the kind that
// it must have, in bounded memory; what may have been done is sent once, and nothing goes
// anywhere else.
func TestHostileAnswers(t *testing.T) {
	const patience = time.Second // the call's
	var elsewhere atomic.Int32
	other := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(func() {
		other.Close()
		if elsewhere.Load() != 0 {
			t.Error("somebody else was asked")
		}
	})
	raw := func(write func(w io.Writer, r *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			write(conn, r)
		}
	}
	drip := func(w io.Writer, text string) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	twice := bomb(bomb(make([]byte, 64<<20)))
	type want struct{ read, write providers.Kind }
	lost := want{providers.KindUnavailable, providers.KindUnknownOutcome}
	spaces := bomb([]byte(strings.Repeat(" ", 8<<20)))
	tooLong := want{providers.KindInvalid, providers.KindUnknownOutcome}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want
	}{
		"endless blanks": {func(w http.ResponseWriter, _ *http.Request) { endless(w, " ") }, tooLong},
		"endless list": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"id":"1","items":[1`)
			endless(w, ",1")
		}, tooLong},
		"endless text": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":"`); endless(w, "x") }, tooLong},
		"endless error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, "x")
		}, lost},
		"endless refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			endless(w, `{"error_msg":"`)
		}, want{providers.KindDenied, providers.KindDenied}},
		"endless header": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX: ")
			endless(w, "x")
		}), lost},
		"endless headers": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			endless(w, "X: y\r\n")
		}), lost},
		"endless first line": {raw(func(w io.Writer, _ *http.Request) { _, _ = io.WriteString(w, "HTTP/1.1 200 "); endless(w, "x") }), lost},
		"endless interim":    {raw(func(w io.Writer, _ *http.Request) { endless(w, "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n") }), lost},
		"endless trailers": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
			endless(w, "X: y\r\n")
		}), lost},
		"slow header": {raw(func(w io.Writer, _ *http.Request) { _, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX: "); drip(w, "x") }), lost},
		"slow body": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
			drip(w, " ")
		}), lost},
		"slow chunks": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			drip(w, "1\r\n \r\n")
		}), lost},
		"silence": {raw(func(w io.Writer, _ *http.Request) { _, _ = io.Copy(io.Discard, w.(io.Reader)) }), lost},
		"more than promised": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{\"id\":\"1\"}")
		}), lost},
		"a negative length": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}")
		}), lost},
		"two lengths": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
		}), lost},
		"a huge length": {raw(func(w io.Writer, _ *http.Request) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000000\r\n\r\n{\"id\":\"1\"}")
		}), lost},
		"deeply nested": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"id":`+strings.Repeat("[", 2<<20))
		}, lost},
		"nested and closed": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"x":`+strings.Repeat("[", 1<<20)+strings.Repeat("]", 1<<20)+`}`)
		}, lost},
		"nested error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, strings.Repeat(`{"error":`, 7000))
		}, lost},
		"a page": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html><body>Please log in: "+testSecret)
		}, lost},
		"wrong type":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":["1"]}`) }, lost},
		"a list instead": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[{"id":"1"}]`) }, lost},
		"a text instead": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"`+testSecret+`"`) }, lost},
		"a broken gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f\x8b\x08 nonsense")
		}, lost},
		"gzip in gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(twice)
		}, lost},
		"endless gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			endless(w, string(spaces))
		}, tooLong},
		"sent elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusPermanentRedirect)
		}, want{providers.KindUnavailable, providers.KindUnavailable}},
		"sent elsewhere by 302": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, want{providers.KindUnavailable, providers.KindUnavailable}},
		"told to refresh": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Refresh", "0;url="+other.URL)
			w.Header().Set("Location", other.URL)
			w.WriteHeader(http.StatusOK)
		}, lost},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "silence" || strings.HasPrefix(name, "slow") {
				t.Parallel() // they wait for the end of the call's time, with nothing on the heap
			}
			t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
			var arrived atomic.Int32
			cfg := serve(t, func(w http.ResponseWriter, r *http.Request) {
				arrived.Add(1)
				test.handler(w, r)
			})
			cfg.Timeout = patience
			out := &logs{}
			cfg.Logger = out.logger()
			c := netClient(t, cfg)
			var answer struct{ ID string }
			var read, write error
			began := time.Now()
			grown := providertest.PeakHeap(func() {
				read = c.once(t.Context(), getCall(&answer))
				write = c.Do(t.Context(), createCall(map[string]string{"key": testSecret}, &answer))
			})
			if took := time.Since(began); took > 3*patience+2*time.Second {
				t.Errorf("two calls took %s", took)
			}
			for _, got := range []error{wantKind(t, read, test.read), wantKind(t, write, test.write)} {
				if text := fmt.Sprintf("%v %+v", got, got) + out.String(); strings.Contains(text, testSecret) || len(got.Error()) > 2000 {
					t.Errorf("it shows: %.500s", text)
				}
			}
			// A connection that the answer has spoilt may end with the second one on its way.
			if n := arrived.Load(); n == 0 || n > 2 {
				t.Errorf("%d requests for a read and a write", n)
			}
			if grown > 64<<20 {
				t.Errorf("the heap grew by %d MB", grown>>20)
			}
		})
	}
}

func bomb(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

// FuzzLogins: whatever IAM and the metadata service answer, there are keys that can be used or an
// error of a known kind, and no error shows what was answered.
func FuzzLogins(f *testing.F) {
	const secret = "ISSUED-secret-ISSUED"
	f.Add(byte(0), uint16(200), []byte(`{"credential":{"access":"A","secret":"`+secret+`","securitytoken":"t","expires_at":"2030-01-01T00:00:00Z"}}`), "session", "Mon, 02 Jan 2006 15:04:05 GMT")
	f.Add(byte(0), uint16(200), []byte(`{"credential":{"access":"A\r\nX: y","secret":"`+secret+`","securitytoken":"t\n","expires_at":"0001-01-01T00:00:00Z"}}`), "sess\nion", "x")
	f.Add(byte(1), uint16(201), []byte(`{"token":{"expires_at":"9999-12-31T23:59:59Z","issued_at":"2026-01-01T00:00:00Z","project":{"id":"p"}}}`), "token", "")
	f.Add(byte(1), uint16(401), []byte(`{"error":{"code":401,"message":"`+secret+`"}}`), "", "")
	f.Add(byte(2), uint16(201), []byte(`{"credential":{"access":"A","secret":"`+secret+`","securitytoken":"t"}}`), "", "")
	f.Add(byte(3), uint16(200), []byte(`{"projects":[{"id":"p1","name":"eu-west-101"}],"domains":[{"id":"d1","name":"acme"}]}`), "", "")
	f.Add(byte(3), uint16(200), []byte(`{"projects":[{"id":"../../x?y=z#","name":""}],"domains":[{"id":"\r\nX: y"}]}`), "", "")
	f.Fuzz(func(t *testing.T, way byte, status uint16, body []byte, token, date string) {
		synctest.Test(t, func(t *testing.T) { logInOnce(t, way, status, body, token, date, secret) })
	})
}

// logInOnce makes one call with a login that is answered so.
func logInOnce(t *testing.T, way byte, status uint16, body []byte, token, date, secret string) {
	cfg := keyConfig()
	switch way % 4 {
	case 0:
		cfg.Auth = Metadata{}
	case 1:
		cfg.Auth = Password{User: "robot", Domain: "acme", Password: SecretText(testPassword)}
	case 2:
		cfg.Auth = Agency{Name: "a", Domain: "acme", Base: AccessKey{ID: "AKID", Secret: SecretText(testSecret)}}
	case 3:
		cfg.ProjectID = ""
	}
	var used []string
	c, _ := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			used = append(used, r.URL.String())
			for name, values := range r.Header {
				for _, v := range values {
					if strings.ContainsAny(v, "\r\n\x00") {
						t.Errorf("header %s: %q", name, v)
					}
				}
			}
			return reply(200, `{"id":"1"}`), nil
		}
		h := http.Header{"X-Subject-Token": {token}, "Date": {date}}
		if r.Method == http.MethodPut {
			return &http.Response{StatusCode: http.StatusOK, Header: h, Body: io.NopCloser(strings.NewReader(token))}, nil
		}
		return &http.Response{StatusCode: int(status%500) + 100, Header: h, Body: io.NopCloser(bytes.NewReader(body))}, nil
	})
	call := createCall(nil, &struct{ ID string }{}) // not repeated, as a read is
	call.Path = "/v1/{project_id}/things"
	err := c.Do(t.Context(), call)
	if err == nil {
		if len(used) != 1 || !strings.HasSuffix(used[0], "/things") {
			t.Errorf("asked for %q", used)
		}
		return
	}
	e := asError(err)
	if e == nil || len(used) > 0 {
		t.Fatalf("%v after %d calls", err, len(used))
	}
	for _, s := range []string{testSecret, testPassword, secret} {
		if strings.Contains(fmt.Sprintf("%v %+v", err, err), s) {
			t.Errorf("%s shows in %v", s, err)
		}
	}
}

// FuzzScalars: what answers are made of is read from any JSON without a panic, and means the same
// when it is read again.
func FuzzScalars(f *testing.F) {
	for _, seed := range []string{`"a"`, `1`, `-1e400`, `null`, `{}`, `[[]]`, `"\u0000"`, `true`, `1700000000000`, `"1700000000000"`, `"../x"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var n Number
		var id Identifier
		var l Label
		_, _, _ = json.Unmarshal(data, &n), json.Unmarshal(data, &id), json.Unmarshal(data, &l)
		if id != "" && !IsIdentifier(string(id)) {
			t.Errorf("identifier %q", id)
		}
		if at := n.Millis(); !at.IsZero() && at.UnixMilli() != int64(n) {
			t.Errorf("%d is %s", n, at)
		}
		if l != "" && !l.Is(string(l)) {
			t.Errorf("%q is not itself", l)
		}
	})
}
