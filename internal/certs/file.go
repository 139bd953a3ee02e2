package certs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MaxFileSize is the largest PEM file that is read, in bytes. The largest real
// bundles (hundreds of roots) have a fifth of it.
const MaxFileSize = 1 << 20

// ReadFile reads a regular file of at most MaxFileSize bytes; links are
// followed. A failure is a *Problem with Unreadable, SymlinkLoop or TooLarge.
// It never blocks on a FIFO or a device.
func ReadFile(path string) ([]byte, error) {
	// O_NONBLOCK, because a FIFO would otherwise hold the open until somebody
	// writes; regular files do not care.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, FileProblem(path, err)
	}
	defer file.Close()
	status, err := file.Stat()
	if err != nil {
		return nil, FileProblem(path, err)
	}
	if !status.Mode().IsRegular() {
		return nil, &Problem{Reason: Unreadable, Path: path, Detail: "is " + kindOfFile(status.Mode()) + ", not a regular file"}
	}
	if status.Size() > MaxFileSize {
		return nil, tooLarge(path)
	}
	// One byte more than it has: that read tells the end without another call.
	data := bytes.NewBuffer(make([]byte, 0, status.Size()+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(file, MaxFileSize+1)); err != nil {
		return nil, FileProblem(path, err)
	}
	if data.Len() > MaxFileSize {
		return nil, tooLarge(path)
	}
	return data.Bytes(), nil
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

func kindOfFile(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
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
