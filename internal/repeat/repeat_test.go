package repeat

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMet is a failure that is met every minute for three hours, changes, and ends.
func TestMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all Failures[string]
		met := func(text string, wantTimes int, want bool) {
			t.Helper()
			if times, tell := all.Met("shop", text); times != wantTimes || tell != want {
				t.Errorf("%s after %d times: told %v, want %d and %v", text, times, tell, wantTimes, want)
			}
		}
		for minute := range 180 {
			met("refused", minute+1, minute%60 == 0)
			time.Sleep(time.Minute)
		}
		if times, tell := all.Met("blog", "refused"); times != 1 || !tell {
			t.Errorf("another thing fails for the first time: %d, %v", times, tell)
		}
		met("timed out", 1, true)
		met("timed out", 2, false)
		met("refused", 1, true)
		all.Over("shop")
		met("refused", 1, true)
		met("refused", 2, false)
	})
}
