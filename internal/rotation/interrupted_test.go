package rotation

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// TestInterruptedEffectsAreTold: what was done when the process died, or the answer was lost,
// is in the history all the same.
func TestInterruptedEffectsAreTold(t *testing.T) {
	for call, kind := range map[string]EventKind{"stage": EventDeployed, "activate": EventActivated, "retire": EventRetired} {
		t.Run(call, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.wanted = w.bundle(1)
				w.drive(TriggerFile, 3*time.Hour)
				w.order = nil
				struck := false
				w.fault = func(c string, after bool) error {
					if c == call && after && !struck {
						struck = true
						return processKilled{}
					}
					return nil
				}
				w.wanted = w.bundle(2)
				w.drive(TriggerFile, 3*time.Hour)
				if !struck || !w.said(kind) {
					t.Errorf("struck: %v; told: %v", struck, w.order)
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
				w.wanted = w.bundle(1)
				w.drive(TriggerFile, 3*time.Hour)
				w.order = nil
				struck := false
				w.fault = func(c string, after bool) error {
					if c == call && after && !struck {
						struck = true
						return &providers.Error{Kind: providers.KindUnknownOutcome, Service: "waf", Op: call, Message: "no answer"}
					}
					return nil
				}
				w.wanted = w.bundle(2)
				w.drive(TriggerFile, 3*time.Hour)
				told := 0
				for _, k := range w.order {
					if k == kind {
						told++
					}
				}
				if !struck || told != 1 {
					t.Errorf("struck: %v; told %d times: %v", struck, told, w.order)
				}
			})
		})
	}
}
