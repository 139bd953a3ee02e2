package rotation

import (
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// After a long outage the pauses between tries are long. When the cloud is back nobody waits for their end, and
// a failure after that has its pause as ever.
func TestCloudThatIsBackIsAskedAtOnce(t *testing.T) {
	for _, kind := range []providers.Kind{providers.KindUnavailable, providers.KindUnknownOutcome} {
		t.Run(kind.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.policy.Targets[0].WAF.Cloud = "main"
				away := func(call string, _ bool) error {
					if call == "observe" {
						return &providers.Error{Kind: kind, Service: "waf", Op: "list hosts"}
					}
					return nil
				}
				w.wanted, w.fault = w.bundle(1), away
				w.drive(TriggerFile, 2*time.Hour)
				for time.Until(w.targetRecord().RetryAt) < 10*time.Minute { // just before a try: that makes the next pause
					w.drive(TriggerDeadline, 10*time.Minute)
				}
				w.back = map[string]time.Time{"other": time.Now()}
				if w.finds(TriggerDeadline) {
					t.Error("another cloud came back, and it is tried")
				}
				w.back = map[string]time.Time{"main": time.Now()}
				if !w.finds(TriggerDeadline) {
					t.Error("the cloud is back, and nothing is to be done")
				}
				time.Sleep(time.Second)
				if err, _ := w.look(TriggerDeadline); err != nil {
					t.Fatal(err)
				}
				if w.expectState(StateFailed); w.finds(TriggerDeadline) {
					t.Error("it failed again, and is to be tried again at once")
				}
				if wait := time.Until(w.targetRecord().RetryAt); wait > 10*time.Second {
					t.Errorf("the pause after the outage is as long as in it: %s", wait)
				}
				time.Sleep(time.Second)
				w.fault, w.back = nil, map[string]time.Time{"main": time.Now()}
				w.drive(TriggerDeadline, time.Minute)
				w.expectState(StateConverged)
			})
		})
	}
}

// What was refused is not asked again because the service had been away for others.
func TestRefusalsWaitWhateverCameBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.policy.Targets[0].WAF.Cloud = "main"
		w.wanted, w.fault = w.bundle(1), func(call string, _ bool) error {
			if call == "observe" {
				return &providers.Error{Kind: providers.KindDenied, Service: "waf", Op: "list hosts"}
			}
			return nil
		}
		w.drive(TriggerFile, time.Hour)
		w.back = map[string]time.Time{"main": time.Now()}
		if w.finds(TriggerDeadline) {
			t.Error("a refusal is tried again at once")
		}
	})
}
