package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// MaxFileSize is the largest PEM file that is read, in bytes. The largest real
// bundles (hundreds of roots) have a fifth of it.
const MaxFileSize = 1 << 20

// ReadFile reads a regular file of at most MaxFileSize bytes; links are
// followed. A failure is a *Problem with Unreadable, SymlinkLoop or TooLarge.
// It never blocks on a FIFO or a device.
func ReadFile(path string) ([]byte, error) { return readFile(path, nil) }

// readFile is ReadFile into a buffer, or a larger one where it is too small. It
// makes the system calls itself: package os asks for events of each file and
// reads once more to see its end, which is a third of what reading takes.
func readFile(path string, buffer []byte) ([]byte, error) {
	// O_NONBLOCK, because a FIFO would otherwise hold the open until somebody
	// writes; regular files do not care.
	var fd int
	err := again(func() (err error) {
		fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, FileProblem(path, err)
	}
	defer func() { _ = syscall.Close(fd) }() // nothing was written
	var status syscall.Stat_t
	if err := again(func() error { return syscall.Fstat(fd, &status) }); err != nil {
		return nil, FileProblem(path, err)
	}
	if kind := uint32(status.Mode) & syscall.S_IFMT; kind != syscall.S_IFREG { //nolint:unconvert // 16 bits on other systems
		return nil, &Problem{Reason: Unreadable, Path: path, Detail: "is " + kindOfFile(kind) + ", not a regular file"}
	}
	if status.Size > MaxFileSize {
		return nil, tooLarge(path)
	}
	// One byte more than it has: a read that leaves that free has met the end.
	data := slices.Grow(buffer[:0], int(status.Size)+1)
	for {
		var n int
		err := again(func() (err error) { n, err = syscall.Read(fd, data[len(data):cap(data)]); return err })
		if err != nil {
			return nil, FileProblem(path, err)
		}
		data = data[:len(data)+n]
		switch {
		case n == 0, len(data) == int(status.Size) && len(data) < cap(data):
			return data, nil
		case len(data) > MaxFileSize:
			return nil, tooLarge(path)
		case len(data) == cap(data):
			data = slices.Grow(data, len(data))
		}
	}
}

// again calls again what a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR { //nolint:errorlint // the system call returns it bare
			return err
		}
	}
}

// FileProblem turns an error of the file system into a Problem of that path.
func FileProblem(path string, err error) *Problem {
	problem := &Problem{Reason: Unreadable, Path: path, Detail: err.Error()}
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		problem.Detail = pathError.Err.Error() // the path is there already
	}
	if errors.Is(err, syscall.ELOOP) {
		problem.Reason = SymlinkLoop
	}
	return problem
}

func tooLarge(path string) *Problem {
	return &Problem{Reason: TooLarge, Path: path, Detail: "larger than 1 MiB"}
}

func kindOfFile(kind uint32) string {
	switch kind {
	case syscall.S_IFDIR:
		return "a directory"
	case syscall.S_IFIFO:
		return "a FIFO"
	case syscall.S_IFSOCK:
		return "a socket"
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return "a device"
	}
	return "something else"
}

// WriteFileAtomic puts data at path so that a reader sees the old content or the
// new, and a crash leaves one of them: it writes a temporary file (hidden, in
// the same directory), syncs it, renames it and syncs the directory. The file
// has exactly the permissions perm, whatever the umask. On an error the old file
// is untouched and no temporary file stays, except that a failed sync of the
// directory comes after the rename.
func WriteFileAtomic(path string, data []byte, perm os.FileMode) error {
	directory := filepath.Dir(path)
	temporary, err := os.CreateTemp(directory, "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = fill(temporary, data, perm)
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name()) // the first error is the one to tell
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := syncDirectory(directory); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// fill writes, syncs and always closes the file. CreateTemp made it 0600, so a
// key is at no moment readable by more than perm allows.
func fill(file *os.File, data []byte, perm os.FileMode) error {
	_, err := file.Write(data)
	if err == nil {
		err = file.Chmod(perm)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
