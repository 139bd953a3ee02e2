package rotation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
)

// minReissue is the least time between two certificates that nobody asked for by hand:
// whatever is wrong with one, the next is not made at once, and never in a loop.
const minReissue = 10 * time.Minute

// planIssue gets a certificate from the issuer where one is due.
func planIssue(o *Observation, now time.Time) []Step {
	if !o.issues() {
		return nil
	}
	if step, waiting := o.retry("", o.Record.Issuing.Attempts, now); waiting {
		return []Step{step}
	}
	if !o.Sourced && o.needsSource(now) {
		return []Step{{Kind: StepLook, Reason: "what the issuer has"}}
	}
	reason, at := o.nextIssue(now)
	if at.After(now) {
		return []Step{{Kind: StepWait, Until: at, Cause: CauseRenewal, Reason: reason}}
	}
	if rejected := o.rejection(); rejected != nil && !o.Record.forced() && o.Record.Issuing.Since.IsZero() {
		return []Step{{Kind: StepRefuse, Cause: CauseRejected, Fingerprint: rejected.Info.Fingerprint,
			Reason: "what was issued is not what the policy asks for: " + rejected.Problem + "; change the policy, or force another try"}}
	}
	return []Step{{Kind: StepIssue, Reason: reason}}
}

// nextIssue says when the next certificate is to be issued, and why then.
func (o *Observation) nextIssue(now time.Time) (reason string, at time.Time) {
	current := o.Record.inForce()
	if current == nil {
		return "nothing is issued yet", now
	}
	notBefore := current.At.Add(minReissue)
	switch {
	case o.Record.forced():
		return "forced", now
	case !o.Record.Issuing.Since.IsZero() && o.Record.Issuing.Asks == o.Asks:
		return "a try that began at " + clock(o.Record.Issuing.Since) + " is to be finished", now
	case current.Asks != o.Asks:
		return "the policy asks for something else than what is in force", now
	case current.Problem != "":
		return "the certificate in force cannot be used: " + current.Problem, notBefore
	}
	return "renewal of what is in force", o.Record.RenewalDue(o.Policy.When.Renew)
}

// RenewalDue is when the policy says to issue the next certificate; zero while none is
// in force.
func (r *Record) RenewalDue(renew policy.Renew) time.Time {
	current := r.inForce()
	if current == nil {
		return time.Time{}
	}
	if renew.Before.Std() >= current.Info.NotAfter.Sub(current.Info.NotBefore) {
		renew.Before = 0 // the issuer gave it a shorter life: it would be renewed without end
	}
	due := renew.Due(current.Info.NotBefore, current.Info.NotAfter)
	if notBefore := current.At.Add(minReissue); due.Before(notBefore) {
		due = notBefore
	}
	return due
}

// rejection is the certificate that came of asking for what the policy asks for now, and
// was something else; nil for none. Asking again would make one more.
func (o *Observation) rejection() *Issue {
	if len(o.Record.Issued) > 0 && o.Record.Issued[0].Rejected && o.Record.Issued[0].Asks == o.Asks {
		return &o.Record.Issued[0]
	}
	return nil
}

// needsSource reports whether the issuer must be read.
func (o *Observation) needsSource(now time.Time) bool {
	current := o.Record.inForce()
	if !o.Record.Issuing.Since.IsZero() {
		return true // a try was made: what became of it? And what time is it there?
	}
	return current == nil || current.Problem != "" || o.Trigger.asksToLook() || due(dueLook(o.Policy, o.Record), now)
}

// announce shows what follows a certificate that is still to be made, as far as it can be
// known before.
func (o *Observation) announce(now time.Time) []Step {
	var steps []Step
	for i := range o.Targets {
		v := &o.Targets[i]
		if len(v.Endpoints) == 0 {
			continue
		}
		if wait, waits := o.announceWait(v, now); waits {
			steps = append(steps, wait)
			continue
		}
		steps = append(steps, Step{Kind: StepStage, Target: v.Name}, Step{Kind: StepActivate, Target: v.Name, Endpoints: v.Endpoints})
	}
	return append(steps, Step{Kind: StepVerify, Endpoints: o.Policy.Verify.Endpoints})
}

// announceWait says what a target will wait for once the certificate is there.
func (o *Observation) announceWait(v *View, now time.Time) (Step, bool) {
	wait := Step{Kind: StepWait, Target: v.Name, Endpoints: v.Endpoints, Cause: CauseHandover}
	activate, canary := o.activation(), o.Policy.Canary.Targets
	switch {
	case v.Last && len(activate.Acknowledgements) > 0:
		wait.Reason = fmt.Sprintf("then waits for the acknowledgement of %s, %s at most", strings.Join(activate.Acknowledgements, ", "), activate.After)
		return wait, true
	case v.Last && *activate.After > 0:
		wait.Reason = fmt.Sprintf("is activated %s after the others have the new certificate", activate.After)
		return wait, true
	}
	if wait, waits := planWindow(o, v, now); waits {
		return wait, true
	}
	if len(canary) > 0 && !slices.Contains(canary, v.Name) {
		wait.Cause, wait.Reason = CauseCanary, "then waits for "+strings.Join(canary, ", ")+" to serve the certificate first"
		return wait, true
	}
	return wait, false
}

