package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// Names in the directory. All that is temporary has one fixed name, since only the
// holder of the lock makes it: what a crash left is found and removed by the next.
const (
	control     = ".rotatord"                 // the directory with everything of ours
	current     = control + "/current"        // the link to the generation in force
	pending     = control + "/reload-pending" // the service does not know of the last switch yet
	staging     = control + "/.staging"       // a generation that is being written
	trash       = control + "/.trash"         // a generation that is being removed
	part        = control + "/.part"          // a file that is being written
	controlLink = control + "/.link"          // a link that is being made in the control directory
	outerLink   = control + "-link"           // and beside it

	controlMode = 0o755 // the files have modes of their own, and others must get at theirs
	asideSuffix = ".before-rotatord"
	maxLinks    = 40 // on the way to the directory, as the kernel
	lockPause   = 10 * time.Millisecond
)

// disk is the directory, held open. Every change goes through it.
type disk struct {
	root *os.Root
	path string // for messages, and for links that lead out of it
	lock *os.File
	step func(string) error
}

// open opens the directory for looking; what is written is written under lock.
func (t *Target) open(op string) (*disk, error) {
	root, err := openDirectory(t.directory)
	if err != nil {
		return nil, t.classify(op, err)
	}
	return &disk{root: root, path: t.directory, step: t.step}, nil
}

// openLocked opens the directory for changing it, alone, and removes what a crash left.
func (t *Target) openLocked(ctx context.Context, op string, create bool) (*disk, error) {
	d, err := t.open(op)
	if err != nil {
		return nil, err
	}
	err = d.prepare(create)
	if err == nil {
		err = d.acquire(ctx)
	}
	if err == nil {
		err = d.sweep()
	}
	if err != nil {
		d.close()
		return nil, t.classify(op, err)
	}
	return d, nil
}

func (d *disk) close() {
	if d.lock != nil {
		_ = d.lock.Close() // and the lock with it
	}
	_ = d.root.Close() // what was written is synced
}

// refusal is a reason to leave the directory alone.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

func refuse(format string, args ...any) error { return refusal{fmt.Sprintf(format, args...)} }

// openDirectory walks to the directory, link by link, and refuses a way that somebody
// else could bend: links and the directory itself belong to root or to us. Each part
// is held open while it is judged, so that nobody can change it in between.
func openDirectory(name string) (*os.Root, error) {
	w := walker{at: -1}
	defer func() { w.move(-1, "") }()
	rest := strings.Split(name, "/")
	if err := w.start(); err != nil {
		return nil, err
	}
	for len(rest) > 0 {
		more, err := w.walk(rest[0])
		if err != nil {
			return nil, err
		}
		rest = append(more, rest[1:]...)
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.at, &st); err != nil {
		return nil, err
	}
	if err := checkFolder(w.path, &st); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(w.path)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil {
		if now, ok := info.Sys().(*syscall.Stat_t); !ok || now.Dev != st.Dev || now.Ino != st.Ino {
			err = refuse("%s was exchanged while it was looked at", w.path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// walker stands in a directory, or on whatever the last step led to.
type walker struct {
	at    int
	path  string // without links
	links int
}

func (w *walker) move(fd int, name string) {
	if w.at >= 0 {
		_ = unix.Close(w.at) // nothing was written
	}
	w.at, w.path = fd, name
}

func (w *walker) start() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	w.move(fd, "/")
	return nil
}

// walk takes one step. For a link it returns the steps that it stands for.
func (w *walker) walk(name string) (more []string, err error) {
	if name == "" || name == "." {
		return nil, nil
	}
	there := path.Join(w.path, name)
	fd, err := unix.Openat(w.at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: there, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		w.move(fd, there)
		return nil, nil
	}
	target := ""
	if err == nil {
		target, err = readLink(fd)
	}
	_ = unix.Close(fd) // nothing was written
	if err != nil {
		return nil, &fs.PathError{Op: "read link", Path: there, Err: err}
	}
	if !trusted(st.Uid) {
		return nil, refuse("the link %s belongs to user %d, who could lead it anywhere; want root or user %d", there, st.Uid, os.Geteuid())
	}
	if w.links++; w.links > maxLinks {
		return nil, &fs.PathError{Op: "open", Path: there, Err: unix.ELOOP}
	}
	if strings.HasPrefix(target, "/") {
		err = w.start()
	}
	return strings.Split(target, "/"), err
}

func readLink(fd int) (string, error) {
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buffer)
	if err != nil {
		return "", err
	}
	return string(buffer[:n]), nil
}

// trusted reports whether a user may say where certificates go.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

func checkFolder(name string, st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	case !trusted(st.Uid):
		return refuse("%s belongs to user %d; want root or user %d", name, st.Uid, os.Geteuid())
	case st.Mode&0o002 != 0:
		return refuse("%s may be written by everybody (mode %04o)", name, st.Mode&0o7777)
	}
	return nil
}

// checkControl refuses a control directory that is not ours.
func (d *disk) checkControl() error {
	info, err := d.root.Lstat(control)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no owner is known")
	}
	return checkFolder(path.Join(d.path, control), &unix.Stat_t{Mode: st.Mode, Uid: st.Uid})
}

