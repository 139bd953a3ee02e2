package waf

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

// Every call of a rotation, failing before its effect, after it and half-way:
// the same rotation tried again ends as one without a fault, with one object.
func TestFaultMatrix(t *testing.T) {
	operations := []string{
		"ListHost", "ShowHost", "ListCertificates", "ShowCertificate", "CreateCertificate",
		"ApplyCertificateToHost", "DeleteCertificate",
	}
	faults := []cloudsim.Fault{
		{Name: cloudsim.FaultRefuse}, {Name: cloudsim.FaultLost}, {Name: cloudsim.FaultInternal},
		{Name: cloudsim.FaultInternal, Phase: cloudsim.After}, {Name: cloudsim.FaultBusy},
		{Name: cloudsim.FaultUnauthorized}, {Name: cloudsim.FaultTokenInvalid}, {Name: cloudsim.FaultBadGateway},
		{Name: cloudsim.FaultBadGateway, Phase: cloudsim.After}, {Name: cloudsim.FaultTruncate},
		{Name: cloudsim.FaultCut}, {Name: cloudsim.FaultHuge}, {Name: cloudsim.FaultWrongType},
		{Name: cloudsim.FaultExpireToken},
	}
	for _, op := range operations {
		for _, f := range faults {
			t.Run(op+"/"+f.Name+"/"+string(f.Phase), func(t *testing.T) {
				t.Parallel()
				s := newSetup(t, cloudsim.Config{}, ModeCloud)
				s.password = true
				f.Service, f.Operation, f.Count = "waf", op, 1
				s.fault(t, f)
				first, second := bundle(t, certstest.EC256, shop), bundle(t, certstest.EC256, shop)
				var target *Target
				rotate := func() error {
					target = s.target(t)
					a, err := target.Stage(t.Context(), request(shop), first)
					if err != nil {
						return err
					}
					b, err := target.Stage(t.Context(), request(shop), second)
					if err != nil {
						return err
					}
					if err := target.Activate(t.Context(), request(shop), b.Handle); err != nil {
						return err
					}
					if _, err := target.Observe(t.Context(), request(shop)); err != nil {
						return err
					}
					return target.Retire(t.Context(), request(shop), a.Handle)
				}
				for try := 0; ; try++ {
					err := rotate()
					if err == nil {
						break
					}
					if k := providers.KindOf(err); k == providers.KindUnknown || try == 2 {
						t.Fatalf("try %d: kind %s: %v", try, k, err)
					}
				}
				if _, served, _ := s.sim.Bound(shop); served != second.Fingerprint().String() {
					t.Errorf("serves %s", served)
				}
				var names []string
				for _, c := range s.sim.Certificates() {
					names = append(names, c.Name)
				}
				want := []string{"by_hand_2024", providers.CertificateName(owner, second.Fingerprint())}
				if slices.Sort(names); !slices.Equal(names, want) {
					t.Errorf("certificates %v, want %v", names, want)
				}
			})
		}
	}
}

