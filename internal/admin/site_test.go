package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeReader tells what a test puts into it.
type fakeReader struct {
	mu      sync.Mutex
	status  Status
	unread  error
	past    []Event
	pastErr error
	asked   []HistoryQuery
	looks   int
	changed chan struct{}
	hold    chan struct{} // History waits for it, where there is one
}

func newFake(assignments ...Assignment) *fakeReader {
	f := &fakeReader{changed: make(chan struct{})}
	f.status = Status{Daemon: Daemon{Version: "1.2.3", Node: "here", Since: time.Now().Add(-time.Hour)}, Policies: []Policy{}, Assignments: assignments}
	for _, a := range assignments {
		if !slices.ContainsFunc(f.status.Policies, func(p Policy) bool { return p.Name == a.Policy }) {
			f.status.Policies = append(f.status.Policies, Policy{Name: a.Policy, Source: "directory", Place: "here"})
		}
	}
	return f
}

func (f *fakeReader) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	s := f.status
	s.Assignments = slices.Clone(s.Assignments)
	return s
}

func (f *fakeReader) Unread() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unread
}

func (f *fakeReader) Chain(policy, _ string) []Intermediate {
	if policy != "shop" {
		return nil
	}
	return []Intermediate{{Subject: "Test CA", Issuer: "Test Root", Fingerprint: strings.Repeat("ab", 32), NotAfter: time.Now().Add(time.Hour)}}
}

func (f *fakeReader) History(ctx context.Context, q HistoryQuery) (History, error) {
	f.mu.Lock()
	hold := f.hold
	f.asked = append(f.asked, q)
	h, err := History{Events: f.past}, f.pastErr
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	if len(h.Events) > q.Limit {
		h.Events = h.Events[:q.Limit]
		h.NextBefore = h.Events[q.Limit-1].Sequence
	}
	return h, err
}

func (f *fakeReader) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// change changes something and tells of it.
func (f *fakeReader) change(how func(*fakeReader)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f)
	close(f.changed)
	f.changed = make(chan struct{})
}

const (
	wantedPrint = "aaaaaaaaaaaa1111111111111111111111111111111111111111111111111111"
	otherPrint  = "bbbbbbbbbbbb2222222222222222222222222222222222222222222222222222"
)

// certificate makes an assignment in a state, with this share of a life of 90 days left.
func certificate(policy, name, state string, left float64) Assignment {
	const life = 90 * 24 * time.Hour
	ends := time.Now().Add(time.Duration(left * float64(life))).UTC()
	return Assignment{
		Policy: policy, Certificate: name, State: state, Since: time.Now().Add(-time.Hour).UTC(), NextLook: time.Now().Add(30 * time.Minute).UTC(),
		VerifiedAt: time.Now().Add(-time.Minute).UTC(),
		Wanted:     &Bundle{Fingerprint: wantedPrint, SerialNumber: "1f", Names: []string{name}, Issuer: "Test CA", KeyAlgorithm: "EC256", NotBefore: ends.Add(-life), NotAfter: ends},
		Targets:    []Target{{Name: "edge", Kind: "waf", Endpoints: []string{name}, Serves: wantedPrint, NotAfter: ends, Current: true}},
		Probes:     []Probe{{Endpoint: name + ":443", Address: "192.0.2.1:443", Fingerprint: wantedPrint, Current: true}},
	}
}

