package rotation

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

const (
	application = "app-ins-0123456789abcdef"
	directory   = "/etc/grafana/saml"
)

// applicationTarget activates what the issuer made: there is nothing to stage.
type applicationTarget struct {
	*issuer
	t      *testing.T
	active providers.Handle
}

func (a *applicationTarget) Observe(_ context.Context, r providers.Request) (o providers.Observation, err error) {
	err = a.outside("observe application", func() error {
		o.Endpoints = []providers.Endpoint{{Name: application, ID: application, Serves: a.active}}
		for _, m := range a.made {
			remote := providers.Remote{Handle: m.handle, Fingerprint: m.info.Fingerprint, NotBefore: m.info.NotBefore, NotAfter: m.info.NotAfter, Owned: slices.Contains(r.Made, m.handle)}
			if m.handle == a.active {
				remote.InUse = []string{application}
			}
			o.Remotes = append(o.Remotes, remote)
		}
		return nil
	})
	return o, err
}

func (a *applicationTarget) Stage(context.Context, providers.Request, *certs.Bundle) (providers.Remote, error) {
	a.t.Error("Stage was called: the certificate is there already")
	return providers.Remote{}, nil
}

func (a *applicationTarget) Activate(_ context.Context, _ providers.Request, h providers.Handle) error {
	return a.outside("activate application", func() error { a.active = h; return nil })
}

func (a *applicationTarget) Retire(_ context.Context, _ providers.Request, h providers.Handle) error {
	return a.outside("retire application", func() error {
		if h == a.active {
			a.t.Error("an active certificate was to be deleted")
		}
		a.made = slices.DeleteFunc(a.made, func(m *madeCertificate) bool { return m.handle == h })
		return nil
	})
}

// inHandover has a policy for an application with one file target and one party.
func inHandover(t *testing.T, test func(t *testing.T, w *world, i *issuer, app *applicationTarget)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.Name, p.Verify.Endpoints, p.When.Renew.At = "sso", nil, 66
		ic := &policy.IdentityCenter{ApplicationInstanceID: application, Activate: policy.Activate{After: new(policy.Duration(24 * time.Hour)), Acknowledgements: []string{"grafana"}}}
		p.Source.IdentityCenter = ic
		p.Targets = []policy.Target{{Name: "grafana", File: &policy.File{Directory: directory}}, {Name: policy.ApplicationTarget, Application: ic}}
		w := newWorld(t, p)
		w.id.Certificate = application
		delete(w.bound, application)
		i := &issuer{world: w, asks: "a", life: 5 * 365 * 24 * time.Hour, gone: map[providers.Handle]string{}}
		w.issuer = i
		app := &applicationTarget{issuer: i, t: t}
		w.application = app
		test(t, w, i, app)
	})
}

// An application that has a good certificate keeps it: nothing is issued before its time.
func (i *issuer) existing(app *applicationTarget) {
	now := time.Now().UTC()
	i.made = []*madeCertificate{{handle: "issued-1", at: now, info: certs.Info{
		Fingerprint: certs.FingerprintOf(leafOf("issued-1")), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(i.life),
	}}}
	app.active = "issued-1"
}

func TestExistingApplicationCertificateIsHandedOutAndKept(t *testing.T) {
	inHandover(t, func(_ *testing.T, w *world, i *issuer, app *applicationTarget) {
		i.existing(app)
		w.drive(TriggerStartup, 30*24*time.Hour)
		w.expectState(StateConverged)
		if w.count("issue") > 0 || w.count("activate application") > 0 || w.shown(directory) != i.newest() {
			t.Errorf("calls %v, the directory has %s", w.calls, w.shown(directory))
		}
	})
}

