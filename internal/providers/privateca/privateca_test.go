package privateca

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud/cloudtest"
)

func TestMain(m *testing.M) {
	// Most rows of the matrices wait for the next try of the client.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var owner = providers.Owner{Policy: "payments", Certificate: "payments.internal"}

// setup is one simulated account, and one host that asks it for certificates.
type setup struct {
	sim  *cloudsim.Sim
	spec Spec
	keys string
	log  *logged
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

const (
	rootCA  = "acme root"
	issueCA = "acme issuing"
)

func newSetup(t *testing.T, cfg cloudsim.Config, change func(*Spec)) *setup {
	t.Helper()
	if cfg.Authorities == nil {
		cfg.Authorities = []cloudsim.Authority{
			{CommonName: rootCA, Country: "DE", Organization: "Acme"}, {CommonName: issueCA, Parent: rootCA, Country: "DE", Organization: "Acme"},
		}
	}
	sim := cloudtest.Start(t, cfg)
	s := &setup{sim: sim, keys: filepath.Join(t.TempDir(), "keys"), log: &logged{}}
	authorities := sim.Authorities()
	s.spec = good()
	s.spec.IssuerID = authorities[len(authorities)-1].ID
	if change != nil {
		change(&s.spec)
	}
	return s
}

// good is a Spec that asks for a bit of everything.
func good() Spec {
	return Spec{
		IssuerID: "2cb2878b-6cd1-460d-bd25-afe655159bdc", CommonName: "payments.internal", Organization: "Acme Pay", OrganizationalUnit: "Core",
		Names: []Name{
			{DNS, "payments.internal"}, {DNS, "*.payments.internal"}, {IP, "10.0.0.7"}, {IP, "2001:db8::7"},
			{EMAIL, "ops@acme.example"}, {URI, "spiffe://acme.example/payments"},
		},
		KeyAlgorithm: "EC256", Signature: "SHA256", Validity: Validity{Day, 90},
		KeyUsages: []string{"digitalSignature", "keyAgreement"}, ExtendedKeyUsages: []string{"server_auth", "client_auth"},
		Extension: &Extension{"1.3.6.1.4.1.2011.4.99", "payments"}, Held: HeldLocal,
	}
}

func cloudHeld(s *Spec) { s.Held = HeldCloud }

// held are both ways of holding the key.
var held = map[string]func(*Spec){HeldLocal: nil, HeldCloud: cloudHeld}

// adapter is whose calls are made.
func adapter() cloudtest.Adapter {
	return cloudtest.Adapter{Service: huaweicloud.CCM, Operations: Operations()}
}

// client is a new connection to the simulator.
func (s *setup) client(t *testing.T) *huaweicloud.Client {
	t.Helper()
	return adapter().Client(t, s.sim, func(c *huaweicloud.Config) {
		c.DomainID = s.sim.Config().DomainID
		c.Logger = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
}

// issuer is one as a process that was just started would have it, that does not wait for
// lists to catch up.
func (s *setup) issuer(t *testing.T) *Issuer {
	t.Helper()
	i := s.patient(t)
	i.settle = 0
	return i
}

func (s *setup) patient(t *testing.T) *Issuer {
	t.Helper()
	i, err := New(Config{Client: s.client(t), Spec: s.spec, Keys: s.keys, Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (s *setup) fault(t *testing.T, f cloudsim.Fault) {
	t.Helper()
	f.Service = "ccm"
	if _, err := s.sim.Faults().Add(f); err != nil {
		t.Fatal(err)
	}
}

// creation is the operation that issues.
func (s *setup) creation() string {
	if s.spec.Held == HeldLocal {
		return "create_certificate_by_csr"
	}
	return "create_certificate"
}

// calls are the operations since entry n of the ledger, in order.
func (s *setup) calls(n int) []string {
	var ops []string
	for _, e := range s.sim.Ledger()[n:] {
		if e.Service == "ccm" {
			ops = append(ops, e.Operation)
		}
	}
	return ops
}

func (s *setup) count(n int, operation string) int {
	count := 0
	for _, o := range s.calls(n) {
		if o == operation {
			count++
		}
	}
	return count
}

// now is a request for what is to be issued as of now.
func now(known ...providers.Handle) providers.IssueRequest {
	return providers.IssueRequest{Owner: owner, Known: known, Since: time.Now()}
}

func (s *setup) issue(t *testing.T, i *Issuer, r providers.IssueRequest) providers.Issued {
	t.Helper()
	issued, err := i.Issue(t.Context(), r)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	if issued.Problem != "" {
		t.Fatalf("issue: %s", issued.Problem)
	}
	return issued
}

func (s *setup) collect(t *testing.T, i *Issuer, h providers.Handle) *certs.Bundle {
	t.Helper()
	b, err := i.Collect(t.Context(), now(h), h)
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	if !b.Key.Matches(b.Leaf) {
		t.Fatal("the key does not belong to the leaf")
	}
	if err := certs.ChainProblem(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// wantCount checks how many certificates the account has.
func (s *setup) wantCount(t *testing.T, want int) {
	t.Helper()
	if all := s.sim.PrivateCertificates(); len(all) != want {
		t.Errorf("the account has %d certificates, want %d", len(all), want)
	}
}

// files are the names in the owner's directory of keys.
func (s *setup) files(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.keys, mark(owner)))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantKind(t *testing.T, err error, want providers.Kind) {
	t.Helper()
	if err == nil || providers.KindOf(err) != want {
		t.Errorf("got kind %s, want %s: %v", providers.KindOf(err), want, err)
	}
}

// The whole life of two generations, with a restart before each verb.
func TestRenewal(t *testing.T) {
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{}, change)
			var known []providers.Handle
			for range 2 {
				issued := s.issue(t, s.issuer(t), now(known...))
				b := s.collect(t, s.issuer(t), issued.Handle)
				if b.Info().Fingerprint != issued.Info.Fingerprint || len(b.Chain) != 1 || issued.Chain != 1 ||
					!bytes.Equal(issued.PEM, b.CertificatePEM()) || !issued.Owned || issued.Created.IsZero() {
					t.Errorf("issued %+v", issued)
				}
				if got := s.sim.PrivateCertificates()[len(known)].Tags; len(got) != 1 || got["rotatord"] != mark(owner) {
					t.Errorf("tags %v", got)
				}
				known = append([]providers.Handle{issued.Handle}, known...)
				o, err := s.issuer(t).Observe(t.Context(), now(known...))
				if err != nil {
					t.Fatal(err)
				}
				if len(o.Certificates) != len(known) || o.Certificates[0].Handle != issued.Handle {
					t.Errorf("observed %+v", o.Certificates)
				}
				for _, c := range o.Certificates {
					if c.Problem != "" || !c.Owned || c.Created.IsZero() {
						t.Errorf("observed %+v", c)
					}
				}
				if ca := o.Authority; ca == nil || ca.Name != issueCA || ca.Status != "ACTIVED" || ca.Problem != "" || ca.NotAfter.IsZero() {
					t.Errorf("authority %+v", ca)
				}
			}
			for range 2 {
				if err := s.issuer(t).Revoke(t.Context(), now(known...), known[1]); err != nil {
					t.Fatal(err)
				}
			}
			all := s.sim.PrivateCertificates()
			if len(all) != 2 || all[0].Status != "REVOKED" || all[0].RevokedReason != "SUPERSEDED" || all[1].Status != "ISSUED" {
				t.Errorf("certificates %+v", all)
			}
			if err := s.issuer(t).Release(t.Context(), now(known...), known[:1]); err != nil {
				t.Fatal(err)
			}
			want := []string{string(known[0]) + ".pem"}
			if name == HeldCloud {
				want = nil
			}
			if got := s.files(t); !slices.Equal(got, want) {
				t.Errorf("keys %v, want %v", got, want)
			}
			_, err := s.issuer(t).Collect(t.Context(), now(), known[1])
			wantKind(t, err, providers.KindNotFound)
		})
	}
}

func TestCost(t *testing.T) {
	for name, change := range held {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{}, change)
			i := s.issuer(t)
			issued := s.issue(t, i, now())
			want := []string{"show_authority", "show_quota", s.creation(), "create_tags", "show_certificate", "export_certificate"}
			if name == HeldCloud {
				want = append([]string{"list_certificates"}, want...)
			}
			if got := s.calls(0); !slices.Equal(got, want) {
				t.Errorf("issue: %v", got)
			}
			n := len(s.sim.Ledger())
			if _, err := i.Observe(t.Context(), now(issued.Handle)); err != nil {
				t.Fatal(err)
			}
			if got := s.calls(n); !slices.Equal(got, []string{"filter_certificates", "show_certificate"}) { // the CA is remembered
				t.Errorf("observe: %v", got)
			}
			n = len(s.sim.Ledger())
			s.collect(t, i, issued.Handle)
			if got := s.calls(n); !slices.Equal(got, []string{"export_certificate"}) {
				t.Errorf("collect: %v", got)
			}
			n = len(s.sim.Ledger())
			if _, err := i.Observe(t.Context(), now(issued.Handle)); err != nil {
				t.Fatal(err)
			}
			for _, e := range s.sim.Ledger()[n:] {
				if e.Effect {
					t.Errorf("observe changed something: %+v", e)
				}
			}
		})
	}
}

// Every key algorithm and hash is issued as it is asked for.
func TestAlgorithms(t *testing.T) {
	for name, change := range held {
		for _, algorithm := range keyAlgorithms {
			for _, hash := range testHashes {
				if name == HeldLocal && hash != "SHA256" || algorithm == "RSA4096" && hash != "SHA512" {
					continue
				}
				t.Run(name+" "+algorithm+" "+hash, func(t *testing.T) {
					s := newSetup(t, cloudsim.Config{}, func(s *Spec) {
						s.KeyAlgorithm, s.Signature = algorithm, hash
						if change != nil {
							change(s)
						}
					})
					i := s.issuer(t)
					b := s.collect(t, i, s.issue(t, i, now()).Handle)
					if b.Info().KeyAlgorithm != algorithm {
						t.Errorf("key %s", b.Info().KeyAlgorithm)
					}
				})
			}
		}
	}
}

// A CA that is a root itself gives a chain without anybody in it.
func TestIssuedByRoot(t *testing.T) {
	for _, change := range held {
		s := newSetup(t, cloudsim.Config{Authorities: []cloudsim.Authority{{CommonName: rootCA, KeyAlgorithm: "RSA2048"}}}, change)
		i := s.issuer(t)
		issued := s.issue(t, i, now())
		if b := s.collect(t, i, issued.Handle); issued.Chain != 0 || len(b.Chain) != 0 {
			t.Errorf("chain %d", issued.Chain)
		}
	}
}

// The service may answer in its many ways.
func TestMisbehaving(t *testing.T) {
	for seed := range uint64(6) {
		for _, change := range held {
			s := newSetup(t, cloudsim.Config{Misbehave: true, Seed: seed, PrivateNotFound404: seed%2 == 0}, change)
			i := s.issuer(t)
			first := s.issue(t, i, now())
			s.fault(t, cloudsim.Fault{Operation: s.creation(), Name: cloudsim.FaultLost, Count: 1})
			r := now(first.Handle)
			_, err := i.Issue(t.Context(), r)
			wantKind(t, err, providers.KindUnknownOutcome)
			second := s.issue(t, i, r)
			s.wantCount(t, 2)
			s.collect(t, i, second.Handle)
			if err := i.Revoke(t.Context(), r, first.Handle); err != nil {
				t.Error(err)
			}
		}
	}
}
