// Package watcher follows directories of PEM files and publishes, as immutable
// snapshots, which certificates are complete there.
//
// It may import internal/certs, fsnotify, golang.org/x/sync and
// golang.org/x/sys. It knows nothing of policies.
//
// Invariants: events are hints and rescans are the truth, so losing every event
// costs time and nothing else; a certificate is in a snapshot only with a key
// that belongs to its leaf; while its files are broken or half replaced, the last
// good version stays, marked; when the whole directory is away, everything
// stays. One goroutine (Run's) owns all state but the published snapshot.
package watcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/certs"
)

// Config says what to watch.
type Config struct {
	// Name labels log lines: the directory source. Default: Root.
	Name string
	// Root is the directory; it may be missing and appear later.
	Root string
	// Recursive takes subdirectories too. A link to a directory is followed
	// one level: its files count, its subdirectories do not.
	Recursive bool
	// Interval of the safety rescan. Default 5 minutes.
	Interval time.Duration
	// PollInterval replaces Interval while the system has no watches left.
	// Default 30 seconds.
	PollInterval time.Duration
	// Quiet is how long no event must come before a look; MaxQuiet bounds the
	// wait while they keep coming. Defaults 20 and 250 milliseconds.
	Quiet, MaxQuiet time.Duration
	// KeyPassword opens encrypted keys; empty means that there is none.
	KeyPassword []byte
	// Logger may be nil.
	Logger *slog.Logger
	// Events are shared with other watchers; nil for its own.
	Events *Events
	// OnChange is called from Run's goroutine after a snapshot was swapped in
	// that differs in its certificates, its problems or Up, and after the
	// first scan. It may be nil. While it runs, nothing is looked at.
	OnChange func(Change)
}

// Change says what a new snapshot changed.
type Change struct {
	// Certificates are the names that appeared, changed version or chain,
	// vanished, or whose problem changed; sorted. It may be empty.
	Certificates []string
	// Renamed says that one of them came or went, or has other names or another issuer than
	// before: it may concern others too.
	Renamed bool
	// All says that this is the first snapshot, or that the directory came or went: it concerns
	// all certificates.
	All bool
}

// ErrStopped means that Run has ended.
var ErrStopped = errors.New("the watcher has stopped")

// Watcher follows one directory. Its methods are safe for concurrent use.
type Watcher struct {
	config   Config
	logger   *slog.Logger
	snapshot atomic.Pointer[Snapshot]
	ready    chan struct{}
	stopped  chan struct{} // closed when Run ends
	started  atomic.Bool

	mu        sync.Mutex
	requested map[RescanReason]bool
	waiting   []request     // for the look that answers them
	wake      chan struct{} // capacity 1

	// looked, if not nil, is called after every look, also one without change;
	// for tests, which must not sleep.
	looked func()
	// lookedEarly is the same for looks at what had not settled.
	lookedEarly func()
}

// New checks the configuration. Nothing is read before Run.
func New(config Config) (*Watcher, error) {
	if config.Root == "" {
		return nil, errors.New("watcher: no directory")
	}
	root, err := filepath.Abs(config.Root)
	if err != nil {
		return nil, fmt.Errorf("watcher: %w", err)
	}
	config.Root = root
	if config.Name == "" {
		config.Name = root
	}
	for _, setting := range []struct {
		name  string
		value *time.Duration
		unset time.Duration
	}{
		{"interval", &config.Interval, 5 * time.Minute},
		{"poll interval", &config.PollInterval, 30 * time.Second},
		{"quiet", &config.Quiet, 20 * time.Millisecond},
		{"max quiet", &config.MaxQuiet, 250 * time.Millisecond},
	} {
		if *setting.value < 0 {
			return nil, fmt.Errorf("watcher %s: %s %v is negative", config.Name, setting.name, *setting.value)
		}
		if *setting.value == 0 {
			*setting.value = setting.unset
		}
	}
	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if config.Events == nil {
		config.Events = NewEvents(logger)
	}
	w := &Watcher{
		config:    config,
		logger:    logger,
		ready:     make(chan struct{}),
		stopped:   make(chan struct{}),
		requested: make(map[RescanReason]bool),
		wake:      make(chan struct{}, 1),
	}
	w.snapshot.Store(emptySnapshot())
	return w, nil
}

