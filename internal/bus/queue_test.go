package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// model is the server and its workers as the queue sees them: it has one place for
// each assignment and refuses while that is taken.
type model struct {
	queue *Queue
	// tell is whether the worker is of this node, which hears when a place is free.
	tell bool

	mu       sync.Mutex
	away     bool
	offers   int
	offering map[ID]int
	places   map[ID]bool
	looks    map[ID][]look
	// accepted is when the server last took work for each.
	accepted map[ID]int64
	problems []string
}

// taken is when the server last took work for an assignment.
func (m *model) taken(id ID) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted[id]
}

func (m *model) problem(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

// look is what a worker did, in the order of a common count.
type look struct {
	started int64
	force   bool
}

// count orders triggers and looks without a clock: fake time stands still.
type count struct {
	mu sync.Mutex
	n  int64
}

func (c *count) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

var errAway = errors.New("the server is away")

func newModel(order *count, latency, work func() time.Duration) *model {
	m := &model{tell: true, offering: map[ID]int{}, places: map[ID]bool{}, looks: map[ID][]look{}, accepted: map[ID]int64{}}
	m.queue = newQueue(func(ctx context.Context, w Work) error { return m.offer(order, latency, work, w) })
	return m
}

// offer takes latency, as the network does; the work itself then takes its own time.
func (m *model) offer(order *count, latency, work func() time.Duration, w Work) error {
	m.mu.Lock()
	m.offers++
	m.offering[w.ID]++
	if m.offering[w.ID] > 1 {
		m.problems = append(m.problems, fmt.Sprintf("%s was offered twice at once", w.ID))
	}
	m.mu.Unlock()
	time.Sleep(latency())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offering[w.ID]--
	switch {
	case m.away:
		return errAway
	case m.places[w.ID]:
		return errOccupied
	}
	m.places[w.ID] = true
	m.accepted[w.ID] = order.next()
	go m.look(order, work(), w)
	return nil
}

func (m *model) look(order *count, takes time.Duration, w Work) {
	// The worker begins when the message reaches it.
	m.mu.Lock()
	m.looks[w.ID] = append(m.looks[w.ID], look{order.next(), w.Force})
	m.mu.Unlock()
	time.Sleep(takes)
	m.mu.Lock()
	m.places[w.ID] = false
	m.mu.Unlock()
	if m.tell {
		m.queue.Freed(w.ID)
	}
}

func (m *model) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// trigger is one Enqueue and what became of it.
type trigger struct {
	ids      []ID
	asked    int64
	force    bool
	accepted int
}

func TestQueueKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var (
			triggers = rapid.IntRange(1, 60).Draw(rt, "triggers")
			ids      = rapid.IntRange(1, 4).Draw(rt, "ids")
			tell     = rapid.Bool().Draw(rt, "workers of this node")
			outage   = rapid.Bool().Draw(rt, "outage")
			seed     = rapid.Uint64().Draw(rt, "seed")
		)
		synctest.Test(t, func(*testing.T) {
			var lock sync.Mutex
			random := rand.New(rand.NewPCG(seed, 0))
			upTo := func(limit time.Duration) func() time.Duration {
				return func() time.Duration {
					lock.Lock()
					defer lock.Unlock()
					return time.Duration(random.Int64N(int64(limit)))
				}
			}
			var order count
			m := newModel(&order, upTo(20*time.Millisecond), upTo(300*time.Millisecond))
			m.tell = tell
			m.away = outage
			ctx, cancel := context.WithCancel(context.Background())
			go m.queue.Run(ctx)

			sent := make([]*trigger, triggers)
			var mu sync.Mutex // of the triggers' accepted
			gap := upTo(50 * time.Millisecond)
			for i := range sent {
				time.Sleep(gap())
				n := int(gap())
				tr := &trigger{ids: []ID{{"p", fmt.Sprint(n % ids)}}, force: gap() < 5*time.Millisecond}
				topic := ""
				switch n / ids % 3 {
				case 0:
					topic = tr.ids[0].String()
				case 1: // all of them
					topic, tr.ids = "all", nil
					for id := range ids {
						tr.ids = append(tr.ids, ID{"p", fmt.Sprint(id)})
					}
				}
				sent[i] = tr
				tr.asked = order.next()
				var all []Work
				for _, id := range tr.ids {
					all = append(all, Work{ID: id, Force: tr.force, Asked: time.Now()})
				}
				m.queue.EnqueueAll(topic, all, func() {
					mu.Lock()
					defer mu.Unlock()
					tr.accepted++
					for _, id := range tr.ids {
						if m.taken(id) < tr.asked {
							m.problem("trigger %d was accepted before the server had work for %s", i, id)
						}
					}
				})
			}
			m.setAway(false)
			time.Sleep(time.Minute)
			synctest.Wait()
			cancel()
			synctest.Wait()

			if n := m.queue.len(); n != 0 || len(m.queue.last) != 0 {
				rt.Fatalf("%d assignments still wait, and %d topics", n, len(m.queue.last))
			}
			if len(m.problems) > 0 {
				rt.Fatal(m.problems)
			}
			forced := map[ID]int{}
			for i, tr := range sent {
				if tr.accepted != 1 {
					rt.Fatalf("trigger %d was accepted %d times", i, tr.accepted)
				}
				for _, id := range tr.ids {
					if !slices.ContainsFunc(m.looks[id], func(l look) bool { return l.started > tr.asked && (l.force || !tr.force) }) {
						rt.Fatalf("no look at %s began after trigger %d (force %v)", id, i, tr.force)
					}
					if tr.force {
						forced[id]++
					}
				}
			}
			for id, looks := range m.looks {
				n := 0
				for _, l := range looks {
					if l.force {
						n++
					}
				}
				if n > forced[id] {
					rt.Fatalf("%s was forced %d times and rotated by force %d times", id, forced[id], n)
				}
			}
		})
	})
}

