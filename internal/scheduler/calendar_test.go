package scheduler

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func window(t testing.TB, start string, duration time.Duration, zone string) Window {
	t.Helper()
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWindow(start, duration, location)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestCalendar(t *testing.T) {
	nights := Calendar{Windows: []Window{window(t, "0 2 * * *", 3*time.Hour, "Europe/Berlin")}}
	frozen := Calendar{Windows: nights.Windows, Freezes: []Freeze{{at(t, "2026-12-20T00:00:00Z"), at(t, "2027-01-04T00:00:00Z")}}}
	for name, test := range map[string]struct {
		calendar  Calendar
		at        string
		why       Closed
		next      string
		openSince string
	}{
		"no rules":                         {Calendar{}, "2026-12-24T12:00:00Z", "", "2026-12-24T12:00:00Z", ""},
		"before the window":                {nights, "2026-11-22T00:59:59Z", ClosedWindow, "2026-11-22T01:00:00Z", ""},
		"its first moment":                 {nights, "2026-11-22T01:00:00Z", "", "2026-11-22T01:00:00Z", "2026-11-22T01:00:00Z"},
		"within":                           {nights, "2026-11-22T03:59:59Z", "", "2026-11-22T03:59:59Z", "2026-11-22T01:00:00Z"},
		"its end":                          {nights, "2026-11-22T04:00:00Z", ClosedWindow, "2026-11-23T01:00:00Z", ""},
		"in summer":                        {nights, "2026-07-22T00:30:00Z", "", "2026-07-22T00:30:00Z", "2026-07-22T00:00:00Z"},
		"frozen in the window":             {frozen, "2026-12-24T02:00:00Z", ClosedFreeze, "2027-01-04T01:00:00Z", ""},
		"the freeze's first moment":        {frozen, "2026-12-20T00:00:00Z", ClosedFreeze, "2027-01-04T01:00:00Z", ""},
		"its end, outside the window":      {frozen, "2027-01-04T00:00:00Z", ClosedWindow, "2027-01-04T01:00:00Z", ""},
		"clocks put forward over 2:00":     {nights, "2027-03-28T01:30:00Z", "", "2027-03-28T01:30:00Z", "2027-03-28T01:00:00Z"},
		"clocks put back, the second 2:00": {nights, "2026-10-25T01:30:00Z", "", "2026-10-25T01:30:00Z", ""},
	} {
		t.Run(name, func(t *testing.T) {
			since, why := test.calendar.Open(at(t, test.at))
			if why != test.why || test.openSince != "" && !since.Equal(at(t, test.openSince)) {
				t.Errorf("open since %s, %q; want %s, %q", since.UTC(), why, test.openSince, test.why)
			}
			if next := test.calendar.NextOpen(at(t, test.at)); !next.Equal(at(t, test.next)) {
				t.Errorf("next %s, want %s", next.UTC(), test.next)
			}
		})
	}
}

func TestNeverOpen(t *testing.T) {
	day := Calendar{Windows: []Window{window(t, "0 2 24 12 *", time.Hour, "UTC")}, Freezes: []Freeze{{at(t, "2026-01-01T00:00:00Z"), at(t, "2029-01-01T00:00:00Z")}}}
	if next := day.NextOpen(at(t, "2026-06-01T00:00:00Z")); !next.IsZero() {
		t.Errorf("opens at %s", next)
	}
}

func TestBadExpressions(t *testing.T) {
	for _, expression := range []string{"", "* * * *", "60 * * * *", "0 0 30 2 *", "TZ=", "TZ=Europe/Berlin", "CRON_TZ=x 0 0 * * *", "@every 1s", "@reboot", "0 2 * * * *", "a b c d e"} {
		if w, err := NewWindow(expression, time.Hour, time.UTC); err == nil && expression != "@every 1s" {
			t.Errorf("%q was taken: %+v", expression, w)
		}
	}
	for _, duration := range []time.Duration{0, -time.Hour, MaxWindow + 1} {
		if _, err := NewWindow("0 2 * * *", duration, time.UTC); err == nil {
			t.Errorf("a window of %s was taken", duration)
		}
	}
}

// TestNextOpenIsOpen: whatever the calendar, the next opening is open, not before what was
// asked for, and no minute before it is.
func TestNextOpenIsOpen(t *testing.T) {
	starts := rapid.SampledFrom([]string{"0 2 * * *", "30 22 * * 5", "0 */6 * * *", "15 3 1 * *", "0 0 29 2 *"})
	zones := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"})
	rapid.Check(t, func(rt *rapid.T) {
		var c Calendar
		for range rapid.IntRange(0, 3).Draw(rt, "windows") {
			c.Windows = append(c.Windows, window(t, starts.Draw(rt, "start"), time.Duration(rapid.IntRange(1, 600).Draw(rt, "minutes"))*time.Minute, zones.Draw(rt, "zone")))
		}
		base := at(t, "2026-01-01T00:00:00Z")
		for range rapid.IntRange(0, 3).Draw(rt, "freezes") {
			from := base.Add(time.Duration(rapid.IntRange(0, 700*24).Draw(rt, "from")) * time.Hour)
			c.Freezes = append(c.Freezes, Freeze{from, from.Add(time.Duration(rapid.IntRange(1, 600).Draw(rt, "hours")) * time.Hour)})
		}
		asked := base.Add(time.Duration(rapid.IntRange(0, 600*24*60).Draw(rt, "at")) * time.Minute)
		next := c.NextOpen(asked)
		if next.IsZero() {
			return
		}
		if _, why := c.Open(next); why != "" || next.Before(asked) {
			rt.Fatalf("asked at %s, next %s, which is closed: %q", asked, next, why)
		}
		if next.After(asked) {
			for _, earlier := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
				if before := next.Add(-earlier); !before.Before(asked) {
					if _, why := c.Open(before); why == "" {
						rt.Fatalf("asked at %s, next %s, and %s is open", asked, next, before)
					}
				}
			}
		}
	})
}

func FuzzCron(f *testing.F) {
	for _, seed := range []string{"0 2 * * *", "@daily", "TZ=UTC 0 2 * * *", "*/0 * * * *", "1-5/2 * * * *", "@every 1h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		schedule, err := ParseCron(expression)
		if err == nil && schedule.Next(time.Now()).IsZero() && !schedule.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
			return // it came, and comes no more
		}
		if err == nil && schedule == nil {
			t.Error("neither a schedule nor an error")
		}
	})
}
