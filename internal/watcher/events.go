package watcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Events hears the kernel for all watchers of a process: Linux gives a user 128 inotify instances,
// and each policy has a watcher. It takes one instance while somebody watches; more only where the
// same directories are watched through several mounts, since an instance knows each directory by
// one path. Its methods are safe for concurrent use.
type Events struct {
	logger *slog.Logger
	// open makes an instance; replaced in tests to run out of watches and to overflow.
	open func() (source, error)

	mu        sync.RWMutex // held too while watches are made or given back, so that these are in order
	instances []*instance  // by rank, see rank
	mounts    map[uint64][]uint64
	roots     map[string][]*subscription
	// outside are the directories that somebody watches though they are not in his tree.
	outside map[string][]*subscription
}

// source is what is needed of fsnotify. It is an interface only so that tests can make it fail and
// overflow.
type source interface {
	watches
	Close() error
	events() <-chan fsnotify.Event
	errors() <-chan error
}

type fsSource struct{ *fsnotify.Watcher }

func openSource() (source, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return fsSource{watcher}, nil
}

func (s fsSource) events() <-chan fsnotify.Event { return s.Events }
func (s fsSource) errors() <-chan error          { return s.Errors }

// instance is an inotify instance and the goroutine that empties its queue.
type instance struct {
	source
	marks marks
	stop  chan struct{} // closed when nobody watches any more
	ended chan struct{}
}

// NewEvents takes nothing of the system yet. The logger may be nil.
func NewEvents(logger *slog.Logger) *Events {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Events{
		logger: logger, open: openSource,
		mounts: make(map[uint64][]uint64), roots: make(map[string][]*subscription), outside: make(map[string][]*subscription),
	}
}

// subscription is one watcher's part of the events: what happens in its tree, and in the
// directories outside that it adds.
type subscription struct {
	events    *Events
	root      string
	recursive bool
	hints     chan hint
	stopped   <-chan struct{} // nobody takes hints any more
	closed    chan struct{}
	ranks     []int // of the instances that it has watches of
}

