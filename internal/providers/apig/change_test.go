package apig

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

func (s *setup) stage(t *testing.T, target *Target, r providers.Request, b *certs.Bundle) providers.Remote {
	t.Helper()
	staged, err := target.Stage(t.Context(), r, b)
	if err != nil {
		t.Fatal(err)
	}
	return staged
}

func wantRefusal(t *testing.T, err error, kind providers.Kind, words ...string) {
	t.Helper()
	if providers.KindOf(err) != kind {
		t.Errorf("got %v, want kind %s", err, kind)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want it to tell %q", err, w)
		}
	}
}

func caPEM(t *testing.T) []byte {
	t.Helper()
	ca, err := certstest.NewCA("clients")
	if err != nil {
		t.Fatal(err)
	}
	return ca.RootPEM()
}

// What the service would refuse is refused before a call, with the service's code.
func TestChecks(t *testing.T) {
	s := newSetup(t, world{})
	good := bundle(t, certstest.EC256, shop, store)
	with := func(change func(*certs.Bundle)) *certs.Bundle {
		b := *good
		change(&b)
		return &b
	}
	for want, b := range map[string]*certs.Bundle{
		"no certificate":       {},
		"no private key":       with(func(b *certs.Bundle) { b.Key = certs.PrivateKey{} }),
		"(APIG.2101)":          with(func(b *certs.Bundle) { b.Key = bundle(t, certstest.EC256, shop).Key }),
		"this one is Ed":       bundle(t, certstest.Ed25519, shop, store),
		"(APIG.2102)":          issue(t, certstest.Options{Names: []string{shop, store}, NotBefore: time.Now().AddDate(0, 0, -9), NotAfter: time.Now().Add(-time.Hour)}),
		"(APIG.3148)":          issue(t, certstest.Options{Names: []string{shop, store}, NotAfter: time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC)}),
		"(APIG.2109)":          issue(t, certstest.Options{CommonName: shop}),
		"(APIG.2104)":          with(func(b *certs.Bundle) { b.Chain = bundle(t, certstest.EC256, shop).Chain }),
		store + " (APIG.2103)": bundle(t, certstest.EC256, shop),
	} {
		for _, replace := range []string{ReplaceInPlace, ReplaceNew} {
			s.replace = replace
			before := len(s.sim.Ledger())
			_, err := s.target(t).Stage(t.Context(), s.request(nil, shop, store), b)
			wantRefusal(t, err, providers.KindInvalid, want)
			if len(s.sim.Ledger()) != before {
				t.Errorf("%s: a call was made", want)
			}
		}
	}
	last := issue(t, certstest.Options{Names: []string{shop}, NotAfter: latestExpiry})
	if err := check(last, []string{shop, strings.Repeat("a", 32)}, time.Now()); err != nil {
		t.Errorf("the last second: %v", err)
	}
	if _, err := (&Target{scope: ScopeInstance}).formOf("1abc", good); providers.KindOf(err) != providers.KindInvalid {
		t.Errorf("a bad name: %v", err)
	}
}

// A certificate that serves a domain which the new one does not cover stays as it is.
func TestInPlaceSparesOthers(t *testing.T) {
	s := newSetup(t, world{})
	target := s.target(t)
	b := bundle(t, certstest.EC256, shop)
	r := s.request([]*certs.Bundle{b, s.old}, shop)
	err := target.Activate(t.Context(), r, s.stage(t, target, r, b).Handle)
	wantRefusal(t, err, providers.KindInvalid, store, "replace: new")
	if s.changes() != 0 {
		t.Error("something changed")
	}
	// Another object for the one domain is no harm to the other.
	s.replace = ReplaceNew
	target = s.target(t)
	if err := target.Activate(t.Context(), r, s.stage(t, target, r, b).Handle); err != nil {
		t.Fatal(err)
	}
	if got := s.serves(t, store); !slices.Equal(got, []string{s.old.Fingerprint().String()}) {
		t.Errorf("%s serves %v", store, got)
	}
}

