package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/rotatord/rotatord/internal/scheduler"
)

// Window is a span of time, coming again and again, in which targets may be changed.
type Window struct {
	// Start is a cron expression of five fields.
	Start string `yaml:"start"`
	// Duration is how long it stays open, 1m to 7d.
	Duration Duration `yaml:"duration"`
	// TimeZone is a name of the IANA database. Default UTC.
	TimeZone string `yaml:"time_zone"`
}

// Freeze is a span of time in which no target is changed, whatever the windows say.
type Freeze struct {
	From Moment `yaml:"from"`
	// To is the end; a date is its last day.
	To Moment `yaml:"to"`
}

// Moment is a date (2026-12-20, in UTC) or a time (2026-12-20T18:00:00+01:00).
type Moment struct {
	time.Time
	// Date says that no time of day was given.
	Date bool
}

// UnmarshalYAML implements the YAML library's NodeUnmarshaler.
func (m *Moment) UnmarshalYAML(n ast.Node) error {
	text := n.GetToken().Value
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		*m = Moment{t, true}
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return &nodeError{startOf(n), fmt.Sprintf("%q is neither a date (2026-12-20) nor a time with its zone (2026-12-20T18:00:00+01:00)", text)}
	}
	*m = Moment{t.UTC(), false}
	return nil
}

// MarshalJSON writes the moment as it is read.
func (m Moment) MarshalJSON() ([]byte, error) {
	if m.Date {
		return json.Marshal(m.Format(time.DateOnly))
	}
	return json.Marshal(m.Format(time.RFC3339))
}

// end is the moment as the end of a freeze.
func (m Moment) end() time.Time {
	if m.Date {
		return m.AddDate(0, 0, 1)
	}
	return m.Time
}

const (
	defaultExpiryWins = Duration(72 * time.Hour)
	maxSplay          = Duration(24 * time.Hour)
	minWindow         = Duration(time.Minute)
)

// Calendar says when the policy's targets may be changed.
func (w When) Calendar() scheduler.Calendar { return w.calendar }

// NextScheduled is when the policy's schedule says to look after t; the zero Time for
// never.
func (w When) NextScheduled(t time.Time) time.Time {
	if w.schedule == nil {
		return time.Time{}
	}
	return w.schedule.Next(t)
}

// completeTimes checks schedule, windows, freezes and what overrides them.
func (w *When) completeTimes(d *document) {
	const at = "$.when"
	if w.Schedule != "" {
		schedule, err := scheduler.ParseCron(w.Schedule)
		if err != nil {
			d.addAt(at+".schedule", "schedule %q: %v; want five fields, as in \"0 3 * * 6\"", w.Schedule, err)
		}
		w.schedule = schedule
	}
	for i := range w.Windows {
		w.completeWindow(d, at+".windows["+strconv.Itoa(i)+"]", &w.Windows[i])
	}
	for i, f := range w.Freeze {
		at := at + ".freeze[" + strconv.Itoa(i) + "]"
		switch {
		case f.From.IsZero() || f.To.IsZero():
			d.addAt(at, "a freeze needs from and to")
		case !f.From.Before(f.To.end()):
			d.addAt(at+".to", "the freeze ends before it begins")
		default:
			w.calendar.Freezes = append(w.calendar.Freezes, scheduler.Freeze{From: f.From.Time, To: f.To.end()})
		}
	}
	if len(w.calendar.Windows) == len(w.Windows) && len(w.calendar.Freezes) == len(w.Freeze) && w.calendar.NextOpen(time.Now()).IsZero() {
		d.addAt(at, "windows and freezes leave no moment within two years in which a target could be changed")
	}
	if w.ExpiryWins == nil {
		w.ExpiryWins = new(defaultExpiryWins)
	}
	if w.Splay > maxSplay {
		d.addAt(at+".splay", "splay %s is longer than %s", w.Splay, maxSplay)
	}
}

func (w *When) completeWindow(d *document, at string, window *Window) {
	required(d, at, "start", window.Start)
	if window.Duration < minWindow || window.Duration.Std() > scheduler.MaxWindow {
		d.addAt(at+".duration", "a window of %s is not between %s and %s", window.Duration, minWindow, Duration(scheduler.MaxWindow))
		return
	}
	if window.TimeZone == "" {
		window.TimeZone = "UTC"
	}
	zone, err := time.LoadLocation(window.TimeZone)
	if err != nil || window.TimeZone == "Local" {
		d.addAt(at+".time_zone", "%q is not a time zone, as in Europe/Berlin", window.TimeZone)
		return
	}
	if window.Start == "" {
		return
	}
	built, err := scheduler.NewWindow(window.Start, window.Duration.Std(), zone)
	if err != nil {
		d.addAt(at+".start", "start %q: %v; want five fields, as in \"0 2 * * *\"", window.Start, err)
		return
	}
	w.calendar.Windows = append(w.calendar.Windows, built)
}

// ParseWhen reads the member when of a policy by itself, for tests and tools.
func ParseWhen(text string) (When, error) {
	var p struct {
		When When `yaml:"when"`
	}
	d := parseDocument("when", []byte("when: "+text+"\n"), &p)
	if len(d.problems) == 0 {
		p.When.complete(d, &Config{})
		p.When.completeTimes(d)
	}
	return p.When, d.problems.orNil()
}
