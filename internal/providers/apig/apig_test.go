package apig

import (
	"log/slog"
	"runtime/debug"
	"strings"
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

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // a world for each row of a matrix is garbage soon
	goleak.VerifyTestMain(m)
}

const (
	shop  = "shop.example.com"
	store = "store.example.com"
	plain = "plain.example.com" // has no certificate
	// gatewayID is that of the gateway.
	gatewayID = "0d1c2b3a4f5e46978a6b7c8d9e0f1a2b"
)

var owner = providers.Owner{Policy: "shop", Certificate: "shop.example.com"}

// setup is one simulated account with one gateway, and how to reach it.
type setup struct {
	sim      *cloudsim.Sim
	old      *certs.Bundle // what shop and store serve at first
	scope    string
	replace  string
	ca       []byte // trusted_root_ca_file
	password bool
	locks    *Locks
}

// world says what a simulated gateway has beyond the usual.
type world struct {
	cloudsim.Config
	key       certstest.KeyType // of what is served at first
	both      bool              // RSA beside it
	global    bool
	trustedCA []byte
	verifies  bool
	ports     []int
	ownGroups bool // one for each domain
	scope     string
	replace   string
}

func material(t testing.TB, name string, b *certs.Bundle, ca []byte) cloudsim.GatewayCertificate {
	t.Helper()
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	return cloudsim.GatewayCertificate{Name: name, CertPEM: b.FullChainPEM(), KeyPEM: key, TrustedCAPEM: ca}
}

func newSetup(t *testing.T, w world) *setup {
	t.Helper()
	old := bundle(t, w.key, shop, store)
	byHand := material(t, "by_hand_2024", old, w.trustedCA)
	byHand.Instance = !w.global
	served := []cloudsim.GatewayCertificate{byHand}
	if w.both {
		rsa := material(t, "by_hand_rsa", bundle(t, certstest.RSA2048, shop, store), w.trustedCA)
		rsa.Instance = !w.global
		served = append(served, rsa)
	}
	var domains []cloudsim.Domain
	for _, name := range []string{shop, store, plain} {
		d := cloudsim.Domain{Name: name, Ports: w.ports}
		if name != plain {
			d.Certificates, d.ClientVerification = served, w.verifies
		}
		domains = append(domains, d)
	}
	groups := []cloudsim.Group{{Name: "api", Domains: domains}}
	if w.ownGroups {
		groups = nil
		for _, d := range domains {
			groups = append(groups, cloudsim.Group{Name: "g_" + d.Name[:5], Domains: []cloudsim.Domain{d}})
		}
	}
	cfg := w.Config
	cfg.Gateways = []cloudsim.Gateway{{ID: gatewayID, Groups: groups}}
	sim := cloudtest.Start(t, cfg)
	return &setup{sim: sim, old: old, scope: w.scope, replace: w.replace, locks: &Locks{}}
}

func bundle(t testing.TB, kind certstest.KeyType, names ...string) *certs.Bundle {
	t.Helper()
	return issue(t, certstest.Options{Names: names, KeyType: kind})
}

