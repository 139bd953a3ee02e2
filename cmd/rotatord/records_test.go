package main

import (
	"context"
	"errors"
	"testing"

	"github.com/rotatord/rotatord/internal/rotation"
)

// Whoever publishes the events of holds hears of those that came with the journal, and again of
// those that could not be published.
func TestEventsOfHoldsAreNotForgotten(t *testing.T) {
	r := newRecords(func(rotation.ID, rotation.Record) {}, func() {})
	heard := func(what string) {
		t.Helper()
		select {
		case <-r.unpublished:
		default:
			t.Errorf("nobody hears of %s", what)
		}
	}
	r.putHold("api", mirroredHold{heldRecord{}, 1})
	if len(r.unpublished) != 0 {
		t.Error("a hold without events is to be published")
	}
	r.putHold("shop", mirroredHold{heldRecord{Outbox: []rotation.Event{{}}}, 2})
	heard("an event that came")
	if err := r.publishHolds(t.Context(), func(context.Context, rotation.Event) error { return errors.New("no stream") }); err == nil {
		t.Error("publishing did not fail")
	}
	heard("an event that could not be published")
}
