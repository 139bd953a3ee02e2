package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Trigger is one message that asks for a look.
type Trigger struct {
	// Policy is set for <prefix>.trigger.<policy>; otherwise Subject tells.
	Policy  string
	Subject string
	// Certificate narrows the look to one; empty for all of the policy.
	Certificate string
	// Reason is the sender's words.
	Reason string
	// Force asks for a rotation even where nothing is due.
	Force bool
	// Confirm releases the brake.
	Confirm bool
	// At is when the stream took the message: the same each time it is delivered.
	At time.Time
	// Problem is what was wrong with the payload. The trigger stands all the same: it
	// only says "look", and looking is safe.
	Problem string
	// Acknowledgement is what a relying party said, for a message on <prefix>.ack.<policy>;
	// nil for all others.
	Acknowledgement *Acknowledgement
	// Done acknowledges the message. It is called once, when the work that the trigger
	// means is in the queue, by any goroutine.
	Done func()
}

const (
	// triggerAckWait is how long a trigger may wait for its place in the queue before
	// the server offers it again. It is kept alive while it waits.
	triggerAckWait = 30 * time.Second
	triggerBeat    = 10 * time.Second
	// triggerPulse is how often the server says that it still has us as a listener.
	triggerPulse     = 2 * time.Second
	maxTriggersAhead = 10_000
	// inactiveNode is when the server forgets a node that never came back.
	inactiveNode = 30 * 24 * time.Hour
)

// Acknowledgement is a relying party's word that it has a certificate.
type Acknowledgement struct {
	Certificate string `json:"certificate"`
	// Fingerprint is the SHA-256 of the leaf, in hexadecimal.
	Fingerprint string `json:"fingerprint"`
	Party       string `json:"party"`
}

// Triggers calls handle for each trigger and each acknowledgement, in order, until ctx ends. Every node hears
// every trigger, those sent while it was down included. It returns early, with an
// error, when the server has lost the stream; Prepare makes it again.
func (b *Bus) Triggers(ctx context.Context, handle func(Trigger)) error {
	consumer, err := b.js.CreateOrUpdateConsumer(ctx, b.names.triggerStream(), jetstream.ConsumerConfig{
		Durable:           b.triggerConsumer(),
		Description:       "Triggers as heard by rotatord on " + b.cfg.Node,
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           triggerAckWait,
		MaxAckPending:     maxTriggersAhead,
		InactiveThreshold: inactiveNode,
	})
	if err != nil {
		return fmt.Errorf("subscribe to triggers: %w", err)
	}
	options := []jetstream.PullMessagesOpt{jetstream.PullHeartbeat(triggerPulse)}
	if b.server != nil {
		options = []jetstream.PullMessagesOpt{jetstream.PullHeartbeat(embeddedPulse), jetstream.PullExpiry(embeddedWait)}
	}
	messages, err := consumer.Messages(options...)
	if err != nil {
		return fmt.Errorf("subscribe to triggers: %w", err)
	}
	defer messages.Stop()
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		m, err := messages.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) || errors.Is(err, jetstream.ErrConsumerDeleted) {
			return fmt.Errorf("listen to triggers: %w", err)
		}
		if err != nil {
			// The iterator heals by itself after a lost connection.
			b.log.Debug("waiting for triggers", "err", err)
			if err := gone(ctx, consumer); err != nil {
				return err
			}
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			continue
		}
		t := b.parseTrigger(m.Subject(), m.Headers().Get("ce-specversion"), m.Data())
		if facts, err := m.Metadata(); err == nil {
			t.At = facts.Timestamp
		}
		kind := "trigger"
		if t.Acknowledgement != nil {
			kind = "ack"
		}
		stopBeat := b.beat(waiting, m, triggerBeat)
		t.Done = func() {
			stopBeat()
			b.ack(m, kind)
		}
		handle(t)
	}
}

func (b *Bus) ack(m jetstream.Msg, subject string) {
	if err := m.Ack(); err != nil {
		b.cfg.Meter.Message(subject, "failed")
		b.log.Debug("acknowledgement failed; the message will come again", "subject", m.Subject(), "err", err)
		return
	}
	b.cfg.Meter.Message(subject, "ack")
}

// payload is what a trigger may say, also as the data of a CloudEvent.
type payload struct {
	Certificate string `json:"certificate"`
	Reason      string `json:"reason"`
	Force       bool   `json:"force"`
	Confirm     bool   `json:"confirm"`
}

// parseTrigger reads an empty payload, the JSON object, or a CloudEvent in structured
// or binary mode (CloudEvents 1.0, NATS protocol binding).
func (b *Bus) parseTrigger(subject, ceHeader string, data []byte) Trigger {
	t := Trigger{Subject: subject}
	text, event, err := unwrap(ceHeader, data)
	if policy, ok := b.names.acknowledgedPolicy(subject); ok {
		t.Policy, t.Acknowledgement = policy, &Acknowledgement{}
		switch {
		case err == nil && text == "":
			err = errors.New("empty; want certificate, fingerprint and party")
		case err == nil:
			err = decodePayload(text, t.Acknowledgement, !event)
		}
		t.Problem = textOf(err)
		return t
	}
	if policy, ok := b.names.policyOf(subject); ok {
		t.Policy = policy
	}
	if err != nil || text == "" || event && !strings.HasPrefix(text, "{") {
		t.Problem = textOf(err)
		return t // empty, or somebody else's event: it says that something happened, no more
	}
	var p payload
	if err := decodePayload(text, &p, !event); err != nil {
		t.Problem = textOf(err)
		return t
	}
	t.Certificate, t.Reason, t.Force, t.Confirm = p.Certificate, cut(p.Reason, 200), p.Force, p.Confirm
	return t
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return "payload: " + err.Error()
}

// unwrap returns the JSON object of a payload, or the data of a CloudEvent; empty for an
// empty payload.
func unwrap(ceHeader string, data []byte) (text string, event bool, err error) {
	text = strings.TrimSpace(string(data))
	if text == "" || ceHeader != "" {
		return text, ceHeader != "", nil
	}
	if !strings.HasPrefix(text, "{") {
		return "", false, errors.New("neither empty nor a JSON object")
	}
	var envelope struct {
		SpecVersion string          `json:"specversion"`
		Data        json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return "", false, fmt.Errorf("not JSON: %w", err)
	}
	if envelope.SpecVersion != "" {
		return string(envelope.Data), true, nil
	}
	return text, false, nil
}

// decodePayload is strict with our own form, so that a misspelt "force" is not taken
// for false in silence, and lenient with the data of other people's events.
func decodePayload(body string, p any, strict bool) error {
	d := json.NewDecoder(strings.NewReader(body))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(p); err != nil {
		return err
	}
	if strict && d.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}

func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// beat tells the server every now and then, until stop or the end of ctx, that the
// message is in hand.
func (b *Bus) beat(ctx context.Context, m jetstream.Msg, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause(ctx, every) == nil {
			if err := m.InProgress(); err != nil {
				b.log.Debug("heartbeat of a message failed", "subject", m.Subject(), "err", err)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}
