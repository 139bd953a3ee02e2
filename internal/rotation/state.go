package rotation

import (
	"slices"
	"time"
)

const reasonNoSource = "its source has no such certificate; what is served stays as it is"

// judge says where an assignment stands, from a plan in which nothing acts. It is pure.
func judge(o *Observation, steps []Step, now time.Time) (State, string) {
	find := func(match func(Step) bool) (string, bool) {
		if i := slices.IndexFunc(steps, match); i >= 0 {
			return steps[i].Reason, true
		}
		return "", false
	}
	if o.Wanted == nil {
		return judgeUnissued(o, steps)
	}
	if !o.Wanted.Info.NotAfter.After(now) {
		return StateExpired, "the bundle expired at " + clock(o.Wanted.Info.NotAfter)
	}
	if reason, refused := find(func(s Step) bool { return s.Kind == StepRefuse }); refused {
		return StateFailed, reason
	}
	if reason, failing := o.failsToIssue(now); failing {
		return StateFailed, reason
	}
	// A look that failed takes nothing back: what was proven stands until it is seen otherwise.
	if reason, back := find(func(s Step) bool { return s.Cause == CauseRolledBack }); back {
		return StateFailed, reason
	}
	verified := o.Record.Verified == o.wants() || !o.placed() && o.Record.Proven == o.wants()
	proven := verified && o.placed()
	if reason, failed := find(func(s Step) bool { return s.Cause == CauseRetry }); failed && !proven {
		return StateFailed, reason
	}
	if slices.ContainsFunc(steps, Step.acts) {
		return StateRotating, ""
	}
	if o.provable() && !verified {
		if late(o, now) {
			return StateFailed, "not served within " + o.Policy.Verify.Within.String() + ": " + unservedReason(o.Record)
		}
		return StateUnconverged, unservedReason(o.Record)
	}
	if o.Wanted.quarantined(now) {
		return StateQuarantined, o.Wanted.Problem
	}
	if reason, braked := find(func(s Step) bool { return s.Cause == CauseBraked }); braked {
		return StateBraked, reason
	}
	if reason, paused := find(func(s Step) bool { return s.Cause == CausePaused }); paused {
		return StatePaused, reason
	}
	if reason, waiting := find(func(s Step) bool { return s.Kind == StepWait && holdsBack(s.Cause) }); waiting {
		return StateWaiting, reason
	}
	return StateConverged, ""
}

// judgeUnissued is judge where there is nothing that could be served.
func judgeUnissued(o *Observation, steps []Step) (State, string) {
	if !o.issues() {
		return StateWaiting, reasonNoSource
	}
	for _, s := range steps {
		switch {
		case s.Kind == StepRefuse, s.Cause == CauseRetry:
			return StateFailed, s.Reason
		case s.Cause == CausePaused:
			return StatePaused, s.Reason
		case s.acts():
			return StateRotating, ""
		}
	}
	return StateWaiting, "nothing is issued yet"
}

// failsToIssue says why the next certificate, which is due, could not be had so far.
func (o *Observation) failsToIssue(now time.Time) (reason string, failing bool) {
	a := o.Record.Issuing.Attempts
	if a.Failures == 0 {
		return "", false
	}
	_, at := o.nextIssue(now)
	return a.Failure, !at.After(now)
}

// placed reports whether every target was last seen to serve what is wanted.
func (o *Observation) placed() bool {
	return !slices.ContainsFunc(o.Targets, func(v View) bool { return !o.placedAt(&v) })
}

// unseen reports whether the record was written before the bundle came into force.
func (o *Observation) unseen() bool {
	if o.Wanted == nil {
		return false
	}
	if len(o.Targets) == 0 {
		return o.Record.Verified != o.wants() && o.Record.Proven != o.wants()
	}
	return slices.ContainsFunc(o.Targets, func(v View) bool { return o.target(v.Name).LookedFor != o.wants() })
}

// replaces reports whether a target is being brought another bundle, or the same once more, by a step
// that was begun and of which no end is recorded.
func (r *Record) replaces() bool {
	return r.Intent != nil && (r.Intent.Step == StepStage || r.Intent.Step == StepActivate)
}

