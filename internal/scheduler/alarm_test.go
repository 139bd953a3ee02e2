package scheduler

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

type fired struct {
	id string
	at time.Duration
}

// runAlarm runs an alarm in the current bubble and returns what fired, read after
// synctest.Wait.
func runAlarm(t *testing.T, a *Alarm) *[]fired {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var got []fired
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx, func(id string) { got = append(got, fired{id, time.Since(start)}) }, nil)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return &got
}

func TestAlarmFiresInOrderAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAlarm()
		now := time.Now()
		a.Set("late", now.Add(2*time.Hour))
		a.Set("early", now.Add(time.Minute))
		a.Set("moved", now.Add(time.Second))
		a.Set("moved", now.Add(3*time.Hour))
		a.Set("gone", now.Add(time.Minute))
		a.Set("gone", time.Time{})
		a.Set("past", now.Add(-time.Hour))
		got := runAlarm(t, a)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		want := []fired{{"past", 0}, {"early", time.Minute}, {"late", 2 * time.Hour}, {"moved", 3 * time.Hour}}
		if !slices.Equal(*got, want) {
			t.Errorf("fired %v, want %v", *got, want)
		}
		if a.Len() != 0 || !a.Next().IsZero() {
			t.Errorf("still pending: %d, next %v", a.Len(), a.Next())
		}
	})
}

func TestAlarmSetWhileSleeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAlarm()
		a.Set("far", time.Now().Add(time.Hour))
		got := runAlarm(t, a)
		time.Sleep(time.Minute)
		a.Set("near", time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if want := []fired{{"near", time.Minute + time.Second}}; !slices.Equal(*got, want) {
			t.Errorf("fired %v, want %v", *got, want)
		}
	})
}

func TestAlarmMayBeSetByWhatFired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAlarm()
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		a.Set("again", time.Now())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.Run(ctx, func(id string) {
				if count++; count == 5 {
					cancel()
				}
				a.Set(id, time.Now().Add(time.Minute))
			}, nil)
		}()
		<-done
		if count != 5 {
			t.Errorf("fired %d times, want 5", count)
		}
	})
}

func TestAlarmHeapKeepsPlaces(t *testing.T) {
	a := NewAlarm()
	now := time.Now()
	for i := range 1000 {
		a.Set(fmt.Sprint(i), now.Add(time.Duration(i*7919%1000)*time.Second))
	}
	for i := 0; i < 1000; i += 3 {
		a.Set(fmt.Sprint(i), time.Time{})
	}
	var last time.Time
	for i, e := range a.pending {
		if e.index != i {
			t.Fatalf("entry %s thinks it is at %d, is at %d", e.id, e.index, i)
		}
	}
	for _, id := range a.takeDue(now.Add(time.Hour)) {
		var n int
		fmt.Sscan(id, &n)
		at := now.Add(time.Duration(n*7919%1000) * time.Second)
		if at.Before(last) || n%3 == 0 {
			t.Fatalf("id %s out of order or removed", id)
		}
		last = at
	}
}

func BenchmarkAlarm100kSetAndFire(b *testing.B) {
	a := NewAlarm()
	now := time.Now()
	for i := range 100_000 {
		a.Set(fmt.Sprint(i), now.Add(time.Duration(i)*time.Hour))
	}
	for b.Loop() {
		a.Set("x", now)
		a.takeDue(now)
	}
}
