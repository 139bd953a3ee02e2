package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// moment is a time of UTC to the minute.
func moment(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestSpans(t *testing.T) {
	freeze := func(from, to string) Freeze { return Freeze{moment(t, from), moment(t, to)} }
	for _, test := range []struct {
		name     string
		calendar Calendar
		from, to string
		want     string
	}{
		{"always", Calendar{}, "2026-01-01 00:00", "2026-01-02 00:00", "01-01 00:00+24h0m0s"},
		{"every night", Calendar{Windows: []Window{window(t, "0 2 * * *", time.Hour, "UTC")}}, "2026-01-01 00:00", "2026-01-03 00:00", "01-01 02:00+1h0m0s 01-02 02:00+1h0m0s"},
		{"cut at both ends", Calendar{Windows: []Window{window(t, "0 2 * * *", 2*time.Hour, "UTC")}}, "2026-01-01 03:00", "2026-01-02 03:00", "01-01 03:00+1h0m0s 01-02 02:00+1h0m0s"},
		{"two that touch", Calendar{Windows: []Window{window(t, "0 2 * * *", time.Hour, "UTC"), window(t, "0 3 * * *", time.Hour, "UTC")}}, "2026-01-01 00:00", "2026-01-02 00:00", "01-01 02:00+2h0m0s"},
		{"frozen in the middle", Calendar{Windows: []Window{window(t, "0 2 * * *", 3*time.Hour, "UTC")}, Freezes: []Freeze{freeze("2026-01-01 03:00", "2026-01-01 04:00")}}, "2026-01-01 00:00", "2026-01-02 00:00", "01-01 02:00+1h0m0s 01-01 04:00+1h0m0s"},
		{"frozen", Calendar{Freezes: []Freeze{freeze("2025-12-01 00:00", "2026-02-01 00:00")}}, "2026-01-01 00:00", "2026-01-02 00:00", ""},
		// On 29 March 02:30 is not there; on 25 October it is there twice, and the second counts.
		{"clocks put forward", Calendar{Windows: []Window{window(t, "30 2 * * *", time.Hour, "Europe/Berlin")}}, "2026-03-28 00:00", "2026-03-30 12:00", "03-28 01:30+1h0m0s 03-29 01:30+1h0m0s 03-30 00:30+1h0m0s"},
		{"clocks put back", Calendar{Windows: []Window{window(t, "30 2 * * *", time.Hour, "Europe/Berlin")}}, "2026-10-24 12:00", "2026-10-26 12:00", "10-25 01:30+1h0m0s 10-26 01:30+1h0m0s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, s := range test.calendar.Spans(moment(t, test.from), moment(t, test.to)) {
				got = append(got, fmt.Sprintf("%s+%s", s.From.UTC().Format("01-02 15:04"), s.To.Sub(s.From)))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("open\n%s, want\n%s", strings.Join(got, " "), test.want)
			}
		})
	}
}

// Spans says the same as Open does, minute by minute.
func TestSpansAndOpenAgree(t *testing.T) {
	base := time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(rt *rapid.T) {
		var c Calendar
		for range rapid.IntRange(0, 3).Draw(rt, "windows") {
			start := fmt.Sprintf("%d %d * * %s", rapid.IntRange(0, 59).Draw(rt, "minute"), rapid.IntRange(0, 23).Draw(rt, "hour"), rapid.SampledFrom([]string{"*", "1", "6,0"}).Draw(rt, "day"))
			zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/Santiago"}).Draw(rt, "zone")
			c.Windows = append(c.Windows, window(t, start, time.Duration(rapid.IntRange(1, 40*60).Draw(rt, "duration"))*time.Minute, zone))
		}
		for range rapid.IntRange(0, 2).Draw(rt, "freezes") {
			from := base.Add(time.Duration(rapid.IntRange(0, 20*24).Draw(rt, "from")) * time.Hour)
			c.Freezes = append(c.Freezes, Freeze{from, from.Add(time.Duration(rapid.IntRange(1, 100).Draw(rt, "for")) * time.Hour)})
		}
		spans := c.Spans(base, base.Add(20*24*time.Hour))
		for range 50 {
			asked := base.Add(time.Duration(rapid.IntRange(0, 20*24*60-1).Draw(rt, "at")) * time.Minute)
			_, why := c.Open(asked)
			in := slices.ContainsFunc(spans, func(s Span) bool { return !asked.Before(s.From) && asked.Before(s.To) })
			if in != (why == "") {
				rt.Fatalf("at %s Open says %q, and the spans %t: %v", asked, why, in, spans)
			}
		}
	})
}

func BenchmarkSpans(b *testing.B) {
	w := window(b, "*/5 * * * *", time.Minute, "UTC")
	from := time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC)
	for b.Loop() {
		Calendar{Windows: []Window{w}}.Spans(from, from.Add(2*365*24*time.Hour))
	}
}