// Snapshot returns what is known now. It is never nil and never changes.
func (w *Watcher) Snapshot() *Snapshot { return w.snapshot.Load() }

// Ready is closed after the first complete scan, also if the directory is
// missing.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Rescan asks for a look at everything and returns at once; several requests
// may be answered by one look.
func (w *Watcher) Rescan(reason RescanReason) { w.request(reason, request{}) }

// Refresh returns when the snapshot has all that had happened to a certificate's files, old ones
// and new ones, at since: a time in the past, or zero for the time of the call. An empty name is
// for all certificates. It returns the context's error if that ends, and ErrStopped if nobody looks
// any more. Many calls are answered by one look; and where the kernel tells of every change, a
// name takes no look at everything. The time must be one of this process, so that it is compared by
// the clock that nobody sets.
func (w *Watcher) Refresh(ctx context.Context, certificate string, since time.Time) error {
	if s := w.Snapshot(); !since.IsZero() && s.Up && s.LastScan.After(since) {
		return nil
	}
	reason, r := RescanReason(""), request{certificate: certificate, looked: make(chan struct{})}
	if certificate == "" {
		reason = Manual
	}
	w.request(reason, r)
	select {
	case <-r.looked:
		return nil
	case <-w.stopped:
		return fmt.Errorf("wait for a look at %s: %w", w.config.Root, ErrStopped)
	case <-ctx.Done():
		return fmt.Errorf("wait for a look at %s: %w", w.config.Root, ctx.Err())
	}
}

// request is somebody who waits for what is there now.
type request struct {
	certificate string        // the one that matters, where not everything must be looked at
	looked      chan struct{} // closed when it is in the snapshot; nil if nobody waits
}

// request asks for a look at everything, if there is a reason for one, and says who waits. The
// two go together: a look between them would answer without having been asked for.
func (w *Watcher) request(reason RescanReason, r request) {
	w.mu.Lock()
	if reason != "" {
		w.requested[reason] = true
	}
	if r.looked != nil {
		w.waiting = append(w.waiting, r)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // a wake-up is on its way
	}
}

func (w *Watcher) takeRequests() (reasons []RescanReason, waiting []request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting, w.waiting = w.waiting, nil
	for _, reason := range RescanReasons() {
		if w.requested[reason] {
			reasons = append(reasons, reason)
		}
	}
	clear(w.requested)
	return reasons, waiting
}

// Load reads the bundle of a certificate from disk. It fails if the version in
// force is not the one asked for (the zero Fingerprint asks for any), or if the
// files have changed or broken since.
func (w *Watcher) Load(name string, fingerprint certs.Fingerprint) (*certs.Bundle, error) {
	certificate, ok := w.Snapshot().Certificate(name)
	if !ok {
		return nil, fmt.Errorf("load %s: no such certificate in %s", name, w.config.Root)
	}
	if !fingerprint.IsZero() && certificate.Pair.Info.Fingerprint != fingerprint {
		return nil, fmt.Errorf("load %s: version %s is no longer in force, %s is", name,
			fingerprint.Short(), certificate.Pair.Info.Fingerprint.Short())
	}
	return certs.LoadPair(certificate.Pair, w.config.KeyPassword)
}

// Look returns what a directory holds now, for those who want to know once. Nothing is
// watched.
func Look(config Config) (*Snapshot, error) {
	w, err := New(config)
	if err != nil {
		return nil, err
	}
	s := newScanner(w.config, w.logger)
	s.rescan(Startup)
	now, _ := s.snapshot(w.Snapshot())
	return now, nil
}

// Run watches until ctx ends and then returns nil. It may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return errors.New("watcher: Run was called twice")
	}
	defer close(w.stopped)
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan batch)
	s := newScanner(w.config, w.logger)
	s.subscribe(ctx)
	if s.notifier != nil {
		hints := s.notifier.hints
		group.Go(func() error { settle(ctx, hints, batches, brief, w.config.Quiet, w.config.MaxQuiet); return nil })
	}
	group.Go(func() error {
		defer s.close()
		w.loop(ctx, s, batches)
		return nil
	})
	return group.Wait()
}

