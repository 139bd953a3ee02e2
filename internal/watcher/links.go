package watcher

import (
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// followLink watches the way of a link, and reports whether a part of it was not
// watched before: what is at its end must then be looked at again.
func (s *scanner) followLink(d *directory, f *file, st status) (news bool) {
	f.via = &via{own: st.own}
	target, err := readLink(join(d.real(), f.name()))
	if err != nil {
		return true
	}
	_, f.via.entries, err = resolve(d.real(), target, s.readWay) // a broken way is watched as far as it goes
	news = err != nil
	for _, entry := range f.via.entries {
		if s.reached[entry] == nil {
			s.reached[entry] = make(map[string]struct{}, 1)
			news = s.hold(filepath.Dir(entry)) || news
		}
		s.reached[entry][f.path] = struct{}{}
	}
	return news
}

// way is what readLink said of an entry.
type way struct {
	target string
	err    error
}

// readWay is readLink, once for each entry in a look. What changes meanwhile is
// told of by an event, as if it had changed after the look.
func (s *scanner) readWay(entry string) (string, error) {
	known, ok := s.ways[entry]
	if !ok {
		known.target, known.err = readLink(entry)
		s.ways[entry] = known
	}
	return known.target, known.err
}

func (s *scanner) forgetVia(f *file) {
	if f.via == nil {
		return
	}
	for _, entry := range f.via.entries {
		delete(s.reached[entry], f.path)
		if len(s.reached[entry]) == 0 {
			delete(s.reached, entry)
			s.letGo(filepath.Dir(entry))
		}
	}
	f.via = nil
}

// followDirectoryLinks lists what links to directories lead to, in path order
// and each directory once: one that is in the tree anyway is not taken twice.
func (s *scanner) followDirectoryLinks() {
	wanted := s.directoryLinkTargets()
	s.restructured = false
	taken := make(map[inode]bool)
	var linked []string
	for path, d := range s.directories {
		if d.linked {
			linked = append(linked, path)
		} else if len(wanted) > 0 {
			taken[d.inode] = true
		}
	}
	paths := slices.Sorted(maps.Keys(wanted))
	paths = slices.DeleteFunc(paths, func(path string) bool {
		st := statusAt(unix.AT_FDCWD, wanted[path])
		again := st.kind != folder || taken[st.inode]
		taken[st.inode] = true
		return again
	})
	for _, path := range linked {
		if _, stays := slices.BinarySearch(paths, path); !stays {
			s.dropDirectory(path)
		}
	}
	for _, path := range paths {
		s.list(s.directoryAt(path, wanted[path], true))
	}
	s.restructured = false
}

// directoryLinkTargets returns where each link to a directory leads, without
// links, and watches the ways.
func (s *scanner) directoryLinkTargets() map[string]string {
	parents := make(map[string]*directory)
	for _, d := range s.directories {
		if !d.linked {
			for _, path := range d.links() {
				parents[path] = d
			}
		}
	}
	for path := range s.directoryLinks {
		if parents[path] == nil {
			s.forgetDirectoryLink(path)
		}
	}
	targets := make(map[string]string, len(parents))
	for path, parent := range parents {
		way := s.directoryLinks[path]
		if way == nil {
			way = &file{path: path}
			s.directoryLinks[path] = way
		}
		s.forgetVia(way)
		s.followLink(parent, way, status{})
		// Now that the way is watched: it may lead to no directory any more.
		if statusAt(unix.AT_FDCWD, join(parent.real(), way.name())).kind != folder {
			s.lookAtName(parent, way.name())
			continue
		}
		if n := len(way.via.entries); n > 0 {
			targets[path] = way.via.entries[n-1]
		}
	}
	return targets
}

func (s *scanner) forgetDirectoryLink(path string) {
	if way := s.directoryLinks[path]; way != nil {
		s.forgetVia(way)
		delete(s.directoryLinks, path)
	}
}
