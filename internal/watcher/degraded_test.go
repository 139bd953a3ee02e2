package watcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// faultyNotifier overflows and runs out of watches at will.
type faultyNotifier struct {
	source
	left  int // watches; negative for no limit
	extra chan error
	deaf  bool // loses all events
}

func (n *faultyNotifier) Add(path string) error {
	if n.left == 0 {
		return fmt.Errorf("add: %w", syscall.ENOSPC)
	}
	n.left--
	return n.source.Add(path)
}

func (n *faultyNotifier) errors() <-chan error { return n.extra }

func (n *faultyNotifier) events() <-chan fsnotify.Event {
	if n.deaf {
		return nil
	}
	return n.source.events()
}

func faulty(n *faultyNotifier) func(*Watcher) {
	return func(w *Watcher) {
		w.config.Events.open = func() (source, error) {
			inner, err := openSource()
			n.source = inner
			return n, err
		}
	}
}

func TestOverflow(t *testing.T) {
	root := t.TempDir()
	one, two := issue(t, shop, 1), issue(t, shop, 2)
	must(t, certstest.WritePair(root, "shop", one))
	n := &faultyNotifier{left: -1, extra: make(chan error), deaf: true}
	r := start(t, Config{Root: root}, faulty(n))
	r.serves(shop, one)
	must(t, certstest.WritePair(root, "shop", two))
	n.extra <- fsnotify.ErrEventOverflow
	r.serves(shop, two)
	if got := r.Snapshot().Rescans; got[Overflow] != 1 || got[Startup] != 1 {
		t.Errorf("rescans %v", got)
	}
}

// TestLookAtEverythingFollowsLinks: also where no event tells of what a link to a directory leads to.
func TestLookAtEverythingFollowsLinks(t *testing.T) {
	base := t.TempDir()
	root, elsewhere := filepath.Join(base, "root"), filepath.Join(base, "elsewhere")
	must(t, errors.Join(os.Mkdir(root, 0o700), os.Mkdir(elsewhere, 0o700), os.Symlink(elsewhere, filepath.Join(root, "link"))))
	must(t, certstest.WritePair(elsewhere, "shop", issue(t, shop, 1)))
	r := start(t, unhurried(root), deaf)
	two := issue(t, shop, 2)
	must(t, certstest.WritePair(elsewhere, "shop", two))
	must(t, r.Refresh(t.Context(), "", time.Time{}))
	r.is(shop, two)
}

func TestPollingWithoutWatches(t *testing.T) {
	for name, prepare := range map[string]func(*Watcher){
		"runs out":  faulty(&faultyNotifier{left: 3}),
		"none ever": func(w *Watcher) { w.config.Events.open = func() (source, error) { return nil, syscall.EMFILE } },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			one, two := issue(t, shop, 1), issue(t, shop, 2)
			for i := range 5 {
				must(t, os.Mkdir(filepath.Join(root, fmt.Sprint(i)), 0o755))
			}
			directory := filepath.Join(root, "3")
			must(t, certstest.WritePair(directory, "shop", one))
			r := start(t, Config{Root: root, Recursive: true, PollInterval: 1}, prepare)
			r.serves(shop, one)
			if !r.Snapshot().Polling {
				t.Error("does not say that it polls")
			}
			must(t, certstest.WritePair(directory, "shop", two))
			r.serves(shop, two)
			if n := strings.Count(r.logs.String(), "polling instead"); n != 1 {
				t.Errorf("logged %d times", n)
			}
		})
	}
}
