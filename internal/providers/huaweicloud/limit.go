package huaweicloud

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit bounds the calls to one service. The services publish no numbers
// (reference 6.6), so the defaults are careful: 5 a second, 10 at once after a
// quiet time, 4 in flight.
type Limit struct {
	// Rate is in calls per second.
	Rate float64
	// Burst is how many calls may follow each other without pause.
	Burst int
	// Concurrency is how many calls may be in flight.
	Concurrency int
}

// withDefaults fills in what is zero.
func (l Limit) withDefaults() Limit {
	if l.Rate == 0 {
		l.Rate = 5
	}
	if l.Burst == 0 {
		l.Burst = 10
	}
	if l.Concurrency == 0 {
		l.Concurrency = 4
	}
	return l
}

func (l Limit) validate() error {
	if l.Rate < 0 || l.Burst < 0 || l.Concurrency < 0 {
		return fmt.Errorf("rate %g, burst %d, concurrency %d: want none negative", l.Rate, l.Burst, l.Concurrency)
	}
	return nil
}

// gate is what every call to one service of the account passes. It is safe for
// concurrent use.
type gate struct {
	bucket *rate.Limiter
	slots  chan struct{}

	mu     sync.Mutex
	opens  time.Time // while in the future, nothing is sent
	reason string    // what the service said when it asked for the pause
	row    int       // refusals in a row, those of calls that were sent together being one
}

func newGate(l Limit) *gate {
	return &gate{
		bucket: rate.NewLimiter(rate.Limit(l.Rate), l.Burst),
		slots:  make(chan struct{}, l.Concurrency),
	}
}

// enter waits for a free place and for the rate. It fails at once with a
// *pausedError while the service asked to be left alone: an error with a time is
// worth more to the caller than a goroutine that hangs for minutes. After a nil
// error the caller must leave.
func (g *gate) enter(ctx context.Context) error {
	if err := g.paused(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // select below would choose by chance
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := g.wait(ctx)
	if err == nil {
		err = g.paused() // somebody may have been refused meanwhile
	}
	if err != nil {
		g.leave()
	}
	return err
}

func (g *gate) wait(ctx context.Context) error {
	err := g.bucket.Wait(ctx)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The bucket refuses at once if its turn comes after the deadline.
	return fmt.Errorf("our limit on calls would hold this one until after its deadline: %w", context.DeadlineExceeded)
}

func (g *gate) leave() { <-g.slots }

// throttled keeps everybody out after a refusal for too many calls: for the time that
// the service asked for, else for 1, 2, 4 ... minutes while it goes on refusing
// (reference 6.6). It returns that time.
func (g *gate) throttled(asked time.Duration, reason string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.row == 0 || !now.Before(g.opens) {
		g.row++
	}
	wait := asked
	if wait == 0 {
		wait = min(minThrottle<<min(g.row-1, 8), maxThrottle)
	}
	if until := now.Add(wait); until.After(g.opens) {
		g.opens, g.reason = until, reason
	}
	return wait
}

// answered ends a row of refusals. What was sent before a refusal says nothing.
func (g *gate) answered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !time.Now().Before(g.opens) {
		g.row = 0
	}
}

func (g *gate) paused() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := time.Until(g.opens)
	if left <= 0 {
		return nil
	}
	return &pausedError{left: left, until: g.opens, reason: g.reason}
}

// pausedError says that a call was held back because of an earlier refusal.
type pausedError struct {
	left   time.Duration
	until  time.Time
	reason string
}

func (e *pausedError) Error() string {
	return fmt.Sprintf("not sent: the service refused an earlier call (%s); paused until %s",
		e.reason, e.until.UTC().Format(time.RFC3339))
}
