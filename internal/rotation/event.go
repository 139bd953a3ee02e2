package rotation

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/certs"
)

// EventSchema is the JSON Schema (draft 2020-12) of every event, as CloudEvents in JSON.
//
//go:embed event.schema.json
var EventSchema []byte

// EventKind is the last part of an event's type and subject.
type EventKind string

// The events of this engine.
const (
	EventPlanned     EventKind = "planned"     // what is to be done was decided, or what holds it back
	EventIssued      EventKind = "issued"      // the policy's issuer made a new certificate
	EventStarted     EventKind = "started"     // the first change of a rotation is about to be made
	EventDeployed    EventKind = "deployed"    // a target holds the bundle; nothing serves it yet
	EventActivated   EventKind = "activated"   // a target's endpoints are bound to the bundle
	EventVerified    EventKind = "verified"    // handshakes showed the bundle
	EventConverged   EventKind = "converged"   // every target serves what is wanted, proven
	EventFailed      EventKind = "failed"      // a step failed, or is refused
	EventExpiring    EventKind = "expiring"    // what is served ends soon: windows no longer hold
	EventRolledBack  EventKind = "rolled_back" // a bundle was not served; its predecessor is again
	EventBraked      EventKind = "braked"      // too much changes at once; confirm
	EventRetired     EventKind = "retired"     // a superseded certificate was removed
	EventDrifted     EventKind = "drifted"     // what is served changed without us
	EventRepaired    EventKind = "repaired"    // and is as it should be again
	EventQuarantined EventKind = "quarantined" // the source's files are broken
	EventPaused      EventKind = "paused"      // somebody holds the policy
	EventResumed     EventKind = "resumed"     // and no longer does
	EventReloaded    EventKind = "reloaded"    // a policy came into force, changed, or went
)

// EventKinds are all kinds.
func EventKinds() []EventKind {
	return []EventKind{
		EventPlanned, EventIssued, EventStarted, EventDeployed, EventActivated, EventVerified, EventConverged, EventFailed, EventExpiring, EventRolledBack,
		EventBraked, EventRetired, EventDrifted, EventRepaired, EventQuarantined, EventPaused, EventResumed, EventReloaded,
	}
}

// Outcome is how what an event tells of ended.
type Outcome string

// The outcomes.
const (
	OutcomeOK      Outcome = "ok"      // it was done, or is about to be
	OutcomeHeld    Outcome = "held"    // it waits: for a window, a confirmation, a party
	OutcomeRefused Outcome = "refused" // it is not done, for what was asked for is not right
	OutcomeFailed  Outcome = "failed"  // it was tried, and failed
	OutcomeFound   Outcome = "found"   // nobody did it: it was found to be so
)

// outcomes are those of the kinds that end in one way only, where it is not OutcomeOK.
var outcomes = map[EventKind]Outcome{
	EventFailed: OutcomeFailed, EventBraked: OutcomeHeld, EventQuarantined: OutcomeRefused, EventDrifted: OutcomeFound, EventExpiring: OutcomeFound,
}

// Event is something that happened to an assignment.
type Event struct {
	// ID is the same whenever the same event is published again.
	ID   string    `json:"id"`
	Kind EventKind `json:"kind"`
	Time time.Time `json:"time"`
	Data EventData `json:"data"`
}

