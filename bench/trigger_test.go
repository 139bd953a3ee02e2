package main

import "testing"

func TestTrigger(t *testing.T) {
	wantFigures(t, tiny(t, 2, trigger), "file: replaced to first call", "NATS: published to converged", "flood: coalesced")
}
