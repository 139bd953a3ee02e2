package main

import (
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
)

func TestChange(t *testing.T) {
	text := tryExperiment(t, "change", 5, "rename to answered scrape, p99", "first gzip scrape after one change, CPU", "50 replaced at once, last to all right",
		"series of certificates that this touched", "one look at all, nothing new, CPU", "idle for a minute, CPU")
	for line := range strings.Lines(text) {
		if strings.Contains(line, "that miss a series") && !strings.Contains(line, "[0 0]") {
			t.Error(line)
		}
	}
}

func TestMissing(t *testing.T) {
	p, err := generate(t.Context(), t.TempDir()+"/pairs", 1, flat)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.issue(0)
	if err != nil {
		t.Fatal(err)
	}
	there := `rotatord_certificate_info{fingerprint_sha256="` + b.Fingerprint().String() + `",role="source"} 1` + "\n"
	other := strings.Replace(there, b.Fingerprint().String()[:4], "0000", 1)
	if missing(there, []*certs.Bundle{b}) != 0 || missing(other, []*certs.Bundle{b}) != 1 || missing("", []*certs.Bundle{b}) != 1 {
		t.Error("what a scrape shows is not told from what it does not")
	}
	if difference(bundleSeries(there), bundleSeries(other)) != 2 || difference(bundleSeries(there), bundleSeries(there+"go_goroutines 3\n")) != 0 {
		t.Error("series that changed are not told from those that did not")
	}
}
