package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestWatches(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "true").CombinedOutput(); err != nil {
		t.Skipf("there are no name spaces of users here, in which watches could run out: %v %s", err, out)
	}
	text := tryExperiment(t, "watches", 10, "directories watched, added to the start")
	for line := range strings.Lines(text) {
		for _, once := range []string{"source_polling", "lines in the log"} {
			if strings.Contains(line, once) && !strings.Contains(line, "[1.00 1.00]") {
				t.Error(line)
			}
		}
	}
}
