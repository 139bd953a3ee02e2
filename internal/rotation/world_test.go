package rotation

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// A world for each row of a matrix is garbage soon: the collector took as long as the engine.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	m.Run()
}

// world is everything outside the engine, in memory and strict: it complains of what no
// engine may do. Time is the test's synctest bubble.
type world struct {
	t      *testing.T
	id     ID
	policy *policy.Policy

	// wanted is what the source has; nil for nothing.
	wanted *Wanted
	// The target: certificates by handle, and what each host is bound to.
	certificates map[providers.Handle]*uploaded
	bound        map[string]providers.Handle
	boundAt      map[string]time.Time
	before       map[string]certs.Fingerprint // what edges serve until the binding spread
	propagation  time.Duration
	quota        int
	creates      map[certs.Fingerprint]int
	next         int

	// The journal, as bytes, and the events by id.
	journal  []byte
	revision Revision
	events   map[string]Event
	order    []EventKind

	// head is the newest event that was published, judged how many there were of each kind.
	head   audit.Head
	judged map[EventKind]int
	// lost says that events before the next one were lost.
	lost bool

	// listing is read by policies that say covered.
	listing *Listing
	// again is who is to be looked at once more.
	again []Trigger

	// issuer makes the certificates where the policy's source issues.
	issuer *issuer
	// application and second are further targets of policies that have them.
	application, second providers.Target
	// back is when clouds came back.
	back map[string]time.Time
	// edge, if not nil, stands in for the target edge.
	edge providers.Target

	// fault is asked before and after every outside call.
	fault func(call string, after bool) error
	calls []string
	// flicker says that the next handshake meets a server that lags.
	flicker func() bool
	// deferred are the reasons for waiting as the meter heard them; braked is what the brake
	// says.
	deferred []string
	braked   string
	// overridden counts changes outside of windows.
	overridden int
	asked      []string // step failures as the meter heard them
	// hold is the policy's; made are the effects of the last run, failed says that one failed.
	hold   *Hold
	made   []Step
	failed bool
}

type uploaded struct {
	name        string
	fingerprint certs.Fingerprint
	notBefore   time.Time
	notAfter    time.Time
	foreign     bool
}

// killed is what a fault returns to end the process: it unwinds the engine as a panic.
type killed struct{}

func newWorld(t *testing.T, p *policy.Policy) *world {
	w := &world{
		t: t, id: ID{Policy: p.Name, Certificate: "shop.example.com"}, policy: p,
		certificates: map[providers.Handle]*uploaded{}, bound: map[string]providers.Handle{}, boundAt: map[string]time.Time{},
		before: map[string]certs.Fingerprint{}, creates: map[certs.Fingerprint]int{}, events: map[string]Event{}, judged: map[EventKind]int{}, quota: 100,
	}
	for _, target := range p.Targets {
		for _, host := range target.Endpoints().List {
			w.bound[host] = ""
		}
	}
	return w
}

// testPolicy has one target with two hosts, one of which is proven.
func testPolicy() *policy.Policy {
	return &policy.Policy{
		Name:    "shop",
		Targets: []policy.Target{{Name: "edge", WAF: &policy.WAF{Hosts: policy.Names{List: []string{"shop.example.com", "www.example.com"}}}}},
		When:    policy.When{On: []string{policy.OnFile, policy.OnNATS, policy.OnDrift}},
		Verify:  policy.Verify{Endpoints: []string{"shop.example.com:443"}, Within: policy.Duration(10 * time.Minute), Chain: "verify"},
		Retain:  policy.Retain{Superseded: new(0), For: new(policy.Duration(time.Hour))},
		Drift:   policy.Drift{Every: policy.Duration(6 * time.Hour), Action: "repair"},
	}
}

