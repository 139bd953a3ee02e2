package main

import "testing"

func TestDrift(t *testing.T) {
	tryExperiment(t, "drift", 2, "all compared, asked, calls", "all compared, regularly, calls")
}
