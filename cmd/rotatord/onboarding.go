package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/repeat"
	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	// handful is how many assignments may be on their way without a word about it.
	handful = 20
	// paceEvery is how often they are counted, paceWindow how far back their pace is measured,
	// and paceLeast how long it must have been for it to mean something.
	paceEvery  = 15 * time.Second
	paceWindow = 5 * time.Minute
	paceLeast  = 20 * time.Second
	// paceStep is how far samples are apart at least, but for the last one.
	paceStep = time.Second
	// onboardingEvery is how often the log tells how far they are.
	onboardingEvery = 30 * time.Second
)

// tally says how many assignments stand where.
type tally struct {
	total, atRest int
	// underWay are those that rotatord works on or is about to.
	underWay int
	// held are those that wait for something else, by state: how long is not for us to say.
	held map[rotation.State]int
}

// count makes a tally.
func count(list []*metrics.Assignment) tally {
	t := tally{total: len(list), held: map[rotation.State]int{}}
	for _, a := range list {
		switch a.State {
		case rotation.StateConverged:
			if a.Wanted != nil && a.Record != nil && a.Record.Wanted.Fingerprint != a.Wanted.Fingerprint {
				t.underWay++ // there is a new one, which was not looked at yet
			} else {
				t.atRest++
			}
		case rotation.StateWaiting, rotation.StatePaused, rotation.StateBraked, rotation.StateQuarantined, rotation.StateFailed, rotation.StateExpired:
			t.held[a.State]++
		case rotation.StateRotating, rotation.StateUnconverged, "":
			t.underWay++
		}
	}
	return t
}

// sample is how many were under way at a moment.
type sample struct {
	at       time.Time
	underWay int
}

// estimate is the pace of the last minutes, and when it will have got through what is under
// way; zero where nothing can be said: too early, or no fewer than before. What comes anew
// slows the pace down, and what turns out to be held counts as got through.
func estimate(samples []sample, now time.Time) (perMinute float64, done time.Time) {
	first := slices.IndexFunc(samples, func(s sample) bool { return now.Sub(s.at) <= paceWindow })
	if first < 0 {
		return 0, time.Time{}
	}
	from, to := samples[first], samples[len(samples)-1]
	span, fewer := to.at.Sub(from.at), from.underWay-to.underWay
	if span < paceLeast || fewer <= 0 {
		return 0, time.Time{}
	}
	perMinute = float64(fewer) / span.Minutes()
	return perMinute, to.at.UTC().Add(time.Duration(float64(to.underWay) / perMinute * float64(time.Minute)))
}

// onboarding follows assignments that come to rest, while they are many.
type onboarding struct {
	mu      sync.Mutex
	listed  []*metrics.Assignment
	tally   tally
	samples []sample
	// since is when they became many; zero while they are few. least is how few of them were
	// under way at fewest, at fewer since when.
	since, fewer time.Time
	least        int
	// told is when the log last said it, said how things were then.
	told time.Time
	said string
}

// note counts, and returns how far things are, nil where no more than a handful is under way.
// ended is when they became many, if they have just come to rest.
func (o *onboarding) note(list []*metrics.Assignment, now time.Time) (is *admin.Onboarding, ended time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.countLocked(list)
	switch {
	case o.since.IsZero() && t.underWay > handful:
		o.since, o.fewer, o.least, o.samples = now, now, t.underWay, nil
	case t.underWay < o.least:
		o.fewer, o.least = now, t.underWay
	}
	// A few that stay under way are no onboarding any more.
	if !o.since.IsZero() && (t.underWay == 0 || t.underWay <= handful && now.Sub(o.fewer) > paceWindow) {
		ended, o.since, o.told = o.since, time.Time{}, time.Time{}
	}
	if o.since.IsZero() {
		return nil, ended
	}
	if n := len(o.samples); n > 1 && o.samples[n-1].at.Sub(o.samples[n-2].at) < paceStep {
		o.samples = o.samples[:n-1] // whoever asks often makes it no finer
	}
	o.samples = append(o.samples, sample{now, t.underWay})
	o.samples = slices.DeleteFunc(o.samples, func(s sample) bool { return now.Sub(s.at) > paceWindow })
	is = &admin.Onboarding{Since: o.since.UTC(), Total: t.total, AtRest: t.atRest, UnderWay: t.underWay, Held: t.states()}
	is.PerMinute, is.Done = estimate(o.samples, now)
	return is, time.Time{}
}

