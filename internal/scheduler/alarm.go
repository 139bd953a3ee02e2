// Package scheduler is about when: calendars say when something may be done, an alarm
// wakes what asked to be woken.
//
// It may import the standard library and robfig/cron. It knows ids and times, not certificates:
// what an id means and what is done about it is its caller's business.
//
// Invariants: one goroutine and one timer whatever the number of ids; an id is
// pending at most once; what is due fires even after the wall clock jumped or the
// machine slept, because no sleep is longer than maxSleep, and after the wall clock was
// set back, because what is pending moves with it.
package scheduler

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// maxSleep bounds a sleep. Timers run on the monotonic clock, which stands still
// during suspend and knows nothing of a corrected wall clock. Each wake-up asks the
// wall clock what is due, so the bound is how late an alarm can be after the clock was
// set forward or the machine slept.
const maxSleep = 30 * time.Second

// maxSetBack is how far the wall clock may be set back without an alarm taking notice. Beyond
// it, what is pending moves back with the clock: whoever asked for a few minutes gets a few
// minutes, and whoever asked for a time of day is woken early, once, and asks again.
const maxSetBack = time.Minute

// Alarm remembers for each id when it wants to be looked at again. The methods may
// be called by any goroutine.
type Alarm struct {
	mu      sync.Mutex
	pending pendingHeap
	byID    map[string]*entry
	// changed has room for one: the earliest time may have moved.
	changed chan struct{}
	// clock is readClock, but for tests in which the clock jumps.
	clock func() reading
}

// reading is what two clocks show at one moment: the wall clock, and one that nobody sets.
type reading struct {
	wall    time.Time
	running time.Duration
}

// readClock reads the clocks of this process.
func readClock(start time.Time) reading {
	now := time.Now()
	return reading{wall: now.Round(0), running: now.Sub(start)}
}

type entry struct {
	id    string
	at    time.Time
	index int // in the heap
}

// NewAlarm returns an Alarm with nothing pending.
func NewAlarm() *Alarm {
	start := time.Now()
	return &Alarm{byID: map[string]*entry{}, changed: make(chan struct{}, 1), clock: func() reading { return readClock(start) }}
}

// Set makes id fire at the given wall-clock time, instead of any time set before. A
// zero time means never.
func (a *Alarm) Set(id string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setLocked(id, at)
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *Alarm) setLocked(id string, at time.Time) {
	e, ok := a.byID[id]
	switch {
	case at.IsZero() && ok:
		heap.Remove(&a.pending, e.index)
		delete(a.byID, id)
	case at.IsZero():
	case ok:
		e.at = at.Round(0) // without a monotonic reading, times compare by the wall clock
		heap.Fix(&a.pending, e.index)
	default:
		e = &entry{id: id, at: at.Round(0)}
		a.byID[id] = e
		heap.Push(&a.pending, e)
	}
}

// Len is how many ids are pending.
func (a *Alarm) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending)
}

// Next is the earliest time at which an id is due; zero when none is pending.
func (a *Alarm) Next() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) == 0 {
		return time.Time{}
	}
	return a.pending[0].at
}

// Run calls fire with each id that is due, once, in the order of their times, until
// ctx ends. fire is called by one goroutine at a time and may call Set. beat, if not
// nil, is called at every wake-up, thus at least every 30 seconds while fire returns:
// the sign of life of whoever runs the alarm.
func (a *Alarm) Run(ctx context.Context, fire func(id string), beat func()) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for last := a.clock(); ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.changed:
		}
		if beat != nil {
			beat()
		}
		now := a.clock()
		a.follow(last, now)
		last = now
		for _, id := range a.takeDue(now.wall) {
			if ctx.Err() != nil {
				return
			}
			fire(id)
		}
		timer.Reset(a.untilNext(a.clock().wall))
	}
}

// follow moves what is pending back if the wall clock was set back between two readings.
func (a *Alarm) follow(last, now reading) {
	back := now.running - last.running - now.wall.Sub(last.wall)
	if back <= maxSetBack {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.pending {
		e.at = e.at.Add(-back) // all of them: their order stays
	}
}

func (a *Alarm) takeDue(now time.Time) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var due []string
	for len(a.pending) > 0 && !a.pending[0].at.After(now) {
		e := heap.Pop(&a.pending).(*entry)
		delete(a.byID, e.id)
		due = append(due, e.id)
	}
	return due
}

func (a *Alarm) untilNext(now time.Time) time.Duration {
	next := a.Next()
	if next.IsZero() {
		return maxSleep
	}
	return min(max(next.Sub(now), 0), maxSleep)
}

// pendingHeap is a container/heap by time; entries know their places.
type pendingHeap []*entry

func (h pendingHeap) Len() int           { return len(h) }
func (h pendingHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h pendingHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *pendingHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *pendingHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
