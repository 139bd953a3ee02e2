package watcher

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// shared are events with which instances are counted.
func shared(n *atomic.Int32) *Events {
	e := NewEvents(nil)
	open := e.open
	e.open = func() (source, error) {
		n.Add(1)
		return open()
	}
	return e
}

// TestEventsAreShared: many watchers, some of them of one directory or one in the other, come and
// go, and each hears what it must, of one instance.
func TestEventsAreShared(t *testing.T) {
	var instances atomic.Int32
	e := shared(&instances)
	base := t.TempDir()
	outer := filepath.Join(base, "outer")
	inner, other := filepath.Join(outer, "inner"), filepath.Join(base, "other")
	must(t, errors.Join(os.MkdirAll(inner, 0o700), os.Mkdir(other, 0o700), os.Symlink("../other", filepath.Join(outer, "link"))))
	watch := func(t *testing.T, root string) *run {
		return start(t, Config{Root: root, Recursive: true, Interval: time.Hour, Events: e})
	}
	everywhere := watch(t, outer)
	version := 0
	heard := func(t *testing.T, directory string, by ...*run) {
		t.Helper()
		version++
		b := issue(t, shop, version)
		must(t, certstest.WritePair(directory, "shop", b))
		for _, r := range by {
			r.serves(shop, b)
		}
	}
	t.Run("together", func(t *testing.T) {
		within, again, beside := watch(t, inner), watch(t, inner), watch(t, other)
		heard(t, inner, everywhere, within, again)
		heard(t, other, everywhere, beside)
		if n := beside.Snapshot().Events; n > within.Snapshot().Events {
			t.Errorf("the one beside heard of %d events", n)
		}
	})
	heard(t, inner, everywhere) // those who left have not taken its watches with them
	heard(t, other, everywhere)
	t.Run("another comes", func(t *testing.T) {
		heard(t, inner, everywhere, watch(t, inner))
	})
	if n := instances.Load(); n != 1 {
		t.Errorf("%d instances", n)
	}
}

// TestEventsGiveBack: with the last watcher the instance goes, and before that the watches that
// nobody needs.
func TestEventsGiveBack(t *testing.T) {
	e := NewEvents(nil)
	var lists []func() []string
	e.open = func() (source, error) {
		s, err := openSource()
		lists = append(lists, s.(fsSource).WatchList)
		return s, err
	}
	base := t.TempDir()
	one, two := filepath.Join(base, "one"), filepath.Join(base, "two")
	must(t, errors.Join(os.MkdirAll(filepath.Join(one, "a"), 0o700), os.Mkdir(two, 0o700)))
	t.Run("both", func(t *testing.T) {
		start(t, Config{Root: one, Recursive: true, Events: e})
		t.Run("one", func(t *testing.T) {
			start(t, Config{Root: two, Recursive: true, Events: e})
		})
		want := []string{base, one, filepath.Join(one, "a")}
		if got := slices.Sorted(slices.Values(lists[0]())); !slices.Equal(got, want) {
			t.Errorf("watched are %v", got)
		}
		if len(e.outside[base]) != 1 { // the parent of both
			t.Errorf("who left is told of %v", e.outside)
		}
	})
	if len(e.instances)+len(e.roots)+len(e.outside) > 0 || len(lists[0]()) > 0 {
		t.Errorf("left: %+v", e)
	}
	start(t, Config{Root: two, Events: e})
	if len(lists) != 2 {
		t.Errorf("opened %d times", len(lists))
	}
}

// TestEventsOverflow: an overflow is one of everybody's.
func TestEventsOverflow(t *testing.T) {
	e := NewEvents(nil)
	n := &faultyNotifier{left: -1, extra: make(chan error), deaf: true}
	var all []*run
	for range 3 {
		root := t.TempDir()
		must(t, certstest.WritePair(root, "shop", issue(t, shop, 1)))
		all = append(all, start(t, Config{Root: root, Events: e}, func(w *Watcher) {
			if len(all) == 0 {
				faulty(n)(w)
			}
		}))
	}
	two := issue(t, shop, 2)
	for _, r := range all {
		must(t, certstest.WritePair(r.config.Root, "shop", two))
	}
	n.extra <- fsnotify.ErrEventOverflow
	for _, r := range all {
		r.serves(shop, two)
	}
}

// TestEventsOfABusyWatcher: one that is looking keeps no event from the others.
func TestEventsOfABusyWatcher(t *testing.T) {
	e := NewEvents(nil)
	busy, root := t.TempDir(), t.TempDir()
	looking, goOn := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	b := start(t, Config{Root: busy, Events: e}, func(w *Watcher) {
		inner := w.looked
		w.looked = func() {
			inner()
			if w.Snapshot().Rescans[Manual] > 0 && !held.Swap(true) {
				close(looking)
				<-goOn
			}
		}
	})
	defer close(goOn)
	r := start(t, Config{Root: root, Events: e})
	b.Rescan(Manual)
	<-looking
	for i := range 300 { // more than fit into its hints
		write(t, filepath.Join(busy, fmt.Sprint(i)), nil)
	}
	one := issue(t, shop, 1)
	must(t, certstest.WritePair(root, "shop", one))
	r.serves(shop, one)
}

