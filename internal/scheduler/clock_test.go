package scheduler

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// jumping gives an alarm a wall clock that can be set.
func jumping(a *Alarm) (jump func(time.Duration)) {
	start := time.Now()
	var offset atomic.Int64
	a.clock = func() reading {
		r := readClock(start)
		r.wall = r.wall.Add(time.Duration(offset.Load()))
		return r
	}
	return func(d time.Duration) { offset.Add(int64(d)) }
}

// TestClockSetForward: what became due by the jump fires within maxSleep, wherever in
// its sleep the alarm is.
func TestClockSetForward(t *testing.T) {
	for _, asleep := range []time.Duration{0, time.Second, maxSleep / 2, maxSleep - time.Nanosecond, 10*time.Minute + 7*time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a := NewAlarm()
			jump := jumping(a)
			a.Set("in an hour", time.Now().Add(time.Hour))
			a.Set("in a day", time.Now().Add(24*time.Hour))
			got := runAlarm(t, a)
			time.Sleep(asleep)
			synctest.Wait()
			jump(2 * time.Hour)
			time.Sleep(maxSleep)
			synctest.Wait()
			if len(*got) != 1 || (*got)[0].id != "in an hour" || (*got)[0].at > asleep+maxSleep {
				t.Errorf("jump after %s: fired %v", asleep, *got)
			}
		})
	}
}

// TestClockSetBack: who asked for a pause gets that pause, by the clock that nobody sets, give
// or take a sleep; and what is asked for afterwards is as the clock shows it now.
func TestClockSetBack(t *testing.T) {
	for _, back := range []time.Duration{2 * time.Minute, time.Hour, 400 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			a := NewAlarm()
			jump := jumping(a)
			a.Set("in a minute", time.Now().Add(time.Minute))
			a.Set("in an hour", time.Now().Add(time.Hour))
			got := runAlarm(t, a)
			time.Sleep(50 * time.Second) // its last sleep has begun
			synctest.Wait()
			jump(-back)
			time.Sleep(40 * time.Second)
			synctest.Wait()
			a.Set("in a minute more", time.Now().Add(-back).Add(time.Minute))
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if len(*got) != 3 || (*got)[0].id != "in a minute" || (*got)[0].at != time.Minute ||
				(*got)[1] != (fired{"in a minute more", 150 * time.Second}) || (*got)[2] != (fired{"in an hour", time.Hour}) {
				t.Errorf("set back by %s: fired %v", back, *got)
			}
		})
	}
}

// TestClockIsDisciplined: small corrections, as a time daemon makes them, move nothing.
func TestClockIsDisciplined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAlarm()
		jump := jumping(a)
		a.Set("in an hour", time.Now().Add(time.Hour))
		got := runAlarm(t, a)
		time.Sleep(time.Minute)
		jump(-maxSetBack)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if want := []fired{{"in an hour", time.Hour + maxSetBack}}; !slices.Equal(*got, want) {
			t.Errorf("fired %v, want %v", *got, want)
		}
	})
}

// TestTimesAreOfTheWallClock: with a monotonic reading, a time would be compared by the
// clock that knows of no jump.
func TestTimesAreOfTheWallClock(t *testing.T) {
	a := NewAlarm()
	for range 2 { // once new, once moved
		a.Set("x", time.Now())
		if next := a.Next(); next != next.Round(0) {
			t.Errorf("next %v has a monotonic reading", next)
		}
	}
	if now := time.Now().Round(0); now != now.Round(0) {
		t.Errorf("now %v has a monotonic reading", now)
	}
}

func TestNoSleepIsLong(t *testing.T) {
	now := time.Now().Round(0)
	a := NewAlarm()
	if d := a.untilNext(now); d != maxSleep {
		t.Errorf("with nothing pending: %s", d)
	}
	for away, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 0: 0, time.Second: time.Second, maxSleep: maxSleep, maxSleep + 1: maxSleep, 1 << 62: maxSleep,
	} {
		a.Set("x", now.Add(away))
		if d := a.untilNext(now); d != want {
			t.Errorf("%s before: sleeps %s, want %s", away, d, want)
		}
	}
}

// TestBeat: a sign of life at least every maxSleep, with nothing to do, with much to
// do, and before what is due fires; none while fire does not return.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAlarm()
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		var beats, fires []time.Duration
		go func() {
			defer close(done)
			a.Run(ctx, func(id string) {
				fires = append(fires, time.Since(start))
				if id == "slow" {
					time.Sleep(5 * time.Minute)
				}
			}, func() { beats = append(beats, time.Since(start)) })
		}()
		time.Sleep(10 * time.Minute) // nothing pending
		synctest.Wait()
		if longest := longestGap(beats); len(beats) < 20 || beats[0] != 0 || longest > maxSleep {
			t.Errorf("%d beats, the longest pause %s", len(beats), longest)
		}
		before := len(beats)
		for i := range 100 {
			a.Set(string(rune('a'+i)), time.Now().Add(time.Duration(i)*time.Second))
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if len(fires) != 100 || !slices.Contains(beats, fires[0]) || !slices.Contains(beats, fires[99]) || longestGap(beats[before:]) > maxSleep {
			t.Errorf("%d fired, beats at %v", len(fires), beats[before:])
		}
		a.Set("slow", time.Now())
		synctest.Wait()
		before = len(beats)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if len(beats) != before {
			t.Error("a beat while nothing moved")
		}
		cancel()
		<-done
	})
}

func longestGap(beats []time.Duration) time.Duration {
	var longest time.Duration
	for i := range beats[1:] {
		longest = max(longest, beats[i+1]-beats[i])
	}
	return longest
}