// Whatever code stands for a duplicate, the object that is there is found.
func TestDuplicateCodes(t *testing.T) {
	for _, code := range []string{"WAF.00011016", "WAF.00014002", "WAF.00022002", "WAF.00021013", "WAF.99999999"} {
		s := newSetup(t, cloudsim.Config{}, ModeCloud)
		b := bundle(t, certstest.EC256, shop)
		h := s.upload(t, "uploaded_by_hand", b)
		for i := range 5 { // others that expire at the same time
			s.upload(t, "other_"+string(rune('a'+i)), bundle(t, certstest.EC256, shop))
		}
		s.fault(t, cloudsim.Fault{Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultAnswer, Status: 400, Code: code, Message: "m", Count: 1})
		got, err := s.target(t).Stage(t.Context(), request(shop), b)
		if err != nil || got.Handle != h || got.Owned {
			t.Errorf("%s: %+v, %v", code, got, err)
		}
		// With nothing to adopt the refusal itself is returned.
		s.fault(t, cloudsim.Fault{Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultAnswer, Status: 400, Code: code, Message: "m", Count: 1})
		_, err = s.target(t).Stage(t.Context(), request(shop), bundle(t, certstest.EC256, shop))
		if err == nil || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// Another process made the object between our look and our creation.
func TestStageRace(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	b := bundle(t, certstest.EC256, shop)
	id, err := s.sim.Faults().Add(cloudsim.Fault{Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultHold, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	slow := make(chan providers.Remote, 1)
	var failed error
	go func() {
		got, err := s.target(t).Stage(t.Context(), request(shop), b)
		failed = err
		slow <- got
	}()
	if _, err := s.sim.Faults().WaitHeld(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	fast, err := s.target(t).Stage(t.Context(), request(shop), b)
	if err != nil {
		t.Fatal(err)
	}
	s.sim.Faults().Release(id)
	if got := <-slow; failed != nil || got.Handle != fast.Handle || !got.Owned {
		t.Errorf("%+v, %v; want %s", got, failed, fast.Handle)
	}
	if n := len(s.sim.Certificates()); n != 2 {
		t.Errorf("%d certificates, want 2", n)
	}
}

// The caller gives up while the creation stands still in the cloud, which goes
// on with it: the outcome is unknown, and the next Stage adopts.
func TestStageGivenUp(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	b := bundle(t, certstest.EC256, shop)
	id, err := s.sim.Faults().Add(cloudsim.Fault{
		Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultHold, Phase: cloudsim.After, Count: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := s.target(t).Stage(ctx, request(shop), b)
		failed <- err
	}()
	if _, err := s.sim.Faults().WaitHeld(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-failed; providers.KindOf(err) != providers.KindUnknownOutcome || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.sim.Faults().Release(id)
	got, err := s.target(t).Stage(t.Context(), request(shop), b)
	if err != nil || got.Fingerprint != b.Fingerprint() || len(s.sim.Certificates()) != 2 {
		t.Errorf("%+v, %v, %d certificates", got, err, len(s.sim.Certificates()))
	}
}

// Somebody binds the certificate between Retire's look and its deletion.
func TestRetireRace(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	target := s.target(t)
	staged, err := target.Stage(t.Context(), request(shop), bundle(t, certstest.EC256, shop))
	if err != nil {
		t.Fatal(err)
	}
	s.sim.Faults().OnCall(func(e cloudsim.Entry, p cloudsim.Phase) {
		if e.Operation == "DeleteCertificate" && p == cloudsim.Before {
			if err := s.sim.ConsoleBind(shop, string(staged.Handle)); err != nil {
				t.Error(err)
			}
		}
	})
	if err := target.Retire(t.Context(), request(shop), staged.Handle); providers.KindOf(err) != providers.KindInUse {
		t.Errorf("got %v", err)
	}
}

// What is served is not even tried to be deleted.
func TestRetireDoesNotTry(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	target := s.target(t)
	staged, err := target.Stage(t.Context(), request(shop), bundle(t, certstest.EC256, shop))
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Activate(t.Context(), request(shop), staged.Handle); err != nil {
		t.Fatal(err)
	}
	err = target.Retire(t.Context(), request(shop), staged.Handle)
	if providers.KindOf(err) != providers.KindInUse || !strings.Contains(err.Error(), shop) {
		t.Errorf("got %v, want one that names %s", err, shop)
	}
	if slices.Contains(s.calls(0), "DeleteCertificate") {
		t.Error("a deletion was sent")
	}
}

// Somebody deletes the certificate between Retire's look and its deletion.
func TestRetireOfWhatGoes(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	target := s.target(t)
	staged, err := target.Stage(t.Context(), request(shop), bundle(t, certstest.EC256, shop))
	if err != nil {
		t.Fatal(err)
	}
	s.sim.Faults().OnCall(func(e cloudsim.Entry, p cloudsim.Phase) {
		if e.Operation == "DeleteCertificate" && p == cloudsim.Before {
			if err := s.sim.ConsoleDelete(string(staged.Handle)); err != nil {
				t.Error(err)
			}
		}
	})
	if err := target.Retire(t.Context(), request(shop), staged.Handle); err != nil {
		t.Errorf("got %v", err)
	}
}

// Half of the hosts: the caller sees it and applies again.
func TestPartialApply(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	target := s.target(t)
	r := request(shop, store)
	staged, err := target.Stage(t.Context(), r, bundle(t, certstest.EC256, shop, store))
	if err != nil {
		t.Fatal(err)
	}
	s.fault(t, cloudsim.Fault{Service: "waf", Operation: "ApplyCertificateToHost", Name: cloudsim.FaultPartial, Count: 1})
	serving := func() (n int) {
		o, err := target.Observe(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range o.Endpoints {
			if e.Serves == staged.Handle {
				n++
			}
		}
		return n
	}
	for _, want := range []int{1, 2} {
		if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
			t.Fatal(err)
		}
		if n := serving(); n != want {
			t.Errorf("%d endpoints serve it, want %d", n, want)
		}
	}
}

// One target serves many assignments at once.
func TestConcurrentUse(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop}, {Name: store}, {Name: "c.example.com"}}}, ModeCloud)
	target := s.target(t)
	var wg sync.WaitGroup
	for _, name := range []string{shop, store, "c.example.com", shop, store} {
		b := bundle(t, certstest.EC256, name)
		wg.Go(func() {
			r := providers.Request{Owner: providers.Owner{Policy: "p", Certificate: name}, Endpoints: []string{name}}
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

func TestUnusableKeys(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	keyless := bundle(t, certstest.EC256, shop)
	keyless.Key = certs.PrivateKey{}
	for want, b := range map[string]*certs.Bundle{
		"no private key":      keyless,
		"this one is Ed25519": bundle(t, certstest.Ed25519, shop),
	} {
		before := len(s.sim.Certificates())
		_, err := s.target(t).Stage(t.Context(), request(shop), b)
		if providers.KindOf(err) != providers.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if len(s.sim.Certificates()) != before {
			t.Error("it was sent")
		}
	}
}
