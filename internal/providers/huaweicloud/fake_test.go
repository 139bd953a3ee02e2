package huaweicloud

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCloud is a transport that answers in-process, so that it can be used under
// fake time. The handler runs in the caller's goroutine.
type fakeCloud struct {
	handle func(*http.Request, []byte) (*http.Response, error)

	mu    sync.Mutex
	calls []string // method and path of every request, in order
}

func (f *fakeCloud) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	f.mu.Lock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return f.handle(r, body)
}

func (f *fakeCloud) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == call {
			n++
		}
	}
	return n
}

// reply makes an answer. headers are pairs.
func reply(status int, body string, headers ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for pair := range slices.Chunk(headers, 2) {
		h.Set(pair[0], pair[1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

// seen is one report to a recorder.
type seen struct {
	service, operation, reason string
	status                     int
}

// recorder is a Meter that remembers.
type recorder struct {
	mu       sync.Mutex
	requests []seen
	waits    time.Duration
	expiry   time.Time
	skew     time.Duration
	circuits []string // "waf open", "waf closed"
	quotas   []string
}

func (m *recorder) Request(service, operation string, status int, reason string, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, seen{service, operation, reason, status})
}

func (m *recorder) Wait(_ string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waits += d
}

func (m *recorder) CredentialsExpiry(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expiry = t
}

func (m *recorder) ClockSkew(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skew = d
}

func (m *recorder) ends() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.expiry
}

func (m *recorder) Circuit(service string, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state := "closed"
	if open {
		state = "open"
	}
	m.circuits = append(m.circuits, service+" "+state)
}

func (m *recorder) Quota(service string, used, limit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quotas = append(m.quotas, fmt.Sprintf("%s %d of %d", service, used, limit))
}

func (m *recorder) last() seen {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.requests) == 0 {
		return seen{}
	}
	return m.requests[len(m.requests)-1]
}

// logs is a logger together with what it wrote.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

const (
	testProject = "0123456789abcdef0123456789abcdef"
	testSecret  = "S3cr3tKeyThatMustNeverShow0000000000000"
)

// fast limits nothing that a test would notice.
func fast() map[string]Limit {
	l := Limit{Rate: 1e6, Burst: 1e6, Concurrency: 100}
	return map[string]Limit{WAF: l, IAM: l}
}

// keyConfig is a configuration with an access key and without limits.
func keyConfig() Config {
	return Config{
		Name: "test", Region: "eu-west-101", ProjectID: testProject,
		Auth: AccessKey{ID: "AKID", Secret: SecretText(testSecret)}, Limits: fast(),
	}
}

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fakeClient is a Client whose network is the handler.
func fakeClient(t testing.TB, cfg Config, handle func(*http.Request, []byte) (*http.Response, error)) (*Client, *fakeCloud) {
	t.Helper()
	f := &fakeCloud{handle: handle}
	cfg.Transport = f
	return newClient(t, cfg), f
}

func getCall(out any) Call {
	return Call{
		Service: WAF, Operation: "show_thing", Op: "show thing",
		Method: http.MethodGet, Path: "/v1/{project_id}/thing", Out: out,
	}
}

func createCall(body, out any) Call {
	return Call{
		Service: WAF, Operation: "create_thing", Op: "create thing",
		Method: http.MethodPost, Path: "/v1/{project_id}/thing", Body: body, Out: out, Creates: true, Redact: true,
	}
}
