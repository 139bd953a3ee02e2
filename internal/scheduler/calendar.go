package scheduler

import (
	"errors"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// Window is a span of time that comes again and again.
type Window struct {
	start    cron.Schedule
	duration time.Duration
	zone     *time.Location
}

// MaxWindow is the longest window, a week: what is open longer is better written as what
// is closed.
const MaxWindow = 7 * 24 * time.Hour

// NewWindow returns the window that opens when the cron expression says, in a time zone,
// for a duration. Where clocks are put forward over an opening, it opens at the first
// moment after; where they are put back, once.
func NewWindow(start string, duration time.Duration, zone *time.Location) (Window, error) {
	schedule, err := ParseCron(start)
	if err != nil {
		return Window{}, err
	}
	if duration <= 0 || duration > MaxWindow {
		return Window{}, fmt.Errorf("a window of %s is not between 1m and %s", duration, MaxWindow)
	}
	return Window{schedule, duration, zone}, nil
}

// ParseCron reads a cron expression of five fields, or a name such as @daily.
func ParseCron(expression string) (_ cron.Schedule, err error) {
	// The library's parser panics on some texts that are no expressions.
	defer func() {
		if problem := recover(); problem != nil {
			err = errors.New("it is no cron expression")
		}
	}()
	schedule, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor).Parse(expression)
	if err != nil {
		return nil, err
	}
	if schedule.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("it never comes") // the 30th of February
	}
	return schedule, nil
}

// transition is more than any zone's clocks are put forward or back at once.
const transition = 3 * time.Hour

// starts calls yield with the openings after t-transition, in order, until it says stop.
// Cron expressions are about what the clock on the wall shows, and the library leaves out
// what it never shows; so they are reckoned on a wall whose clock is never put forward,
// and what it shows is then looked up in the zone.
func (w Window) starts(t time.Time, yield func(time.Time) (more bool)) {
	local := t.In(w.zone)
	wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), local.Second(), 0, time.UTC).Add(-transition)
	for {
		if wall = w.start.Next(wall); wall.IsZero() {
			return
		}
		if !yield(time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, w.zone)) {
			return
		}
	}
}

// openSince returns when the window opened that is open at t.
func (w Window) openSince(t time.Time) (since time.Time, open bool) {
	w.starts(t.Add(-w.duration), func(start time.Time) bool {
		if start.After(t) {
			return start.Before(t.Add(transition)) // a later one may still be earlier, when clocks are put back
		}
		if t.Before(start.Add(w.duration)) && start.After(since) {
			since = start // the last opening counts, where they overlap
		}
		return true
	})
	return since, !since.IsZero()
}

// next is when the window opens after t; the zero Time for never.
func (w Window) next(t time.Time) (first time.Time) {
	w.starts(t, func(start time.Time) bool {
		if start.After(t) && (first.IsZero() || start.Before(first)) {
			first = start
		}
		return first.IsZero() || start.Before(first.Add(transition))
	})
	return first
}

// Freeze is a span of time in which nothing may change.
type Freeze struct{ From, To time.Time }

// Calendar says when a policy may change its targets. The zero Calendar is always open.
// It is immutable and knows nothing but times.
type Calendar struct {
	Windows []Window
	Freezes []Freeze
}

// Closed says why a Calendar is closed.
type Closed string

// The reasons.
const (
	ClosedWindow Closed = "window"
	ClosedFreeze Closed = "freeze"
)

// horizon is how far ahead an opening is looked for: a window may come once a year.
const horizon = 2 * 366 * 24 * time.Hour

// Open reports whether changes may be made at t, and since when the opening is that t lies
// in; the zero Time where no window says.
func (c Calendar) Open(t time.Time) (since time.Time, why Closed) {
	for _, f := range c.Freezes {
		if !t.Before(f.From) && t.Before(f.To) {
			return time.Time{}, ClosedFreeze
		}
	}
	if len(c.Windows) == 0 {
		return time.Time{}, ""
	}
	for _, w := range c.Windows {
		if opened, open := w.openSince(t); open && opened.After(since) {
			since = opened
		}
	}
	if since.IsZero() {
		return time.Time{}, ClosedWindow
	}
	return since, ""
}

// NextOpen is the first moment from t on at which changes may be made; the zero Time if
// there is none within two years.
func (c Calendar) NextOpen(t time.Time) time.Time {
	for end := t.Add(horizon); t.Before(end); {
		switch _, why := c.Open(t); why {
		case "":
			return t
		case ClosedFreeze:
			t = c.thaw(t)
		default:
			if t = c.nextStart(t); t.IsZero() {
				return time.Time{}
			}
		}
	}
	return time.Time{}
}

// thaw is when the freezes end that hold at t.
func (c Calendar) thaw(t time.Time) time.Time {
	for _, f := range c.Freezes {
		if !t.Before(f.From) && t.Before(f.To) {
			return f.To
		}
	}
	return t
}

// nextStart is when the next window opens after t.
func (c Calendar) nextStart(t time.Time) time.Time {
	var first time.Time
	for _, w := range c.Windows {
		if start := w.next(t); !start.IsZero() && (first.IsZero() || start.Before(first)) {
			first = start
		}
	}
	return first
}
