package cloudsim

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// started is a bench whose client talks to the listening simulator.
func started(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := newBench(t, change)
	if err := b.sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b.sim.CAPEM()) {
		t.Fatal("no root")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxConnsPerHost: 60, MaxIdleConnsPerHost: 60}
	t.Cleanup(transport.CloseIdleConnections)
	b.base, b.client = b.sim.URL(), &http.Client{Transport: transport}
	return b
}

// handshake returns the fingerprint that an edge shows for name.
func handshake(addr, name string) (string, error) {
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, RootCAs: testRoots()})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return leafSHA(conn), nil
}

func testRoots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(makeCA().root)
	return roots
}

func leafSHA(conn *tls.Conn) string {
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

// The edges serve what is bound, verified against its chain; a switch drops no connection [OTC-D umn].
func TestEdgesServeTheBinding(t *testing.T) {
	b := started(t, func(c *Config) { c.Edges = 2; c.Hosts = append(c.Hosts, Host{Name: "*.shop.example.com"}) })
	addrs := b.sim.EdgeAddrs()
	if len(addrs) != 2 {
		t.Fatalf("edges %v", addrs)
	}
	for _, addr := range addrs {
		if sha, err := handshake(addr, shopHost); err != nil || sha != b.old.sha {
			t.Errorf("%s: %s %v", addr, sha, err)
		}
	}
	open, err := tls.Dial("tcp", addrs[0], &tls.Config{ServerName: shopHost, RootCAs: testRoots()})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	p := newPair(shopHost, "*.shop.example.com")
	id := b.create("new", p)
	body := applyBody([]string{b.sim.HostID(shopHost), b.sim.HostID("*.shop.example.com")}, nil)
	wantStatus(t, b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", body), 200)
	for _, name := range []string{shopHost, "SHOP.example.com", "a.shop.example.com"} {
		if sha, err := handshake(addrs[1], name); err != nil || sha != p.sha {
			t.Errorf("%s: %s %v", name, sha, err)
		}
	}
	_, _ = io.WriteString(open, "GET / HTTP/1.1\r\nHost: "+shopHost+"\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(open)
	if err != nil || !strings.Contains(string(text), "200 OK") || !strings.Contains(string(text), "served by edge 0") {
		t.Errorf("the open connection: %q %v", text, err)
	}
	if leafSHA(open) != b.old.sha {
		t.Error("the open connection changed its certificate")
	}
}

// An unknown name, an HTTP host, a host without a certificate and no name at all end in an alert.
func TestEdgeAlerts(t *testing.T) {
	b := started(t, nil)
	crossed, other := newPair(apiHost), newPair(apiHost)
	crossed.key = other.key
	for _, name := range []string{"unknown.example.com", plainHost, apiHost, "a.b.example.com", ""} {
		conn, err := tls.Dial("tcp", b.sim.EdgeAddrs()[0], &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil || !strings.HasSuffix(err.Error(), "remote error: tls: unrecognized name") {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	// Uploaded unchecked, a pair that does not match serves nobody.
	id := b.create("crossed", crossed)
	wantStatus(t, b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", applyBody([]string{b.sim.HostID(apiHost)}, nil)), 200)
	if _, err := handshake(b.sim.EdgeAddrs()[0], apiHost); err == nil {
		t.Error("a crossed pair is served")
	}
}

// Propagation and lag: edge i serves a binding after Propagation + i*EdgeLag, what it had before until then, also
// when the old certificate is deleted or changed in between.
func TestPropagation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.Edges, c.Propagation, c.EdgeLag = 2, 10*time.Second, 30*time.Second })
		p := newPair(shopHost, inHost)
		id := b.create("new", p)
		wantStatus(t, b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts",
			applyBody([]string{b.sim.HostID(shopHost)}, []string{b.sim.HostID(inHost)})), 200)
		wantStatus(t, b.waf("DELETE", "/waf/certificate/"+b.sim.Certificates()[0].ID, nil), 200)
		serves := func(edge int) string {
			client, server := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = tls.Server(server, b.sim.EdgeTLS(edge)).Handshake()
			}()
			conn := tls.Client(client, &tls.Config{ServerName: shopHost, InsecureSkipVerify: true})
			err := conn.Handshake()
			<-done
			if err != nil {
				t.Fatal(err)
			}
			shown := leafSHA(conn)
			client.Close()
			if told := b.sim.Hosts()[0].Served[edge]; told != shown {
				t.Errorf("edge %d shows %s, Hosts says %s", edge, shown, told)
			}
			return map[string]string{b.old.sha: "old", p.sha: "new"}[shown]
		}
		for _, step := range []struct {
			wait time.Duration
			want string
		}{{0, "old old"}, {10*time.Second - 1, "old old"}, {1, "new old"}, {30*time.Second - 1, "new old"}, {1, "new new"}} {
			time.Sleep(step.wait)
			if got := serves(0) + " " + serves(1); got != step.want {
				t.Errorf("after another %s: %s, want %s", step.wait, got, step.want)
			}
		}
	})
}

