package watcher

import (
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

func (s *scanner) followLink(d *directory, f *file, st status) {
	f.via = &via{own: st.own}
	target, err := readLink(join(d.real, f.name()))
	if err != nil {
		return
	}
	_, f.via.entries, _ = resolve(d.real, target) // a broken way is watched as far as it goes
	for _, entry := range f.via.entries {
		if s.reached[entry] == nil {
			s.reached[entry] = make(map[string]struct{}, 1)
			s.hold(filepath.Dir(entry))
		}
		s.reached[entry][f.path] = struct{}{}
	}
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
			for _, path := range d.links {
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
		if statusAt(unix.AT_FDCWD, join(parent.real, way.name())).kind != folder {
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
