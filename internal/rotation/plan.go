package rotation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// StepKind is what a step does.
type StepKind string

// The steps. Look, stage, activate, roll back and retire reach a target; look without a target,
// issue and revoke reach the policy's issuer; verify makes handshakes; wait and refuse do
// nothing and say why.
const (
	StepLook     StepKind = "look"
	StepIssue    StepKind = "issue"
	StepStage    StepKind = "stage"
	StepActivate StepKind = "activate"
	StepVerify   StepKind = "verify"
	StepRollBack StepKind = "roll_back"
	StepRetire   StepKind = "retire"
	StepRevoke   StepKind = "revoke"
	StepWait     StepKind = "wait"
	StepRefuse   StepKind = "refuse"
)

// StepKinds are the steps that can fail, for documentation of metrics. To verify is to wait until
// something is served: that it is not yet is no failure of the step.
func StepKinds() []StepKind {
	return []StepKind{StepLook, StepIssue, StepStage, StepActivate, StepRollBack, StepRetire, StepRevoke}
}

// StepKindsOf are those that can fail at what is of a kind, a target or a source that issues, for
// pre-creating metric series.
func StepKindsOf(kind string) []StepKind {
	switch kind {
	case policy.SourcePrivateCA:
		return []StepKind{StepLook, StepIssue, StepRevoke}
	case policy.SourceIdentityCenter: // is both
		return StepKinds()
	}
	return []StepKind{StepLook, StepStage, StepActivate, StepRollBack, StepRetire}
}

// Cause says, from a closed set, why a step waits or refuses.
type Cause string

// The causes.
const (
	CauseRetry           Cause = "retry"           // a step failed; the delay is not over
	CausePropagation     Cause = "propagation"     // activated, not yet served everywhere
	CauseGrace           Cause = "grace"           // superseded, not yet long enough
	CauseInUse           Cause = "in_use"          // superseded, and something still serves it
	CauseBlocked         Cause = "blocked"         // superseded, and removing it failed; the delay is not over
	CauseDrift           Cause = "drift"           // the next comparison
	CauseRenewal         Cause = "renewal"         // issued, and not yet due again
	CauseRejected        Cause = "rejected"        // issued, and not what was asked for
	CauseHandover        Cause = "handover"        // others must have the bundle first
	CauseAcknowledgement Cause = "acknowledgement" // and must have said so
	CauseReported        Cause = "reported"        // drifted, and the policy says to report only
	CauseNoSource        Cause = "no_source"       // the source has no such certificate
	CauseQuarantined     Cause = "quarantined"     // the source's files are broken
	CauseExpired         Cause = "expired"         // guard: the bundle has expired
	CauseNotYetValid     Cause = "not_yet_valid"   // guard: the bundle is not valid yet
	CauseCA              Cause = "ca"              // guard: the certificate of a CA
	CauseChain           Cause = "chain"           // guard: the chain is missing, and was there before
	CauseOlder           Cause = "older"           // guard: older than what is served
	CauseWeakKey         Cause = "weak_key"        // guard: a key that is too short
	CauseRemaining       Cause = "min_remaining"   // guard: too little of its life is left
	CauseLostNames       Cause = "lost_names"      // guard: names that its predecessor had are missing
	CauseIssuer          Cause = "issuer"          // guard: another CA, and the policy forbids it
	CauseCanary          Cause = "canary"          // other targets serve it first
	CauseRolledBack      Cause = "rolled_back"     // it was not served, and its predecessor is again
	CauseWindow          Cause = "window"          // no window is open
	CauseFreeze          Cause = "freeze"          // a freeze holds
	CauseSplay           Cause = "splay"           // its turn among many
	CauseBraked          Cause = "braked"          // too many changes at once: confirm
	CausePaused          Cause = "paused"          // somebody holds the policy
	CauseUncovered       Cause = "uncovered"       // guard: an endpoint that no certificate covers
	CauseNoEndpoint      Cause = "no_endpoint"     // the target knows no such endpoint
	CauseBadEndpoint     Cause = "bad_endpoint"    // the endpoint cannot take a certificate
)

