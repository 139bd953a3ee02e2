package bus

import (
	"cmp"
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
	// dirty holds what was asked for and not yet offered, or offered and refused; ready are
	// those of them that the server did not refuse.
	dirty, ready map[ID]*pendingWork
	// last is the latest request of each topic that is not accepted yet.
	last map[string]*request
	// offering is what is on its way to the server, or nil. It is not in dirty then, so that
	// triggers that come meanwhile make an entry of their own.
	offering *pendingWork
	// kick has room for one: there is something new to offer.
	kick chan struct{}
}

type pendingWork struct {
	work Work
	// since is when the first of what asks for it came here.
	since time.Time
	// requests wait for the server to have the work. Each is there once, and of each topic
	// only the first: the later ones wait for that.
	requests []*request
	// refused is when the server refused it, for the place was occupied; zero if it did not. It
	// is offered again when the worker is done, or after a while.
	refused time.Time
	// freed: the worker was done while the offer was on its way, which may have come too early.
	freed bool
}

// ask adds what was heard later. It need not have been asked for later: a message that was
// delivered once before comes among new ones, and a worker that is told its time takes the
// work for done.
func (p *pendingWork) ask(later Work) {
	if later.Urgency > p.work.Urgency {
		p.work.Trigger, p.work.Urgency = later.Trigger, later.Urgency
	}
	if later.Force && (!p.work.Force || later.Asked.After(p.work.Asked)) {
		p.work.Force, p.work.Asked = true, later.Asked
	}
	if later.Newest.After(p.work.Newest) {
		p.work.Newest = later.Newest
	}
	if later.By != "" {
		p.work.By, p.work.Reason = later.By, later.Reason
	}
	p.work.Confirm = p.work.Confirm || later.Confirm
}

// follow has a request wait for the work, unless it does already by waiting for an earlier
// one of its topic.
func (p *pendingWork) follow(r *request) (added bool) {
	if slices.ContainsFunc(p.requests, func(other *request) bool { return other.topic != "" && other.topic == r.topic }) {
		return false
	}
	p.requests = append(p.requests, r)
	return true
}

// request is what was asked for at once.
type request struct {
	topic    string
	accepted func()
	// left is how much it waits for: work, and the request of its topic before it, whose
	// next it is.
	left int
	next *request
}

const (
	// offerAgain is how often refused work is offered again when it is not known when the
	// worker, perhaps on another node, will be done.
	offerAgain = time.Second
	// maxAgain is for how much of it: when everything is asked for twice, the place of most is
	// occupied, and the workers of this node say themselves when they are done.
	maxAgain = 200
)

// NewQueue returns the queue of a bus.
func NewQueue(b *Bus) *Queue { return newQueue(b.offer) }

func newQueue(offer func(context.Context, Work) error) *Queue {
	return &Queue{offer: offer, dirty: map[ID]*pendingWork{}, ready: map[ID]*pendingWork{}, last: map[string]*request{}, kick: make(chan struct{}, 1)}
}

// Enqueue asks for a look at w.ID. It returns at once; accepted, which may be nil, is
// called when the request is safe in the queue.
func (q *Queue) Enqueue(w Work, accepted func()) {
	q.EnqueueAll("", []Work{w}, accepted)
}

// EnqueueAll asks for several looks at once; accepted is called when all of them are safe
// in the queue. Requests of one topic mean the same assignments: they are accepted in their
// order, and any number of them that wait for the same looks take no more room than one for
// each look. An empty topic is nobody's.
func (q *Queue) EnqueueAll(topic string, all []Work, accepted func()) {
	r := &request{topic: topic, accepted: accepted, left: 1} // itself, until everything is entered
	q.mu.Lock()
	if before := q.last[topic]; before != nil {
		before.next, r.left = r, r.left+1
	}
	if topic != "" {
		q.last[topic] = r
	}
	for _, w := range all {
		p, ok := q.dirty[w.ID]
		if !ok {
			p = &pendingWork{work: w, since: time.Now()}
			q.dirty[w.ID], q.ready[w.ID] = p, p
		}
		p.ask(w)
		if accepted != nil && p.follow(r) {
			r.left++
		}
	}
	done := q.releaseLocked(r, nil)
	q.mu.Unlock()
	q.wake()
	for _, f := range done {
		f()
	}
}

