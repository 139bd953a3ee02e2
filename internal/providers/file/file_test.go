package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

func TestConfig(t *testing.T) {
	good := Config{Directory: "/etc/nginx/tls", FullChain: "cert.pem", Key: "key.pem"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"relative directory": func(c *Config) { c.Directory = "tls" },
		"not clean":          func(c *Config) { c.Directory = "/etc/nginx/../tls" },
		"slash":              func(c *Config) { c.Key = "../key.pem" },
		"dots":               func(c *Config) { c.Key = ".." },
		"reserved":           func(c *Config) { c.Key = ".rotatord" },
		"aside":              func(c *Config) { c.Key = "key.pem.before-rotatord" },
		"twice":              func(c *Config) { c.Key = "cert.pem" },
		"nothing":            func(c *Config) { c.FullChain, c.Key = "", "" },
		"no leaf":            func(c *Config) { c.FullChain = "" },
		"open key":           func(c *Config) { c.Mode = 0o644 },
		"no owner":           func(c *Config) { c.Mode = 0o040 },
		"setuid":             func(c *Config) { c.Mode = fs.ModeSetuid | 0o600 },
		"two reloads":        func(c *Config) { c.Reload = Reload{Unit: "nginx", Command: []string{"true"}} },
		"empty command":      func(c *Config) { c.Reload.Command = []string{""} },
		"unit with slash":    func(c *Config) { c.Reload.Unit = "/etc/x" },
		"timeout":            func(c *Config) { c.Reload.Timeout = -1 },
		"no password":        func(c *Config) { c.PKCS12 = "x.p12" },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestForms(t *testing.T) {
	s := newSetup(t)
	s.cfg.Certificate, s.cfg.Combined, s.cfg.PKCS12 = "cert.pem", "all.pem", "site.p12"
	password := "pw-that-is-only-for-tests"
	s.cfg.PKCS12Password = func() (string, error) { return password, nil }
	b := s.bundle()
	s.must(s.deploy(b))
	s.wantServed(b)
	key, err := b.Key.PEM(certs.PKCS8)
	s.must(err)
	if s.read("cert.pem") != string(b.CertificatePEM()) || s.read("all.pem") != string(b.FullChainPEM())+string(key) {
		t.Error("certificate or combined is wrong")
	}
	got, leaf, chain, err := pkcs12.DecodeChain([]byte(s.read("site.p12")), password)
	s.must(err)
	if !leaf.Equal(b.Leaf) || len(chain) != 1 || !chain[0].Equal(b.Chain[0]) || got == nil {
		t.Error("PKCS #12 holds something else")
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "pkcs12", "-in", s.path("site.p12"), "-passin", "env:PW", "-nodes")
	cmd.Env = append(os.Environ(), "PW="+password)
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), strings.TrimSpace(string(key))) || strings.Count(string(out), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("openssl: %v: %d bytes", err, len(out))
	}
	for name, mode := range map[string]fs.FileMode{"cert.pem": 0o644, "chain.pem": 0o644, "fullchain.pem": 0o644, "privkey.pem": 0o600, "all.pem": 0o600, "site.p12": 0o600} {
		if info, err := os.Stat(s.path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	// A new password makes a new file, and the old one is not trusted.
	password = "another-one-for-tests"
	s.wantUnsettled(b)
	s.must(s.deploy(b))
	s.wantServed(b)
	if _, _, _, err := pkcs12.DecodeChain([]byte(s.read("site.p12")), password); err != nil {
		t.Error(err)
	}
	s.cfg.PKCS12Password = func() (string, error) { return "", errors.New("no such file") }
	err = s.deploy(s.bundle())
	wantKind(t, err, providers.KindInvalid)
	// One without any PEM beside it.
	s.cfg = Config{Directory: s.cfg.Directory, PKCS12: "only.p12", Logger: s.cfg.Logger, PKCS12Password: func() (string, error) { return password, nil }}
	c := s.bundle()
	s.must(s.deploy(c))
	if o := s.observe(); !serves(o, c) {
		t.Errorf("%+v", o)
	}
	s.wantTree("only.p12", control, current, folder(b.Fingerprint()), folder(c.Fingerprint()))
}

func TestNoKey(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	b.Key = certs.PrivateKey{}
	_, err := s.target().Stage(t.Context(), s.request(), b)
	wantKind(t, err, providers.KindInvalid)
	s.cfg = Config{Directory: s.cfg.Directory, Certificate: "idp.pem"}
	s.must(s.deploy(b))
	if o := s.observe(); !serves(o, b) {
		t.Errorf("%+v", o)
	}
}

func TestMissingDirectory(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	s.must(os.Remove(s.cfg.Directory))
	o := s.observe()
	if !o.Endpoints[0].Missing || o.Endpoints[0].ID != "" {
		t.Errorf("%+v", o)
	}
	_, err := s.target().Stage(t.Context(), s.request(), b)
	wantKind(t, err, providers.KindNotFound)
	wantKind(t, s.target().Activate(t.Context(), s.request(), handle(b)), providers.KindNotFound)
	s.must(s.target().Retire(t.Context(), s.request(), handle(b)))
}

// What rotatord promised is put right whatever happens to it.
func TestRepairs(t *testing.T) {
	for name, harm := range map[string]func(s *setup){
		"key deleted":       func(s *setup) { s.must(os.Remove(s.path("privkey.pem"))) },
		"all links deleted": func(s *setup) { s.must(removeAll(s, "privkey.pem", "fullchain.pem", "chain.pem")) },
		"current deleted":   func(s *setup) { s.must(removeAll(s, current)) },
		"current elsewhere": func(s *setup) { s.must(removeAll(s, current)); s.must(os.Symlink("/etc", s.path(current))) },
		"control deleted":   func(s *setup) { s.must(os.RemoveAll(s.path(control))) },
		"metadata deleted":  func(s *setup) { s.must(removeAll(s, filepath.Join(current, metadataName))); s.truncate("chain.pem") },
		"metadata broken":   func(s *setup) { s.truncate(filepath.Join(current, metadataName)); s.truncate("chain.pem") },
		"file truncated":    func(s *setup) { s.truncate("fullchain.pem") },
		"key emptied":       func(s *setup) { s.truncate("privkey.pem") },
		"chain edited":      func(s *setup) { s.write("chain.pem", s.bundle().CertificatePEM()) },
		"comment added":     func(s *setup) { s.write("chain.pem", []byte("hello\n"+s.read("chain.pem"))) },
		"other key":         func(s *setup) { key, _ := s.bundle().Key.PEM(certs.PKCS8); s.write("privkey.pem", key) },
		"other certificate": func(s *setup) { s.write("fullchain.pem", s.bundle().FullChainPEM()) },
		"other pair":        func(s *setup) { s.editThrough(s.bundle()) },
		"plain junk":        func(s *setup) { s.must(certs.WriteFileAtomic(s.path("privkey.pem"), []byte("junk"), 0o600)) },
		"plain certificate": func(s *setup) {
			s.must(certs.WriteFileAtomic(s.path("fullchain.pem"), s.bundle().FullChainPEM(), 0o644))
		},
		"plain pair":  func(s *setup) { s.putByHand(s.bundle()) },
		"mode opened": func(s *setup) { s.must(os.Chmod(s.path("privkey.pem"), 0o666)) },
		"mode closed": func(s *setup) { s.must(os.Chmod(s.path("fullchain.pem"), 0o600)) },
		"folder closed": func(s *setup) {
			s.must(os.Chmod(s.path("privkey.pem"), 0o640))
			s.must(os.Chmod(s.path(current), 0o700))
		},
		"link in generation": func(s *setup) {
			s.must(removeAll(s, filepath.Join(current, "chain.pem")))
			s.must(os.Symlink("fullchain.pem", s.path(current, "chain.pem")))
		},
		"huge": func(s *setup) { s.write("chain.pem", make([]byte, 2<<20)) },
		"fifo": func(s *setup) {
			s.must(removeAll(s, filepath.Join(current, "chain.pem")))
			s.must(syscall.Mkfifo(s.path(current, "chain.pem"), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t)
			reloads := 0
			s.unit = func() error { reloads++; return nil }
			s.cfg.Reload.Unit = "nginx"
			b := s.bundle()
			s.must(s.deploy(b))
			harm(s)
			if o := s.observe(); serves(o, b) {
				t.Fatalf("not noticed: %+v", o)
			}
			before := reloads
			s.must(s.deploy(b))
			s.wantServed(b)
			if reloads != before+1 {
				t.Errorf("%d reloads", reloads-before)
			}
			if info, err := os.Stat(s.path(current)); err != nil || info.Mode().Perm() != controlMode {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

func removeAll(s *setup, names ...string) error {
	for _, n := range names {
		if err := os.Remove(s.path(n)); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) truncate(name string) { s.must(os.Truncate(s.path(name), 20)) }

func (s *setup) write(name string, data []byte) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), data, 0o600))
}

// What somebody else put there is never lost.
func TestForeignContentIsKept(t *testing.T) {
	s := newSetup(t)
	s.write("fullchain.pem", []byte("not a certificate\n"))
	s.write("privkey.pem", []byte("not a key\n"))
	b := s.bundle()
	s.must(s.deploy(b))
	s.wantServed(b)
	if s.read("fullchain.pem.before-rotatord") != "not a certificate\n" || s.read("privkey.pem.before-rotatord") != "not a key\n" {
		t.Error("what was there is gone")
	}
	// The same again takes no further place, something else does.
	s.must(certs.WriteFileAtomic(s.path("fullchain.pem"), []byte("not a certificate\n"), 0o644))
	s.must(s.deploy(b))
	s.must(certs.WriteFileAtomic(s.path("fullchain.pem"), []byte("something else\n"), 0o644))
	s.must(s.deploy(b))
	if s.read("fullchain.pem.before-rotatord.2") != "something else\n" {
		t.Error("what was there is gone")
	}
	// A whole certificate becomes a generation that is nobody's, through whatever it came.
	for _, put := range []func(*certs.Bundle){s.putByHand, s.editThrough} {
		theirs, next := s.bundle(), s.bundle()
		put(theirs)
		s.must(s.deploy(next))
		s.wantServed(next)
		r := s.request()
		r.Known = []providers.Handle{handle(theirs)}
		o, err := s.target().Observe(t.Context(), r)
		s.must(err)
		found := false
		for _, remote := range o.Remotes {
			found = found || remote.Handle == handle(theirs) && remote.Fingerprint == theirs.Fingerprint() && !remote.Owned
		}
		if !found {
			t.Errorf("%+v", o.Remotes)
		}
		wantKind(t, s.target().Retire(t.Context(), s.request(), handle(theirs)), providers.KindInvalid)
		s.must(s.target().Activate(t.Context(), s.request(), handle(theirs)))
		if s.served() != theirs.Fingerprint() {
			t.Error("there is no way back")
		}
		s.must(s.deploy(next))
	}
	// An edit that is no certificate stays when its generation goes.
	last := s.bundle()
	s.must(s.deploy(last))
	s.must(os.WriteFile(s.path(folder(b.Fingerprint()), "chain.pem"), []byte("a note\n"), 0o600))
	s.must(s.target().Retire(t.Context(), s.request(), handle(b)))
	if s.read("chain.pem.before-rotatord") != "a note\n" {
		t.Error("an edit is gone")
	}
}

// Links that lead elsewhere are replaced; what they lead to is not touched.
func TestForeignLinks(t *testing.T) {
	s := newSetup(t)
	old := s.bundle()
	s.linkElsewhere(old)
	if o := s.observe(); o.Endpoints[0].Serves != handle(old) {
		t.Errorf("%+v", o)
	}
	elsewhere, err := os.Readlink(s.path("privkey.pem"))
	s.must(err)
	before, err := os.ReadFile(elsewhere)
	s.must(err)
	s.must(s.deploy(s.bundle()))
	if after, err := os.ReadFile(elsewhere); err != nil || string(after) != string(before) {
		t.Errorf("what the link led to was changed: %v", err)
	}
	if kept, err := os.Readlink(s.path("privkey.pem.before-rotatord")); err != nil || kept != elsewhere {
		t.Errorf("%s, %v", kept, err)
	}
}

// A plain file with the wanted content and the wrong mode is not fine; one of another
// certificate shows its dates, so that a newer one is not replaced by an older.
func TestPlainFilesWithAnotherMode(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	s.putByHand(b)
	s.must(os.Chmod(s.path("privkey.pem"), 0o644))
	s.wantUnsettled(b)
	o := s.observe()
	for _, r := range o.Remotes {
		if r.Handle == o.Endpoints[0].Serves && !r.NotBefore.Equal(b.Leaf.NotBefore) {
			t.Errorf("%+v", r)
		}
	}
	s.must(s.deploy(b))
	if o := s.observe(); !serves(o, b) {
		t.Errorf("%+v", o)
	}
	if info, err := os.Stat(s.path("privkey.pem")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// The policy asks for another set of files.
func TestFilesChange(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	s.must(s.deploy(b))
	s.cfg.Chain, s.cfg.Combined = "", "all.pem"
	if o := s.observe(); serves(o, b) {
		t.Error("a file is missing, and nobody minds")
	}
	s.must(s.deploy(b))
	s.wantServed(b)
	c := s.bundle()
	s.must(s.deploy(c))
	s.wantServed(c)
	s.wantTree("all.pem", "fullchain.pem", "privkey.pem", control, current, folder(b.Fingerprint()), folder(c.Fingerprint()))
}

func TestSecondLookCostsNothing(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	s.must(s.deploy(b))
	s.step = func(what string) error { t.Errorf("changed: %s", what); return nil }
	_, err := s.target().Stage(t.Context(), s.request(), b)
	s.must(err)
	s.must(s.target().Activate(t.Context(), s.request(), handle(b)))
	s.observe()
}

func TestLockIsWaitedFor(t *testing.T) {
	s := newSetup(t)
	b := s.bundle()
	s.must(s.deploy(b))
	d, err := s.target().openLocked(t.Context(), "test", true)
	s.must(err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.target().Stage(ctx, s.request(), s.bundle())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	d.close()
	_, err = s.target().Stage(t.Context(), s.request(), s.bundle())
	s.must(err)
}
