package huaweicloud

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

// lease is a token or a pair of keys that is good until it ends.
type lease[T any] struct {
	value         T
	renewAt, ends time.Time
}

// earlyPause is the least time from a renewal, or a try at one, to the next.
const earlyPause = time.Minute

// newLease counts from now and not from the issuer's times, so that a wrong clock of
// this host does not matter. Renewal is due margin before the end.
func newLease[T any](value T, life, margin time.Duration) lease[T] {
	now := time.Now()
	l := lease[T]{value: value, renewAt: now.Add(life - margin), ends: now.Add(life)}
	if soonest := now.Add(earlyPause); l.renewAt.Before(soonest) {
		l.renewAt = soonest
	}
	return l
}

// lifeOf is how long something lives that ends at an instant by the issuer's clock, of
// which the Date of its answer tells. fallback is for an answer without an end.
func lifeOf(ends time.Time, h http.Header, fallback time.Duration) (time.Duration, error) {
	if ends.IsZero() {
		return fallback, nil
	}
	now := time.Now()
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	life := ends.Sub(now)
	if life <= 0 {
		return 0, fmt.Errorf("what was given has ended already, at %s", ends.UTC().Format(time.RFC3339))
	}
	return life, nil
}

// held gives out credentials that end and gets new ones before they do. From renewAt
// on one renewal is on its way in the background and callers go on with what there is:
// an issuer that is away for less than the margin is not noticed. Only without anything
// valid do callers wait, and then all for the same renewal. It is safe for concurrent
// use.
type held[T any] struct {
	fetch func(context.Context) (lease[T], error)
	// limit ends a fetch, which goes on without the caller that began it.
	limit time.Duration
	// late is told of a renewal that failed while the old value is still good.
	late   func(err error, ends time.Time)
	flight singleflight.Group
	// renews bounds how often a refusal leads to a renewal at once, for the case that a
	// service refuses everything that the issuer gives.
	renews *rate.Limiter

	mu        sync.Mutex
	lease     *lease[T]
	notBefore time.Time // of the next early renewal
}

func newHeld[T any](limit time.Duration, fetch func(context.Context) (lease[T], error), late func(error, time.Time)) *held[T] {
	return &held[T]{fetch: fetch, limit: limit, late: late, renews: rate.NewLimiter(rate.Every(time.Minute), 3)}
}

func (h *held[T]) get(ctx context.Context) (T, error) {
	now := time.Now()
	h.mu.Lock()
	l := h.lease
	usable := l != nil && now.Before(l.ends)
	early := usable && !now.Before(l.renewAt) && !now.Before(h.notBefore)
	if early {
		h.notBefore = now.Add(h.limit)
	}
	h.mu.Unlock()
	if early {
		h.renew(ctx)
	}
	if usable {
		return l.value, nil
	}
	select {
	case r := <-h.renew(ctx):
		if r.Err != nil {
			var none T
			return none, r.Err
		}
		return r.Val.(*lease[T]).value, nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// renew fetches once for all callers that come meanwhile.
func (h *held[T]) renew(ctx context.Context) <-chan singleflight.Result {
	return h.flight.DoChan("", func() (any, error) {
		if l := h.fresh(); l != nil { // from a flight that ended just now
			return l, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.limit)
		defer cancel()
		l, err := h.fetch(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		if err == nil {
			h.lease, h.notBefore = &l, time.Time{}
			return &l, nil
		}
		now := time.Now()
		h.notBefore = now.Add(earlyPause)
		if h.lease != nil && now.Before(h.lease.ends) {
			h.late(err, h.lease.ends)
		}
		return nil, err
	})
}

func (h *held[T]) fresh() *lease[T] {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lease != nil && time.Now().Before(h.lease.renewAt) {
		return h.lease
	}
	return nil
}

// drop forgets a value that a service refused, unless that has been done already. It
// reports whether the next get may give another one.
func (h *held[T]) drop(refused func(T) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lease == nil || !refused(h.lease.value) {
		return true
	}
	if !h.renews.Allow() {
		return false
	}
	h.lease = nil
	return true
}
