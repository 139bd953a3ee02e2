package huaweicloud

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Every way in which a connection can fail, with the kind for a read and for a
// write.
func TestNetworkFailures(t *testing.T) {
	closed := httptest.NewTLSServer(nil)
	refused := closed.URL
	closed.Close()
	hijack := func(write string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, write)
			conn.Close()
		}
	}
	tests := []struct {
		name        string
		handler     http.HandlerFunc
		change      func(*Config)
		read, write providers.Kind
		reason      string
	}{
		{name: "refused", change: func(c *Config) { c.Endpoints[WAF] = refused },
			read: providers.KindUnavailable, write: providers.KindUnavailable, reason: "network"},
		{name: "unknown authority", change: func(c *Config) { c.RootCAs = x509.NewCertPool() },
			read: providers.KindUnavailable, write: providers.KindUnavailable, reason: "network"},
		{name: "cut before the answer", handler: hijack(""),
			read: providers.KindUnavailable, write: providers.KindUnknownOutcome, reason: "network"},
		{name: "no HTTP", handler: hijack("SSH-2.0-" + testSecret + "\r\n\r\n"),
			read: providers.KindUnavailable, write: providers.KindUnknownOutcome, reason: "network"},
		{name: "cut inside the answer", handler: hijack("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":"),
			read: providers.KindUnavailable, write: providers.KindUnknownOutcome, reason: "server"},
		{name: "no JSON", handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, testSecret) },
			read: providers.KindUnavailable, write: providers.KindUnknownOutcome, reason: "server"},
		{name: "empty answer", handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) },
			read: providers.KindUnavailable, write: providers.KindUnknownOutcome, reason: "server"},
		{name: "too long", handler: func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte(" "), 5<<20)) },
			read: providers.KindInvalid, write: providers.KindUnknownOutcome, reason: "server"},
		{name: "gzip bomb", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for range 64 {
				z.Write(make([]byte, 1<<20))
			}
			z.Close()
		}, read: providers.KindInvalid, write: providers.KindUnknownOutcome, reason: "server"},
		{name: "redirect", handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
		},
			read: providers.KindUnavailable, write: providers.KindUnavailable, reason: "server"},
		{name: "bad gateway", handler: func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "<html><title>502</title>", http.StatusBadGateway)
		},
			read: providers.KindUnavailable, write: providers.KindUnknownOutcome, reason: "server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.handler == nil {
				tt.handler = func(w http.ResponseWriter, r *http.Request) { t.Error("the request arrived") }
			}
			meter := &recorder{}
			cfg := serve(t, tt.handler)
			cfg.Meter = meter
			if tt.change != nil {
				tt.change(&cfg)
			}
			c := netClient(t, cfg)
			var out struct{ ID string }
			e := wantKind(t, c.once(t.Context(), getCall(&out)), tt.read)
			if strings.Contains(e.Error(), testSecret) || strings.Contains(e.Error(), "evil") {
				t.Errorf("the answer shows: %v", e)
			}
			e = wantKind(t, c.Do(t.Context(), createCall(struct{}{}, &out)), tt.write)
			if tt.write == providers.KindUnknownOutcome && meter.last().reason != tt.reason {
				t.Errorf("reason %q, want %q (%v)", meter.last().reason, tt.reason, e)
			}
			if e.Service != WAF || e.Op != "create thing" {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// once makes a read without its repetitions, which would take real seconds.
func (c *Client) once(ctx context.Context, call Call) error {
	return c.try(ctx, &job{Call: call}, nil)
}

// Calls go through the proxy that is configured. Where it refuses, nothing left
// the host, and its password does not show.
func TestProxy(t *testing.T) {
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect && r.Header.Get("Proxy-Authorization") != "" {
			asked.Add(1)
		}
		http.Error(w, "no", http.StatusProxyAuthRequired)
	}))
	t.Cleanup(proxy.Close)
	cfg := keyConfig()
	cfg.Proxy = strings.Replace(proxy.URL, "http://", "http://robot:hunter2@", 1)
	c := netClient(t, cfg)
	e := wantKind(t, c.Do(t.Context(), createCall(struct{}{}, nil)), providers.KindUnavailable)
	if asked.Load() != 1 || strings.Contains(e.Error(), "hunter2") {
		t.Errorf("asked %d times: %v", asked.Load(), e)
	}
}

func TestEmptyAnswerIsGoodForOtherWrites(t *testing.T) {
	c, _ := fakeClient(t, keyConfig(), func(*http.Request, []byte) (*http.Response, error) { return reply(204, ""), nil })
	call := createCall(nil, &struct{}{})
	call.Creates, call.Method = false, http.MethodDelete
	if err := c.Do(t.Context(), call); err != nil {
		t.Error(err)
	}
}

func TestTimeoutAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arrived := make(chan struct{}, 9)
		meter := &recorder{}
		cfg := keyConfig()
		cfg.Meter = meter
		c, cloud := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
			arrived <- struct{}{}
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		})
		start := time.Now()
		e := wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnknownOutcome)
		if took := time.Since(start); took != 30*time.Second || !strings.Contains(e.Error(), "no answer within 30s") {
			t.Errorf("after %s: %v", took, e)
		}
		if meter.last() != (seen{WAF, "create_thing", "timeout", 0}) {
			t.Errorf("metered %+v", meter.last())
		}
		<-arrived

		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-arrived; cancel(errors.New("told to stop")) }()
		err := c.Do(ctx, createCall(nil, nil))
		wantKind(t, err, providers.KindUnknownOutcome)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("errors.Is does not find the context's error in %v", err)
		}

		// A context that has ended already: nothing is sent.
		before := len(cloud.calls)
		err = c.Do(ctx, createCall(nil, nil))
		wantKind(t, err, providers.KindUnavailable)
		if !errors.Is(err, context.Canceled) || len(cloud.calls) != before {
			t.Errorf("%d calls, %v", len(cloud.calls)-before, err)
		}
	})
}

func TestReadsAreRepeatedWritesAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := 0
		c, cloud := fakeClient(t, keyConfig(), func(*http.Request, []byte) (*http.Response, error) {
			if fails--; fails >= 0 {
				return reply(503, ""), nil
			}
			return reply(200, `{"id":"1"}`), nil
		})
		for n, want := range map[int]int{0: 1, 1: 2, 3: 4, 9: 4} {
			fails, cloud.calls = n, nil
			err := c.Do(t.Context(), getCall(nil))
			if len(cloud.calls) != want || (err == nil) != (n < 4) {
				t.Errorf("%d failures: %d calls, want %d; %v", n, len(cloud.calls), want, err)
			}
		}
		fails, cloud.calls = 1, nil
		wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnknownOutcome)
		if len(cloud.calls) != 1 {
			t.Errorf("a write was sent %d times", len(cloud.calls))
		}

		// Not even where it is known that nothing happened.
		c, cloud = fakeClient(t, keyConfig(), func(*http.Request, []byte) (*http.Response, error) {
			return reply(307, "", "Location", "https://elsewhere.example/"), nil
		})
		wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnavailable)
		if len(cloud.calls) != 1 {
			t.Errorf("a write was sent %d times", len(cloud.calls))
		}
	})
}

func TestDialFailureIsNotLostWhenConnectionWasIdle(t *testing.T) {
	// A server that closes idle connections makes the transport repeat; the last
	// state of the trace counts.
	var m sentMark
	trace := m.trace()
	if !m.maySent() {
		t.Error("an untraced transport must count as sent")
	}
	trace.GetConn("h")
	if m.maySent() {
		t.Error("nothing is written yet")
	}
	trace.WroteHeaders()
	if !m.maySent() {
		t.Error("headers are written")
	}
	trace.GetConn("h")
	if m.maySent() {
		t.Error("the transport tries again because nothing arrived")
	}
}

func TestClockSkew(t *testing.T) {
	meter := &recorder{}
	cfg := keyConfig()
	cfg.Meter = meter
	date := time.Now().Add(-20 * time.Minute).UTC().Format(http.TimeFormat)
	c, _ := fakeClient(t, cfg, func(*http.Request, []byte) (*http.Response, error) {
		return reply(401, `{"error_code":"APIGW.0301","error_msg":"verify signature failed"}`, "Date", date, "X-Request-Id", "req-1"), nil
	})
	e := wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
	if d := meter.skew - 20*time.Minute; d < 0 || d > 5*time.Second {
		t.Errorf("skew %s", meter.skew)
	}
	if !strings.Contains(e.Error(), "ahead of the service's") || e.RequestID != "req-1" {
		t.Errorf("got %v", e)
	}
	if meter.last() != (seen{WAF, "show_thing", "auth", 401}) {
		t.Errorf("metered %+v", meter.last())
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := &recorder{}
		cfg := keyConfig()
		cfg.Meter, cfg.Limits = meter, nil // the defaults: 5/s, burst 10, 4 in flight
		flying := make(chan struct{}, 4)   // a fifth call would find no place
		c, _ := fakeClient(t, cfg, func(*http.Request, []byte) (*http.Response, error) {
			select {
			case flying <- struct{}{}:
			default:
				t.Error("five calls in flight, want at most four")
				return reply(200, `{}`), nil
			}
			time.Sleep(time.Millisecond)
			<-flying
			return reply(200, `{}`), nil
		})
		start := time.Now()
		done := make(chan error)
		for range 20 {
			go func() { done <- c.Do(t.Context(), getCall(nil)) }()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		// 10 at once, the other 10 at 5 a second.
		if took := time.Since(start); took < 1900*time.Millisecond || took > 2100*time.Millisecond {
			t.Errorf("20 calls took %s, want 2 s", took)
		}
		if meter.waits == 0 {
			t.Error("no wait was reported")
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := c.Do(ctx, getCall(nil))
		wantKind(t, err, providers.KindUnavailable)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestReasonsAreClosed(t *testing.T) {
	for _, kind := range providers.Kinds() {
		for _, status := range []int{0, 500} {
			for _, cause := range []error{nil, context.DeadlineExceeded, &net.OpError{Op: "dial", Err: errors.New("x")}} {
				reason := reasonOf(&providers.Error{Kind: kind, Err: cause}, status)
				if !slices.Contains(Reasons(), reason) {
					t.Errorf("%s: %q is not in Reasons", kind, reason)
				}
			}
		}
	}
}
