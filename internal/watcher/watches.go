package watcher

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// subscribe asks to be told of events; if it cannot be, directories are polled.
func (s *scanner) subscribe(ctx context.Context) {
	subscription, err := s.config.Events.subscribe(ctx, s.config.Root, s.config.Recursive)
	if err != nil {
		s.startPolling(err)
		return
	}
	s.notifier = subscription
}

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
	if d := s.directories[realPath]; d != nil && d.real() == realPath || len(s.aliases[realPath]) > 0 {
		return
	}
	s.notifier.Remove(realPath)
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
	s.noteFileSystem(func(fs *unix.Statfs_t) error { return unix.Statfs(realPath, fs) })
}

func (s *scanner) letGo(realPath string) {
	if s.holds[realPath]--; s.holds[realPath] == 0 {
		delete(s.holds, realPath)
		s.unwatch(realPath)
	}
}

// watchLost notes that the kernel dropped the watch of a directory.
func (s *scanner) watchLost(realPath string) {
	if d := s.directories[realPath]; d != nil && d.real() == realPath {
		d.watched, s.moved = false, true
	}
	for _, path := range s.aliases[realPath] {
		s.directories[path].watched, s.moved = false, true
	}
}
