package rotation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// What keeps a good bundle, or a good way back, from being given up too fast: the brake,
// the canary and rolling back. The plans are pure.

// rollBackDelays are the pauses before a bundle that was rolled back is tried again:
// somebody has to look at it, and a new bundle does not wait for them.
var rollBackDelays = []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour}

// planBrake keeps a rotation from beginning while too much changes at once.
func planBrake(o *Observation, v *View, now time.Time) (Step, bool) {
	t := o.target(v.Name)
	if o.Braked == "" || o.Record.Confirmed == o.wants() || !t.StartedAt.IsZero() || t.Active == nil || t.Active.Fingerprint == o.wants() {
		return Step{}, false
	}
	if release := t.Active.NotAfter.Add(-brakeReleases); release.After(now) {
		return Step{Kind: StepWait, Target: v.Name, Fingerprint: o.wants(), Until: release, Cause: CauseBraked, Reason: o.Braked}, true
	}
	return Step{}, false
}

// brakeReleases is how long before the end of what is served the brake no longer holds: an
// expired certificate is worse than a change that nobody confirmed.
const brakeReleases = 24 * time.Hour

// planCanary lets the policy's canaries serve the bundle for a while before the others.
func planCanary(o *Observation, v *View, now time.Time) (Step, bool) {
	canary := o.Policy.Canary
	if len(canary.Targets) == 0 || slices.Contains(canary.Targets, v.Name) {
		return Step{}, false
	}
	wait := Step{Kind: StepWait, Target: v.Name, Fingerprint: o.wants(), Cause: CauseCanary}
	var since time.Time
	for i := range o.Targets {
		first := &o.Targets[i]
		if !slices.Contains(canary.Targets, first.Name) || len(first.Endpoints) == 0 {
			continue
		}
		if !o.placedAt(first) {
			wait.Reason = "target " + first.Name + " is to serve the bundle first"
			return wait, true
		}
		if active := o.target(first.Name).Active; active.Since.After(since) {
			since = active.Since
		}
	}
	if len(o.provableEndpoints()) > 0 {
		if o.Record.Proven != o.wants() {
			wait.Reason = "the targets that come first are not proven to serve the bundle yet"
			return wait, true
		}
		since = o.Record.ProvenAt
	}
	if until := since.Add(canary.Bake.Std()); until.After(now) {
		wait.Until, wait.Reason = until, "other targets serve the bundle first, until "+clock(until)
		return wait, true
	}
	return Step{}, false
}

// planRolledBack waits before a bundle is tried again that was rolled back.
func planRolledBack(o *Observation, v *View, now time.Time) (Step, bool) {
	back := o.Record.RolledBack
	if back == nil || back.From != o.wants() || !back.RetryAt.After(now) || o.Trigger.impatient() {
		return Step{}, false
	}
	return Step{Kind: StepWait, Target: v.Name, Fingerprint: o.wants(), Until: back.RetryAt, Cause: CauseRolledBack,
		Reason: fmt.Sprintf("rolled back at %s: %s; tried again at %s", clock(back.At), back.Reason, clock(back.RetryAt))}, true
}

// planRollBack goes back to the last good bundle where the one that is wanted is bound and
// was not served in time. Without a good one, or with one that has expired, everything
// stays: going back could only make it worse.
func planRollBack(o *Observation, v *View, now time.Time) (Step, bool) {
	r := o.Record
	previous := o.target(v.Name).Previous
	begun := r.RolledBack != nil && r.RolledBack.From == o.wants() && r.RolledBack.RetryAt.After(now)
	failed := r.VerifyAttempts > 0 && late(o, now)
	switch {
	case o.Policy.Verify.OnFailure != policy.OnFailureRollBack || r.Verified == o.wants() || !begun && !failed:
		return Step{}, false
	case len(v.Endpoints) == 0 || !o.placedAt(v):
		return Step{}, false
	case previous == nil || r.Good.IsZero() || previous.Fingerprint != r.Good || !previous.NotAfter.After(now):
		return Step{}, false
	}
	return Step{Kind: StepRollBack, Target: v.Name, Fingerprint: previous.Fingerprint, Handle: previous.Handle, Endpoints: v.Endpoints,
		Reason: "not served within " + o.Policy.Verify.Within.String() + ": " + unservedReason(r)}, true
}

