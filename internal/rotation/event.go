package rotation

import (
	"fmt"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// EventKind is the last part of an event's type and subject.
type EventKind string

// The events of this engine.
const (
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
)

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
	Policy      string            `json:"policy"`
	Certificate string            `json:"certificate"`
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
}

// HoldEvent tells that a policy is held, or, with a nil hold, that it is not any more.
func HoldEvent(policy, by string, hold *Hold, now time.Time) Event {
	e := Event{ID: fmt.Sprintf("%s-hold-%d", policy, now.UnixNano()), Kind: EventResumed, Time: now.UTC(), Data: EventData{Policy: policy, By: by}}
	if hold != nil {
		e.Kind, e.Data.Reason = EventPaused, hold.Reason
		if !hold.Until.IsZero() {
			e.Data.Reason = strings.TrimPrefix(e.Data.Reason+"; until "+clock(hold.Until), "; ")
		}
	}
	return e
}

// tell puts an event into the record's outbox. It leaves with the next write, and is
// published after it: an event that was heard did happen.
func (r *run) tell(kind EventKind, d EventData) {
	d.Policy, d.Certificate, d.By = r.o.ID.Policy, r.o.ID.Certificate, r.by
	if d.Fingerprint.IsZero() {
		d.Fingerprint = r.o.wants()
	}
	if d.Fingerprint == r.o.wants() && r.o.Wanted != nil {
		d.NotAfter = r.o.Wanted.Info.NotAfter
	}
	record := &r.o.Record
	record.Sequence++
	record.Outbox = append(record.Outbox, Event{
		ID: fmt.Sprintf("%s/%s-%d-%d", d.Policy, d.Certificate, record.Sequence, r.now().UnixMilli()), Kind: kind, Time: r.now().UTC(), Data: d,
	})
}
