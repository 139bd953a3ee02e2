package huaweicloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

const (
	// circuitFailures in a row mean that a service is down. Two reads with all their
	// repetitions are as many, and they take 8 s at least.
	circuitFailures = 8
	// The first pause outlasts the restart of a gateway; each further one is twice as
	// long.
	firstCircuitPause = 10 * time.Second
	lastCircuitPause  = 5 * time.Minute
	// trialPause is told to those who come while the trial call is on its way.
	trialPause = 5 * time.Second
)

// outcome is what an exchange says of the service.
type outcome int

const (
	alive   outcome = iota // it answered, be it with a refusal
	down                   // it did not, or with a failure of its own
	nothing                // the caller gave up
)

// circuit stops the calls to one service of one account while it is down: nobody waits
// for time-outs then, and a service that comes back meets one call and not all. It is
// safe for concurrent use.
type circuit struct {
	mu       sync.Mutex
	failures int       // in a row, while closed
	since    time.Time // when the row began
	why      string    // the last failure
	open     bool
	pause    time.Duration
	trialAt  time.Time // when the next trial call is let through
	trying   bool      // it is on its way
}

// openError says that a call was not sent.
type openError struct {
	since, trialAt time.Time
	why            string
	trying         bool
	retryAfter     time.Duration
}

func (e *openError) Error() string {
	next := "the next trial call is let through at " + e.trialAt.UTC().Format(time.RFC3339)
	if e.trying {
		next = "a trial call is on its way"
	}
	return fmt.Sprintf("not sent: the service has been failing since %s (%s); %s",
		e.since.UTC().Format(time.RFC3339), e.why, next)
}

// check reports whether a call could be let through now.
func (c *circuit) check(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checkLocked(now)
}

func (c *circuit) checkLocked(now time.Time) error {
	wait := c.trialAt.Sub(now)
	if !c.open || wait <= 0 && !c.trying {
		return nil
	}
	if c.trying {
		wait = trialPause
	}
	return &openError{since: c.since, trialAt: c.trialAt, why: c.why, trying: c.trying, retryAfter: wait}
}

// admit lets a call through, or not. After a nil error the caller must settle.
func (c *circuit) admit(now time.Time) (trial bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(now); err != nil {
		return false, err
	}
	c.trying = c.open
	return c.open, nil
}

// settle tells how a call went. changed reports whether that opened or closed the
// circuit. While it is open only the trial call counts: the others were sent before.
func (c *circuit) settle(now time.Time, trial bool, o outcome, why string) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open && !trial {
		return false
	}
	if trial {
		c.trying = false
	}
	switch {
	case o == alive:
		c.open, c.failures, c.pause = false, 0, 0
		return trial
	case o == nothing:
		return false
	}
	c.why = why
	if c.failures++; c.failures == 1 {
		c.since = now
	}
	if !trial && c.failures < circuitFailures {
		return false
	}
	c.pause = min(max(2*c.pause, firstCircuitPause), lastCircuitPause)
	c.open, c.trialAt = true, now.Add(c.pause)
	return !trial
}

// stopped is the error of a call that the circuit held back.
func (j *job) stopped(err error) error {
	e := j.fail(providers.KindUnavailable, "", err)
	if open, ok := errors.AsType[*openError](err); ok {
		e.RetryAfter = open.retryAfter
	}
	return e
}

// settle tells the circuit how an exchange went.
func (c *Client) settle(ctx context.Context, j *job, trial bool, err error) {
	o, why := alive, ""
	if e, ok := errors.AsType[*providers.Error](err); ok && (e.Kind == providers.KindUnavailable || e.Kind == providers.KindUnknownOutcome) {
		o = down
		why = cmp.Or(e.Code, e.Message)
		if why == "" && e.Err != nil {
			why = e.Err.Error()
		}
		why = truncate(why, 200)
		if ctx.Err() != nil {
			o = nothing
		}
	}
	if !c.circuits[j.Service].settle(time.Now(), trial, o, why) {
		return
	}
	c.meter.Circuit(j.Service, o == down)
	level, text := slog.LevelInfo, "service is back; calls are let through again"
	if o == down {
		level, text = slog.LevelWarn, "service is down; calls are held back"
	}
	c.log.LogAttrs(ctx, level, text, slog.String("cloud", c.name), slog.String("service", j.Service), slog.String("reason", why))
}