// estate has something of everything.
func estate() *fakeReader {
	failed := certificate("mail", "mail.example.com", "failed", 0.4)
	failed.Reason = "WAF answered: the host does not exist"
	failed.Targets[0] = Target{Name: "edge", Kind: "waf", Endpoints: []string{"mail.example.com"}, Serves: otherPrint, NotAfter: time.Now().Add(48 * time.Hour), Failures: 3, Failure: "WAF answered: the host does not exist", RetryAt: time.Now().Add(10 * time.Minute), Drift: "binding", Superseded: 2}
	failed.Probes = append(failed.Probes, Probe{Endpoint: "mail.example.com:443", Address: "192.0.2.2:443", Error: "connection refused"})
	waiting := certificate("night", "night.example.com", "waiting", 0.8)
	waiting.Reason = "no window is open before 2026-11-23T02:00:00Z"
	paused := certificate("release", "release.example.com", "paused", 0.7)
	paused.Reason = "paused by user ada"
	issued := certificate("payments", "payments.example.com", "converged", 0.6)
	issued.RenewalDue = issued.NextLook
	unknown := Assignment{Policy: "shop", Certificate: "new.example.com", State: "unknown", Targets: []Target{}}
	f := newFake(
		certificate("shop", "shop.example.com", "converged", 0.9), certificate("shop", "old.example.com", "converged", 0.05), unknown,
		certificate("shop", "gone.example.com", "expired", -0.01), failed, waiting, paused, issued,
	)
	for i := range f.status.Policies {
		switch p := &f.status.Policies[i]; p.Name {
		case "release":
			p.Paused = &Pause{By: "user ada", Reason: "release day", Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}
		case "mail":
			p.File, p.Problems = "/etc/rotatord/policies/mail.yaml", []string{"/etc/mail/mail.pem: the key does not belong to any certificate"}
		}
	}
	for i := range 40 {
		f.past = append(f.past, Event{
			Time: time.Now().Add(-time.Duration(i) * time.Minute).UTC(), Kind: []string{"converged", "failed", "rolled_back"}[i%3], Policy: "shop", Certificate: "shop.example.com", Target: "edge",
			Fingerprint: wantedPrint, Previous: otherPrint, Trigger: "file", By: "user ada", Reason: "because", Sequence: uint64(100 - i),
		})
	}
	f.past = append(f.past, Event{Time: time.Now(), Kind: "paused", Policy: "release", Sequence: 1})
	return f
}

// serveSite serves a fake and returns its base URL.
func serveSite(t *testing.T, f *fakeReader, components ...Component) string {
	t.Helper()
	return serve(t, Config{Reader: f, Ready: func() []Component { return slices.Clone(components) }, Alive: func() error { return nil }})
}

// fetch asks with headers.
func fetch(t *testing.T, method, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // what would not end is a failure too
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	r, err := http.DefaultTransport.RoundTrip(q) // redirects are not followed
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

// TestOneLookForAll: however many ask at once, and however often, the daemon is asked no more
// than its answers' cost allows, and what changed is seen by whoever asks afterwards.
func TestOneLookForAll(t *testing.T) {
	f := estate()
	x := newIndexes(f)
	for range 100 {
		x.newest()
	}
	if f.looks != 1 {
		t.Errorf("%d looks for 100 who ask while nothing changes", f.looks)
	}
	f.change(func(f *fakeReader) { f.status.Assignments = nil })
	for deadline := time.Now().Add(10 * time.Second); len(x.newest().rows) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("a change is not seen")
		}
	}
	if f.looks != 2 {
		t.Errorf("%d looks after one change", f.looks)
	}
	x.drop()
	if x.last != nil {
		t.Error("it is not forgotten")
	}
}

// TestUrgency is the order of the table.
func TestUrgency(t *testing.T) {
	var got []string
	for _, r := range newIndex(estate()).rows {
		got = append(got, r.Certificate)
	}
	want := []string{
		"gone.example.com", "mail.example.com", "old.example.com", "release.example.com", "night.example.com", "new.example.com",
		"payments.example.com", "shop.example.com",
	}
	if !slices.Equal(got, want) {
		t.Errorf("order\n%v, want\n%v", got, want)
	}
}

