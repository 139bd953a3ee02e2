package rotation

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// observations are some that could be made, the same in each run.
func observations() (all []Observation) {
	drawn := rapid.Custom(randomObservation)
	for seed := range 64 {
		all = append(all, drawn.Example(seed))
	}
	return all
}

// BenchmarkPlan is what is to be done after a look.
func BenchmarkPlan(b *testing.B) {
	all := observations()
	steps := 0
	for i := 0; b.Loop(); i++ {
		steps += len(Plan(all[i%len(all)], epoch))
	}
	b.ReportMetric(float64(steps)/float64(b.N), "steps/op")
}

// BenchmarkCopyRecord is the copy that is made for each write of a record, beside its encoding.
func BenchmarkCopyRecord(b *testing.B) {
	all := observations()
	var copying, encoding time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		record := all[i%len(all)].Record.clone()
		copied := time.Now()
		if _, err := json.Marshal(record); err != nil {
			b.Fatal(err)
		}
		copying += copied.Sub(began)
		encoding += time.Since(copied)
	}
	b.ReportMetric(float64(copying)/float64(encoding), "copy/encode")
}
