// Package probe proves what is served: it makes TLS handshakes with every address of an
// endpoint and tells which leaf certificate was shown.
//
// It may import internal/certs, internal/providers (whose Prober it is) and the standard
// library.
//
// Invariants: a handshake never sends application data, never resumes a session (a
// resumed one shows no certificate) and never trusts what it should not: the leaf is
// reported even where its chain is refused, together with the reason.
package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const (
	// handshakeWait bounds one connection with its handshake.
	handshakeWait = 10 * time.Second
	// parallel is how many handshakes one call makes at once.
	parallel = 8
	// maxAddresses bounds what a name may resolve to.
	maxAddresses = 64
)

// Prober makes handshakes. The zero value is ready; it may be used by any goroutine.
type Prober struct{}

// Probe implements providers.Prober.
func (Prober) Probe(ctx context.Context, r providers.ProbeRequest) []providers.Probe {
	roots, err := loadRoots(r)
	if err != nil {
		return failAll(r.Endpoints, err)
	}
	addresses := make([][]providers.Probe, len(r.Endpoints))
	inParallel(len(r.Endpoints), func(i int) { addresses[i] = addressesOf(ctx, r.Endpoints[i], r.Addresses) })
	probes := slices.Concat(addresses...)
	inParallel(len(probes), func(i int) {
		if probes[i].Err == "" {
			handshake(ctx, &probes[i], roots, r.CheckChain)
		}
	})
	return probes
}

// inParallel calls do for 0 to n-1, for some of them at once.
func inParallel(n int, do func(int)) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error { do(i); return nil })
	}
	_ = g.Wait() // no call fails: what went wrong is in the probes
}

func loadRoots(r providers.ProbeRequest) (*x509.CertPool, error) {
	if !r.CheckChain || r.CAFile == "" {
		return nil, nil // the system's
	}
	return certs.ReadPool(r.CAFile)
}

func failAll(endpoints []string, err error) []providers.Probe {
	probes := make([]providers.Probe, len(endpoints))
	for i, endpoint := range endpoints {
		probes[i] = providers.Probe{Endpoint: endpoint, Err: err.Error()}
	}
	return probes
}

// addressesOf lists where an endpoint is to be reached: one Probe each, not yet made.
func addressesOf(ctx context.Context, endpoint string, pinned []string) []providers.Probe {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return failAll([]string{endpoint}, err)
	}
	var probes []providers.Probe
	for _, address := range pinned {
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), port)
		}
		probes = append(probes, providers.Probe{Endpoint: endpoint, Address: address})
	}
	if len(probes) > 0 {
		return probes
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return failAll([]string{endpoint}, fmt.Errorf("resolve: %w", err))
	}
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		probes = append(probes, providers.Probe{Endpoint: endpoint, Address: net.JoinHostPort(ip.Unmap().String(), port)})
	}
	// Resolvers rotate their answers; a stable order keeps reports comparable.
	slices.SortFunc(probes, func(a, b providers.Probe) int { return cmp.Compare(a.Address, b.Address) })
	return probes
}

// handshake fills in what one address shows.
func handshake(ctx context.Context, p *providers.Probe, roots *x509.CertPool, verify bool) {
	started := time.Now()
	defer func() { p.Duration = time.Since(started) }()
	limited, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	host, _, _ := net.SplitHostPort(p.Endpoint)
	// #nosec G402 -- the chain is checked below, so that the leaf is known even if it fails.
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(limited, "tcp", p.Address)
	if err != nil {
		p.Err = reason(ctx, err)
		return
	}
	state := conn.(*tls.Conn).ConnectionState()
	_ = conn.Close()
	leaf := state.PeerCertificates[0]
	p.Fingerprint, p.NotBefore, p.NotAfter = certs.FingerprintOf(leaf), leaf.NotBefore, leaf.NotAfter
	if verify {
		if err := verifyChain(state.PeerCertificates, host, roots); err != nil {
			p.Err = err.Error()
		}
	}
}

func verifyChain(shown []*x509.Certificate, host string, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	if _, err := shown[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between}); err != nil {
		return fmt.Errorf("the served chain is not accepted: %w", err)
	}
	return nil
}

// reason says in words why there was no handshake, the same words for the same cause: the
// local port, which is another one each time, is left out. ctx is the caller's.
func reason(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return fmt.Sprintf("no handshake before the probe was ended: %v", ctx.Err())
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no handshake within %s", handshakeWait)
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return err.Error()
}
