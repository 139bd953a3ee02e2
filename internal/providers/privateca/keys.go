package privateca

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// keyStore holds private keys in files: in a directory for each owner pending.pem, the
// key of the next certificate, and a file for each certificate, by its id. The zero
// keyStore holds none.
type keyStore struct {
	directory string
}

const (
	keySuffix   = ".pem"
	pendingFile = "pending" + keySuffix
	maxKeyFile  = 64 << 10
)

var errSymlink = errors.New("it is a symbolic link, which is not followed: somebody put it there")

// isHandle reports whether a handle can be the id of a certificate, and the name of its
// key's file.
func isHandle(h string) bool { return huaweicloud.IsIdentifier(h) && h+keySuffix != pendingFile }

func (s keyStore) of(o providers.Owner) string { return filepath.Join(s.directory, mark(o)) }

func (s keyStore) file(o providers.Owner, h providers.Handle) string {
	return filepath.Join(s.of(o), string(h)+keySuffix)
}

// problem classifies a failure of the disk.
func (s keyStore) problem(err error) error {
	kind := providers.KindUnavailable
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errSymlink) {
		kind = providers.KindDenied
	}
	return &providers.Error{Kind: kind, Service: "keys", Op: opKey, Err: err}
}

// key returns the key of a certificate; the zero key where it is not here.
func (s keyStore) key(o providers.Owner, h providers.Handle) (certs.PrivateKey, error) {
	if s.directory == "" {
		return certs.PrivateKey{}, nil
	}
	key, _, err := s.read(o, string(h)+keySuffix)
	return key, err
}

// pending returns the key that the next certificate is to have, and since when; the zero
// key where there is none. A file without a key in it is as good as none.
func (s keyStore) pending(o providers.Owner) (certs.PrivateKey, time.Time, error) {
	if s.directory == "" {
		return certs.PrivateKey{}, time.Time{}, nil
	}
	return s.read(o, pendingFile)
}

func (s keyStore) read(o providers.Owner, name string) (certs.PrivateKey, time.Time, error) {
	if err := s.checkDirectory(o); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return certs.PrivateKey{}, time.Time{}, nil
		}
		return certs.PrivateKey{}, time.Time{}, s.problem(err)
	}
	path := filepath.Join(s.of(o), name)
	data, written, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return certs.PrivateKey{}, time.Time{}, nil
	}
	if err != nil {
		return certs.PrivateKey{}, time.Time{}, s.problem(err)
	}
	defer clear(data)
	contents, problems := certs.ParsePEM(data, nil)
	if len(problems) > 0 || len(contents.Keys) != 1 {
		return certs.PrivateKey{}, time.Time{}, nil // nothing can be done with it
	}
	return contents.Keys[0].Key, written, nil
}

// checkDirectory finds out whether an owner's directory is there and is one.
func (s keyStore) checkDirectory(o providers.Owner) error {
	info, err := os.Lstat(s.of(o))
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s: %w", s.of(o), errSymlink)
	case !info.IsDir():
		return fmt.Errorf("%s: it is no directory", s.of(o))
	}
	return nil
}

// readFile reads a small regular file, and never through a link.
func readFile(path string) ([]byte, time.Time, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, time.Time{}, fmt.Errorf("%s: %w", path, errSymlink)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, time.Time{}, fmt.Errorf("%s: it is no small regular file, as a private key is", path)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		clear(data)
		return nil, time.Time{}, fmt.Errorf("read %s: %w", path, err)
	}
	return data, info.ModTime(), nil
}

// putPending keeps a key for the next certificate. When it returns, the key outlives a
// crash of the host.
func (s keyStore) putPending(o providers.Owner, key certs.PrivateKey) error {
	if err := s.prepare(o); err != nil {
		return s.problem(err)
	}
	data, err := key.PEM(certs.PKCS8)
	if err != nil {
		return s.problem(err)
	}
	defer clear(data)
	path := filepath.Join(s.of(o), pendingFile)
	// What is replaced is a key that nothing was issued for, and never a link's target.
	if err := certs.WriteFileAtomic(path, data, 0o600); err != nil {
		return s.problem(err)
	}
	return nil
}

// prepare makes the directories, and removes what a crash left of a write.
func (s keyStore) prepare(o providers.Owner) error {
	if err := os.MkdirAll(s.directory, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(s.directory, 0o700); err != nil { //nolint:gosec // a directory needs x
		return err
	}
	err := os.Mkdir(s.of(o), 0o700)
	if err == nil {
		err = syncDirectory(s.directory)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.checkDirectory(o); err != nil {
		return err
	}
	if err := os.Chmod(s.of(o), 0o700); err != nil { //nolint:gosec // a directory needs x
		return err
	}
	_, err = s.sweep(o, func(name string) bool { return strings.HasPrefix(name, ".") })
	return err
}

// settle makes the pending key that of a certificate. Without a pending key it does
// nothing.
func (s keyStore) settle(o providers.Owner, h providers.Handle) error {
	err := os.Rename(filepath.Join(s.of(o), pendingFile), s.file(o, h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDirectory(s.of(o))
	}
	if err != nil {
		return s.problem(err)
	}
	return nil
}

// handles are the certificates whose keys are here.
func (s keyStore) handles(o providers.Owner) ([]providers.Handle, error) {
	if s.directory == "" {
		return nil, nil
	}
	err := s.checkDirectory(o)
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(s.of(o))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, s.problem(err)
	}
	var all []providers.Handle
	for _, e := range entries {
		if h, ok := strings.CutSuffix(e.Name(), keySuffix); ok && isHandle(h) && e.Type().IsRegular() {
			all = append(all, providers.Handle(h))
		}
	}
	return all, nil
}

// release removes the keys of all certificates but those to keep. The pending key stays:
// a certificate may be on its way.
func (s keyStore) release(o providers.Owner, keep map[providers.Handle]bool) error {
	err := s.checkDirectory(o)
	if err == nil {
		var left int
		left, err = s.sweep(o, func(name string) bool {
			h, isKey := strings.CutSuffix(name, keySuffix)
			return strings.HasPrefix(name, ".") || isKey && name != pendingFile && !keep[providers.Handle(h)]
		})
		if err == nil && left == 0 {
			err = os.Remove(s.of(o))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.problem(err)
	}
	return nil
}

// sweep removes what a function names from an owner's directory, and returns how much is
// left in it.
func (s keyStore) sweep(o providers.Owner, goes func(name string) bool) (left int, err error) {
	entries, err := os.ReadDir(s.of(o))
	if err != nil {
		return 0, err
	}
	removed := false
	for _, e := range entries {
		if e.IsDir() || !goes(e.Name()) {
			left++
			continue
		}
		if err := os.Remove(filepath.Join(s.of(o), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return left, err
		}
		removed = true
	}
	if removed {
		err = syncDirectory(s.of(o))
	}
	return left, err
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
