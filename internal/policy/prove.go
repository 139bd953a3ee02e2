package policy

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/rotatord/rotatord/internal/scheduler"
)

// proof looks for what policies promise and cannot keep.
type proof struct {
	now   time.Time
	point *Pointer
	found Problems
}

// Prove looks for what the policies say and cannot keep: nothing that Load refuses, but
// what would fail in days or months. Nothing is asked but the policies themselves. now is
// when the simulation of their calendars begins.
func (s *Set) Prove(now time.Time, point *Pointer) Problems {
	r := &proof{now: now, point: point}
	for _, p := range s.Policies {
		r.renewal(p)
		r.splay(p)
		r.windows(p)
		r.subjects(p)
	}
	r.found.Sort()
	return r.found
}

func (r *proof) add(severity Severity, p *Policy, path, format string, args ...any) {
	r.found = append(r.found, r.point.At(severity, p.File, path, format, args...))
}

// Lead is how long before the end of a life of this length the next certificate is due.
func (r Renew) Lead(life time.Duration) time.Duration {
	start := time.Unix(0, 0)
	end := start.Add(life)
	return end.Sub(r.Due(start, end))
}

// busy is how often a certificate may be issued anew before that looks like a mistake.
const busy = time.Hour

// renewal compares the times of an issuing source with each other.
func (r *proof) renewal(p *Policy) {
	ca := p.Source.PrivateCA
	if ca == nil {
		return // how long a certificate of Identity Center lives, only the service knows
	}
	life := ca.Validity.Span()
	lead := p.When.Renew.Lead(life)
	at := "$.when.renew.at"
	if p.When.Renew.Before > 0 && p.When.Renew.Before.Std() == lead {
		at = "$.when.renew.before"
	}
	if p.Guard.MinRemaining.Std() >= life {
		r.add(Error, p, "$.guard.min_remaining", "min_remaining %s is as long as the certificate's whole life, %s: the guard would refuse each one that is issued", p.Guard.MinRemaining, Duration(life))
	}
	if used := life - lead; used < busy {
		r.add(Warning, p, at, "a certificate is renewed %s after it was issued: that is %d a day, and the CA counts them all", Duration(used), 24*time.Hour/max(used, time.Second))
	}
	if needed := p.provenAfter(); lead < needed {
		r.add(Warning, p, at, "a certificate becomes due %s before its end, and until the next one is proven everywhere it may take %s", Duration(lead), Duration(needed))
	}
}

// provenAfter is how long it may take by the policy's own word until a bundle is proven
// everywhere.
func (p *Policy) provenAfter() time.Duration {
	within := p.Verify.Within.Std()
	if len(p.Canary.Targets) > 0 {
		within = 2*within + p.Canary.Bake.Std()
	}
	return within
}

// splay refuses turns that come when every window is closed again: they are counted from
// the opening, and would be missed each time.
func (r *proof) splay(p *Policy) {
	longest := p.When.Calendar().Longest()
	if splay := p.When.Splay.Std(); longest > 0 && splay > longest {
		r.add(Error, p, "$.when.splay", "splay %s is longer than the longest window, %s: an assignment whose turn comes after that would miss every window", p.When.Splay, Duration(longest))
	}
}

const (
	// years is how far ahead calendars are simulated: each month, each change of clocks and
	// each window that comes once a year is in it twice.
	years = 2 * 366 * 24 * time.Hour
	// roomy is an opening in which there is time for several tries and for a person.
	roomy = 24 * time.Hour
)

