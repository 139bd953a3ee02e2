package watcher

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// contents are files that collide in names, keys and versions, and broken ones.
var contents = sync.OnceValue(func() [][]byte {
	var all [][]byte
	for i := range 4 {
		b, err := authority().Issue(certstest.Options{
			Names: []string{fmt.Sprintf("n%d.example.com", i%2)}, NotBefore: time.Now().Add(time.Duration(i-9) * time.Hour),
		})
		if err != nil {
			panic(err)
		}
		key, _ := b.Key.PEM(certs.PKCS8)
		all = append(all, b.CertificatePEM(), b.FullChainPEM(), key, key, slices.Concat(key, b.FullChainPEM()), b.FullChainPEM()[:800])
	}
	return append(all, authority().IntermediatePEM(), []byte("hello"))
})

// operation is one change of the file system below root.
type operation struct {
	kind     int
	path, to string
	content  int
}

var operationPaths = []string{"a.pem", "b.pem", "c", "d1/a.pem", "d1/b.pem", "d1/s/a.pem", "d2/a.pem", "d2/c", "l1", "d1/l2", "../x/a.pem", "../x/b.pem"}

func drawOperation(t *rapid.T) operation {
	return operation{
		kind:    rapid.IntRange(0, 9).Draw(t, "kind"),
		path:    rapid.SampledFrom(operationPaths).Draw(t, "path"),
		to:      rapid.SampledFrom(append([]string{".", "d1", "d2", "../x", "d1/s"}, operationPaths...)).Draw(t, "to"),
		content: rapid.IntRange(0, len(contents())-1).Draw(t, "content"),
	}
}

// do performs the operation; what cannot be done is left undone.
func (o operation) do(root string) {
	path, to := filepath.Join(root, o.path), filepath.Join(root, o.to)
	data := contents()[o.content]
	switch o.kind {
	case 0, 1, 2, 3:
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, data, 0o600)
	case 4:
		os.MkdirAll(filepath.Dir(path), 0o755)
		certs.WriteFileAtomic(path, data, 0o600)
	case 5:
		os.Remove(path)
	case 6:
		os.RemoveAll(filepath.Dir(path))
		os.MkdirAll(root, 0o755)
	case 7:
		os.MkdirAll(filepath.Dir(to), 0o755)
		os.Rename(path, to)
	case 8: // move a whole directory
		os.Rename(filepath.Dir(path), filepath.Join(root, []string{"d0", "d3"}[o.content%2]))
		os.MkdirAll(root, 0o755)
	case 9:
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.Symlink(to, path)
	}
}

// describe is all of a snapshot that does not depend on what was before.
func describe(s *Snapshot) string {
	var out strings.Builder
	for _, name := range s.Names() {
		c, _ := s.Certificate(name)
		fmt.Fprintf(&out, "%s %s %s %s %v older %d\n", name, c.Pair.Info.Fingerprint.Short(), c.Pair.LeafFile, c.Pair.KeyFile, c.Pair.ChainFiles, c.Older)
	}
	for _, p := range s.Problems {
		fmt.Fprintln(&out, p.Error())
	}
	fmt.Fprintln(&out, s.Directories, s.Files, s.Up)
	return out.String()
}

// forgetful describes a snapshot without what only memory keeps alive.
func forgetful(s, fresh *Snapshot) string {
	copied := *s
	copied.certificates = make(map[string]*Certificate)
	for name, c := range s.certificates {
		now, ok := fresh.certificates[name]
		switch {
		case c.Problem == nil:
			copied.certificates[name] = c
		case ok: // kept, or the same; either way not older than what is there
			if now.Pair.Info.NewerThan(*c.Pair.Info) {
				copied.certificates[name] = c
			} else {
				copied.certificates[name] = now
			}
		}
	}
	copied.Problems = slices.DeleteFunc(slices.Clone(s.Problems), func(p certs.Problem) bool { return p.Reason == certs.NoCertificate })
	return describe(&copied)
}

