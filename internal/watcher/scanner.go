package watcher

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
)

// scanner knows the directory tree and the facts of its files. One goroutine
// owns it; only the reading of files is spread over several.
type scanner struct {
	config   Config
	logger   *slog.Logger
	notifier *subscription // nil while polling
	polling  bool

	now      time.Time // of this look
	up       bool
	down     error
	lastScan time.Time

	directories map[string]*directory
	aliases     map[string][]string // real directory -> paths, where they differ
	unlistable  map[string]certs.Problem
	// reached leads from every entry on the way of a link, outside its own
	// directory, to the links whose meaning depends on it.
	reached map[string]map[string]struct{}
	// directoryLinks are the links to directories and their ways.
	directoryLinks map[string]*file
	// holds counts who needs the watch of a real directory besides the tree.
	holds       map[string]int
	rootEntries []string

	everything bool // this look goes through all directories
	// rewatch: this look watches all directories, also those that are watched. A file system that was
	// unmounted, or an overflow, may have taken a watch without a word.
	rewatch      bool
	restructured bool     // directories or links to them came or went
	unread       []string // files to be read in this look
	early        bool     // this look is at what has not settled
	// mute: some directory does not tell of all that happens in it. It is worked out by each look at
	// everything. moved: watches came or went since the last such look.
	mute, moved bool
	// looks counts the looks at everything.
	looks uint64
	// fresh are the files that were read since the last look at what had settled.
	fresh map[string]struct{}
	// ways are the entries on the ways of links, as they were read in this look: the
	// files of a directory mostly lie on one way.
	ways    map[string]way
	turn    uint32         // numbers the looks, also those at a part
	dropped map[inode]bool // directories of which a name went in this look

	// names and entries are what the listing of a directory needs, used again.
	names      []string
	entries    [8 << 10]byte
	fileSystem unix.Statfs_t

	reader *certs.Reader
	set    *certs.Set
	// quarantined are the files with problems.
	quarantined map[string]*certs.FileFacts
	judge       judge

	events, coalesced uint64
	rescans           map[RescanReason]uint64
	errors            map[certs.Reason]uint64
}

func newScanner(config Config, logger *slog.Logger) *scanner {
	empty := emptySnapshot()
	return &scanner{
		config:         config,
		logger:         logger,
		directories:    make(map[string]*directory),
		aliases:        make(map[string][]string),
		unlistable:     make(map[string]certs.Problem),
		reached:        make(map[string]map[string]struct{}),
		holds:          make(map[string]int),
		dropped:        make(map[inode]bool),
		fresh:          make(map[string]struct{}),
		ways:           make(map[string]way),
		directoryLinks: make(map[string]*file),
		reader:         certs.NewReader(config.KeyPassword),
		set:            certs.NewSet(),
		quarantined:    make(map[string]*certs.FileFacts),
		judge:          newJudge(),
		rescans:        empty.Rescans,
		errors:         empty.Errors,
	}
}

func (s *scanner) close() {
	if s.notifier != nil {
		s.notifier.Close(s.watched)
		s.notifier = nil
	}
}

// watched iterates over the directories that may have a watch.
func (s *scanner) watched(yield func(path string) bool) {
	for path := range s.holds {
		if !yield(path) {
			return
		}
	}
	for _, d := range s.directories {
		if !yield(d.real()) {
			return
		}
	}
}

// rescan looks at everything, for the given reasons; for none it does nothing.
func (s *scanner) rescan(reasons ...RescanReason) {
	if len(reasons) == 0 {
		return
	}
	for _, reason := range reasons {
		s.rescans[reason]++
	}
	s.now = time.Now()
	s.looks++
	s.mute = false
	s.everything, s.rewatch = true, true
	for path := range s.holds {
		s.watch(path)
		s.noteHeld(path)
	}
	s.lookAtRoot()
	s.restructured = true // what links to directories lead to is looked at too
	s.finish()
	s.everything, s.rewatch = false, false
	s.moved = false
	if s.up {
		s.lastScan = s.now
	}
}

// applyEarly looks where something happened before it has settled; false where that must wait:
// for what is about directories rather than files, and while the root is away.
func (s *scanner) applyEarly(b batch) bool {
	for path, gone := range b.paths {
		if slices.Contains(s.rootEntries, path) || s.holds[path] > 0 || gone && (s.directories[path] != nil || len(s.aliases[path]) > 0) {
			return false
		}
	}
	if !s.up {
		return false
	}
	s.now, s.early = time.Now(), true
	s.lookAtPaths(b.paths)
	s.finish()
	s.early = false
	return true
}

