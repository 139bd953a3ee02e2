package main

import (
	"context"
	"fmt"
	"slices"
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