func TestUpcoming(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, test := range []struct {
		name    string
		a       Assignment
		paused  *Pause
		what    string
		at      time.Time
		blocked string
	}{
		{"served", Assignment{State: "converged", NextLook: at(time.Hour), Targets: []Target{{}}}, nil, "compare wanted and served", at(time.Hour), ""},
		{"with predecessors", Assignment{State: "converged", NextLook: at(time.Hour), Targets: []Target{{Superseded: 1}}}, nil, "look again, remove what is superseded", at(time.Hour), ""},
		{"renewal first", Assignment{State: "converged", NextLook: at(time.Hour), RenewalDue: at(time.Hour)}, nil, "issue the next certificate", at(time.Hour), ""},
		{"renewal later", Assignment{State: "converged", NextLook: at(time.Hour), RenewalDue: at(2 * time.Hour)}, nil, "compare wanted and served", at(time.Hour), ""},
		{"watched", Assignment{State: "converged"}, nil, "nothing: the policy only watches", time.Time{}, ""},
		{"only triggers", Assignment{State: "converged", Targets: []Target{{}}}, nil, "nothing by itself: it waits for a trigger", time.Time{}, ""},
		{
			"first of two retries", Assignment{State: "failed", NextLook: at(time.Minute), Targets: []Target{{Name: "a", Failures: 1, RetryAt: at(time.Hour)}, {Name: "b", Failures: 2, RetryAt: at(time.Minute)}, {Name: "c"}}},
			nil, "try again at target b", at(time.Minute), "a failure: the next try waits for its time",
		},
		{"refused", Assignment{State: "failed", NextLook: at(time.Hour)}, nil, "look again", at(time.Hour), "a refusal or a failure: the reason says which"},
		{"not seen", Assignment{State: "unconverged", NextLook: at(time.Second)}, nil, "prove again that it is served", at(time.Second), "the service: the change is not seen everywhere yet"},
		{"broken files", Assignment{State: "quarantined"}, nil, "go on when the files can be used", time.Time{}, "the source's files, which cannot be used"},
		{"braked", Assignment{State: "braked", NextLook: at(time.Hour)}, nil, "go on when somebody confirms (rotatord rotate POLICY --confirm)", time.Time{}, "the brake: an operator has to confirm"},
		{"paused", Assignment{State: "paused"}, &Pause{Until: at(time.Hour)}, "go on when the policy is resumed", at(time.Hour), "whoever paused the policy"},
		{"released a moment ago", Assignment{State: "paused"}, nil, "go on when the policy is resumed", time.Time{}, "whoever paused the policy"},
		{"at work", Assignment{State: "rotating"}, nil, "make the next step", now, ""},
		{"waiting", Assignment{State: "waiting", NextLook: at(time.Hour)}, nil, "look whether it can go on", at(time.Hour), "the reason says what it waits for"},
		{"expired", Assignment{State: "expired"}, nil, "serve a new bundle when the source has one", time.Time{}, "the source: what it has has expired"},
		{"expired at an issuer", Assignment{State: "expired", RenewalDue: at(-time.Hour), NextLook: at(time.Minute)}, nil, "issue the next certificate", at(time.Minute), "what is wanted has expired"},
		{"new", Assignment{State: "unknown"}, nil, "the first look", time.Time{}, ""},
	} {
		next, blocked := upcoming(&test.a, test.paused, now)
		if next.What != test.what || !next.At.Equal(test.at) || blocked != test.blocked {
			t.Errorf("%s: %q at %s, blocked by %q", test.name, next.What, next.At, blocked)
		}
	}
}

// TestBusy: whoever is too much is told so at once, and others are answered afterwards.
func TestBusy(t *testing.T) {
	f := estate()
	f.hold = make(chan struct{})
	url := serveSite(t, f)
	var waiting sync.WaitGroup
	for range maxHistories {
		waiting.Go(func() { get(t, url+"/api/v1/history") })
	}
	for {
		f.mu.Lock()
		n := len(f.asked)
		f.mu.Unlock()
		if n == maxHistories {
			break
		}
	}
	r, body := fetch(t, http.MethodGet, url+"/api/v1/history")
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || !strings.Contains(body, "too many") {
		t.Errorf("%d %s", r.StatusCode, body)
	}
	// A page says it where the timeline would be.
	if r, body = fetch(t, http.MethodGet, url+"/assignments/shop/shop.example.com"); r.StatusCode != http.StatusOK || !strings.Contains(body, "too many ask") {
		t.Errorf("page: %d", r.StatusCode)
	}
	close(f.hold)
	waiting.Wait()
	if r, _ = fetch(t, http.MethodGet, url+"/api/v1/history"); r.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", r.StatusCode)
	}
}

