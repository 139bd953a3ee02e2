package watcher

import (
	"cmp"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
)

// directory is one watched directory.
type directory struct {
	path string // below Root as configured; what messages and pairs show
	inode
	files   []file // sorted by path
	more    *more  // nil for most: there may be many directories
	linked  bool   // reached through a link: its subdirectories do not count
	watched bool
	since   uint32 // the look that watched it last, see scanner.turn
}

// more is what few directories have.
type more struct {
	real     string   // without links, where the path is with some; what events show
	children []string // paths of subdirectories, sorted
	links    []string // paths of links to directories, sorted
}

func (d *directory) real() string {
	if d.more == nil || d.more.real == "" {
		return d.path
	}
	return d.more.real
}

func (d *directory) children() []string {
	if d.more == nil {
		return nil
	}
	return d.more.children
}

func (d *directory) links() []string {
	if d.more == nil {
		return nil
	}
	return d.more.links
}

func (d *directory) setChildren(paths []string) {
	if d.more != nil || len(paths) > 0 {
		d.extend().children = paths
	}
}

func (d *directory) setLinks(paths []string) {
	if d.more != nil || len(paths) > 0 {
		d.extend().links = paths
	}
}

func (d *directory) extend() *more {
	if d.more == nil {
		d.more = &more{}
	}
	return d.more
}

// file is one candidate in a directory, PEM or not.
type file struct {
	path string
	id   identity
	racy bool
	kind kind
	via  *via // nil if it is no link
}

// via remembers how a linked file is reached.
type via struct {
	own     identity // of the link
	entries []string // see resolve; the link itself is not among them
}

func (f *file) name() string { return f.path[strings.LastIndexByte(f.path, '/')+1:] }

// list looks at everything in a directory and, below it, at all that is new. It
// watches before it reads, so that no change falls between.
func (s *scanner) list(d *directory) {
	fd, err := openDirectory(d.real())
	if err != nil {
		s.listFailed(d, err)
		return
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	var raw unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &raw) }); err != nil {
		s.listFailed(d, err)
		return
	}
	s.noteFileSystem(func(fs *unix.Statfs_t) error { return unix.Fstatfs(fd, fs) })
	if now := (inode{uint64(raw.Dev), raw.Ino}); now != d.inode || !d.watched { //nolint:unconvert // 32 bits on other systems
		if d.watched && s.notifier != nil {
			s.notifier.Remove(d.real()) // the watch of what had this name before
			s.dropped[d.inode] = true
		}
		d.inode = now
		d.watched = s.watch(d.real())
		d.since = s.turn
		// Without a watch, changes below may have gone unseen too.
		defer func(before bool) { s.everything = before }(s.everything)
		s.everything = true
	} else if s.rewatch {
		d.watched = s.watch(d.real())
	}
	names, err := s.namesIn(fd)
	if err != nil {
		s.listFailed(d, err)
		return
	}
	delete(s.unlistable, d.path)
	slices.Sort(names)
	s.merge(d, fd, names)
}

// manyNames are more than most directories have: no room is kept for so many.
const manyNames = 1 << 12

// namesIn lists an open directory. What it returns holds until the next call.
func (s *scanner) namesIn(fd int) ([]string, error) {
	if cap(s.names) > manyNames {
		s.names = nil
	}
	clear(s.names) // so that they go
	s.names = s.names[:0]
	for {
		var n int
		if err := retry(func() (err error) { n, err = unix.ReadDirent(fd, s.entries[:]); return err }); err != nil || n <= 0 {
			return s.names, err
		}
		_, _, s.names = unix.ParseDirent(s.entries[:n], -1, s.names)
	}
}

// rewatchMoved watches directories again that were found under a new name before
// they were dropped under the old: the kernel has one watch for both, and it
// went with the old name.
func (s *scanner) rewatchMoved() {
	if len(s.dropped) > 0 {
		for _, d := range slices.Collect(maps.Values(s.directories)) {
			if d.since == s.turn && s.dropped[d.inode] && s.directories[d.path] == d {
				d.watched = false
				s.list(d)
			}
		}
		clear(s.dropped)
	}
	s.turn++
}

// listFailed keeps what is known of a directory that cannot be read now. One
// that is gone is noticed by its parent.
func (s *scanner) listFailed(d *directory, err error) {
	s.mute = true
	d.watched = d.watched && !errors.Is(err, unix.ENOENT)
	if errors.Is(err, unix.ENOENT) {
		return
	}
	problem := certs.FileProblem(d.path, err)
	s.unlistable[d.path] = *problem
	s.errors[problem.Reason]++
}

// merge compares the names in a directory with what is known of it.
func (s *scanner) merge(d *directory, fd int, names []string) {
	old := d.files
	var files []file
	var children, links []string
	for i, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		st := statusAt(fd, name)
		switch {
		case st.kind == missing:
		case st.kind == folder && !st.link:
			if s.config.Recursive && !d.linked {
				if children == nil {
					children = make([]string, 0, len(names)-i)
				}
				children = append(children, join(d.path, name))
			}
		case st.kind == folder:
			if s.config.Recursive && !d.linked {
				links = append(links, join(d.path, name))
			}
		case ignored(name):
		default:
			for len(old) > 0 && old[0].name() < name {
				s.dropFile(&old[0])
				old = old[1:]
			}
			var known *file
			if len(old) > 0 && old[0].name() == name {
				known, old = &old[0], old[1:]
			}
			if files == nil { // most of the names may be directories: no room is kept for them
				files = make([]file, 0, len(names)-i)
			}
			files = append(files, s.lookAt(d, name, st, known))
		}
	}
	for i := range old {
		s.dropFile(&old[i])
	}
	d.files = slices.Clone(files)
	s.replaceChildren(d, slices.Clone(children))
	if !slices.Equal(d.links(), links) {
		d.setLinks(links)
		s.restructured = true
	}
}