// planHandover keeps a target that comes last from changing until the others serve the
// bundle and the parties have acknowledged it, or their time is over.
func planHandover(o *Observation, v *View, now time.Time) (Step, bool) {
	if !v.Last {
		return Step{}, false
	}
	wait := Step{Kind: StepWait, Target: v.Name, Fingerprint: o.wants(), Cause: CauseHandover}
	since := o.inForceSince()
	for i := range o.Targets {
		other := &o.Targets[i]
		if other.Last || len(other.Endpoints) == 0 {
			continue
		}
		active := o.target(other.Name).Active
		if active == nil || active.Fingerprint != o.wants() {
			wait.Reason = "target " + other.Name + " does not have the new certificate yet"
			return wait, true
		}
		if active.Since.After(since) {
			since = active.Since
		}
	}
	activate := o.activation()
	missing := o.unacknowledged()
	wait.Until = since.Add(activate.After.Std())
	if !wait.Until.After(now) || len(missing) == 0 && len(activate.Acknowledgements) > 0 {
		return Step{}, false
	}
	wait.Reason = fmt.Sprintf("the new certificate is handed out; it is activated at %s", clock(wait.Until))
	if len(missing) > 0 {
		wait.Cause = CauseAcknowledgement
		wait.Reason = fmt.Sprintf("waiting for the acknowledgement of %s, until %s at the latest", strings.Join(missing, ", "), clock(wait.Until))
	}
	return wait, true
}

// activation is what the policy says about activating.
func (o *Observation) activation() policy.Activate {
	a := policy.Activate{After: new(policy.Duration(0))}
	if ic := o.Policy.Source.IdentityCenter; ic != nil {
		a.Acknowledgements = ic.Activate.Acknowledgements
		a.After = cmp.Or(ic.Activate.After, a.After)
	}
	return a
}

// unacknowledged are the parties that have not said yet that they have the bundle.
func (o *Observation) unacknowledged() []string {
	return slices.DeleteFunc(slices.Clone(o.activation().Acknowledgements), func(party string) bool {
		return slices.ContainsFunc(o.Record.Acknowledged, func(a Acknowledgement) bool { return a.Party == party })
	})
}

func (o *Observation) inForceSince() time.Time {
	if current := o.Record.inForce(); current != nil {
		return current.At
	}
	return time.Time{}
}

// planRevoke ends what revocations finds. What was served once is ended only when the
// targets were looked at just now.
func planRevoke(o *Observation, now time.Time) []Step {
	steps := revocations(o, now)
	if slices.ContainsFunc(o.Targets, func(v View) bool { return len(v.Endpoints) > 0 && !v.Looked }) {
		steps = slices.DeleteFunc(steps, o.endsWhatWasServed)
	}
	return steps
}

// endsWhatWasServed reports whether the step revokes a certificate that was in force.
func (o *Observation) endsWhatWasServed(s Step) bool {
	return s.Kind == StepRevoke && !slices.ContainsFunc(o.Record.Issued, func(i Issue) bool { return i.Handle == s.Handle && i.Rejected })
}

// revocations are the certificates of the issuer that are superseded long enough, and
// that no target holds any more.
func revocations(o *Observation, now time.Time) []Step {
	if !o.issues() {
		return nil
	}
	current, a := o.Record.inForce(), o.Record.Issuing.Revoking
	failing := a.RetryAt.After(now)
	var steps []Step
	kept := 0 // as the way back, here or at a target
	for _, issue := range o.Record.Issued {
		if !issue.SupersededAt.IsZero() && !issue.Rejected && o.holds(issue.Info.Fingerprint) {
			kept++
		}
	}
	for _, issue := range o.Record.Issued {
		if current != nil && issue.Handle == current.Handle {
			continue
		}
		step := Step{Kind: StepRevoke, Fingerprint: issue.Info.Fingerprint, Handle: issue.Handle}
		goes := issue.SupersededAt.Add(o.Policy.Retain.For.Std())
		if known := issue.At.Add(minReissue); goes.Before(known) && !o.revokes(issue, now) {
			goes = known // an issuer must not find it again as what the next try made
		}
		switch {
		case issue.Rejected && !issue.SupersededAt.IsZero():
			continue // disposed of; it is remembered lest the same is asked for again
		case issue.Rejected: // never served: nothing to wait for
		case current == nil:
			continue // nothing took its place: it may well be served
		case o.holds(issue.Info.Fingerprint):
			continue // its target says how long it stays
		case issue.Left && issue.Info.NotAfter.After(now):
			continue // a target that left the policy may serve it
		case kept < *o.Policy.Retain.Superseded && issue.Problem == "" && issue.Info.NotAfter.After(now):
			kept++
			continue // stays as the way back
		case goes.After(now):
			step.Kind, step.Until, step.Cause, step.Reason = StepWait, goes, CauseGrace, "superseded certificate stays until then"
		}
		if failing && step.Kind == StepRevoke {
			step.Kind, step.Until, step.Cause, step.Reason = StepWait, a.RetryAt, CauseBlocked, a.Failure
		}
		steps = append(steps, step)
	}
	return steps
}

// revokes reports whether the policy ends a certificate before its time, rather than
// forgetting it.
func (o *Observation) revokes(i Issue, now time.Time) bool {
	ca := o.Policy.Source.PrivateCA
	return ca != nil && ca.Superseded == policy.SupersededRevoke && i.Owned && i.Info.NotAfter.After(now)
}

// holds reports whether a target still has a superseded certificate.
func (o *Observation) holds(f certs.Fingerprint) bool {
	for _, t := range o.Record.Targets {
		if t.Active != nil && t.Active.Fingerprint == f || slices.ContainsFunc(t.Superseded, func(p Placed) bool { return p.Fingerprint == f }) {
			return true
		}
	}
	return false
}