// loop owns the scanner: it decides when to look, never what is there.
func (w *Watcher) loop(ctx context.Context, s *scanner, batches <-chan batch) {
	s.rescan(Startup)
	w.publish(s)
	close(w.ready)
	polling := s.polling
	timer := time.NewTimer(w.pause(s))
	defer timer.Stop()
	a := asked{late: time.NewTimer(w.pause(s))}
	a.late.Stop()
	defer a.late.Stop()
	for {
		looks, mark, news := s.looks, uint64(0), true
		select {
		case <-ctx.Done():
			return
		case b := <-batches:
			if b.early {
				if s.applyEarly(b) && ctx.Err() == nil {
					w.publishEarly(s)
				}
				if w.lookedEarly != nil {
					w.lookedEarly()
				}
				continue
			}
			if mark, news = b.mark, b.events > 0; news {
				s.apply(b)
			}
		case <-w.wake:
			reasons, waiting := w.takeRequests()
			a.waiting = append(a.waiting, waiting...)
			if len(reasons) == 0 && len(a.waiting) > 0 {
				if a.await(s) {
					continue
				}
				reasons = []RescanReason{Manual}
			}
			s.rescan(reasons...)
		case <-a.late.C:
			s.rescan(Manual)
		case <-timer.C:
			s.rescan(Interval)
			timer.Reset(w.pause(s))
		}
		if ctx.Err() != nil { // both cases of a select may be ready
			return
		}
		if news {
			w.publish(s)
		}
		if s.looks == looks && mark != 0 && !a.arrived(s, mark, w.Snapshot()) {
			s.rescan(Manual)
			w.publish(s)
		}
		if s.looks > looks {
			a.answer(len(a.waiting))
		}
		if s.polling && !polling { // the watches ran out just now
			polling = true
			timer.Reset(w.pause(s))
		}
	}
}

// pause is the time to the next safety rescan.
func (w *Watcher) pause(s *scanner) time.Duration {
	if s.polling {
		return min(w.config.PollInterval, w.config.Interval)
	}
	return w.config.Interval
}

// brief is how long no event must come before an early look: one writer's renames are closer
// together. It costs what it saves, when the look finds that it was too early.
const brief = 2 * time.Millisecond

// publishEarly is publish for what is certain before it has settled.
func (w *Watcher) publishEarly(s *scanner) {
	before := w.snapshot.Load()
	certificates, changed := s.judge.early(s, before.certificates)
	if len(changed) == 0 {
		return
	}
	after := *before
	change := after.take(certificates, changed)
	w.snapshot.Store(&after)
	if w.config.OnChange != nil {
		w.config.OnChange(change)
	}
}

// publish swaps the new snapshot in and then tells.
func (w *Watcher) publish(s *scanner) {
	before := w.snapshot.Load()
	after, change := s.snapshot(before)
	w.snapshot.Store(after)
	w.report(before, after)
	if w.looked != nil {
		defer w.looked()
	}
	if w.config.OnChange == nil {
		return
	}
	if change.All || len(change.Certificates) > 0 || !sameProblems(before.Problems, after.Problems) {
		w.config.OnChange(change)
	}
}

// report logs what changed and nothing that stays.
func (w *Watcher) report(before, after *Snapshot) {
	switch {
	case after.Up && !before.Up:
		w.logger.Info("directory is watched", "path", w.config.Root, "certificates", after.Len(), "quarantined", len(after.Problems))
	case !after.Up && (before.Up || !before.Ready):
		w.logger.Warn("directory is not there, what is known of it stays", "path", w.config.Root, "err", after.Err)
	}
	known := make(map[certs.Problem]bool, len(before.Problems))
	for _, problem := range before.Problems {
		known[problem] = true
	}
	for _, problem := range after.Problems {
		if !known[problem] {
			w.logger.Warn("quarantined", "path", problem.Path, "reason", string(problem.Reason), "err", problem)
		}
	}
}
