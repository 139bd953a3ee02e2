package main

import "testing"

func TestFleet(t *testing.T) {
	tryExperiment(t, "fleet", 4, "1 daemons: rotations a second", "2 daemons: rotations a second", "4 daemons: processors busy")
}
