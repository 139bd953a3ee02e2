package providertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

func observeChangesNothing(t *testing.T, w *world) {
	before := w.Changes(t)
	first, second := w.observe(t), w.observe(t)
	if n := w.Changes(t) - before; n != 0 {
		t.Errorf("Observe made %d changes", n)
	}
	for i, e := range first.Endpoints {
		if e.ID == "" || e.Serves == "" || e.Missing || e.Problem != "" {
			t.Errorf("endpoint %+v: want id and certificate", e)
		}
		if second.Endpoints[i] != e {
			t.Errorf("second look: %+v, first %+v", second.Endpoints[i], e)
		}
		r, ok := find(first, e.Serves)
		if !ok || r.Owned || r.Fingerprint != w.Serves(t, e.Name) || !slices.Contains(r.InUse, e.Name) {
			t.Errorf("what %s serves is shown as %+v", e.Name, r)
		}
	}
}

func unknownIsMissing(t *testing.T, w *world) {
	w.Endpoints = append(slices.Clone(w.Endpoints), w.Unknown)
	o := w.observe(t)
	for _, e := range o.Endpoints {
		if e.Missing != (e.Name == w.Unknown) {
			t.Errorf("endpoint %+v", e)
		}
		if e.Missing && (e.ID != "" || e.Serves != "") {
			t.Errorf("a missing endpoint has %+v", e)
		}
	}
}

