package bus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

var shop = ID{"shop", "shop.example.com"}

func one() int { return 1 }

func offer(t testing.TB, b *Bus, place string, id ID, want error) {
	t.Helper()
	if err := b.offer(t.Context(), Work{ID: id, Place: place, Trigger: "file", Asked: time.Now()}); !errors.Is(err, want) {
		t.Fatalf("offer of %s: %v, want %v", id, err, want)
	}
}

func TestWorkIsHandedOver(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	want := Work{ID: shop, Place: "node-1", Trigger: "manual", Force: true, Asked: time.Now().UTC().Truncate(0)}
	must(t, b.offer(t.Context(), want))
	backlog, err := b.Backlog(t.Context())
	if err != nil || backlog.Depth != 1 || time.Since(backlog.Oldest) > time.Minute {
		t.Errorf("backlog %+v, %v", backlog, err)
	}
	got, freed := make(chan Work, 1), make(chan ID, 1)
	working := work(t, b, 1, func(_ context.Context, w Work) error { got <- w; return nil }, func(id ID) { freed <- id })
	defer working.stop(t)
	w := receive(t, got, "the work")
	w.Place = want.Place // known to the queue only
	if w != want {
		t.Errorf("got %+v, want %+v", w, want)
	}
	if id := receive(t, freed, "done"); id != shop {
		t.Errorf("done(%s)", id)
	}
	backlog, err = b.Backlog(t.Context())
	if node := backlog.Consumers[ConsumerWorkNode]; err != nil || backlog.Depth != 0 || node != (Waiting{}) {
		t.Errorf("backlog %+v, %v after the work", backlog, err)
	}
}

// One place for each assignment: taken while the work is queued, in flight, and on its
// way back. It is free when done is called.
func TestSecondOfferIsRefused(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	offer(t, b, Any, shop, nil)
	offer(t, b, Any, shop, errOccupied)

	started, answers, freed := make(chan bool), make(chan error), make(chan ID, 1)
	working := work(t, b, 1, func(context.Context, Work) error {
		started <- true
		return <-answers
	}, func(id ID) { freed <- id })
	defer working.stop(t)
	receive(t, started, "the work")
	offer(t, b, Any, shop, errOccupied)
	const delay = 500 * time.Millisecond
	back := time.Now()
	answers <- &Retry{After: delay, Err: errors.New("record held")}
	eventually(t, "the negative acknowledgement", func() bool { return b.cfg.Meter.(*tally).count("work nak") == 1 })
	offer(t, b, Any, shop, errOccupied)
	receive(t, started, "the work again")
	if early := delay - time.Since(back); early > 0 {
		t.Errorf("it came back %s early", early)
	}
	select {
	case <-freed:
		t.Error("done was called for work that came back")
	default:
	}
	answers <- errors.New("dealt with")
	receive(t, freed, "done")
	offer(t, b, Any, shop, nil)
	receive(t, started, "the new work")
	answers <- nil
	receive(t, freed, "done")
}

// A wrapped Retry counts, and no delay is longer than maxNak.
func TestRetryIsForSeconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, t.TempDir()))
		defer b.Close()
		began := make(chan time.Time, 10)
		first := true
		working := work(t, b, 1, func(context.Context, Work) error {
			began <- time.Now()
			if !first {
				return nil
			}
			first = false
			return fmt.Errorf("wrapped: %w", &Retry{After: time.Hour, Err: errAway})
		}, nil)
		defer working.stop(t)
		offer(t, b, Any, shop, nil)
		if waited := -(<-began).Sub(<-began); waited < maxNak || waited > maxNak+time.Second {
			t.Errorf("it came back after %s", waited)
		}
	})
}

func TestWorkersWorkInParallel(t *testing.T) {
	const workers = 3
	b := prepared(t, config(t, t.TempDir()))
	for i := range 2 * workers {
		offer(t, b, Any, ID{"shop", fmt.Sprint(i)}, nil)
	}
	started, release := make(chan ID, 2*workers), make(chan bool)
	var running, most atomic.Int64
	working := work(t, b, workers, func(_ context.Context, w Work) error {
		most.Store(max(most.Load(), running.Add(1)))
		started <- w.ID
		<-release
		running.Add(-1)
		return nil
	}, nil)
	for range workers {
		receive(t, started, "a worker")
	}
	for range workers {
		release <- true
		receive(t, started, "the next worker")
	}
	close(release)
	working.stop(t)
	if n := most.Load(); n != workers {
		t.Errorf("%d at once, want %d", n, workers)
	}
}

