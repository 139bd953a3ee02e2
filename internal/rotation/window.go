package rotation

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/scheduler"
)

// planWindow keeps a target from being changed outside the policy's windows and in its
// freezes, until what is served is about to expire.
func planWindow(o *Observation, v *View, now time.Time) (Step, bool) {
	calendar := o.Policy.When.Calendar()
	_, closed := calendar.Open(now)
	wins := o.expiryWins(v)
	if closed == "" || o.Force || !wins.IsZero() && !wins.After(now) {
		return Step{}, false
	}
	wait := Step{Kind: StepWait, Target: v.Name, Fingerprint: o.wants(), Cause: CauseWindow, Until: calendar.NextOpen(now)}
	why := "no window is open"
	if closed == scheduler.ClosedFreeze {
		wait.Cause, why = CauseFreeze, "a freeze holds"
	}
	switch {
	case !wins.IsZero() && (wait.Until.IsZero() || wins.Before(wait.Until)):
		wait.Until = wins
		wait.Reason = fmt.Sprintf("%s; at %s what is served is so close to its end that it is changed all the same", why, clock(wins))
	case wait.Until.IsZero():
		wait.Reason = why + ", and none opens within two years"
	default:
		wait.Reason = fmt.Sprintf("%s before %s", why, clock(wait.Until))
	}
	return wait, true
}

// expiryWins is when windows and freezes stop to hold: some time before the first of what
// is served expires; zero where nothing is served.
func (o *Observation) expiryWins(v *View) (at time.Time) {
	before := policy.Duration(0)
	if o.Policy.When.ExpiryWins != nil {
		before = *o.Policy.When.ExpiryWins
	}
	for _, e := range v.Observed.Endpoints {
		served := v.remote(e.Serves)
		if served == nil || served.NotAfter.IsZero() {
			continue
		}
		if wins := served.NotAfter.Add(-before.Std()); at.IsZero() || wins.Before(at) {
			at = wins
		}
	}
	return at
}

// WindowsEnd is when windows and freezes stop to hold, by what was last seen to be served:
// expiryWins of a record. It is zero where nothing is served.
func (r *Record) WindowsEnd(when *policy.When) (at time.Time) {
	before := policy.Duration(0)
	if when.ExpiryWins != nil {
		before = *when.ExpiryWins
	}
	for _, t := range r.Targets {
		if t.Active == nil || t.Active.NotAfter.IsZero() {
			continue
		}
		if wins := t.Active.NotAfter.Add(-before.Std()); at.IsZero() || wins.Before(at) {
			at = wins
		}
	}
	return at
}

// planSplay spreads the changes of many assignments: each has its own place in the time,
// always the same. Whoever asks by hand does not wait, and neither does what replaces
// nothing.
func planSplay(o *Observation, v *View, now time.Time) (Step, bool) {
	t := o.target(v.Name)
	splay := o.Policy.When.Splay.Std()
	if splay == 0 || o.Force || o.Trigger == TriggerManual || t.Active == nil || !t.StartedAt.IsZero() {
		return Step{}, false
	}
	from := o.Record.WantedAt
	if opened, _ := o.Policy.When.Calendar().Open(now); opened.After(from) {
		from = opened
	}
	until := from.Add(place(o.ID, splay))
	if wins := o.expiryWins(v); !until.After(now) || !wins.IsZero() && !wins.After(now) {
		return Step{}, false
	}
	return Step{Kind: StepWait, Target: v.Name, Fingerprint: o.wants(), Until: until, Cause: CauseSplay, Reason: "its turn among others comes at " + clock(until)}, true
}

// place is where in a span of time an assignment has its place.
func place(id ID, span time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id.Policy + "/" + id.Certificate))
	return time.Duration(h.Sum64() % uint64(span)) //nolint:gosec // a span is positive, and so is what is less
}

// override tells of a rotation that begins outside the policy's windows.
func (r *run) override(v *View, now time.Time) {
	_, closed := r.o.Policy.When.Calendar().Open(now)
	if closed == "" || r.o.Force {
		return
	}
	reason := "what is served is close to its end, so the policy's " + string(closed) + " no longer holds"
	r.e.cfg.Meter.WindowOverridden(r.o.ID.Policy)
	r.log.Warn("changed outside the policy's windows", "target", v.Name, "reason", reason)
	r.tell(EventExpiring, EventData{Target: v.Name, Endpoints: v.Endpoints, Reason: reason})
}
