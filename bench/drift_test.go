package main

import "testing"

func TestDrift(t *testing.T) {
	wantFigures(t, tiny(t, 2, drift), "one comparison of all, CPU", "one comparison of all, calls")
}
