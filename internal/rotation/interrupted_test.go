package rotation

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// strikeOnce rotates to a second bundle, and has a call fail once when it has had its effect.
func (w *world) strikeOnce(call string, failure error) {
	w.t.Helper()
	w.wanted = w.bundle(1)
	w.drive(TriggerFile, 3*time.Hour)
	w.order = nil
	struck := false
	w.fault = func(c string, after bool) error {
		if c == call && after && !struck {
			struck = true
			return failure
		}
		return nil
	}
	w.wanted = w.bundle(2)
	w.drive(TriggerFile, 3*time.Hour)
	if !struck {
		w.t.Errorf("%s was not called", call)
	}
}

// TestInterruptedEffectsAreTold: what was done when the process died is in the history all the
// same.
func TestInterruptedEffectsAreTold(t *testing.T) {
	for call, kind := range map[string]EventKind{"stage": EventDeployed, "activate": EventActivated, "retire": EventRetired} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.strikeOnce(call, processKilled{})
				if !w.said(kind) {
					t.Errorf("told: %v", w.order)
				}
			})
		})
	}
}

// TestUnansweredEffectsAreTold: so is what was done although its answer was lost, once.
func TestUnansweredEffectsAreTold(t *testing.T) {
	for call, kind := range map[string]EventKind{"stage": EventDeployed, "activate": EventActivated} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.strikeOnce(call, &providers.Error{Kind: providers.KindUnknownOutcome, Service: "waf", Op: call, Message: "no answer"})
				told := 0
				for _, k := range w.order {
					if k == kind {
						told++
					}
				}
				if told != 1 {
					t.Errorf("told %d times: %v", told, w.order)
				}
			})
		})
	}
}
