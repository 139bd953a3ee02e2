package file

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// fast moves the directory to memory: thousands of syncs are not what is tested.
func (s *setup) fast() *setup {
	s.t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rotatord-file-")
	s.must(err)
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	s.cfg.Directory = filepath.Join(dir, "tls")
	s.must(os.Mkdir(s.cfg.Directory, 0o755))
	return s
}

var errStop = errors.New("stopped by the test")

// wantPair checks, with plain opens, that there is a pair and that it matches.
func (s *setup) wantPair(when string) {
	s.t.Helper()
	if _, err := tls.LoadX509KeyPair(s.path(s.cfg.FullChain), s.path(s.cfg.Key)); err != nil {
		s.t.Errorf("%s: %v", when, err)
	}
}

// Stop the work before every single change, as a crash and as an error: at no moment
// is there no pair or a mixed one, and a new process comes to the end that a faultless
// one would have come to, with nothing left over and the service told.
func TestStopAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; all of it is played without the race detector")
	}
	scenarios := map[string]func(s *setup, old *certs.Bundle){
		"by hand":        func(s *setup, old *certs.Bundle) { s.putByHand(old) },
		"ours":           func(s *setup, old *certs.Bundle) { s.must(s.deploy(old)) },
		"replaced":       func(s *setup, old *certs.Bundle) { s.must(s.deploy(s.bundle())); s.putByHand(old) },
		"edited":         func(s *setup, old *certs.Bundle) { s.must(s.deploy(s.bundle())); s.editThrough(old) },
		"half":           func(s *setup, old *certs.Bundle) { s.putByHand(old); s.must(os.Remove(s.path("chain.pem"))) },
		"link elsewhere": func(s *setup, old *certs.Bundle) { s.linkElsewhere(old) },
	}
	for name, prepare := range scenarios {
		for _, mode := range []string{"crash", "error"} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				var steps int
				for n := 1; ; n++ {
					s := newSetup(t).fast()
					loaded := certs.Fingerprint{}
					s.unit = func() error { loaded = s.served(); return nil }
					s.cfg.Reload.Unit = "nginx"
					old, wanted := s.bundle(), s.bundle()
					prepare(s, old)
					s.wantPair("at first")
					done, last := s.stopAt(n, mode, func() error { return s.deploy(wanted) })
					s.wantPair("after " + last)
					steps = n
					// A new process.
					s.step = func(what string) error { s.wantPair("before " + what); return nil }
					for try := 0; ; try++ {
						if err := s.deploy(wanted); err == nil {
							break
						} else if try == 2 {
							t.Fatalf("stopped before step %d (%s): %v", n, last, err)
						}
					}
					s.step = nil
					s.wantServed(wanted)
					if loaded != wanted.Fingerprint() {
						t.Errorf("stopped before step %d (%s): the service has %s", n, last, loaded.Short())
					}
					s.wantWayBack(old)
					if _, err := os.Lstat(s.path(pending)); err == nil {
						t.Errorf("stopped before %s: a reload is still due", last)
					}
					for _, left := range []string{staging, trash, part, controlLink, outerLink} {
						if _, err := os.Lstat(s.path(left)); err == nil {
							t.Errorf("stopped before step %d (%s): %s was left", n, last, left)
						}
					}
					if t.Failed() {
						t.Fatalf("stopped before step %d (%s)\n%s", n, last, s.logs)
					}
					if done {
						break
					}
				}
				t.Logf("%d steps", steps)
				if steps < 10 {
					t.Errorf("only %d steps", steps)
				}
			})
		}
	}
}

// stopAt runs work until before its n-th change. It reports whether there were fewer. Callers count n up
// from 1: what is there before an earlier change was seen when that was the n-th.
func (s *setup) stopAt(n int, mode string, work func() error) (done bool, last string) {
	count := 0
	s.step = func(what string) error {
		if count++; count < n {
			return nil
		}
		s.wantPair("before " + what)
		last = what
		if mode == "crash" {
			panic(errStop)
		}
		if count == n {
			return &os.PathError{Op: what, Err: syscall.ENOSPC}
		}
		return nil
	}
	defer func() {
		s.step = nil
		if r := recover(); r != nil && r != any(errStop) {
			panic(r)
		}
	}()
	err := work()
	if err != nil && providers.KindOf(err) == providers.KindUnknown {
		s.t.Errorf("%s: not classified: %v", last, err)
	}
	return err == nil && count < n, last
}

