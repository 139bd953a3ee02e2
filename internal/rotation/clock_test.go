package rotation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/providers"
)

// host is the host's clock in a world whose own is right: the cloud's, and the certificates'.
type host struct {
	*world
	ahead time.Duration
	// skew is what the cloud's answers told of it.
	skew time.Duration
}

func (h *host) now() time.Time { return time.Now().Add(h.ahead) }

func (h *host) look(t Trigger) error {
	e := h.engine()
	e.now = h.now
	e.cfg.Skew = func() time.Duration {
		if h.skew == 0 && h.called() {
			h.skew = h.ahead
		}
		return h.skew
	}
	return e.Process(h.t.Context(), h.id, Request{Trigger: t, Asked: h.now()})
}

// called reports whether this process has had an answer of the cloud.
func (h *host) called() bool {
	return slices.ContainsFunc(h.calls, func(c string) bool { return c != "load" && c != "save" && c != "publish" })
}

// next makes a look and returns how long from now the alarm wakes the assignment for another,
// at most some time.
func (h *host) next(t Trigger, most time.Duration) time.Duration {
	if err := h.look(t); err != nil {
		return time.Second // the queue delivers the same message again
	}
	at := h.record().Wakes(h.now())
	if at.IsZero() {
		return most
	}
	return min(at.Sub(h.now()), most)
}

// live plays the alarm for a time during which nobody sets the clock.
func (h *host) live(t Trigger, span time.Duration) (left time.Duration) {
	end := time.Now().Add(span)
	for looks := 0; ; looks++ {
		if looks > 5000 {
			h.t.Fatalf("5000 looks in %s: %s", span, h.journal)
		}
		wait, left := h.next(t, 1<<62), time.Until(end)
		if wait > left {
			time.Sleep(left)
			return wait - left // what is still pending
		}
		time.Sleep(max(wait, 0))
		t = TriggerDeadline
	}
}

// TestClockOfTheHostJumps sets the host's clock forward and back by hours, a hundred times
// in the lives of five certificates, lets it be wrong for a while and puts it right again,
// sometimes with a service that fails just then. Each certificate is renewed once, at its
// time, give or take by how much the clock was wrong.
func TestClockOfTheHostJumps(t *testing.T) {
	const wrong = 12 * time.Hour
	for seed := range few(10) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
				random := rand.New(rand.NewPCG(seed, 7))
				h := &host{world: w}
				w.fault = func(_ string, after bool) error {
					m := misfortunes[random.IntN(len(misfortunes))]
					if _, kill := errors.AsType[processKilled](m.err); random.IntN(20) == 0 && m.after == after && !kill {
						return m.err
					}
					return nil
				}
				begin, trigger := time.Now(), TriggerStartup
				for time.Since(begin) < 290*24*time.Hour {
					h.live(trigger, time.Duration(random.Int64N(int64(5*24*time.Hour))))
					h.ahead = time.Duration(random.Int64N(int64(2*wrong))) - wrong
					h.skew = 0 // until the next answer
					h.live(TriggerDeadline, time.Duration(random.Int64N(int64(wrong))))
					h.ahead, h.skew = 0, 0
					trigger = TriggerDeadline
				}
				w.fault = nil
				h.live(TriggerManual, time.Hour)
				life := time.Duration(float64(i.life) * 0.66)
				for n := 1; n < len(i.made); n++ {
					if gap := i.made[n].at.Sub(i.made[n-1].at); gap < life-wrong-time.Hour || gap > life+2*wrong+time.Hour {
						t.Errorf("certificate %d was made %s after the one before, want %s", n, gap, life)
					}
				}
				if want := 5; len(i.made) != want {
					t.Errorf("%d certificates were made, want %d", len(i.made), want)
				}
				w.expectState(StateConverged)
			})
		})
	}
}

// TestClockSetBackDoesNotStretchPauses: a pause of seconds, begun on a clock that was hours
// ahead, lasts seconds when it is right again.
func TestClockSetBackDoesNotStretchPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testPolicy())
		w.wanted = w.bundle(1)
		h := &host{world: w, ahead: 7 * time.Hour}
		w.failing(-1, unavailable, "stage")
		wait := h.next(TriggerFile, time.Hour)
		if wait > 3*time.Second {
			t.Fatalf("the first retry comes after %s", wait)
		}
		h.ahead, w.fault = 0, nil
		if wait := w.record().Wakes(h.now()).Sub(h.now()); wait > 3*time.Second {
			t.Errorf("after the clock was put right the retry comes after %s", wait)
		}
		time.Sleep(wait)
		h.live(TriggerDeadline, time.Minute)
		w.expectState(StateConverged)
	})
}

