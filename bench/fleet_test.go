package main

import "testing"

func TestFleet(t *testing.T) {
	wantFigures(t, tiny(t, 4, fleet), "1 daemons: rotations a second", "2 daemons: rotations a second", "4 daemons: processors busy")
}