// EventData is what listeners get.
type EventData struct {
	Policy string `json:"policy"`
	// Certificate is empty for what is about a policy as a whole.
	Certificate string  `json:"certificate,omitempty"`
	Outcome     Outcome `json:"outcome"`
	// Step is the step that was made, or failed; Steps are those that were decided on.
	Step        StepKind          `json:"step,omitempty"`
	Steps       []string          `json:"steps,omitempty"`
	Fingerprint certs.Fingerprint `json:"fingerprint,omitzero"`
	// Previous is what was served before.
	Previous  certs.Fingerprint `json:"previous,omitzero"`
	NotAfter  time.Time         `json:"not_after,omitzero"`
	Target    string            `json:"target,omitempty"`
	Endpoints []string          `json:"endpoints,omitempty"`
	Trigger   string            `json:"trigger,omitempty"`
	// By is who asked for it, where somebody did.
	By string `json:"by,omitempty"`
	// CertificatePEM is the public certificate, where others have to be given it.
	CertificatePEM string `json:"certificate_pem,omitempty"`
	// Reason says why, in words.
	Reason string `json:"reason,omitempty"`
	// RequestIDs are what the services called the requests by which something was changed, or
	// tried to.
	RequestIDs []string `json:"request_ids,omitempty"`
	// PolicySHA256 is the hash of the policy's file as it was in force.
	PolicySHA256 string `json:"policy_sha256,omitempty"`
	// Chain binds the event to the one before it.
	Chain audit.Link `json:"chain"`
}

// Type is the event's type as others see it.
func (e Event) Type() string { return audit.TypePrefix + string(e.Kind) }

// Subject is what the event is about: a certificate of a policy, or a policy.
func (e Event) Subject() string { return SubjectOf(e.Data.Policy, e.Data.Certificate) }

// SubjectOf is the subject of the events of a certificate, or, without one, of a policy.
func SubjectOf(policy, certificate string) string {
	return strings.TrimSuffix(policy+"/"+certificate, "/")
}

// sealed is the event with an id, bound to the one that the head names, and the head that it
// becomes.
func (e Event) sealed(head audit.Head, node string) (Event, audit.Head, error) {
	e.Data.Chain = head.Next()
	e.Data.Chain.Node = node
	data, err := json.Marshal(e.Data)
	if err != nil {
		return e, head, fmt.Errorf("encode event: %w", err)
	}
	content, err := audit.ContentOf(audit.Entry{Type: e.Type(), Subject: e.Subject(), Time: e.Time, Data: data})
	if err != nil {
		return e, head, err
	}
	hash, err := content.Hash("")
	if err != nil {
		return e, head, err
	}
	// Made of what it says: an id that two different events had would cost one of them.
	e.ID = fmt.Sprintf("%s-%d-%s", audit.Key(e.Subject(), node), e.Data.Chain.Sequence, hash[:16])
	if e.Data.Chain.Hash, err = content.Hash(e.ID); err != nil {
		return e, head, err
	}
	return e, audit.Head{Sequence: e.Data.Chain.Sequence, Hash: e.Data.Chain.Hash, At: e.Time}, nil
}

// HoldEvent tells that a policy is held, or, with a nil hold, that it is not any more. It
// follows the policy's event that head names, and returns the head that it becomes.
func HoldEvent(policy, policySHA256, by string, hold *Hold, now time.Time, head audit.Head) (Event, audit.Head, error) {
	d := EventData{Policy: policy, Trigger: string(TriggerManual), By: by, PolicySHA256: policySHA256}
	if hold == nil {
		return policyEvent(EventResumed, d, now, head)
	}
	d.Reason = hold.Reason
	if !hold.Until.IsZero() {
		d.Reason = strings.TrimPrefix(d.Reason+"; until "+clock(hold.Until), "; ")
	}
	return policyEvent(EventPaused, d, now, head)
}

// ReloadEvent tells what became of a policy when the configuration was read again, by whom if
// somebody asked for it. It is like HoldEvent for the rest.
func ReloadEvent(policy, policySHA256, by, reason string, now time.Time, head audit.Head) (Event, audit.Head, error) {
	d := EventData{Policy: policy, Trigger: string(TriggerPolicy), By: by, Reason: reason, PolicySHA256: policySHA256}
	if by != "" {
		d.Trigger = string(TriggerManual)
	}
	return policyEvent(EventReloaded, d, now, head)
}

// policyEvent is about a policy as a whole.
func policyEvent(kind EventKind, d EventData, now time.Time, head audit.Head) (Event, audit.Head, error) {
	d.Outcome = OutcomeOK
	return Event{Kind: kind, Time: now.UTC(), Data: d}.sealed(head, "")
}