// wantWayBack activates what was there before rotatord came.
func (s *setup) wantWayBack(old *certs.Bundle) {
	s.t.Helper()
	target := s.target()
	target.reloadUnit = func(contextType, string) error { return nil }
	if err := target.Activate(s.t.Context(), s.request(), handle(old)); err != nil {
		s.t.Errorf("way back: %v", err)
	}
	if s.served() != old.Fingerprint() {
		s.t.Errorf("way back: serves %s", s.served().Short())
	}
	s.wantPair("way back")
}

// editThrough writes the files as cp does: through the links, into the generation.
func (s *setup) editThrough(b *certs.Bundle) {
	s.t.Helper()
	key, err := b.Key.PEM(certs.PKCS8)
	s.must(err)
	for name, data := range map[string][]byte{"fullchain.pem": b.FullChainPEM(), "privkey.pem": key, "chain.pem": b.ChainPEM()} {
		s.must(os.WriteFile(s.path(name), data, 0o600))
	}
}

// linkElsewhere lets the names be links to files of somebody else's.
func (s *setup) linkElsewhere(b *certs.Bundle) {
	s.t.Helper()
	there := s.cfg
	there.Directory = filepath.Join(filepath.Dir(s.cfg.Directory), "elsewhere")
	s.must(os.Mkdir(there.Directory, 0o755))
	(&setup{t: s.t, cfg: there}).putByHand(b)
	for _, name := range []string{"fullchain.pem", "privkey.pem", "chain.pem"} {
		s.must(os.Symlink(filepath.Join(there.Directory, name), s.path(name)))
	}
}

// Retiring can be stopped anywhere too.
func TestRetireStopped(t *testing.T) {
	for n := 1; ; n++ {
		s := newSetup(t).fast()
		old, b := s.bundle(), s.bundle()
		s.must(s.deploy(old))
		s.must(s.deploy(b))
		done, _ := s.stopAt(n, "crash", func() error { return s.target().Retire(t.Context(), s.request(), handle(old)) })
		s.must(s.target().Retire(t.Context(), s.request(), handle(old)))
		s.wantServed(b)
		s.wantTree("chain.pem", "fullchain.pem", "privkey.pem", control, current, folder(b.Fingerprint()))
		if done {
			return
		}
	}
}

// Readers that take the current link once never see a mixture, and no reader ever
// misses a file, while the directory is switched thousands of times.
func TestReadersDuringSwitches(t *testing.T) {
	s := newSetup(t).fast()
	bundles := []*certs.Bundle{s.bundle(), s.bundle(), s.bundle()}
	target := s.target()
	for _, b := range bundles {
		_, err := target.Stage(t.Context(), s.request(), b)
		s.must(err)
	}
	s.must(target.Activate(t.Context(), s.request(), handle(bundles[0])))
	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				generation, err := os.Readlink(s.path(current))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := tls.LoadX509KeyPair(s.path(control, generation, "fullchain.pem"), s.path(control, generation, "privkey.pem")); err != nil {
					t.Errorf("a mixture: %v", err)
					return
				}
				if _, err := os.ReadFile(s.path("privkey.pem")); err != nil {
					t.Errorf("a moment without: %v", err)
					return
				}
				reads.Add(1)
				runtime.Gosched()
			}
		})
	}
	atLeast, switches := 1000, 0
	if os.Getenv("ROTATORD_TEST_LONG") != "" {
		atLeast = 20_000
	}
	for ; !t.Failed() && (switches < atLeast || reads.Load() < 100); switches++ {
		s.must(target.Activate(t.Context(), s.request(), handle(bundles[(switches+1)%len(bundles)])))
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d reads during %d switches", reads.Load(), switches)
	s.wantServed(bundles[switches%len(bundles)])
}