func TestInPlaceNotHeld(t *testing.T) {
	s := newSetup(t, world{})
	target := s.target(t)
	b := bundle(t, certstest.EC256, shop, store)
	r := s.request([]*certs.Bundle{b}, shop)
	staged := s.stage(t, target, r, b)
	other := r
	other.Owner.Policy = "other"
	wantRefusal(t, target.Activate(t.Context(), other, staged.Handle), providers.KindNotFound, "staged again")
	wantRefusal(t, s.target(t).Activate(t.Context(), r, staged.Handle), providers.KindNotFound, "staged again")
	for range keepBundles {
		s.stage(t, target, r, bundle(t, certstest.EC256, shop, store))
	}
	wantRefusal(t, target.Activate(t.Context(), r, staged.Handle), providers.KindNotFound, "staged again")
	if n := len(target.held.bundles[owner]); n != keepBundles {
		t.Errorf("%d bundles are held", n)
	}
	// An expired one goes when another comes.
	target.held.put(other.Owner, b, b.Leaf.NotAfter.Add(time.Second))
	if len(target.held.bundles) != 0 {
		t.Errorf("held: %d owners", len(target.held.bundles))
	}
}

func TestAlgorithmInPlace(t *testing.T) {
	s := newSetup(t, world{})
	target := s.target(t)
	b := bundle(t, certstest.RSA2048, shop, store)
	r := s.request([]*certs.Bundle{b, s.old}, shop, store)
	err := target.Activate(t.Context(), r, s.stage(t, target, r, b).Handle)
	wantRefusal(t, err, providers.KindInvalid, "ECC key", "RSA key", "replace: new")
	if s.changes() != 0 {
		t.Error("something changed")
	}

	// Of a pair the one of the same kind is replaced, and shown.
	s = newSetup(t, world{both: true})
	target = s.target(t)
	r = s.request([]*certs.Bundle{b, s.old}, shop, store)
	if err := target.Activate(t.Context(), r, s.stage(t, target, r, b).Handle); err != nil {
		t.Fatal(err)
	}
	want := []string{s.old.Fingerprint().String(), b.Fingerprint().String()} // ECC first
	if got := s.serves(t, shop); !slices.Equal(got, want) {
		t.Errorf("serves %v, want %v", got, want)
	}
	for _, tt := range []*certs.Bundle{b, s.old} {
		r.Leaves = []certs.Info{tt.Info(), b.Info(), s.old.Info()}
		o, err := target.Observe(t.Context(), r)
		if err != nil || o.Endpoints[0].Serves != contentHandle(tt.Info().SerialNumber) || len(o.Remotes) != 1 {
			t.Errorf("wanted %s: %+v, %v", tt.Info().KeyAlgorithm, o, err)
		}
	}
}

// A change of algorithm with a new object leaves only the new one; a pair that somebody
// made stays a pair.
func TestAlgorithmNew(t *testing.T) {
	s := newSetup(t, world{replace: ReplaceNew})
	target := s.target(t)
	b := bundle(t, certstest.RSA2048, shop, store)
	r := s.request([]*certs.Bundle{b, s.old}, shop, store)
	staged := s.stage(t, target, r, b)
	s.step(t, "the change", []string{listGroupsCall, showCall, attachCall, groupCall, detachCall}, func() error {
		return target.Activate(t.Context(), r, staged.Handle)
	})
	if got := s.serves(t, shop); !slices.Equal(got, []string{b.Fingerprint().String()}) {
		t.Errorf("serves %v", got)
	}

	// Back to EC, with a crash between attachment and detachment.
	ec := bundle(t, certstest.EC256, shop, store)
	r = s.request([]*certs.Bundle{ec, b, s.old}, shop, store)
	next := s.stage(t, target, r, ec)
	s.fault(t, cloudsim.Fault{Operation: detachCall, Name: cloudsim.FaultRefuse, Count: 1})
	if err := target.Activate(t.Context(), r, next.Handle); err == nil {
		t.Fatal("the fault did not strike")
	}
	target = s.target(t)
	o, err := target.Observe(t.Context(), r)
	if err != nil || o.Endpoints[0].Serves != staged.Handle {
		t.Errorf("a left-over is not shown: %+v, %v", o.Endpoints, err)
	}
	if err := target.Activate(t.Context(), r, next.Handle); err != nil {
		t.Fatal(err)
	}
	if got := s.serves(t, shop); !slices.Equal(got, []string{ec.Fingerprint().String()}) {
		t.Errorf("serves %v", got)
	}

	s = newSetup(t, world{replace: ReplaceNew, both: true})
	target = s.target(t)
	rsa := s.serves(t, shop)[1]
	ec = bundle(t, certstest.EC256, shop, store)
	r = s.request([]*certs.Bundle{ec}, shop, store)
	staged = s.stage(t, target, r, ec)
	for range 2 {
		if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
			t.Fatal(err)
		}
		if got := s.serves(t, shop); !slices.Equal(got, []string{ec.Fingerprint().String(), rsa}) {
			t.Errorf("serves %v", got)
		}
		if o, err := target.Observe(t.Context(), r); err != nil || o.Endpoints[0].Serves != staged.Handle {
			t.Errorf("%+v, %v", o.Endpoints, err)
		}
	}
}

