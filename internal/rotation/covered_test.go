package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
)

// inCoveredWorld has a policy that names no hosts, and two hosts.
func inCoveredWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		w := newWorld(t, p)
		p.Targets[0].WAF.Hosts = policy.Names{Covered: true}
		f(t, w)
	})
}

func TestCoveredHostsAreServedAndOthersLeftAlone(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		w.bound["other.example.org"] = ""
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) || w.bound["other.example.org"] != "" {
			t.Errorf("bound %v", w.bound)
		}
		w.calls = nil
		if w.finds(TriggerStartup) {
			t.Error("due at a start")
		}
	})
}

func TestNewCoveredHostIsFoundByTheNextComparison(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		delete(w.bound, "www.example.com")
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		w.bound["www.example.com"] = ""
		w.drive(TriggerDeadline, 7*time.Hour)
		w.expectState(StateConverged)
		if !w.boundTo("www.example.com", 1) || w.creates[w.wanted.Info.Fingerprint] != 1 {
			t.Errorf("bound %v, uploads %v", w.bound, w.creates)
		}
	})
}

func TestNothingCoveredYetIsNoFailure(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		clear(w.bound)
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, 24*time.Hour)
		w.expectState(StateConverged)
		if w.count("stage") > 0 || w.count("list") > 6 {
			t.Errorf("calls %v", w.calls)
		}
		w.bound["shop.example.com"] = ""
		w.drive(TriggerDeadline, 7*time.Hour)
		if !w.boundTo("shop.example.com", 1) {
			t.Error("the host that came later is not served")
		}
	})
}

func TestCoveredHostWhoseNameIsLost(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.wanted = w.bundle(2)
		w.wanted.Info.Names = []string{"shop.example.com"}
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateFailed)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) {
			t.Error("a bundle without a served name was deployed")
		}
	})
}

func TestListingFailsAndHeals(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.fault = func(call string, after bool) error {
			if call == "list" || call == "stage" {
				return &providers.Error{Kind: providers.KindUnavailable, Service: "waf", Op: "list hosts"}
			}
			return nil
		}
		w.drive(TriggerFile, time.Hour)
		w.expectState(StateFailed)
		w.fault = nil
		w.drive(TriggerDeadline, time.Hour)
		w.expectState(StateConverged)
	})
}

// shortList is a target that lists nothing.
type shortList struct{ target }

func (shortList) List(context.Context) ([]string, error) { return nil, nil }

// A host that is not on the list, and was served until now, is asked for by its name before it is taken for gone: else
// its next certificate would be brought nowhere, and be called converged.
func TestHostsThatTheListLeavesOut(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		before := w.targetRecord().Endpoints
		w.listing = NewListing(shortList{target{w}})
		w.wanted = w.bundle(2)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)
		for _, name := range before {
			if !w.boundTo(name, 2) {
				t.Errorf("%s was left with its old certificate", name)
			}
		}
		delete(w.bound, "www.example.com") // now it is gone
		w.drive(TriggerNATS, time.Minute)
		w.expectState(StateConverged)
		if now := w.targetRecord().Endpoints; !slices.Equal(now, []string{"shop.example.com"}) {
			t.Errorf("served at %v", now)
		}
	})
}

// slowList is a list that somebody reads until it is told the end.
type slowList struct {
	mu    sync.Mutex
	reads int
	end   chan listEnd
}

type listEnd struct {
	names []string
	err   error
}

