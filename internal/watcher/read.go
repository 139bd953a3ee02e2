package watcher

import (
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
)

// finish reads what must be read and enters it.
func (s *scanner) finish() {
	if s.restructured {
		s.followDirectoryLinks()
	}
	s.rewatchMoved()
	s.ways = make(map[string]way) // a first scan's table would stay large
	paths := s.unread
	s.unread = nil
	for i, facts := range s.read(paths) {
		s.enter(paths[i], facts)
	}
}

// read reads files in parallel; the result is in the order of paths.
func (s *scanner) read(paths []string) []*certs.FileFacts {
	all := make([]*certs.FileFacts, len(paths))
	const share = 16 // files a task: a task for each file costs as much as reading it
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(paths); from += share {
		group.Go(func() error {
			for i := from; i < min(from+share, len(paths)); i++ {
				all[i] = s.reader.Read(paths[i])
			}
			return nil
		})
	}
	_ = group.Wait() // no task fails: a file's problem is among its facts
	return all
}

// enter takes the facts of a file that was read.
func (s *scanner) enter(path string, facts *certs.FileFacts) {
	if s.early && len(facts.Problems) > 0 {
		s.lookAgain(path) // it may be half written; what it held counts until it has settled
		return
	}
	s.fresh[path] = struct{}{}
	if len(facts.Problems) > 0 {
		gone := false
		switch facts.Problems[0].Reason {
		case certs.Unreadable, certs.TooLarge, certs.SymlinkLoop:
			s.lookAgain(path)
			s.mute = true // no event tells when it works
			gone = statusAt(unix.AT_FDCWD, path).kind == missing
		default: // the content is what is wrong
		}
		if gone || Overlooked(facts) {
			s.forget(path)
			return
		}
		s.quarantine(facts)
		return
	}
	if facts.Empty() {
		s.forget(path)
		return
	}
	delete(s.quarantined, path)
	s.set.Put(facts)
}

// Overlooked reports whether a file means nothing to a directory source: what has no PEM in it,
// or cannot be read, is a problem only where its name promises PEM.
func Overlooked(facts *certs.FileFacts) bool {
	name := filepath.Base(facts.Path)
	if ignored(name) {
		return true
	}
	if len(facts.Problems) == 0 || promisesPEM(name) {
		return false
	}
	switch facts.Problems[0].Reason {
	case certs.Unreadable, certs.TooLarge, certs.SymlinkLoop:
		return true
	default:
		return onlyNotPEM(facts.Problems)
	}
}

func onlyNotPEM(problems []certs.Problem) bool {
	return !slices.ContainsFunc(problems, func(p certs.Problem) bool { return p.Reason != certs.NotPEM })
}

// lookAgain lets the next look read the file whether it changed or not: what
// failed for reasons outside the file may work then.
func (s *scanner) lookAgain(path string) {
	d := s.directories[filepath.Dir(path)]
	if d == nil {
		return
	}
	i, known := slices.BinarySearchFunc(d.files, path, func(f file, path string) int { return strings.Compare(f.path, path) })
	if known {
		d.files[i].racy = true
	}
}

func (s *scanner) quarantine(facts *certs.FileFacts) {
	if known := s.quarantined[facts.Path]; known == nil || !slices.Equal(known.Problems, facts.Problems) {
		for _, problem := range facts.Problems {
			s.errors[problem.Reason]++
		}
	}
	s.quarantined[facts.Path] = facts
	s.set.Put(facts)
}

func (s *scanner) forget(path string) {
	delete(s.quarantined, path)
	s.set.Remove(path)
}