// A CA for client authentication goes along, and nothing changes while it is unknown.
func TestTrustedCA(t *testing.T) {
	for _, replace := range []string{ReplaceInPlace, ReplaceNew} {
		for _, verifies := range []bool{true, false} {
			s := newSetup(t, world{replace: replace, trustedCA: caPEM(t), verifies: verifies})
			target := s.target(t)
			b := bundle(t, certstest.EC256, shop, store)
			r := s.request([]*certs.Bundle{b, s.old}, shop, store)
			staged := s.stage(t, target, r, b)
			bound := s.serves(t, shop)
			wantRefusal(t, target.Activate(t.Context(), r, staged.Handle), providers.KindInvalid, "trusted_root_ca_file")
			if !slices.Equal(s.serves(t, shop), bound) {
				t.Errorf("%s: it was replaced without the CA", replace)
			}
			s.ca = caPEM(t)
			staged = s.stage(t, target, r, b) // a new object gets it now
			if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
				t.Fatalf("%s: %v", replace, err)
			}
			d := s.domain(t, shop)
			if d.ClientVerification != verifies || !d.HasTrustedCA || !slices.Equal(s.serves(t, shop), []string{b.Fingerprint().String()}) {
				t.Errorf("%s: %+v", replace, d)
			}
		}
	}
	s := newSetup(t, world{})
	for want, text := range map[string]string{"as PEM": "nonsense", "nothing else": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"} {
		s.ca = []byte(text)
		target := s.target(t)
		b := bundle(t, certstest.EC256, shop, store)
		r := s.request(nil, shop)
		wantRefusal(t, target.Activate(t.Context(), r, s.stage(t, target, r, b).Handle), providers.KindInvalid, want)
	}
}

