package admin

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// members is how many connections are let in.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members)
}

// crowded serves a site and returns its server too.
func crowded(t *testing.T, metrics http.Handler) (*Server, string) {
	t.Helper()
	s, err := Listen(Config{
		Listen: "127.0.0.1:0", Metrics: metrics, Reader: estate(), Logger: discard(),
		Ready: func() []Component { return nil }, Alive: func() error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, s.Addr()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestWhoComesIsLetIn: however many hold connections, and whatever they do with them, somebody
// who asks now is answered now, and there are never more connections than may be.
func TestWhoComesIsLetIn(t *testing.T) {
	large := strings.Repeat("x", 16<<20) // more than the sockets of both sides take
	for name, hostile := range map[string]string{
		"says nothing":            "",
		"trickles its header":     "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"keeps its connection":    "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"does not read":           "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"asks and does not read":  strings.Repeat("GET /api/v1/assignments HTTP/1.1\r\nHost: localhost\r\n\r\n", 100),
		"listens and reads not":   "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"sends no body":           "POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
		"a body without an end":   "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + strings.Repeat("x", 1<<16),
		"header without an end":   "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", maxHeader+8<<10),
		"a path without an end":   "GET /" + strings.Repeat("x", maxHeader+8<<10),
		"no HTTP at all":          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"two lengths in a header": "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "says nothing" && name != "asks and does not read" {
				t.Skip("the others are the same to the race detector")
			}
			var scrapes atomic.Int32
			s, address := crowded(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				scrapes.Add(1)
				if r.Header.Get("User-Agent") == "" { // the hostile ones
					_, _ = io.WriteString(w, large)
				}
			}))
			var before, during runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for range maxConnections + 60 {
				c := dial(t, address)
				_, _ = io.WriteString(c, hostile)
			}
			began := time.Now()
			for _, path := range []string{"/metrics", "/livez", "/", "/api/v1/status"} {
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
				r, err := client.Get("http://" + address + path)
				if err != nil {
					t.Fatalf("after %s: %v", time.Since(began), err)
				}
				_ = r.Body.Close()
				if r.StatusCode != http.StatusOK {
					t.Errorf("%s: %s", path, r.Status)
				}
			}
			if n := s.listener.(*crowd).count(); n > maxConnections {
				t.Errorf("%d connections are let in", n)
			}
			runtime.GC()
			runtime.ReadMemStats(&during)
			if grown := int64(during.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
				t.Errorf("they hold %d MB", grown>>20)
			}
		})
	}
}

// TestSlowHeadersEnd: a header that comes a byte at a time has its time in all, not from byte to
// byte.
func TestSlowHeadersEnd(t *testing.T) {
	t.Parallel()
	_, address := crowded(t, http.NotFoundHandler())
	c := dial(t, address)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	began, ticks := time.Now(), time.NewTicker(50*time.Millisecond)
	defer ticks.Stop()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX: ")
	for {
		select {
		case <-ticks.C:
			_, _ = io.WriteString(c, "x")
			if time.Since(began) > 4*headerWait {
				t.Fatal("it goes on")
			}
			continue
		case <-ended:
		}
		break
	}
	if took := time.Since(began); took < headerWait-time.Second {
		t.Errorf("it had %s", took)
	}
}

// TestFloodOfRequests: while many ask as fast as they can, everybody gets an answer, and be it
// that there is no place.
func TestFloodOfRequests(t *testing.T) {
	_, address := crowded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "probe 42\n") }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var flood sync.WaitGroup
	var answered atomic.Int64
	for i := range 64 {
		path := []string{"/", "/api/v1/assignments?q=a&sort=expires", "/api/v1/history", "/metrics"}[i%4]
		flood.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				q, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
				r, err := client.Do(q)
				if err != nil {
					continue // the end of the test, or a connection that others came for
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if r.StatusCode != http.StatusOK && r.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("%s: %s", path, r.Status)
				}
				answered.Add(1)
			}
		})
	}
	for range 20 {
		for before := answered.Load(); answered.Load() < before+20; {
			runtime.Gosched()
		}
		if status, body := get(t, "http://"+address+"/metrics"); status != http.StatusOK || body != "probe 42\n" {
			t.Errorf("a scrape in between: %d %q", status, body)
		}
	}
	cancel()
	flood.Wait()
}

// TestPipelined: requests that come in one go are answered one after the other, up to a bad one.
func TestPipelined(t *testing.T) {
	_, address := crowded(t, http.NotFoundHandler())
	c := dial(t, address)
	const n = 200
	_, _ = io.WriteString(c, strings.Repeat("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", n)+"NONSENSE\r\n\r\n")
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	for i := range n + 1 {
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if want := map[bool]int{true: http.StatusOK, false: http.StatusBadRequest}[i < n]; r.StatusCode != want {
			t.Errorf("answer %d: %s", i, r.Status)
		}
	}
	if _, err := answers.ReadByte(); err == nil {
		t.Error("there is more")
	}
}

// TestRapidReset: over HTTP/2 a client asks and takes it back, as fast as it can. No more is
// worked on at once than may be, and the connection ends.
func TestRapidReset(t *testing.T) {
	var now, most atomic.Int32
	released := make(chan struct{})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-released // it does not hear that nobody wants it any more
	})
	s, err := Listen(Config{Listen: "127.0.0.1:0", Metrics: handler, Logger: discard(), Reader: newFake()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// As the toolkit does it where a web configuration says so.
	server := httptest.NewUnstartedServer(nil)
	server.Config, server.Listener, server.EnableHTTP2 = s.http, s.listener, true
	server.StartTLS()
	defer server.Close()
	defer close(released)
	c, err := tls.Dial("tcp", s.Addr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, http2.ClientPreface)
	framer := http2.NewFramer(c, c)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var header strings.Builder
	e := hpack.NewEncoder(&header)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/metrics"}} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	sent := 0
	for id := uint32(1); sent < 20_000; id += 2 {
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(header.String()), EndHeaders: true, EndStream: true}) != nil ||
			framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
		sent++
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the connection did not end")
	}
	if m := most.Load(); m == 0 || m > maxStreams {
		t.Errorf("%d at once, want at most %d", m, maxStreams)
	}
	t.Logf("it ended after %d streams; %d at once", sent, most.Load())
}

