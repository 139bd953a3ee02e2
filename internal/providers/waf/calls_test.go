package waf

import (
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

var owner = providers.Owner{Policy: "shop", Certificate: "shop.example.com"}

func request(endpoints ...string) providers.Request {
	return providers.Request{Owner: owner, Endpoints: endpoints}
}

// The numbers of calls that the comments of the verbs promise.
func TestCallsOfARotation(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop}}}, ModeCloud)
	target := s.target(t)
	r := request(shop)
	step := func(name string, want []string, do func() error) {
		t.Helper()
		before := len(s.sim.Ledger())
		if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := s.calls(before)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s made the calls %v, want %v", name, got, want)
		}
	}
	observe := func() error { _, err := target.Observe(t.Context(), r); return err }
	var first, second providers.Remote
	stage := func(into *providers.Remote) func() error {
		b := bundle(t, certstest.EC256, shop)
		return func() (err error) { *into, err = target.Stage(t.Context(), r, b); return err }
	}
	const list, show = "ListCertificates", "ShowCertificate"

	step("the first Observe", []string{"ListHost", "ShowHost", list, list, show}, observe)
	step("Stage", []string{list, list, "CreateCertificate"}, stage(&first))
	step("Activate", []string{"ApplyCertificateToHost"}, func() error { return target.Activate(t.Context(), r, first.Handle) })
	step("the common Observe", []string{"ShowHost", list, list, show}, observe)
	step("the second Stage", []string{list, list, "CreateCertificate"}, stage(&second))
	step("the second Activate", []string{"ApplyCertificateToHost"}, func() error { return target.Activate(t.Context(), r, second.Handle) })
	step("Observe of two generations", []string{"ShowHost", list, list, show, show}, observe)
	seen := providers.Observation{Remotes: []providers.Remote{first, second}}
	knowing := request(shop)
	knowing.Seen = &seen
	var third providers.Remote
	step("Stage of what was not seen", []string{"CreateCertificate"}, func() (err error) {
		third, err = target.Stage(t.Context(), knowing, bundle(t, certstest.EC256, shop))
		seen.Remotes = append(seen.Remotes, third)
		return err
	})
	step("the third Activate", []string{"ApplyCertificateToHost"}, func() error { return target.Activate(t.Context(), knowing, third.Handle) })
	step("Observe after it", []string{"ShowHost", show}, func() error { _, err := target.Observe(t.Context(), knowing); return err })
	step("Retire", []string{show, "DeleteCertificate"}, func() error { return target.Retire(t.Context(), r, first.Handle) })
	step("Retire of what is gone", []string{show}, func() error { return target.Retire(t.Context(), r, first.Handle) })
}

// Many hosts are found with one listing instead of one search each.
func TestManyHosts(t *testing.T) {
	var hosts []cloudsim.Host
	var names []string
	for i := range 230 {
		name := "h" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".example.com"
		hosts = append(hosts, cloudsim.Host{Name: name, Dedicated: i%2 == 1})
		if i%10 == 0 || i%10 == 1 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	s := newSetup(t, cloudsim.Config{Hosts: hosts}, ModeAny)
	target := s.target(t)
	o, err := target.Observe(t.Context(), request(names...))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range o.Endpoints {
		if e.Name != names[i] || e.Missing || e.ID != s.sim.HostID(e.Name) {
			t.Errorf("endpoint %+v", e)
		}
	}
	lists := 0
	for _, op := range s.calls(0) {
		if strings.HasPrefix(op, "List") && strings.HasSuffix(op, "Host") {
			lists++
		}
	}
	if lists != 4 { // two pages of 115 hosts in each mode
		t.Errorf("%d listings of hosts, want 4", lists)
	}

	// One call binds them all, cloud and dedicated hosts in one body.
	staged, err := target.Stage(t.Context(), request(names...), bundle(t, certstest.RSA2048, names...))
	if err != nil {
		t.Fatal(err)
	}
	before := len(s.sim.Ledger())
	if err := target.Activate(t.Context(), request(names...), staged.Handle); err != nil {
		t.Fatal(err)
	}
	if got := s.calls(before); !slices.Equal(got, []string{"ApplyCertificateToHost"}) {
		t.Errorf("calls %v", got)
	}
	for _, n := range names {
		if id, _, _ := s.sim.Bound(n); id != string(staged.Handle) {
			t.Errorf("%s is bound to %s", n, id)
		}
	}
}

func TestEndpointsByID(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop}, {Name: store, Dedicated: true}}}, ModeAny)
	target := s.target(t)
	r := request(s.sim.HostID(shop), s.sim.HostID(store))
	o, err := target.Observe(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range o.Endpoints {
		if e.Name != r.Endpoints[i] || e.ID != e.Name || e.Missing || e.Serves == "" {
			t.Errorf("endpoint %+v", e)
		}
	}
	staged, err := target.Stage(t.Context(), r, bundle(t, certstest.EC384, shop, store))
	if err != nil {
		t.Fatal(err)
	}
	// A new process, that has not seen the hosts yet.
	if err := s.target(t).Activate(t.Context(), r, staged.Handle); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{shop, store} {
		if id, _, _ := s.sim.Bound(name); id != string(staged.Handle) {
			t.Errorf("%s is bound to %s", name, id)
		}
	}
	o, err = target.Observe(t.Context(), request(strings.Repeat("f", 32)))
	if err != nil || !o.Endpoints[0].Missing {
		t.Errorf("unknown id: %+v, %v", o, err)
	}
}

