package scheduler

import (
	"slices"
	"time"
)

// Span is a time without interruption; To is not in it any more.
type Span struct{ From, To time.Time }

// maxOpenings bounds the work for a window that opens every few minutes: of such a one a
// part of the time tells as much as all of it.
const maxOpenings = 100_000

// Spans returns when the calendar is open between two moments, in order; spans that touch
// are one.
func (c Calendar) Spans(from, to time.Time) []Span {
	open := []Span{{from, to}}
	if len(c.Windows) > 0 {
		open = nil
		for _, w := range c.Windows {
			open = append(open, w.spans(from, to)...)
		}
	}
	open = joined(open)
	for _, f := range c.Freezes {
		open = without(open, f)
	}
	return open
}

// spans are the openings of a window, cut to the time between two moments.
func (w Window) spans(from, to time.Time) []Span {
	var all []Span
	w.starts(from.Add(-w.duration), func(start time.Time) bool {
		span := Span{start, start.Add(w.duration)}
		if span.From.Before(from) {
			span.From = from
		}
		if span.To.After(to) {
			span.To = to
		}
		if span.From.Before(span.To) {
			all = append(all, span)
		}
		// Openings may change places by as much as clocks are put back.
		return len(all) < maxOpenings && start.Before(to.Add(transition))
	})
	return all
}

// joined sorts spans and makes one of those that touch.
func joined(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return a.From.Compare(b.From) })
	var all []Span
	for _, s := range spans {
		last := len(all) - 1
		switch {
		case last < 0 || s.From.After(all[last].To):
			all = append(all, s)
		case s.To.After(all[last].To):
			all[last].To = s.To
		}
	}
	return all
}

// without cuts a freeze out of spans.
func without(spans []Span, f Freeze) []Span {
	var all []Span
	for _, s := range spans {
		if !s.From.Before(f.To) || !s.To.After(f.From) {
			all = append(all, s)
			continue
		}
		if s.From.Before(f.From) {
			all = append(all, Span{s.From, f.From})
		}
		if s.To.After(f.To) {
			all = append(all, Span{f.To, s.To})
		}
	}
	return all
}

// Longest is how long the longest window of the calendar is open; zero without windows.
func (c Calendar) Longest() time.Duration {
	var longest time.Duration
	for _, w := range c.Windows {
		longest = max(longest, w.duration)
	}
	return longest
}
