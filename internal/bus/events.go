package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rotatord/rotatord/internal/audit"
)

// Event is a CloudEvent 1.0 that rotatord publishes on
// <prefix>.event.<policy>.<kind>.
type Event struct {
	// ID makes the event unique; publishing the same one again is recognised by the
	// server for an hour.
	ID string
	// Kind is the last part of the type: issued, deployed, converged, ...
	Kind   string
	Policy string
	// Subject is what it is about: "policy/certificate", or a policy.
	Subject string
	Time    time.Time
	// Data is the event's own JSON object.
	Data any
}

// cloudEvent is the structured JSON form (CloudEvents 1.0, JSON event format 1.0).
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}

// Publish sends an event and returns when the server has stored it.
func (b *Bus) Publish(ctx context.Context, e Event) error {
	body, err := json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: "/rotatord/" + b.cfg.Node, Type: audit.TypePrefix + e.Kind,
		Subject: e.Subject, Time: e.Time.UTC(), DataContentType: "application/json", Data: e.Data,
	})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	m := nats.NewMsg(b.names.event(Token(e.Policy), e.Kind))
	m.Data = body
	m.Header.Set("Content-Type", "application/cloudevents+json")
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, m, jetstream.WithMsgID(e.ID))
	if err != nil {
		b.cfg.Meter.Message("event", "failed")
		return fmt.Errorf("publish event %s of %s: %w", e.Kind, e.Subject, err)
	}
	if ack.Duplicate {
		b.cfg.Meter.Message("event", "duplicate")
	} else {
		b.cfg.Meter.Message("event", "published")
	}
	return nil
}
