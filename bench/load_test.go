package main

import "testing"

func TestLoad(t *testing.T) {
	tryExperiment(t, "load", 5, "flat: start to ready", "certbot: load and two scrapes, CPU", "kubernetes: start to first complete scrape", "resident after 20 scrapes")
}
