package rotation

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestRepeatedFailureInTheLog: a step that fails for a night is told when it begins, when it
// fails otherwise, and about once an hour; after it worked, anew.
func TestRepeatedFailureInTheLog(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		e, lines := w.engine(), &bytes.Buffer{}
		e.cfg.Logger = slog.New(slog.NewTextHandler(lines, nil))
		why, tries := errors.New("refused"), 0
		w.fault = func(call string, after bool) error {
			if strings.HasPrefix(call, "stage") && !after && why != nil {
				tries++
				return why
			}
			return nil
		}
		// told works for a while and returns how often each told failure had been met.
		told := func(span time.Duration) (times []string) {
			t.Helper()
			lines.Reset()
			for end := time.Now().Add(span); time.Now().Before(end); {
				if err := e.Process(t.Context(), w.id, Request{Trigger: TriggerDeadline, Asked: time.Now()}); err != nil {
					t.Fatal(err)
				}
				next := w.record().WakeAt
				if next.IsZero() || next.After(end) {
					next = end
				}
				time.Sleep(time.Until(next))
			}
			for _, found := range regexp.MustCompile(`msg="step failed".* times=(\d+) `).FindAllStringSubmatch(lines.String(), -1) {
				times = append(times, found[1])
			}
			return times
		}
		night := told(8 * time.Hour)
		if len(night) < 7 || len(night) > 9 || night[0] != "1" || tries < 12 {
			t.Errorf("%d tries in a night, told at %v", tries, night)
		}
		why = errors.New("timed out")
		if got := told(time.Hour); len(got) == 0 || got[0] != "1" {
			t.Errorf("it fails otherwise: told at %v", got)
		}
		why = nil
		if got := told(2 * time.Hour); len(got) != 0 || w.record().State != StateConverged {
			t.Errorf("it works: told at %v, %s", got, w.record().State)
		}
		w.wanted, why = w.bundle(2), errors.New("timed out")
		if got := told(10 * time.Second); fmt.Sprint(got) != "[1]" {
			t.Errorf("it fails again: told at %v", got)
		}
	})
}