// accepted must not be called before the server has the work: what it acknowledges
// would be lost with the process.
func TestQueueAcceptsOnlyAfterTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := make(chan error)
		q := newQueue(func(context.Context, Work) error { return <-answers })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		accepted := 0
		q.Enqueue(Work{ID: ID{"p", "c"}}, func() { accepted++ })
		for _, answer := range []error{errAway, errOccupied, errAway} {
			synctest.Wait()
			answers <- answer
			synctest.Wait()
			if accepted != 0 || q.len() != 1 {
				t.Fatalf("after %v: accepted %d times, %d waiting", answer, accepted, q.len())
			}
		}
		answers <- nil
		synctest.Wait()
		if accepted != 1 || q.len() != 0 {
			t.Errorf("accepted %d times, %d waiting", accepted, q.len())
		}
	})
}

// The trigger that comes while an offer is on its way may have come after the worker
// looked, so it needs a look of its own; but the force of the first is used up.
// A forced trigger that was heard before a crash comes again, after a newer one: the newer
// one is what is to be answered.
func TestQueueForcedAgainDoesNotHideTheNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offered []Work
		refuse := true
		q := newQueue(func(_ context.Context, w Work) error {
			if refuse {
				return errOccupied
			}
			offered = append(offered, w)
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		old, id := time.Now(), ID{"p", "c"}
		time.Sleep(time.Minute)
		newer := time.Now()
		accepted := 0
		for _, asked := range []time.Time{newer, old, newer.Add(-time.Second)} {
			q.Enqueue(Work{ID: id, Force: true, Asked: asked}, func() { accepted++ })
			synctest.Wait()
		}
		refuse = false
		q.Freed(id)
		synctest.Wait()
		if len(offered) != 1 || !offered[0].Force || !offered[0].Asked.Equal(newer) || accepted != 3 {
			t.Errorf("offered %+v for %d triggers, want the newer one once, for all three", offered, accepted)
		}
	})
}

func TestQueueTriggerDuringOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offers []Work
		answers := make(chan error)
		q := newQueue(func(_ context.Context, w Work) error {
			offers = append(offers, w)
			return <-answers
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		id := ID{"p", "c"}
		accepted := []string{}
		q.Enqueue(Work{ID: id, Trigger: "manual", Force: true}, func() { accepted = append(accepted, "first") })
		synctest.Wait()
		q.Enqueue(Work{ID: id, Trigger: "file"}, func() { accepted = append(accepted, "second") })
		answers <- nil
		synctest.Wait()
		if !slices.Equal(accepted, []string{"first"}) {
			t.Errorf("accepted after the first offer: %v", accepted)
		}
		answers <- nil
		synctest.Wait()
		if want := []Work{{ID: id, Trigger: "manual", Force: true}, {ID: id, Trigger: "file"}}; !slices.Equal(offers, want) {
			t.Errorf("offered %+v, want %+v", offers, want)
		}
		if !slices.Equal(accepted, []string{"first", "second"}) {
			t.Errorf("accepted: %v", accepted)
		}
	})
}

// A worker on another node does not tell when it is done, and other assignments keep
// this queue busy all the time: refused work must have its turn all the same.
func TestQueueRefusedWorkIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, busy := ID{"p", "slow"}, ID{"p", "busy"}
		occupiedUntil := time.Now().Add(3 * time.Second)
		took := make(chan time.Time, 1)
		q := newQueue(func(_ context.Context, w Work) error {
			if w.ID == slow && time.Now().Before(occupiedUntil) {
				return errOccupied
			}
			if w.ID == slow {
				took <- time.Now()
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		q.Enqueue(Work{ID: slow}, nil)
		var others sync.WaitGroup
		defer others.Wait()
		defer cancel()
		others.Go(func() {
			for pause(ctx, 100*time.Millisecond) == nil {
				q.Enqueue(Work{ID: busy}, nil)
			}
		})
		select {
		case at := <-took:
			if late := at.Sub(occupiedUntil); late > 2*offerAgain {
				t.Errorf("offered again %s after the place was free", late)
			}
		case <-time.After(time.Minute):
			t.Error("not offered again for a minute")
		}
	})
}

func TestQueueOffersAtOnceWhenThePlaceIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Bool
		took := make(chan time.Time, 1)
		q := newQueue(func(context.Context, Work) error {
			if !free.Load() {
				return errOccupied
			}
			took <- time.Now()
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		q.Enqueue(Work{ID: ID{"p", "c"}}, nil)
		time.Sleep(10*time.Second + 300*time.Millisecond)
		free.Store(true)
		since := time.Now()
		q.Freed(ID{"p", "c"})
		q.Freed(ID{"p", "unknown"})
		if late := (<-took).Sub(since); late != 0 {
			t.Errorf("offered %s after the place was free", late)
		}
	})
}

// The worker is done while an offer is on its way that the server has refused already: it is
// offered again at once, not after a while.
func TestQueueFreedDuringTheOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := ID{"p", "c"}
		var offers atomic.Int32
		refused, answered, took := make(chan bool), make(chan bool), make(chan time.Time, 1)
		q := newQueue(func(context.Context, Work) error {
			if offers.Add(1) > 1 {
				took <- time.Now()
				return nil
			}
			close(refused)
			<-answered
			return errOccupied
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		q.Enqueue(Work{ID: id}, nil)
		<-refused
		q.Freed(id)
		since := time.Now()
		close(answered)
		if late := (<-took).Sub(since); late != 0 {
			t.Errorf("offered %s after the place was free", late)
		}
		synctest.Wait()
		if q.len() != 0 || offers.Load() != 2 {
			t.Errorf("%d wait after %d offers", q.len(), offers.Load())
		}
	})
}

