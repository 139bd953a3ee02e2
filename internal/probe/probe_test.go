package probe

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLeaves: whatever is served is reported; what is wrong with it stands beside it.
func TestLeaves(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	day := 24 * time.Hour
	for _, test := range []struct {
		name   string
		served *certs.Bundle
		err    string // part of it; empty for none
	}{
		{"right", w.issueFor(shop), ""},
		{"wildcard", w.issueFor("*.example.com"), ""},
		{"untrusted", other.issueFor(shop), "the served chain is not accepted: x509: certificate signed by unknown authority"},
		{"expired", w.issue(certstest.Options{Names: []string{shop}, NotBefore: time.Now().Add(-2 * day), NotAfter: time.Now().Add(-day)}),
			"certificate has expired or is not yet valid"},
		{"not yet valid", w.issue(certstest.Options{Names: []string{shop}, NotBefore: time.Now().Add(day)}),
			"certificate has expired or is not yet valid"},
		{"other name", w.issueFor("www.example.com"), "certificate is valid for www.example.com, not " + shop},
		{"RSA", w.issue(certstest.Options{Names: []string{shop}, KeyType: certstest.RSA2048}), ""},
		{"without chain", &certs.Bundle{}, "unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := test.served
			if b.Leaf == nil {
				b = w.issueFor(shop)
				b.Chain = nil
			}
			address := serve(t, "127.0.0.1", configFor(b))
			got := w.probe(address)
			if len(got) != 1 {
				t.Fatalf("%d probes for one address", len(got))
			}
			p := got[0]
			if p.Endpoint != endpoint || p.Address != address || p.Duration <= 0 {
				t.Errorf("probe of %s at %s in %s", p.Endpoint, p.Address, p.Duration)
			}
			if p.Fingerprint != b.Fingerprint() || !p.NotBefore.Equal(b.Leaf.NotBefore) || !p.NotAfter.Equal(b.Leaf.NotAfter) {
				t.Errorf("reported %s, %s to %s", p.Fingerprint.Short(), p.NotBefore, p.NotAfter)
			}
			if (p.Err == "") != (test.err == "") || !strings.Contains(p.Err, test.err) {
				t.Errorf("problem %q, want %q", p.Err, test.err)
			}
			if p.Serves(b.Fingerprint()) != (test.err == "") || p.Serves(other.issueFor(shop).Fingerprint()) {
				t.Error("Serves does not follow")
			}
		})
	}
}

func TestChainIsNotChecked(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	b := other.issue(certstest.Options{Names: []string{"www.example.com"}, NotAfter: time.Now().Add(-time.Minute)})
	address := serve(t, "127.0.0.1", configFor(b))
	for _, caFile := range []string{"", w.caFile, "/does/not/exist"} {
		got := Prober{}.Probe(t.Context(), providers.ProbeRequest{Endpoints: []string{endpoint}, Addresses: []string{address}, CAFile: caFile})
		if len(got) != 1 || !got[0].Serves(b.Fingerprint()) {
			t.Errorf("with roots %q: %+v", caFile, got)
		}
	}
}