// TestWaitsForAPlace: whoever comes while all places are taken waits for the next one, in order,
// and is told to come again only after a while.
func TestWaitsForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(Config{Reader: estate(), Ready: func() []Component { return nil }, Logger: discard()})
		mux := http.NewServeMux()
		s.route(mux)
		for range maxAsking {
			if !s.asking.TryAcquire(1) {
				t.Fatal("there are fewer places")
			}
		}
		answers := make(chan int)
		ask := func(path string) {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			answers <- w.Code
		}
		for _, path := range []string{"/", "/api/v1/assignments"} {
			go ask(path)
			synctest.Wait()
			time.Sleep(placeWait - 1)
			s.asking.Release(1)
			if code := <-answers; code != http.StatusOK {
				t.Errorf("%s: %d after a place became free", path, code)
			}
			if !s.asking.TryAcquire(1) {
				t.Error("the place was not given back")
			}
			began := time.Now()
			go ask(path)
			if code := <-answers; code != http.StatusServiceUnavailable || time.Since(began) != placeWait {
				t.Errorf("%s: %d after %s without a place", path, code, time.Since(began))
			}
		}
	})
}

// TestSlowReadersHoldNoPlace: who asks and does not read what comes keeps nobody else from
// being answered.
func TestSlowReadersHoldNoPlace(t *testing.T) {
	handler := Handler(Config{Metrics: http.NotFoundHandler(), Reader: estate(), Ready: func() []Component { return nil }, Logger: discard()})
	read, reading := make(chan struct{}), make(chan struct{})
	var slow sync.WaitGroup
	for i := range 2 * maxAsking {
		path := []string{"/", "/api/v1/assignments"}[i%2]
		slow.Go(func() {
			handler.ServeHTTP(&slowReader{httptest.NewRecorder(), reading, read}, httptest.NewRequest(http.MethodGet, path, nil))
		})
		<-reading
	}
	for _, path := range []string{"/", "/api/v1/assignments"} {
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != http.StatusOK {
			t.Errorf("%s: %d while others read slowly", path, w.Code)
		}
	}
	close(read)
	slow.Wait()
}

// slowReader says when it begins to read, and reads when it may.
type slowReader struct {
	*httptest.ResponseRecorder
	reading, read chan struct{}
}

func (s *slowReader) Write(p []byte) (int, error) {
	s.reading <- struct{}{}
	<-s.read
	return len(p), nil
}

// listen opens the event stream and returns its messages.
func listen(t *testing.T, ctx context.Context, url string) (<-chan string, *http.Response) {
	t.Helper()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan string, 100)
	go func() {
		defer close(messages)
		defer r.Body.Close()
		var buffer [4096]byte
		rest := ""
		for {
			n, err := r.Body.Read(buffer[:])
			rest += string(buffer[:n])
			for {
				message, more, whole := strings.Cut(rest, "\n\n")
				if !whole {
					break
				}
				rest = more
				messages <- message
			}
			if err != nil {
				return
			}
		}
	}()
	return messages, r
}

func hear(t *testing.T, messages <-chan string) string {
	t.Helper()
	select {
	case m, open := <-messages:
		if !open {
			t.Fatal("the stream ended")
		}
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was said")
	}
	return ""
}

// TestEvents: a change is told, many in a row are told once a second at most, and whoever is
// told gets what changed.
func TestEvents(t *testing.T) {
	f := estate()
	url := serveSite(t, f)
	messages, r := listen(t, t.Context(), url)
	if r.Header.Get("Content-Type") != "text/event-stream" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", r.Header)
	}
	if m := hear(t, messages); m != "retry: 3000" {
		t.Errorf("first %q", m)
	}
	began := time.Now()
	for i := range 500 {
		f.change(func(f *fakeReader) { f.status.Assignments[0].Reason = fmt.Sprint("change ", i) })
	}
	if m := hear(t, messages); m != "event: changed\ndata: 1" {
		t.Errorf("then %q", m)
	}
	f.change(func(f *fakeReader) { f.status.Assignments[0].Reason = "the last change" })
	if m := hear(t, messages); m != "event: changed\ndata: 2" || time.Since(began) < eventPause {
		t.Errorf("then %q after %s", m, time.Since(began))
	}
	if _, body := get(t, url+"/api/v1/assignments/shop/shop.example.com"); !strings.Contains(body, "the last change") {
		t.Errorf("what was told is not there: %s", body)
	}
	select {
	case m := <-messages:
		t.Errorf("one more: %q", m)
	default:
	}
}

