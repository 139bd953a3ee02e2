package rotation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// Listing is what endpoints a target has, for policies that say covered. It is read from
// the service once for all assignments that share it, and again when it has grown old.
type Listing struct {
	lister providers.Lister

	mu    sync.Mutex // held while reading: others wait for the same answer
	names []string
	at    time.Time
}

// NewListing returns a Listing that has not been read yet.
func NewListing(l providers.Lister) *Listing { return &Listing{lister: l} }

// fresh returns the endpoints as they were at some time at most maxAge ago.
func (l *Listing) fresh(ctx context.Context, maxAge time.Duration) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && time.Since(l.at) <= maxAge {
		return l.names, nil
	}
	names, err := l.lister.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	l.names, l.at = names, time.Now()
	return names, nil
}

// burst is how old a listing may be for somebody who asks for a look now: ten triggers
// at once are answered by one listing.
const burst = 10 * time.Second

// listEndpoints works out the endpoints of a target whose policy says covered.
func (r *run) listEndpoints(ctx context.Context, v *View) error {
	maxAge := r.o.Policy.Drift.Every.Std() / 2
	if r.o.Trigger.impatient() {
		maxAge = burst
	}
	names, err := r.assembly.Listings[v.Name].fresh(ctx, maxAge)
	if err != nil {
		return err
	}
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
