// Package providertest is the conformance suite of providers.Target: what every
// target must do, whatever it talks to. An adapter's test calls Run with a
// Fixture over its simulator. PeakHeap is for tests of what an adapter may cost.
//
// It may import internal/providers, internal/certs, certs/certstest and testing.
//
// Invariants: each test gets a fixture of its own; the suite looks at a target
// through the contract and at the outside world through the fixture only.
package providertest

import (
	"slices"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
)

// Fixture is one target over one simulated outside world.
type Fixture struct {
	// New returns the target as a process that was just started would have it.
	New func(t *testing.T) providers.Target
	// Endpoints are one or two endpoints, sorted, that serve a foreign certificate.
	Endpoints []string
	// Names are for the certificates; nil: the endpoints.
	Names []string
	// Unknown is the name of an endpoint that does not exist.
	Unknown string
	// KeyType is what keys the target takes.
	KeyType certstest.KeyType
	// Leaves are what the endpoints serve, where the target recognises contents by
	// Request.Leaves only.
	Leaves []certs.Info
	// Contents says that handles stand for contents and not for objects: Stage makes
	// nothing that would outlive the target, nothing is ever owned, and there is nothing
	// to retire. The tests that are about objects are left out.
	Contents bool

	// ByContent says that a handle is made of the leaf, so that no object can hold
	// another one than its handle says.
	ByContent bool

	// Issue makes a certificate as the policy's issuer does, where the target can hold no
	// other: Stage then only finds it, and Request.Made tells whose it is. nil: the suite
	// makes its own, and the target makes an object of each.
	Issue func(t *testing.T) (*certs.Bundle, providers.Handle)

	// LoseCreate makes the next creation of a certificate take effect without an
	// answer.
	LoseCreate func(t *testing.T)
	// FailCreate makes the next creation fail before it takes effect, with an
	// answer that says so.
	FailCreate func(t *testing.T)
	// BindForeign makes somebody else bind a certificate of their own.
	BindForeign func(t *testing.T, endpoint string, b *certs.Bundle) providers.Handle
	// UploadForeign makes somebody else upload a certificate under a name.
	UploadForeign func(t *testing.T, name string, b *certs.Bundle) providers.Handle
	// Delete makes somebody else delete a certificate that nothing serves.
	Delete func(t *testing.T, h providers.Handle)
	// Handles are all certificates that the outside world holds.
	Handles func(t *testing.T) []providers.Handle
	// Serves is the leaf that an endpoint is bound to.
	Serves func(t *testing.T, endpoint string) certs.Fingerprint
	// Changes counts what was changed through the API so far.
	Changes func(t *testing.T) int
}

// Run runs the whole suite; fixture is called once for each test.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	ca, err := certstest.NewCA("provider test")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world)
		// needs says for which targets the test is.
		needs need
	}{
		{"observe changes nothing", observeChangesNothing, anything},
		{"unknown endpoint is missing", unknownIsMissing, anything},
		{"stage is idempotent", stageIsIdempotent, anything},
		{"stage after a restart adopts", stageAfterRestart, anything},
		{"stage after a lost answer adopts", stageAfterLostAnswer, making},
		{"stage after a refusal creates", stageAfterRefusal, making},
		{"stage serves nothing yet", stageServesNothing, anything},
		{"stage meets a foreign object of the name", stageMeetsForeign, making},
		{"stage meets the same content", stageMeetsSameContent, making},
		{"owners are separate", ownersAreSeparate, making},
		{"activate twice", activateTwice, anything},
		{"activate an unknown endpoint", activateUnknown, anything},
		{"activate nothing", activateNothing, anything},
		{"rollback is activate", rollback, anything},
		{"renewal from first to last", renewal, anything},
		{"survey agrees with observe", surveyAgrees, making},
		{"what was seen is enough", seenIsEnough, making},
		{"observe shows drift", observeShowsDrift, anything},
		{"observe follows known handles", observeKnown, making},
		{"retire in use", retireInUse, objects},
		{"retire gone", retireGone, objects},
		{"retire foreign", retireForeign, objects},
		{"context ended", contextEnded, anything},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fixture(t)
			switch {
			case f.Contents && test.needs != anything:
				t.Skip("handles stand for contents")
			case f.Issue != nil && test.needs == making:
				t.Skip("the target makes no objects")
			}
			test.run(t, &world{Fixture: f, ca: ca, target: f.New(t), leaves: f.Leaves})
		})
	}
}

// need is what a test needs of a target.
type need int