// rememberPrevious keeps what is served before it is replaced. It is written with the
// intent: after a crash nobody could tell any more what it was.
func (r *run) rememberPrevious(v *View) {
	r.update(v.Name, func(t *TargetRecord) {
		if t.Active != nil && t.Active.Fingerprint != r.o.wants() {
			t.Previous = new(*t.Active)
		}
	})
	if back := r.o.Record.RolledBack; back != nil {
		back.RetryAt = r.now().UTC() // this is the next try
	}
}

// brakes asks, once, whether the rotation that the step begins may be made. If not, the
// plan is made anew.
func (r *run) brakes(v *View, s Step) bool {
	if changes := s.Kind == StepStage || s.Kind == StepActivate; !changes || r.e.cfg.Brake == nil || r.brakeAsked {
		return false
	}
	t := r.o.target(v.Name)
	if r.o.Record.Confirmed == r.o.wants() || !t.StartedAt.IsZero() || t.Active == nil || t.Active.Fingerprint == r.o.wants() {
		return false
	}
	r.brakeAsked = true
	r.o.Braked = r.e.cfg.Brake(r.o.ID)
	return r.o.Braked != ""
}

// noWayBack notes that a target does not know the predecessor any more.
func (r *run) noWayBack(v *View, s Step, err error) {
	r.log.Error("cannot roll back: the target does not know the predecessor any more", "target", v.Name, "back_to", short(s.Fingerprint), "err", err)
	r.update(v.Name, func(t *TargetRecord) { t.Previous = nil })
}

// rollBack activates the predecessor, reads it back, and notes why.
func (r *run) rollBack(ctx context.Context, v *View, s Step) error {
	if err := r.assembly.Targets[v.Name].Activate(ctx, r.request(v), s.Handle); err != nil {
		return err
	}
	if err := r.look(ctx, v); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !v.serves(s.Fingerprint) {
		return &providers.Error{Kind: providers.KindConflict, Service: v.Kind, Op: "read back after rolling back", Message: unbound(v, s.Handle)}
	}
	now, record := r.now().UTC(), &r.o.Record
	if back := record.RolledBack; back == nil || back.From != r.o.wants() || !back.RetryAt.After(now) {
		times := 1
		if back != nil && back.From == r.o.wants() {
			times = back.Times + 1
		}
		record.RolledBack = &RollBack{From: r.o.wants(), To: s.Fingerprint, At: now, Times: times, RetryAt: now.Add(nth(rollBackDelays, times)), Reason: s.Reason}
	}
	record.VerifyAttempts, record.VerifyNext, record.Proven = 0, time.Time{}, [32]byte{}
	r.update(v.Name, func(t *TargetRecord) {
		if !t.StartedAt.IsZero() {
			r.e.cfg.Meter.Rotated(r.o.ID.Policy, t.Kind, "failed", now.Sub(t.StartedAt))
			t.StartedAt = time.Time{}
		}
	})
	r.e.cfg.Meter.RolledBack(r.o.ID.Policy, v.Kind)
	r.log.Error("rolled back: the bundle was not served, its predecessor is again", "target", v.Name, "fingerprint", short(r.o.wants()), "back_to", short(s.Fingerprint), "reason", s.Reason)
	r.tell(EventRolledBack, EventData{Step: StepRollBack, Target: v.Name, Endpoints: v.Endpoints, Previous: s.Fingerprint, Reason: s.Reason})
	return nil
}

// deferrals are the causes of waiting that are counted, as metrics call them.
var deferrals = map[Cause]string{CauseWindow: "window", CauseFreeze: "freeze", CauseBraked: "brake", CauseCanary: "canary", CausePaused: "paused", CauseAcknowledgement: "acknowledgement"}

// DeferralReasons are what Meter.Deferred is called with, for pre-creating metric series.
func DeferralReasons() []string {
	return []string{"window", "freeze", "brake", "canary", "paused", "acknowledgement"}
}

// countDeferral counts the beginning of a wait.
func (r *run) countDeferral(steps []Step) {
	for _, s := range steps {
		if reason, ok := deferrals[s.Cause]; ok {
			r.e.cfg.Meter.Deferred(r.o.ID.Policy, reason)
			return
		}
	}
}