// A step may take much longer than the server's patience. Nobody else gets the
// assignment while the worker lives.
func TestLongWorkIsKeptAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := prepared(t, config(t, t.TempDir()))
		defer b.Close()
		var times atomic.Int64
		freed := make(chan ID, 10)
		working := work(t, b, 4, func(context.Context, Work) error {
			times.Add(1)
			time.Sleep(20 * workAckWait)
			return nil
		}, func(id ID) { freed <- id })
		defer working.stop(t)
		offer(t, b, Any, shop, nil)
		<-freed
		time.Sleep(3 * workAckWait)
		if n := times.Load(); n != 1 {
			t.Errorf("it was worked on %d times", n)
		}
		offer(t, b, Any, shop, nil)
		<-freed
	})
}

// A graceful stop lets the step in flight finish, with a context that still works.
func TestStopWaitsForTheWorker(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	started, release, freed := make(chan context.Context, 1), make(chan bool), make(chan ID, 1)
	working := work(t, b, 2, func(ctx context.Context, _ Work) error {
		started <- ctx
		<-release
		return ctx.Err()
	}, func(id ID) { freed <- id })
	offer(t, b, "node-1", shop, nil)
	ctx := receive(t, started, "the work")
	working.cancel()
	select {
	case err := <-working.ended:
		t.Fatalf("Work returned %v while a worker was at it", err)
	case <-time.After(50 * time.Millisecond):
	}
	if ctx.Err() != nil {
		t.Error("the worker's context ended with the stop")
	}
	release <- true
	working.stop(t)
	receive(t, freed, "done")
	offer(t, b, "node-1", shop, nil) // it was acknowledged
}

// A worker that died had a message in its hands. After the restart it is delivered at
// once, at the node's own place and, in the embedded server, at any.
func TestRestartDeliversWhatWasInFlight(t *testing.T) {
	for _, place := range []string{"node-1", Any} {
		t.Run(place, func(t *testing.T) {
			dir := t.TempDir()
			b := prepared(t, config(t, dir))
			started, release := make(chan ID, 1), make(chan bool)
			working := work(t, b, 1, func(_ context.Context, w Work) error {
				started <- w.ID
				<-release
				return nil
			}, nil)
			offer(t, b, place, shop, nil)
			receive(t, started, "the work")
			must(t, b.Close()) // as a kill would: the acknowledgement never arrives
			close(release)
			working.stop(t)

			b = prepared(t, config(t, dir))
			offer(t, b, place, shop, errOccupied)
			restarted := time.Now()
			again := work(t, b, 1, func(_ context.Context, w Work) error {
				started <- w.ID
				return nil
			}, nil)
			defer again.stop(t)
			receive(t, started, "the work again")
			if took := time.Since(restarted); took > workAckWait/4 {
				t.Errorf("it was delivered %s after the restart", took)
			}
		})
	}
}

// On a shared server the work of anybody belongs to all nodes: one that starts must
// not take what another is working on.
func TestStartLeavesOthersWorkAlone(t *testing.T) {
	s := external(t, freePort(t), t.TempDir(), nil)
	node := func(name string) *Bus {
		cfg := config(t, "")
		cfg.URL, cfg.Node = s.ClientURL(), name
		return prepared(t, cfg)
	}
	one, two := node("node-1"), node("node-2")
	started, release := make(chan ID, 10), make(chan bool)
	handle := func(_ context.Context, w Work) error {
		started <- w.ID
		<-release
		return nil
	}
	first := work(t, one, 1, handle, nil)
	mine, anybodys, next := ID{"shop", "mine"}, ID{"shop", "anybody's"}, ID{"shop", "next"}
	offer(t, one, "node-1", mine, nil)
	offer(t, one, Any, anybodys, nil)
	receive(t, started, "work")
	receive(t, started, "work")
	second := work(t, two, 1, handle, nil)
	offer(t, one, Any, next, nil) // node-1's worker for any is busy
	if id := receive(t, started, "the next work"); id != next {
		t.Errorf("%s was taken from the other node", id)
	}
	offer(t, two, Any, anybodys, errOccupied)
	close(release)
	first.stop(t)
	second.stop(t)
}

// Work for a node goes to that node only.
func TestWorkStaysAtItsPlace(t *testing.T) {
	s := external(t, freePort(t), t.TempDir(), nil)
	cfg := config(t, "")
	cfg.URL = s.ClientURL()
	one := prepared(t, cfg)
	cfg.Node = "node-2"
	two := prepared(t, cfg)
	got := map[*Bus]chan ID{one: make(chan ID, 10), two: make(chan ID, 10)}
	for b, c := range got {
		defer work(t, b, 1, func(_ context.Context, w Work) error { c <- w.ID; return nil }, nil).stop(t)
	}
	for i := range 5 {
		offer(t, one, "node-2", ID{"shop", fmt.Sprint(i)}, nil)
	}
	for range 5 {
		receive(t, got[two], "work of node-2")
	}
	if n := len(got[one]); n != 0 {
		t.Errorf("node-1 got %d of node-2's", n)
	}
}

