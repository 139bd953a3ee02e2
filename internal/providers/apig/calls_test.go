package apig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

// listGroupsCall is the listing of API groups in the ledger.
const listGroupsCall = "ListApiGroupsV2"

// More operations as the simulator's ledger names them.
const (
	listCall     = "ListCertificatesV2"
	showCall     = "ShowDetailsOfCertificateV2"
	updateCall   = "UpdateCertificateV2"
	deleteCall   = "DeleteCertificateV2"
	attachedCall = "ListAttachedDomainsV2"
	attachCall   = "BatchAssociateDomainsV2"
	detachCall   = "BatchDisassociateDomainsV2"
	groupCall    = "ShowDetailsOfApiGroupV2"
)

// step makes a verb's call and checks which calls it cost.
func (s *setup) step(t *testing.T, name string, want []string, do func() error) {
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

// The numbers of calls that the comments of the verbs promise.
func TestCallsInPlace(t *testing.T) {
	s := newSetup(t, world{})
	target := s.target(t)
	first, second := bundle(t, certstest.EC256, shop, store), bundle(t, certstest.EC256, shop, store)
	r := s.request([]*certs.Bundle{second, first, s.old}, shop, store)
	observe := func() error { _, err := target.Observe(t.Context(), r); return err }
	var a, b providers.Remote
	activate := func(r providers.Request, h *providers.Remote) func() error {
		return func() error { return target.Activate(t.Context(), r, h.Handle) }
	}

	s.step(t, "the first Observe", []string{listGroupsCall, showCall, attachedCall}, observe)
	s.step(t, "Stage", nil, func() (err error) { a, err = target.Stage(t.Context(), r, first); return err })
	s.step(t, "Activate", []string{groupCall, showCall, attachedCall, updateCall}, activate(r, &a))
	s.step(t, "the common Observe", []string{groupCall, showCall, attachedCall}, observe)
	s.step(t, "Activate of what is there", []string{groupCall, showCall, attachedCall}, activate(r, &a))
	s.step(t, "the second Stage", nil, func() (err error) { b, err = target.Stage(t.Context(), r, second); return err })
	s.step(t, "the second Activate", []string{groupCall, showCall, attachedCall, updateCall}, activate(r, &b))
	s.step(t, "the way back", []string{groupCall, showCall, attachedCall, updateCall}, activate(r, &a))
	s.step(t, "Retire", nil, func() error { return target.Retire(t.Context(), r, b.Handle) })

	third := bundle(t, certstest.EC256, shop, store, plain)
	r.Endpoints = []string{plain, shop, store}
	var c providers.Remote
	s.step(t, "the third Stage", nil, func() (err error) { c, err = target.Stage(t.Context(), r, third); return err })
	s.step(t, "Activate at a domain without certificate",
		[]string{listGroupsCall, showCall, attachedCall, updateCall, listCall, create, attachCall}, activate(r, &c))
	for _, name := range r.Endpoints {
		if got := s.serves(t, name); !slices.Equal(got, []string{third.Fingerprint().String()}) {
			t.Errorf("%s serves %v", name, got)
		}
	}
}

func TestCallsNew(t *testing.T) {
	s := newSetup(t, world{replace: ReplaceNew})
	target := s.target(t)
	first, second := bundle(t, certstest.EC256, shop, store), bundle(t, certstest.EC256, shop, store)
	r := s.request([]*certs.Bundle{second, first, s.old}, shop, store)
	observe := func() error { _, err := target.Observe(t.Context(), r); return err }
	var a, b providers.Remote
	activate := func(h *providers.Remote) func() error {
		return func() error { return target.Activate(t.Context(), r, h.Handle) }
	}
	activation := []string{groupCall, showCall, attachCall, groupCall}

	s.step(t, "the first Observe", []string{listGroupsCall, listCall, showCall, attachedCall}, observe)
	s.step(t, "Stage", []string{listCall, create}, func() (err error) { a, err = target.Stage(t.Context(), r, first); return err })
	s.step(t, "Stage again", []string{listCall, showCall}, func() (err error) { a, err = target.Stage(t.Context(), r, first); return err })
	s.step(t, "Activate", activation, activate(&a))
	s.step(t, "the common Observe", []string{groupCall, listCall, showCall, attachedCall}, observe)
	s.step(t, "Activate of what is there", []string{groupCall}, activate(&a))
	s.step(t, "the second Stage", []string{listCall, create}, func() (err error) { b, err = target.Stage(t.Context(), r, second); return err })
	s.step(t, "the second Activate", activation, activate(&b))
	s.step(t, "Observe of two generations", []string{groupCall, listCall, showCall, attachedCall, showCall, attachedCall}, observe)
	s.step(t, "Retire", []string{showCall, attachedCall, deleteCall}, func() error { return target.Retire(t.Context(), r, a.Handle) })
	s.step(t, "Retire of what is gone", []string{showCall}, func() error { return target.Retire(t.Context(), r, a.Handle) })
}

// Every call of a rotation, failing before its effect, after it and half-way: the same
// rotation tried again ends as one without a fault.
func TestFaultMatrix(t *testing.T) {
	operations := map[string][]string{
		ReplaceInPlace: {groupCall, showCall, attachedCall, updateCall, listCall, create, attachCall},
		ReplaceNew:     {groupCall, listCall, showCall, create, attachCall, attachedCall, deleteCall},
	}
	faults := []cloudsim.Fault{
		{Name: cloudsim.FaultRefuse}, {Name: cloudsim.FaultLost}, {Name: cloudsim.FaultInternal},
		{Name: cloudsim.FaultInternal, Phase: cloudsim.After}, {Name: cloudsim.FaultBusy}, {Name: cloudsim.FaultThrottle},
		{Name: cloudsim.FaultUnauthorized}, {Name: cloudsim.FaultTokenInvalid}, {Name: cloudsim.FaultBadGateway},
		{Name: cloudsim.FaultBadGateway, Phase: cloudsim.After}, {Name: cloudsim.FaultTruncate},
		{Name: cloudsim.FaultCut}, {Name: cloudsim.FaultHuge}, {Name: cloudsim.FaultWrongType}, {Name: cloudsim.FaultPartial},
		{Name: cloudsim.FaultExpireToken},
		{Name: cloudsim.FaultAnswer, Status: 409, Code: "APIG.3711"},
		{Name: cloudsim.FaultAnswer, Status: 409, Code: "APIG.3718"},
		{Name: cloudsim.FaultAnswer, Status: 500, Code: "APIG.3500"},
		{Name: cloudsim.FaultAnswer, Status: 500, Code: "APIG.3500", Phase: cloudsim.After},
	}
	for replace, ops := range operations {
		for _, op := range ops {
			for _, f := range faults {
				if f.Name == cloudsim.FaultPartial && op != attachCall {
					continue
				}
				t.Run(replace+"/"+op+"/"+f.Name+f.Code+"/"+string(f.Phase), func(t *testing.T) {
					t.Parallel()
					s := newSetup(t, world{replace: replace})
					s.password = true
					f.Operation, f.Count = op, 1
					first := bundle(t, certstest.EC256, plain, shop, store)
					second := bundle(t, certstest.EC256, plain, shop, store)
					r := s.request([]*certs.Bundle{second, first, s.old}, plain, shop, store)
					if err := s.rotate(t, r, first, ""); err != nil {
						t.Fatal(err)
					}
					s.fault(t, f)
					for try := 0; ; try++ {
						err := s.rotate(t, r, second, s.own(first))
						if err == nil {
							break
						}
						if k := providers.KindOf(err); k == providers.KindUnknown || try == 3 {
							t.Fatalf("try %d: kind %s: %v", try, k, err)
						}
					}
					for _, name := range r.Endpoints {
						if got := s.serves(t, name); !slices.Equal(got, []string{second.Fingerprint().String()}) {
							t.Errorf("%s serves %v", name, got)
						}
					}
					// In place: the one by hand, and the one that was made for plain.
					if n := len(s.sim.APIGCertificates()); n != 2 {
						t.Errorf("%d certificates, want 2: %+v", n, s.sim.APIGCertificates())
					}
				})
			}
		}
	}
}

// own is the handle of the object that holds the bundle, for replace: new.
func (s *setup) own(b *certs.Bundle) providers.Handle {
	for _, c := range s.sim.APIGCertificates() {
		if s.replace == ReplaceNew && c.Fingerprint == b.Fingerprint().String() {
			return providers.Handle(c.ID)
		}
	}
	return ""
}

// rotate is what the engine does, with a new process.
func (s *setup) rotate(t *testing.T, r providers.Request, b *certs.Bundle, old providers.Handle) error {
	target := s.target(t)
	if _, err := target.Observe(t.Context(), r); err != nil {
		return err
	}
	staged, err := target.Stage(t.Context(), r, b)
	if err != nil {
		return err
	}
	if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
		return err
	}
	o, err := target.Observe(t.Context(), r)
	if err != nil {
		return err
	}
	for _, e := range o.Endpoints {
		if e.Serves != staged.Handle {
			return fail(providers.KindConflict, "rotate", "%s serves %s", e.Name, e.Serves)
		}
	}
	for _, remote := range o.Remotes {
		if remote.Handle == staged.Handle && remote.Fingerprint != b.Fingerprint() {
			t.Errorf("observed %+v", remote)
		}
	}
	if old == "" {
		return nil
	}
	return target.Retire(t.Context(), r, old)
}