func TestRootsThatCannotBeUsed(t *testing.T) {
	w := newWorld(t)
	key, err := w.issueFor(shop).Key.PEM(certs.PKCS8)
	must(t, err)
	folder := t.TempDir()
	for name, content := range map[string]string{
		"empty.pem": "", "text.pem": "these are the roots\n", "key.pem": string(key),
		"broken.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})),
	} {
		must(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	for _, name := range []string{"empty.pem", "text.pem", "key.pem", "broken.pem", "missing.pem"} {
		path := filepath.Join(folder, name)
		got := Prober{}.Probe(t.Context(), providers.ProbeRequest{
			Endpoints: []string{endpoint, "www.example.com:443"}, Addresses: []string{freeAddress(t)}, CheckChain: true, CAFile: path,
		})
		if len(got) != 2 || got[0].Endpoint != endpoint || got[1].Endpoint != "www.example.com:443" {
			t.Fatalf("%s: %+v", name, got)
		}
		for _, p := range got {
			if !strings.Contains(p.Err, "roots") || !strings.Contains(p.Err, path) || !p.Fingerprint.IsZero() {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

func TestOneOfSeveralAddressesIsDown(t *testing.T) {
	w := newWorld(t)
	one, two := w.issueFor(shop), w.issueFor(shop)
	addresses := []string{serve(t, "127.0.0.1", configFor(one)), freeAddress(t), serve(t, "127.0.0.1", configFor(two))}
	got := w.probe(addresses...)
	if len(got) != 3 || !got[0].Serves(one.Fingerprint()) || !got[2].Serves(two.Fingerprint()) {
		t.Fatalf("%+v", got)
	}
	for i, p := range got {
		if p.Address != addresses[i] {
			t.Errorf("probe %d is of %s, want %s", i, p.Address, addresses[i])
		}
	}
	if down := got[1]; down.Err != "connect: connection refused" || !down.Fingerprint.IsZero() || down.Serves(certs.Fingerprint{}) {
		t.Errorf("nobody listens: %+v", down)
	}
}

// TestAddressesWithoutPort take the endpoint's.
func TestAddressesWithoutPort(t *testing.T) {
	for _, c := range []struct{ pinned, address string }{
		{"192.0.2.7", "192.0.2.7:8443"},
		{"192.0.2.7:9443", "192.0.2.7:9443"},
		{"2001:db8::7", "[2001:db8::7]:8443"},
		{"[2001:db8::7]", "[2001:db8::7]:8443"},
		{"[2001:db8::7]:9443", "[2001:db8::7]:9443"},
	} {
		if got := addressesOf(t.Context(), shop+":8443", []string{c.pinned}); len(got) != 1 || got[0].Address != c.address || got[0].Err != "" {
			t.Errorf("%s became %+v, want %s", c.pinned, got, c.address)
		}
	}
	w := newWorld(t)
	b := w.issueFor(shop)
	_, port, err := net.SplitHostPort(serve(t, "127.0.0.1", configFor(b)))
	must(t, err)
	got := Prober{}.Probe(t.Context(), providers.ProbeRequest{
		Endpoints: []string{shop + ":" + port}, Addresses: []string{"127.0.0.1"}, CheckChain: true, CAFile: w.caFile,
	})
	if len(got) != 1 || !got[0].Serves(b.Fingerprint()) {
		t.Errorf("%+v", got)
	}
}

func TestEndpointsThatLeadNowhere(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("a", 64) + ".example.com:443" // no name server is asked for such a label
	got := Prober{}.Probe(t.Context(), providers.ProbeRequest{Endpoints: []string{long, "shop.example.com"}, CheckChain: true, CAFile: w.caFile})
	if len(got) != 2 || !strings.HasPrefix(got[0].Err, "resolve: ") || !strings.Contains(got[1].Err, "missing port") {
		t.Fatalf("%+v", got)
	}
	for _, p := range got {
		if p.Address != "" || p.Serves(certs.Fingerprint{}) {
			t.Errorf("%+v", p)
		}
	}
}

// TestSilentServer: one that accepts and never answers costs the caller's time and no
// more, and the others are reported all the same.
func TestSilentServer(t *testing.T) {
	w := newWorld(t)
	b := w.issueFor(shop)
	silent := accept(t, "127.0.0.1", func(conn net.Conn) {
		for buffer := make([]byte, 1024); ; {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	})
	good := serve(t, "127.0.0.1", configFor(b))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	got := Prober{}.Probe(ctx, providers.ProbeRequest{
		Endpoints: []string{endpoint}, Addresses: []string{silent, good}, CheckChain: true, CAFile: w.caFile,
	})
	if len(got) != 2 || got[0].Err != "no handshake before the probe was ended: context deadline exceeded" || got[0].Duration <= 0 {
		t.Errorf("silent: %+v", got)
	}
	if !got[1].Serves(b.Fingerprint()) {
		t.Errorf("the other one: %+v", got[1])
	}
	for _, p := range (Prober{}).Probe(ctx, providers.ProbeRequest{Endpoints: []string{endpoint}, Addresses: []string{good}}) {
		if !strings.Contains(p.Err, "the probe was ended") {
			t.Errorf("after the end: %+v", p)
		}
	}
}

// TestRefusals: the text of a failure is the same at each try, so that it is logged once.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	noName := configFor(w.issueFor(shop))
	noName.Certificates = nil
	noName.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	hello := func(c net.Conn) { c.Read(make([]byte, 1<<14)) }
	for want, address := range map[string]string{
		"EOF":                            accept(t, "127.0.0.1", hello),
		"read: connection reset by peer": accept(t, "127.0.0.1", func(c net.Conn) { hello(c); c.(*net.TCPConn).SetLinger(0) }),
		"tls: first record does not look like a TLS handshake": accept(t, "127.0.0.1", func(c net.Conn) { hello(c); fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }),
		"remote error: tls: unrecognized name":                 serve(t, "127.0.0.1", noName),
	} {
		for range 3 {
			if got := w.probe(address)[0].Err; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	b := w.issueFor("::1")
	address := serve(t, "::1", configFor(b))
	got := Prober{}.Probe(t.Context(), providers.ProbeRequest{Endpoints: []string{address}, CheckChain: true, CAFile: w.caFile})
	if len(got) != 1 || !got[0].Serves(b.Fingerprint()) || got[0].Address != address {
		t.Errorf("%+v", got)
	}
}

// TestVersions: TLS 1.2 is enough, TLS 1.1 is not.
func TestVersions(t *testing.T) {
	w := newWorld(t)
	b := w.issueFor(shop)
	for version, ok := range map[uint16]bool{tls.VersionTLS13: true, tls.VersionTLS12: true, tls.VersionTLS11: false} {
		config := configFor(b)
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, version
		if got := w.probe(serve(t, "127.0.0.1", config)); got[0].Serves(b.Fingerprint()) != ok {
			t.Errorf("%s: %+v", tls.VersionName(version), got)
		}
	}
}

// TestEveryProbeIsFull: a resumed session would show the certificate of before.
func TestEveryProbeIsFull(t *testing.T) {
	w := newWorld(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		handshakes := make(chan tls.ConnectionState, 1) // the server may end its own after the client
		var served atomic.Pointer[certs.Bundle]
		config := configFor(w.issueFor(shop))
		config.MaxVersion = version
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &configFor(served.Load()).Certificates[0], nil
		}
		config.Certificates = nil
		config.VerifyConnection = func(s tls.ConnectionState) error {
			handshakes <- s
			return nil
		}
		address := serve(t, "127.0.0.1", config)
		for range 3 {
			b := w.issueFor(shop)
			served.Store(b)
			if got := w.probe(address); !got[0].Serves(b.Fingerprint()) {
				t.Errorf("%+v, want %s", got, b.Fingerprint().Short())
			}
			if s := <-handshakes; s.DidResume || s.ServerName != shop || s.Version != version {
				t.Errorf("%s with %q, resumed: %v", tls.VersionName(s.Version), s.ServerName, s.DidResume)
			}
		}
	}
}

// TestManyEndpoints: as many at once as are allowed and no more, in the order of the
// request.
func TestManyEndpoints(t *testing.T) {
	w := newWorld(t)
	b := w.issueFor("*.example.com")
	var mu sync.Mutex
	running, most := 0, 0
	enough := make(chan struct{})
	config := configFor(b)
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		running++
		if most = max(most, running); running == parallel && most == parallel {
			select {
			case <-enough:
			default:
				close(enough)
			}
		}
		mu.Unlock()
		<-enough // the first wait until there are as many as there may be
		mu.Lock()
		running--
		mu.Unlock()
		return nil, nil
	}
	request := providers.ProbeRequest{Addresses: []string{serve(t, "127.0.0.1", config)}, CheckChain: true, CAFile: w.caFile}
	for i := range 50 {
		request.Endpoints = append(request.Endpoints, fmt.Sprintf("host%02d.example.com:443", i))
	}
	got := Prober{}.Probe(t.Context(), request)
	if most != parallel {
		t.Errorf("%d handshakes at once, want %d", most, parallel)
	}
	if len(got) != len(request.Endpoints) {
		t.Fatalf("%d probes", len(got))
	}
	for i, p := range got {
		if p.Endpoint != request.Endpoints[i] || !p.Serves(b.Fingerprint()) {
			t.Errorf("probe %d: %+v", i, p)
		}
	}
}

// TestOrderOfResolvedAddresses is that of the addresses, whatever a resolver says first.
func TestOrderOfResolvedAddresses(t *testing.T) {
	got := addressesOf(t.Context(), "localhost:443", nil)
	if len(got) == 0 || !slices.IsSortedFunc(got, func(a, b providers.Probe) int { return strings.Compare(a.Address, b.Address) }) {
		t.Errorf("%+v", got)
	}
	for _, p := range got {
		if host, port, err := net.SplitHostPort(p.Address); err != nil || port != "443" || !net.ParseIP(host).IsLoopback() {
			t.Errorf("localhost is at %q", p.Address)
		}
	}
}