// subscribe fails where the system has no instance left. The subscription takes hints until ctx
// ends, and has its watches until it is closed.
func (e *Events) subscribe(ctx context.Context, root string, recursive bool) (*subscription, error) {
	s := &subscription{events: e, root: root, recursive: recursive, hints: make(chan hint, 64), stopped: ctx.Done(), closed: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.instance(0); err != nil {
		return nil, err
	}
	e.roots[root] = append(e.roots[root], s)
	return s, nil
}

// instance returns the one of a rank.
func (e *Events) instance(rank int) (*instance, error) {
	for len(e.instances) <= rank {
		opened, err := e.open()
		if err != nil {
			return nil, err
		}
		i := &instance{source: opened, stop: make(chan struct{}), ended: make(chan struct{})}
		e.instances = append(e.instances, i)
		go e.pump(i)
	}
	return e.instances[rank], nil
}

// rank numbers the mounts of a file system: a directory has two paths only through two of them.
func (e *Events) rank(path string) int {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	device := unix.Mkdev(st.Dev_major, st.Dev_minor)
	if i := slices.Index(e.mounts[device], st.Mnt_id); i >= 0 {
		return i
	}
	e.mounts[device] = append(e.mounts[device], st.Mnt_id)
	return len(e.mounts[device]) - 1
}

// Add watches a directory. It may be called again for one that is watched: the watch is then of
// what has the path now.
func (s *subscription) Add(path string) error {
	e := s.events
	e.mu.Lock()
	defer e.mu.Unlock()
	rank := e.rank(path)
	i, err := e.instance(rank)
	if err != nil {
		return err
	}
	if err := i.Add(path); err != nil {
		return err
	}
	if !slices.Contains(s.ranks, rank) {
		s.ranks = append(s.ranks, rank)
	}
	if !s.covers(path) && !slices.Contains(e.outside[path], s) {
		e.outside[path] = append(e.outside[path], s)
	}
	return nil
}

// covers reports whether a directory is in the tree.
func (s *subscription) covers(path string) bool {
	return path == s.root || s.recursive && (s.root == "/" || len(path) > len(s.root) && path[:len(s.root)] == s.root && path[len(s.root)] == '/')
}

// Remove gives a watch back, unless it may be another's too.
func (s *subscription) Remove(path string) {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	s.remove(path)
}

func (s *subscription) remove(path string) {
	e := s.events
	deleteFrom(e.outside, path, s)
	for other := range e.interested(path) {
		if other != s {
			return
		}
	}
	for _, i := range e.instances {
		_ = i.Remove(path) // it may have died with its directory
	}
}

// Close gives back the watches, of which it is told the paths.
func (s *subscription) Close(paths iter.Seq[string]) {
	close(s.closed)
	e := s.events
	e.mu.Lock()
	deleteFrom(e.roots, s.root, s)
	var unused []*instance
	if len(e.roots) == 0 { // all at once
		unused, e.instances = e.instances, nil
		clear(e.outside)
		clear(e.mounts)
	} else {
		for path := range paths {
			s.remove(path)
		}
	}
	e.mu.Unlock()
	for _, i := range unused {
		i.marks.close(i)
		close(i.stop)
		_ = i.Close() // nothing was written
		<-i.ended
	}
}

func deleteFrom(all map[string][]*subscription, path string, s *subscription) {
	left := slices.DeleteFunc(all[path], func(other *subscription) bool { return other == s })
	if all[path] = left; len(left) == 0 {
		delete(all, path)
	}
}

// interested are those who are told of a directory. A tree is known by its root, not by its
// directories, of which there may be many.
func (e *Events) interested(path string) iter.Seq[*subscription] {
	return func(yield func(*subscription) bool) {
		for _, s := range e.outside[path] {
			if !yield(s) {
				return
			}
		}
		for root := path; ; root = filepath.Dir(root) {
			for _, s := range e.roots[root] {
				if s.covers(path) && !yield(s) {
					return
				}
			}
			if root == "/" || root == "." {
				return
			}
		}
	}
}

// mark has a hint with its number come behind all that happened until now.
func (s *subscription) mark(number uint64) error {
	s.events.mu.RLock()
	defer s.events.mu.RUnlock()
	if len(s.ranks) != 1 {
		return fmt.Errorf("a mark for %d instances", len(s.ranks))
	}
	i := s.events.instances[s.ranks[0]]
	return i.marks.put(i, s, number)
}

// pump empties the kernel's queue into hints, as fast as those who settle them take them: that
// is always, also while a scan runs.
func (e *Events) pump(i *instance) {
	defer close(i.ended)
	var moves moves
	for {
		select {
		case <-i.stop:
			return
		case event, ok := <-i.events():
			if !ok {
				return
			}
			if s, number := i.marks.reached(i, event.Name); s != nil {
				s.tell(hint{mark: number})
				continue
			}
			e.tell(event.Name, hint{path: event.Name, gone: event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename)})
			if to := moves.to(event); to != "" {
				e.tell(to, hint{path: to, gone: true})
			}
		case err, ok := <-i.errors():
			if !ok {
				return
			}
			if errors.Is(err, unix.EINVAL) {
				// A directory was moved and then deleted: fsnotify gives back a
				// watch that the kernel has dropped already. Nothing is lost.
				continue
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				e.logger.Warn("event source failed", "err", err)
			}
			e.tellAll(hint{lost: true}) // any error may have cost events
		}
	}
}

// tell tells of what happened to a path, or in a directory with that path.
func (e *Events) tell(path string, h hint) {
	e.mu.RLock()
	told := slices.AppendSeq(make([]*subscription, 0, 8), e.interested(filepath.Dir(path)))
	for s := range e.interested(path) {
		if !slices.Contains(told, s) {
			told = append(told, s)
		}
	}
	e.mu.RUnlock()
	for _, s := range told {
		s.tell(h)
	}
}

func (e *Events) tellAll(h hint) {
	e.mu.RLock()
	var told []*subscription
	for _, all := range e.roots {
		told = append(told, all...)
	}
	e.mu.RUnlock()
	for _, s := range told {
		s.tell(h)
	}
}

func (s *subscription) tell(h hint) {
	select {
	case s.hints <- h:
	case <-s.stopped:
	case <-s.closed:
	}
}

// moves finds out where a watched directory was moved to. The kernel has one watch for the old and the
// new name, and fsnotify gives it up with the old one: whoever watched the new one already, which
// may be another watcher, must do so again. fsnotify tells of such a move by three events in turn:
// the old name went, the new one came, and the old one went, as the directory itself says.
type moves struct{ went, came string }

func (m *moves) to(event fsnotify.Event) (path string) {
	switch {
	case event.Has(fsnotify.Create):
		m.came = event.Name
	case event.Has(fsnotify.Rename):
		if m.went == event.Name && m.came != "" {
			path = m.came
		}
		m.went, m.came = event.Name, ""
	default:
		m.went, m.came = "", ""
	}
	return path
}
