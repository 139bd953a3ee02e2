package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrLost is the cause of a worker's context that ended because the server may have handed
// its work to another: it was out of touch, or not running, for too long. What the worker
// does from then on may be done twice.
var ErrLost = errors.New("the work may be in the hands of another worker: the NATS server has not heard of this one for too long")

// lease is a worker's right to a message, by the clock of this host: it ends before the
// server hands the message to another. The server does not tell who has a message (it lets
// anybody who ever had it acknowledge it), so the worker has to know by itself.
type lease struct {
	bus *Bus
	m   jetstream.Msg
	// exclusive: nobody but this process gets the message, so that the right never ends.
	exclusive bool
	stop      func()
	lose      context.CancelCauseFunc

	mu    sync.Mutex
	until time.Time
	ended *time.Timer
}

// progress tells the server that a message is in hand; asked as a request, it answers.
var progress = []byte("+WPI")

// takeLease takes the right to a message that was asked for at a time: it was delivered
// later than that. It is false where the right has ended already: the process stood still
// while the message waited for it. The context ends with the right, or with stop.
func (b *Bus) takeLease(ctx context.Context, m jetstream.Msg, asked time.Time, exclusive bool) (*lease, context.Context, bool) {
	if exclusive {
		asked = time.Now() // whenever that was: it is heartbeats alone that count from here
	}
	l := &lease{bus: b, m: m, exclusive: exclusive, until: asked.Add(workAckWait)}
	if !l.held() {
		return nil, nil, false
	}
	held, cancel := context.WithCancelCause(ctx)
	l.lose = cancel
	if !exclusive {
		l.ended = time.AfterFunc(time.Until(l.until), func() { cancel(ErrLost) })
	}
	var wg sync.WaitGroup
	beating, end := context.WithCancel(ctx)
	wg.Go(func() { l.beat(beating) })
	l.stop = func() {
		end()
		wg.Wait()
		if l.ended != nil {
			l.ended.Stop()
		}
		cancel(context.Canceled)
	}
	return l, held, true
}

// held reports whether the message is still this worker's.
func (l *lease) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exclusive || !isOver(l.until, time.Now())
}

// isOver reports whether a time has come by the clock that nobody sets, or by the wall clock:
// the first stands still while the machine sleeps. A wall clock that is set forward ends
// rights too early, which costs the work a delay.
func isOver(until, now time.Time) bool {
	return !now.Before(until) || !now.Round(0).Before(until.Round(0))
}

// beat renews the right until ctx ends or the right has. It looks at the clock more often
// than it has to, so that a machine that wakes finds out soon.
func (l *lease) beat(ctx context.Context) {
	for l.held() {
		l.mu.Lock()
		next := time.Until(l.until) - (workAckWait - workBeat)
		l.mu.Unlock()
		if next > 0 { // after a failure, and after a long wait for the message, at once
			if pause(ctx, min(next, beatAgain)) != nil {
				return
			}
			continue
		}
		if err := l.renew(ctx); err != nil {
			l.bus.log.Debug("heartbeat of work failed", "subject", l.m.Subject(), "err", err)
			if pause(ctx, beatAgain) != nil {
				return
			}
		}
	}
	l.lose(ErrLost)
}

// renew prolongs the right if the server says in time that it has heard.
func (l *lease) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	sent := time.Now()
	if _, err := l.bus.conn.RequestWithContext(ctx, l.m.Reply(), progress); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.exclusive && isOver(l.until, time.Now()) {
		return ErrLost // it was, before the server heard
	}
	l.until = sent.Add(workAckWait)
	if l.ended != nil {
		l.ended.Reset(time.Until(l.until))
	}
	return nil
}
