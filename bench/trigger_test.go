package main

import "testing"

func TestTrigger(t *testing.T) {
	tryExperiment(t, "trigger", 2, "file: replaced to first call", "NATS: published to converged", "flood: coalesced")
}
