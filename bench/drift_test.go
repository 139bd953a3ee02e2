package main

import "testing"

func TestDrift(t *testing.T) {
	tryExperiment(t, "drift", 2, "one comparison of all, CPU", "one comparison of all, calls")
}