// tell puts an event into the record's outbox. It leaves with the next write, and is
// published after it: an event that was heard did happen.
func (r *run) tell(kind EventKind, d EventData) {
	record := &r.o.Record
	d.Policy, d.Certificate, d.By, d.PolicySHA256 = r.o.ID.Policy, r.o.ID.Certificate, r.by, r.policySHA256
	if d.Fingerprint.IsZero() {
		d.Fingerprint = r.o.wants()
	}
	if d.Fingerprint == r.o.wants() && r.o.Wanted != nil {
		d.NotAfter = r.o.Wanted.Info.NotAfter
	}
	d.Trigger = cmp.Or(d.Trigger, string(r.trigger))
	d.Outcome = cmp.Or(d.Outcome, outcomes[kind], OutcomeOK)
	d.RequestIDs = append(d.RequestIDs, r.requests.Take()...)
	e, head, err := Event{Kind: kind, Time: r.now().UTC(), Data: d}.sealed(record.Head, r.node)
	if err != nil {
		r.log.Error("event cannot be sealed", "event", kind, "err", err)
	}
	outbox, lost := Enqueue(record.Outbox, e)
	if lost > 0 {
		r.log.Error("events are lost: they could not be published, and there are too many of them", "event", record.Outbox[0].Kind, "times", lost)
	}
	record.Head, record.Outbox = head, outbox
}

// maxOutbox is how many events wait to be published. A stream that takes none must not keep
// certificates from being rotated, nor policies from being held: what is too large cannot be
// written.
const maxOutbox = 100

// Enqueue puts an event at the end of an outbox, and says how many of the oldest had to go.
func Enqueue(outbox []Event, e Event) (_ []Event, lost int) {
	outbox = append(outbox, e)
	lost = max(0, len(outbox)-maxOutbox)
	return outbox[lost:], lost
}

// decide tells what was decided, where that is news. An operator, or whoever forces, hears of it
// even if it is none, or led to nothing; a plain trigger, of which there may be thousands, is
// answered by what it leads to.
func (r *run) decide(steps []Step) {
	if r.decided {
		return
	}
	r.decided = true
	record := &r.o.Record
	asked := r.by != "" && (r.trigger == TriggerManual || r.o.Force)
	d := decision(steps, r.o.wants())
	text := short(r.o.wants()) + ": " + strings.Join(d.Steps, ", ")
	switch {
	case len(d.Steps) > 0 && (asked || text != record.Decided):
	case len(d.Steps) == 0 && asked && r.answers.After(record.Answered):
		d.Reason = "nothing is to be done now"
	default:
		return
	}
	record.Decided = text
	r.tell(EventPlanned, d)
}

// decision is what a plan means to do, or what holds it back. Of the brake there is an event of
// its own.
func decision(steps []Step, wanted certs.Fingerprint) EventData {
	d := EventData{Outcome: OutcomeHeld}
	for _, s := range steps {
		_, holds := deferrals[s.Cause]
		var text string
		switch {
		case s.changes():
			d.Outcome = OutcomeOK
			text = fmt.Sprintf("%s %s %s", s.Kind, s.Target, of(s, wanted))
		case s.Kind == StepWait && holds && s.Cause != CauseBraked:
			text = fmt.Sprintf("hold %s (%s)", s.Target, s.Cause)
		default:
			continue
		}
		d.Steps = append(d.Steps, strings.Join(strings.Fields(text), " "))
		d.Reason = cmp.Or(d.Reason, s.Reason)
	}
	if len(d.Steps) == 0 {
		d.Outcome = OutcomeOK
	}
	return d
}

// of is which bundle a step is about, where it is not the wanted one.
func of(s Step, wanted certs.Fingerprint) string {
	if s.Fingerprint == wanted {
		return ""
	}
	return short(s.Fingerprint)
}
