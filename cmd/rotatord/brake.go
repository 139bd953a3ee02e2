package main

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	// brakeWindow is the time whose changes are counted.
	brakeWindow = time.Hour
	// brakeFloor is how many changes an hour are never too large a share: a policy or two
	// that change together are no mass change, however few there are.
	brakeFloor = 10
	// brakeFresh is for how long a count is good: ten thousand assignments that ask at once
	// are answered by a few. Where there is much to count it is good for longer, brakeShare
	// times what it took and no more than brakeStale: what passes here counts at once anyway.
	brakeFresh = 100 * time.Millisecond
	brakeShare = 50
	brakeStale = 2 * time.Second
)

// brake counts how much of what is served was replaced lately, in the whole cluster: the
// records are everybody's.
type brake struct {
	limits  policy.Brake
	records interface {
		changedSince(since time.Time) (changed map[rotation.ID]bool, all int)
	}

	mu sync.Mutex
	// fresh is until when the count is good.
	fresh time.Time
	// changed are the assignments of which something was replaced within the window.
	changed map[rotation.ID]bool
	total   int
	// passed are those that were let pass here, and when: their records may not say so yet.
	passed map[rotation.ID]time.Time
}

// setLimits changes the limits.
func (b *brake) setLimits(limits policy.Brake) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits = limits
}

// rehearsal is a brake that answers like this one and whose answers do not count.
func (b *brake) rehearsal() *brake {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &brake{limits: b.limits, records: b.records, passed: maps.Clone(b.passed)}
}

// ask says why one more change has to wait for a confirmation; empty: it may be made. What
// it lets pass counts at once. What changed already may change again: it is how many are
// touched that makes a mass change.
func (b *brake) ask(id rotation.ID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.After(b.fresh) {
		b.changed, b.total = b.records.changedSince(now.Add(-brakeWindow))
		counted := time.Now()
		b.fresh = counted.Add(min(max(brakeFresh, brakeShare*counted.Sub(now)), brakeStale))
		for id, at := range b.passed {
			if now.Sub(at) > brakeWindow {
				delete(b.passed, id)
				continue
			}
			b.changed[id] = true
		}
	}
	if b.changed[id] {
		return ""
	}
	const how = "; confirm it (rotatord rotate POLICY --confirm, or a trigger with {\"confirm\": true}), or take it back"
	n, share := len(b.changed), float64(b.limits.MaxShare)/100*float64(b.total)
	switch {
	case n >= *b.limits.MaxPerHour:
		return fmt.Sprintf("%d certificates were replaced within an hour, and brake.max_per_hour is %d%s", n, *b.limits.MaxPerHour, how)
	case n >= brakeFloor && float64(n) >= share:
		return fmt.Sprintf("%d of %d certificates were replaced within an hour, and brake.max_share is %s%s", n, b.total, b.limits.MaxShare, how)
	}
	if b.passed == nil {
		b.passed = map[rotation.ID]time.Time{}
	}
	b.changed[id], b.passed[id] = true, now
	return ""
}
