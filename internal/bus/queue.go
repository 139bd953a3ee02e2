package bus

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Queue is the way into the work queue. Everything that wants a look ends in its
// Enqueue, and it keeps four promises: an assignment is never worked on twice at once,
// many triggers become one look, a trigger that comes while the assignment is being
// worked on leads to one more look, and none is forgotten while the process lives.
type Queue struct {
	offer func(context.Context, Work) error

	mu sync.Mutex
	// dirty holds what was asked for and not yet offered, or offered and refused.
	dirty map[ID]*pendingWork
	// offering is 1 while an offer is on its way; what is offered is not in dirty then,
	// so that triggers that come meanwhile make an entry of their own.
	offering int
	// kick has room for one: there is something new to offer.
	kick chan struct{}
}

type pendingWork struct {
	work Work
	// accepted are called when the server has the work.
	accepted []func()
	// occupied: the server refused it at the last offer; it is offered again when the
	// worker is done, or after a while.
	occupied bool
}

// merge adds what was heard later. It need not have been asked for later: a message that was
// delivered once before comes among new ones, and a worker that is told its time takes the
// work for done.
func (p *pendingWork) merge(later *pendingWork) {
	if later.work.Force && (!p.work.Force || later.work.Asked.After(p.work.Asked)) {
		p.work.Force, p.work.Asked = true, later.work.Asked
	}
	p.work.Confirm = p.work.Confirm || later.work.Confirm
	p.accepted = append(p.accepted, later.accepted...)
}

// offerAgain is how often refused work is offered again when it is not known when the
// worker, perhaps on another node, will be done.
const offerAgain = time.Second

// NewQueue returns the queue of a bus.
func NewQueue(b *Bus) *Queue { return newQueue(b.offer) }

func newQueue(offer func(context.Context, Work) error) *Queue {
	return &Queue{offer: offer, dirty: map[ID]*pendingWork{}, kick: make(chan struct{}, 1)}
}

// Enqueue asks for a look at w.ID. It returns at once; accepted, which may be nil, is
// called when the request is safe in the queue.
func (q *Queue) Enqueue(w Work, accepted func()) {
	q.mu.Lock()
	later := &pendingWork{work: w}
	if accepted != nil {
		later.accepted = []func(){accepted}
	}
	if p, ok := q.dirty[w.ID]; ok {
		p.merge(later)
	} else {
		q.dirty[w.ID] = later
	}
	q.mu.Unlock()
	q.wake()
}

// Freed says that the assignment's place in the queue is free.
func (q *Queue) Freed(id ID) {
	q.mu.Lock()
	p, ok := q.dirty[id]
	if ok {
		p.occupied = false
	}
	q.mu.Unlock()
	if ok {
		q.wake()
	}
}

// Len is how many assignments wait for a place.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.dirty) + q.offering
}

func (q *Queue) wake() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// Run offers what is dirty until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	// again is not pushed back by new triggers: a steady stream of them must not keep
	// refused work waiting.
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.kick:
			q.offerAll(ctx, false)
		case <-again:
			again = nil
			q.offerAll(ctx, true)
		}
		if again == nil && q.Len() > 0 {
			again = time.After(offerAgain)
		}
	}
}

// offerAll offers everything that is dirty; what was refused before only if occupied
// is set. It stops at the first failure of the server: the rest would fail too.
func (q *Queue) offerAll(ctx context.Context, occupied bool) {
	for _, id := range q.waiting(occupied) {
		p := q.take(id)
		err := q.offer(ctx, p.work)
		if err == nil {
			q.settle(p)
			continue
		}
		refused := errors.Is(err, errOccupied)
		q.putBack(p, refused)
		if !refused {
			return
		}
	}
}

// waiting lists what can be offered, the oldest first.
func (q *Queue) waiting(occupied bool) []ID {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make([]Work, 0, len(q.dirty))
	for p := range maps.Values(q.dirty) {
		if occupied || !p.occupied {
			all = append(all, p.work)
		}
	}
	slices.SortFunc(all, func(a, b Work) int { return a.Asked.Compare(b.Asked) })
	ids := make([]ID, len(all))
	for i, w := range all {
		ids[i] = w.ID
	}
	return ids
}

// take removes an entry for the time of its offer. Only offerAll removes entries.
func (q *Queue) take(id ID) *pendingWork {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.dirty[id]
	delete(q.dirty, id)
	q.offering = 1
	return p
}

// settle ends the offer of work that the server has. A trigger that came while the
// offer was on its way stays dirty: a fast worker may have looked before it.
func (q *Queue) settle(p *pendingWork) {
	q.mu.Lock()
	q.offering = 0
	q.mu.Unlock()
	for _, f := range p.accepted {
		f()
	}
}

// putBack ends an offer that failed.
func (q *Queue) putBack(p *pendingWork, occupied bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.offering = 0
	p.occupied = occupied
	if later, ok := q.dirty[p.work.ID]; ok {
		p.merge(later)
	}
	q.dirty[p.work.ID] = p
}
