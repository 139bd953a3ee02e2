package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/rotation"
)

// population is a list with so many in each state; "" is one that was never looked at.
func population(states map[rotation.State]int) (list []*metrics.Assignment) {
	for state, n := range states {
		for range n {
			list = append(list, &metrics.Assignment{State: state})
		}
	}
	return list
}

func TestTally(t *testing.T) {
	old, now := certs.Info{Fingerprint: certs.Fingerprint{1}}, certs.Info{Fingerprint: certs.Fingerprint{2}}
	list := population(map[rotation.State]int{
		"": 1, rotation.StateRotating: 2, rotation.StateUnconverged: 4, rotation.StateConverged: 8, rotation.StateWaiting: 16,
		rotation.StatePaused: 32, rotation.StateBraked: 64, rotation.StateFailed: 128, rotation.StateQuarantined: 256, rotation.StateExpired: 512,
	})
	list = append(list, &metrics.Assignment{State: rotation.StateConverged, Wanted: &now, Record: &rotation.Record{Wanted: old}},
		&metrics.Assignment{State: rotation.StateConverged, Wanted: &now, Record: &rotation.Record{Wanted: now}})
	got := count(list)
	if got.total != 1025 || got.atRest != 9 || got.underWay != 8 {
		t.Errorf("%+v", got)
	}
	if held := heldText(got.states()); held != "512 expired, 128 failed, 256 quarantined, 64 braked, 32 paused, 16 waiting" {
		t.Error(held)
	}
	for _, state := range rotation.States() {
		if one := count(population(map[rotation.State]int{state: 1})); one.atRest+one.underWay+one.held[state] != 1 {
			t.Errorf("%s is counted nowhere", state)
		}
	}
}

func TestEstimate(t *testing.T) {
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(seconds, underWay int) sample {
		return sample{begin.Add(time.Duration(seconds) * time.Second), underWay}
	}
	for name, test := range map[string]struct {
		samples []sample
		pace    float64
		done    time.Duration // after the last sample; negative for unknown
	}{
		"nothing yet":                 {nil, 0, -1},
		"one look":                    {[]sample{at(0, 1000)}, 0, -1},
		"too early":                   {[]sample{at(0, 1000), at(19, 900)}, 0, -1},
		"a steady pace":               {[]sample{at(0, 1000), at(15, 900), at(30, 800)}, 400, 2 * time.Minute},
		"the last minutes count":      {[]sample{at(0, 100_000), at(400, 1000), at(460, 900), at(640, 400)}, 150, 160 * time.Second},
		"nothing moves":               {[]sample{at(0, 1000), at(60, 1000)}, 0, -1},
		"more come than get through":  {[]sample{at(0, 1000), at(60, 1200)}, 0, -1},
		"some come, more get through": {[]sample{at(0, 1000), at(60, 1100), at(120, 500)}, 250, 2 * time.Minute},
		"all through":                 {[]sample{at(0, 1000), at(60, 0)}, 1000, 0},
	} {
		var now time.Time
		if len(test.samples) > 0 {
			now = test.samples[len(test.samples)-1].at
		}
		pace, done := estimate(test.samples, now)
		if want := now.Add(test.done); pace != test.pace || test.done < 0 != done.IsZero() || test.done >= 0 && !done.Equal(want) {
			t.Errorf("%s: %v a minute, done at %s, want %v and %s", name, pace, done, test.pace, want)
		}
	}
}

