package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	// acknowledgementsAhead is how many are taken in before the first is written down.
	acknowledgementsAhead = 256
	// acknowledgeAgain is the pause after a worker changed the record at the same moment.
	acknowledgeAgain = 50 * time.Millisecond
)

// listen hears triggers and acknowledgements until ctx ends. Acknowledgements wait for
// the journal; triggers do not wait for them.
func (d *daemon) listen(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	heard := make(chan bus.Trigger, acknowledgementsAhead)
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case t := <-heard:
				d.acknowledged(ctx, t)
			}
		}
	})
	g.Go(func() error {
		return d.bus.Triggers(ctx, func(t bus.Trigger) {
			if t.Acknowledgement == nil {
				d.triggered(t)
				return
			}
			select {
			case heard <- t:
			case <-ctx.Done():
			}
		})
	})
	return g.Wait()
}

// acknowledged handles a relying party's message. It is done with when it stands in the
// record, or when it never will.
func (d *daemon) acknowledged(ctx context.Context, t bus.Trigger) {
	a := t.Acknowledgement
	part := d.inForce().parts[t.Policy]
	if part == nil {
		d.log.Debug("acknowledgement for a policy that is not here", "policy", t.Policy, "party", a.Party)
		t.Done()
		return
	}
	log := d.log.With("policy", t.Policy, "party", a.Party, "fingerprint", a.Fingerprint)
	id, f, problem := readAcknowledgement(t, part)
	if problem != "" {
		log.Warn("acknowledgement that cannot be used; its party has to send it again", "err", problem)
		t.Done()
		return
	}
	for {
		taken, reason, err := d.engine.Acknowledge(ctx, id, f, a.Party)
		switch {
		case ctx.Err() != nil:
			return // it is heard again
		case err == nil && !taken:
			log.Warn("acknowledgement that nobody waits for", "reason", reason)
			t.Done()
			return
		case err == nil:
			log.Info("acknowledgement heard")
			d.enqueue(id, rotation.TriggerNATS, wish{}, t.Done)
			return
		}
		again := tryAgain
		if errors.Is(err, rotation.ErrConflict) {
			again = acknowledgeAgain
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// readAcknowledgement says which assignment and which certificate are meant, or what is
// wrong with the message.
func readAcknowledgement(t bus.Trigger, part *part) (id rotation.ID, f certs.Fingerprint, problem string) {
	if t.Problem != "" {
		return id, f, t.Problem
	}
	f, err := certs.ParseFingerprint(t.Acknowledgement.Fingerprint)
	if err != nil {
		return id, f, err.Error()
	}
	id = rotation.ID{Policy: t.Policy, Certificate: t.Acknowledgement.Certificate}
	if id.Certificate == "" {
		if names := part.source.names(); len(names) == 1 {
			id.Certificate = names[0]
		}
	}
	return id, f, ""
}
