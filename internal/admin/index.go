package admin

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// index is everything that was known at one moment, ordered, for all who ask at that moment. It
// does not change.
type index struct {
	status Status
	// unread is why status does not tell all yet; nil when it does.
	unread error
	made   time.Time
	// until is when another one may be made, changed is closed when that is worth it.
	until   time.Time
	changed <-chan struct{}
	// rows are the assignments, by urgency.
	rows []row
	// states counts assignments by state, ending those whose life is nearly over,
	// and not quite.
	states map[string]int
	ending int
	// byName finds an assignment in rows, policies a policy.
	byName   map[assignmentName]int
	policies map[string]PolicyStates
	sorted   sync.Map // of order to rows
}

type assignmentName struct{ policy, certificate string }

// row is an assignment with what it is sorted by.
type row struct {
	*Assignment
	rank int
	// life is the share of its life that the wanted bundle had left at the full hour, 1 where
	// there is none.
	life float64
}

const (
	// shortLife is the share of its life, and shortTime the time, below both of which a bundle
	// ends soon. The alert CertificateExpiring has the same.
	shortLife = 0.15
	shortTime = 30 * 24 * time.Hour
)

// lifeLeft is the share of a bundle's life that is left.
func lifeLeft(b *Bundle, now time.Time) float64 {
	life := b.NotAfter.Sub(b.NotBefore)
	if life <= 0 {
		return 0
	}
	return max(0, min(1, float64(b.NotAfter.Sub(now))/float64(life)))
}

// endsSoon reports whether it is time for the next bundle.
func endsSoon(b *Bundle, now time.Time) bool {
	return lifeLeft(b, now) < shortLife && b.NotAfter.Sub(now) < shortTime
}

// newIndex orders what a reader tells.
func newIndex(reader Reader) *index {
	now := time.Now()
	x := &index{changed: reader.Changed(), made: now, states: map[string]int{}, byName: map[assignmentName]int{}, policies: map[string]PolicyStates{}}
	x.unread, x.status = reader.Unread(), reader.Status()    // in this order: what was read stays so
	ranks, hour := map[string]int{}, now.Truncate(time.Hour) // within it the order stays, for who goes from page to page
	for i, state := range Urgency() {
		ranks[state] = 2 * i
	}
	for _, p := range x.status.Policies {
		x.policies[p.Name] = PolicyStates{p, map[string]int{}}
	}
	for i := range x.status.Assignments {
		a := &x.status.Assignments[i]
		r := row{a, ranks[a.State], 1}
		if a.Wanted != nil {
			r.life = lifeLeft(a.Wanted, hour)
			if endsSoon(a.Wanted, hour) {
				x.ending += bit(a.State != "expired")   // which is said already
				r.rank = min(r.rank, ranks["braked"]+1) // before all that is going well
			}
		}
		x.rows = append(x.rows, r)
		x.states[a.State]++
		if p, known := x.policies[a.Policy]; known {
			p.States[a.State]++
		}
	}
	slices.SortFunc(x.rows, byUrgency)
	for i, r := range x.rows {
		x.byName[assignmentName{r.Policy, r.Certificate}] = i
	}
	// What it took bounds how much of the processor all askers together can have.
	x.until = time.Now().Add(restFactor * time.Since(now))
	return x
}

func byName(a, b row) int {
	return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Certificate, b.Certificate))
}

func byUrgency(a, b row) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.life, b.life), byName(a, b))
}

// byExpiry puts first what expires first, and what has no bundle last.
func byExpiry(a, b row) int {
	switch {
	case a.Wanted == nil || b.Wanted == nil:
		if order := cmp.Compare(bit(a.Wanted == nil), bit(b.Wanted == nil)); order != 0 {
			return order
		}
		return byName(a, b)
	}
	return cmp.Or(a.Wanted.NotAfter.Compare(b.Wanted.NotAfter), byName(a, b))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// orders are the ways to sort, by their names in queries.
func orders() map[string]func(a, b row) int {
	return map[string]func(a, b row) int{"urgency": byUrgency, "name": byName, "expires": byExpiry}
}

// by returns all rows in an order. It is worked out once.
func (x *index) by(order string) []row {
	if order == "urgency" {
		return x.rows
	}
	if rows, done := x.sorted.Load(order); done {
		return rows.([]row)
	}
	rows := slices.SortedFunc(slices.Values(x.rows), orders()[order])
	x.sorted.Store(order, rows)
	return rows
}

const (
	// restFactor is how many times as long as making it took an index is kept at least.
	restFactor = 4
	// staleAfter is the age at which an index is made anew although nothing was said to have
	// changed: clocks go on, and a connection may be lost.
	staleAfter = 5 * time.Second
	// keptFor is how long the last index stays in memory when nobody asks.
	keptFor = time.Minute
)

// indexes hands out the newest index.
type indexes struct {
	reader Reader
	mu     sync.Mutex
	last   *index
	forget *time.Timer
}

func newIndexes(reader Reader) *indexes {
	return &indexes{reader: reader}
}

// newest returns the index of now, or of a moment ago.
func (i *indexes) newest() *index {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.forget == nil {
		i.forget = time.AfterFunc(keptFor, i.drop)
	}
	i.forget.Reset(keptFor)
	if now := time.Now(); i.last == nil || now.After(i.last.until) && i.last.outdated(now) {
		i.last = newIndex(i.reader)
	}
	return i.last
}

func (i *indexes) drop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last = nil
}

func (x *index) outdated(now time.Time) bool {
	select {
	case <-x.changed:
		return true
	default:
		return now.Sub(x.made) > staleAfter
	}
}