// What was asked for before anything else is in effect: two Targets of one gateway never
// write at the same time, and waiting ends with the context.
func TestTurns(t *testing.T) {
	s := newSetup(t, world{})
	one, other := s.target(t), s.target(t)
	other.turn = s.locks.of(one.client, gatewayID) // as if they had the same client
	done, err := one.turn.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := bundle(t, certstest.EC256, shop, store)
	r := s.request(nil, shop)
	staged, err := other.Stage(t.Context(), r, b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err = other.Activate(ctx, r, staged.Handle)
	if !errors.Is(err, context.DeadlineExceeded) || providers.KindOf(err) != providers.KindUnavailable {
		t.Errorf("got %v", err)
	}
	if s.changes() != 0 {
		t.Error("something changed")
	}
	done()
	if err := other.Activate(t.Context(), r, staged.Handle); err != nil {
		t.Error(err)
	}
	if s.locks.of(one.client, "another") == one.turn || (&Locks{}).of(one.client, gatewayID) == one.turn {
		t.Error("another gateway has the same turn")
	}
}

func TestBadConfigurations(t *testing.T) {
	s := newSetup(t, world{})
	c := s.client(t)
	for want, cfg := range map[string]Config{
		"want a client":    {},
		`instance id ""`:   {Client: c},
		`instance id "a/b`: {Client: c, InstanceID: "a/b"},
		`scope "all"`:      {Client: c, InstanceID: "i", Scope: "all"},
		`replace "no"`:     {Client: c, InstanceID: "i", Replace: "no"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestList(t *testing.T) {
	s := newSetup(t, world{ownGroups: true, ports: []int{443, 8443}})
	names, err := s.target(t).List(t.Context())
	if err != nil || !slices.Equal(names, []string{plain, shop, store}) {
		t.Errorf("got %v, %v", names, err)
	}
}

// What is not on a list is taken for gone: a list with a row that cannot be read is asked for again.
func TestListWithUnreadableRows(t *testing.T) {
	for _, field := range []string{"id", "domain"} {
		s := newSetup(t, world{})
		s.fault(t, cloudsim.Fault{Operation: listGroupsCall, Name: cloudsim.FaultWrongType, Field: field, Count: 1})
		want, err := s.target(t).List(t.Context())
		if err != nil || len(want) == 0 {
			t.Errorf("%s: listed %v, %v", field, want, err)
		}
		s.fault(t, cloudsim.Fault{Operation: listGroupsCall, Name: cloudsim.FaultWrongType, Field: field, Count: 1})
		if o, err := s.target(t).Observe(t.Context(), s.request(nil, shop)); err != nil || o.Endpoints[0].Missing {
			t.Errorf("%s: observed %+v, %v", field, o, err)
		}
	}
	// Of a group that is shown by itself too.
	s := newSetup(t, world{})
	target := s.target(t)
	if _, err := target.Observe(t.Context(), s.request(nil, shop)); err != nil {
		t.Fatal(err)
	}
	s.fault(t, cloudsim.Fault{Operation: groupCall, Name: cloudsim.FaultWrongType, Field: "domain", Count: 1})
	if o, err := target.Observe(t.Context(), s.request(nil, shop)); providers.KindOf(err) != providers.KindUnavailable {
		t.Errorf("observed %+v, %v", o, err)
	}
}
