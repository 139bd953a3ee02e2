package rotation

import (
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// Record is what the journal remembers of one assignment. It holds decisions and
// handles; what can be derived by looking is not in it, and losing it loses history,
// never correctness. It holds no key, no PEM and no secret.
type Record struct {
	// Wanted is the bundle in force at the last look.
	Wanted certs.Info `json:"wanted"`
	// Leaves are the bundles that were in force, Wanted first, newest first.
	Leaves []certs.Info `json:"leaves,omitempty"`
	// Targets by name.
	Targets map[string]TargetRecord `json:"targets,omitempty"`
	// Intent is the step that was about to be made when the record was written; nil
	// when none is in flight.
	Intent *Intent `json:"intent,omitempty"`

	// Verified is the fingerprint that the last complete proof showed, VerifiedAt when.
	Verified   certs.Fingerprint `json:"verified"`
	VerifiedAt time.Time         `json:"verified_at,omitzero"`
	// VerifyAttempts counts the proofs since activation that failed, VerifyTriedAt is
	// when the last one was made and VerifyNext when the next one is due.
	VerifyAttempts int `json:"verify_attempts,omitempty"`
	// Successes counts those in a row that succeeded, until they are enough.
	Successes     int       `json:"successes,omitempty"`
	VerifyTriedAt time.Time `json:"verify_tried_at,omitzero"`
	VerifyNext    time.Time `json:"verify_next,omitzero"`
	// Proven is the fingerprint whose proof the last handshakes showed where only some of the
	// targets had it, ProvenAt since when.
	Proven   certs.Fingerprint `json:"proven,omitzero"`
	ProvenAt time.Time         `json:"proven_at,omitzero"`
	// Good is the last bundle that was served everywhere, proven: the way back.
	Good certs.Fingerprint `json:"good,omitzero"`
	// RolledBack is the last going back; nil when the bundle in force was not rolled back.
	RolledBack *RollBack `json:"rolled_back,omitempty"`
	// Confirmed is the bundle whose deployment somebody confirmed while the brake was on.
	Confirmed certs.Fingerprint `json:"confirmed,omitzero"`
	// ReplacedAt is when something that was served was last replaced: what the brake counts.
	ReplacedAt time.Time `json:"replaced_at,omitzero"`
	// Chain is how many intermediates the bundle had that was last proven.
	Chain int `json:"chain,omitempty"`
	// Probes are the last handshakes.
	Probes []providers.Probe `json:"probes,omitempty"`

	// Issued are the certificates that the policy's issuer made for the assignment, newest
	// first: the one in force, its predecessors, and those that were not what was asked for.
	Issued []Issue `json:"issued,omitempty"`
	// Issuing is how the last dealings with the issuer ended.
	Issuing Issuing `json:"issuing,omitzero"`
	// Acknowledged are the parties that have taken over the bundle in force.
	Acknowledged []Acknowledgement `json:"acknowledged,omitempty"`

	// WrittenAt is when the record was last changed, by the clock of who changed it.
	WrittenAt time.Time `json:"written_at,omitzero"`
	// WantedAt is when the bundle in force was first seen.
	WantedAt time.Time `json:"wanted_at,omitzero"`
	// LookedAt is when all targets were last looked at.
	LookedAt time.Time `json:"looked_at,omitzero"`

	// State is what the last look ended in, Since when it began, Reason why, in words.
	State  State     `json:"state"`
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// WakeAt is when the assignment wants to be looked at again; zero for never.
	WakeAt time.Time `json:"wake_at,omitzero"`

	// Trigger and Asked are what the rotation under way answers, for its duration.
	Trigger string    `json:"trigger,omitempty"`
	Asked   time.Time `json:"asked,omitzero"`

	// Answered is the newest wish of an operator or a message that a look has answered.
	Answered time.Time `json:"answered,omitzero"`

	// Decided is the last decision that an event told of.
	Decided string `json:"decided,omitempty"`
	// Head is the newest of the assignment's events; Outbox are those not yet published.
	Head   audit.Head `json:"head,omitzero"`
	Outbox []Event    `json:"outbox,omitempty"`
}

// lacksRoom reports whether the target could not take a bundle for its quota.
func (t TargetRecord) lacksRoom() bool {
	return t.FailedStep == StepStage && t.FailedKind == providers.KindQuota.String()
}

// RollBack is the going back from a bundle that was not served.
type RollBack struct {
	From certs.Fingerprint `json:"from"`
	To   certs.Fingerprint `json:"to"`
	At   time.Time         `json:"at"`
	// Times is how often this bundle was rolled back, RetryAt when it is tried again.
	Times   int       `json:"times"`
	RetryAt time.Time `json:"retry_at"`
	Reason  string    `json:"reason"`
}

// TargetRecord is the journal's memory of one target of an assignment.
type TargetRecord struct {
	Kind string `json:"kind"`
	// Endpoints are those that the assignment was responsible for at the last look.
	Endpoints []string `json:"endpoints,omitempty"`
	// LookedFor is the bundle that was wanted when the target was last looked at.
	LookedFor certs.Fingerprint `json:"looked_for"`
	// Active is what the endpoints were last seen to serve through us.
	Active *Placed `json:"active,omitempty"`
	// Previous is what was served before Active.
	Previous *Placed `json:"previous,omitempty"`
	// Superseded are remote certificates of ours that nothing should serve any more.
	Superseded []Placed `json:"superseded,omitempty"`

	// StartedAt is when the rotation under way at this target began.
	StartedAt     time.Time `json:"started_at,omitzero"`
	LastAttemptAt time.Time `json:"last_attempt_at,omitzero"`
	LastSuccessAt time.Time `json:"last_success_at,omitzero"`
	Attempts
	// Drift is how what is served was last found to differ from what we had verified.
	Drift DriftKind `json:"drift,omitempty"`
}

// Attempts counts failed steps in a row; the rest describes the last of them.
type Attempts struct {
	Failures   int       `json:"failures,omitempty"`
	FailedStep StepKind  `json:"failed_step,omitempty"`
	FailedKind string    `json:"failed_kind,omitempty"`
	Failure    string    `json:"failure,omitempty"`
	RetryAt    time.Time `json:"retry_at,omitzero"`
	FailedAt   time.Time `json:"failed_at,omitzero"`
}

// succeeded forgets the failures of these steps: they worked, or are not needed any
// more. Failures of other steps go on counting, so that their delays grow.
func (a *Attempts) succeeded(steps ...StepKind) {
	if slices.Contains(steps, a.FailedStep) {
		*a = Attempts{}
	}
}

// failed counts a failure of a step. A try that somebody asked for before its time does not
// make the pauses longer: ten impatient triggers in a row are not an outage of half an hour.
func (a *Attempts) failed(step StepKind, err error, now time.Time) {
	if !a.RetryAt.After(now) || a.FailedStep != step {
		a.Failures++
	}
	a.RetryAt = now.Add(retryDelay(err, a.Failures)).UTC()
	a.FailedAt = now.UTC()
	a.FailedStep, a.FailedKind, a.Failure = step, providers.KindOf(err).String(), err.Error()
}

// Issue is one certificate that the policy's issuer made.
type Issue struct {
	Handle providers.Handle `json:"handle"`
	Info   certs.Info       `json:"info"`
	Chain  int              `json:"chain,omitempty"`
	// At is when it came into the record, SupersededAt when another came into force, or when
	// a rejected one was disposed of.
	At           time.Time `json:"at"`
	SupersededAt time.Time `json:"superseded_at,omitzero"`
	// Asks is the digest of what it was asked for with.
	Asks string `json:"asks"`
	// Owned says that rotatord had it made.
	Owned bool `json:"owned,omitempty"`
	// Rejected says that it was not what was asked for; it never comes into force.
	Rejected bool `json:"rejected,omitempty"`
	// Left says that a target still served it when the policy let go of that target.
	Left bool `json:"left,omitempty"`
	// Problem, if not empty, is why it cannot be in force, or not any longer.
	Problem string `json:"problem,omitempty"`
}

// Issuing is the journal's memory of an assignment's issuer.
type Issuing struct {
	// Since is when the first try was made of the certificate that is being issued; zero
	// when none is.
	Since time.Time `json:"since,omitzero"`
	// Asks is the digest of what that try asks for.
	Asks string `json:"asks,omitempty"`
	// Forced is when somebody last asked for a new certificate before its time, Honoured the
	// same when the last one was made: a message that comes twice forces once.
	Forced   time.Time `json:"forced,omitzero"`
	Honoured time.Time `json:"honoured,omitzero"`
	// LookedAt is when the issuer was last looked at.
	LookedAt time.Time `json:"looked_at,omitzero"`
	// Attempts to look and to issue, and those to revoke.
	Attempts
	Revoking  Attempts             `json:"revoking,omitzero"`
	Authority *providers.Authority `json:"authority,omitempty"`
}

// Acknowledgement is a party's word that it has a bundle.
type Acknowledgement struct {
	Party string    `json:"party"`
	At    time.Time `json:"at"`
}

// leave remembers what a target serves that is no longer in the policy.
func (r *Record) leave(t TargetRecord) {
	for i := range r.Issued {
		r.Issued[i].Left = r.Issued[i].Left || t.Active != nil && t.Active.Fingerprint == r.Issued[i].Info.Fingerprint
	}
}

// inForce is the newest certificate that the issuer made as it was asked; nil for none.
func (r *Record) inForce() *Issue {
	i := slices.IndexFunc(r.Issued, func(i Issue) bool { return !i.Rejected && i.SupersededAt.IsZero() })
	if i < 0 {
		return nil
	}
	return &r.Issued[i]
}

// Placed is one bundle at one target.
type Placed struct {
	Handle      providers.Handle  `json:"handle"`
	Fingerprint certs.Fingerprint `json:"fingerprint"`
	NotBefore   time.Time         `json:"not_before,omitzero"`
	NotAfter    time.Time         `json:"not_after,omitzero"`
	// Since is when it became what it is listed as.
	Since time.Time `json:"since"`
	// Owned says that rotatord made it.
	Owned bool `json:"owned"`
	// InUse says that it was last seen to be served by something.
	InUse bool `json:"in_use,omitempty"`
}

// Intent is an effect that was about to be made.
type Intent struct {
	Step        StepKind          `json:"step"`
	Target      string            `json:"target"`
	Fingerprint certs.Fingerprint `json:"fingerprint"`
	Handle      providers.Handle  `json:"handle,omitempty"`
	At          time.Time         `json:"at"`
}

// DriftKind is a way in which what is served differs from what was verified.
type DriftKind string

// The kinds of drift.
const (
	// DriftBinding: an endpoint is bound to another certificate.
	DriftBinding DriftKind = "binding"
	// DriftEdited: the files of a directory are not what was written there.
	DriftEdited DriftKind = "edited"
	// DriftMissing: the certificate object is gone.
	DriftMissing DriftKind = "missing"
	// DriftServed: the binding is right, a handshake shows something else.
	DriftServed DriftKind = "served"
)

// DriftKinds are all kinds, for pre-creating metric series.
func DriftKinds() []DriftKind {
	return []DriftKind{DriftBinding, DriftEdited, DriftMissing, DriftServed}
}

// State is where an assignment stands.
type State string

// The states, from the one that needs no attention to those that need it most.
const (
	StateConverged   State = "converged"   // every target serves what is wanted, proven
	StateWaiting     State = "waiting"     // something is to be done, not now
	StatePaused      State = "paused"      // something is to be done, and somebody holds the policy
	StateBraked      State = "braked"      // too much changes at once; it waits for a confirmation
	StateRotating    State = "rotating"    // steps are being made
	StateQuarantined State = "quarantined" // the source's files are broken; the last good bundle stays
	StateUnconverged State = "unconverged" // activated and not yet seen to be served
	StateFailed      State = "failed"      // a step failed, or is refused
	StateExpired     State = "expired"     // what is wanted has expired
)

// States are all states, for pre-creating metric series.
func States() []State {
	return []State{StateConverged, StateWaiting, StatePaused, StateBraked, StateRotating, StateQuarantined, StateUnconverged, StateFailed, StateExpired}
}