// TestClockAheadOfTheIssuer: what a lost answer had made is found again although it is, by the
// issuer's clock, older than the try.
func TestClockAheadOfTheIssuer(t *testing.T) {
	for _, ahead := range []time.Duration{-3 * time.Hour, 0, 10 * time.Minute, 3 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			inIssuingWorld(t, func(t *testing.T, w *world, i *issuer) {
				lost := false
				w.fault = func(call string, after bool) error {
					if call == "issue" && after && !lost {
						lost = true
						return &providers.Error{Kind: providers.KindUnknownOutcome, Service: "ccm", Op: "issue"}
					}
					return nil
				}
				h := &host{world: w, ahead: ahead}
				h.live(TriggerStartup, time.Hour)
				h.ahead, h.skew = 0, 0 // or its certificate would not be valid yet, by a clock that is behind
				h.live(TriggerManual, time.Hour)
				i.expectServed(1)
			})
		})
	}
}

// TestPlanWhileTheClockJumps plans the same observation at times before and after: what is
// not due is not begun, what is refused for its dates is refused, and a plan at a time is the
// same whatever was planned between.
func TestPlanWhileTheClockJumps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := randomObservation(t)
		jump := time.Duration(rapid.IntRange(-200, 200).Draw(t, "jump")) * time.Hour
		before, there, after := Plan(o, epoch), Plan(o, epoch.Add(jump)), Plan(o, epoch)
		if !slices.EqualFunc(before, after, func(a, b Step) bool { return a.String() == b.String() }) {
			t.Fatalf("another plan after a jump of %s:\n%v\n%v", jump, before, after)
		}
		now := epoch.Add(jump)
		for _, s := range there {
			if (s.Kind == StepStage || s.Kind == StepActivate) && there[0].Kind != StepIssue &&
				(!o.Wanted.Info.NotAfter.After(now) || o.Wanted.Info.NotBefore.After(now)) {
				t.Fatalf("at %s: deploys what is not valid then: %v", now, there)
			}
			if s.Kind == StepWait && !s.Until.IsZero() && !s.Until.After(now) {
				t.Fatalf("at %s: waits for the past: %v", now, there)
			}
		}
	})
}

// TestAsOfMovesEveryOwnTime: a new field of a record is to be thought of.
func TestAsOfMovesEveryOwnTime(t *testing.T) {
	// Times of others: certificates, messages, the events that were told.
	theirs := []string{"Asked", "NotBefore", "NotAfter", "Forced", "Honoured", "Time", "CheckedAt", "Head.At", "PreviousAt"}
	var r Record
	fill(reflect.ValueOf(&r).Elem())
	const ahead = 3 * time.Hour
	now := epoch.Add(-ahead)
	moved := r.asOf(now)
	compare(t, "Record", reflect.ValueOf(r), reflect.ValueOf(moved), theirs, ahead)
	if same := r.asOf(epoch.Add(-clockTolerance)); !reflect.DeepEqual(same, r) {
		t.Error("a record was moved by the clocks' usual difference")
	}
	var again Record
	fill(reflect.ValueOf(&again).Elem())
	if !reflect.DeepEqual(again, r) {
		t.Error("asOf changed the record that it was given")
	}
	if old := (Record{LookedAt: epoch}); !reflect.DeepEqual(old.asOf(now), old) {
		t.Error("a record that does not say when it was written was moved")
	}
}

// fill sets every time below v to epoch, and makes one element of everything.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(epoch))
	case v.Kind() == reflect.Struct:
		for _, field := range v.Fields() {
			if field.CanSet() {
				fill(field)
			}
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.Zero(v.Type().Key()), e)
	}
}

// compare checks that every time below v moved, but for those of others.
func compare(t *testing.T, name string, v, moved reflect.Value, theirs []string, by time.Duration) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		at, now := v.Interface().(time.Time), moved.Interface().(time.Time)
		if stays := slices.ContainsFunc(theirs, func(s string) bool { return name[len(name)-len(s):] == s }); stays != at.Equal(now) || !stays && at.Sub(now) != by {
			t.Errorf("%s moved by %s", name, at.Sub(now))
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				compare(t, name+"."+v.Type().Field(i).Name, v.Field(i), moved.Field(i), theirs, by)
			}
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		compare(t, name, v.Elem(), moved.Elem(), theirs, by)
	case v.Kind() == reflect.Slice && v.Len() > 0:
		compare(t, name, v.Index(0), moved.Index(0), theirs, by)
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			compare(t, name, v.MapIndex(k), moved.MapIndex(k), theirs, by)
		}
	}
}