// count is a tally of the list, made anew only where it differs from the one before.
func (o *onboarding) count(list []*metrics.Assignment) tally {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.countLocked(list)
}

func (o *onboarding) countLocked(list []*metrics.Assignment) tally {
	if !slices.Equal(list, o.listed) || o.tally.held == nil {
		o.listed, o.tally = list, count(list)
	}
	return o.tally
}

// tell reports whether the log is to say it now: what does not change, hourly.
func (o *onboarding) tell(is *admin.Onboarding, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	says := fmt.Sprint(is.Total, is.AtRest, is.UnderWay, is.Held)
	if !o.told.IsZero() && (now.Sub(o.told) < onboardingEvery || says == o.said && now.Sub(o.told) < repeat.Every) {
		return false
	}
	o.told, o.said = now, says
	return true
}

// onboardingNow is how far things are; nil where there is nothing to tell, or nothing known yet.
func (d *daemon) onboardingNow() *admin.Onboarding {
	if !d.replayed.Load() {
		return nil
	}
	list, now := d.shown(), time.Now()
	is, ended := d.onboarding.note(list, now)
	if !ended.IsZero() {
		t := count(list)
		d.log.Info("assignments came to rest", "assignments", t.total, "at_rest", t.atRest, "under_way", t.underWay, "held", heldText(t.states()), "took", now.Sub(ended).Round(time.Second))
	}
	return is
}

// states are what holds, by name.
func (t *tally) states() map[string]int {
	held := map[string]int{}
	for state, n := range t.held {
		held[string(state)] = n
	}
	return held
}

// followOnboarding tells the log how far things are, while they are many, until ctx ends.
func (d *daemon) followOnboarding(ctx context.Context) {
	for sleep(ctx, paceEvery) {
		if d.watchesOnly() {
			continue // nothing is ever on its way, and to list all of them costs as much as a first scrape
		}
		is := d.onboardingNow()
		if is == nil || !d.onboarding.tell(is, time.Now()) {
			continue
		}
		d.log.Info("assignments on their way", "assignments", is.Total, "at_rest", is.AtRest, "under_way", is.UnderWay,
			"held", heldText(is.Held), "per_minute", int(is.PerMinute+0.5), "until", stampOr(is.Done, "unknown"))
	}
}

// watchesOnly reports whether no policy in force has anything to do but to watch.
func (d *daemon) watchesOnly() bool {
	for name := range d.inForce().parts {
		if a := d.assembly(name); a != nil && !a.WatchesOnly() {
			return false
		}
	}
	return true
}

func stampOr(at time.Time, or string) string {
	if at.IsZero() {
		return or
	}
	return at.UTC().Format(time.RFC3339)
}

// heldText lists what holds assignments, the most urgent state first.
func heldText(held map[string]int) string {
	var parts []string
	for _, state := range slices.SortedFunc(maps.Keys(held), func(a, b string) int { return slices.Index(admin.Urgency(), a) - slices.Index(admin.Urgency(), b) }) {
		if held[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", held[state], state))
		}
	}
	return strings.Join(parts, ", ")
}

// onboardingText is how far things are, on one line.
func onboardingText(o *admin.Onboarding, now time.Time) string {
	text := fmt.Sprintf("%d of %s at rest, %d on their way", o.AtRest, counted(o.Total, "certificate", "certificates"), o.UnderWay)
	if o.Done.IsZero() {
		why := "it is too early to say for how long"
		if now.Sub(o.Since) > paceWindow {
			why = "and not fewer than minutes ago"
		}
		text += ", " + why
	} else {
		text += fmt.Sprintf(" at %.0f a minute, through at about %s (%s)", o.PerMinute, stamp(o.Done), until(o.Done, now))
	}
	if held := heldText(o.Held); held != "" {
		text += "; not counted are those that something else holds: " + held
	}
	return text
}