// The queue and a real bus together: triggers during work lead to exactly one more look.
func TestQueueOnTheBus(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	q := NewQueue(b)
	defer background(t, func(ctx context.Context) error { q.Run(ctx); return ctx.Err() }).stop(t)
	started, release := make(chan Work, 10), make(chan bool)
	defer work(t, b, 2, func(_ context.Context, w Work) error {
		started <- w
		<-release
		return nil
	}, q.Freed).stop(t)

	accepted := make(chan int, 100)
	q.Enqueue(Work{ID: shop, Place: "node-1", Trigger: "file", Asked: time.Now()}, func() { accepted <- 0 })
	receive(t, accepted, "the first to be accepted")
	receive(t, started, "the first look")
	for i := range 10 {
		q.Enqueue(Work{ID: shop, Place: "node-1", Trigger: "nats", Force: i == 7, Asked: time.Now()}, func() { accepted <- i })
	}
	eventually(t, "the refusal", func() bool { return b.cfg.Meter.(*tally).count("work duplicate") > 0 })
	if n := len(accepted); n != 0 {
		t.Errorf("%d accepted while the place was taken", n)
	}
	release <- true
	if w := receive(t, started, "the second look"); !w.Force {
		t.Error("the force was lost")
	}
	for range 10 {
		receive(t, accepted, "the others to be accepted")
	}
	release <- true
	eventually(t, "an empty queue", func() bool {
		backlog, err := b.Backlog(t.Context())
		return err == nil && backlog.Depth == 0
	})
	if n := len(started) + q.len(); n != 0 {
		t.Errorf("%d looks too many", n)
	}
}

// Somebody else's message in the queue is dropped and does not stop the workers.
func TestForeignWorkIsDropped(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	for _, subject := range []string{"rotatord.work.any.odd", "rotatord.work.node-1.a.=zz"} {
		_, err := b.js.Publish(t.Context(), subject, nil)
		must(t, err)
	}
	_, err := b.js.Publish(t.Context(), b.names.workFor(Any, shop), []byte("not JSON"))
	must(t, err)
	got := make(chan ID, 10)
	defer work(t, b, 1, func(_ context.Context, w Work) error { got <- w.ID; return nil }, nil).stop(t)
	if id := receive(t, got, "the readable one"); id != shop {
		t.Errorf("worked on %s", id)
	}
	eventually(t, "an empty queue", func() bool {
		backlog, err := b.Backlog(t.Context())
		return err == nil && backlog.Depth == 0
	})
}

// Work that the server lost ends the call, so that its caller makes it anew; a worker
// in the middle of a step finishes first.
func TestWorkEndsWhenTheServerLostIt(t *testing.T) {
	b := prepared(t, config(t, t.TempDir()))
	started, release := make(chan ID, 1), make(chan bool)
	working := work(t, b, 1, func(_ context.Context, w Work) error {
		started <- w.ID
		<-release
		return nil
	}, nil)
	offer(t, b, Any, shop, nil)
	receive(t, started, "the work")
	must(t, b.js.DeleteStream(t.Context(), "ROTATORD_WORK"))
	close(release)
	if err := receive(t, working.ended, "the end"); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Work ended with %v", err)
	}
	must(t, b.Prepare(t.Context()))
	offer(t, b, Any, shop, nil)
	// The server clears the old queue's files away when the new one is there already, and may
	// fail to make a consumer meanwhile: as a daemon does, begin again.
	defer background(t, func(ctx context.Context) error {
		for ctx.Err() == nil {
			_ = b.Work(ctx, one, func(_ context.Context, w Work) error { started <- w.ID; return nil }, func(ID) {})
		}
		return ctx.Err()
	}).stop(t)
	receive(t, started, "work in the new queue")
}

func TestWorkFailsWithoutAQueue(t *testing.T) {
	b := open(t, config(t, t.TempDir()))
	err := b.Work(t.Context(), one, func(context.Context, Work) error { return nil }, func(ID) {})
	if err == nil {
		t.Error("Work without a stream succeeded")
	}
}

// The embedded server says seldom that a worker still waits; that it was started anew, and knows
// of nobody who waits, is heard of at once.
func TestWorkGoesOnAfterANewStart(t *testing.T) {
	b := prepared(t, withListener(config(t, t.TempDir())))
	started, freed := make(chan ID, 1), make(chan ID, 2)
	working := work(t, b, 1, func(_ context.Context, w Work) error { started <- w.ID; return nil }, func(id ID) { freed <- id })
	defer working.stop(t)
	offer(t, b, Any, shop, nil)
	receive(t, started, "the work")
	receive(t, freed, "its end")
	began := time.Now()
	b.store.restart()
	eventually(t, "work for the new server", func() bool { return b.offer(t.Context(), Work{ID: shop, Place: Any}) == nil })
	receive(t, started, "work of the new server")
	if took := time.Since(began); took > embeddedPulse/2 {
		t.Errorf("it came after %s", took)
	}
}
