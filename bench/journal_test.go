package main

import "testing"

func TestJournal(t *testing.T) {
	tryExperiment(t, "journal", 20, "one record written", "records written by 8 at once", "what the records add, CPU")
}
