package watcher

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
)

// kind is what a directory entry is, links followed.
type kind uint8

const (
	missing kind = iota
	regular
	folder
	special // FIFO, socket, device
	broken  // a link that leads nowhere or in a circle, or no permission
)

// inode identifies a directory.
type inode struct{ device, number uint64 }

// identity is by what an unchanged file is recognised without opening it. The
// change time cannot be set back by tools that keep the modification time.
type identity struct {
	inode
	size              int64
	modified, changed int64 // nanoseconds since 1970
}

// status is what one look at an entry tells.
type status struct {
	identity
	kind kind
	link bool
	// own identifies the link itself.
	own identity
	err error // where kind is broken
}

// racyWindow: a file that changed less than this before it was looked at may
// change again without its times moving (coarse clocks of kernels and network
// file systems), so it is read once more at the next look, as git does.
const racyWindow = 2 * time.Second

func (s *status) racy(now time.Time) bool {
	return max(s.changed, s.modified) > now.Add(-racyWindow).UnixNano()
}

// statusAt looks at name in the open directory, or at a path with AT_FDCWD.
func statusAt(directory int, name string) status {
	var raw unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(directory, name, &raw, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return status{kind: missing}
		}
		return status{kind: broken, err: err}
	}
	s := status{identity: identityOf(&raw)}
	if raw.Mode&unix.S_IFMT != unix.S_IFLNK {
		s.kind = kindOf(raw.Mode)
		return s
	}
	s.link, s.own = true, s.identity
	if err := retry(func() error { return unix.Fstatat(directory, name, &raw, 0) }); err != nil {
		s.identity, s.kind, s.err = identity{}, broken, err
		return s
	}
	s.identity, s.kind = identityOf(&raw), kindOf(raw.Mode)
	return s
}

// retry calls again what a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { //nolint:errorlint // the system call returns it bare
			return err
		}
	}
}

func identityOf(raw *unix.Stat_t) identity {
	return identity{
		inode:    inode{uint64(raw.Dev), raw.Ino}, //nolint:unconvert // 32 bits on other systems
		size:     raw.Size,
		modified: raw.Mtim.Nano(),
		changed:  raw.Ctim.Nano(),
	}
}

func kindOf(mode uint32) kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return regular
	case unix.S_IFDIR:
		return folder
	}
	return special
}

// problemOf says why a file cannot even be tried; nil if it can.
func (s *status) problemOf(file string) *certs.Problem {
	switch {
	case s.kind == special:
		return &certs.Problem{Reason: certs.Unreadable, Path: file, Detail: "is a FIFO, socket or device, not a regular file"}
	case s.kind == broken && (errors.Is(s.err, unix.ENOENT) || errors.Is(s.err, unix.ENOTDIR)):
		return &certs.Problem{Reason: certs.Unreadable, Path: file, Detail: "is a link to a file that does not exist"}
	case s.kind == broken:
		return certs.FileProblem(file, s.err)
	case s.size > certs.MaxFileSize:
		return &certs.Problem{Reason: certs.TooLarge, Path: file, Detail: "larger than 1 MiB"}
	}
	return nil
}

// ignored reports whether a name is nobody's certificate: hidden, or what
// editors and writers leave for a moment.
func ignored(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
		return true
	}
	switch path.Ext(name) {
	case ".tmp", ".swp", ".swo", ".swx":
		return true
	}
	return strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")
}

// promisesPEM reports whether the name says that the file is PEM, so that
// anything else in it is a problem; other files are taken if they are PEM.
func promisesPEM(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".pem", ".crt", ".cer", ".key", ".cert", ".chain", ".fullchain":
		return true
	}
	return false
}

// maxLinks is how many links are followed, as the kernel does.
const maxLinks = 40

// resolve follows the path below an existing directory without links and returns
// where it ends, and every entry on the way whose replacement would change that:
// each link, and the end itself. An entry that is missing ends the walk with an
// error and is the last of them. ways reads the entries on the way, readLink or
// what remembers its answers; the end is always read anew.
func resolve(directory, relative string, ways func(string) (string, error)) (end string, entries []string, err error) {
	if filepath.IsAbs(relative) {
		directory = "/"
	}
	rest := relative
	current, links := directory, 0
	for rest != "" {
		var component string
		component, rest, _ = strings.Cut(rest, "/")
		switch component {
		case "", ".":
			continue
		case "..":
			current = filepath.Dir(current)
			continue
		}
		next := filepath.Join(current, component)
		read := ways
		if rest == "" {
			read = readLink
		}
		target, err := read(next)
		switch {
		case errors.Is(err, unix.EINVAL): // no link
			current = next
		case err != nil:
			return next, append(entries, next), err
		default:
			entries = append(entries, next)
			if links++; links > maxLinks {
				return next, entries, unix.ELOOP
			}
			if filepath.IsAbs(target) {
				current = "/"
			}
			rest = target + "/" + rest
		}
	}
	return current, append(entries, current), nil
}

// readLink returns where a link leads; EINVAL means that there is something else.
func readLink(name string) (string, error) {
	var buffer [unix.PathMax]byte
	var n int
	err := retry(func() (err error) { n, err = unix.Readlink(name, buffer[:]); return err })
	if err != nil {
		return "", err
	}
	return string(buffer[:n]), nil
}