// apply looks where a batch of hints says that something happened.
func (s *scanner) apply(b batch) {
	s.events += b.events
	s.coalesced += b.coalesced
	for path, gone := range b.paths {
		if gone {
			s.watchLost(path)
		}
	}
	if b.lost {
		s.rescan(Overflow)
		return
	}
	s.now = time.Now()
	root := !s.up
	for path := range b.paths {
		root = root || slices.Contains(s.rootEntries, path)
	}
	if root {
		s.lookAtRoot()
	}
	if s.up {
		s.lookAtPaths(b.paths)
	}
	s.finish()
}

// lookAtPaths turns the paths of events, which are real, into names in watched
// directories.
func (s *scanner) lookAtPaths(paths map[string]bool) {
	looks := make(map[string]struct{}, len(paths))
	for path := range paths {
		parent, name := filepath.Dir(path), filepath.Base(path)
		if d := s.directories[parent]; d != nil && d.real() == parent {
			looks[join(parent, name)] = struct{}{}
		}
		for _, alias := range s.aliases[parent] {
			looks[join(alias, name)] = struct{}{}
		}
		maps.Copy(looks, s.reached[path])
		if s.holds[path] > 0 { // a directory that links lead into came or went
			s.watch(path)
			s.linksInto(path, looks)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(looks)) {
		// A look before may have dropped the directory.
		if d := s.directories[filepath.Dir(path)]; d != nil {
			s.lookAtName(d, filepath.Base(path))
		}
	}
}

func (s *scanner) linksInto(directory string, looks map[string]struct{}) {
	for entry, links := range s.reached {
		if strings.HasPrefix(entry, directory+"/") {
			maps.Copy(looks, links)
		}
	}
}

// lookAtRoot finds the root again, which may be new, replaced or gone.
func (s *scanner) lookAtRoot() {
	held := s.rootEntries
	realPath, entries, err := resolve("/", s.config.Root, readLink)
	s.rootEntries = entries
	for _, entry := range entries {
		s.hold(filepath.Dir(entry))
	}
	for _, entry := range held {
		s.letGo(filepath.Dir(entry))
	}
	if err == nil {
		// Again, now that the way is watched.
		realPath, _, err = resolve("/", s.config.Root, readLink)
	}
	if err == nil {
		err = readable(realPath)
	}
	if err != nil {
		// What was known of it stays. Its own watches die with it.
		if d := s.directories[s.config.Root]; d != nil {
			d.watched = false
		}
		s.up, s.down = false, certs.FileProblem(s.config.Root, err)
		return
	}
	if !s.up { // whatever happened meanwhile
		defer func(before bool) { s.everything = before }(s.everything)
		s.everything = true
	}
	s.up, s.down = true, nil
	s.list(s.directoryAt(s.config.Root, realPath, false))
}

// readable reports why the directory cannot be listed.
func readable(path string) error {
	fd, err := openDirectory(path)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openDirectory(path string) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	})
	return fd, err
}

// snapshot says what is known now. While the root is down, the certificates are
// those from before.
func (s *scanner) snapshot(before *Snapshot) (*Snapshot, Change) {
	after := &Snapshot{
		Ready: true, Up: s.up, Err: s.down, LastScan: s.lastScan,
		Directories: len(s.directories),
		Events:      s.events, Coalesced: s.coalesced,
		Rescans: maps.Clone(s.rescans), Errors: maps.Clone(s.errors), Polling: s.polling,
		Problems: before.Problems, certificates: before.certificates, Naming: before.Naming, Files: before.Files,
	}
	all := !before.Ready || before.Up != s.up
	if !s.up {
		return after, Change{All: all}
	}
	after.Files = 0
	for _, d := range s.directories {
		after.Files += len(d.files)
	}
	change := after.take(s.judge.certificates(s, before.certificates))
	change.All = all
	clear(s.fresh)
	after.Problems = s.problems(after.certificates)
	return after, change
}

// problems gathers everything that is quarantined.
func (s *scanner) problems(certificates map[string]*Certificate) []certs.Problem {
	all := s.set.Problems()
	for _, facts := range s.quarantined {
		all = append(all, facts.Problems...)
	}
	for _, problem := range s.unlistable {
		all = append(all, problem)
	}
	for name := range s.judge.marked {
		if problem := certificates[name].Problem; problem.Reason == certs.NoCertificate {
			all = append(all, *problem) // only memory tells of these
		}
	}
	certs.SortProblems(all)
	return all
}
