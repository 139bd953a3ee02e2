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

// slowCount takes its time to count records.
type slowCount struct {
	*records
	takes time.Duration
	times int
}

func (s *slowCount) changedSince(since time.Time) (map[rotation.ID]bool, int) {
	s.times++
	time.Sleep(s.takes)
	return s.records.changedSince(since)
}

// TestBrakeTakesAShare: where there is much to count, it is counted more rarely, and what passes
// counts at once all the same.
func TestBrakeTakesAShare(t *testing.T) {
	for takes, want := range map[time.Duration]int{0: 10, 4 * time.Millisecond: 5, 10 * time.Millisecond: 2, time.Second: 1} {
		synctest.Test(t, func(t *testing.T) {
			all, id := fleet(10_000)
			slow := &slowCount{records: all, takes: takes}
			b := &brake{limits: policy.Brake{MaxShare: 1, MaxPerHour: new(10_000)}, records: slow}
			passed := 0
			for i, end := 0, time.Now().Add(time.Second); i == 0 || time.Now().Before(end); i++ {
				if b.ask(id(i)) == "" {
					passed++
				}
				time.Sleep(time.Millisecond)
			}
			if slow.times != want {
				t.Errorf("counted %d times in a second where it takes %s, want %d", slow.times, takes, want)
			}
			if want := 100; takes < time.Second && passed != want {
				t.Errorf("%d passed where it takes %s, want %d", passed, takes, want)
			}
		})
	}
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
