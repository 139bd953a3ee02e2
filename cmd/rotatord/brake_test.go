package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
)

// fleet has as many records.
func fleet(n int) (*records, func(i int) rotation.ID) {
	id := func(i int) rotation.ID { return rotation.ID{Policy: "p", Certificate: fmt.Sprint(i)} }
	r := newRecords(func(rotation.ID, rotation.Record) {}, func() {})
	for i := range n {
		r.put(placedID{ID: id(i)}, mirrored{revision: 1})
	}
	return r, id
}

func TestBrakeCountsAssignments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, id := fleet(100)
		b := &brake{limits: policy.Brake{MaxShare: 20, MaxPerHour: new(200)}, records: all}
		for i := range 20 {
			if why := b.ask(id(i)); why != "" {
				t.Fatalf("the change of %d: %s", i, why)
			}
			all.put(placedID{ID: id(i)}, mirrored{record: rotation.Record{ReplacedAt: time.Now()}, revision: 2})
			time.Sleep(time.Second)
		}
		if why := b.ask(id(20)); !strings.Contains(why, "20 of 100") || !strings.Contains(why, "confirm") {
			t.Errorf("the twenty-first: %q", why)
		}
		if why := b.ask(id(3)); why != "" {
			t.Errorf("one that changed already: %q", why)
		}
		time.Sleep(time.Hour)
		if why := b.ask(id(20)); why != "" {
			t.Errorf("an hour later: %q", why)
		}
	})
}

func TestBrakeLeavesTheFewAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, id := fleet(7)
		b := &brake{limits: policy.Brake{MaxShare: 20, MaxPerHour: new(200)}, records: all}
		for range 5 {
			for i := range 7 {
				if why := b.ask(id(i)); why != "" {
					t.Fatal(why)
				}
				all.put(placedID{ID: id(i)}, mirrored{record: rotation.Record{ReplacedAt: time.Now()}, revision: 2})
			}
			time.Sleep(time.Minute)
		}
	})
}
