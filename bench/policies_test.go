package main

import "testing"

func TestPolicies(t *testing.T) {
	tryExperiment(t, "policies", 2, "check, memory", "plan, offline", "plan, asked of a daemon", "plan, CPU of the daemon that is asked")
}
