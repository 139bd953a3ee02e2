package rotation

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// surveyor is the target edge with a list that is read for each survey.
type surveyor struct{ target }

func (s surveyor) Survey(_ context.Context, r providers.Request, expected providers.Remote, since time.Time) (same bool) {
	if age := time.Since(since); age != 90*time.Minute { // a quarter of drift.every
		s.t.Errorf("a list may be %s old", age)
	}
	if looked := s.record().LookedAt; looked.After(since) {
		s.t.Errorf("a list of %s is good enough, and the last look was at %s", since, looked)
	}
	_ = s.outside("survey", func() error {
		same = !slices.ContainsFunc(r.Endpoints, func(host string) bool {
			c := s.certificates[expected.Handle]
			return s.bound[host] != expected.Handle || c.fingerprint != expected.Fingerprint || !c.notAfter.Equal(expected.NotAfter)
		})
		return nil
	})
	return same
}

func TestComparisonsAreByListAndOneIn24IsAReading(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.edge, w.wanted = surveyor{target{w}}, w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		before, proofs := w.count("observe"), w.count("probe")
		w.drive(TriggerDeadline, 48*6*time.Hour+time.Minute)
		if read := w.count("observe") - before; read != 2 || w.count("survey") != 46 {
			t.Errorf("of 48 comparisons %d were readings and %d surveys, want 2 and 46", read, w.count("survey"))
		}
		if n := w.count("probe") - proofs; n < 48 {
			t.Errorf("%d handshakes in 48 comparisons", n)
		}
		w.expectState(StateConverged)
	})
}

func TestWhatAListShowsIsRead(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"rebound": func(w *world) {
			w.bind("www.example.com", w.upload(certs.Fingerprint{9}, time.Now().Add(-48*time.Hour), time.Now().Add(48*time.Hour)))
		},
		"deleted": func(w *world) {
			clear(w.certificates)
			w.bound["shop.example.com"], w.bound["www.example.com"] = "", ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.edge, w.wanted = surveyor{target{w}}, w.bundle(1)
				w.drive(TriggerFile, time.Minute)
				change(w)
				w.drive(TriggerDeadline, 7*time.Hour)
				w.expectState(StateConverged)
				if w.count("survey") != 1 || !w.said(EventDrifted) || !w.said(EventRepaired) {
					t.Errorf("%d surveys, events %v", w.count("survey"), w.order)
				}
			})
		})
	}
}

// Who asks for a look gets one, and so does what the record is in doubt of.
func TestListsAreForTheRegularComparisonOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.edge, w.wanted = surveyor{target{w}}, w.bundle(1)
		for _, trigger := range []Trigger{TriggerFile, TriggerNATS, TriggerManual, TriggerPolicy, TriggerSchedule, TriggerDrift} {
			before := w.count("observe")
			w.drive(trigger, time.Minute)
			if w.count("observe") == before {
				t.Errorf("nothing was read for %s", trigger)
			}
		}
		time.Sleep(3 * time.Hour)
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, time.Minute)
		if n := w.count("survey"); n != 0 {
			t.Errorf("%d surveys", n)
		}
		w.expectState(StateConverged)
	})
}