// releaseLocked takes one thing off what a request waits for, and adds to done what is to be
// called because nothing is left.
func (q *Queue) releaseLocked(r *request, done []func()) []func() {
	for ; r != nil; r = r.next {
		if r.left--; r.left > 0 {
			break
		}
		if r.accepted != nil {
			done = append(done, r.accepted)
		}
		if q.last[r.topic] == r {
			delete(q.last, r.topic)
		}
	}
	return done
}

// Freed says that the assignment's place in the queue is free.
func (q *Queue) Freed(id ID) {
	q.mu.Lock()
	p, ok := q.dirty[id]
	if ok {
		p.refused, q.ready[id] = time.Time{}, p
	}
	if q.offering != nil && q.offering.work.ID == id {
		q.offering.freed = true
	}
	q.mu.Unlock()
	if ok {
		q.wake()
	}
}

// Waiting is how many assignments of this process wait for a place in the queue, and since
// when the first of them; zero for none.
func (q *Queue) Waiting() (n int, since time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.offering != nil {
		n, since = 1, q.offering.since
	}
	for p := range maps.Values(q.dirty) {
		if n++; since.IsZero() || p.since.Before(since) {
			since = p.since
		}
	}
	return n, since
}

// idle reports whether nothing waits.
func (q *Queue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.dirty) == 0 && q.offering == nil
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
		if again == nil && !q.idle() {
			again = time.After(offerAgain)
		}
	}
}

// offerAll offers everything that is ready, and with again some of what was refused. It stops
// at the first failure of the server: the rest would fail too.
func (q *Queue) offerAll(ctx context.Context, again bool) {
	for _, id := range q.waiting(again) {
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
func (q *Queue) waiting(again bool) []ID {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := slices.AppendSeq(make([]*pendingWork, 0, len(q.ready)), maps.Values(q.ready))
	if again {
		all = append(all, q.longestRefusedLocked()...)
	}
	slices.SortFunc(all, func(a, b *pendingWork) int { return a.work.Asked.Compare(b.work.Asked) })
	ids := make([]ID, len(all))
	for i, p := range all {
		ids[i] = p.work.ID
	}
	return ids
}

// longestRefusedLocked are those that the server refused the longest ago: each has its turn.
func (q *Queue) longestRefusedLocked() (refused []*pendingWork) {
	for p := range maps.Values(q.dirty) {
		if !p.refused.IsZero() {
			refused = append(refused, p)
		}
	}
	slices.SortFunc(refused, func(a, b *pendingWork) int {
		return cmp.Or(a.refused.Compare(b.refused), a.work.Asked.Compare(b.work.Asked))
	})
	return refused[:min(len(refused), maxAgain)]
}

// take removes an entry for the time of its offer. Only offerAll removes entries.
func (q *Queue) take(id ID) *pendingWork {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.dirty[id]
	delete(q.dirty, id)
	delete(q.ready, id)
	q.offering, p.freed = p, false
	return p
}

// settle ends the offer of work that the server has. A trigger that came while the
// offer was on its way stays dirty: a fast worker may have looked before it.
func (q *Queue) settle(p *pendingWork) {
	var done []func()
	q.mu.Lock()
	q.offering = nil
	for _, r := range p.requests {
		done = q.releaseLocked(r, done)
	}
	q.mu.Unlock()
	for _, f := range done {
		f()
	}
}

// putBack ends an offer that failed, or was refused.
func (q *Queue) putBack(p *pendingWork, refused bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.offering = nil
	if later, ok := q.dirty[p.work.ID]; ok {
		p.ask(later.work)
		for _, r := range later.requests {
			if !p.follow(r) {
				r.left-- // and it is not the last: one before it waits here
			}
		}
	}
	q.dirty[p.work.ID] = p
	if refused && !p.freed {
		p.refused = time.Now()
		delete(q.ready, p.work.ID)
		return
	}
	p.refused, q.ready[p.work.ID] = time.Time{}, p
	if refused {
		q.wake()
	}
}