// TestWhoGoes: whoever has to go is of those from where most are, and of these the one that is
// missed the least.
func TestWhoGoes(t *testing.T) {
	began := time.Now()
	networks := []netip.Prefix{{}, netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.7/32"), netip.MustParsePrefix("2001:db8::/64")}
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd(nil, 1)
		from := map[netip.Prefix]int{}
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			m := &member{
				from: rapid.SampledFrom(networks).Draw(t, "from"), asking: rapid.Bool().Draw(t, "asking"),
				since: began.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "since"))),
			}
			c.members[m] = struct{}{}
			from[m.from]++
		}
		out := c.leastMissed()
		for m := range c.members {
			switch {
			case from[m.from] > from[out.from]:
				t.Fatalf("one of %d goes, and there are %d elsewhere", from[out.from], from[m.from])
			case from[m.from] == from[out.from] && out.asking && !m.asking:
				t.Fatal("who asks goes before who does not")
			case from[m.from] == from[out.from] && out.asking == m.asking && m.since.Before(out.since):
				t.Fatal("the younger one goes")
			}
		}
	})
}

func TestNetworkOf(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:5": "127.0.0.1/32", "[::ffff:10.0.0.7]:5": "10.0.0.7/32", "[2001:db8::1:2:3:4]:5": "2001:db8::/64", "[fe80::1%lo]:5": "fe80::/64",
	} {
		if got := networkOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))); got.String() != want {
			t.Errorf("%s is of %s, want %s", address, got, want)
		}
	}
	if networkOf(&net.UnixAddr{}) != networkOf(&net.TCPAddr{}) {
		t.Error("those without an address are not one")
	}
}

// TestOnlyAtHome: a listener for this host answers to this host's names, so that no page on the
// web can read it under its own name.
func TestOnlyAtHome(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	loopback, everywhere := &net.TCPAddr{IP: net.IPv6loopback}, &net.TCPAddr{IP: net.IPv4zero}
	for _, test := range []struct {
		host    string
		bound   net.Addr
		config  Config
		refused bool
	}{
		{"127.0.0.1:9847", loopback, Config{}, false},
		{"[::1]:9847", loopback, Config{}, false},
		{"[::1]", loopback, Config{}, false},
		{"10.1.2.3", loopback, Config{}, false}, // a port forwarded by address; no name leads there
		{"localhost:9847", loopback, Config{}, false},
		{"LOCALHOST.", loopback, Config{}, false},
		{"rotatord.localhost:1", loopback, Config{}, false},
		{"", loopback, Config{}, false},
		{"evil.example:9847", loopback, Config{}, true},
		{"localhost.evil.example", loopback, Config{}, true},
		{"127.0.0.1.evil.example", loopback, Config{}, true},
		{"evillocalhost", loopback, Config{}, true},
		{"[::1", loopback, Config{}, false},
		{"a b\x1b[31m", loopback, Config{}, true},
		{strings.Repeat("x", 10_000), loopback, Config{}, true},
		{"evil.example", everywhere, Config{}, false},
		{"evil.example", loopback, Config{WebConfig: "web.yaml"}, false},
		{"evil.example", &net.UnixAddr{}, Config{}, false},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = test.host
		atHome(ok, test.config, test.bound).ServeHTTP(w, r)
		if (w.Code == http.StatusMisdirectedRequest) != test.refused || w.Body.Len() > 1000 || strings.Contains(w.Body.String(), "\x1b") {
			t.Errorf("%.50q on %s: %d %s", test.host, test.bound, w.Code, w.Body)
		}
	}
	if !isOurs("Build-7.example.com:80", "build-7.example.com") {
		t.Error("this host's own name is not its own")
	}
	url := serveSite(t, estate())
	r, body := fetchAs(t, url, "evil.example")
	if r.StatusCode != http.StatusMisdirectedRequest || !strings.Contains(body, "localhost") {
		t.Errorf("%d %s", r.StatusCode, body)
	}
}

// fetchAs asks under a name.
func fetchAs(t *testing.T, url, host string) (*http.Response, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = host
	r, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r, string(body)
}

// TestSocketUnderAttack: whoever floods the control socket, or says nothing on it, keeps nobody
// else from being answered.
func TestSocketUnderAttack(t *testing.T) {
	path := serveControl(t, Control{"look": {Do: echo}, "act": {Changes: true, Do: echo}})
	for i := range maxConnections + 60 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, []string{
			"", "GET /v1/look HTTP/1.1\r\nHost: x\r\nX-Slow: ", "POST /v1/act HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{", "GET /v1/look HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /v1/act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + strings.Repeat(" ", 4096),
		}[i%5])
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i := range 20 {
		var got echoed
		if err := NewClient(path).Ask(ctx, "look", map[string]string{"n": fmt.Sprint(i)}, &got); err != nil || got.Request != fmt.Sprintf(`{"n":"%d"}`, i) {
			t.Fatalf("after %s: %+v, %v", time.Since(began), got, err)
		}
		if err := NewClient(path).Tell(ctx, "act", Wish{Policy: "shop"}, &got); err != nil {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
	}
}