func TestActivationWaitsForTheParties(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
		i.existing(app)
		w.drive(TriggerStartup, time.Hour)
		i.asks = "b" // as if renewal were due
		w.drive(TriggerPolicy, time.Hour)
		w.expectState(StateWaiting)
		if app.active != "issued-1" || w.shown(directory) != i.newest() || len(i.made) != 2 {
			t.Fatalf("active %s, %d made: it must be handed out before it is activated", app.active, len(i.made))
		}
		if reason := w.record().Reason; !strings.Contains(reason, "grafana") || !strings.Contains(reason, "at the latest") {
			t.Errorf("reason %q", reason)
		}
		for name, ack := range map[string]struct {
			f     certs.Fingerprint
			party string
		}{"other party": {i.newest(), "nobody"}, "other certificate": {certs.Fingerprint{7}, "grafana"}} {
			if taken, why, err := w.engine().Acknowledge(t.Context(), w.id, ack.f, ack.party); taken || why == "" || err != nil {
				t.Errorf("%s: taken %v, %q, %v", name, taken, why, err)
			}
		}
		for range 2 { // a message may come twice
			if taken, _, err := w.engine().Acknowledge(t.Context(), w.id, i.newest(), "grafana"); !taken || err != nil {
				t.Fatalf("taken %v, %v", taken, err)
			}
		}
		w.drive(TriggerNATS, time.Minute)
		w.expectState(StateConverged)
		if app.active != "issued-2" || len(w.record().Acknowledged) != 1 {
			t.Errorf("active %s; record %s", app.active, w.journal)
		}
		w.drive(TriggerDeadline, 3*time.Hour)
		if len(i.made) != 1 {
			t.Errorf("%d certificates are left, want the active one", len(i.made))
		}
	})
}

func TestActivationComesWithTheTimeAtTheLatest(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
		i.existing(app)
		w.drive(TriggerStartup, time.Hour)
		i.asks = "b"
		w.drive(TriggerPolicy, 23*time.Hour)
		if app.active != "issued-1" {
			t.Fatal("activated before its time")
		}
		w.drive(TriggerDeadline, 2*time.Hour)
		w.expectState(StateConverged)
		if app.active != "issued-2" {
			t.Errorf("active %s", app.active)
		}
	})
}

// A relying party that cannot get the certificate keeps it from being activated, whatever
// the time.
func TestFailingHandoverKeepsTheOldOneActive(t *testing.T) {
	inHandover(t, func(t *testing.T, w *world, i *issuer, app *applicationTarget) {
		i.existing(app)
		w.drive(TriggerStartup, time.Hour)
		w.fault = func(call string, after bool) error {
			if call == "stage" && !after {
				return &providers.Error{Kind: providers.KindUnavailable, Service: "file", Op: "write", Message: "no space"}
			}
			return nil
		}
		i.asks = "b"
		w.drive(TriggerPolicy, 72*time.Hour)
		w.expectState(StateFailed)
		if app.active != "issued-1" {
			t.Errorf("active %s", app.active)
		}
	})
}

// One target fails, the other serves: that is not converged, and says which failed.
func TestOneFailingTargetIsNotConverged(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Verify.Endpoints = nil
		w.policy.Targets = []policy.Target{
			{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com"}}}},
			{Name: "second", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"www.example.com"}}}},
		}
		w.second = refusing{target{w}}
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateFailed)
		if r := w.record(); !strings.Contains(r.Reason, "no such permission") {
			t.Errorf("reason %q", r.Reason)
		}
		if !w.boundTo("shop.example.com", 1) {
			t.Error("one failing target kept the other from its steps")
		}
	})
}

// refusing is a target that lets itself be read only.
type refusing struct{ target }

func (refusing) Stage(context.Context, providers.Request, *certs.Bundle) (providers.Remote, error) {
	return providers.Remote{}, &providers.Error{Kind: providers.KindDenied, Service: "waf", Op: "create", Message: "no such permission"}
}

func (refusing) Activate(context.Context, providers.Request, providers.Handle) error {
	return &providers.Error{Kind: providers.KindDenied, Service: "waf", Op: "apply", Message: "no such permission"}
}
