package watcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// tree writes n pairs: <name>.crt and <name>.key in one directory, or
// fullchain.pem and privkey.pem in one directory each. Writes are plain: a sync
// for each of 20,000 files would take minutes.
func tree(t testing.TB, n int, flat bool) (root string, bundles []*certs.Bundle) {
	t.Helper()
	root, bundles = scratch(t), make([]*certs.Bundle, n)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range bundles {
		group.Go(func() (err error) {
			bundles[i], err = plantPair(root, fmt.Sprintf("host%06d.example.com", i), flat)
			return err
		})
	}
	must(t, group.Wait())
	return root, bundles
}

func plantPair(root, name string, flat bool) (*certs.Bundle, error) {
	b, err := issueVersion(name, 1)
	if err != nil {
		return nil, err
	}
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		return nil, err
	}
	leafFile, keyFile := filepath.Join(root, name+".crt"), filepath.Join(root, name+".key")
	if !flat {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			return nil, err
		}
		leafFile, keyFile = filepath.Join(root, name, "fullchain.pem"), filepath.Join(root, name, "privkey.pem")
	}
	return b, errors.Join(os.WriteFile(leafFile, b.FullChainPEM(), 0o600), os.WriteFile(keyFile, key, 0o600))
}

// scratch is a temporary directory in memory where there is room for one: on a disk,
// making 20,000 files would take most of the time of these tests.
func scratch(t testing.TB) string {
	t.Helper()
	const memory, enough = "/dev/shm", 512 << 20
	var status unix.Statfs_t
	if unix.Statfs(memory, &status) != nil || status.Bavail*uint64(status.Bsize) < enough {
		return t.TempDir()
	}
	root, err := os.MkdirTemp(memory, "rotatord-watcher-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(root)) })
	return root
}

// age waits until no file is racy any more: the change time cannot be set.
func age() { time.Sleep(racyWindow + 100*time.Millisecond) }

// replace puts a bundle in place by renames, without syncs.
func replace(t testing.TB, leaf, key string, b *certs.Bundle) {
	t.Helper()
	for path, data := range map[string][]byte{key: keyPEM(t, b), leaf: b.FullChainPEM()} {
		temporary := filepath.Join(filepath.Dir(path), ".new")
		write(t, temporary, data)
		must(t, os.Rename(temporary, path))
	}
}

func TestTenThousandPairs(t *testing.T) {
	for flat, n := range map[bool]int{true: 10000, false: 2000} {
		t.Run(fmt.Sprintf("flat=%v", flat), func(t *testing.T) {
			root, bundles := tree(t, n, flat)
			r := start(t, Config{Root: root, Recursive: true})
			if s := r.Snapshot(); s.Len() != len(bundles) || len(s.Problems) > 0 || s.Files != 2*len(bundles) {
				t.Fatalf("%d certificates, %d files, %d problems", s.Len(), s.Files, len(s.Problems))
			}
			for _, b := range []*certs.Bundle{bundles[0], bundles[n/2], bundles[n-1]} {
				name := b.Info().Names[0]
				c := r.serves(name, b)
				next := issue(t, name, 2)
				replace(t, c.Pair.LeafFile, c.Pair.KeyFile, next)
				r.serves(name, next)
			}
			write(t, filepath.Join(root, "broken.pem"), []byte("-----BEGIN CERTIFICATE-----\n"))
			s := r.until("one problem", func(s *Snapshot) bool { return len(s.Problems) == 1 })
			if s.Len() != len(bundles) {
				t.Errorf("%d certificates", s.Len())
			}
		})
	}
}

// TestManyReplacements: a thousand renewals at once, the loop held meanwhile, are
// all seen, and never a key of another version.
func TestManyReplacements(t *testing.T) {
	root, bundles := tree(t, 1000, true)
	hold := make(chan struct{})
	var once sync.Once
	var held func()
	r := start(t, Config{Root: root}, func(w *Watcher) {
		inner := w.looked
		ready := false
		w.looked = func() {
			inner()
			if ready {
				once.Do(func() { <-hold })
			}
			ready = true
		}
		held = func() { close(hold) }
	})
	var last []*certs.Bundle
	for i := range bundles {
		name := bundles[i].Info().Names[0]
		for version := 2; version <= 4; version++ {
			b := issue(t, name, version)
			replace(t, filepath.Join(root, name+".crt"), filepath.Join(root, name+".key"), b)
			if version == 4 {
				last = append(last, b)
			}
		}
	}
	held()
	s := r.until("all at the last version", func(s *Snapshot) bool {
		return !slices.ContainsFunc(last, func(b *certs.Bundle) bool {
			c, _ := s.Certificate(b.Info().Names[0])
			return c.Pair.Info.Fingerprint != b.Fingerprint() || c.Problem != nil
		})
	})
	if s.Coalesced == 0 || s.Events < 6000 {
		t.Errorf("%d events, %d coalesced", s.Events, s.Coalesced)
	}
}

// TestReadersDuringChanges: snapshots may be read, and bundles loaded, while the
// watcher works; what Load returns always fits together.
func TestReadersDuringChanges(t *testing.T) {
	root := t.TempDir()
	must(t, certstest.WritePair(root, "shop", issue(t, shop, 0)))
	r := start(t, Config{Root: root, Quiet: time.Millisecond})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, ok := r.Snapshot().Certificate(shop)
				if !ok {
					t.Error("the certificate is away")
					return
				}
				if b, err := r.Load(shop, c.Pair.Info.Fingerprint); err == nil && !b.Key.Matches(b.Leaf) {
					t.Error("key of another certificate")
				}
			}
		})
	}
	var b *certs.Bundle
	for version := range 50 {
		b = issue(t, shop, version+1)
		must(t, certstest.WritePair(root, "shop", b))
	}
	r.serves(shop, b)
	close(stop)
	readers.Wait()
	seen := r.versions(shop)
	for i, f := range seen {
		if slices.Contains(seen[:i], f) {
			t.Errorf("went back to %s", f.Short())
		}
	}
}