// prepare makes the control directory, unless it is there.
func (d *disk) prepare(create bool) error {
	err := d.checkControl()
	if !errors.Is(err, fs.ErrNotExist) || !create {
		return err
	}
	if err := d.do("mkdir "+control, func() error { return d.root.Mkdir(control, controlMode) }); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.chmod(control, controlMode); err != nil { // whatever the umask
		return err
	}
	if err := d.sync("."); err != nil {
		return err
	}
	return d.checkControl()
}

// acquire waits until no other process changes the directory.
func (d *disk) acquire(ctx context.Context) error {
	lock, err := d.root.Open(control)
	if err != nil {
		return err
	}
	d.lock = lock
	again := time.NewTicker(lockPause)
	defer again.Stop()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

// sweep removes what a crash left half done.
func (d *disk) sweep() error {
	for _, name := range []string{staging, trash, part, controlLink, outerLink} {
		if _, err := d.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := d.removeAll(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) do(what string, change func() error) error {
	if d.step != nil {
		if err := d.step(what); err != nil {
			return err
		}
	}
	return change()
}

func (d *disk) removeAll(name string) error {
	return d.do("remove "+name, func() error { return d.root.RemoveAll(name) })
}

func (d *disk) rename(from, to string) error {
	return d.do("rename "+from+" "+to, func() error { return d.root.Rename(from, to) })
}

func (d *disk) chmod(name string, mode os.FileMode) error {
	return d.do("chmod "+name, func() error { return d.root.Chmod(name, mode) })
}

func (d *disk) chown(name string, uid, gid int) error {
	return d.do("chown "+name, func() error { return d.root.Chown(name, uid, gid) })
}

// sync makes the entries of a directory last.
func (d *disk) sync(name string) error {
	return d.do("sync "+name, func() error {
		folder, err := d.root.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(folder.Sync(), folder.Close())
	})
}

// write makes a new file that only we can read, and syncs it.
func (d *disk) write(name string, data []byte) error {
	var f *os.File
	err := d.do("create "+name, func() (err error) {
		f, err = d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.do("write "+name, func() error { _, err := f.Write(data); return err }); err != nil {
		return err
	}
	if err := d.do("sync "+name, f.Sync); err != nil {
		return err
	}
	return f.Close()
}

// link lets name point to target with one rename, whatever name was before.
func (d *disk) link(target, name, temporary string) error {
	if err := d.do("symlink "+temporary, func() error { return d.root.Symlink(target, temporary) }); err != nil {
		return err
	}
	return d.rename(temporary, name)
}

// readFile reads a regular file of at most certs.MaxFileSize bytes. It never blocks on
// a FIFO.
func (d *disk) readFile(name string) ([]byte, fs.FileInfo, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, info, fmt.Errorf("%s is no regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, certs.MaxFileSize+1))
	if err == nil && len(data) > certs.MaxFileSize {
		err = fmt.Errorf("%s is larger than 1 MiB", name)
	}
	return data, info, err
}

func (d *disk) exists(name string) (bool, error) {
	_, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ownerOf returns the numbers of a file's owner and group.
func ownerOf(info fs.FileInfo) (uid, gid uint32) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

// classify gives an error of the operating system its kind, with words for an operator.
func (t *Target) classify(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*providers.Error](err); ok {
		return err
	}
	if r, ok := errors.AsType[refusal](err); ok {
		return fail(providers.KindDenied, op, "%s", r.text)
	}
	e := &providers.Error{Kind: providers.KindUnavailable, Service: service, Op: op, Message: t.directory, Err: err}
	for _, c := range []struct {
		cause error
		kind  providers.Kind
		text  string
	}{
		{syscall.ENOSPC, providers.KindUnavailable, "no space is left on the file system of %s"},
		{syscall.EDQUOT, providers.KindUnavailable, "the disk quota is used up in %s"},
		{syscall.EFBIG, providers.KindUnavailable, "files in %s may not get so large"},
		{syscall.EROFS, providers.KindDenied, "the file system of %s is read-only; with systemd, ReadWritePaths= opens it"},
		{syscall.EACCES, providers.KindDenied, "no permission in %s"},
		{syscall.EPERM, providers.KindDenied, "not permitted in %s"},
		{syscall.ENOTDIR, providers.KindInvalid, "%s is no directory"},
		{syscall.ENOENT, providers.KindNotFound, "something is not there in %s"},
	} {
		if errors.Is(err, c.cause) {
			e.Kind, e.Message = c.kind, fmt.Sprintf(c.text, t.directory)
			break
		}
	}
	return e
}

// missingDirectory reports whether the directory itself is not there.
func (t *Target) missingDirectory(err error) bool {
	return errors.Is(err, fs.ErrNotExist) && providers.KindOf(err) == providers.KindNotFound
}

// beside is the path of a name, for files that links lead to.
func (d *disk) beside(name string) string { return filepath.Join(d.path, name) }