// bundle makes the n-th version of the certificate, valid for 90 days from now.
func (w *world) bundle(n byte) *Wanted {
	now := time.Now().Truncate(time.Second).UTC()
	return &Wanted{Info: certs.Info{
		Fingerprint: certs.Fingerprint{n, 0xaa}, Names: []string{"shop.example.com", "www.example.com"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(90 * 24 * time.Hour),
	}}
}

// upload puts a certificate of somebody else there.
func (w *world) upload(f certs.Fingerprint, notBefore, notAfter time.Time) providers.Handle {
	w.next++
	h := providers.Handle(fmt.Sprintf("cert-%d", w.next))
	w.certificates[h] = &uploaded{name: fmt.Sprintf("by-hand-%d", w.next), fingerprint: f, notBefore: notBefore, notAfter: notAfter, foreign: true}
	return h
}

func (w *world) bind(host string, h providers.Handle) {
	if w.bound[host] == h {
		return
	}
	if c := w.certificates[w.bound[host]]; c != nil {
		w.before[host] = w.shown(host)
	}
	w.bound[host], w.boundAt[host] = h, time.Now()
}

// shown is what the edges serve for a host.
func (w *world) shown(host string) certs.Fingerprint {
	if time.Since(w.boundAt[host]) < w.propagation {
		return w.before[host]
	}
	if c := w.certificates[w.bound[host]]; c != nil {
		return c.fingerprint
	}
	return certs.Fingerprint{}
}

func (w *world) users(h providers.Handle) []string {
	var hosts []string
	for host, bound := range w.bound {
		if bound == h {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// outside runs one call with the faults before and after it.
func (w *world) outside(call string, effect func() error) error {
	w.calls = append(w.calls, call)
	if err := w.strike(call, false); err != nil {
		return err
	}
	if err := effect(); err != nil {
		return err
	}
	return w.strike(call, true)
}

func (w *world) strike(call string, after bool) error {
	if w.fault == nil {
		return nil
	}
	err := w.fault(call, after)
	if _, dead := errors.AsType[processKilled](err); dead {
		panic(killed{})
	}
	return err
}

type processKilled struct{}

func (processKilled) Error() string { return "killed" }

// target is the world as a providers.Target.
type target struct{ *world }

func (w target) Observe(_ context.Context, r providers.Request) (o providers.Observation, err error) {
	err = w.outside("observe", func() error {
		for _, name := range r.Endpoints {
			h, known := w.bound[name]
			o.Endpoints = append(o.Endpoints, providers.Endpoint{Name: name, ID: "id-" + name, Serves: h, Missing: !known})
		}
		for h, c := range w.certificates {
			owned := providers.Owns(r.Owner, c.name)
			if owned || slices.Contains(r.Known, h) || len(w.users(h)) > 0 {
				o.Remotes = append(o.Remotes, w.remote(h, owned))
			}
		}
		return nil
	})
	return o, err
}

func (w *world) remote(h providers.Handle, owned bool) providers.Remote {
	c := w.certificates[h]
	return providers.Remote{
		Handle: h, Name: c.name, Fingerprint: c.fingerprint, NotBefore: c.notBefore, NotAfter: c.notAfter,
		Owned: owned, InUse: w.users(h),
	}
}

func (w target) List(context.Context) (names []string, err error) {
	err = w.outside("list", func() error {
		for host := range w.bound {
			names = append(names, host)
		}
		return nil
	})
	return names, err
}

func (w target) Stage(ctx context.Context, r providers.Request, b *certs.Bundle) (remote providers.Remote, err error) {
	f := w.wanted.Info.Fingerprint
	err = w.outside("stage", func() error {
		name := providers.CertificateName(r.Owner, f)
		for h, c := range w.certificates {
			if c.name == name {
				remote = w.remote(h, true)
				return nil
			}
		}
		if len(w.certificates) >= w.quota {
			return &providers.Error{Kind: providers.KindQuota, Service: "waf", Op: "create certificate"}
		}
		w.next++
		providers.NoteRequest(ctx, w.requestID())
		h := providers.Handle(fmt.Sprintf("cert-%d", w.next))
		w.certificates[h] = &uploaded{name: name, fingerprint: f, notBefore: w.wanted.Info.NotBefore, notAfter: w.wanted.Info.NotAfter}
		w.creates[f]++
		remote = w.remote(h, true)
		return nil
	})
	return remote, err
}

func (w target) Activate(ctx context.Context, r providers.Request, h providers.Handle) error {
	return w.outside("activate", func() error {
		c := w.certificates[h]
		if c == nil {
			return &providers.Error{Kind: providers.KindNotFound, Service: "waf", Op: "apply"}
		}
		if !c.notAfter.After(time.Now()) {
			w.t.Errorf("an expired certificate was bound: %s", h)
		}
		providers.NoteRequest(ctx, w.requestID())
		for _, host := range r.Endpoints {
			w.bind(host, h)
		}
		return nil
	})
}

// requestID is what the service calls the request under way.
func (w *world) requestID() string { return fmt.Sprintf("request-%d", len(w.calls)) }

func (w target) Retire(_ context.Context, r providers.Request, h providers.Handle) error {
	return w.outside("retire", func() error {
		c := w.certificates[h]
		if c == nil {
			return nil
		}
		if !providers.Owns(r.Owner, c.name) {
			w.t.Errorf("a foreign certificate was to be deleted: %s", c.name)
		}
		if len(w.users(h)) > 0 {
			w.t.Errorf("a bound certificate was to be deleted: %s", c.name)
			return &providers.Error{Kind: providers.KindInUse, Service: "waf", Op: "delete"}
		}
		if c.fingerprint == w.wanted.Info.Fingerprint {
			w.t.Errorf("the wanted certificate was to be deleted")
		}
		delete(w.certificates, h)
		return nil
	})
}

// The other outside parts.

func (w *world) Refresh(context.Context, string, time.Time) error { return nil }

func (w *world) Wanted(certificate string) (Wanted, bool) {
	if w.wanted == nil || certificate != w.id.Certificate {
		return Wanted{}, false
	}
	return *w.wanted, true
}

func (w *world) Owners() *Owners {
	return NewOwners(func(yield func(string, certs.Info) bool) {
		if w.wanted != nil {
			yield(w.id.Certificate, w.wanted.Info)
		}
	})
}

func (w *world) Load(_ context.Context, _ string, f certs.Fingerprint) (*certs.Bundle, error) {
	if w.wanted == nil || w.wanted.Info.Fingerprint != f || w.wanted.Problem != "" {
		return nil, errors.New("the files changed")
	}
	return &certs.Bundle{}, nil
}

type worldJournal struct{ *world }

func (w worldJournal) Load(context.Context, ID) (r Record, rev Revision, err error) {
	err = w.outside("load", func() error {
		rev = w.revision
		if w.journal == nil {
			return nil
		}
		return json.Unmarshal(w.journal, &r)
	})
	return r, rev, err
}

func (w worldJournal) Save(_ context.Context, _ ID, r Record, read Revision) (rev Revision, err error) {
	err = w.outside("save", func() error {
		if read != w.revision {
			return fmt.Errorf("revision %d is not %d: %w", read, w.revision, ErrConflict)
		}
		body, err := json.Marshal(r)
		if err != nil {
			return err
		}
		w.revision++
		w.journal, rev = body, w.revision
		return nil
	})
	return rev, err
}

type worldEvents struct{ *world }

func (w worldEvents) Publish(_ context.Context, e Event) error {
	return w.outside("publish", func() error {
		if before, again := w.events[e.ID]; !again {
			w.order = append(w.order, e.Kind)
			w.checkEvent(e)
		} else if before.Data.Chain != e.Data.Chain {
			w.t.Errorf("event %s was published twice, with %+v and %+v", e.ID, before.Data.Chain, e.Data.Chain)
		}
		w.events[e.ID] = e
		return nil
	})
}

func (w *world) Probe(_ context.Context, r providers.ProbeRequest) (probes []providers.Probe) {
	err := w.outside("probe", func() error {
		for _, endpoint := range r.Endpoints {
			host, _, _ := strings.Cut(endpoint, ":")
			shown := w.shown(host)
			if w.flicker != nil && w.flicker() {
				shown = certs.Fingerprint{200}
			}
			probes = append(probes, providers.Probe{Endpoint: endpoint, Address: "192.0.2.1:443", Fingerprint: shown})
		}
		return nil
	})
	if err != nil {
		return []providers.Probe{{Endpoint: r.Endpoints[0], Err: err.Error()}}
	}
	return probes
}

func (w *world) StepFailed(_, kind, step, reason string) {
	if !slices.Contains(StepKindsOf(kind), StepKind(step)) {
		w.t.Errorf("step %s fails at %s: its counter was not there from the start", step, kind)
	}
	w.asked = append(w.asked, step+"/"+reason)
}
func (w *world) Rotated(_, _, _ string, _ time.Duration) {}
func (w *world) Retired(_, _ string)                     {}
func (w *world) WindowOverridden(string)                 { w.overridden++ }
func (w *world) RolledBack(_, _ string)                  {}
func (w *world) Deferred(_, reason string)               { w.deferred = append(w.deferred, reason) }
func (w *world) Converged(_ string, took time.Duration)  {}
func (w *world) record() (r Record)                      { _ = json.Unmarshal(w.journal, &r); return r }
func (w *world) targetRecord() TargetRecord              { return w.record().Targets["edge"] }
func (w *world) said(kind EventKind) bool                { return slices.Contains(w.order, kind) }
func (w *world) count(call string) (n int) {
	return len(slices.DeleteFunc(slices.Clone(w.calls), func(c string) bool { return c != call }))
}
func (w *world) boundTo(host string, n byte) bool {
	c := w.certificates[w.bound[host]]
	return c != nil && c.fingerprint == certs.Fingerprint{n, 0xaa}
}

// finds reports whether a look would find anything to do.
func (w *world) finds(t Trigger) bool {
	due, _ := w.engine().Due(w.id, w.record(), t, time.Now())
	return due
}

// engine is a fresh process.
func (w *world) engine() *Engine {
	assembly := &Assembly{Policy: w.policy, Source: w, Targets: map[string]providers.Target{"edge": target{w}}}
	if w.edge != nil {
		assembly.Targets["edge"] = w.edge
	}
	assembly.Targets["grafana"], assembly.Targets[policy.ApplicationTarget], assembly.Targets["second"] = target{w}, w.application, w.second
	if w.issuer != nil {
		assembly.Source, assembly.Issuer = &IssuedSource{Certificate: w.id.Certificate, Names: []string{"shop.example.com", "www.example.com", application}}, w.issuer
	}
	if w.listing == nil {
		w.listing = NewListing(target{w})
	}
	assembly.Listings = map[string]*Listing{"edge": w.listing}
	return New(Config{
		Assembly: func(string) *Assembly { return assembly },
		Journal:  worldJournal{w}, Events: worldEvents{w}, Prober: w, Meter: w, Brake: func(ID) string { return w.braked },
		PolicySHA256: func(name string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(name))) },
		Hold:         func(string) *Hold { return w.hold }, Progress: w.progress, Back: func() map[string]time.Time { return w.back },
		Again:  func(_ ID, t Trigger) { w.again = append(w.again, t) },
		Logger: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// look makes one look; a kill ends it and reports true.
func (w *world) look(t Trigger) (err error, dead bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			dead = true
		}
	}()
	e, q := w.engine(), Request{Trigger: t, Asked: time.Now()}
	if w.fault == nil {
		defer w.foretell(e, q)()
	}
	return e.Process(w.t.Context(), w.id, q), false
}

// drive plays the queue and the alarm: it looks for the trigger, again soon after an
// error or a kill, and at every time that the record asks for, until the given span of
// fake time has passed. It returns how many looks it took.
func (w *world) drive(t Trigger, span time.Duration) int {
	end := time.Now().Add(span)
	for looks := 1; ; looks++ {
		if looks > 2000 {
			w.t.Fatalf("2000 looks in %s: the assignment never comes to rest; record %s", span, w.journal)
		}
		if err, dead := w.look(t); err != nil || dead {
			time.Sleep(time.Second) // the queue delivers the same message again
			continue
		}
		t = TriggerDeadline
		at := w.record().WakeAt
		if at.IsZero() || at.After(end) {
			time.Sleep(time.Until(end))
			return looks
		}
		time.Sleep(time.Until(at))
	}
}