// The API listener: real TLS with a root that is new at each start; connections refused on accept.
func TestListener(t *testing.T) {
	b, other := started(t, nil), started(t, nil)
	if string(b.sim.CAPEM()) == string(other.sim.CAPEM()) {
		t.Error("two simulators share a root")
	}
	if !strings.HasPrefix(b.sim.URL(), "https://127.0.0.1:") {
		t.Errorf("URL %q", b.sim.URL())
	}
	if _, err := http.Get(b.sim.URL()); err == nil {
		t.Error("trusted without the root")
	}
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
	b.client.CloseIdleConnections()
	b.add(Fault{Operation: OperationConnect, Name: FaultRefuse, Count: 1})
	if r := b.waf("GET", "/waf/certificate", nil); r.err == nil || !errors.Is(r.err, syscall.ECONNRESET) && !errors.Is(r.err, io.EOF) {
		t.Errorf("refused on accept: %v", r.err)
	}
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
	if err := b.sim.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	if err := errors.Join(b.sim.Close(), b.sim.Close()); err != nil {
		t.Error(err)
	}
	if r := b.waf("GET", "/waf/certificate", nil); r.err == nil {
		t.Error("answers after Close")
	}
	if _, err := handshake(b.sim.EdgeAddrs()[0], shopHost); err == nil {
		t.Error("edges serve after Close")
	}
	// The end of Start's context closes as well.
	ctx, cancel := context.WithCancel(t.Context())
	bound := newBench(t, nil)
	if err := bound.sim.Start(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-bound.sim.done
	taken := newBench(t, func(c *Config) { c.Listen = strings.TrimPrefix(other.base, "https://") })
	if err := taken.sim.Start(t.Context()); err == nil {
		t.Error("listens on a taken address")
	}
}

// Over a real connection too, a held call outlives the kill of its caller, and Close ends it.
func TestHoldOverTLS(t *testing.T) {
	b := started(t, nil)
	id := b.add(Fault{Operation: "CreateCertificate", Name: FaultHold, Phase: After})
	ctx, kill := context.WithCancel(t.Context())
	ended := make(chan reply, 1)
	go func() {
		ended <- b.sendCtx(ctx, "POST", "/v1/"+b.sim.Config().ProjectID+"/waf/certificate", upl("held", newPair(apiHost)), b.withToken)
	}()
	if _, err := b.sim.Faults().WaitHeld(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	kill()
	<-ended
	if got := len(b.sim.Certificates()); got != 2 {
		t.Errorf("%d certificates", got)
	}
	if err := b.sim.Close(); err != nil {
		t.Error(err)
	}
}

// Fifty clients at once: every name is created once, the quota holds, the ledger numbers every call.
func TestFiftyClients(t *testing.T) {
	b := started(t, func(c *Config) { c.CertificateQuota, c.Misbehave = 31, true })
	pairs := make([]pair, 40)
	for i := range pairs {
		pairs[i] = newPair(apiHost)
	}
	var mu sync.Mutex
	tally := map[int]int{}
	var wait sync.WaitGroup
	for client := range 50 {
		wait.Go(func() {
			for i := range 4 {
				n := (client*4 + i) % len(pairs)
				r := b.waf("POST", "/waf/certificate", upl(fmt.Sprintf("c%d", n), pairs[n]))
				b.waf("GET", "/waf/certificate?pagesize=100", nil)
				if id := r.str("id"); id != "" {
					b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", applyBody([]string{b.sim.HostID(apiHost)}, nil))
				}
				mu.Lock()
				tally[r.status]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if tally[200] != 30 || tally[400] != 170 {
		t.Errorf("answers: %v", tally)
	}
	seen, bound := map[string]bool{}, 0
	for _, cert := range b.sim.Certificates() {
		seen[cert.Name+cert.Fingerprint] = true
		bound += len(cert.Hosts)
	}
	if len(seen) != 31 || bound != 3 {
		t.Errorf("%d certificates, %d bindings", len(seen), bound)
	}
	for i, e := range b.sim.Ledger() {
		if e.Seq != i+1 || e.Status == 0 {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
}

// The management API: what another process can see and do, and never a private key.
func TestManagement(t *testing.T) {
	b := started(t, func(c *Config) { c.Management = true })
	p := newPair(apiHost)
	get := func(path string, into any) string {
		r := b.send("GET", path, nil)
		wantStatus(t, r, 200)
		if err := json.Unmarshal([]byte(r.text), into); err != nil {
			t.Fatal(err)
		}
		return r.text
	}
	up := b.send("POST", "/sim/console/upload", map[string]any{"name": "by-hand", "certificate": p.chain, "key": p.key})
	wantStatus(t, up, 200)
	wantStatus(t, b.send("POST", "/sim/console/bind", map[string]any{"host": apiHost, "certificate_id": up.str("id")}), 200)
	wantStatus(t, b.send("POST", "/sim/console/delete", map[string]any{"certificate_id": up.str("id")}), 400)
	var state struct {
		URL          string
		Edges        []string
		Quota        int
		Certificates []CertificateInfo
		Hosts        []HostInfo
	}
	text := get("/sim/state", &state)
	if state.URL != b.sim.URL() || len(state.Edges) != 1 || state.Quota != 20 || len(state.Certificates) != 2 || state.Hosts[1].Served[0] != p.sha {
		t.Errorf("state: %s", text)
	}
	noKeyIn(t, text, p)
	if r := b.send("GET", "/sim/ca.pem", nil); r.text != string(b.sim.CAPEM()) {
		t.Error("ca.pem")
	}

	added := b.send("POST", "/sim/faults", map[string]any{"operation": "CreateCertificate", "name": "hold", "phase": "after", "count": 1})
	wantStatus(t, added, 200)
	q, ended := newPair(apiHost), make(chan reply, 1)
	go func() { ended <- b.waf("POST", "/waf/certificate", upl("held", q)) }()
	id := int(added.json["id"].(float64))
	if _, err := b.sim.Faults().WaitHeld(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	var faults struct {
		Faults []struct {
			ID, Hits int
			Held     []Entry
		}
	}
	if text := get("/sim/faults", &faults); len(faults.Faults) != 1 || faults.Faults[0].Held[0].Fingerprint != q.sha {
		t.Errorf("faults: %s", text)
	}
	if r := b.send("POST", "/sim/faults/release", map[string]any{"id": id}); r.json["released"] != 1.0 {
		t.Errorf("release: %s", r.text)
	}
	wantStatus(t, <-ended, 200)
	wantStatus(t, b.send("POST", "/sim/faults", map[string]any{"name": "delay", "delay": "1m30s"}), 200)
	if got := b.sim.Faults().List()[1].Fault.Delay; got != 90*time.Second {
		t.Errorf("delay %s", got)
	}
	wantStatus(t, b.send("DELETE", "/sim/faults", nil), 200)
	for path, body := range map[string]string{
		"/sim/faults": `{"name":"nonsense"}`, "/sim/faults/release": `{"id":"1"}`, "/sim/console/upload": `{"name":"x","unknown":1}`,
		"/sim/console/bind": `{"host":"x"}`,
	} {
		if r := b.send("POST", path, body); r.status != 400 || r.str("error") == "" {
			t.Errorf("%s: %d %s", path, r.status, r.text)
		}
	}
	wantStatus(t, b.send("POST", "/sim/faults", `{"name":"delay","delay":"soon"}`), 400)

	var ledger struct{ Entries []Entry }
	text = get("/sim/ledger", &ledger)
	noKeyIn(t, text, p)
	noKeyIn(t, text, q)
	all := len(ledger.Entries)
	if get(fmt.Sprintf("/sim/ledger?after=%d", all-1), &ledger); len(ledger.Entries) != 1 || ledger.Entries[0].Seq != all {
		t.Errorf("tail of the ledger: %+v", ledger.Entries)
	}
	wantStatus(t, b.send("POST", "/sim/tokens/expire", ""), 200)
	wantStatus(t, b.waf("GET", "/waf/certificate", nil), 401)
	closed := newBench(t, nil)
	wantStatus(t, closed.send("GET", "/sim/state", nil), 404) // off by default
}
