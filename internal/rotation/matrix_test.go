package rotation

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// misfortune is a way in which an outside call can go wrong.
type misfortune struct {
	name  string
	after bool // when it strikes: after the effect, so that only the answer is lost
	err   error
}

var misfortunes = []misfortune{
	{"refused", false, &providers.Error{Kind: providers.KindUnavailable, Service: "outside", Op: "call"}},
	{"timed out before the effect", false, &providers.Error{Kind: providers.KindUnknownOutcome, Service: "outside", Op: "call"}},
	{"answer lost", true, &providers.Error{Kind: providers.KindUnknownOutcome, Service: "outside", Op: "call"}},
	{"killed before", false, processKilled{}},
	{"killed after", true, processKilled{}},
}

// fewMisfortunes are those that the nth call meets: all of them, in a short run one after the other.
func fewMisfortunes(n int) []misfortune {
	if testing.Short() {
		n %= len(misfortunes)
		return misfortunes[n : n+1]
	}
	return misfortunes
}

// story is a situation to go wrong in: prepare ends at rest, event is what starts the
// work.
type story struct {
	name    string
	prepare func(w *world)
	event   func(w *world) Trigger
}

var stories = []story{
	{"first rotation", func(*world) {}, func(w *world) Trigger { w.wanted = w.bundle(1); return TriggerFile }},
	{"renewal", func(w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
	}, func(w *world) Trigger { w.wanted = w.bundle(2); return TriggerFile }},
	{"repair of a rebound host", func(w *world) {
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, time.Minute)
		w.bind("www.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(480*time.Hour)))
	}, func(*world) Trigger { return TriggerNATS }},
	{"everything forgotten", func(w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, time.Minute)
		w.journal, w.revision = nil, 0
	}, func(*world) Trigger { return TriggerStartup }},
}

// TestCrashMatrix lets every outside call of every story go wrong in every way, once,
// and expects the same end each time: what is wanted is served and proven, uploaded
// once, with nothing left over and nothing foreign touched.
func TestCrashMatrix(t *testing.T) {
	rows := 0
	for _, s := range stories {
		calls := faultlessCalls(t, s)
		for n := range calls {
			for _, m := range fewMisfortunes(n) {
				rows++
				t.Run(fmt.Sprintf("%s/call %d %s/%s", s.name, n, calls[n], m.name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { playRow(t, s, n, m) })
				})
			}
		}
	}
	t.Logf("%d rows", rows)
	if rows < 200 && !testing.Short() {
		t.Errorf("the matrix has %d rows only", rows)
	}
}

// faultlessCalls are the outside calls that a story makes when nothing goes wrong.
func faultlessCalls(t *testing.T, s story) (calls []string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testPolicy())
		w.propagation = 3 * time.Second
		s.prepare(w)
		w.calls = nil
		w.drive(s.event(w), 2*time.Hour)
		w.checkEnd()
		calls = w.calls
	})
	return calls
}

func playRow(t *testing.T, s story, n int, m misfortune) {
	w := newWorld(t, testPolicy())
	w.propagation = 3 * time.Second
	s.prepare(w)
	w.calls = nil
	struck := false
	w.fault = func(_ string, after bool) error {
		if struck || after != m.after || len(w.calls)-1 != n {
			return nil
		}
		struck = true
		return m.err
	}
	w.drive(s.event(w), 4*time.Hour)
	if !struck {
		t.Errorf("the fault never struck: calls %v", w.calls)
	}
	w.checkEnd()
}

// checkEnd is the one checker of all invariants.
func (w *world) checkEnd() {
	w.t.Helper()
	w.expectState(StateConverged)
	wanted := w.wanted.Info.Fingerprint
	for host := range w.bound {
		if w.shown(host) != wanted {
			w.t.Errorf("%s serves %s", host, w.shown(host))
		}
	}
	if w.record().Verified != wanted {
		w.t.Errorf("verified %s", w.record().Verified)
	}
	for f, n := range w.creates {
		if n > 1 {
			w.t.Errorf("%s was uploaded %d times", f.Short(), n)
		}
	}
	for h, c := range w.certificates {
		if !c.foreign && c.fingerprint != wanted {
			w.t.Errorf("an orphan is left: %s %s", h, c.name)
		}
	}
	if r := w.record(); r.Intent != nil || len(r.Outbox) > 0 {
		w.t.Errorf("the record is not settled: %s", w.journal)
	}
	if !w.said(EventConverged) && !slices.Contains(w.order, EventVerified) {
		w.t.Errorf("nothing was told: %v", w.order)
	}
}
