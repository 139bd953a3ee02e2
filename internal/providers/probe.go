package providers

import (
	"context"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// Prober makes TLS handshakes with endpoints, to prove what is served.
type Prober interface {
	// Probe returns one Probe for each address of each endpoint, in a stable order; one
	// with Err for an endpoint that could not be resolved.
	Probe(ctx context.Context, r ProbeRequest) []Probe
}

// ProbeRequest says with whom to make handshakes and what to make of the chain.
type ProbeRequest struct {
	// Endpoints are host:port; the host is sent as server name.
	Endpoints []string
	// Addresses pin where the endpoints are reached: IP addresses, with a port where it
	// differs from the endpoint's. Empty: whatever the name resolves to.
	Addresses []string
	// CheckChain asks for a chain to the roots in CAFile, or the system's.
	CheckChain bool
	CAFile     string
}

// Probe is the outcome of one TLS handshake.
type Probe struct {
	Endpoint    string            `json:"endpoint"`
	Address     string            `json:"address,omitempty"`
	Fingerprint certs.Fingerprint `json:"fingerprint"`
	NotBefore   time.Time         `json:"not_before,omitzero"`
	NotAfter    time.Time         `json:"not_after,omitzero"`
	// Err is why there was no handshake, or why the served chain was not accepted.
	Err      string        `json:"err,omitempty"`
	Duration time.Duration `json:"duration"`
}

// Serves reports whether the handshake showed the bundle with this fingerprint and an
// acceptable chain.
func (p Probe) Serves(f certs.Fingerprint) bool { return p.Err == "" && p.Fingerprint == f }

// Complaint says in words how the handshake differs from what is wanted.
func (p Probe) Complaint(wanted certs.Fingerprint) string {
	at := p.Endpoint
	if p.Address != "" {
		at += " at " + p.Address
	}
	if p.Err != "" {
		return at + ": " + p.Err
	}
	return at + " serves " + p.Fingerprint.Short() + ", not " + wanted.Short()
}