// TestEventsRunOut: who has no watches polls, and the others need not.
func TestEventsRunOut(t *testing.T) {
	e := NewEvents(nil)
	n := &faultyNotifier{left: 4}
	small, large := t.TempDir(), t.TempDir()
	for i := range 5 {
		must(t, os.Mkdir(filepath.Join(large, fmt.Sprint(i)), 0o700))
	}
	first := start(t, Config{Root: small, Events: e}, faulty(n))
	second := start(t, Config{Root: large, Recursive: true, Events: e})
	if first.Snapshot().Polling || !second.Snapshot().Polling {
		t.Errorf("polling: %v, %v", first.Snapshot().Polling, second.Snapshot().Polling)
	}
	b := issue(t, shop, 1)
	must(t, certstest.WritePair(small, "shop", b))
	first.serves(shop, b)
}

// TestEventsThroughTwoMounts: the kernel knows a directory once for an instance, so that another
// path to it needs another.
func TestEventsThroughTwoMounts(t *testing.T) {
	base := t.TempDir()
	one, two := filepath.Join(base, "one"), filepath.Join(base, "two")
	must(t, errors.Join(os.Mkdir(one, 0o700), os.Mkdir(two, 0o700)))
	if err := syscall.Mount(one, two, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("may not mount:", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(two, syscall.MNT_DETACH)) })
	var instances atomic.Int32
	e := shared(&instances)
	a, b := start(t, Config{Root: one, Events: e}), start(t, Config{Root: two, Events: e})
	pair := issue(t, shop, 1)
	must(t, certstest.WritePair(one, "shop", pair))
	a.serves(shop, pair)
	b.serves(shop, pair)
	pair = issue(t, shop, 2)
	must(t, certstest.WritePair(one, "shop", pair))
	for _, r := range []*run{a, b} {
		must(t, r.Refresh(t.Context(), shop, time.Time{}))
		r.is(shop, pair)
	}
	if n := instances.Load(); n != 2 {
		t.Errorf("%d instances", n)
	}
}

// TestMoves: where a watched directory went is told by three events in turn, and by no others.
func TestMoves(t *testing.T) {
	event := func(op fsnotify.Op, name string) fsnotify.Event { return fsnotify.Event{Op: op, Name: name} }
	for _, test := range []struct {
		events []fsnotify.Event
		want   string
	}{
		{[]fsnotify.Event{event(fsnotify.Rename, "/x/d"), event(fsnotify.Create, "/y/d"), event(fsnotify.Rename, "/x/d")}, "/y/d"},
		{[]fsnotify.Event{event(fsnotify.Rename, "/x/f"), event(fsnotify.Create, "/x/g"), event(fsnotify.Rename, "/x/h")}, ""},
		{[]fsnotify.Event{event(fsnotify.Rename, "/x/f"), event(fsnotify.Create, "/x/g"), event(fsnotify.Write, "/x/g"), event(fsnotify.Rename, "/x/f")}, ""},
		{[]fsnotify.Event{event(fsnotify.Rename, "/x/f"), event(fsnotify.Rename, "/x/f")}, ""},
	} {
		var m moves
		got := ""
		for _, e := range test.events {
			if to := m.to(e); to != "" {
				got = to
			}
		}
		if got != test.want {
			t.Errorf("%v went to %q", test.events, got)
		}
	}
}

// TestMovedBetweenWatchers: a watched directory that is moved from one tree into another is heard
// of there.
func TestMovedBetweenWatchers(t *testing.T) {
	e := NewEvents(nil)
	base := t.TempDir()
	from, to := filepath.Join(base, "from"), filepath.Join(base, "to")
	must(t, errors.Join(os.MkdirAll(filepath.Join(from, "d"), 0o700), os.Mkdir(to, 0o700)))
	one := issue(t, shop, 1)
	must(t, certstest.WritePair(filepath.Join(from, "d"), "shop", one))
	config := func(root string) Config { return Config{Root: root, Recursive: true, Interval: time.Hour, Events: e} }
	a, b := start(t, config(from)), start(t, config(to))
	a.serves(shop, one)
	must(t, os.Rename(filepath.Join(from, "d"), filepath.Join(to, "d")))
	b.serves(shop, one)
	a.until("it has gone", func(s *Snapshot) bool { return s.Len() == 0 })
	two := issue(t, shop, 2)
	must(t, certstest.WritePair(filepath.Join(to, "d"), "shop", two))
	b.serves(shop, two)
	if got := slices.Collect(maps.Keys(e.outside)); len(got) != 1 { // the parent of both
		t.Errorf("watched outside: %v", got)
	}
}