// TestEventsOutliveTheServersDeadlines: the deadlines for requests do not end a stream.
func TestEventsOutliveTheServersDeadlines(t *testing.T) {
	t.Parallel()
	f := estate()
	ready := []Component{{Name: "nats"}}
	var mu sync.Mutex
	url := serve(t, Config{Reader: f, requestWait: time.Second, heartbeat: 200 * time.Millisecond, Alive: func() error { return nil }, Ready: func() []Component {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(ready)
	}})
	messages, _ := listen(t, t.Context(), url)
	hear(t, messages)
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		if m := hear(t, messages); m != ": still here" {
			t.Errorf("heard %q", m)
		}
	}
	mu.Lock()
	ready[0].Reason = "NATS is away"
	mu.Unlock()
	m := hear(t, messages)
	for m == ": still here" { // that was on its way
		m = hear(t, messages)
	}
	if m != "event: changed\ndata: 1" {
		t.Errorf("a component that is not ready any more is told by %q", m)
	}
}

// TestEventsAreBounded: others are refused while all places are taken, and a place that is
// free again is given to the next.
func TestEventsAreBounded(t *testing.T) {
	url := serveSite(t, estate())
	ctx, cancel := context.WithCancel(t.Context())
	var first <-chan string
	for range maxListeners {
		messages, _ := listen(t, ctx, url)
		hear(t, messages)
		first = messages
	}
	if r, _ := fetch(t, http.MethodGet, url+"/events"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more got %d", r.StatusCode)
	}
	if status, _ := get(t, url+"/"); status != http.StatusOK {
		t.Errorf("the page: %d", status)
	}
	cancel()
	for range first { // until it ends
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		messages, r := listen(t, t.Context(), url)
		if r.StatusCode == http.StatusOK {
			hear(t, messages)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no place came free")
		}
	}
}

// TestEventsAreOurs: another site in the same browser takes no places.
func TestEventsAreOurs(t *testing.T) {
	url := serveSite(t, estate())
	if r, _ := fetch(t, http.MethodGet, url+"/events", "Sec-Fetch-Site", "cross-site"); r.StatusCode != http.StatusForbidden {
		t.Errorf("%d", r.StatusCode)
	}
}

// TestEventsEndWithTheDaemon: a shutdown does not wait for listeners.
func TestEventsEndWithTheDaemon(t *testing.T) {
	f := estate()
	var began time.Time
	t.Run("while somebody listens", func(t *testing.T) {
		messages, _ := listen(t, context.WithoutCancel(t.Context()), serveSite(t, f))
		hear(t, messages)
		began = time.Now()
	})
	if took := time.Since(began); took > shutdownWait/2 {
		t.Errorf("the end took %s", took)
	}
}

// TestNotReadYet: the page says so, the API refuses with a reason, and both recover.
func TestNotReadYet(t *testing.T) {
	f := estate()
	f.unread = errors.New("the journal has not been read")
	url := serveSite(t, f, Component{Name: "journal", Reason: "it has not been read yet"}, Component{Name: "sources"})
	for _, path := range []string{"/api/v1/assignments", "/api/v1/policies", "/api/v1/assignments/shop/shop.example.com"} {
		if r, body := fetch(t, http.MethodGet, url+path); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "the journal has not been read") || r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, r.StatusCode, body)
		}
	}
	if status, _ := get(t, url+"/api/v1/status"); status != http.StatusOK {
		t.Errorf("the overview: %d", status)
	}
	if status, body := get(t, url+"/"); status != http.StatusOK || !strings.Contains(body, "Not ready") || !strings.Contains(body, "<strong>journal</strong>: it has not been read yet") || strings.Contains(body, "<strong>sources") {
		t.Errorf("the page: %d\n%s", status, body)
	}
	f.change(func(f *fakeReader) { f.unread = nil })
	for deadline := time.Now().Add(10 * time.Second); ; {
		if status, _ := get(t, url+"/api/v1/assignments"); status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never answers")
		}
	}
}