func TestHostWithoutHTTPS(t *testing.T) {
	for _, mode := range []string{ModeCloud, ModeDedicated} {
		s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{
			{Name: shop}, {Name: "plain.example.com", Protocol: "HTTP"}, {Name: "mixed.example.com", Protocol: "HTTP&HTTPS"},
		}}, mode)
		o, err := s.target(t).Observe(t.Context(), request("mixed.example.com", "plain.example.com", shop))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range o.Endpoints {
			if (e.Problem != "") != (e.Name == "plain.example.com") || e.Missing {
				t.Errorf("%s: %+v", mode, e)
			}
		}
	}
}

// A host of another enterprise project is found only with its id, which every
// call must carry.
func TestEnterpriseProject(t *testing.T) {
	const project = "2d5b1f0c-7a44-4c1e-9d63-0e8f5a7b9c21"
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop, EnterpriseProject: project}}}, ModeCloud)
	o, err := s.target(t).Observe(t.Context(), request(shop))
	if err != nil || !o.Endpoints[0].Missing {
		t.Errorf("without the project: %+v, %v", o.Endpoints, err)
	}
	s.project = project
	target := s.target(t)
	before := len(s.sim.Ledger())
	staged, err := target.Stage(t.Context(), request(shop), bundle(t, certstest.EC256, shop))
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Activate(t.Context(), request(shop), staged.Handle); err != nil {
		t.Fatal(err)
	}
	o, err = target.Observe(t.Context(), request(shop))
	if err != nil || o.Endpoints[0].Serves != staged.Handle {
		t.Errorf("with the project: %+v, %v", o.Endpoints, err)
	}
	if err := target.Retire(t.Context(), request(shop), staged.Handle); providers.KindOf(err) != providers.KindInUse {
		t.Errorf("retire: %v", err)
	}
	for _, e := range s.sim.Ledger()[before:] {
		if e.Service == "waf" && !strings.Contains(e.Query, "enterprise_project_id="+project) {
			t.Errorf("%s was called with %q", e.Operation, e.Query)
		}
	}
}