// Causes are all causes.
func Causes() []Cause {
	return []Cause{
		CauseRetry, CausePropagation, CauseGrace, CauseInUse, CauseBlocked, CauseDrift,
		CauseRenewal, CauseRejected, CauseHandover, CauseAcknowledgement, CauseReported, CauseNoSource,
		CauseQuarantined, CauseExpired, CauseNotYetValid, CauseCA, CauseChain, CauseOlder,
		CauseWeakKey, CauseRemaining, CauseLostNames, CauseIssuer, CauseCanary, CauseRolledBack,
		CauseWindow, CauseFreeze, CauseSplay, CauseBraked, CausePaused, CauseUncovered,
		CauseNoEndpoint, CauseBadEndpoint,
	}
}

// Step is one thing that would be done now, or is not done and why.
type Step struct {
	Kind StepKind
	// Target is empty for verify and for what concerns the assignment as a whole.
	Target      string
	Fingerprint certs.Fingerprint
	// Handle is what is activated or retired; empty for what a stage step before it
	// will bring.
	Handle    providers.Handle
	Endpoints []string
	// Until is when a wait ends; zero for "until something happens".
	Until time.Time
	Cause Cause
	// Reason is why, in words for an operator.
	Reason string
}

// acts reports whether the step does something.
func (s Step) acts() bool { return s.Kind != StepWait && s.Kind != StepRefuse }

// String is the step on one line.
func (s Step) String() string {
	var b strings.Builder
	b.WriteString(string(s.Kind))
	for _, part := range []string{s.Target, short(s.Fingerprint), string(s.Handle), strings.Join(s.Endpoints, ","), string(s.Cause), s.Reason} {
		if part != "" {
			b.WriteString(" " + part)
		}
	}
	if !s.Until.IsZero() {
		b.WriteString(" until " + s.Until.UTC().Format(time.RFC3339))
	}
	return b.String()
}

func short(f certs.Fingerprint) string {
	if f.IsZero() {
		return ""
	}
	return f.Short()
}

// Plan returns the steps from what is to what should be, in order, as far as they can
// be known now. It is pure: the same observation and time give the same plan, here, in
// rotatord plan and on the status page.
func Plan(o Observation, now time.Time) []Step {
	return hold(&o, plan(o, now), now)
}

func plan(o Observation, now time.Time) []Step {
	issue := planIssue(&o, now)
	switch {
	case slices.ContainsFunc(issue, func(s Step) bool { return s.Kind == StepIssue }):
		return append(issue, o.announce(now)...)
	case o.Wanted == nil && o.issues():
		return append(issue, planRevoke(&o, now)...)
	case o.Wanted == nil:
		return []Step{{Kind: StepWait, Cause: CauseNoSource, Reason: reasonNoSource}}
	}
	var steps []Step
	for i := range o.Targets {
		steps = append(steps, planTarget(&o, &o.Targets[i], now)...)
	}
	steps = append(steps, planVerify(&o, steps, now)...)
	if settled(&o, steps) && !slices.ContainsFunc(issue, Step.acts) {
		for i := range o.Targets {
			steps = append(steps, planRetire(&o, &o.Targets[i], now)...)
		}
		steps = append(steps, planRevoke(&o, now)...)
	}
	return slices.Concat(issue, steps, planComparison(&o, now))
}

// planComparison waits for the next comparison of wanted and served. A proof that is
// overdue because it cannot be made does not hide when the next look is due.
func planComparison(o *Observation, now time.Time) []Step {
	var next time.Time
	for _, at := range []time.Time{dueLook(o.Policy, o.Record), dueProof(o.Policy, o.Record)} {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		return nil
	}
	return []Step{{Kind: StepWait, Until: next, Cause: CauseDrift, Reason: "the next comparison of wanted and served"}}
}

// settled reports whether the wanted bundle is proven to be served at every target:
// only then may its predecessors go.
func settled(o *Observation, steps []Step) bool {
	return o.Record.Verified == o.wants() && len(steps) == 0
}

