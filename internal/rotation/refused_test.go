package rotation

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// TestEachRefusedBundleIsTold: a bundle that is refused for the same reason as the one before
// it is another decision.
func TestEachRefusedBundleIsTold(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refused := map[certs.Fingerprint]int{}
		for n := range byte(3) {
			w.wanted = w.bundle(n + 1)
			w.wanted.CA = true
			w.drive(TriggerFile, 13*time.Hour)
		}
		for _, e := range w.events {
			if e.Kind == EventFailed && e.Data.Outcome == OutcomeRefused {
				refused[e.Data.Fingerprint]++
			}
		}
		for n := range byte(3) {
			if f := w.bundle(n + 1).Info.Fingerprint; refused[f] != 1 {
				t.Errorf("the refusal of %s is told %d times", f, refused[f])
			}
		}
	})
}
