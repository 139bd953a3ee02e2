package admin

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Urgency lists the states, the one that needs attention most first.
func Urgency() []string {
	return []string{"expired", "failed", "unconverged", "quarantined", "braked", "rotating", "paused", "waiting", "unknown", "converged"}
}

// meaning says what a state is, in words.
func meaning(state string) string {
	switch state {
	case "expired":
		return "what is wanted has expired"
	case "failed":
		return "a step failed, or the guard refuses"
	case "unconverged":
		return "activated, and not yet seen to be served"
	case "quarantined":
		return "the files cannot be used; the last good bundle stays"
	case "braked":
		return "too much changes at once; somebody has to confirm"
	case "rotating":
		return "steps are being made"
	case "paused":
		return "something is to be done, and somebody holds the policy"
	case "waiting":
		return "something is to be done, not now"
	case "converged":
		return "every target serves what is wanted, proven"
	}
	return "not looked at yet"
}

// troubled reports whether a state waits for people.
func troubled(state string) bool {
	switch state {
	case "expired", "failed", "unconverged", "quarantined", "braked", "paused":
		return true
	}
	return false
}

// Printable is text without what a terminal would take for a command, or a reader for a line
// of its own or for another order of letters.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '?'
	}, s)
}

// cut is printable text of at most so many letters.
func cut(s string, most int) string {
	s = Printable(s)
	for i := range s {
		if most--; most < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// Span is a duration in one or two units that people think in.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < day:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d < 10*day:
		return fmt.Sprintf("%dd%dh", int(d/day), int(d.Hours())%24)
	}
	return fmt.Sprintf("%dd", int(d/day))
}

// short is a fingerprint as people compare it.
func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 12)] }

// counted is a number with its noun.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands is a number that can be read at a glance.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
