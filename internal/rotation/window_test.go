package rotation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
)

// inTimedWorld has a policy with these rules of when, and a first bundle in force. The
// bubble begins on 2000-01-01, midnight UTC.
func inTimedWorld(t *testing.T, when string, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.When = parsedWhen(t, when)
		w := newWorld(t, p)
		w.wanted = w.bundle(1)
		if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerManual, Force: true, Asked: time.Now()}); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateConverged)
		test(t, w)
	})
}

// parsedWhen reads rules as a policy has them.
func parsedWhen(t *testing.T, when string) policy.When {
	t.Helper()
	w, err := policy.ParseWhen(when)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestChangesWaitForTheWindow(t *testing.T) {
	inTimedWorld(t, `{windows: [{start: "0 2 * * *", duration: 3h}]}`, func(t *testing.T, w *world) {
		time.Sleep(6 * time.Hour)
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, 19*time.Hour)
		w.expectState(StateWaiting)
		if !w.boundTo("shop.example.com", 1) || !strings.Contains(w.record().Reason, "no window is open before 2000-01-02T02:00:00Z") || !slices.Contains(w.deferred, "window") {
			t.Errorf("reason %q, deferred %v", w.record().Reason, w.deferred)
		}
		w.drive(TriggerDeadline, 2*time.Hour)
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 2) || w.overridden > 0 {
			t.Error("not changed in the window")
		}
	})
}

func TestFreezeHoldsOverTheWindow(t *testing.T) {
	inTimedWorld(t, `{windows: [{start: "0 2 * * *", duration: 3h}], freeze: [{from: 2000-01-01, to: 2000-01-09}]}`, func(t *testing.T, w *world) {
		w.wanted = w.bundle(2)
		w.drive(TriggerNATS, 9*24*time.Hour)
		w.expectState(StateWaiting)
		if !w.boundTo("shop.example.com", 1) || !strings.Contains(w.record().Reason, "no window") && !strings.Contains(w.record().Reason, "freeze") {
			t.Errorf("reason %q", w.record().Reason)
		}
		w.drive(TriggerDeadline, 3*time.Hour)
		if !w.boundTo("shop.example.com", 2) {
			t.Errorf("not changed after the freeze: %s", w.journal)
		}
	})
}

// What is served must not expire for the sake of a window.
func TestExpiryWins(t *testing.T) {
	inTimedWorld(t, `{freeze: [{from: 2000-01-02, to: 2001-01-01}], expiry_wins: 10d}`, func(t *testing.T, w *world) {
		time.Sleep(48 * time.Hour)
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, 77*24*time.Hour)
		w.expectState(StateWaiting)
		w.drive(TriggerDeadline, 2*24*time.Hour) // the first one has 90 days
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 2) || w.overridden != 1 || !w.said(EventExpiring) {
			t.Errorf("overridden %d times, events %v: %s", w.overridden, w.order, w.journal)
		}
	})
}

// Somebody who forces does not wait for a window; somebody who only asks does.
func TestForceOverridesTheWindow(t *testing.T) {
	inTimedWorld(t, `{windows: [{start: "0 2 * * *", duration: 1h}]}`, func(t *testing.T, w *world) {
		time.Sleep(6 * time.Hour)
		w.wanted = w.bundle(2)
		w.drive(TriggerManual, time.Hour)
		w.expectState(StateWaiting)
		if err := w.engine().Process(t.Context(), w.id, Request{Trigger: TriggerManual, Force: true, Asked: time.Now()}); err != nil {
			t.Fatal(err)
		}
		w.expectState(StateConverged)
	})
}

func TestSplaySpreads(t *testing.T) {
	inTimedWorld(t, `{splay: 10m}`, func(t *testing.T, w *world) {
		w.wanted = w.bundle(2)
		began := time.Now()
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateConverged)
		if waited := w.targetRecord().LastAttemptAt.Sub(began); waited != place(w.id, 10*time.Minute) {
			t.Errorf("changed after %s, its place is %s", waited, place(w.id, 10*time.Minute))
		}
	})
	places := map[time.Duration]bool{}
	for i := range 100 {
		at := place(ID{Policy: "p", Certificate: fmt.Sprint(i)}, time.Hour)
		if at < 0 || at >= time.Hour {
			t.Fatalf("place %s", at)
		}
		places[at/(6*time.Minute)] = true
	}
	if len(places) < 9 {
		t.Errorf("100 assignments have only %d of 10 parts of the hour", len(places))
	}
}

// The schedule looks, also where nothing else makes the daemon look.
func TestScheduleRepairs(t *testing.T) {
	inTimedWorld(t, `{on: [nats], schedule: "0 3 * * 6"}`, func(t *testing.T, w *world) {
		w.bind("www.example.com", w.upload([32]byte{9}, time.Now().Add(-48*time.Hour), time.Now().Add(480*time.Hour)))
		w.drive(TriggerDeadline, 2*time.Hour)
		if w.boundTo("www.example.com", 1) {
			t.Fatal("repaired before its time")
		}
		w.drive(TriggerDeadline, 2*time.Hour) // 2000-01-01 is a Saturday
		if !w.boundTo("www.example.com", 1) {
			t.Errorf("not repaired: %s", w.journal)
		}
	})
}

// TestRecordTellsWhen: what the metrics show is what the plan goes by.
func TestRecordTellsWhen(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	when := parsedWhen(t, `{renew: {at: 66%, before: 30d}, expiry_wins: 2d}`)
	var r Record
	if due, end := r.RenewalDue(when.Renew), r.WindowsEnd(&when); !due.IsZero() || !end.IsZero() {
		t.Errorf("nothing is in force: due %s, windows end %s", due, end)
	}
	for life, want := range map[time.Duration]time.Duration{90 * day: 59*day + 9*time.Hour + 36*time.Minute, 10 * day: 6*day + 14*time.Hour + 24*time.Minute, 5 * time.Minute: minReissue} {
		issue := Issue{At: begin}
		issue.Info.NotBefore, issue.Info.NotAfter = begin, begin.Add(life)
		r.Issued = []Issue{issue}
		if due := r.RenewalDue(when.Renew); !due.Equal(begin.Add(want)) {
			t.Errorf("a life of %s: due after %s, want %s", life, due.Sub(begin), want)
		}
	}
	r.Targets = map[string]TargetRecord{
		"none": {}, "first": {Active: &Placed{NotAfter: begin.Add(20 * day)}}, "later": {Active: &Placed{NotAfter: begin.Add(90 * day)}},
	}
	if end := r.WindowsEnd(&when); !end.Equal(begin.Add(18 * day)) {
		t.Errorf("windows end at %s", end)
	}
}