// TestOnboardingStory follows 1,000 assignments, of which 100 are held, through time.
func TestOnboardingStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o onboarding
		note := func(through int) (*admin.Onboarding, time.Time) {
			return o.note(population(map[rotation.State]int{
				"": 900 - through, rotation.StateConverged: through, rotation.StateBraked: 80, rotation.StateFailed: 20,
			}), time.Now())
		}
		expect := func(through int, want string) {
			t.Helper()
			is, ended := note(through)
			if is == nil || !ended.IsZero() {
				t.Fatalf("%d through: %v, %s", through, is, ended)
			}
			if text := onboardingText(is, time.Now()); !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%d through: %s, want %s", through, text, want)
			}
		}
		const held = "; not counted are those that something else holds: 20 failed, 80 braked$"
		began := time.Now()
		expect(0, "^0 of 1000 certificates at rest, 900 on their way, it is too early to say for how long"+held)
		time.Sleep(time.Minute)
		expect(300, "^300 of 1000 certificates at rest, 600 on their way at 300 a minute, through at about [-0-9]+T00:03:00Z .*"+held)
		time.Sleep(20 * time.Minute)
		expect(300, "600 on their way, and not fewer than minutes ago"+held)
		time.Sleep(time.Minute)
		expect(890, "10 on their way at 590 a minute")
		time.Sleep(time.Minute)
		if is, ended := note(900); is != nil || !ended.Equal(began) {
			t.Errorf("at the end: %+v, begun %s", is, ended)
		}
		if is, ended := note(880); is != nil || !ended.IsZero() {
			t.Errorf("a handful is under way: %+v, %s", is, ended)
		}
		expect(879, "21 on their way")
		time.Sleep(time.Minute)
		expect(895, "5 on their way")
		time.Sleep(paceWindow + 1)
		if is, ended := note(895); is != nil || ended.IsZero() {
			t.Errorf("a few that stay: %+v, %s", is, ended)
		}
	})
}

// TestOnboardingInTheLog: a line every half minute while something changes, and hourly.
func TestOnboardingInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o onboarding
		told := 0
		follow := func(span time.Duration, underWay func(i int) int) int {
			told = 0
			for i := range int(span / paceEvery) {
				time.Sleep(paceEvery)
				is, _ := o.note(population(map[rotation.State]int{"": underWay(i), rotation.StateConverged: 1}), time.Now())
				if is != nil && o.tell(is, time.Now()) {
					told++
				}
			}
			return told
		}
		if n := follow(10*time.Minute, func(i int) int { return 5000 - i }); n != 20 {
			t.Errorf("told %d times in 10 minutes", n)
		}
		if n := follow(6*time.Hour, func(int) int { return 4000 }); n < 6 || n > 7 {
			t.Errorf("told %d times in 6 hours in which nothing moved", n)
		}
		if n := follow(time.Hour, func(int) int { return 0 }); n != 0 {
			t.Errorf("told %d times of nothing", n)
		}
		if n := follow(time.Hour, func(i int) int { return i % 2 * handful }); n != 0 {
			t.Errorf("told %d times of a handful", n)
		}
	})
}

// TestStatusShowsOnboarding is the first line for people, and the lines of --watch in a pipe.
func TestStatusShowsOnboarding(t *testing.T) {
	now := time.Now()
	s := admin.Status{Onboarding: &admin.Onboarding{Since: now, Total: 1000, AtRest: 512, UnderWay: 400, Held: map[string]int{"failed": 88}, PerMinute: 200, Done: now.Add(2 * time.Minute)}}
	var out bytes.Buffer
	must(t, printStatus(&out, s, false, now))
	if first, _, _ := strings.Cut(out.String(), "\n"); !strings.HasPrefix(first, "512 of 1000 certificates at rest, 400 on their way at 200 a minute, through at about ") {
		t.Error(first)
	}
	out.Reset()
	var a asker
	seen := map[string]string{}
	for _, atRest := range []int{512, 515, 521, 521} {
		s.Onboarding.AtRest = atRest
		must(t, a.printChanges(&out, s, seen))
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), "521 of 1000") {
		t.Errorf("in a pipe:\n%s", &out)
	}
}

// TestNothingIsToldBeforeTheJournalIsRead: until then all assignments look as if they were new.
func TestNothingIsToldBeforeTheJournalIsRead(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler)}
	if is := d.onboardingNow(); is != nil {
		t.Errorf("told %s", fmt.Sprint(is))
	}
}