// Where apply-to-hosts is missing, hosts are changed one by one, and it is not
// asked for again.
func TestFallBackWithoutApply(t *testing.T) {
	for _, missing := range []cloudsim.Fault{
		{Status: 400, Code: "WAF.00014009", Message: "API not found"},
		{Status: 400, Code: "WAF.00013002", Message: "feature not supported"},
		{Status: 404, Code: "APIGW.0101", Message: "The API does not exist or has not been published in the environment"},
		{Status: 404, Body: "<html><title>404</title>", ContentType: "text/html"},
	} {
		t.Run(missing.Code, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{
				EffectNeedsServer: true,
				Hosts:             []cloudsim.Host{{Name: shop}, {Name: store, Dedicated: true}},
			}, ModeAny)
			missing.Service, missing.Operation, missing.Name = "waf", "ApplyCertificateToHost", cloudsim.FaultAnswer
			s.fault(t, missing)
			before := s.sim.Hosts()
			target := s.target(t)
			r := request(shop, store)
			staged, err := target.Stage(t.Context(), r, bundle(t, certstest.EC256, shop, store))
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range [][]string{
				{"ApplyCertificateToHost", "ListHost", "ListHost", "ListPremiumHost", "ListPremiumHost", "ShowCertificate", "ShowHost", "ShowPremiumHost", "UpdateHost", "UpdatePremiumHost"},
				{"ShowCertificate", "ShowHost", "ShowPremiumHost"}, // again: nothing to change
			} {
				n := len(s.sim.Ledger())
				if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
					t.Fatal(err)
				}
				got := s.calls(n)
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("Activate %d: calls %v, want %v", i, got, want)
				}
			}
			for i, h := range s.sim.Hosts() {
				if h.CertificateID != string(staged.Handle) {
					t.Errorf("%s is bound to %s", h.Name, h.CertificateID)
				}
				if !slices.Equal(h.Origins, before[i].Origins) || h.TLS != before[i].TLS || h.Cipher != before[i].Cipher {
					t.Errorf("%s changed in other respects: %+v, was %+v", h.Name, h, before[i])
				}
			}
		})
	}
}

// A certificate that is not there is no missing API.
func TestActivateWhatIsGone(t *testing.T) {
	s := newSetup(t, cloudsim.Config{}, ModeCloud)
	target := s.target(t)
	err := target.Activate(t.Context(), request(shop), providers.Handle(strings.Repeat("e", 32)))
	if providers.KindOf(err) != providers.KindNotFound {
		t.Errorf("got %v", err)
	}
	if target.lacksApply() {
		t.Error("the adapter believes that apply-to-hosts is missing")
	}
}

// At quota our own unused certificate makes room; nobody else's does.
func TestQuota(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop}, {Name: store}}, CertificateQuota: 3}, ModeCloud)
	target := s.target(t)
	r := request(shop)
	stage := func(kind providers.Kind) providers.Remote {
		t.Helper()
		b := bundle(t, certstest.EC256, shop)
		got, err := target.Stage(t.Context(), r, b)
		if (err == nil) != (kind == providers.KindUnknown) || err != nil && providers.KindOf(err) != kind {
			t.Fatalf("stage: %v, want kind %s", err, kind)
		}
		if err == nil && (got.Fingerprint != b.Fingerprint() || got.Name != providers.CertificateName(owner, b.Fingerprint()) || !got.Owned) {
			t.Fatalf("staged %+v", got)
		}
		return got
	}
	s.upload(t, "nobody_uses_it", bundle(t, certstest.EC256, "x.example.com")) // 2 of 3
	first := stage(providers.KindUnknown)                                      // 3 of 3
	if err := target.Activate(t.Context(), r, first.Handle); err != nil {
		t.Fatal(err)
	}
	// Ours is bound, the foreign unused one is not ours: there is no room.
	stage(providers.KindQuota)
	if n := len(s.sim.Certificates()); n != 3 {
		t.Fatalf("%d certificates", n)
	}
	if slices.Contains(s.calls(0), "UpdateCertificate") {
		t.Error("the replacement of a bound certificate was tried")
	}
	// Unbound, it is replaced in place.
	if err := s.sim.ConsoleBind(shop, s.sim.Certificates()[0].ID); err != nil {
		t.Fatal(err)
	}
	second := stage(providers.KindUnknown)
	if second.Handle != first.Handle {
		t.Errorf("got %s, want the standby %s", second.Handle, first.Handle)
	}
	o, err := target.Observe(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, have := range o.Remotes {
		if have.Handle == second.Handle && (have.Fingerprint != second.Fingerprint || have.Name != second.Name) {
			t.Errorf("observed %+v, staged %+v", have, second)
		}
	}
}
