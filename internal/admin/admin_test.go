package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve starts a server and returns its base URL.
func serve(t *testing.T, cfg Config) string {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	cfg.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "probe 42\n") })
	cfg.Logger = discard()
	if cfg.Reader == nil {
		cfg.Reader = newFake()
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "http://" + s.Addr()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestHealth(t *testing.T) {
	var alive error
	components := []Component{{Name: "configuration"}, {Name: "nats"}}
	url := serve(t, Config{Ready: func() []Component { return append([]Component{}, components...) }, Alive: func() error { return alive }})

	for _, path := range []string{"/livez", "/readyz", "/metrics", "/"} {
		if status, body := get(t, url+path); status != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	if _, body := get(t, url+"/metrics"); !strings.Contains(body, "probe 42") {
		t.Errorf("metrics lack the registered gauge:\n%s", body)
	}

	alive = errors.New("no progress for 5m0s")
	components[1].Reason = "NATS is not connected"
	if status, body := get(t, url+"/livez"); status != http.StatusServiceUnavailable || !strings.Contains(body, "no progress") {
		t.Errorf("livez: %d %s", status, body)
	}
	status, body := get(t, url+"/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, `"reason": "NATS is not connected"`) || !strings.Contains(body, `"component": "configuration",
      "ready": true`) {
		t.Errorf("readyz: %d %s", status, body)
	}
}

func TestReadOnly(t *testing.T) {
	url := serve(t, Config{Ready: func() []Component { return nil }, Alive: func() error { return nil }})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		q, _ := http.NewRequestWithContext(t.Context(), method, url+"/metrics", strings.NewReader("x"))
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s /metrics: %d", method, r.StatusCode)
		}
	}
	if status, _ := get(t, url+"/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("pprof is reachable: %d", status)
	}
}

func TestListenPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = Listen(Config{Listen: taken.Addr().String(), Reader: newFake(), Logger: discard()})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Listen on a taken port: %v", err)
	}
}

// TestSlowClientIsCutOff: a client that never finishes its header holds its own
// connection only, and loses it.
func TestSlowClientIsCutOff(t *testing.T) {
	t.Parallel()
	url := serve(t, Config{Ready: func() []Component { return nil }, Alive: func() error { return nil }})
	slow, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(t, url+"/livez"); status != http.StatusOK {
		t.Errorf("another client got %d", status)
	}
	if err := slow.SetReadDeadline(time.Now().Add(4 * headerWait)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(slow); err != nil {
		t.Errorf("the slow connection was not closed: %v", err)
	}
}