// planTarget brings one target to serve what is wanted.
func planTarget(o *Observation, v *View, now time.Time) []Step {
	wanted := o.Wanted.Info.Fingerprint
	steps := planOrphans(o, v)
	if blocked := slices.ContainsFunc(steps, func(s Step) bool { return s.Cause == CauseUncovered && s.Fingerprint == wanted }); blocked {
		return steps
	}
	if len(v.Endpoints) == 0 && !v.Covered {
		return steps
	}
	if step, waiting := planRetry(o, v, now); waiting {
		return append(steps, step)
	}
	if !v.Looked {
		if needsLook(o, v, now) {
			steps = append(steps, Step{Kind: StepLook, Target: v.Name, Endpoints: v.Endpoints})
		}
		return steps
	}
	if len(v.Endpoints) == 0 {
		return steps
	}
	if bad := planEndpoints(v); len(bad) > 0 {
		return append(steps, bad...)
	}
	if back, goes := planRollBack(o, v, now); goes {
		return append(steps, back)
	}
	if v.serves(wanted) && !o.forces(v) {
		return steps
	}
	if refusal, refused := guard(o, v, now); refused {
		return append(steps, refusal)
	}
	for _, reason := range []func(*Observation, *View, time.Time) (Step, bool){planRolledBack, planWindow, planSplay, planBrake, planCanary, planHandover} {
		if wait, waits := reason(o, v, now); waits {
			return append(steps, wait)
		}
	}
	return append(steps, planDeploy(o, v, wanted, now)...)
}

// planDeploy is stage and activate, or only the latter.
func planDeploy(o *Observation, v *View, wanted certs.Fingerprint, now time.Time) []Step {
	drifted := o.target(v.Name).Drift
	if drifted != "" && o.Policy.Drift.Action == "report" && !o.Trigger.impatient() {
		return []Step{{Kind: StepWait, Target: v.Name, Cause: CauseReported, Reason: "drifted (" + string(drifted) + "), and the policy says to report only"}}
	}
	activate := Step{Kind: StepActivate, Target: v.Name, Fingerprint: wanted, Endpoints: v.Endpoints}
	if activate.Handle = v.deployable(wanted); activate.Handle != "" {
		return []Step{activate}
	}
	if o.Wanted.Problem != "" {
		wait := Step{Kind: StepWait, Target: v.Name, Cause: CauseQuarantined, Reason: o.Wanted.Problem}
		if !o.Wanted.quarantined(now) {
			wait.Until = o.Wanted.ProblemSince.Add(SettleTime)
		}
		return []Step{wait}
	}
	if old := o.target(v.Name).room(); old != nil {
		return []Step{{Kind: StepRetire, Target: v.Name, Fingerprint: old.Fingerprint, Handle: old.Handle, Reason: "the account may hold no more certificates, and nothing serves this one"}}
	}
	return []Step{{Kind: StepStage, Target: v.Name, Fingerprint: wanted}, activate}
}

// room is the superseded certificate that goes before its time where the account may hold
// no more; nil if the quota is no problem, or nothing of ours can go.
func (t TargetRecord) room() *Placed {
	if !t.lacksRoom() {
		return nil
	}
	var oldest *Placed
	for i := range t.Superseded {
		if p := &t.Superseded[i]; !p.InUse && p.Owned && (oldest == nil || p.Since.Before(oldest.Since)) {
			oldest = p
		}
	}
	return oldest
}

// planOrphans complains of endpoints that no certificate covers. One that this
// assignment served until now stops the target: the new bundle lost a name.
func planOrphans(o *Observation, v *View) []Step {
	var steps []Step
	for _, endpoint := range v.Orphans {
		if isDirectory(endpoint) {
			steps = append(steps, Step{Kind: StepRefuse, Target: v.Name, Endpoints: []string{endpoint}, Cause: CauseUncovered,
				Reason: fmt.Sprintf("directory %s can hold one certificate, and the policy has several; narrow its match", endpoint)})
			continue
		}
		step := Step{Kind: StepRefuse, Target: v.Name, Endpoints: []string{endpoint}, Cause: CauseUncovered,
			Reason: fmt.Sprintf("%s is covered by no certificate of the policy; take it from the target's list or add a certificate for it", endpoint)}
		if slices.Contains(o.target(v.Name).Endpoints, endpoint) {
			step.Fingerprint = o.wants()
			step.Reason = fmt.Sprintf("the bundle lost the name %s, which is served until now; the one served stays. Reissue it with the name, or take the host from the target's list", endpoint)
		}
		steps = append(steps, step)
	}
	return steps
}

