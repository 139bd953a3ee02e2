package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/rotation"
)

// TestComparisonsTakeTurns: however many are due at once, a few are in the queue at a time, each
// comes in its turn and once, and what leaves no trace holds no place for ever.
func TestComparisonsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, room = 1000, 10
		id := func(i int) rotation.ID { return rotation.ID{Policy: "p", Certificate: fmt.Sprint(i)} }
		var mu sync.Mutex
		var offered []rotation.ID
		queued, most := 0, 0
		var c *comparisons
		c = newComparisons(func(id rotation.ID) {
			mu.Lock()
			defer mu.Unlock()
			offered = append(offered, id)
			queued++
			most = max(most, queued)
			if len(offered)%100 == 0 {
				queued--
				return // its policy is paused
			}
			go func() {
				time.Sleep(time.Second)
				mu.Lock()
				queued--
				mu.Unlock()
				c.looked(id)
			}()
		}, func() int { return room })
		for range 2 {
			for i := range all {
				c.due(id(i))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.run(ctx) })
		began := time.Now()
		for {
			time.Sleep(time.Second)
			synctest.Wait()
			mu.Lock()
			n := len(offered)
			mu.Unlock()
			if n == all {
				break
			}
			if time.Since(began) > time.Hour {
				t.Fatalf("%d were offered in an hour", n)
			}
		}
		if most != room {
			t.Errorf("%d in the queue at once, want %d", most, room)
		}
		for i, got := range offered {
			if got != id(i) {
				t.Fatalf("%v was offered in place %d", got, i)
			}
		}
		if took := time.Since(began); took > 4*time.Minute {
			t.Errorf("it took %s", took)
		}
		// Whoever was looked at for another reason can be due again at once.
		time.Sleep(2 * comparisonWait)
		c.looked(id(3))
		c.due(id(3))
		time.Sleep(2 * time.Second)
		cancel()
		running.Wait()
		if !slices.Equal(offered[all:], []rotation.ID{id(3)}) || len(c.waiting)+len(c.waits)+len(c.underWay) > 0 {
			t.Errorf("offered %v; left %v, %v, %v", offered[all:], c.waiting, c.waits, c.underWay)
		}
	})
}

// TestLookedAtWhileItWaits: who is looked at for another reason while it waits loses its turn,
// and has one again when it is due again.
func TestLookedAtWhileItWaits(t *testing.T) {
	id := func(name string) rotation.ID { return rotation.ID{Policy: "p", Certificate: name} }
	var offered []rotation.ID
	c := newComparisons(func(id rotation.ID) { offered = append(offered, id) }, func() int { return 1 })
	for _, name := range []string{"a", "b", "c"} {
		c.due(id(name))
	}
	c.offerSome(time.Now())
	c.looked(id("b"))
	c.looked(id("a"))
	c.offerSome(time.Now())
	c.due(id("b"))
	c.looked(id("c"))
	c.offerSome(time.Now())
	if want := []rotation.ID{id("a"), id("c"), id("b")}; !slices.Equal(offered, want) {
		t.Errorf("offered %v, want %v", offered, want)
	}
}

// TestScheduleThatComesWhileItWaits: the alarm is over when a comparison waits for its turn. A
// schedule that comes due meanwhile is not lost with it.
func TestScheduleThatComesWhileItWaits(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "when: {schedule: \"0 0 1 1 *\"}\n")
	d := r.start()
	r.converged(r.issue("shop", host))
	id := rotation.ID{Policy: "shop", Certificate: host}
	record := d.records.get(id)
	record.LookedAt = record.LookedAt.AddDate(-2, 0, 0)
	if got := rotation.WakeTrigger(d.assembly("shop").Policy, record, time.Now()); got != rotation.TriggerSchedule {
		t.Fatalf("it is woken for %q", got)
	}
	d.records.put(placedID{ID: id}, mirrored{record: record, revision: 1 << 40})
	d.compare(id)
	eventually(t, "the look of the schedule", func() bool {
		return strings.Contains(r.fetch(d, "/metrics"), `rotatord_triggers_total{trigger="schedule"} 1`)
	})
}

// TestComparisonsLeaveWorkers: whoever comes with something to do finds a worker that does not compare.
func TestComparisonsLeaveWorkers(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	d := r.start()
	if comparing, all := d.comparisons.room(), d.workers(); comparing < 1 || comparing > all/4 {
		t.Errorf("%d of %d workers may compare", comparing, all)
	}
}
