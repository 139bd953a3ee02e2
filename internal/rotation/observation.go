package rotation

import (
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// Observation is everything that Plan may know: what is wanted, what is recorded and,
// as far as it was looked at, what is there.
type Observation struct {
	ID     ID
	Policy *policy.Policy
	// Wanted is nil where the source has no such certificate.
	Wanted *Wanted
	Record Record
	// Trigger is why the assignment is looked at, Began since when.
	Trigger Trigger
	Began   time.Time
	// Force asks for stage and activate even where nothing differs. It is taken back
	// for a target once that was done.
	Force bool
	// Braked, if not empty, is why nothing that is served may be replaced now.
	Braked string
	// Hold, if not nil, says that somebody holds the policy: nothing is changed.
	Hold *Hold
	// Skew is how far this host's clock is ahead of the clouds', where one of them told.
	Skew time.Duration
	// Back is when clouds, by name, came back after they had been away; nil for not since this
	// process began.
	Back map[string]time.Time
	// Targets are in the order of the policy.
	Targets []View
	// Asks is the digest of what a policy that issues asks for now; empty for others.
	Asks string
	// Sourced says that the issuer was looked at since this look at the assignment began.
	Sourced bool
}

// View is one target as observed.
type View struct {
	Name string
	Kind string
	// Last says that it is changed only when every other target serves the bundle.
	Last bool
	// Endpoints are those that this certificate must serve there.
	Endpoints []string
	// Covered says that the policy does not name the endpoints; Unlisted that they are
	// not known, because the target has not been asked and the record has none.
	Covered, Unlisted bool
	// listed says that Endpoints were taken from the target's list in this look at the
	// assignment: they stay what they are until it ends.
	listed bool
	// Orphans are the target's endpoints that no certificate of the policy covers.
	Orphans []string
	// Looked says that Observed is there. A target is not looked at when nothing says
	// that it differs from the record.
	Looked   bool
	Observed providers.Observation
	// Seen says that the target was looked at since this look at the assignment began,
	// even if a failure has made what was seen worthless since.
	Seen bool
	// Surveyed says that a list showed it as the record has it, so that it was not looked at.
	Surveyed bool
	// Staged is what this look at the assignment has staged; Restage that the target did
	// not know the handle it was to activate, so that it must be staged (again).
	Staged  providers.Handle
	Restage bool
	// Forced says that Force was honoured here.
	Forced bool
}

// Trigger is a reason to look.
type Trigger string

// The triggers.
const (
	TriggerFile     Trigger = "file"
	TriggerSchedule Trigger = "schedule"
	TriggerNATS     Trigger = "nats"
	TriggerDeadline Trigger = "deadline"
	TriggerDrift    Trigger = "drift"
	TriggerPolicy   Trigger = "policy"
	TriggerManual   Trigger = "manual"
	TriggerStartup  Trigger = "startup"
)

// Triggers are all triggers, for pre-creating metric series.
func Triggers() []Trigger {
	return []Trigger{TriggerFile, TriggerNATS, TriggerSchedule, TriggerDeadline, TriggerDrift, TriggerPolicy, TriggerManual, TriggerStartup}
}

// asksToLook reports whether somebody wants the targets to be looked at whatever the
// record says.
func (t Trigger) asksToLook() bool {
	return t == TriggerNATS || t == TriggerManual || t == TriggerDrift || t == TriggerSchedule || t == TriggerPolicy
}

// impatient reports whether somebody is waiting who should not sit out a retry delay.
func (t Trigger) impatient() bool { return t == TriggerNATS || t == TriggerManual }

// Urgency orders triggers by how closely they have the assignment looked at: of several that
// lead to one look, the highest counts.
func (t Trigger) Urgency() int {
	switch {
	case t.impatient():
		return 2
	case t.asksToLook():
		return 1
	}
	return 0
}

// issues reports whether the policy's source makes its certificates.
func (o *Observation) issues() bool { return o.Asks != "" }

// forces reports whether the bundle is to be brought to the target again although it is
// there. Where certificates are issued, Force means a new one instead.
func (o *Observation) forces(v *View) bool { return o.Force && !v.Forced && !o.issues() }

// target returns the record of a target; the zero TargetRecord where there is none.
func (o *Observation) target(name string) TargetRecord { return o.Record.Targets[name] }

// wants is the fingerprint of the bundle in force; zero where the source has none.
func (o *Observation) wants() certs.Fingerprint {
	if o.Wanted == nil {
		return certs.Fingerprint{}
	}
	return o.Wanted.Info.Fingerprint
}

// remote finds an observed remote certificate by its handle.
func (v *View) remote(h providers.Handle) *providers.Remote {
	for i := range v.Observed.Remotes {
		if v.Observed.Remotes[i].Handle == h {
			return &v.Observed.Remotes[i]
		}
	}
	return nil
}

// holding finds a remote certificate with this leaf, whoever uploaded it: a service may
// refuse a second copy. One that is served wins, so that a copy left behind by whatever
// accident is the one that goes; then one of ours.
func (v *View) holding(f certs.Fingerprint) *providers.Remote {
	var found *providers.Remote
	for i := range v.Observed.Remotes {
		r := &v.Observed.Remotes[i]
		if f.IsZero() || r.Fingerprint != f {
			continue
		}
		if found == nil || len(r.InUse) > len(found.InUse) || len(r.InUse) == len(found.InUse) && r.Owned && !found.Owned {
			found = r
		}
	}
	return found
}

// deployable is the handle that can be activated for a leaf; empty if the bundle must be
// staged first.
func (v *View) deployable(f certs.Fingerprint) providers.Handle {
	if v.Staged != "" {
		return v.Staged
	}
	if r := v.holding(f); r != nil && !v.Restage {
		return r.Handle
	}
	return ""
}

// serves reports whether every endpoint is bound to a certificate with this leaf,
// whoever uploaded it.
func (v *View) serves(f certs.Fingerprint) bool {
	return !slices.ContainsFunc(v.Observed.Endpoints, func(e providers.Endpoint) bool { return !v.serving(e, f) })
}

func (v *View) serving(e providers.Endpoint, f certs.Fingerprint) bool {
	r := v.remote(e.Serves)
	return e.Serves != "" && r != nil && r.Fingerprint == f
}

// dueLook says when wanted and served are to be compared again at the latest; zero for
// never.
func dueLook(p *policy.Policy, r Record) time.Time {
	scheduled := dueSchedule(p, r)
	switch {
	case !p.When.Hears(policy.OnDrift):
		return scheduled
	case r.LookedAt.IsZero():
		return time.Unix(0, 0) // not everything was looked at yet
	}
	if next := r.LookedAt.Add(p.Drift.Every.Std()); scheduled.IsZero() || next.Before(scheduled) {
		return next
	}
	return scheduled
}

// dueSchedule is when the policy's schedule says to look next; zero for never.
func dueSchedule(p *policy.Policy, r Record) time.Time {
	if r.LookedAt.IsZero() && p.When.Schedule != "" {
		return time.Unix(0, 0)
	}
	return p.When.NextScheduled(r.LookedAt.UTC())
}

// dueProof is the same for the handshakes.
func dueProof(p *policy.Policy, r Record) time.Time {
	if !p.When.Hears(policy.OnDrift) || len(p.Verify.Endpoints) == 0 || r.VerifiedAt.IsZero() {
		return time.Time{}
	}
	return r.VerifiedAt.Add(p.Drift.Every.Std())
}

// due reports whether a time that was asked for has come.
func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// WakeTrigger says what an alarm of an assignment is about: the regular comparison, or
// a deadline of its own.
func WakeTrigger(p *policy.Policy, r Record, now time.Time) Trigger {
	r = r.asOf(now)
	if due(dueSchedule(p, r), now) {
		return TriggerSchedule
	}
	if due(dueLook(p, r), now) || due(dueProof(p, r), now) {
		return TriggerDrift
	}
	return TriggerDeadline
}
