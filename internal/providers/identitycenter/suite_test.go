package identitycenter

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/providertest"
)

// TestTarget runs what every target must do. The service makes the certificates, so the
// suite has them made in the console.
func TestTarget(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Fixture {
		s := newSetup(t, cloudsim.Config{})
		fixture := providertest.Fixture{
			New:       func(t *testing.T) providers.Target { return s.app(t).Target() },
			Endpoints: []string{appID},
			Unknown:   "app-ins-ffffffffffffffff",
			Issue:     s.issueInConsole,
			UploadForeign: func(t *testing.T, _ string, b *certs.Bundle) providers.Handle {
				return s.handleOf(t, b)
			},
			BindForeign: func(t *testing.T, endpoint string, b *certs.Bundle) providers.Handle {
				h := s.handleOf(t, b)
				if err := s.sim.ConsoleActivate(endpoint, string(h)); err != nil {
					t.Fatal(err)
				}
				return h
			},
			Delete: func(t *testing.T, h providers.Handle) {
				if err := s.app(t).Target().Retire(t.Context(), providers.Request{Endpoints: []string{appID}, Made: []providers.Handle{h}}, h); err != nil {
					t.Fatal(err)
				}
			},
			Serves: func(t *testing.T, endpoint string) certs.Fingerprint {
				for _, c := range s.certificates() {
					if c.Status == "ACTIVE" {
						f, err := certs.ParseFingerprint(c.Fingerprint)
						if err != nil {
							t.Fatal(err)
						}
						return f
					}
				}
				return certs.Fingerprint{}
			},
		}
		fixture.Handles = func(*testing.T) (all []providers.Handle) {
			for _, c := range s.certificates() {
				all = append(all, providers.Handle(c.ID))
			}
			return all
		}
		fixture.Changes = func(*testing.T) (n int) {
			for _, e := range s.sim.Ledger() {
				if e.Effect && e.Service == "identity_center" {
					n++
				}
			}
			return n
		}
		return fixture
	})
}

// issueInConsole makes a certificate, as a bundle without its key.
func (s *setup) issueInConsole(t *testing.T) (*certs.Bundle, providers.Handle) {
	t.Helper()
	id, err := s.sim.ConsoleCreate(appID)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.certificates() {
		if c.ID == id {
			block, _ := pem.Decode([]byte(c.PEM))
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return &certs.Bundle{Leaf: leaf}, providers.Handle(id)
		}
	}
	t.Fatalf("certificate %s is not there", id)
	return nil, ""
}

func (s *setup) handleOf(t *testing.T, b *certs.Bundle) providers.Handle {
	t.Helper()
	for _, c := range s.certificates() {
		if c.Fingerprint == b.Fingerprint().String() {
			return providers.Handle(c.ID)
		}
	}
	t.Fatal("the certificate is not there")
	return ""
}
