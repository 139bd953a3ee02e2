package certs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
)

func TestReadFile(t *testing.T) {
	directory := t.TempDir()
	at := func(name string) string { return filepath.Join(directory, name) }
	must(t, os.WriteFile(at("full.pem"), make([]byte, certs.MaxFileSize), 0o600))
	must(t, os.WriteFile(at("big.pem"), make([]byte, certs.MaxFileSize+1), 0o600))
	must(t, os.Symlink("loop.pem", at("loop.pem")))
	must(t, os.Symlink("full.pem", at("link.pem")))
	must(t, syscall.Mkfifo(at("fifo.pem"), 0o600))
	must(t, os.Mkdir(at("directory.pem"), 0o700))
	for name, want := range map[string]certs.Reason{
		"full.pem": "", "link.pem": "", "big.pem": certs.TooLarge, "loop.pem": certs.SymlinkLoop,
		"fifo.pem": certs.Unreadable, "directory.pem": certs.Unreadable, "gone.pem": certs.Unreadable,
	} {
		data, err := certs.ReadFile(at(name))
		var reason certs.Reason
		if problem, ok := errors.AsType[*certs.Problem](err); ok {
			reason = problem.Reason
		}
		if reason != want || (err == nil) != (want == "") || err == nil && len(data) != certs.MaxFileSize {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}

func TestWriteFileAtomic(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "key.pem")
	for _, content := range []string{"one", "two"} {
		must(t, certs.WriteFileAtomic(path, []byte(content), 0o640))
		if got := string(read(t, path)); got != content {
			t.Errorf("read %q", got)
		}
	}
	status, err := os.Stat(path)
	must(t, err)
	if status.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", status.Mode())
	}
	// A rename onto a directory fails after the temporary file was written.
	must(t, os.Mkdir(filepath.Join(directory, "taken"), 0o700))
	if err := certs.WriteFileAtomic(filepath.Join(directory, "taken"), []byte("secret"), 0o600); err == nil ||
		strings.Contains(err.Error(), "secret") {
		t.Errorf("over a directory: %v", err)
	}
	if err := certs.WriteFileAtomic(filepath.Join(directory, "gone", "x"), nil, 0o600); err == nil {
		t.Error("into a missing directory")
	}
	entries, err := os.ReadDir(directory)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("left over: %v", entries)
	}
}

func TestReasonsAreAllUsedInMessages(t *testing.T) {
	seen := make(map[certs.Reason]bool)
	for _, reason := range certs.Reasons() {
		if seen[reason] || strings.ToLower(string(reason)) != string(reason) || strings.ContainsAny(string(reason), " -") {
			t.Errorf("reason %q", reason)
		}
		seen[reason] = true
	}
}