// planEndpoints refuses a target as long as one of its endpoints is unknown or cannot
// take a certificate: nothing is half done.
func planEndpoints(v *View) []Step {
	var steps []Step
	for _, e := range v.Observed.Endpoints {
		switch {
		case e.Missing:
			steps = append(steps, Step{Kind: StepRefuse, Target: v.Name, Endpoints: []string{e.Name}, Cause: CauseNoEndpoint,
				Reason: fmt.Sprintf("target %s knows no host %s; nothing of it is changed until the host exists or leaves the policy", v.Name, e.Name)})
		case e.Problem != "":
			steps = append(steps, Step{Kind: StepRefuse, Target: v.Name, Endpoints: []string{e.Name}, Cause: CauseBadEndpoint,
				Reason: fmt.Sprintf("host %s: %s", e.Name, e.Problem)})
		}
	}
	return steps
}

// planRetry waits for the end of a failure's delay, unless somebody is waiting who
// should not sit it out. A service that asked for a pause gets it all the same.
func planRetry(o *Observation, v *View, now time.Time) (Step, bool) {
	return o.retry(v.Name, o.target(v.Name).Attempts, now)
}

// retry is planRetry for a target, or for the issuer, which has no name.
func (o *Observation) retry(target string, a Attempts, now time.Time) (Step, bool) {
	if a.FailedStep == StepRetire || a.FailedStep == StepRevoke {
		return Step{}, false // what could not be removed keeps nothing from being served
	}
	throttled := a.FailedKind == providers.KindThrottled.String()
	if o.isBack(target, a) {
		return Step{}, false
	}
	if !a.RetryAt.After(now) || o.Trigger.impatient() && !throttled {
		return Step{}, false
	}
	return Step{Kind: StepWait, Target: target, Until: a.RetryAt, Cause: CauseRetry, Reason: a.Failure}, true
}

// isBack reports whether what failed, failed because its cloud was away, which it is not any more: the pauses
// between tries have grown with the outage, and are no reason to wait after it.
func (o *Observation) isBack(target string, a Attempts) bool {
	away := a.FailedKind == providers.KindUnavailable.String() || a.FailedKind == providers.KindUnknownOutcome.String()
	return away && o.Back[o.Policy.CloudOf(target)].After(a.FailedAt)
}

// needsLook reports whether the target must be read. Everything that only a look can
// tell is then planned after it.
func needsLook(o *Observation, v *View, now time.Time) bool {
	return !v.Surveyed && (suspect(o, v, now) || o.Trigger == TriggerDrift || due(dueLook(o.Policy, o.Record), now))
}

// suspect reports whether there is another reason to read the target than that it was not
// read for some time: somebody asks, or the record itself says that there is something to find out.
func suspect(o *Observation, v *View, now time.Time) bool {
	t := o.target(v.Name)
	switch {
	case o.forces(v), o.Trigger.asksToLook() && o.Trigger != TriggerDrift, v.Unlisted:
		return true
	case len(v.Endpoints) == 0:
		// A covered target with nothing to serve yet: has it got a host, or the bundle a name?
		return t.Failures > 0 || t.LookedFor != o.wants()
	case o.Record.Intent != nil && o.Record.Intent.Target == v.Name:
		return true
	case t.Active == nil || t.Active.Fingerprint != o.wants() || t.Failures > 0 && t.FailedStep != StepRetire || t.Drift != "" && t.Drift != DriftServed:
		return true
	case !slices.Equal(t.Endpoints, v.Endpoints):
		return true
	}
	if _, back := planRollBack(o, v, now); back {
		return true
	}
	if o.Record.Verified == o.wants() && slices.ContainsFunc(revocations(o, now), o.endsWhatWasServed) {
		return true
	}
	return slices.ContainsFunc(retirements(o, v.Name, now), func(s Step) bool { return s.Kind == StepRetire })
}

// planVerify proves by handshakes what the targets say. While a target is still to be
// changed it is announced only, so that a plan is shown whole.
func planVerify(o *Observation, before []Step, now time.Time) []Step {
	r := o.Record
	verify := Step{Kind: StepVerify, Fingerprint: o.wants(), Endpoints: o.provableEndpoints()}
	proven := r.Verified == o.wants() || !o.placed() && r.Proven == o.wants()
	has := func(kinds ...StepKind) bool {
		return slices.ContainsFunc(before, func(s Step) bool { return slices.Contains(kinds, s.Kind) })
	}
	switch {
	case has(StepStage, StepActivate):
		return []Step{verify}
	case has(StepLook, StepRollBack) || !o.provable():
		return nil // what the look shows decides, or there is nothing to prove yet
	case proven && !due(dueProof(o.Policy, r), now) && !(o.Trigger.asksToLook() && r.VerifyTriedAt.Before(o.Began)):
		return nil
	}
	if r.VerifyNext.After(now) && !(o.Trigger.impatient() && r.VerifyTriedAt.Before(o.Began)) {
		verify.Kind, verify.Until, verify.Cause, verify.Reason = StepWait, r.VerifyNext, CausePropagation, unservedReason(r)
	}
	return []Step{verify}
}

