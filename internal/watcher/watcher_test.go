package watcher

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is the CA of all tests.
var authority = sync.OnceValue(func() *certstest.CA {
	ca, err := certstest.NewCA("test")
	if err != nil {
		panic(err)
	}
	return ca
})

// issue makes a bundle; version orders bundles of one name.
func issue(t testing.TB, name string, version int) *certs.Bundle {
	t.Helper()
	b, err := issueVersion(name, version)
	must(t, err)
	return b
}

func issueVersion(name string, version int) (*certs.Bundle, error) {
	return authority().Issue(certstest.Options{
		Names:     []string{name},
		NotBefore: time.Now().Add(-24*time.Hour + time.Duration(version)*time.Minute),
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run is a watcher under test and everything that it told.
type run struct {
	*Watcher
	t     testing.TB
	looks chan struct{} // capacity 1: something was looked at
	// history has the fingerprint of every version of every certificate, in the
	// order in which snapshots showed them.
	mu      sync.Mutex
	history map[string][]certs.Fingerprint
	logs    strings.Builder
}

// start runs a watcher until the test ends and returns after its first scan.
func start(t testing.TB, config Config, prepare ...func(*Watcher)) *run {
	t.Helper()
	r := &run{t: t, looks: make(chan struct{}, 1), history: make(map[string][]certs.Fingerprint)}
	config.OnChange = r.onChange
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(&r.logs, nil))
	}
	w, err := New(config)
	must(t, err)
	r.Watcher, w.looked = w, r.onLook
	for _, f := range prepare {
		f(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	})
	select {
	case <-w.Ready():
	case <-t.Context().Done():
		t.Fatal("never ready")
	}
	return r
}

func (r *run) onChange(change Change) {
	s := r.Snapshot()
	r.mu.Lock()
	for _, name := range change.Certificates {
		c, ok := s.Certificate(name)
		if h := r.history[name]; ok && (len(h) == 0 || h[len(h)-1] != c.Pair.Info.Fingerprint) {
			r.history[name] = append(h, c.Pair.Info.Fingerprint)
		}
	}
	r.mu.Unlock()
}

func (r *run) onLook() {
	select {
	case r.looks <- struct{}{}:
	default:
	}
}

// until waits for a snapshot that satisfies the condition.
func (r *run) until(what string, condition func(*Snapshot) bool) *Snapshot {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		if s := r.Snapshot(); condition(s) {
			return s
		}
		select {
		case <-r.looks:
		case <-ctx.Done():
			s := r.Snapshot()
			r.t.Fatalf("never %s; up=%v err=%v names=%v problems=%v", what, s.Up, s.Err, s.Names(), s.Problems)
		}
	}
}

// serves waits until a version is in force without a problem.
func (r *run) serves(name string, b *certs.Bundle) Certificate {
	r.t.Helper()
	s := r.until(name+" is at "+b.Fingerprint().Short(), func(s *Snapshot) bool {
		c, ok := s.Certificate(name)
		return ok && c.Problem == nil && c.Pair.Info.Fingerprint == b.Fingerprint()
	})
	c, _ := s.Certificate(name)
	return c
}

// marked waits until a certificate is kept at a version with a problem.
func (r *run) marked(name string, b *certs.Bundle, reason certs.Reason) Certificate {
	r.t.Helper()
	s := r.until(name+" is marked "+string(reason), func(s *Snapshot) bool {
		c, ok := s.Certificate(name)
		return ok && c.Problem != nil && c.Problem.Reason == reason && c.Pair.Info.Fingerprint == b.Fingerprint()
	})
	c, _ := s.Certificate(name)
	return c
}

func (r *run) versions(name string) []certs.Fingerprint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history[name]
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path, data, 0o600))
}

func keyPEM(t testing.TB, b *certs.Bundle) []byte {
	t.Helper()
	data, err := b.Key.PEM(certs.PKCS8)
	must(t, err)
	return data
}

func TestFirstScanAndRename(t *testing.T) {
	root := t.TempDir()
	one, two := issue(t, "shop.example.com", 1), issue(t, "shop.example.com", 2)
	must(t, certstest.WritePair(root, "shop", one))
	r := start(t, Config{Root: root})
	r.serves("shop.example.com", one)
	must(t, certstest.WritePair(root, "shop", two))
	c := r.serves("shop.example.com", two)
	b, err := r.Load("shop.example.com", two.Fingerprint())
	must(t, err)
	if b.Fingerprint() != two.Fingerprint() || len(b.Chain) != 1 || !b.Key.Matches(b.Leaf) {
		t.Errorf("loaded %+v", b)
	}
	if _, err := r.Load("shop.example.com", one.Fingerprint()); err == nil {
		t.Error("loaded a version that is no longer in force")
	}
	if c.Pair.KeyFile != filepath.Join(root, "shop.key") {
		t.Errorf("key file is %s", c.Pair.KeyFile)
	}
}

func TestCertbotSwitchesOnce(t *testing.T) {
	for _, recursiveOverAll := range []bool{false, true} {
		base := t.TempDir()
		lineage := certstest.NewCertbot(base, "shop.example.com")
		one, two := issue(t, "shop.example.com", 1), issue(t, "shop.example.com", 2)
		must(t, lineage.Renew(one))
		root := filepath.Join(base, "live")
		if recursiveOverAll {
			root = base
		}
		r := start(t, Config{Root: root, Recursive: true})
		r.serves("shop.example.com", one)
		must(t, lineage.Save(two))
		for _, stem := range certstest.CertbotFiles() {
			must(t, lineage.Link(stem))
			// Let the watcher see every single step: the worst case.
			r.step()
			c, _ := r.Snapshot().Certificate("shop.example.com")
			if b, err := certs.LoadPair(c.Pair, nil); err != nil && c.Problem == nil {
				t.Errorf("after %s: pair cannot be loaded and is not marked: %v", stem, err)
			} else if err == nil && !b.Key.Matches(b.Leaf) {
				t.Errorf("after %s: key of another certificate", stem)
			}
		}
		r.serves("shop.example.com", two)
		if got := r.versions("shop.example.com"); len(got) != 2 {
			t.Errorf("switched %d times: %v", len(got)-1, got)
		}
	}
}

// step waits for one more complete look.
func (r *run) step() {
	r.t.Helper()
	before := r.Snapshot().Rescans[Manual]
	r.Rescan(Manual)
	r.until("rescanned", func(s *Snapshot) bool { return s.Rescans[Manual] > before })
}