// When the place of very many is occupied by workers that tell nothing, each is offered again in
// its turn, and the server is not kept busy with refusing.
func TestQueueManyRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const assignments = 5 * maxAgain
		var offers atomic.Int64
		var free atomic.Bool
		offered := map[ID]int{}
		q := newQueue(func(_ context.Context, w Work) error {
			offers.Add(1)
			if free.Load() {
				return nil
			}
			offered[w.ID]++
			return errOccupied
		})
		for i := range assignments {
			q.Enqueue(Work{ID: ID{"p", fmt.Sprint(i)}}, nil)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		time.Sleep(10*offerAgain + offerAgain/2)
		synctest.Wait()
		if n := offers.Load(); n != assignments+10*maxAgain {
			t.Errorf("%d offers in ten seconds, want %d", n, assignments+10*maxAgain)
		}
		for id, n := range offered {
			if n != 1+2 { // as it came, and twice in its turn
				t.Errorf("%s was offered %d times", id, n)
			}
		}
		// What comes meanwhile does not wait for them.
		free.Store(true)
		before := offers.Load()
		q.Enqueue(Work{ID: ID{"p", "new"}}, nil)
		synctest.Wait()
		if n := offers.Load() - before; n != 1 {
			t.Errorf("%d offers for one new trigger", n)
		}
		time.Sleep(5 * offerAgain)
		synctest.Wait()
		if q.len() != 0 {
			t.Errorf("%d still wait", q.len())
		}
	})
}

// With the server away one offer a try is enough to find out.
func TestQueueServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const assignments = 100
		var away atomic.Bool
		away.Store(true)
		var offers atomic.Int64
		accepted := map[ID]bool{}
		q := newQueue(func(context.Context, Work) error {
			offers.Add(1)
			if away.Load() {
				return errAway
			}
			return nil
		})
		for i := range assignments {
			id := ID{"p", fmt.Sprint(i)}
			q.Enqueue(Work{ID: id}, func() { accepted[id] = true })
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go q.Run(ctx)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := offers.Load(); n > 62 {
			t.Errorf("%d offers in a minute to a server that is away", n)
		}
		away.Store(false)
		time.Sleep(offerAgain)
		synctest.Wait()
		if len(accepted) != assignments || q.len() != 0 {
			t.Errorf("%d of %d accepted, %d wait", len(accepted), assignments, q.len())
		}
	})
}

func TestQueueFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ids, triggers = 1000, 100_000
		var order count
		none := func() time.Duration { return 0 }
		m := newModel(&order, none, func() time.Duration { return time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range triggers {
			m.queue.Enqueue(Work{ID: ID{"p", fmt.Sprint(i % ids)}, Force: i == 77_777}, nil)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
			t.Errorf("%d triggers for %d assignments hold %d bytes", triggers, ids, grown)
		}
		go m.queue.Run(ctx)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if m.offers != ids {
			t.Errorf("%d offers for %d assignments", m.offers, ids)
		}
		if len(m.looks) != ids {
			t.Errorf("%d assignments were looked at, want %d", len(m.looks), ids)
		}
		if l := m.looks[ID{"p", "777"}]; len(l) != 1 || !l[0].force {
			t.Errorf("the forced one was looked at so: %+v", l)
		}
		for id := range maps.Keys(m.looks) {
			if len(m.looks[id]) != 1 {
				t.Errorf("%s was looked at %d times", id, len(m.looks[id]))
			}
		}
	})
}

func (q *Queue) len() int {
	n, _ := q.Waiting()
	return n
}

// Of the triggers that lead to one look the one counts that has it look closest: a request
// from outside is not to end in a look at what is in memory because a start came first.
func TestQueueUrgency(t *testing.T) {
	var offered []string
	q := newQueue(func(_ context.Context, w Work) error {
		offered = append(offered, w.Trigger)
		return nil
	})
	id := ID{"p", "c"}
	before := time.Now()
	q.Enqueue(Work{ID: id, Trigger: "startup"}, nil)
	q.Enqueue(Work{ID: id, Trigger: "nats", Urgency: 2}, nil)
	q.Enqueue(Work{ID: id, Trigger: "drift", Urgency: 1}, nil)
	q.Enqueue(Work{ID: id, Trigger: "manual", Urgency: 2}, nil)
	if n, since := q.Waiting(); n != 1 || since.Before(before) || since.After(time.Now()) {
		t.Errorf("%d wait since %s", n, since)
	}
	q.offerAll(t.Context(), false)
	if !slices.Equal(offered, []string{"nats"}) {
		t.Errorf("offered %v", offered)
	}
	if n, since := q.Waiting(); n != 0 || !since.IsZero() {
		t.Errorf("%d wait since %s", n, since)
	}
}
