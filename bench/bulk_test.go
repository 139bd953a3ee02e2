package main

import "testing"

func TestBulk(t *testing.T) {
	tryExperiment(t, "bulk", 2, "one policy, 0s a call: calls a second", "one policy, 50ms a call: time", "a policy each, 0s a call: calls a rotation", "ApplyCertificateToHost 1.00")
}

// TestMixIsShared: whatever the number of rotations, as many calls are made as there were.
func TestMixIsShared(t *testing.T) {
	m := mix{"ListHost": 7}
	for _, n := range []int{1, 3, 7, 20} {
		sum := 0
		for i := range n {
			sum += m.share("ListHost", i, n)
		}
		if sum != 7 {
			t.Errorf("%d calls of 7 among %d", sum, n)
		}
	}
}
