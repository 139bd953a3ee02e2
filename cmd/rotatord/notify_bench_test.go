package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/rotation"
)

// BenchmarkStanding is the status line for systemd, which is made every few seconds.
func BenchmarkStanding(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d, ids := crowded(b, n)
			if line := d.standing(); !strings.HasPrefix(line, fmt.Sprintf("%d certificates: %d converged", n, n)) {
				b.Fatal(line)
			}
			for _, changed := range []int{0, 1} {
				b.Run(fmt.Sprintf("changed=%d", changed), func(b *testing.B) { benchmarkStanding(b, d, ids[:changed]) })
			}
		})
	}
}

func benchmarkStanding(b *testing.B, d *daemon, changed []rotation.ID) {
	for b.Loop() {
		for _, id := range changed {
			r := d.records.get(id)
			r.Since = r.Since.Add(time.Second)
			d.records.put(placedID{ID: id}, mirrored{record: r, revision: 1})
		}
		_ = d.standing()
	}
}
