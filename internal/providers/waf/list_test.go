package waf

import (
	"fmt"
	"slices"
	"testing"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

// List reads every page of every mode, and makes a later look cheaper.
func TestList(t *testing.T) {
	var hosts []cloudsim.Host
	want := map[string][]string{}
	for i := range 230 {
		h := cloudsim.Host{Name: fmt.Sprintf("h%d.example.com", i), Dedicated: i%3 == 0}
		hosts = append(hosts, h)
		mode := ModeCloud
		if h.Dedicated {
			mode = ModeDedicated
		}
		want[mode] = append(want[mode], h.Name)
		want[ModeAny] = append(want[ModeAny], h.Name)
	}
	for _, mode := range []string{ModeCloud, ModeAny} { // in ModeDedicated a setup has no other hosts
		t.Run("mode "+mode, func(t *testing.T) {
			s := newSetup(t, cloudsim.Config{Hosts: hosts, Misbehave: true, Seed: 7}, mode)
			names, err := s.target(t).List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(names)
			slices.Sort(want[mode])
			if !slices.Equal(names, want[mode]) {
				t.Errorf("%d names, want %d", len(names), len(want[mode]))
			}
		})
	}
}

func TestListMakesIDsKnown(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: "a.example.com"}, {Name: "b.example.com"}}}, ModeCloud)
	target := s.target(t)
	if _, err := target.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := len(s.sim.Ledger())
	if _, err := target.Observe(t.Context(), request("a.example.com", "b.example.com")); err != nil {
		t.Fatal(err)
	}
	for _, e := range s.sim.Ledger()[before:] {
		if e.Operation == "ListHost" {
			t.Error("hosts were listed again")
		}
	}
}
