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

// What is not on a list is taken for gone. A list with a row that cannot be read is asked for again, rather than that a host
// is taken for gone, whose certificate would then be nobody's any more.
func TestListWithUnreadableRows(t *testing.T) {
	for _, field := range []string{"id", "hostname"} {
		s := newSetup(t, cloudsim.Config{}, ModeCloud)
		spoilt := cloudsim.Fault{Operation: "ListHost", Name: cloudsim.FaultWrongType, Field: field, Count: 1}
		s.fault(t, spoilt)
		if names, err := s.target(t).List(t.Context()); err != nil || len(names) != 2 {
			t.Errorf("%s: listed %v, %v", field, names, err)
		}
		s.fault(t, spoilt)
		if o, err := s.target(t).Observe(t.Context(), request(shop)); err != nil || o.Endpoints[0].Missing {
			t.Errorf("%s: observed %+v, %v", field, o, err)
		}
	}
}
