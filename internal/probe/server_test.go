package probe

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
)

const (
	shop     = "shop.example.com"
	endpoint = shop + ":443"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a CA and what a prober needs to trust it.
type world struct {
	*certstest.CA
	t      testing.TB
	caFile string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	ca, err := certstest.NewCA("test")
	must(t, err)
	w := &world{ca, t, filepath.Join(t.TempDir(), "ca.pem")}
	must(t, os.WriteFile(w.caFile, ca.RootPEM(), 0o600))
	return w
}

func (w *world) issue(options certstest.Options) *certs.Bundle {
	w.t.Helper()
	b, err := w.Issue(options)
	must(w.t, err)
	return b
}

func (w *world) issueFor(names ...string) *certs.Bundle {
	w.t.Helper()
	return w.issue(certstest.Options{Names: names})
}

// probe asks for handshakes with the endpoint at the addresses, chain and all.
func (w *world) probe(addresses ...string) []providers.Probe {
	return Prober{}.Probe(w.t.Context(), providers.ProbeRequest{
		Endpoints: []string{endpoint}, Addresses: addresses, CheckChain: true, CAFile: w.caFile,
	})
}

func configFor(b *certs.Bundle) *tls.Config {
	c := tls.Certificate{Certificate: [][]byte{b.Leaf.Raw}, PrivateKey: b.Key.Signer()}
	for _, between := range b.Chain {
		c.Certificate = append(c.Certificate, between.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
}

// serve answers TLS handshakes at a free port of the host until the test ends, and
// fails the test if a client sends application data. It returns the address.
func serve(t testing.TB, host string, config *tls.Config) string {
	t.Helper()
	return accept(t, host, func(raw net.Conn) {
		conn := tls.Server(raw, config)
		if conn.HandshakeContext(t.Context()) != nil {
			return
		}
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) && !isReset(err) {
			t.Errorf("after the handshake came %d bytes and %v, want the end", n, err)
		}
	})
}

// isReset tells of a client that closed before it had read everything, the session
// tickets of TLS 1.3 for instance.
func isReset(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

func accept(t testing.TB, host string, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	must(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(time.Minute))
				handle(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	return listener.Addr().String()
}

// freeAddress is an address at which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	return listener.Addr().String()
}
