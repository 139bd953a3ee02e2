package main

import (
	"context"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/rotation"
)

// comparisonWait is after which time a comparison that was offered no longer counts as under
// way: a paused policy's leaves no trace in its record.
const comparisonWait = time.Minute

// comparisons offers the regular comparisons of what is converged (drift.every) a few at a time.
// The work queue is worked on in its order: ten thousand of them that are due in one minute, as
// of assignments that began together, would stand before a renewal that comes a second later.
// Its methods are safe for concurrent use.
type comparisons struct {
	// offer puts one into the queue, room is how many may be there at a time.
	offer func(rotation.ID)
	room  func() int

	mu      sync.Mutex
	waiting []rotation.ID // in order; those that are not in waits any more are passed over
	waits   map[rotation.ID]bool
	// underWay are those that were offered, and when.
	underWay map[rotation.ID]time.Time
	kick     chan struct{}
}

func newComparisons(offer func(rotation.ID), room func() int) *comparisons {
	return &comparisons{offer: offer, room: room, waits: map[rotation.ID]bool{}, underWay: map[rotation.ID]time.Time{}, kick: make(chan struct{}, 1)}
}

// due has an assignment compared in its turn.
func (c *comparisons) due(id rotation.ID) {
	c.mu.Lock()
	if !c.waits[id] {
		c.waiting, c.waits[id] = append(c.waiting, id), true
	}
	c.mu.Unlock()
	c.wake()
}

// looked says that somebody, here or on another node, has looked at an assignment. It need not
// be compared any more until its next alarm.
func (c *comparisons) looked(id rotation.ID) {
	c.mu.Lock()
	_, ours := c.underWay[id]
	delete(c.underWay, id)
	delete(c.waits, id)
	c.mu.Unlock()
	if ours {
		c.wake()
	}
}

func (c *comparisons) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// run offers until ctx ends.
func (c *comparisons) run(ctx context.Context) {
	for {
		var forgotten <-chan time.Time
		if c.offerSome(time.Now()) {
			forgotten = time.After(comparisonWait)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		case <-forgotten:
		}
	}
}

// offerSome offers as many as there is room for, and reports whether others wait.
func (c *comparisons) offerSome(now time.Time) (more bool) {
	for _, id := range c.next(now) {
		c.offer(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) > 0
}

func (c *comparisons) next(now time.Time) []rotation.ID {
	room := c.room()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, at := range c.underWay {
		if now.Sub(at) >= comparisonWait {
			delete(c.underWay, id)
		}
	}
	var some []rotation.ID
	for len(c.waiting) > 0 && len(c.underWay) < room {
		id := c.waiting[0]
		c.waiting = c.waiting[1:]
		if c.waits[id] {
			delete(c.waits, id)
			c.underWay[id] = now
			some = append(some, id)
		}
	}
	if len(c.waiting) == 0 {
		c.waiting = nil // and with it the room that thousands took
	}
	return some
}
