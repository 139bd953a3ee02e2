package identitycenter

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
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

var owner = providers.Owner{Policy: "sso", Certificate: appID}

const (
	instanceID = "ins-0123456789abcdef"
	appID      = "app-ins-0123456789abcdef"
	otherApp   = "app-ins-fedcba9876543210"
)

type setup struct {
	sim *cloudsim.Sim
	all bool
}

func newSetup(t *testing.T, cfg cloudsim.Config) *setup {
	t.Helper()
	if cfg.Instances == nil {
		cfg.Instances = []cloudsim.IdentityInstance{{ID: instanceID, Applications: []cloudsim.Application{{ID: appID}, {ID: otherApp}}}}
	}
	sim := cloudtest.Start(t, cfg)
	return &setup{sim: sim}
}

// app is the application as a process that was just started would have it, one that does
// not wait for lists to catch up.
func (s *setup) app(t *testing.T) *Application {
	t.Helper()
	a := s.patient(t, appID)
	a.settle = 0
	return a
}

// adapter is whose calls are made.
func adapter() cloudtest.Adapter {
	return cloudtest.Adapter{Service: huaweicloud.IdentityCenter, Operations: Operations()}
}

func (s *setup) patient(t *testing.T, id string) *Application {
	t.Helper()
	client := adapter().Client(t, s.sim, func(c *huaweicloud.Config) { c.DomainID = s.sim.Config().DomainID })
	a, err := New(Config{Client: client, InstanceID: instanceID, ApplicationInstanceID: id, All: s.all, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *setup) fault(t *testing.T, f cloudsim.Fault) {
	t.Helper()
	f.Service = "identity_center"
	if _, err := s.sim.Faults().Add(f); err != nil {
		t.Fatal(err)
	}
}

func (s *setup) calls(n int) []string {
	var ops []string
	for _, e := range s.sim.Ledger()[n:] {
		if e.Service == "identity_center" {
			ops = append(ops, e.Operation)
		}
	}
	return ops
}

// certificates are those of the application instance, in the order of creation.
func (s *setup) certificates() []cloudsim.IdentityCertificateInfo {
	return s.sim.Applications()[0].Certificates
}

func (s *setup) active(t *testing.T) providers.Handle {
	t.Helper()
	for _, c := range s.certificates() {
		if c.Status == "ACTIVE" {
			return providers.Handle(c.ID)
		}
	}
	t.Fatal("no certificate is active")
	return ""
}

func (s *setup) wantCount(t *testing.T, want int) {
	t.Helper()
	if got := len(s.certificates()); got != want {
		t.Errorf("%d certificates, want %d", got, want)
	}
}

func now(known ...providers.Handle) providers.IssueRequest {
	return providers.IssueRequest{Owner: owner, Known: known, Since: time.Now()}
}

func request(made ...providers.Handle) providers.Request {
	return providers.Request{Owner: owner, Endpoints: []string{appID}, Made: made}
}

func wantKind(t *testing.T, err error, want providers.Kind) {
	t.Helper()
	if err == nil || providers.KindOf(err) != want {
		t.Errorf("got kind %s, want %s: %v", providers.KindOf(err), want, err)
	}
}

func (s *setup) issue(t *testing.T, r providers.IssueRequest) providers.Issued {
	t.Helper()
	issued, err := s.app(t).Issuer().Issue(t.Context(), r)
	if err != nil || issued.Problem != "" {
		t.Fatalf("issue: %+v, %v", issued, err)
	}
	return issued
}

// The whole life of three generations, with a restart before each verb.
func TestRotation(t *testing.T) {
	for _, cfg := range []cloudsim.Config{{}, {Misbehave: true, Seed: 1}, {Misbehave: true, Seed: 4}} {
		s := newSetup(t, cfg)
		first := s.active(t)
		known := []providers.Handle{}
		for n := range 3 {
			before := s.active(t)
			issued := s.issue(t, now(known...))
			known = append([]providers.Handle{issued.Handle}, known...)
			if !issued.Owned || issued.Created.IsZero() || issued.Info.Fingerprint.IsZero() || issued.Chain != 0 || len(issued.PEM) == 0 {
				t.Errorf("issued %+v", issued)
			}
			b, err := s.app(t).Issuer().Collect(t.Context(), now(), issued.Handle)
			if err != nil || b.Fingerprint() != issued.Info.Fingerprint || !b.Key.IsZero() || len(b.Chain) != 0 {
				t.Fatalf("collect: %v", err)
			}
			if s.active(t) != before {
				t.Error("it is active already")
			}
			r := request(known...)
			o, err := s.app(t).Target().Observe(t.Context(), r)
			if err != nil || len(o.Endpoints) != 1 || o.Endpoints[0] != (providers.Endpoint{Name: appID, ID: appID, Serves: before}) {
				t.Errorf("observed %+v, %v", o.Endpoints, err)
			}
			remote, err := s.app(t).Target().Stage(t.Context(), r, b)
			if err != nil || remote.Handle != issued.Handle || remote.Fingerprint != b.Fingerprint() || !remote.Owned ||
				!remote.NotAfter.Equal(b.Leaf.NotAfter) || len(remote.InUse) != 0 {
				t.Errorf("staged %+v, %v", remote, err)
			}
			for range 2 {
				if err := s.app(t).Target().Activate(t.Context(), r, remote.Handle); err != nil {
					t.Fatal(err)
				}
			}
			if o, err = s.app(t).Target().Observe(t.Context(), r); err != nil || o.Endpoints[0].Serves != issued.Handle || len(o.Remotes) != 2 {
				t.Errorf("observed %+v, %v", o, err)
			}
			for _, remote := range o.Remotes {
				if used := len(remote.InUse) == 1 && remote.InUse[0] == appID; used != (remote.Handle == issued.Handle) || remote.Owned != (remote.Handle != first) {
					t.Errorf("observed %+v", remote)
				}
			}
			if n == 0 {
				wantKind(t, s.app(t).Target().Retire(t.Context(), r, first), providers.KindInvalid)
				s.all = true
			}
			for range 2 {
				if err := s.app(t).Target().Retire(t.Context(), r, before); err != nil {
					t.Fatal(err)
				}
			}
			s.all = false
			s.wantCount(t, 1)
		}
		if other := s.sim.Applications()[1]; len(other.Certificates) != 1 {
			t.Error("the other application instance was changed")
		}
	}
}

func TestCost(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	check := func(what string, do func() error, want ...string) {
		t.Helper()
		n := len(s.sim.Ledger())
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := s.calls(n); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	a := s.app(t)
	var issued providers.Issued
	check("issue", func() (err error) { issued, err = a.Issuer().Issue(t.Context(), now()); return err }, "list_certificates", "create_certificate")
	check("observe", func() error { _, err := a.Issuer().Observe(t.Context(), now()); return err }, "list_certificates")
	check("observe the target", func() error { _, err := a.Target().Observe(t.Context(), request()); return err }, "show_application", "list_certificates")
	check("activate", func() error { return a.Target().Activate(t.Context(), request(), issued.Handle) }, "show_application", "activate_certificate")
	check("activate again", func() error { return a.Target().Activate(t.Context(), request(), issued.Handle) }, "show_application")
	check("activate nowhere", func() error { return a.Target().Activate(t.Context(), providers.Request{Owner: owner}, issued.Handle) })
	check("release", func() error { return a.Issuer().Release(t.Context(), now(), nil) })
	for _, e := range s.sim.Ledger() {
		if e.Operation == "create_certificate" && e.Status != 201 {
			t.Errorf("%+v", e)
		}
	}
	wantKind(t, a.Issuer().Revoke(t.Context(), now(), issued.Handle), providers.KindInvalid)
	if other := s.patient(t, otherApp); a.Issuer().Asks() == "" || a.Issuer().Asks() != s.app(t).Issuer().Asks() || other.Issuer().Asks() == a.Issuer().Asks() {
		t.Error("digests")
	}
}

// Whatever goes wrong once, there is one new certificate in the end, and it is active.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"list_certificates", "create_certificate", "show_application", "activate_certificate"} {
		for _, f := range []cloudsim.Fault{
			{Name: cloudsim.FaultRefuse}, {Name: cloudsim.FaultInternal}, {Name: cloudsim.FaultBusy}, {Name: cloudsim.FaultBadGateway},
			{Name: cloudsim.FaultLost}, {Name: cloudsim.FaultCut}, {Name: cloudsim.FaultTruncate}, {Name: cloudsim.FaultHuge},
			{Name: cloudsim.FaultInternal, Phase: cloudsim.After},
			{Name: cloudsim.FaultAnswer, Status: 409, Code: "IIC.1006"}, {Name: cloudsim.FaultAnswer, Status: 409, Code: "IIC.1007"},
			{Name: cloudsim.FaultWrongType, Field: "certificate_id"}, {Name: cloudsim.FaultWrongType, Field: "application_instance_certificates"},
			{Name: cloudsim.FaultWrongType, Field: "page_info"}, {Name: cloudsim.FaultWrongType, Field: "active_certificate"},
			{Name: cloudsim.FaultWrongType, Field: "application_instance_certificate"}, {Name: cloudsim.FaultWrongType, Field: "key_size"},
		} {
			t.Run(fmt.Sprintf("%s %s%s%s%s", operation, f.Name, f.Field, f.Phase, f.Code), func(t *testing.T) {
				t.Parallel()
				s := newSetup(t, cloudsim.Config{})
				f.Operation, f.Count = operation, 1
				s.fault(t, f)
				if operation == "list_certificates" { // nothing to be found is nothing to be lost
					s.fault(t, cloudsim.Fault{Operation: "create_certificate", Name: cloudsim.FaultLost, Count: 1})
				}
				r := now()
				rotate := func() error {
					issued, err := s.app(t).Issuer().Issue(t.Context(), r)
					if err != nil {
						return err
					}
					return s.app(t).Target().Activate(t.Context(), request(), issued.Handle)
				}
				for n := 0; ; n++ {
					err := rotate()
					if err == nil {
						break
					}
					tooLong := strings.Contains(err.Error(), "longer than")
					if k := providers.KindOf(err); k == providers.KindUnknown || k == providers.KindInvalid && !tooLong || n == 3 {
						t.Fatalf("try %d: kind %s: %v", n, k, err)
					}
					if len(s.certificates()) == 2 && s.certificates()[1].Status == "ACTIVE" {
						break // the last answer was lost; a caller would look
					}
				}
				s.wantCount(t, 2)
				if got := s.certificates()[1]; got.Status != "ACTIVE" {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}

func TestLostAnswer(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	for n := range 3 {
		s.fault(t, cloudsim.Fault{Operation: "create_certificate", Name: cloudsim.FaultLost, Count: 1})
		var known []providers.Handle
		for _, c := range s.certificates()[1:] {
			known = append(known, providers.Handle(c.ID))
		}
		r := now(known...)
		_, err := s.app(t).Issuer().Issue(t.Context(), r)
		wantKind(t, err, providers.KindUnknownOutcome)
		issued := s.issue(t, r)
		if !issued.Owned || issued.Handle != providers.Handle(s.certificates()[n+1].ID) {
			t.Errorf("issued %+v", issued)
		}
		s.wantCount(t, n+2)
	}
}

// A list that is behind must not lead to a second certificate.
func TestListLag(t *testing.T) {
	s := newSetup(t, cloudsim.Config{ListLag: time.Second})
	a := s.patient(t, appID)
	a.settle = 1500 * time.Millisecond
	s.fault(t, cloudsim.Fault{Operation: "create_certificate", Name: cloudsim.FaultLost, Count: 1})
	r := now()
	_, err := a.Issuer().Issue(t.Context(), r)
	wantKind(t, err, providers.KindUnknownOutcome)
	_, err = a.Issuer().Issue(t.Context(), r)
	wantKind(t, err, providers.KindUnavailable)
	e, _ := errors.AsType[*providers.Error](err)
	if e == nil || e.RetryAfter <= 0 || e.RetryAfter > a.settle {
		t.Fatalf("got %v", err)
	}
	time.Sleep(e.RetryAfter)
	if _, err := a.Issuer().Issue(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.wantCount(t, 2)
}

// What somebody else made and did not activate yet.
func TestForeign(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	first := s.active(t)
	id, err := s.sim.ConsoleCreate(appID)
	if err != nil {
		t.Fatal(err)
	}
	foreign := providers.Handle(id)
	o, err := s.app(t).Issuer().Observe(t.Context(), now())
	if err != nil || len(o.Certificates) != 2 || o.Certificates[0].Handle != foreign || o.Certificates[1].Handle != first || o.Authority != nil {
		t.Fatalf("observed %+v, %v", o, err)
	}
	for _, c := range o.Certificates {
		if c.Owned || c.Problem != "" || c.Info.Fingerprint.IsZero() || len(c.PEM) == 0 || c.Created.IsZero() {
			t.Errorf("observed %+v", c)
		}
	}
	// It is taken where nobody has tried, and not counted as ours.
	if got := s.issue(t, providers.IssueRequest{Owner: owner}); got.Handle != foreign || got.Owned {
		t.Errorf("issued %+v", got)
	}
	// It is not taken when a try was made after it.
	later := now()
	later.Since = time.Now().Add(6 * time.Minute)
	if got := s.issue(t, later); got.Handle == foreign || !got.Owned {
		t.Errorf("issued %+v", got)
	}
	// Nor when the journal knows it, or when it is active.
	known := []providers.Handle{foreign}
	for _, c := range s.certificates() {
		known = append(known, providers.Handle(c.ID))
	}
	if got := s.issue(t, providers.IssueRequest{Owner: owner, Known: known}); slices.Contains(known, got.Handle) {
		t.Errorf("issued %+v", got)
	}
	target := s.app(t).Target()
	wantKind(t, target.Retire(t.Context(), request(), foreign), providers.KindInvalid)
	s.all = true
	if err := s.app(t).Target().Retire(t.Context(), request(), foreign); err != nil {
		t.Error(err)
	}
	s.all = false
	o, err = s.app(t).Issuer().Observe(t.Context(), now(foreign))
	if err != nil || !slices.ContainsFunc(o.Certificates, func(c providers.Issued) bool {
		return c.Handle == foreign && c.Problem == "it is gone: somebody deleted it" && c.Info.Fingerprint.IsZero()
	}) {
		t.Errorf("observed %+v, %v", o, err)
	}
}

// The active certificate stays whoever owns it, also when it became active a moment ago.
func TestActiveIsNotRetired(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	s.all = true
	issued := s.issue(t, now())
	first := s.active(t)
	a := s.app(t)
	n := len(s.sim.Ledger())
	wantKind(t, a.Target().Retire(t.Context(), request(), first), providers.KindInUse)
	// Somebody activates it between the two reads.
	s.sim.Faults().OnCall(func(e cloudsim.Entry, at cloudsim.Phase) {
		if e.Operation == "list_certificates" && at == cloudsim.Before {
			if err := s.sim.ConsoleActivate(appID, string(issued.Handle)); err != nil {
				t.Error(err)
			}
		}
	})
	wantKind(t, a.Target().Retire(t.Context(), request(), issued.Handle), providers.KindInUse)
	s.sim.Faults().OnCall(nil)
	if slices.Contains(s.calls(n), "delete_certificate") {
		t.Error("a delete was sent")
	}
	wantKind(t, a.Target().Retire(t.Context(), request(), ""), providers.KindInvalid)
	s.wantCount(t, 2)
}

func TestRollback(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	first := s.active(t)
	issued := s.issue(t, now())
	for _, h := range []providers.Handle{issued.Handle, first, issued.Handle} {
		if err := s.app(t).Target().Activate(t.Context(), request(), h); err != nil {
			t.Fatal(err)
		}
		if s.active(t) != h {
			t.Errorf("%s is active, want %s", s.active(t), h)
		}
	}
}

func TestMissing(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	gone := s.patient(t, "app-ins-0000000000000000")
	r := providers.Request{Owner: owner, Endpoints: []string{"app-ins-0000000000000000"}}
	o, err := gone.Target().Observe(t.Context(), r)
	if err != nil || len(o.Remotes) != 0 || len(o.Endpoints) != 1 || o.Endpoints[0] != (providers.Endpoint{Name: r.Endpoints[0], Missing: true}) {
		t.Errorf("observed %+v, %v", o, err)
	}
	_, err = gone.Issuer().Issue(t.Context(), now())
	wantKind(t, err, providers.KindNotFound)
	wantKind(t, gone.Target().Activate(t.Context(), r, "cer-4d47a100-0144-492d-8aa5-9460c6aadc55"), providers.KindNotFound)
	if err := gone.Target().Retire(t.Context(), r, "cer-4d47a100-0144-492d-8aa5-9460c6aadc55"); err != nil {
		t.Error(err)
	}

	a := s.app(t)
	before := s.active(t)
	r = request()
	r.Endpoints = []string{appID, otherApp}
	if o, err = a.Target().Observe(t.Context(), r); err != nil || o.Endpoints[0].Missing || !o.Endpoints[1].Missing {
		t.Errorf("observed %+v, %v", o, err)
	}
	wantKind(t, a.Target().Activate(t.Context(), r, before), providers.KindNotFound)
	wantKind(t, a.Target().Activate(t.Context(), request(), "cer-4d47a100-0144-492d-8aa5-9460c6aadc55"), providers.KindNotFound)
	for _, h := range []providers.Handle{"", "../x"} {
		wantKind(t, a.Target().Activate(t.Context(), request(), h), providers.KindInvalid)
	}
	_, err = a.Issuer().Collect(t.Context(), now(), "cer-4d47a100-0144-492d-8aa5-9460c6aadc55")
	wantKind(t, err, providers.KindNotFound)
	ca, err := certstest.NewCA("identity center test")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ca.Issue(certstest.Options{Names: []string{"x.example"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Target().Stage(t.Context(), request(), b)
	wantKind(t, err, providers.KindNotFound)
	if s.active(t) != before {
		t.Error("another certificate is active")
	}
}

func TestLimit(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Instances: []cloudsim.IdentityInstance{{ID: instanceID, Applications: []cloudsim.Application{{ID: appID, CertificateLimit: 1}}}}})
	_, err := s.app(t).Issuer().Issue(t.Context(), now())
	wantKind(t, err, providers.KindConflict)
}

func TestAtTheSameTime(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	a := s.app(t)
	r := now()
	handles := make([]providers.Handle, 4)
	var group sync.WaitGroup
	for n := range handles {
		group.Go(func() {
			issued, err := a.Issuer().Issue(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			handles[n] = issued.Handle
		})
	}
	group.Wait()
	s.wantCount(t, 2)
	if len(slices.Compact(handles)) != 1 {
		t.Errorf("handles %v", handles)
	}
}

func TestContextEnded(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	issued := s.issue(t, now())
	b, err := s.app(t).Issuer().Collect(t.Context(), now(), issued.Handle)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := s.app(t)
	n := len(s.sim.Ledger())
	_, seen := a.Issuer().Observe(ctx, now())
	_, made := a.Issuer().Issue(ctx, now())
	_, collected := a.Issuer().Collect(ctx, now(), issued.Handle)
	_, observed := a.Target().Observe(ctx, request())
	_, staged := a.Target().Stage(ctx, request(), b)
	for verb, err := range map[string]error{
		"observe": seen, "issue": made, "collect": collected, "observe the target": observed, "stage": staged,
		"activate": a.Target().Activate(ctx, request(), issued.Handle), "retire": a.Target().Retire(ctx, request(issued.Handle), issued.Handle),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if got := s.calls(n); len(got) != 0 {
		t.Errorf("calls %v", got)
	}
}

func TestNew(t *testing.T) {
	s := newSetup(t, cloudsim.Config{})
	client := s.app(t).client
	for want, cfg := range map[string]Config{
		"want a client":           {InstanceID: instanceID, ApplicationInstanceID: appID},
		"instance id \"a/b\"":     {Client: client, InstanceID: "a/b", ApplicationInstanceID: appID},
		"application instance id": {Client: client, InstanceID: instanceID, ApplicationInstanceID: "app-ins-1"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// canned answers calls with fixed texts: for what the simulator does not do.
type canned func(r *http.Request) string

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return cloudtest.Answer(c(r)), nil
}

func (c canned) app(t testing.TB) *Application {
	t.Helper()
	a, err := New(Config{Client: adapter().Canned(t, "cn-north-4", c), InstanceID: instanceID, ApplicationInstanceID: appID})
	if err != nil {
		t.Fatal(err)
	}
	a.settle = 0
	return a
}

// selfSigned is a certificate as Identity Center makes them.
func selfSigned(t testing.TB, from, to time.Time) *certs.Bundle {
	t.Helper()
	ca, err := certstest.NewCA("sso")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ca.Issue(certstest.Options{Names: []string{"sso"}, NotBefore: from, NotAfter: to})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The request that creates has neither body nor type; its answer is the seed's.
func TestCreateAsSent(t *testing.T) {
	b := selfSigned(t, time.Now().Add(-time.Hour), time.Now().AddDate(5, 0, 0))
	text, _ := json.Marshal(strings.ReplaceAll(strings.TrimSpace(string(b.CertificatePEM())), "\n", "\r\n"))
	a := canned(func(r *http.Request) string {
		path := "/v1/instances/" + instanceID + "/application-instances/" + appID + "/certificates"
		if r.URL.Path != path {
			t.Errorf("path %s", r.URL.Path)
		}
		if r.Method == http.MethodGet {
			return `{"application_instance_certificates":null,"page_info":{"next_marker":null,"current_count":0}}`
		}
		var body []byte
		if r.Body != nil {
			body, _ = io.ReadAll(r.Body)
		}
		if r.Method != http.MethodPost || len(body) > 0 || r.ContentLength != 0 || r.Header.Get("Content-Type") != "" {
			t.Errorf("%s with %q of type %q", r.Method, body, r.Header.Get("Content-Type"))
		}
		return `201 { "application_instance_certificate" : { "algorithm" : "SHA256withRSA", "certificate" : ` + string(text) + `, "certificate_id" : "cer-4d47a100-0144-492d-8aa5-9460c6aadc55", "expiry_date" : 1912291200000, "status" : "INACTIVE", "key_size" : "3072", "issue_date" : 1754548061000 } }`
	}).app(t)
	got, err := a.Issuer().Issue(t.Context(), now())
	want := providers.Issued{
		Handle: "cer-4d47a100-0144-492d-8aa5-9460c6aadc55", Info: b.Info(), PEM: b.CertificatePEM(), Created: time.UnixMilli(1754548061000).UTC(), Owned: true,
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestLenientAnswers(t *testing.T) {
	b := selfSigned(t, time.Now().Add(-time.Hour), time.Now().AddDate(5, 0, 0))
	text, _ := json.Marshal(string(b.CertificatePEM()))
	old := selfSigned(t, time.Now().AddDate(-2, 0, 0), time.Now().AddDate(-1, 0, 0))
	oldText, _ := json.Marshal(string(old.CertificatePEM()))
	pages := map[string]string{
		"": `{"application_instance_certificates":[{"certificate_id":"c1","certificate":"broken","status":"active","issue_date":"1700000000000","expiry_date":null,"key_size":3072}],"page_info":{"next_marker":"m1"}}`,
		"m1": fmt.Sprintf(`{"application_instance_certificates":[{"certificate_id":"c2","certificate":%s,"status":"Inactive","issue_date":1800000000000.0},{"certificate_id":"c3","certificate":%s,"status":"INACTIVE","issue_date":1600000000000}],"page_info":{"next_marker":""},"new":1}`,
			text, oldText),
	}
	a := canned(func(r *http.Request) string {
		if strings.HasSuffix(r.URL.Path, "/certificates") {
			return pages[r.URL.Query().Get("marker")]
		}
		return `{"application_instance":{"active_certificate":null}}` // it does not tell
	}).app(t)
	o, err := a.Issuer().Observe(t.Context(), now("c3"))
	if err != nil || len(o.Certificates) != 3 {
		t.Fatalf("observed %+v, %v", o, err)
	}
	var got []string
	for _, c := range o.Certificates {
		got = append(got, string(c.Handle)+" "+c.Problem)
	}
	want := []string{"c2 ", "c1 the service shows it in a form that cannot be read", "c3 it has expired"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if o, err := a.Issuer().Observe(t.Context(), now()); err != nil || len(o.Certificates) != 2 {
		t.Errorf("the expired one is shown: %+v, %v", o, err)
	}
	target, err := a.Target().Observe(t.Context(), request("c2"))
	if err != nil || target.Endpoints[0].Serves != "c1" || len(target.Remotes) != 3 || target.Remotes[0].Fingerprint != b.Fingerprint() || !target.Remotes[0].Owned {
		t.Errorf("observed %+v, %v", target, err)
	}
	if got, err := a.Issuer().Issue(t.Context(), providers.IssueRequest{Owner: owner}); err != nil || got.Handle != "c2" {
		t.Errorf("issued %+v, %v", got, err)
	}
	_, err = a.Issuer().Collect(t.Context(), now(), "c1")
	wantKind(t, err, providers.KindInvalid)
	wantKind(t, a.Target().Retire(t.Context(), request("c1"), "c1"), providers.KindInUse)
}

// Of two that were made at one moment the active one is shown first, wherever it stands in
// the list: who has no journal takes the first.
func TestOfOneMoment(t *testing.T) {
	const row = `{"certificate_id":%q,"certificate":%s,"status":%q,"issue_date":%d}`
	const moment = 1800000000000
	text, _ := json.Marshal(string(selfSigned(t, time.Now().Add(-time.Hour), time.Now().AddDate(5, 0, 0)).CertificatePEM()))
	rows := []string{
		fmt.Sprintf(row, "inactive", text, "INACTIVE", moment), fmt.Sprintf(row, "active", text, "ACTIVE", moment),
		fmt.Sprintf(row, "older", text, "INACTIVE", moment-1000), fmt.Sprintf(row, "newer", text, "INACTIVE", moment+1000),
	}
	for range 2 {
		slices.Reverse(rows)
		a := canned(func(*http.Request) string {
			return `{"application_instance_certificates":[` + strings.Join(rows, ",") + `]}`
		}).app(t)
		o, err := a.Issuer().Observe(t.Context(), now())
		if err != nil {
			t.Fatal(err)
		}
		var got []providers.Handle
		for _, c := range o.Certificates {
			got = append(got, c.Handle)
		}
		if want := []providers.Handle{"newer", "active", "inactive", "older"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A status that is not known is not taken for inactive.
func TestUnknownStatus(t *testing.T) {
	a := canned(func(r *http.Request) string {
		switch {
		case r.Method != http.MethodGet:
			t.Errorf("%s %s", r.Method, r.URL)
		case strings.HasSuffix(r.URL.Path, "/certificates"):
			return `{"application_instance_certificates":[{"certificate_id":"c1","status":"PENDING","issue_date":1},{"certificate_id":"c2","issue_date":1}]}`
		}
		return `{"application_instance_id":"x","active_certificate":{"certificate_id":"c9"}}`
	}).app(t)
	for _, h := range []providers.Handle{"c1", "c2"} {
		wantKind(t, a.Target().Retire(t.Context(), request("c1", "c2"), h), providers.KindInUse)
	}
	if o, err := a.Target().Observe(t.Context(), request()); err != nil || o.Endpoints[0].Serves != "c9" {
		t.Errorf("observed %+v, %v", o, err)
	}
}

func TestUnreadableLists(t *testing.T) {
	for _, answer := range []string{`{}`, `[]`, `"x"`, `{"application_instance_certificates":{}}`, `{"application_instance_certificates":[1]}`, `{"application_instance_certificates":[{}]}`, `{"application_instance_certificates":[],"page_info":"x"}`} {
		calls := 0
		a := canned(func(r *http.Request) string {
			if calls++; r.Method != http.MethodGet {
				t.Errorf("%s: %s", answer, r.Method)
			}
			return answer
		}).app(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // reads are repeated
		_, err := a.Issuer().Issue(ctx, now())
		cancel()
		wantKind(t, err, providers.KindUnavailable)
	}
}

// A list that never ends is left, and so is one that repeats itself.
func TestEndlessLists(t *testing.T) {
	for _, repeats := range []bool{true, false} {
		calls := 0
		a := canned(func(*http.Request) string {
			calls++
			n := calls
			if repeats {
				n = 1
			}
			return fmt.Sprintf(`{"application_instance_certificates":[{"certificate_id":"c%d"}],"page_info":{"next_marker":"m%d"}}`, n, n)
		}).app(t)
		rows, err := a.list(t.Context())
		if err != nil || repeats != (len(rows) == 1) || calls > maxPages || repeats && calls > 2 {
			t.Errorf("%d rows in %d calls, %v", len(rows), calls, err)
		}
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte(`{"application_instance_certificates":[{"certificate_id":"c1","certificate":"-----BEGIN CERTIFICATE-----\r\nMIIB\r\n-----END CERTIFICATE-----","status":"ACTIVE","issue_date":1,"expiry_date":"2"}],"page_info":{"next_marker":"x"}}`))
	f.Add([]byte(`{"page_info":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p page
		if json.Unmarshal(data, &p) != nil {
			return
		}
		sortNewest(p.Rows)
		for _, row := range p.Rows {
			if !huaweicloud.IsIdentifier(string(row.ID)) {
				t.Errorf("id %q", row.ID)
			}
			if issued := describe(row); issued.Problem == "" && (issued.Info.Fingerprint.IsZero() || issued.Info.Fingerprint != fingerprint(row)) {
				t.Errorf("%+v", issued)
			}
		}
		_, _ = adoptable(p.Rows, providers.IssueRequest{}, time.Now())
	})
}
