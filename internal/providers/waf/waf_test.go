package waf

import (
	"log/slog"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud/cloudtest"
	"github.com/rotatord/rotatord/internal/providers/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	shop  = "shop.example.com"
	store = "store.example.com"
)

// setup is one simulated account and how to reach it.
type setup struct {
	sim      *cloudsim.Sim
	mode     string
	project  string
	password bool // log in with it instead of signing
}

// newSetup starts a simulator whose hosts serve a certificate that somebody
// uploaded by hand.
func newSetup(t *testing.T, cfg cloudsim.Config, mode string) *setup {
	t.Helper()
	old := bundle(t, certstest.EC256, shop, store)
	key, err := old.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	byHand := cloudsim.Certificate{Name: "by_hand_2024", CertPEM: old.FullChainPEM(), KeyPEM: key}
	if cfg.Hosts == nil {
		cfg.Hosts = []cloudsim.Host{{Name: shop}, {Name: store}}
	}
	for i := range cfg.Hosts {
		cfg.Hosts[i].Dedicated = cfg.Hosts[i].Dedicated || mode == ModeDedicated
		if p := cfg.Hosts[i].Protocol; p == "" || p == "HTTPS" {
			cfg.Hosts[i].Certificate = byHand
		}
	}
	if cfg.CertificateQuota == 0 {
		cfg.CertificateQuota = -1
	}
	sim := cloudtest.Start(t, cfg)
	return &setup{sim: sim, mode: mode}
}

func bundle(t testing.TB, kind certstest.KeyType, names ...string) *certs.Bundle {
	t.Helper()
	ca, err := certstest.NewCA("waf test")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ca.Issue(certstest.Options{Names: names, KeyType: kind})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// adapter is whose calls are made.
func adapter() cloudtest.Adapter {
	return cloudtest.Adapter{Service: huaweicloud.WAF, Operations: Operations()}
}

// client is a new connection to the simulator.
func (s *setup) client(t *testing.T) *huaweicloud.Client {
	t.Helper()
	return adapter().Client(t, s.sim, func(c *huaweicloud.Config) {
		if s.password {
			c.Auth = cloudtest.Password(s.sim)
		}
	})
}

func (s *setup) target(t *testing.T) *Target {
	t.Helper()
	target, err := New(Config{
		Client: s.client(t), Mode: s.mode, EnterpriseProject: s.project,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// calls are the WAF operations since entry n of the ledger, in order.
func (s *setup) calls(n int) []string {
	var ops []string
	for _, e := range s.sim.Ledger()[n:] {
		if e.Service == "waf" {
			ops = append(ops, e.Operation)
		}
	}
	return ops
}

func (s *setup) fault(t *testing.T, f cloudsim.Fault) {
	t.Helper()
	if _, err := s.sim.Faults().Add(f); err != nil {
		t.Fatal(err)
	}
}

func (s *setup) upload(t *testing.T, name string, b *certs.Bundle) providers.Handle {
	t.Helper()
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.sim.ConsoleUpload(cloudsim.Certificate{Name: name, CertPEM: b.FullChainPEM(), KeyPEM: key})
	if err != nil {
		t.Fatal(err)
	}
	return providers.Handle(id)
}

func (s *setup) fixture() providertest.Fixture {
	return providertest.Fixture{
		New:       func(t *testing.T) providers.Target { return s.target(t) },
		Endpoints: []string{shop, store},
		Unknown:   "unknown.example.com",
		LoseCreate: func(t *testing.T) {
			s.fault(t, cloudsim.Fault{Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultLost, Count: 1})
		},
		FailCreate: func(t *testing.T) {
			s.fault(t, cloudsim.Fault{Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultBusy, Count: 1})
		},
		UploadForeign: s.upload,
		BindForeign: func(t *testing.T, endpoint string, b *certs.Bundle) providers.Handle {
			h := s.upload(t, "foreign_"+b.Fingerprint().Short(), b)
			if err := s.sim.ConsoleBind(endpoint, string(h)); err != nil {
				t.Fatal(err)
			}
			return h
		},
		Delete: func(t *testing.T, h providers.Handle) {
			if err := s.sim.ConsoleDelete(string(h)); err != nil {
				t.Fatal(err)
			}
		},
		Handles: func(*testing.T) []providers.Handle {
			var all []providers.Handle
			for _, c := range s.sim.Certificates() {
				all = append(all, providers.Handle(c.ID))
			}
			return all
		},
		Serves: func(t *testing.T, endpoint string) certs.Fingerprint {
			_, text, ok := s.sim.Bound(endpoint)
			if !ok {
				return certs.Fingerprint{}
			}
			f, err := certs.ParseFingerprint(text)
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		Changes: func(*testing.T) int {
			n := 0
			for _, e := range s.sim.Ledger() {
				if e.Service == "waf" && e.Effect {
					n++
				}
			}
			return n
		},
	}
}

// Every kind of WAF must pass the suite alike.
func TestConformance(t *testing.T) {
	variants := []struct {
		name     string
		mode     string
		cfg      cloudsim.Config
		project  string
		password bool
	}{
		{name: "cloud", mode: ModeCloud},
		{name: "cloud with password", mode: ModeCloud, password: true},
		{name: "dedicated", mode: ModeDedicated},
		{name: "both modes", mode: ModeAny, cfg: cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop}, {Name: store, Dedicated: true}}}},
		{name: "open telekom cloud", mode: ModeDedicated, cfg: cloudsim.Config{Region: "eu-de", OpenTelekom: true}},
		{name: "open telekom cloud with password", mode: ModeDedicated, cfg: cloudsim.Config{Region: "eu-de", OpenTelekom: true}, password: true},
		{name: "default enterprise project", mode: ModeCloud, project: "0"},
		{name: "misbehaving", mode: ModeCloud, cfg: cloudsim.Config{Misbehave: true, Seed: 3}},
		{name: "misbehaving otherwise", mode: ModeDedicated, cfg: cloudsim.Config{Misbehave: true, Seed: 8}},
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) providertest.Fixture {
				cfg := v.cfg
				cfg.Hosts = slices.Clone(cfg.Hosts)
				s := newSetup(t, cfg, v.mode)
				s.project, s.password = v.project, v.password
				return s.fixture()
			})
		})
	}
}