func (s *slowList) List(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	s.reads++
	s.mu.Unlock()
	select {
	case end := <-s.end:
		return end.names, end.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestWhoIsServedDoesNotWaitForTheList: a list of very many hosts takes long. Renewals of what is
// served go on meanwhile, and what the list then shows is not forgotten.
func TestWhoIsServedDoesNotWaitForTheList(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		delete(w.bound, "www.example.com")
		slow := &slowList{end: make(chan listEnd)}
		w.listing = NewListing(slow)
		read := func(end listEnd) (result chan error) {
			result = make(chan error, 1)
			go func() {
				_, err := w.listing.fresh(t.Context(), 0)
				result <- err
			}()
			synctest.Wait()
			if end.names != nil || end.err != nil {
				slow.end <- end
				synctest.Wait()
			}
			return result
		}
		shop, both := []string{"other.example.org", "shop.example.com"}, []string{"other.example.org", "shop.example.com", "www.example.com"}
		read(listEnd{names: shop})
		w.wanted = w.bundle(1)
		w.drive(TriggerFile, time.Minute)
		w.expectState(StateConverged)

		// Somebody reads it, for as long as the next one takes to be where it should be.
		time.Sleep(4 * time.Hour)
		reading := read(listEnd{})
		w.bound["www.example.com"] = ""
		w.wanted = w.bundle(2)
		w.drive(TriggerNATS, time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 2) || w.bound["www.example.com"] != "" || slow.reads != 2 || len(w.again) > 0 {
			t.Errorf("bound %v after %d reads, again %v", w.bound, slow.reads, w.again)
		}
		slow.end <- listEnd{err: errors.New("a page cannot be read")}
		if err := <-reading; err == nil || len(w.again) > 0 {
			t.Errorf("%v, again %v", err, w.again)
		}
		// The next one who reads it tells them.
		read(listEnd{names: both})
		if !slices.Equal(w.again, []Trigger{TriggerNATS}) {
			t.Errorf("again %v", w.again)
		}
		w.drive(w.again[0], time.Minute)
		w.expectState(StateConverged)
		if !w.boundTo("www.example.com", 2) || slow.reads != 3 {
			t.Errorf("bound %v after %d reads", w.bound, slow.reads)
		}
		// A list that shows others' hosts, or the same, concerns nobody.
		for _, names := range [][]string{both, append([]string{"new.example.org"}, both...)} {
			time.Sleep(4 * time.Hour)
			w.again = nil
			reading = read(listEnd{})
			w.drive(TriggerNATS, time.Minute)
			slow.end <- listEnd{names: names}
			if err := <-reading; err != nil || len(w.again) > 0 {
				t.Errorf("%v, again %v", err, w.again)
			}
		}
	})
}

// TestWhoIsNotServedWaitsForTheList: where its hosts are only the list can tell.
func TestWhoIsNotServedWaitsForTheList(t *testing.T) {
	inCoveredWorld(t, func(t *testing.T, w *world) {
		slow := &slowList{end: make(chan listEnd)}
		w.listing = NewListing(slow)
		w.wanted = w.bundle(1)
		converged := make(chan bool)
		go func() {
			w.drive(TriggerFile, time.Minute)
			close(converged)
		}()
		synctest.Wait()
		if !slices.Equal(w.calls, []string{"load"}) {
			t.Errorf("calls %v before the list was there", w.calls)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.listing.fresh(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("who does not wait any longer hears %v", err)
		}
		slow.end <- listEnd{names: []string{"shop.example.com", "www.example.com"}}
		<-converged
		w.expectState(StateConverged)
		if !w.boundTo("shop.example.com", 1) || !w.boundTo("www.example.com", 1) || slow.reads != 1 {
			t.Errorf("bound %v after %d reads", w.bound, slow.reads)
		}
	})
}

// longList is a list that takes long.
type longList struct {
	takes time.Duration
	reads int
}

func (l *longList) List(context.Context) ([]string, error) {
	l.reads++
	time.Sleep(l.takes)
	return []string{"b", "a"}, nil
}

// TestListingRestsAsLongAsItTakes: many who are impatient do not have it read all the time.
func TestListingRestsAsLongAsItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for takes, want := range map[time.Duration]int{0: 55, time.Second: 50, time.Minute: 5} {
			slow := &longList{takes: takes}
			l := NewListing(slow)
			for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
				if names, err := l.fresh(t.Context(), burst); err != nil || !slices.Equal(names, []string{"a", "b"}) {
					t.Fatal(names, err)
				}
			}
			if slow.reads != want {
				t.Errorf("read %d times in ten minutes where it takes %s, want %d", slow.reads, takes, want)
			}
		}
	})
}

func TestDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfNDistinct(rapid.StringMatching("[a-d]{1,2}"), 0, 8, rapid.ID[string])
		a, b := slices.Sorted(slices.Values(some.Draw(t, "a"))), slices.Sorted(slices.Values(some.Draw(t, "b")))
		var want []string
		for _, pair := range [][2][]string{{a, b}, {b, a}} {
			for _, name := range pair[0] {
				if !slices.Contains(pair[1], name) {
					want = append(want, name)
				}
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(difference(a, b))); !slices.Equal(got, want) {
			t.Errorf("difference of %q and %q: %q, want %q", a, b, got, want)
		}
	})
}

// TestOwnersAgree: whatever the certificates, an endpoint has the owner that a plain
// search over all of them finds, and only one that covers it.
func TestOwnersAgree(t *testing.T) {
	names := []string{"a.example.com", "b.example.com", "*.example.com", "x.a.example.com", "*.a.example.com", "example.com"}
	rapid.Check(t, func(t *rapid.T) {
		all := map[string]certs.Info{}
		for _, certificate := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.example.com", "b.example.com", "c1", "c2"}), 0, 4, rapid.ID[string]).Draw(t, "certificates") {
			info := certs.Info{Names: rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 4, rapid.ID[string]).Draw(t, "names")}
			slices.Sort(info.Names)
			all[certificate] = info
		}
		owners := NewOwners(maps.All(all))
		for _, endpoint := range names {
			owner, ok := owners.Of(endpoint)
			covering := slices.DeleteFunc(slices.Collect(maps.Keys(all)), func(c string) bool { return !all[c].Covers(endpoint) })
			if ok != (len(covering) > 0) {
				t.Fatalf("%s: owner %q, and %v cover it", endpoint, owner, covering)
			}
			if ok && !slices.Contains(covering, owner) {
				t.Fatalf("%s belongs to %s, which does not cover it", endpoint, owner)
			}
			exact := slices.ContainsFunc(covering, func(c string) bool { return slices.Contains(all[c].Names, endpoint) })
			if ok && exact && !slices.Contains(all[owner].Names, endpoint) {
				t.Fatalf("%s belongs to the wildcard of %s although %s is exact", endpoint, owner, strings.Join(covering, ","))
			}
		}
	})
}

// TestDivisionAgreesWithOwners: who is given which endpoints is what is told of each by itself, and
// it is worked out again when, and only when, something changed.
func TestDivisionAgreesWithOwners(t *testing.T) {
	owners := func(all map[string][]string) *Owners {
		return NewOwners(func(yield func(string, certs.Info) bool) {
			for name, names := range all {
				if !yield(name, certs.Info{Names: names}) {
					return
				}
			}
		})
	}
	s := &divisionSource{owners: owners(map[string][]string{"a": {"a.example.com", "b.example.com"}, "w": {"*.example.com"}})}
	a := &Assembly{Source: s}
	endpoints := []string{"c.example.com", "b.example.com", "x.example.org", "a.example.com", "b.example.com"}
	first := a.divided("edge", endpoints)
	if got := fmt.Sprint(first.mine, first.orphans); got != "map[a:[a.example.com b.example.com] w:[c.example.com]] [x.example.org]" {
		t.Errorf("divided as %s", got)
	}
	if a.divided("edge", endpoints) != first {
		t.Error("the same was worked out twice")
	}
	if d := a.divided("second", endpoints[:1]); len(d.mine) != 1 || a.divided("edge", endpoints) != first {
		t.Errorf("targets are taken for each other: %v", d.mine)
	}
	if d := a.divided("edge", slices.Clone(endpoints)[1:]); len(d.mine["w"]) != 0 {
		t.Errorf("another list is divided as %v", d.mine)
	}
	s.owners = owners(map[string][]string{"a": {"a.example.com"}, "w": {"*.example.com"}})
	if d := a.divided("edge", endpoints); fmt.Sprint(d.mine["w"]) != "[b.example.com c.example.com]" {
		t.Errorf("other owners have %v", d.mine)
	}
	if d := a.divided("edge", nil); len(d.mine) != 0 || len(d.orphans) != 0 {
		t.Errorf("nothing is divided as %v", d)
	}
}

// divisionSource is a source of which only the owners are asked.
type divisionSource struct {
	Source
	owners *Owners
}

func (s *divisionSource) Owners() *Owners { return s.owners }