const (
	anything need = iota
	objects       // handles stand for objects that can be retired
	making        // and Stage makes them
)

// world is a fixture with what the tests share.
type world struct {
	Fixture
	ca     *certstest.CA
	target providers.Target
	leaves []certs.Info // newest first
	issued []providers.Handle
}

var owner = providers.Owner{Policy: "shop", Certificate: "shop.example.com"}

func (w *world) request() providers.Request {
	return providers.Request{Owner: owner, Endpoints: w.Endpoints, Leaves: w.leaves, Made: w.issued}
}

// made is how many objects a new bundle and its Stage make.
func (w *world) made() int {
	if w.Contents {
		return 0
	}
	return 1
}

func (w *world) names() []string {
	if w.Names != nil {
		return w.Names
	}
	return w.Endpoints
}

// bundle issues a new certificate for the endpoints.
func (w *world) bundle(t *testing.T) *certs.Bundle {
	t.Helper()
	if w.Issue != nil {
		b, h := w.Issue(t)
		w.issued = append(w.issued, h)
		w.leaves = append([]certs.Info{b.Info()}, w.leaves...)
		return b
	}
	b, err := w.ca.Issue(certstest.Options{Names: w.names(), KeyType: w.KeyType})
	if err != nil {
		t.Fatal(err)
	}
	w.leaves = append([]certs.Info{b.Info()}, w.leaves...)
	return b
}

// uploadForeign and bindForeign take what they are given from our own.
func (w *world) uploadForeign(t *testing.T, name string, b *certs.Bundle) providers.Handle {
	t.Helper()
	return w.disown(w.UploadForeign(t, name, b))
}

func (w *world) bindForeign(t *testing.T, endpoint string, b *certs.Bundle) providers.Handle {
	t.Helper()
	return w.disown(w.BindForeign(t, endpoint, b))
}

func (w *world) disown(h providers.Handle) providers.Handle {
	w.issued = slices.DeleteFunc(w.issued, func(own providers.Handle) bool { return own == h })
	return h
}

func (w *world) observe(t *testing.T, known ...providers.Handle) providers.Observation {
	t.Helper()
	r := w.request()
	r.Known = known
	o, err := w.target.Observe(t.Context(), r)
	if err != nil {
		t.Fatalf("observe: %v", err)
	}
	if len(o.Endpoints) != len(r.Endpoints) {
		t.Fatalf("observe: %d endpoints, want %d", len(o.Endpoints), len(r.Endpoints))
	}
	for i, e := range o.Endpoints {
		if e.Name != r.Endpoints[i] {
			t.Fatalf("observe: endpoint %d is %s, want %s", i, e.Name, r.Endpoints[i])
		}
	}
	return o
}

func (w *world) stage(t *testing.T, b *certs.Bundle) providers.Remote {
	t.Helper()
	r, err := w.target.Stage(t.Context(), w.request(), b)
	if err != nil {
		t.Fatalf("stage: %v", err)
	}
	if r.Handle == "" || r.Fingerprint != b.Fingerprint() {
		t.Fatalf("stage: got %+v, want a handle and %s", r, b.Fingerprint().Short())
	}
	return r
}

func (w *world) activate(t *testing.T, h providers.Handle) {
	t.Helper()
	if err := w.target.Activate(t.Context(), w.request(), h); err != nil {
		t.Fatalf("activate: %v", err)
	}
}

func (w *world) wantServed(t *testing.T, b *certs.Bundle) {
	t.Helper()
	for _, e := range w.Endpoints {
		if got := w.Serves(t, e); got != b.Fingerprint() {
			t.Errorf("%s serves %s, want %s", e, got.Short(), b.Fingerprint().Short())
		}
	}
}

// wantCount checks how many certificates the outside world holds more than before.
func (w *world) wantCount(t *testing.T, before, more int) {
	t.Helper()
	if got := len(w.Handles(t)); got != before+more {
		t.Errorf("%d certificates, want %d", got, before+more)
	}
}

func wantKind(t *testing.T, err error, kinds ...providers.Kind) {
	t.Helper()
	got := providers.KindOf(err)
	for _, k := range kinds {
		if err != nil && got == k {
			return
		}
	}
	t.Errorf("got kind %s, want one of %v: %v", got, kinds, err)
}

// find returns the remote with that handle.
func find(o providers.Observation, h providers.Handle) (providers.Remote, bool) {
	for _, r := range o.Remotes {
		if r.Handle == h {
			return r, true
		}
	}
	return providers.Remote{}, false
}