// TestIncrementalEqualsFresh: after any sequence of changes, seen through events
// in any grouping, the watcher says what a new one says that has just scanned.
func TestIncrementalEqualsFresh(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "")
		must(t, err)
		root := filepath.Join(base, "root")
		must(t, os.Mkdir(root, 0o755))
		w := newScriptedWatcher(t, root)
		defer w.close()
		for range rapid.IntRange(1, 12).Draw(rt, "operations") {
			drawOperation(rt).do(root)
			if rapid.IntRange(0, 2).Draw(rt, "look") == 0 {
				w.catchUp()
			}
		}
		w.catchUp()
		fresh := newScriptedWatcher(t, root)
		defer fresh.close()
		got, want := forgetful(w.snapshot(), fresh.snapshot()), describe(fresh.snapshot())
		if got != want {
			rt.Fatalf("incremental:\n%s\nfresh:\n%s", got, want)
		}
		w.scanner.rescan(Manual)
		w.publish(w.scanner)
		if again := forgetful(w.snapshot(), fresh.snapshot()); again != want {
			rt.Fatalf("after a rescan:\n%s\nfresh:\n%s", again, want)
		}
	})
}

// scriptedWatcher is a watcher whose loop is the test.
type scriptedWatcher struct {
	*Watcher
	t       testing.TB
	scanner *scanner
	probes  int
}

func newScriptedWatcher(t testing.TB, root string) *scriptedWatcher {
	t.Helper()
	w, err := New(Config{Root: root, Recursive: true})
	must(t, err)
	s := newScanner(w.config, w.logger)
	s.subscribe(t.Context())
	s.rescan(Startup)
	w.publish(s)
	return &scriptedWatcher{Watcher: w, t: t, scanner: s}
}

func (w *scriptedWatcher) close()              { w.scanner.close() }
func (w *scriptedWatcher) snapshot() *Snapshot { return w.Watcher.Snapshot() }

// catchUp takes all events that were queued before it and looks. The kernel
// keeps their order, so an event of our own, seen, means that all came.
func (w *scriptedWatcher) catchUp() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// A watch that a look adds sees changes after it only, and the look itself
	// the rest: one more round has nothing left to say.
	for range 2 {
		w.probes++
		probe := filepath.Join(filepath.Dir(w.config.Root), fmt.Sprintf("probe%d", w.probes))
		must(w.t, os.WriteFile(probe, nil, 0o600))
		must(w.t, os.Remove(probe))
		var b batch
		for done := false; !done; {
			select {
			case h := <-w.scanner.notifier.hints:
				if h.lost {
					w.t.Fatal("events were lost")
				}
				b.add(h)
				done = h.path == probe && h.gone
			case <-ctx.Done():
				w.t.Fatal("no event")
			}
		}
		w.scanner.apply(b)
		w.publish(w.scanner)
	}
}

// TestRacyFile: a file that changes again with the same size and times is read
// again.
func TestRacyFile(t *testing.T) {
	root := t.TempDir()
	one := issue(t, shop, 1)
	pem := slices.Concat(one.FullChainPEM(), keyPEM(t, one))
	path := filepath.Join(root, "shop.pem")
	write(t, path, bytes.Repeat([]byte("x"), len(pem)))
	w := newScriptedWatcher(t, root)
	defer w.close()
	d := w.scanner.directories[root]
	if len(d.files) != 1 || !d.files[0].racy {
		t.Fatal("a file of just now is not racy")
	}
	write(t, path, pem)
	// As if the clock had not ticked between the two.
	d.files[0].id = statusAt(unix.AT_FDCWD, path).identity
	w.scanner.rescan(Manual)
	w.publish(w.scanner)
	if _, ok := w.snapshot().Certificate(shop); !ok {
		t.Error("the second content was not seen")
	}
	st := statusAt(unix.AT_FDCWD, path)
	if st.racy(time.Now().Add(time.Hour)) {
		t.Error("racy for ever")
	}
}