// Two processes and two goroutines that want different things never spoil anything.
func TestManyWriters(t *testing.T) {
	s := newSetup(t).fast()
	s.must(s.deploy(s.bundle()))
	child := startChild(t, childJob{Directory: s.cfg.Directory, Rotations: 30})
	out := new(strings.Builder)
	child.Stdout, child.Stderr = out, out
	s.must(child.Start())
	var wg sync.WaitGroup
	for range 2 {
		mine := []*certs.Bundle{s.bundle(), s.bundle()}
		wg.Go(func() {
			target := s.target()
			for i := range 30 {
				b := mine[i%2]
				if _, err := target.Stage(t.Context(), s.request(), b); err != nil {
					t.Error(err)
				}
				if err := target.Activate(t.Context(), s.request(), handle(b)); err != nil {
					t.Error(err)
				}
				if i%5 == 0 {
					_ = target.Retire(t.Context(), s.request(), handle(mine[(i+1)%2])) // in use, perhaps
				}
				s.wantPairOnce()
			}
		})
	}
	wg.Wait()
	// The child may find that somebody activated in between what it retires.
	if err := child.Wait(); err != nil && !strings.Contains(out.String(), "in use") {
		t.Errorf("%v: %s", err, out)
	}
	b := s.bundle()
	s.must(s.deploy(b))
	s.wantServed(b)
}

// wantPairOnce reads through the current link taken once.
func (s *setup) wantPairOnce() {
	for range 20 { // a generation may be retired while it is read
		generation, err := os.Readlink(s.path(current))
		if err == nil {
			_, err = tls.LoadX509KeyPair(s.path(control, generation, "fullchain.pem"), s.path(control, generation, "privkey.pem"))
		}
		if err == nil {
			return
		}
		if !errors.Is(err, os.ErrNotExist) {
			s.t.Error(err)
			return
		}
	}
	s.t.Error("never a pair")
}

// Kill real processes at random moments.
func TestKilled(t *testing.T) {
	s := newSetup(t).fast()
	s.putByHand(s.bundle())
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		child := startChild(t, childJob{Directory: s.cfg.Directory, Rotations: 1e6})
		var out strings.Builder
		child.Stderr = &out
		s.must(child.Start())
		pause := time.After(30*time.Millisecond + rand.N(40*time.Millisecond))
		for waiting := true; waiting; {
			select {
			case <-pause:
				waiting = false
			default:
				s.wantFile()
			}
		}
		s.must(child.Process.Kill())
		if err := child.Wait(); err == nil || out.Len() > 0 {
			t.Fatalf("%v: %s", err, &out)
		}
		s.wantPair("after a kill")
	}
	b := s.bundle()
	s.must(s.deploy(b))
	s.wantServed(b)
	entries, err := os.ReadDir(s.path(control))
	s.must(err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left", e.Name())
		}
	}
	entries, err = os.ReadDir(s.path())
	s.must(err)
	if len(entries) != 4 {
		t.Errorf("%d entries, want three links and the control directory", len(entries))
	}
}

// wantFile reads while others write. A generation that is retired at once may go while
// its name is being followed; the next try must find the one in force.
func (s *setup) wantFile() {
	var err error
	for range 20 {
		if _, err = os.Stat(s.path("fullchain.pem")); err == nil {
			break
		}
	}
	if err != nil {
		s.t.Errorf("a moment without: %v", err)
	}
	if _, err := os.Lstat(s.path("fullchain.pem")); err != nil {
		s.t.Errorf("a moment without: %v", err)
	}
}

// A disk that is full and a limit that is reached leave what was there.
func TestFileSizeLimit(t *testing.T) {
	s := newSetup(t)
	old := s.bundle()
	s.must(s.deploy(old))
	child := startChild(t, childJob{Directory: s.cfg.Directory, Rotations: 1, FileSize: 900})
	out, err := child.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "may not get so large") {
		t.Errorf("%v: %s", err, out)
	}
	s.wantServed(old)
	s.wantTree("chain.pem", "fullchain.pem", "privkey.pem", control, current, folder(old.Fingerprint()))
}