// windows simulates the life of a certificate for every moment at which it may become
// due: what counts are the times from due to the end, and to when expiry_wins lifts
// windows and freezes.
func (r *proof) windows(p *Policy) {
	ca := p.Source.PrivateCA
	calendar := p.When.Calendar()
	if ca == nil || len(calendar.Windows)+len(calendar.Freezes) == 0 {
		return
	}
	lead := p.When.Renew.Lead(ca.Validity.Span())
	bare := calendar
	bare.Freezes = nil
	wins := p.When.ExpiryWins.Std()
	unfrozen, all := r.simulate(bare, lead), r.simulate(calendar, lead)
	kept := r.simulate(calendar, lead-wins)
	at := "$.when.windows"
	if len(calendar.Windows) == 0 {
		at = "$.when.freeze"
	}
	switch {
	case unfrozen.openings == 0:
		r.add(Error, p, at, "no window opens while a renewal is due: a certificate due at %s expires at %s, and the next window opens %s", clock(unfrozen.due), clock(unfrozen.due.Add(lead)), unfrozen.afterwards())
	case all.openings == 0 && wins == 0:
		r.add(Error, p, "$.when.freeze", "a certificate due at %s would expire in the freeze, at %s: targets could be changed again %s, and expiry_wins is 0", clock(all.due), clock(all.due.Add(lead)), all.afterwards())
	case lead <= wins:
		r.add(Warning, p, at, "a certificate becomes due %s before its end, and from %s before its end on (expiry_wins) windows and freezes do not hold: they never do", Duration(lead), *p.When.ExpiryWins)
	case kept.openings == 0:
		r.add(Warning, p, at, "a certificate due at %s would be changed outside windows and freezes from %s on, by expiry_wins (%s): until then targets may not be changed", clock(kept.due), clock(kept.due.Add(lead-wins)), *p.When.ExpiryWins)
	case kept.openings < p.openingsNeeded():
		r.add(Warning, p, at, "one window alone opens for a certificate due at %s before expiry_wins (%s) holds at %s, and the canary's bake of %s needs two", clock(kept.due), *p.When.ExpiryWins, clock(kept.due.Add(lead-wins)), *p.Canary.Bake)
	case kept.openings == 1 && kept.open < roomy:
		r.add(Warning, p, at, "one window alone opens for a certificate due at %s before expiry_wins (%s) holds at %s: there is no other one to try again in", clock(kept.due), *p.When.ExpiryWins, clock(kept.due.Add(lead-wins)))
	}
}

// openingsNeeded is how many windows a rotation takes: canaries that bake for longer than
// a window leave the rest to the next one.
func (p *Policy) openingsNeeded() int {
	longest := p.When.Calendar().Longest()
	if len(p.Canary.Targets) > 0 && longest > 0 && p.Canary.Bake.Std() >= longest {
		return 2
	}
	return 1
}

// worst is the moment to become due at that leaves the least.
type worst struct {
	due      time.Time
	openings int           // in which changes can be made
	open     time.Duration // how long it is, where it is one
	next     time.Time     // the first opening from due on; zero for none
}

func (w worst) afterwards() string {
	if w.next.IsZero() {
		return "not within two years"
	}
	return "at " + clock(w.next)
}

// simulate finds the worst moment to become due, if there are lead's time to make the
// change. That is a moment at which an opening ends, or the first of all: later ones lose
// nothing, and win what opens.
func (r *proof) simulate(c scheduler.Calendar, lead time.Duration) worst {
	horizon := r.now.Add(years)
	spans := c.Spans(r.now, horizon)
	bad := worst{due: r.now, openings: len(spans) + 1}
	for i := -1; i < len(spans); i++ {
		due := r.now
		if i >= 0 {
			due = spans[i].To
		}
		end := due.Add(lead)
		if end.After(horizon) && bad.openings <= len(spans) {
			break // not simulated far enough to tell
		}
		here := worst{due: due}
		after := spans[i+1:]
		if len(after) > 0 {
			here.next = after[0].From
		}
		here.openings = sort.Search(len(after), func(n int) bool { return !after[n].From.Before(end) })
		if here.openings == 1 { // several are room enough
			here.open = earlier(after[0].To, end).Sub(after[0].From)
		}
		if here.openings < bad.openings || here.openings == bad.openings && here.open < bad.open {
			bad = here
		}
	}
	return bad
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Opens is when the successor of a certificate that ends then, and is there at due, may be
// put in force by the policy's calendar; not ok where that is so late that expiry_wins
// lifts the calendar first.
func (w When) Opens(due, end time.Time) (first time.Time, ok bool) {
	first = w.calendar.NextOpen(due)
	return first, !first.IsZero() && first.Before(end.Add(-w.ExpiryWins.Std()))
}

// subjects warns of subjects that say nothing new.
func (r *proof) subjects(p *Policy) {
	for i, subject := range p.When.Subjects {
		if slices.Index(p.When.Subjects, subject) < i {
			r.add(Warning, p, fmt.Sprintf("$.when.subjects[%d]", i), "subject %q is there twice", subject)
		}
	}
}

// clock is a time as messages have it.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
