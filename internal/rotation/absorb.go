package rotation

import (
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// absorbLook brings the record of a target up to what was just seen there.
func (r *run) absorbLook(v *View) {
	now := r.now().UTC()
	wanted := r.o.wants()
	r.absorbInterrupted(v)
	r.update(v.Name, func(t *TargetRecord) {
		t.Kind, t.LookedFor = v.Kind, wanted
		r.absorbDrift(t, v)
		t.Active = activeAt(v, t.Active, now)
		if v.serves(wanted) {
			t.Endpoints = v.Endpoints
			t.succeeded(StepStage, StepActivate)
		}
		t.Superseded = supersededAt(v, r.o.wants(), t.Superseded, r.o.Record.made(), now)
	})
}

// absorbInterrupted tells of an effect that was made by a process that ended before it could
// tell, or whose answer was lost. What was not made is planned again, and told then.
func (r *run) absorbInterrupted(v *View) {
	i, why := r.interrupted, "the daemon had ended before it could tell"
	if i == nil || i.Target != v.Name {
		i, why = r.unanswered(v.Name), "the answer had been lost"
	} else {
		r.interrupted = nil
	}
	if i == nil {
		return
	}
	d := EventData{Step: i.Step, Target: v.Name, Fingerprint: i.Fingerprint, Reason: "found done: " + why}
	before := r.o.target(v.Name).Active
	switch {
	case r.o.forces(v): // it is made once more, and told then
	case i.Step == StepStage && v.holding(i.Fingerprint) != nil:
		r.update(v.Name, func(t *TargetRecord) { t.succeeded(StepStage) })
		r.tell(EventDeployed, d)
	case i.Step == StepActivate && len(v.Endpoints) > 0 && v.serves(i.Fingerprint) && (before == nil || before.Fingerprint != i.Fingerprint):
		if d.Endpoints = v.Endpoints; before != nil {
			d.Previous = before.Fingerprint
		}
		r.tell(EventActivated, d)
	case i.Step == StepRetire && v.remote(i.Handle) == nil:
		r.tell(EventRetired, d)
	}
}

// unanswered is the step at a target whose last try may have had an effect; nil for none.
func (r *run) unanswered(target string) *Intent {
	t := r.o.target(target)
	if t.FailedKind != providers.KindUnknownOutcome.String() || t.FailedStep != StepStage && t.FailedStep != StepActivate {
		return nil
	}
	return &Intent{Step: t.FailedStep, Target: target, Fingerprint: r.o.wants()}
}

// activeAt is the certificate that all endpoints serve, be it in several copies; nil where
// they differ.
func activeAt(v *View, before *Placed, now time.Time) *Placed {
	if len(v.Observed.Endpoints) == 0 {
		return nil
	}
	h := v.Observed.Endpoints[0].Serves
	remote := v.remote(h)
	differs := func(e providers.Endpoint) bool {
		return e.Serves != h && (remote.Fingerprint.IsZero() || !v.serving(e, remote.Fingerprint))
	}
	if remote == nil || slices.ContainsFunc(v.Observed.Endpoints, differs) {
		return nil
	}
	p := placed(*remote, now)
	if before != nil && before.Handle == p.Handle && before.Fingerprint == p.Fingerprint {
		p.Since = before.Since
	}
	return &p
}

func placed(remote providers.Remote, now time.Time) Placed {
	return Placed{
		Handle: remote.Handle, Fingerprint: remote.Fingerprint, NotBefore: remote.NotBefore.UTC(), NotAfter: remote.NotAfter.UTC(),
		Since: now, Owned: remote.Owned, InUse: len(remote.InUse) > 0,
	}
}

// supersededAt are the remote certificates of ours that are neither wanted nor bound to
// one of the endpoints. The list is derived from what is there, so that an upload that
// a crash orphaned is on it like any other; only the time since when is remembered.
func supersededAt(v *View, wanted [32]byte, before []Placed, made []providers.Handle, now time.Time) []Placed {
	keep := v.holding(wanted)
	var superseded []Placed
	for _, remote := range v.Observed.Remotes {
		bound := slices.ContainsFunc(v.Observed.Endpoints, func(e providers.Endpoint) bool { return e.Serves == remote.Handle })
		if !remote.Owned || bound || keep != nil && remote.Handle == keep.Handle {
			continue
		}
		if v.Last && !slices.Contains(made, remote.Handle) && (keep == nil || remote.NotBefore.After(keep.NotBefore)) {
			continue // somebody else's, and newer: nothing took its place
		}
		p := placed(remote, now)
		if i := slices.IndexFunc(before, func(b Placed) bool { return b.Handle == p.Handle }); i >= 0 {
			p.Since = before[i].Since
		}
		superseded = append(superseded, p)
	}
	return superseded
}

// absorbDrift notices that a target which was proven to serve what is wanted does not
// any more, or does again.
func (r *run) absorbDrift(t *TargetRecord, v *View) {
	wanted := r.o.wants()
	if v.serves(wanted) {
		if t.Drift != "" && t.Drift != DriftServed {
			r.log.Info("drift repaired", "target", v.Name, "drift", t.Drift)
			r.tell(EventRepaired, EventData{Target: v.Name, Reason: string(t.Drift)})
			t.Drift = ""
		}
		return
	}
	proven := t.Active != nil && t.Active.Fingerprint == wanted && r.o.Record.Verified == wanted && slices.Equal(t.Endpoints, v.Endpoints)
	if !proven || t.Drift != "" {
		return
	}
	switch {
	case slices.ContainsFunc(v.Endpoints, isDirectory):
		t.Drift = DriftEdited
	case v.remote(t.Active.Handle) == nil:
		t.Drift = DriftMissing
	default:
		t.Drift = DriftBinding
	}
	r.o.Record.Verified = [32]byte{}
	reason := unbound(v, t.Active.Handle)
	r.log.Warn("drift: the target no longer serves what was verified", "target", v.Name, "drift", t.Drift, "reason", reason)
	r.tell(EventDrifted, EventData{Target: v.Name, Endpoints: v.Endpoints, Reason: string(t.Drift) + ": " + reason})
}

// setDriftServed notes on every target that handshakes show something else although
// the bindings are right, or no longer do.
func (r *run) setDriftServed(drifted bool, reason string) {
	for _, v := range r.o.Targets {
		r.update(v.Name, func(t *TargetRecord) {
			switch {
			case drifted && t.Drift == "":
				t.Drift = DriftServed
			case !drifted && t.Drift == DriftServed:
				t.Drift = ""
				r.tell(EventRepaired, EventData{Target: v.Name, Reason: string(DriftServed)})
			}
		})
	}
	if drifted {
		r.log.Warn("drift: handshakes no longer show what was verified", "reason", reason)
		r.tell(EventDrifted, EventData{Endpoints: r.o.Policy.Verify.Endpoints, Reason: string(DriftServed) + ": " + reason})
	}
}