// replaceChildren drops the subdirectories that went and lists all others.
func (s *scanner) replaceChildren(d *directory, children []string) {
	for _, path := range d.children() {
		if _, stays := slices.BinarySearch(children, path); !stays {
			s.dropDirectory(path)
		}
	}
	d.setChildren(children)
	for _, path := range children {
		if s.everything || s.directories[path] == nil {
			s.list(s.directoryAt(path, join(d.real(), filepath.Base(path)), false))
		}
	}
}

func (s *scanner) directoryAt(path, realPath string, linked bool) *directory {
	d := s.directories[path]
	if d != nil && (d.linked != linked || d.real() != realPath) {
		s.dropDirectory(path)
		d = nil
	}
	if d == nil {
		d = &directory{path: path, linked: linked}
		if path != realPath {
			d.extend().real = realPath
			s.aliases[realPath] = append(s.aliases[realPath], path)
		}
		s.directories[path] = d
		s.restructured = true
	}
	return d
}

// dropDirectory forgets a directory and all below it.
func (s *scanner) dropDirectory(path string) {
	d := s.directories[path]
	if d == nil {
		return
	}
	for _, child := range d.children() {
		s.dropDirectory(child)
	}
	for i := range d.files {
		s.dropFile(&d.files[i])
	}
	delete(s.directories, path)
	delete(s.unlistable, path)
	s.dropped[d.inode] = true
	if d.real() != d.path {
		s.aliases[d.real()] = slices.DeleteFunc(s.aliases[d.real()], func(p string) bool { return p == path })
		if len(s.aliases[d.real()]) == 0 {
			delete(s.aliases, d.real())
		}
	}
	s.unwatch(d.real())
	s.restructured = true
}

// lookAt decides whether a file must be read. known is what is known of that
// path; nil for nothing.
func (s *scanner) lookAt(d *directory, name string, st status, known *file) file {
	var f file
	if known != nil {
		f = *known
	} else {
		f.path = join(d.path, name)
		s.forgetDirectoryLink(f.path) // the same path was one until now
	}
	if st.link && (f.via == nil || f.via.own != st.own || st.kind == broken || f.kind == broken || f.id.inode != st.inode) {
		s.forgetVia(&f)
		if s.followLink(d, &f, st) {
			// Again, now that the way is watched.
			st = statusAt(unix.AT_FDCWD, join(d.real(), name))
		}
	} else if !st.link {
		s.forgetVia(&f)
	}
	unchanged := known != nil && f.id == st.identity && f.kind == st.kind && f.kind != broken
	wasRacy := f.racy
	f.id, f.kind, f.racy = st.identity, st.kind, st.kind == regular && st.racy(s.now)
	if unchanged && !wasRacy {
		return f
	}
	if st.kind == broken {
		s.mute = true // what it leads to, or may not be seen, need not tell when it is there
	}
	switch problem := st.problemOf(f.path); {
	case st.kind == missing: // went just now; its event is on the way
		s.forget(f.path)
	case problem == nil:
		s.unread = append(s.unread, f.path)
	case promisesPEM(name):
		s.quarantine(&certs.FileFacts{Path: f.path, Problems: []certs.Problem{*problem}})
	default:
		s.forget(f.path)
	}
	return f
}

func (s *scanner) dropFile(f *file) {
	s.forgetVia(f)
	s.forget(f.path)
}

// lookAtName looks at one name in a listed directory, after an event.
func (s *scanner) lookAtName(d *directory, name string) {
	if strings.HasPrefix(name, ".") {
		return
	}
	path := join(d.path, name)
	st := statusAt(unix.AT_FDCWD, join(d.real(), name))
	isChild := st.kind == folder && !st.link && s.config.Recursive && !d.linked
	isLink := st.kind == folder && st.link && s.config.Recursive && !d.linked
	if i, known := slices.BinarySearch(d.children(), path); known != isChild {
		if known {
			d.setChildren(slices.Delete(d.children(), i, i+1))
			s.dropDirectory(path)
		} else {
			d.setChildren(slices.Insert(d.children(), i, path))
		}
	}
	if i, known := slices.BinarySearch(d.links(), path); known != isLink {
		if known {
			d.setLinks(slices.Delete(d.links(), i, i+1))
		} else {
			d.setLinks(slices.Insert(d.links(), i, path))
		}
		s.restructured = true
	} else if isLink {
		s.restructured = true // it may lead elsewhere
	}
	if isChild {
		s.list(s.directoryAt(path, join(d.real(), name), false))
	}
	i, known := slices.BinarySearchFunc(d.files, path, func(f file, path string) int { return cmp.Compare(f.path, path) })
	if st.kind == missing || st.kind == folder || ignored(name) {
		if known {
			s.dropFile(&d.files[i])
			d.files = slices.Delete(d.files, i, i+1)
		}
		return
	}
	if known {
		d.files[i] = s.lookAt(d, name, st, &d.files[i])
	} else {
		d.files = slices.Insert(d.files, i, s.lookAt(d, name, st, nil))
	}
}

func join(directory, name string) string {
	if directory == "/" {
		return "/" + name
	}
	return directory + "/" + name
}