func stageIsIdempotent(t *testing.T, w *world) {
	before := len(w.Handles(t))
	b := w.bundle(t)
	first := w.stage(t, b)
	changes := w.Changes(t)
	second := w.stage(t, b)
	if first.Handle != second.Handle || first.Owned == w.Contents || second.Owned == w.Contents {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if want := providers.CertificateName(owner, b.Fingerprint()); !w.Contents && w.Issue == nil && (first.Name != want || second.Name != want) {
		t.Errorf("names %s and %s, want %s", first.Name, second.Name, want)
	}
	if w.Changes(t) != changes {
		t.Error("the second Stage changed something")
	}
	w.wantCount(t, before, w.made())
}

func stageAfterRestart(t *testing.T, w *world) {
	before := len(w.Handles(t))
	b := w.bundle(t)
	first := w.stage(t, b)
	w.target = w.New(t)
	if second := w.stage(t, b); second.Handle != first.Handle {
		t.Errorf("first %s, after the restart %s", first.Handle, second.Handle)
	}
	w.wantCount(t, before, w.made())
}

func stageAfterLostAnswer(t *testing.T, w *world) {
	before := len(w.Handles(t))
	b := w.bundle(t)
	w.LoseCreate(t)
	_, err := w.target.Stage(t.Context(), w.request(), b)
	wantKind(t, err, providers.KindUnknownOutcome)
	w.wantCount(t, before, 1) // nobody repeated it blindly
	r := w.stage(t, b)
	w.wantCount(t, before, 1)
	if o, ok := find(w.observe(t), r.Handle); !ok || !o.Owned || o.Fingerprint != b.Fingerprint() {
		t.Errorf("observed %+v", o)
	}
}

func stageAfterRefusal(t *testing.T, w *world) {
	before := len(w.Handles(t))
	b := w.bundle(t)
	w.FailCreate(t)
	_, err := w.target.Stage(t.Context(), w.request(), b)
	if err == nil || providers.KindOf(err) == providers.KindUnknown {
		t.Errorf("got %v, want a classified error", err)
	}
	w.wantCount(t, before, 0)
	w.stage(t, b)
	w.wantCount(t, before, 1)
}

func stageServesNothing(t *testing.T, w *world) {
	b := w.bundle(t)
	r := w.stage(t, b)
	for _, e := range w.Endpoints {
		if w.Serves(t, e) == b.Fingerprint() {
			t.Errorf("%s serves what was only staged", e)
		}
	}
	o, ok := find(w.observe(t), r.Handle)
	if w.Contents {
		if ok {
			t.Errorf("observed %+v, which is nowhere yet", o)
		}
		return
	}
	if !ok || !o.Owned || len(o.InUse) != 0 || o.Fingerprint != b.Fingerprint() {
		t.Errorf("observed %+v", o)
	}
	if d := o.NotAfter.Sub(b.Leaf.NotAfter); !o.NotAfter.IsZero() && d.Abs() > 24*60*60e9 {
		t.Errorf("expires %s, want %s", o.NotAfter, b.Leaf.NotAfter)
	}
}

// An object with our name and another content is not ours to overwrite.
func stageMeetsForeign(t *testing.T, w *world) {
	if w.ByContent {
		return // there is no such object
	}
	b, other := w.bundle(t), w.bundle(t)
	h := w.uploadForeign(t, providers.CertificateName(owner, b.Fingerprint()), other)
	before := len(w.Handles(t))
	_, err := w.target.Stage(t.Context(), w.request(), b)
	wantKind(t, err, providers.KindExists, providers.KindInvalid)
	w.wantCount(t, before, 0)
	if r, ok := find(w.observe(t), h); !ok || r.Fingerprint != other.Fingerprint() {
		t.Errorf("the object is now %+v", r)
	}
}

// The same content under a name of somebody else: either it may be there twice,
// or the one that is there is used and stays foreign.
func stageMeetsSameContent(t *testing.T, w *world) {
	b := w.bundle(t)
	h := w.uploadForeign(t, "uploaded_by_hand", b)
	r := w.stage(t, b)
	if r.Handle == h && r.Owned {
		t.Error("the object of somebody else is shown as ours")
	}
	w.activate(t, r.Handle)
	w.wantServed(t, b)
}

func ownersAreSeparate(t *testing.T, w *world) {
	b := w.bundle(t)
	ours := w.stage(t, b)
	other := w.request()
	other.Owner = providers.Owner{Policy: "shop2", Certificate: owner.Certificate}
	o, err := w.target.Observe(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := find(o, ours.Handle); ok {
		t.Errorf("another owner sees %+v", r)
	}
	if err := w.target.Retire(t.Context(), other, ours.Handle); err == nil {
		t.Error("another owner retired it")
	}
	if _, ok := find(w.observe(t), ours.Handle); !ok {
		t.Error("it is gone")
	}
}

func activateTwice(t *testing.T, w *world) {
	b := w.bundle(t)
	r := w.stage(t, b)
	w.activate(t, r.Handle)
	w.wantServed(t, b)
	w.activate(t, r.Handle)
	w.wantServed(t, b)
	o := w.observe(t)
	for _, e := range o.Endpoints {
		if e.Serves != r.Handle {
			t.Errorf("endpoint %+v, want it to serve %s", e, r.Handle)
		}
	}
	got, _ := find(o, r.Handle)
	for _, e := range w.Endpoints {
		if !slices.Contains(got.InUse, e) {
			t.Errorf("in use by %v, want %s among them", got.InUse, e)
		}
	}
}

func activateUnknown(t *testing.T, w *world) {
	r := w.stage(t, w.bundle(t))
	request := w.request()
	request.Endpoints = append(slices.Clone(w.Endpoints), w.Unknown)
	before := w.Changes(t)
	wantKind(t, w.target.Activate(t.Context(), request, r.Handle), providers.KindNotFound)
	if w.Changes(t) != before {
		t.Error("some endpoints were changed although one is missing")
	}
}

func activateNothing(t *testing.T, w *world) {
	if err := w.target.Activate(t.Context(), w.request(), ""); err == nil {
		t.Error("the zero handle was activated")
	}
	r := w.stage(t, w.bundle(t))
	before := w.Changes(t)
	if err := w.target.Activate(t.Context(), providers.Request{Owner: owner}, r.Handle); err != nil {
		t.Errorf("no endpoints: %v", err)
	}
	if w.Changes(t) != before {
		t.Error("something changed")
	}
}

func rollback(t *testing.T, w *world) {
	first, second := w.bundle(t), w.bundle(t)
	a, b := w.stage(t, first), w.stage(t, second)
	w.activate(t, a.Handle)
	w.activate(t, b.Handle)
	w.wantServed(t, second)
	w.activate(t, a.Handle)
	w.wantServed(t, first)
}

// The whole life of two generations, with a restart before each verb.
func renewal(t *testing.T, w *world) {
	before := len(w.Handles(t))
	var previous providers.Handle
	for range 2 {
		b := w.bundle(t)
		w.target = w.New(t)
		r := w.stage(t, b)
		w.target = w.New(t)
		if w.Contents {
			wantKind(t, w.target.Activate(t.Context(), w.request(), r.Handle), providers.KindNotFound)
			w.stage(t, b)
		}
		w.activate(t, r.Handle)
		w.wantServed(t, b)
		if previous != "" {
			w.target = w.New(t)
			if err := w.target.Retire(t.Context(), w.request(), previous); err != nil {
				t.Fatalf("retire: %v", err)
			}
			w.wantServed(t, b)
		}
		previous = r.Handle
	}
	w.wantCount(t, before, w.made())
}

// What a list shows is what is there; what differs in any respect is not passed over.
func surveyAgrees(t *testing.T, w *world) {
	s, ok := w.target.(providers.Surveyor)
	if !ok {
		t.Skip("the target has no lists to compare with")
	}
	staged := w.stage(t, w.bundle(t))
	w.activate(t, staged.Handle)
	is, _ := find(w.observe(t), staged.Handle)
	same := func(what string, expected providers.Remote, want bool) {
		t.Helper()
		if got := s.Survey(t.Context(), w.request(), expected, time.Now()); got != want {
			t.Errorf("%s: surveyed as the same: %t, want %t", what, got, want)
		}
	}
	changes := w.Changes(t)
	same("as it is", is, true)
	for what, change := range map[string]func(*providers.Remote){
		"another certificate": func(r *providers.Remote) { r.Handle = "0123456789abcdef0123456789abcdef" },
		"another end":         func(r *providers.Remote) { r.NotAfter = r.NotAfter.Add(time.Minute) },
		"no end":              func(r *providers.Remote) { r.NotAfter = time.Time{} },
		"another leaf":        func(r *providers.Remote) { r.Fingerprint[0]++ },
	} {
		expected := is
		change(&expected)
		same(what, expected, false)
	}
	if w.Changes(t) != changes {
		t.Error("Survey changed something")
	}
	foreign := w.bindForeign(t, w.Endpoints[0], w.bundle(t))
	same("one endpoint rebound", is, false)
	w.activate(t, staged.Handle)
	same("bound again", is, true)
	w.Delete(t, foreign)
	w.Endpoints = append(slices.Clone(w.Endpoints), w.Unknown)
	same("an endpoint that is not there", is, false)
}

// A caller that tells what it has seen gets the same answers as one that does not.
func seenIsEnough(t *testing.T, w *world) {
	before := len(w.Handles(t))
	first := w.stage(t, w.bundle(t))
	w.activate(t, first.Handle)
	seen, b := w.observe(t), w.bundle(t)
	r := w.request()
	r.Known, r.Seen = []providers.Handle{first.Handle}, &seen
	staged, err := w.target.Stage(t.Context(), r, b)
	if err != nil {
		t.Fatalf("stage: %v", err)
	}
	seen.Remotes = append(seen.Remotes, staged)
	if again, err := w.target.Stage(t.Context(), r, b); err != nil || again.Handle != staged.Handle {
		t.Errorf("staged again: %+v, %v, want %s", again, err, staged.Handle)
	}
	if err := w.target.Activate(t.Context(), r, staged.Handle); err != nil {
		t.Fatalf("activate: %v", err)
	}
	w.wantServed(t, b)
	short, err := w.target.Observe(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Seen = nil
	whole, err := w.target.Observe(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(short.Endpoints, whole.Endpoints) || len(short.Remotes) != len(whole.Remotes) {
		t.Fatalf("observed\n%+v, and without what was seen\n%+v", short, whole)
	}
	for i, want := range whole.Remotes {
		if got := short.Remotes[i]; got.Handle != want.Handle || got.Fingerprint != want.Fingerprint || got.Owned != want.Owned || !slices.Equal(got.InUse, want.InUse) {
			t.Errorf("observed\n%+v, and without what was seen\n%+v", got, want)
		}
	}
	w.wantCount(t, before, 2*w.made())
}

func observeShowsDrift(t *testing.T, w *world) {
	r := w.stage(t, w.bundle(t))
	w.activate(t, r.Handle)
	theirs := w.bundle(t)
	h := w.bindForeign(t, w.Endpoints[0], theirs)
	o := w.observe(t)
	for i, e := range o.Endpoints {
		if i == 0 && e.Serves != h || i > 0 && e.Serves != r.Handle {
			t.Errorf("endpoints %+v, want %s and then %s", o.Endpoints, h, r.Handle)
		}
	}
	got, ok := find(o, h)
	if !ok || got.Owned || got.Fingerprint != theirs.Fingerprint() {
		t.Errorf("the foreign one is shown as %+v", got)
	}
	if ours, _ := find(o, r.Handle); slices.Contains(ours.InUse, w.Endpoints[0]) {
		t.Errorf("ours is shown as used by %v", ours.InUse)
	}
}

func observeKnown(t *testing.T, w *world) {
	foreign := w.uploadForeign(t, "by_hand", w.bundle(t))
	if _, ok := find(w.observe(t), foreign); ok {
		t.Error("a foreign object that nobody asked for is shown")
	}
	if r, ok := find(w.observe(t, foreign), foreign); !ok || r.Owned {
		t.Errorf("a known foreign object is shown as %+v", r)
	}
	w.Delete(t, foreign)
	if r, ok := find(w.observe(t, foreign), foreign); ok {
		t.Errorf("a known object that is gone is shown as %+v", r)
	}
}

func retireInUse(t *testing.T, w *world) {
	b := w.bundle(t)
	r := w.stage(t, b)
	w.activate(t, r.Handle)
	wantKind(t, w.target.Retire(t.Context(), w.request(), r.Handle), providers.KindInUse)
	w.wantServed(t, b)
}

func retireGone(t *testing.T, w *world) {
	before := len(w.Handles(t))
	r := w.stage(t, w.bundle(t))
	for range 2 {
		if err := w.target.Retire(t.Context(), w.request(), r.Handle); err != nil {
			t.Errorf("retire: %v", err)
		}
		w.wantCount(t, before, 0)
	}
	r = w.stage(t, w.bundle(t))
	w.Delete(t, r.Handle)
	if err := w.target.Retire(t.Context(), w.request(), r.Handle); err != nil {
		t.Errorf("retire what somebody else deleted: %v", err)
	}
}

func retireForeign(t *testing.T, w *world) {
	unbound := w.uploadForeign(t, "by_hand", w.bundle(t))
	// A name that looks like ours but is of another owner.
	other := providers.Owner{Policy: "other", Certificate: owner.Certificate}
	b := w.bundle(t)
	lookalike := w.uploadForeign(t, providers.CertificateName(other, b.Fingerprint()), b)
	bound := w.bindForeign(t, w.Endpoints[0], w.bundle(t))
	before := len(w.Handles(t))
	changes := w.Changes(t)
	for _, h := range []providers.Handle{unbound, lookalike, bound, ""} {
		if err := w.target.Retire(t.Context(), w.request(), h); err == nil {
			t.Errorf("retired %q, which is not ours", h)
		}
	}
	w.wantCount(t, before, 0)
	if w.Changes(t) != changes {
		t.Error("a change was sent")
	}
}

func contextEnded(t *testing.T, w *world) {
	staged, b := w.stage(t, w.bundle(t)), w.bundle(t)
	before := w.Changes(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := w.request()
	_, observed := w.target.Observe(ctx, r)
	_, made := w.target.Stage(ctx, r, b)
	for verb, err := range map[string]error{
		"observe":  observed,
		"stage":    made,
		"activate": w.target.Activate(ctx, r, staged.Handle),
		"retire":   w.target.Retire(ctx, r, staged.Handle),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want the context's error in it", verb, err)
		}
	}
	if w.Changes(t) != before {
		t.Error("something changed")
	}
}
