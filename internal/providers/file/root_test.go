//go:build root

package file

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/providers"
)

func TestAttacks(t *testing.T) {
	const other = 65534
	for name, attack := range map[string]func(s *setup){
		"directory of another": func(s *setup) { s.must(os.Chown(s.cfg.Directory, other, other)) },
		"open directory":       func(s *setup) { s.must(os.Chmod(s.cfg.Directory, 0o777)) },
		"link of another to the directory": func(s *setup) {
			link := s.cfg.Directory + "-link"
			s.must(os.Symlink(s.cfg.Directory, link))
			s.must(os.Lchown(link, other, other))
			s.cfg.Directory = link
		},
		"link of another on the way": func(s *setup) {
			link := filepath.Dir(s.cfg.Directory) + "/way"
			s.must(os.Symlink(".", link))
			s.must(os.Lchown(link, other, other))
			s.cfg.Directory = link + "/tls"
		},
		"control directory of another": func(s *setup) {
			s.must(os.Mkdir(s.path(control), 0o755))
			s.must(os.Chown(s.path(control), other, other))
		},
		"open control directory": func(s *setup) {
			s.must(os.Mkdir(s.path(control), 0o755))
			s.must(os.Chmod(s.path(control), 0o777))
		},
		"link of another to a secret": func(s *setup) {
			s.must(os.Symlink("/etc/shadow", s.path("privkey.pem")))
			s.must(os.Lchown(s.path("privkey.pem"), other, other))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t)
			attack(s)
			before := s.snapshot()
			_, err := s.target().Observe(t.Context(), s.request())
			wantKind(t, err, providers.KindDenied)
			err = s.deploy(s.bundle())
			wantKind(t, err, providers.KindDenied)
			if s.snapshot() != before {
				t.Error("something was changed")
			}
		})
	}
	t.Run("control is a link", func(t *testing.T) {
		s := newSetup(t)
		elsewhere := t.TempDir()
		s.must(os.Symlink(elsewhere, s.path(control)))
		_, err := s.target().Stage(t.Context(), s.request(), s.bundle())
		if err == nil {
			t.Error("it was followed")
		}
		if entries, _ := os.ReadDir(elsewhere); len(entries) > 0 {
			t.Error("something was written elsewhere")
		}
	})
	t.Run("own links on the way are fine", func(t *testing.T) {
		s := newSetup(t)
		link := s.cfg.Directory + "-link"
		s.must(os.Symlink("tls", link))
		s.cfg.Directory = link
		b := s.bundle()
		s.must(s.deploy(b))
		s.wantServed(b)
	})
	t.Run("a name is a directory", func(t *testing.T) {
		s := newSetup(t)
		s.must(os.Mkdir(s.path("privkey.pem"), 0o755))
		if o := s.observe(); o.Endpoints[0].Problem == "" || o.Endpoints[0].Serves != "" {
			t.Errorf("%+v", o)
		}
		b := s.bundle()
		_, err := s.target().Stage(t.Context(), s.request(), b)
		s.must(err)
		wantKind(t, s.target().Activate(t.Context(), s.request(), handle(b)), providers.KindInvalid)
	})
	t.Run("handles lead nowhere else", func(t *testing.T) {
		s := newSetup(t)
		b := s.bundle()
		s.must(s.deploy(b))
		upper := providers.Handle(strings.ToUpper(string(handle(b))))
		for _, h := range []providers.Handle{"..", "../../etc", "current", ".staging", upper, "unsettled:", "/"} {
			wantKind(t, s.target().Activate(t.Context(), s.request(), h), providers.KindInvalid)
			wantKind(t, s.target().Retire(t.Context(), s.request(), h), providers.KindInvalid)
		}
		s.wantServed(b)
	})
	t.Run("a generation with a foreign content", func(t *testing.T) {
		s := newSetup(t)
		b, theirs := s.bundle(), s.bundle()
		s.must(s.deploy(s.bundle()))
		s.must(os.Mkdir(s.path(folder(b.Fingerprint())), 0o755))
		s.write(filepath.Join(folder(b.Fingerprint()), "fullchain.pem"), theirs.FullChainPEM())
		_, err := s.target().Stage(t.Context(), s.request(), b)
		wantKind(t, err, providers.KindExists)
	})
}

func TestOwnership(t *testing.T) {
	s := newSetup(t)
	s.cfg.Owner, s.cfg.Group, s.cfg.Mode = "nobody", "12345", 0o640
	syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(0o022) })
	b := s.bundle()
	s.must(s.deploy(b))
	want := func(name string, mode fs.FileMode) {
		t.Helper()
		info, err := os.Stat(s.path(name))
		s.must(err)
		if uid, gid := ownerOf(info); uid != 65534 || gid != 12345 || info.Mode() != mode {
			t.Errorf("%s: %d:%d %v", name, uid, gid, info.Mode())
		}
	}
	want("privkey.pem", 0o640)
	want("fullchain.pem", 0o644)
	// The service reads its files as its own user, whatever the daemon's umask is.
	for dir := filepath.Dir(s.cfg.Directory); dir != "/" && dir != "/tmp"; dir = filepath.Dir(dir) {
		s.must(os.Chmod(dir, 0o755))
	}
	cat := exec.CommandContext(t.Context(), "cat", s.path("privkey.pem"), s.path("fullchain.pem"))
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 12345}}
	if out, err := cat.CombinedOutput(); err != nil || !strings.Contains(string(out), "BEGIN CERTIFICATE") {
		t.Errorf("the group cannot read: %v", err)
	}
	s.must(os.Chown(s.path("privkey.pem"), 0, 12345))
	s.wantUnsettled(b)
	s.must(s.deploy(b))
	want("privkey.pem", 0o640)
	s.must(os.Chown(s.path("fullchain.pem"), 65534, 0))
	s.wantUnsettled(b)
	s.must(s.deploy(b))
	want("fullchain.pem", 0o644)
	s.cfg.Owner = "no-such-user"
	_, err := s.target().Observe(t.Context(), s.request())
	wantKind(t, err, providers.KindInvalid)
}

func (s *setup) mount(kind, options string) {
	s.t.Helper()
	s.must(syscall.Mount(kind, s.cfg.Directory, kind, 0, options))
	s.t.Cleanup(func() { s.must(syscall.Unmount(s.cfg.Directory, 0)) })
}

func TestDiskFull(t *testing.T) {
	s := newSetup(t)
	s.mount("tmpfs", "size=64k,mode=755")
	old := s.bundle()
	s.must(s.deploy(old))
	filler, err := os.Create(s.path("filler"))
	s.must(err)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	b := s.bundle()
	_, err = s.target().Stage(t.Context(), s.request(), b)
	wantKind(t, err, providers.KindUnavailable)
	if err != nil && !strings.Contains(err.Error(), "no space is left") {
		t.Error(err)
	}
	s.wantServed(old)
	s.wantTree("chain.pem", "fullchain.pem", "privkey.pem", "filler", control, current, folder(old.Fingerprint()))
	s.must(os.Remove(s.path("filler")))
	s.must(s.deploy(b))
	s.wantServed(b)
}

func TestReadOnly(t *testing.T) {
	s := newSetup(t)
	s.mount("tmpfs", "size=256k,mode=755")
	old := s.bundle()
	s.must(s.deploy(old))
	s.must(syscall.Mount("", s.cfg.Directory, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	err := s.deploy(s.bundle())
	wantKind(t, err, providers.KindDenied)
	if err != nil && !strings.Contains(err.Error(), "read-only") {
		t.Error(err)
	}
	s.wantServed(old)
}