// provable reports whether a proof makes sense: all targets say that they serve what is
// wanted, or some do, and there are handshakes that show it.
func (o *Observation) provable() bool {
	switch {
	case len(o.Policy.Targets) == 0:
		return len(o.Policy.Verify.Endpoints) > 0
	case o.placed():
		return o.active()
	}
	return o.active() && len(o.provableEndpoints()) > 0
}

// provableEndpoints are the policy's, or, while some targets do not serve what is wanted
// yet, those whose host belongs to the others alone.
func (o *Observation) provableEndpoints() []string {
	if len(o.Policy.Targets) == 0 || o.placed() {
		return o.Policy.Verify.Endpoints
	}
	at := map[bool]map[string]bool{true: {}, false: {}}
	for i := range o.Targets {
		v := &o.Targets[i]
		for _, name := range v.Endpoints {
			at[o.placedAt(v)][name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(o.Policy.Verify.Endpoints), func(endpoint string) bool {
		host, _, _ := strings.Cut(strings.ToLower(endpoint), ":")
		return !at[true][host] || at[false][host]
	})
}

// active reports whether some target was seen to serve what is wanted.
func (o *Observation) active() bool {
	return slices.ContainsFunc(o.Targets, func(v View) bool {
		a := o.target(v.Name).Active
		return a != nil && a.Fingerprint == o.wants()
	})
}

func unservedReason(r Record) string {
	if r.Successes > 0 {
		return fmt.Sprintf("served, as %d proofs in a row show; more are to follow", r.Successes)
	}
	for _, p := range r.Probes {
		if !p.Serves(r.Wanted.Fingerprint) {
			return p.Complaint(r.Wanted.Fingerprint)
		}
	}
	return "not yet served"
}

// planRetire removes what was superseded long enough ago.
func planRetire(o *Observation, v *View, now time.Time) []Step {
	steps := retirements(o, v.Name, now)
	if !v.Looked {
		// What is due is looked at first; needsLook says so.
		steps = slices.DeleteFunc(steps, func(s Step) bool { return s.Kind == StepRetire })
	}
	return steps
}

// retirements applies the policy's retain to the superseded certificates of a target.
func retirements(o *Observation, target string, now time.Time) []Step {
	retain, record := o.Policy.Retain, o.target(target)
	failing := record.FailedStep == StepRetire && record.RetryAt.After(now)
	superseded := slices.Clone(record.Superseded)
	slices.SortFunc(superseded, func(a, b Placed) int {
		return cmp.Or(b.Since.Compare(a.Since), b.NotBefore.Compare(a.NotBefore), cmp.Compare(a.Handle, b.Handle)) // newest first
	})
	var steps []Step
	for i, p := range superseded {
		step := Step{Target: target, Fingerprint: p.Fingerprint, Handle: p.Handle}
		goes := p.Since.Add(retain.For.Std())
		expired := !p.NotAfter.IsZero() && !p.NotAfter.After(now)
		switch {
		case p.InUse:
			step.Kind, step.Cause, step.Reason = StepWait, CauseInUse, "superseded, and something outside the policy still serves it"
		case i < *retain.Superseded && !expired:
			continue // stays as the way back
		case goes.After(now):
			step.Kind, step.Until, step.Cause, step.Reason = StepWait, goes, CauseGrace, "superseded certificate stays until then"
		case failing:
			step.Kind, step.Until, step.Cause, step.Reason = StepWait, record.RetryAt, CauseBlocked, record.Failure
		default:
			step.Kind = StepRetire
		}
		steps = append(steps, step)
	}
	return steps
}

// hears reports whether a trigger counts for a policy at all.
func hears(p *policy.Policy, t Trigger) bool {
	switch t {
	case TriggerFile:
		return p.When.Hears(policy.OnFile)
	case TriggerNATS:
		return p.When.Hears(policy.OnNATS)
	case TriggerDrift:
		return p.When.Hears(policy.OnDrift)
	default: // a deadline of our own, an operator, a start: no policy turns these off
		return true
	}
}
