package watcher

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// deaf takes a watcher's events away, so that only complete looks find anything.
func deaf(w *Watcher) { faulty(&faultyNotifier{left: -1, deaf: true})(w) }

func TestRefreshSeesWhatIsThere(t *testing.T) {
	root := t.TempDir()
	r := start(t, Config{Root: root, Interval: time.Hour}, deaf)
	for version := range 20 {
		b := issue(t, shop, version)
		must(t, certstest.WritePair(root, "shop", b))
		must(t, r.Refresh(t.Context(), "", time.Time{}))
		if c, _ := r.Snapshot().Certificate(shop); c.Problem != nil || c.Pair.Info.Fingerprint != b.Fingerprint() {
			t.Fatalf("version %d is not in the snapshot: %+v", version, c)
		}
	}
}

// TestRefreshIsShared: whoever asks while a look is under way is answered by the next
// one, all of them together.
func TestRefreshIsShared(t *testing.T) {
	root := t.TempDir()
	looking, goOn := make(chan struct{}), make(chan struct{})
	var hold sync.Once
	r := start(t, Config{Root: root, Interval: time.Hour}, deaf, func(w *Watcher) {
		inner := w.looked
		w.looked = func() {
			inner()
			if w.Snapshot().Rescans[Manual] == 1 {
				hold.Do(func() { close(looking); <-goOn })
			}
		}
	})
	var answered sync.WaitGroup
	refresh := func() {
		if err := r.Refresh(t.Context(), "", time.Time{}); err != nil {
			t.Error(err)
		}
	}
	answered.Go(refresh)
	<-looking // the first look has ended, its answer has not been given

	b := issue(t, shop, 1)
	must(t, certstest.WritePair(root, "shop", b))
	const askers = 100
	for range askers {
		answered.Go(refresh)
	}
	waitingAre(r.Watcher, askers)
	close(goOn)
	answered.Wait()
	s := r.Snapshot()
	if c, _ := s.Certificate(shop); c.Pair.Info.Fingerprint != b.Fingerprint() {
		t.Error("the answer came before the look")
	}
	if n := s.Rescans[Manual]; n != 2 {
		t.Errorf("%d looks for %d requests, want 2", n, askers+1)
	}
}

// waitingAre returns when as many wait for a look.
func waitingAre(w *Watcher, n int) {
	for tick := time.Tick(time.Millisecond); ; <-tick {
		w.mu.Lock()
		waiting := len(w.waiting)
		w.mu.Unlock()
		if waiting == n {
			return
		}
	}
}

// TestRefreshEndsWithItsContext: without a Run, or with one that hangs in a file system.
func TestRefreshEndsWithItsContext(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, err := New(Config{Root: root})
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Refresh(ctx, "", time.Time{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Refresh returned %v", err)
		}
	})
}

// TestRefreshBeforeRun: who asks early is answered by a look after the first.
func TestRefreshBeforeRun(t *testing.T) {
	answer := make(chan error, 1)
	r := start(t, Config{Root: t.TempDir(), Interval: time.Hour}, func(w *Watcher) {
		go func() { answer <- w.Refresh(t.Context(), "", time.Time{}) }()
		waitingAre(w, 1)
	})
	must(t, <-answer)
	if s := r.Snapshot(); !s.Ready || s.Rescans[Manual] != 1 {
		t.Errorf("ready=%v after %d looks", s.Ready, s.Rescans[Manual])
	}
}

// TestRefreshEndsWithTheWatcher: nobody waits for a look that will not come, whenever the
// watcher ends.
func TestRefreshEndsWithTheWatcher(t *testing.T) {
	for range 20 {
		w, err := New(Config{Root: t.TempDir(), Interval: time.Hour})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = w.Run(ctx) })
		<-w.Ready()
		for range 50 {
			all.Go(func() {
				for w.Refresh(context.Background(), "", time.Time{}) == nil {
				}
			})
		}
		cancel()
		all.Wait()
		if err := w.Refresh(context.Background(), "", time.Time{}); !errors.Is(err, ErrStopped) {
			t.Fatalf("after the end: %v", err)
		}
	}
}

// TestRefreshSince: a look that began after the reason for it was heard is not repeated, an
// earlier one is.
func TestRefreshSince(t *testing.T) {
	root := t.TempDir()
	must(t, certstest.WritePair(root, "shop", issue(t, shop, 1)))
	r := start(t, Config{Root: root, Interval: time.Hour, Quiet: time.Hour, MaxQuiet: time.Hour})
	manual := func() uint64 { return r.Snapshot().Rescans[Manual] }
	heard := time.Now()
	for i, want := range []uint64{1, 1} {
		if must(t, r.Refresh(t.Context(), "", heard)); manual() != want {
			t.Errorf("refresh %d of one reason: %d looks", i, manual())
		}
	}
	must(t, os.Remove(filepath.Join(root, "shop.key")))
	if must(t, r.Refresh(t.Context(), "", time.Now())); manual() != 2 {
		t.Errorf("another reason: %d looks", manual())
	}
	r.until("the key is missed", func(s *Snapshot) bool { return len(s.Problems) > 0 })
}

// TestRenamed: what others may be concerned by is told apart from a plain renewal.
func TestRenamed(t *testing.T) {
	root := t.TempDir()
	must(t, certstest.WritePair(root, "shop", issue(t, shop, 1)))
	changes := make(chan Change, 8)
	w, err := New(Config{Root: root, OnChange: func(c Change) { changes <- c }})
	must(t, err)
	go func() { _ = w.Run(t.Context()) }()
	more, err := authority().Issue(certstest.Options{Names: []string{shop, "more.example.com"}, NotBefore: time.Now().Add(-time.Hour)})
	must(t, err)
	for _, step := range []struct {
		what string
		do   func() error
		want Change
	}{
		{"the first scan", func() error { return nil }, Change{Renamed: true, All: true}},
		{"a renewal", func() error { return certstest.WritePair(root, "shop", issue(t, shop, 2)) }, Change{}},
		{"another name", func() error { return certstest.WritePair(root, "shop", more) }, Change{Renamed: true}},
		{"another certificate", func() error { return certstest.WritePair(root, "more", issue(t, "a.example.com", 1)) }, Change{Renamed: true}},
	} {
		before := w.Snapshot().Naming
		must(t, step.do())
		c := <-changes
		for len(c.Certificates) == 0 || len(w.Snapshot().Problems) > 0 {
			c = <-changes
		}
		if c.Renamed != step.want.Renamed || c.All != step.want.All {
			t.Errorf("%s: %+v", step.what, c)
		}
		if named := w.Snapshot().Naming; step.what != "the first scan" && (named != before) != step.want.Renamed {
			t.Errorf("%s: naming %d, before %d", step.what, named, before)
		}
	}
	must(t, os.Rename(root, root+".away"))
	for c := range changes {
		if c.All {
			break
		}
	}
}