func issue(t testing.TB, o certstest.Options) *certs.Bundle {
	t.Helper()
	ca, err := certstest.NewCA("apig test")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// adapter is whose calls are made.
func adapter() cloudtest.Adapter {
	return cloudtest.Adapter{Service: huaweicloud.APIG, Operations: Operations()}
}

// client is a new connection to the simulator.
func (s *setup) client(t *testing.T) *huaweicloud.Client {
	t.Helper()
	return adapter().Client(t, s.sim, func(c *huaweicloud.Config) {
		c.ProjectID = s.sim.Config().ProjectID
		if s.password {
			c.Auth = cloudtest.Password(s.sim)
		}
	})
}

func (s *setup) target(t *testing.T) *Target {
	t.Helper()
	target, err := New(Config{
		Client: s.client(t), Scope: s.scope, InstanceID: gatewayID, Replace: s.replace, Locks: s.locks,
		TrustedRootCA: func() ([]byte, error) { return s.ca, nil },
		Logger:        slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// request is for the endpoints, with the leaves that the journal would know.
func (s *setup) request(leaves []*certs.Bundle, endpoints ...string) providers.Request {
	r := providers.Request{Owner: owner, Endpoints: endpoints}
	for _, b := range leaves {
		r.Leaves = append(r.Leaves, b.Info())
	}
	return r
}

// calls are the APIG operations since entry n of the ledger, in order.
func (s *setup) calls(n int) []string {
	var ops []string
	for _, e := range s.sim.Ledger()[n:] {
		switch {
		case e.Service == "apig":
			ops = append(ops, e.Operation)
		case strings.HasSuffix(e.Path, "/api-groups"):
			ops = append(ops, listGroupsCall)
		}
	}
	return ops
}

func (s *setup) changes() (n int) {
	for _, e := range s.sim.Ledger() {
		if e.Service == "apig" && e.Effect {
			n++
		}
	}
	return n
}

func (s *setup) fault(t *testing.T, f cloudsim.Fault) {
	t.Helper()
	f.Service = "apig"
	if _, err := s.sim.Faults().Add(f); err != nil {
		t.Fatal(err)
	}
}

func (s *setup) upload(t *testing.T, name string, b *certs.Bundle) string {
	t.Helper()
	instance := gatewayID
	if s.scope == ScopeGlobal {
		instance = ""
	}
	id, err := s.sim.ConsoleAPIGUpload(material(t, name, b, nil), instance)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *setup) domain(t *testing.T, name string) cloudsim.DomainInfo {
	t.Helper()
	for _, d := range s.sim.Domains() {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no domain %s", name)
	return cloudsim.DomainInfo{}
}

// serves are the fingerprints of what a domain is bound to.
func (s *setup) serves(t *testing.T, name string) (all []string) {
	for _, c := range s.domain(t, name).Certificates {
		all = append(all, c.Fingerprint)
	}
	return all
}

func (s *setup) fixture() providertest.Fixture {
	inPlace := s.replace != ReplaceNew
	handle := func(id string, b *certs.Bundle) providers.Handle {
		if inPlace {
			return contentHandle(b.Info().SerialNumber)
		}
		return providers.Handle(id)
	}
	return providertest.Fixture{
		New:       func(t *testing.T) providers.Target { return s.target(t) },
		Endpoints: []string{shop, store},
		Unknown:   "unknown.example.com",
		Leaves:    []certs.Info{s.old.Info()},
		Contents:  inPlace,
		LoseCreate: func(t *testing.T) {
			s.fault(t, cloudsim.Fault{Operation: create, Name: cloudsim.FaultLost, Count: 1})
		},
		FailCreate: func(t *testing.T) {
			s.fault(t, cloudsim.Fault{Operation: create, Name: cloudsim.FaultAnswer, Status: 409, Code: "APIG.3718", Message: "A task is in progress", Count: 1})
		},
		UploadForeign: func(t *testing.T, name string, b *certs.Bundle) providers.Handle {
			return handle(s.upload(t, name, b), b)
		},
		BindForeign: func(t *testing.T, endpoint string, b *certs.Bundle) providers.Handle {
			id := s.upload(t, "foreign_"+b.Fingerprint().Short(), b)
			if err := s.sim.ConsoleAPIGBind(endpoint, id); err != nil {
				t.Fatal(err)
			}
			return handle(id, b)
		},
		Delete: func(t *testing.T, h providers.Handle) {
			if err := s.sim.ConsoleAPIGDelete(string(h)); err != nil {
				t.Fatal(err)
			}
		},
		Handles: func(*testing.T) []providers.Handle {
			var all []providers.Handle
			for _, c := range s.sim.APIGCertificates() {
				all = append(all, providers.Handle(c.ID))
			}
			return all
		},
		Serves: func(t *testing.T, endpoint string) certs.Fingerprint {
			all := s.serves(t, endpoint)
			if len(all) == 0 {
				return certs.Fingerprint{}
			}
			f, err := certs.ParseFingerprint(all[0])
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		Changes: func(*testing.T) int { return s.changes() },
	}
}

// The operations as the simulator's ledger names them.
const create = "CreateCertificateV2"

// Every way to replace must pass the suite.
func TestConformance(t *testing.T) {
	for _, v := range []struct {
		name     string
		w        world
		password bool
	}{
		{name: "in place", w: world{}},
		{name: "in place with password", w: world{}, password: true},
		{name: "in place global", w: world{global: true, scope: ScopeGlobal}},
		{name: "in place of a global one", w: world{global: true}},
		{name: "in place with ports", w: world{ports: []int{443, 8443}}},
		{name: "in place in two groups", w: world{ownGroups: true}},
		{name: "in place misbehaving", w: world{Config: cloudsim.Config{Misbehave: true, Seed: 3}}},
		{name: "new", w: world{replace: ReplaceNew}},
		{name: "new with password", w: world{replace: ReplaceNew}, password: true},
		{name: "new global", w: world{replace: ReplaceNew, global: true, scope: ScopeGlobal}},
		{name: "new instead of a global one", w: world{replace: ReplaceNew, global: true}},
		{name: "new with ports", w: world{replace: ReplaceNew, ports: []int{443, 8443}}},
		{name: "new in two groups", w: world{replace: ReplaceNew, ownGroups: true}},
		{name: "new misbehaving", w: world{replace: ReplaceNew, Config: cloudsim.Config{Misbehave: true, Seed: 8}}},
	} {
		t.Run(v.name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) providertest.Fixture {
				s := newSetup(t, v.w)
				s.password = v.password
				return s.fixture()
			})
		})
	}
}
