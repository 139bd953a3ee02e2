package bus

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// handed offers work and takes its message, as a worker would.
func handed(t testing.TB, b *Bus) (jetstream.Consumer, jetstream.Msg) {
	t.Helper()
	offer(t, b, Any, shop, nil)
	consumer, err := b.workConsumer(t.Context(), Any)
	must(t, err)
	m, err := b.nextMessage(t.Context(), consumer)
	must(t, err)
	return consumer, m
}

func newDesk(handle func(context.Context, Work) error) (d *desk, freed *atomic.Int64) {
	freed = &atomic.Int64{}
	return &desk{handle: handle, done: func(ID) { freed.Add(1) }, inHand: map[ID]bool{}}, freed
}

// A worker whose heartbeats the server does not hear stops when the server may have handed
// its work to another, and does not answer for that other.
func TestWorkIsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, t.TempDir()))
		defer b.Close()
		_, m := handed(t, b)
		asked := time.Now()
		desk, freed := newDesk(func(ctx context.Context, _ Work) error {
			time.Sleep(2 * workAckWait)
			if ctx.Err() != nil {
				t.Error("work was lost while the server heard of it")
			}
			must(t, b.js.DeleteConsumer(ctx, b.workStream(), workConsumer(Any))) // nobody hears any more
			last := time.Now()
			<-ctx.Done()
			if held := time.Since(last); held > workAckWait || held < workAckWait-workBeat-time.Second {
				t.Errorf("it was held for %s after the last heartbeat", held)
			}
			return &Retry{Err: context.Cause(ctx)}
		})
		b.process(t.Context(), m, asked, false, desk)
		if n := freed.Load(); n != 0 {
			t.Error("done was called for work that was lost")
		}
		tally := b.cfg.Meter.(*tally)
		if tally.count("work ack")+tally.count("work nak") != 0 || tally.count("work failed") != 1 {
			t.Errorf("lost work was answered: %v", tally.messages)
		}
	})
}

// A message that waited for a process that stood still is not begun with: it is another's.
func TestStaleWorkIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, t.TempDir()))
		defer b.Close()
		_, m := handed(t, b)
		desk, freed := newDesk(func(context.Context, Work) error {
			t.Error("stale work was begun")
			return nil
		})
		b.process(t.Context(), m, time.Now().Add(-workAckWait), false, desk)
		backlog, err := b.Backlog(t.Context())
		if err != nil || backlog.Depth != 1 || freed.Load() != 0 {
			t.Errorf("stale work was answered: %+v, %v", backlog, err)
		}
	})
}

// The server may hand a message out again although its worker lives, as after a long
// outage. This process then waits for that worker.
func TestWorkInHandIsNotBegunTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, t.TempDir()))
		defer b.Close()
		_, m := handed(t, b)
		began, release := make(chan bool, 2), make(chan bool)
		desk, freed := newDesk(func(context.Context, Work) error {
			began <- true
			<-release
			return nil
		})
		first := make(chan bool)
		go func() {
			b.process(t.Context(), m, time.Now(), true, desk)
			close(first)
		}()
		<-began
		// Made anew, it delivers everything again. The server may fail at its own file, which it was just writing.
		consumer, err := b.workConsumer(t.Context(), Any)
		for tries := 0; err != nil && tries < 10; tries++ {
			consumer, err = b.workConsumer(t.Context(), Any)
		}
		must(t, err)
		again, err := b.nextMessage(t.Context(), consumer)
		must(t, err)
		b.process(t.Context(), again, time.Now(), true, desk)
		if len(began) != 0 || freed.Load() != 0 || b.cfg.Meter.(*tally).count("work nak") != 1 {
			t.Errorf("work in hand was begun again: %v", b.cfg.Meter.(*tally).messages)
		}
		close(release)
		<-first
		if backlog, err := b.Backlog(t.Context()); err != nil || backlog.Depth != 0 || freed.Load() != 1 {
			t.Errorf("the work is not done with: %+v, %v", backlog, err)
		}
	})
}

// The right ends by whichever clock is ahead: the one that nobody sets stands still while the
// machine sleeps, the other can be set back.
func TestRightEndsByEitherClock(t *testing.T) {
	until := time.Now().Add(time.Minute)
	for name, test := range map[string]struct {
		now  time.Time
		over bool
	}{
		"both before":    {until.Add(-time.Second), false},
		"both after":     {until.Add(time.Second), true},
		"the wall clock": {until.Round(0).Add(time.Second), true}, // a time without the other reading
		"not yet":        {until.Round(0).Add(-time.Second), false},
	} {
		if got := isOver(until, test.now); got != test.over {
			t.Errorf("%s: %v", name, got)
		}
	}
}