// placedAt is placed for one target.
func (o *Observation) placedAt(v *View) bool {
	t := o.target(v.Name)
	if len(v.Endpoints) == 0 {
		return !v.Covered || t.LookedFor == o.wants()
	}
	return t.Active != nil && t.Active.Fingerprint == o.wants() && slices.Equal(t.Endpoints, v.Endpoints)
}

// holdsBack reports whether a wait keeps the wanted bundle from being served. Waiting
// to retire something, for the next comparison, or to repeat a look, does not.
func holdsBack(c Cause) bool {
	return c != CauseRenewal && c != CauseGrace && c != CauseInUse && c != CauseBlocked && c != CauseDrift && c != CauseRetry
}

// late reports whether the proof has been missing for longer than the policy allows.
func late(o *Observation, now time.Time) bool {
	var since time.Time
	for _, v := range o.Targets {
		if a := o.target(v.Name).Active; a != nil && a.Fingerprint == o.wants() && a.Since.After(since) {
			since = a.Since
		}
	}
	return !since.IsZero() && now.Sub(since) > o.Policy.Verify.Within.Std()
}

// wake is when the assignment wants to be looked at again: the earliest end of a wait,
// or the moment at which the bundle expires or becomes valid.
func wake(o *Observation, steps []Step, now time.Time) time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, s := range steps {
		consider(s.Until)
	}
	if o.Wanted != nil {
		consider(o.Wanted.Info.NotBefore)
		consider(o.Wanted.Info.NotAfter)
	}
	return at.UTC()
}

// conclude writes the state into the record and tells of the changes that matter.
func (r *run) conclude(state State, reason string, now time.Time) {
	record := &r.o.Record
	// Another bundle in the same state for the same reason is news.
	changed := record.State != state || record.Reason != reason || record.Wanted.Fingerprint != r.loaded.Wanted.Fingerprint
	if record.State != state {
		record.Since = now.UTC()
	}
	before := record.State
	record.State, record.Reason = state, reason
	if state != StateFailed && r.failedStep == "" {
		r.e.away.Leave(r.o.ID)
	}
	if state == StateConverged {
		r.concludeConverged(before, now)
		return
	}
	if !changed {
		return
	}
	switch state {
	case StateFailed, StateExpired:
		r.tellFailed(state, reason)
		r.tell(EventFailed, EventData{Step: r.failedStep, Outcome: r.failure(), Reason: reason, RequestIDs: r.failures.Take()})
	case StateBraked:
		r.log.Warn("assignment braked; confirm the change or take it back", "fingerprint", short(r.o.wants()), "reason", reason)
		r.tell(EventBraked, EventData{Reason: reason})
	case StateQuarantined:
		r.log.Warn("assignment quarantined; the last good bundle stays in force", "fingerprint", short(r.o.wants()), "reason", reason)
		r.tell(EventQuarantined, EventData{Reason: reason})
	default:
		r.log.Info("assignment "+string(state), "fingerprint", short(r.o.wants()), "reason", reason)
	}
}

// failure is whether what failed was tried, or refused.
func (r *run) failure() Outcome {
	if r.failedStep == "" && slices.ContainsFunc(r.steps, func(s Step) bool { return s.Kind == StepRefuse }) {
		return OutcomeRefused
	}
	return OutcomeFailed
}

func (r *run) concludeConverged(before State, now time.Time) {
	record := &r.o.Record
	for name, t := range record.Targets {
		r.e.failing.Over(failing{r.o.ID, name})
		if !t.StartedAt.IsZero() {
			r.e.cfg.Meter.Rotated(r.o.ID.Policy, t.Kind, "ok", now.Sub(t.StartedAt))
			t.LastSuccessAt = now.UTC()
			t.StartedAt = time.Time{}
			record.Targets[name] = t
		}
	}
	if !record.Asked.IsZero() {
		r.e.cfg.Meter.Converged(record.Trigger, now.Sub(record.Asked))
		r.log.Info("converged: every target serves the bundle", "fingerprint", short(r.o.wants()), "trigger", record.Trigger, "took", now.Sub(record.Asked).Round(time.Millisecond))
		r.tell(EventConverged, EventData{Trigger: record.Trigger})
		record.Trigger, record.Asked, record.Decided = "", time.Time{}, ""
		return
	}
	if before != StateConverged {
		r.log.Info("converged: nothing to do", "fingerprint", short(r.o.wants()))
	}
}
