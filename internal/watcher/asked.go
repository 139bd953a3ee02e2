package watcher

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markPatience is how long a mark may take. Later a look at everything is sooner there.
const markPatience = 50 * time.Millisecond

// asked are those who wait for what is there now. Those who ask for one certificate need no look
// at everything where the kernel tells of every change: its queue is emptied up to a mark that is
// set after they asked, and what came out is looked at. It belongs to Run's goroutine.
type asked struct {
	waiting []request
	marked  int // so many of them, the first, wait for the mark
	number  uint64
	late    *time.Timer
}

// await takes those who wait for no mark yet, and reports whether one is on its way for them. If
// not, they are answered by a look at everything.
func (a *asked) await(s *scanner) bool {
	if a.marked > 0 {
		return true // theirs is set when that one is here
	}
	if !s.hearsAll() || s.notifier.mark(a.number+1) != nil {
		return false
	}
	a.number++
	a.marked = len(a.waiting)
	a.late.Reset(markPatience)
	return true
}

// arrived answers those who waited for a mark: what had happened before it is in the snapshot.
// It reports false where only a look at everything can tell.
func (a *asked) arrived(s *scanner, number uint64, now *Snapshot) bool {
	if a.marked == 0 || number != a.number {
		return true // they have been answered
	}
	for _, r := range a.waiting[:a.marked] {
		if c := now.certificates[r.certificate]; c == nil || c.Problem != nil || !s.hearsAll() || !s.unchanged(c) {
			return false
		}
	}
	a.answer(a.marked)
	return len(a.waiting) == 0 || a.await(s)
}

// answer answers the first n.
func (a *asked) answer(n int) {
	for _, r := range a.waiting[:n] {
		close(r.looked)
	}
	a.waiting, a.marked = slices.Delete(a.waiting, 0, n), 0
	a.late.Stop()
}

// hearsAll reports whether every change of what was found is told of by an event. Where watches
// came or went since everything was looked at, one more such look is cheaper than to be sure.
func (s *scanner) hearsAll() bool { return s.notifier != nil && s.up && !s.mute && !s.moved }

// unchanged reports whether the files of a certificate are those that were read. It finds the
// few changes of which no event tells: through a mapping of memory, another hard link, or
// another mount; and a directory above all watched ones that was exchanged.
func (s *scanner) unchanged(c *Certificate) bool {
	for _, path := range slices.Concat([]string{c.Pair.LeafFile, c.Pair.KeyFile}, c.Pair.ChainFiles) {
		d := s.directories[filepath.Dir(path)]
		if d == nil {
			return false
		}
		i, known := slices.BinarySearchFunc(d.files, path, func(f file, path string) int { return strings.Compare(f.path, path) })
		if !known {
			return false
		}
		f, st := &d.files[i], statusAt(unix.AT_FDCWD, join(d.real(), filepath.Base(path)))
		if st.kind != f.kind || st.identity != f.id || st.link != (f.via != nil) || st.link && st.own != f.via.own {
			return false
		}
	}
	return true
}

// noteFileSystem notes whether all that happens in a file system goes through this kernel, so that
// there is an event of it: not so where it is shared with other machines, or lives in another
// process. An unknown one is taken for such.
func (s *scanner) noteFileSystem(status func(*unix.Statfs_t) error) {
	err := retry(func() error { return status(&s.fileSystem) })
	if err != nil || !local(uint32(s.fileSystem.Type)) { //nolint:gosec // of other widths on other systems
		s.mute = true
	}
}

func local(fileSystem uint32) bool {
	switch fileSystem {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
		unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, zfs, bcachefs:
		return true
	}
	return false
}

// What x/sys does not name.
const (
	zfs      = 0x2fc12fc1
	bcachefs = 0xca451a4e
)
