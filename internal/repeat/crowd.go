package repeat

import (
	"sync"
	"time"
)

// few is how many things that fail for the same cause are each told aloud.
const few = 5

// Crowds are things that fail, each for a cause that it may share with others: a service that is
// away fails thousands at once, and who reads the log wants to know that, once, and of how many. The
// zero value is empty. Its methods may be called by any goroutine.
type Crowds[C, K comparable] struct {
	mu  sync.Mutex
	all map[C]*crowd[K]
	in  map[K]C
}

// crowd are those that fail for one cause.
type crowd[K comparable] struct {
	members map[K]struct{}
	// next is the size at which it is told of again, told when it last was.
	next int
	told time.Time
}

// Join notes that something fails for a cause. together is how many do now, first whether it did not
// yet. aloud reports whether it is to be told for all to hear: the first few are, of the others the
// tenth, the hundredth and so on, for all of them, and whoever is met an hour after that.
func (c *Crowds[C, K]) Join(cause C, of K) (together int, aloud, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, in := c.in[of]; in && was != cause {
		c.leaveLocked(of)
	}
	if c.all == nil {
		c.all, c.in = map[C]*crowd[K]{}, map[K]C{}
	}
	g := c.all[cause]
	if g == nil {
		g = &crowd[K]{members: map[K]struct{}{}, next: 2 * few}
		c.all[cause] = g
	}
	_, known := g.members[of]
	g.members[of], c.in[of] = struct{}{}, cause
	together = len(g.members)
	aloud = together <= few || time.Since(g.told) >= Every
	if together >= g.next {
		aloud, g.next = true, 10*g.next
	}
	if aloud {
		g.told = time.Now()
	}
	return together, aloud, !known
}

// Leave notes that something does not fail any more, or for a cause that it does not share.
func (c *Crowds[C, K]) Leave(of K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked(of)
}

func (c *Crowds[C, K]) leaveLocked(of K) {
	cause, in := c.in[of]
	if !in {
		return
	}
	delete(c.in, of)
	delete(c.all[cause].members, of)
	if len(c.all[cause].members) == 0 {
		delete(c.all, cause)
	}
}
