package rotation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Listing is what endpoints a target has, for policies that say covered. It is read from
// the service once for all assignments that share it, and again when it has grown old. It is
// safe for concurrent use.
type Listing struct {
	lister  providers.Lister
	reading chan struct{} // has room for whoever reads it

	mu    sync.Mutex
	names []string // sorted
	at    time.Time
	took  time.Duration
	// later are those who went on with what was known while it was being read.
	later map[listed]func(changed []string)
}

// listed is a target of an assignment.
type listed struct {
	ID
	target string
}

// NewListing returns a Listing that has not been read yet.
func NewListing(l providers.Lister) *Listing {
	return &Listing{lister: l, reading: make(chan struct{}, 1), later: map[listed]func([]string){}}
}

// fresh returns the endpoints as they were at some time at most maxAge ago, or, of a list that
// takes longer to be read, as they were for as long as that took. Others wait for who reads it.
func (l *Listing) fresh(ctx context.Context, maxAge time.Duration) ([]string, error) {
	if names, young := l.known(maxAge); young {
		return names, nil
	}
	select {
	case l.reading <- struct{}{}:
		return l.read(ctx, maxAge)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// atOnce is fresh for somebody who does not wait while others read the list: it then returns
// the endpoints as they were before. If there are others when it has been read, later is told
// which came or went; of several for one target of one assignment it is the last that counts.
func (l *Listing) atOnce(ctx context.Context, maxAge time.Duration, who listed, later func(changed []string)) ([]string, error) {
	if names, young := l.known(maxAge); young {
		return names, nil
	}
	select {
	case l.reading <- struct{}{}:
		return l.read(ctx, maxAge)
	default:
	}
	l.mu.Lock()
	before := l.names
	wait := l.at.IsZero() // for the first of all
	if !wait {
		l.later[who] = later
	}
	l.mu.Unlock()
	if wait {
		return l.fresh(ctx, maxAge)
	}
	return before, nil
}

// known is what was read last, and whether that is no older than it may be.
func (l *Listing) known(maxAge time.Duration) (names []string, young bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names, !l.at.IsZero() && time.Since(l.at) <= max(maxAge, l.took)
}

// read asks the service, for whoever holds the place, and gives that back. Those who went on
// without are told; where there is no answer they wait for the next.
func (l *Listing) read(ctx context.Context, maxAge time.Duration) ([]string, error) {
	defer func() { <-l.reading }()
	if names, young := l.known(maxAge); young {
		return names, nil // somebody else has read it meanwhile
	}
	began := time.Now()
	names, err := l.lister.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	names = slices.Sorted(slices.Values(names))
	l.mu.Lock()
	before, later := l.names, l.later
	l.names, l.at, l.took = names, time.Now(), time.Since(began)
	l.later = map[listed]func([]string){}
	l.mu.Unlock()
	if changed := difference(before, names); len(changed) > 0 {
		for _, tell := range later {
			tell(changed)
		}
	}
	return names, nil
}

// difference is what is in one of two sorted lists and not in the other.
func difference(a, b []string) (only []string) {
	for len(a) > 0 && len(b) > 0 {
		switch strings.Compare(a[0], b[0]) {
		case 0:
			a, b = a[1:], b[1:]
		case -1:
			only, a = append(only, a[0]), a[1:]
		default:
			only, b = append(only, b[0]), b[1:]
		}
	}
	return slices.Concat(only, a, b)
}

// burst is how old a listing may be for somebody who asks for a look now: ten triggers
// at once are answered by one listing.
const burst = 10 * time.Second

// listEndpoints works out the endpoints of a target whose policy says covered, once in a look
// at the assignment. An assignment that has been served somewhere does not wait while others
// read the list, which of many endpoints takes a minute, and longer while the service is not
// well: it goes on with those that are known, and is looked at again if the list then says
// otherwise.
func (r *run) listEndpoints(ctx context.Context, v *View) error {
	if v.listed {
		return nil
	}
	names, err := r.list(ctx, v.Name)
	if err != nil {
		return err
	}
	v.listed = true
	d := r.assembly.divided(v.Name, names)
	v.Endpoints, v.Unlisted, v.Orphans = d.mine[r.o.ID.Certificate], false, nil
	v.Endpoints = slices.Concat(v.Endpoints, d.unlisted(r.o.ID.Certificate, r.o.target(v.Name).Endpoints))
	slices.Sort(v.Endpoints)
	// Hosts that nobody covers are none of the policy's business, unless they were served
	// by this assignment: then the bundle lost their names.
	for _, name := range r.o.target(v.Name).Endpoints {
		if _, orphan := slices.BinarySearch(d.orphans, name); orphan {
			v.Orphans = append(v.Orphans, name)
		}
	}
	return nil
}

// list returns the endpoints of a target.
func (r *run) list(ctx context.Context, target string) ([]string, error) {
	maxAge := r.o.Policy.Drift.Every.Std() / 2
	if r.o.Trigger.impatient() {
		maxAge = burst
	}
	listing := r.assembly.Listings[target]
	if len(r.o.target(target).Endpoints) == 0 {
		return listing.fresh(ctx, maxAge)
	}
	return listing.atOnce(ctx, maxAge, listed{r.o.ID, target}, r.again())
}

// maxChanged is for how many endpoints that came or went it is worked out whose they are.
const maxChanged = 100

// again has the assignment looked at once more, for the same reason, where endpoints came or went
// that are its own, after it went on with a list that did not show it.
func (r *run) again() func(changed []string) {
	a, id, trigger, look := r.assembly, r.o.ID, r.o.Trigger, r.e.cfg.Again
	return func(changed []string) {
		owners := a.Source.Owners()
		own := func(endpoint string) bool {
			owner, ok := owners.Of(endpoint)
			return ok && owner == id.Certificate
		}
		if look != nil && (len(changed) > maxChanged || slices.ContainsFunc(changed, own)) {
			look(id, trigger)
		}
	}
}

// dropUnfit takes endpoints that cannot have a certificate from a covered target: nobody
// named them.
func (v *View) dropUnfit() {
	unfit := func(e providers.Endpoint) bool { return e.Missing || e.Problem != "" }
	for _, e := range v.Observed.Endpoints {
		if unfit(e) {
			v.Endpoints = slices.DeleteFunc(slices.Clone(v.Endpoints), func(name string) bool { return name == e.Name })
		}
	}
	v.Observed.Endpoints = slices.DeleteFunc(v.Observed.Endpoints, unfit)
}
