package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
)

// The status of a thousand certificates fits on a screen, and nothing that needs attention
// is summed up.
func TestStatusOfMany(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := admin.Status{Policies: []admin.Policy{{Name: "all"}, {Name: "few"}}}
	for i := range 1000 {
		a := admin.Assignment{Policy: "all", Certificate: fmt.Sprintf("h%d.example.com", i), State: "converged", Wanted: &admin.Bundle{NotAfter: now.AddDate(0, 0, 30+i)}}
		if i == 7 {
			a.State, a.Reason = "failed", "the quota is used up"
		}
		s.Assignments = append(s.Assignments, a)
	}
	s.Assignments = append(s.Assignments, admin.Assignment{Policy: "few", Certificate: "one", State: "converged"})
	show := func(all bool) string {
		var b strings.Builder
		if err := printStatus(&b, s, all, now); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := `POLICY  CERTIFICATE       STATE      FOR  EXPIRES                    TARGETS  NEXT LOOK
all     h7.example.com    failed     -    in 37d                     -        -
all     999 certificates  converged  -    in 30d (h0.example.com)    -        -
few     1 certificate     converged  -    -                          -        -
(--all shows the converged ones one by one)

all/h7.example.com: the quota is used up
2 policies, 1001 certificates: 1 failed, 1000 converged
`
	if got := show(false); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := show(true); strings.Count(got, "converged  -") != 1000 {
		t.Errorf("--all shows\n%.2000s", got)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m", 3 * time.Hour: "3h00m", 27*time.Hour + 5*time.Minute: "1d3h", 40 * 24 * time.Hour: "40d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
