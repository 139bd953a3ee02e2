package file

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/providertest"
)

func TestMain(m *testing.M) {
	if ran := beChild(); ran {
		return
	}
	goleak.VerifyTestMain(m)
}

var owner = providers.Owner{Policy: "shop", Certificate: "shop.example.com"}

// setup is a directory and what a policy wants in it.
type setup struct {
	t    testing.TB
	cfg  Config
	step func(string) error
	logs *bytes.Buffer
	ca   *certstest.CA
	unit func() error
}

func newSetup(t testing.TB) *setup {
	t.Helper()
	ca, err := certstest.NewCA("file test")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tls")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	logs := new(bytes.Buffer)
	return &setup{t: t, ca: ca, logs: logs, cfg: Config{
		Directory: dir, FullChain: "fullchain.pem", Key: "privkey.pem", Chain: "chain.pem",
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
}

func (s *setup) target() *Target {
	s.t.Helper()
	target, err := New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	target.step = func(what string) error {
		if s.step == nil {
			return nil
		}
		return s.step(what)
	}
	return target
}

func (s *setup) bundle() *certs.Bundle {
	s.t.Helper()
	b, err := s.ca.Issue(certstest.Options{Names: []string{"shop.example.com"}})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *setup) request() providers.Request {
	return providers.Request{Owner: owner, Endpoints: []string{s.cfg.Directory}}
}

func handle(b *certs.Bundle) providers.Handle { return providers.Handle(b.Fingerprint().String()) }

// deploy is what the engine does: look, stage where nothing holds the bundle, activate.
func (s *setup) deploy(b *certs.Bundle) error {
	s.t.Helper()
	target := s.target()
	if s.unit != nil {
		target.reloadUnit = func(contextType, string) error { return s.unit() }
	}
	o, err := target.Observe(s.t.Context(), s.request())
	if err != nil {
		return err
	}
	if serves(o, b) {
		return nil
	}
	held := slices.ContainsFunc(o.Remotes, func(r providers.Remote) bool { return r.Fingerprint == b.Fingerprint() })
	if !held {
		if _, err := target.Stage(s.t.Context(), s.request(), b); err != nil {
			return err
		}
	}
	return target.Activate(s.t.Context(), s.request(), handle(b))
}

func serves(o providers.Observation, b *certs.Bundle) bool {
	i := slices.IndexFunc(o.Remotes, func(r providers.Remote) bool { return r.Handle == o.Endpoints[0].Serves })
	return i >= 0 && o.Remotes[i].Fingerprint == b.Fingerprint()
}

func (s *setup) observe() providers.Observation {
	s.t.Helper()
	o, err := s.target().Observe(s.t.Context(), s.request())
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s *setup) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *setup) path(name ...string) string {
	return filepath.Join(append([]string{s.cfg.Directory}, name...)...)
}

func (s *setup) read(name ...string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.path(name...))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// wantServed checks that the directory serves the bundle, by plain reading.
func (s *setup) wantServed(b *certs.Bundle) {
	s.t.Helper()
	key, err := b.Key.PEM(certs.PKCS8)
	s.must(err)
	for name, want := range map[string][]byte{s.cfg.FullChain: b.FullChainPEM(), s.cfg.Key: key, s.cfg.Chain: b.ChainPEM()} {
		if name != "" && s.read(name) != string(want) {
			s.t.Errorf("%s is not that of %s", name, b.Fingerprint().Short())
		}
	}
	if o := s.observe(); !serves(o, b) {
		s.t.Errorf("observed %+v, want %s served\n%s", o, b.Fingerprint().Short(), s.logs)
	}
}

func (s *setup) wantUnsettled(b *certs.Bundle) {
	s.t.Helper()
	if o := s.observe(); o.Endpoints[0].Serves != unsettled+handle(b) || serves(o, b) {
		s.t.Errorf("observed %+v, want %s unsettled", o, b.Fingerprint().Short())
	}
}

// wantTree checks what is in the directory, but for the contents of generations.
func (s *setup) wantTree(want ...string) {
	s.t.Helper()
	var got []string
	for _, dir := range []string{".", control} {
		entries, err := os.ReadDir(s.path(dir))
		s.must(err)
		for _, e := range entries {
			got = append(got, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("tree:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantKind(t *testing.T, err error, kind providers.Kind) {
	t.Helper()
	if err == nil || providers.KindOf(err) != kind {
		t.Errorf("got kind %s, want %s: %v", providers.KindOf(err), kind, err)
	}
}

// putByHand writes the files as somebody does who knows nothing of rotatord: each
// replaces what was there.
func (s *setup) putByHand(b *certs.Bundle) {
	s.t.Helper()
	key, err := b.Key.PEM(certs.Traditional)
	s.must(err)
	for name, data := range map[string][]byte{s.cfg.FullChain: b.FullChainPEM(), s.cfg.Key: key, s.cfg.Chain: b.ChainPEM()} {
		if name != "" {
			s.must(certs.WriteFileAtomic(s.path(name), data, modeFor(name, s.cfg)))
		}
	}
}

func modeFor(name string, cfg Config) os.FileMode {
	if name == cfg.Key {
		return 0o600
	}
	return 0o644
}

// putGeneration writes a generation as another policy's rotatord has.
func (s *setup) putGeneration(name string, b *certs.Bundle) providers.Handle {
	s.t.Helper()
	target := s.target()
	d, err := target.openLocked(s.t.Context(), "test", true)
	s.must(err)
	defer d.close()
	files, err := target.encodeAll(b, nil)
	s.must(err)
	s.must(target.create(d, "test", metadataOf(name, b), files))
	return handle(b)
}

// snapshot tells any change of the tree.
func (s *setup) snapshot() [32]byte {
	h := sha256.New()
	err := filepath.WalkDir(s.cfg.Directory, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		_, err = h.Write([]byte(strings.Join([]string{name, info.Mode().String(), info.ModTime().String()}, "\n")))
		_, _ = h.Write([]byte{byte(st.Ino), byte(st.Ino >> 8), byte(st.Uid), byte(st.Gid)})
		return err
	})
	s.must(err)
	return [32]byte(h.Sum(nil))
}

// served is the leaf that a reader of the directory finds.
func (s *setup) served() certs.Fingerprint {
	data, err := os.ReadFile(s.path(s.cfg.FullChain))
	if err != nil {
		return certs.Fingerprint{}
	}
	block, _ := pem.Decode(data)
	leaf, err := x509.ParseCertificate(block.Bytes)
	s.must(err)
	return certs.FingerprintOf(leaf)
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Fixture {
		s := newSetup(t)
		s.putByHand(s.bundle())
		changes, last := 0, s.snapshot()
		failNext := func(step string, arguments ...string) {
			s.step = func(what string) error {
				if words := strings.Fields(what); !slices.Equal(words[:len(arguments)+1], append([]string{step}, arguments...)) {
					return nil
				}
				s.step = nil
				return errors.New("injected")
			}
		}
		return providertest.Fixture{
			New:       func(*testing.T) providers.Target { return s.target() },
			Endpoints: []string{s.cfg.Directory},
			Names:     []string{"shop.example.com"},
			Unknown:   "/etc/no/such/directory",
			ByContent: true,
			// The rename took effect, and whether it lasts is not known.
			LoseCreate: func(*testing.T) { failNext("sync", control) },
			FailCreate: func(*testing.T) { failNext("rename", staging) },
			BindForeign: func(_ *testing.T, _ string, b *certs.Bundle) providers.Handle {
				s.putByHand(b)
				return handle(b)
			},
			UploadForeign: func(_ *testing.T, name string, b *certs.Bundle) providers.Handle { return s.putGeneration(name, b) },
			Delete: func(_ *testing.T, h providers.Handle) {
				s.must(os.RemoveAll(s.path(control, string(h))))
			},
			Handles: func(*testing.T) []providers.Handle {
				all := []providers.Handle{providers.Handle(s.served().String())}
				entries, _ := os.ReadDir(s.path(control))
				for _, e := range entries {
					if len(e.Name()) == 64 {
						all = append(all, providers.Handle(e.Name()))
					}
				}
				slices.Sort(all)
				return slices.Compact(all)
			},
			Serves: func(*testing.T, string) certs.Fingerprint { return s.served() },
			Changes: func(*testing.T) int {
				if now := s.snapshot(); now != last {
					changes, last = changes+1, now
				}
				return changes
			},
		}
	})
}