func BenchmarkFirstScan(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		for _, flat := range []bool{true, false} {
			b.Run(fmt.Sprintf("pairs=%d/flat=%v", n, flat), func(b *testing.B) {
				root, _ := tree(b, n, flat)
				b.ResetTimer()
				from := cpuTime(b)
				for b.Loop() {
					w := newScriptedWatcher(b, root)
					if got := w.snapshot().Len(); got != n {
						b.Fatal(got)
					}
					w.close()
				}
				b.StopTimer()
				b.ReportMetric((cpuTime(b)-from).Seconds()*1000/float64(b.N), "cpu-ms/op")
				reportHeap(b, root, n)
			})
		}
	}
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// reportHeap reports what a watcher of n pairs keeps alive.
func reportHeap(b *testing.B, root string, n int) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := newScriptedWatcher(b, root)
	defer w.close()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(n), "heapB/pair")
	runtime.KeepAlive(w)
}

func BenchmarkRescanUnchanged10k(b *testing.B) {
	root, _ := tree(b, 10000, true)
	age()
	w := newScriptedWatcher(b, root)
	defer w.close()
	b.ResetTimer()
	for b.Loop() {
		w.scanner.rescan(Interval)
		w.publish(w.scanner)
	}
}

// BenchmarkOneChangeIn10k is one look after one rename, without the quiet time.
func BenchmarkOneChangeIn10k(b *testing.B) {
	root, bundles := tree(b, 10000, true)
	age()
	w := newScriptedWatcher(b, root)
	defer w.close()
	name := bundles[5000].Info().Names[0]
	leaf, key := filepath.Join(root, name+".crt"), filepath.Join(root, name+".key")
	versions := make([]*certs.Bundle, 2)
	for i := range versions {
		versions[i] = issue(b, name, i+2)
	}
	i := 0
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		i++
		next := versions[i%2]
		replace(b, leaf, key, next)
		var hints batch
		hints.add(hint{path: leaf})
		hints.add(hint{path: key})
		b.StartTimer()
		w.scanner.apply(hints)
		w.publish(w.scanner)
		if c, _ := w.snapshot().Certificate(name); c.Pair.Info.Fingerprint != next.Fingerprint() {
			b.Fatal("not seen")
		}
	}
}

// BenchmarkRenameToSnapshot10k is the whole way: rename, event, quiet time, look.
func BenchmarkRenameToSnapshot10k(b *testing.B) {
	root, bundles := tree(b, 10000, true)
	r := start(b, Config{Root: root})
	name := bundles[5000].Info().Names[0]
	leaf, key := filepath.Join(root, name+".crt"), filepath.Join(root, name+".key")
	var took []time.Duration
	version := 2
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		next := issue(b, name, version)
		version++
		b.StartTimer()
		from := time.Now()
		replace(b, leaf, key, next)
		r.serves(name, next)
		took = append(took, time.Since(from))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// TestTenThousandEvents has a tool write into a directory without a pause, and the kernel tell
// of it as often. It is looked at now and then, and in the end what is there is seen.
func TestTenThousandEvents(t *testing.T) {
	const writes = 5000 // each a file made and one renamed over another
	root := scratch(t)
	versions := []*certs.Bundle{issue(t, shop, 1), issue(t, shop, 2)}
	leaf, key := filepath.Join(root, "shop.crt"), filepath.Join(root, "shop.key")
	replace(t, leaf, key, versions[0])
	var looks atomic.Int64
	r := start(t, Config{Root: root, Quiet: time.Millisecond}, func(w *Watcher) {
		inner := w.looked
		w.looked = func() { inner(); looks.Add(1) }
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range writes / 2 {
		replace(t, leaf, key, versions[i%2])
	}
	last := issue(t, shop, 3)
	replace(t, leaf, key, last)
	r.serves(shop, last)
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := r.Snapshot()
	t.Logf("%d events, %d coalesced, %d looks", s.Events, s.Coalesced, looks.Load())
	if s.Events < 2*writes || looks.Load() > writes/2 || s.Coalesced < uint64(writes) {
		t.Errorf("%d events, %d coalesced, %d looks", s.Events, s.Coalesced, looks.Load())
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
}
