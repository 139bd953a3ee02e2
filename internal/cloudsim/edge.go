package cloudsim

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Edges are the TLS servers in front of the protected domains of WAF and the domains of APIG. What an edge serves is computed from the history of
// bindings at the moment of the handshake: no timers, so it is right under fake time too, and connections that are
// open stay open over a switch [OTC-D umn].

// edgeListener is one edge.
type edgeListener struct {
	*webServer
}

func listenEdge(s *Sim, index int) (*edgeListener, error) {
	tcp, err := listenTCP("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, "%s, served by edge %d of the simulated cloud\n", r.TLS.ServerName, index)
	})
	return &edgeListener{serveOn(s, tcp, tls.NewListener(tcp, s.EdgeTLS(index)), handler)}, nil
}

func (e *edgeListener) addr() string { return e.tcp.Addr().String() }

// EdgeTLS is the TLS server configuration of edge index, for handshakes without a socket. A name that is not
// protected, or has no certificate yet, ends in the alert unrecognized_name.
func (s *Sim) EdgeTLS(index int) *tls.Config {
	return &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return s.edgeConfig(index, hello.ServerName)
		},
	}
}

// edgeConfig is for one handshake. Without session tickets: a resumed session would show the certificate of the past.
func (s *Sim) edgeConfig(index int, name string) (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := &tls.Config{NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true}
	host := s.waf.hostForName(name)
	// The exact name goes before a wildcard, whichever service has it; no name is in both.
	domain := s.apig.domainForName(name)
	if domain != nil && (host == nil || strings.HasPrefix(host.name, "*.") && !strings.HasPrefix(domain.name, "*.")) {
		return domainEdge(config, domain.stateAt(s.now(), s.edgeDelay(index))), nil
	}
	if host == nil {
		return config, nil // no certificate: crypto/tls sends unrecognized_name
	}
	bound, ok := host.servedAt(s.now(), s.edgeDelay(index))
	if !ok {
		return config, nil
	}
	if bound.pair == nil {
		// A key that does not match its certificate was uploaded unchecked; no server can use that pair.
		return nil, errors.New("the certificate and the private key do not match")
	}
	config.Certificates = []tls.Certificate{*bound.pair}
	config.MinVersion = tlsVersion(host.tls)
	return config, nil
}

func tlsVersion(level string) uint16 {
	switch level {
	case "TLS v1.0":
		return tls.VersionTLS10
	case "TLS v1.1":
		return tls.VersionTLS11
	case "TLS v1.3":
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// edgeDelay is how long after a binding edge index serves it.
func (s *Sim) edgeDelay(index int) time.Duration {
	return s.cfg.Propagation + time.Duration(index)*s.cfg.EdgeLag
}

// servedAt is the newest binding that is at least delay old.
func (h *wafHost) servedAt(now time.Time, delay time.Duration) (binding, bool) {
	for _, b := range slices.Backward(h.bindings) {
		if b.at.IsZero() || !now.Before(b.at.Add(delay)) {
			return b, true
		}
	}
	return binding{}, false
}

// hostForName picks the host for a server name: the exact one, else the wildcard one label up.
func (w *wafState) hostForName(name string) *wafHost {
	name = strings.ToLower(name)
	var wildcard *wafHost
	_, parent, hasParent := strings.Cut(name, ".")
	for _, host := range w.hosts {
		if !host.takesCertificate() || name == "" || net.ParseIP(name) != nil {
			continue
		}
		if host.name == name {
			return host
		}
		if hasParent && host.name == "*."+parent {
			wildcard = host
		}
	}
	return wildcard
}
