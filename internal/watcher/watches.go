package watcher

import (
	"errors"

	"golang.org/x/sys/unix"
)

// watch asks for events of a real directory and reports whether they will come.
func (s *scanner) watch(realPath string) bool {
	if s.notifier == nil {
		return false
	}
	s.moved = true
	err := s.notifier.Add(realPath)
	if err == nil {
		return true
	}
	s.mute = true
	for _, exhausted := range []error{unix.ENOSPC, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, exhausted) {
			s.startPolling(err)
			return false
		}
	}
	return false // gone or forbidden: listing it will tell
}

// startPolling gives all watches back: other programs of the host need them
// too, and half of a tree with events is no better than none.
func (s *scanner) startPolling(err error) {
	s.close()
	s.polling = true
	s.logger.Warn("no watches left, polling instead; raise fs.inotify.max_user_watches and max_user_instances",
		"interval", min(s.config.PollInterval, s.config.Interval), "err", err)
}

// unwatch gives a watch back unless somebody else needs it.
func (s *scanner) unwatch(realPath string) {
	if s.notifier == nil || s.holds[realPath] > 0 {
		return
	}
	if d := s.directories[realPath]; d != nil && d.real == realPath || len(s.aliases[realPath]) > 0 {
		return
	}
	_ = s.notifier.Remove(realPath) // it may have died with its directory
}

// hold keeps a directory watched for a link or for the root, and reports whether
// it is the first to.
func (s *scanner) hold(realPath string) bool {
	s.holds[realPath]++
	if s.holds[realPath] > 1 {
		return false
	}
	s.watch(realPath)
	s.noteHeld(realPath)
	return true
}

// noteHeld notes whether a directory outside the tree tells of what happens there.
func (s *scanner) noteHeld(realPath string) {
	if !tellsAll(func(fs *unix.Statfs_t) error { return unix.Statfs(realPath, fs) }) {
		s.mute = true
	}
}

func (s *scanner) letGo(realPath string) {
	if s.holds[realPath]--; s.holds[realPath] == 0 {
		delete(s.holds, realPath)
		s.unwatch(realPath)
	}
}

// watchLost notes that the kernel dropped the watch of a directory.
func (s *scanner) watchLost(realPath string) {
	if d := s.directories[realPath]; d != nil && d.real == realPath {
		d.watched, s.moved = false, true
	}
	for _, path := range s.aliases[realPath] {
		s.directories[path].watched, s.moved = false, true
	}
}

// findLostWatches compares with what the event source really watches: an
// overflow may have eaten the news that a watch is gone.
func (s *scanner) findLostWatches() {
	if s.notifier == nil {
		return
	}
	list := s.notifier.WatchList()
	alive := make(map[string]struct{}, len(list))
	for _, path := range list {
		alive[path] = struct{}{}
	}
	for _, d := range s.directories {
		if _, ok := alive[d.real]; !ok {
			d.watched = false
		}
	}
	for path := range s.holds {
		if _, ok := alive[path]; !ok {
			s.watch(path)
		}
		s.noteHeld(path)
	}
}
