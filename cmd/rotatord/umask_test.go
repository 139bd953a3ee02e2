package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestUmask runs the built binary under a umask that lets everybody do everything, and under one
// that lets nobody but its user: what is secret is its user's alone, what is public can be read.
func TestUmask(t *testing.T) {
	for _, umask := range []string{"000", "077"} {
		t.Run(umask, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, host)
			r.configure("")
			r.write("policies/files.yaml", fmt.Sprintf("name: files\nsource: {directory: {path: %s}}\ntargets:\n"+
				"  - name: nginx\n    file: {directory: %s, certificate: cert.pem, chain: chain.pem, full_chain: fullchain.pem, key: privkey.pem, combined: all.pem, mode: \"0640\"}\n",
				r.path("files"), r.path("tls")))
			must(t, os.MkdirAll(r.path("tls"), 0o755))
			bundle := r.issue("files", host)
			p := launchWith(t, func(c *exec.Cmd) {
				// The shell is the only one who can set it for the program alone.
				c.Args = []string{"sh", "-c", `umask ` + umask + `; exec "$0" "$@"`, c.Path, "run", "--config", r.path("rotatord.yaml")}
				c.Path = "/bin/sh"
			})
			r.log = p.log
			r.converged(bundle)
			r.stateModes()
			for name, want := range map[string]fs.FileMode{"cert.pem": 0o644, "chain.pem": 0o644, "fullchain.pem": 0o644, "privkey.pem": 0o640, "all.pem": 0o640} {
				info, err := os.Stat(filepath.Join(r.path("tls"), name))
				if err != nil || info.Mode().Perm() != want {
					t.Errorf("%s: %v, %v, want %v", name, err, info.Mode(), want)
				}
			}
			// Who serves the public files has to get through to them.
			target, err := filepath.EvalSymlinks(filepath.Join(r.path("tls"), "cert.pem"))
			must(t, err)
			for dir := filepath.Dir(target); dir != r.path("tls"); dir = filepath.Dir(dir) {
				if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o022 != 0 || info.Mode().Perm()&0o005 != 0o005 {
					t.Errorf("%s: %v, %v", dir, err, info.Mode())
				}
			}
			if err := p.stop(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		})
	}
}

// stateModes walks the state directory: it is the daemon's user's alone, and so is all in it but the
// socket, which has its own mode.
func (r *rig) stateModes() {
	r.t.Helper()
	files := 0
	err := filepath.WalkDir(r.path("state"), func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // the store's own files come and go
		case err != nil:
			return err
		case info.Mode().Type() == fs.ModeSocket:
			if info.Mode().Perm() != 0o660 {
				r.t.Errorf("the socket has %v", info.Mode())
			}
			return nil
		case path == r.path("state") && info.Mode().Perm() != 0o700:
			r.t.Errorf("the state directory has %v", info.Mode())
		case strings.HasPrefix(path, r.path("state")+"/nats/") || path == r.path("state")+"/nats":
			// The server makes its files as its umask says; that nobody gets to them, the directory
			// above says.
		case info.Mode().Perm()&0o077 != 0:
			r.t.Errorf("%s has %v", path, info.Mode())
		}
		files++
		return nil
	})
	if err != nil || files < 3 {
		r.t.Errorf("%d files of the state, %v", files, err)
	}
}