// What a lost creation left for a domain without certificate is used, whatever comes.
func TestBareDomainLeavesNoOrphan(t *testing.T) {
	s := newSetup(t, world{})
	target := s.target(t)
	first := bundle(t, certstest.EC256, plain)
	r := s.request([]*certs.Bundle{first}, plain)
	s.fault(t, cloudsim.Fault{Operation: create, Name: cloudsim.FaultLost, Count: 1})
	wantRefusal(t, target.Activate(t.Context(), r, s.stage(t, target, r, first).Handle), providers.KindUnknownOutcome)
	second := bundle(t, certstest.EC256, plain)
	r = s.request([]*certs.Bundle{second, first}, plain)
	if err := target.Activate(t.Context(), r, s.stage(t, target, r, second).Handle); err != nil {
		t.Fatal(err)
	}
	all := s.sim.APIGCertificates()
	if len(all) != 2 || all[1].Fingerprint != second.Fingerprint().String() || !slices.Equal(all[1].Domains, []string{plain}) {
		t.Errorf("%+v", all)
	}
	if all[1].Name != providers.CertificateName(owner, second.Fingerprint()) {
		t.Errorf("name %s", all[1].Name)
	}
	o, err := target.Observe(t.Context(), r)
	if err != nil || len(o.Remotes) != 1 || o.Remotes[0].Owned || o.Remotes[0].Fingerprint != second.Fingerprint() {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestEndpointsByID(t *testing.T) {
	for _, replace := range []string{ReplaceInPlace, ReplaceNew} {
		s := newSetup(t, world{replace: replace})
		target := s.target(t)
		b := bundle(t, certstest.EC256, shop, store)
		r := s.request([]*certs.Bundle{b, s.old}, s.domain(t, shop).ID, s.domain(t, store).ID)
		if err := s.rotate(t, r, b, ""); err != nil {
			t.Fatal(err)
		}
		o, err := target.Observe(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range o.Endpoints {
			if e.Name != r.Endpoints[i] || e.ID != e.Name || e.Missing || e.Serves == "" {
				t.Errorf("endpoint %+v", e)
			}
		}
		if !slices.Equal(o.Remotes[len(o.Remotes)-1].InUse, []string{shop, store}) {
			t.Errorf("in use by %v", o.Remotes[0].InUse)
		}
		// Coverage is checked by name once that is known.
		narrow := bundle(t, certstest.EC256, shop)
		if replace == ReplaceInPlace {
			wantRefusal(t, target.Activate(t.Context(), r, s.stage(t, target, r, narrow).Handle), providers.KindInvalid, store, "APIG.2103")
		}
	}
}

// Somebody attaches the certificate between Retire's look and its deletion, or deletes it.
func TestRetireRaces(t *testing.T) {
	for _, race := range []string{"attach", "delete"} {
		s := newSetup(t, world{replace: ReplaceNew})
		target := s.target(t)
		r := s.request([]*certs.Bundle{s.old}, shop)
		staged := s.stage(t, target, r, bundle(t, certstest.EC256, shop, store))
		s.sim.Faults().OnCall(func(e cloudsim.Entry, p cloudsim.Phase) {
			if e.Operation != deleteCall || p != cloudsim.Before {
				return
			}
			somebody := s.sim.ConsoleAPIGDelete
			if race == "attach" {
				somebody = func(id string) error { return s.sim.ConsoleAPIGBind(shop, id) }
			}
			if err := somebody(string(staged.Handle)); err != nil {
				t.Error(err)
			}
		})
		if race == "attach" {
			wantRefusal(t, target.Retire(t.Context(), r, staged.Handle), providers.KindInUse, shop)
			continue
		}
		if err := target.Retire(t.Context(), r, staged.Handle); err != nil {
			t.Error(err)
		}
	}
}

// A handle of one way to replace means nothing in the other, and does no harm.
func TestHandlesOfTheOtherWay(t *testing.T) {
	s := newSetup(t, world{replace: ReplaceNew})
	target := s.target(t)
	b := bundle(t, certstest.EC256, shop, store)
	r := s.request([]*certs.Bundle{b, s.old}, shop, store)
	staged := s.stage(t, target, r, b)
	content := contentHandle(b.Info().SerialNumber)
	wantRefusal(t, target.Activate(t.Context(), r, content), providers.KindNotFound)
	r.Known = []providers.Handle{content, staged.Handle}
	if _, err := target.Observe(t.Context(), r); err != nil {
		t.Error(err)
	}
	if err := target.Retire(t.Context(), r, content); err != nil {
		t.Error(err)
	}
	s.replace = ReplaceInPlace
	inPlace := s.target(t)
	wantRefusal(t, inPlace.Activate(t.Context(), r, staged.Handle), providers.KindNotFound)
	if _, err := inPlace.Observe(t.Context(), r); err != nil {
		t.Error(err)
	}
	if err := inPlace.Retire(t.Context(), r, staged.Handle); err != nil || len(s.sim.APIGCertificates()) != 1 {
		t.Errorf("what is left of the other way: %v, %d certificates", err, len(s.sim.APIGCertificates()))
	}
}

// One target serves many assignments at once.
func TestConcurrentUse(t *testing.T) {
	for _, replace := range []string{ReplaceInPlace, ReplaceNew} {
		s := newSetup(t, world{replace: replace})
		target := s.target(t)
		var wg sync.WaitGroup
		for i := range 6 {
			b := bundle(t, certstest.EC256, shop, store)
			wg.Go(func() {
				r := s.request([]*certs.Bundle{b, s.old}, shop, store)
				r.Owner.Certificate = string(rune('a' + i))
				staged, err := target.Stage(t.Context(), r, b)
				if err != nil {
					t.Error(err)
					return
				}
				if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
					t.Error(err)
				}
				if _, err := target.Observe(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
