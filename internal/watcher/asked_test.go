package watcher

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// unhurried is a watcher that would not look for an hour, whatever it hears.
func unhurried(root string) Config {
	return Config{Root: root, Recursive: true, Interval: 2 * time.Hour, Quiet: time.Hour, MaxQuiet: time.Hour}
}

func (r *run) is(name string, b *certs.Bundle) {
	r.t.Helper()
	if c, _ := r.Snapshot().Certificate(name); c.Problem != nil || c.Pair.Info == nil || c.Pair.Info.Fingerprint != b.Fingerprint() {
		r.t.Fatalf("%s is not in force: %+v", b.Fingerprint().Short(), c)
	}
}

// localRoot is a directory on a file system of which the kernel tells everything.
func localRoot(t *testing.T) string {
	t.Helper()
	root := scratch(t)
	r := start(t, Config{Root: root, Interval: time.Hour})
	must(t, certstest.WritePair(root, "shop", issue(t, shop, 0)))
	must(t, r.Refresh(t.Context(), "", time.Time{}))
	must(t, r.Refresh(t.Context(), shop, time.Time{}))
	if r.Snapshot().Rescans[Manual] > 1 {
		t.Skip("there is no such file system here")
	}
	return root
}

// TestRefreshByName: what was done to the files of a certificate before it was asked for is
// seen without a look at everything, however it was done.
func TestRefreshByName(t *testing.T) {
	root := localRoot(t)
	other := issue(t, "other.example.com", 1)
	must(t, certstest.WritePair(root, "other", other))
	r := start(t, unhurried(root))
	pair := func(name string) func(*certs.Bundle) {
		return func(b *certs.Bundle) { must(t, certstest.WritePair(root, name, b)) }
	}
	for i, step := range []struct {
		what    string
		replace func(*certs.Bundle)
	}{
		{"renamed", pair("shop")},
		{"again", pair("shop")},
		{"under another name", pair("new")},
		{"in place", func(b *certs.Bundle) {
			write(t, filepath.Join(root, "new.crt"), b.FullChainPEM())
			write(t, filepath.Join(root, "new.key"), keyPEM(t, b))
		}},
		{"into another's file", func(b *certs.Bundle) { // what was no part of it becomes one
			write(t, filepath.Join(root, "notes"), append(b.FullChainPEM(), keyPEM(t, b)...))
		}},
		{"the old is removed", func(b *certs.Bundle) {
			must(t, os.Remove(filepath.Join(root, "shop.crt")))
			must(t, os.Remove(filepath.Join(root, "new.key")))
			pair("a")(b)
		}},
	} {
		b := issue(t, shop, i+1)
		step.replace(b)
		must(t, r.Refresh(t.Context(), shop, time.Time{}))
		r.is(shop, b)
		if n := r.Snapshot().Rescans[Manual]; n != 0 {
			t.Fatalf("%s: %d looks at everything", step.what, n)
		}
	}
	r.is("other.example.com", other)
	// Certificates share a mark, and one who asks later has another.
	answers := make(chan error)
	for range 20 {
		go func() { answers <- r.Refresh(t.Context(), shop, time.Time{}) }()
		go func() { answers <- r.Refresh(t.Context(), "other.example.com", time.Now()) }()
	}
	for range 40 {
		must(t, <-answers)
	}
	if n := r.Snapshot().Rescans[Manual]; n != 0 {
		t.Errorf("%d looks at everything", n)
	}
}

// TestRefreshByNameLooksAtEverything where events alone cannot tell, and sees what is there.
func TestRefreshByNameLooksAtEverything(t *testing.T) {
	elsewhere := scratch(t)
	replace := func(root string, b *certs.Bundle) { must(t, certstest.WritePair(root, "shop", b)) }
	for name, test := range map[string]struct {
		before  func(root string)
		prepare func(*Watcher)
		replace func(root string, b *certs.Bundle)
	}{
		"no event arrives": {prepare: deaf},
		"no watches":       {prepare: faulty(&faultyNotifier{})},
		"through another link": {replace: func(root string, b *certs.Bundle) {
			for file, data := range map[string][]byte{"shop.crt": b.FullChainPEM(), "shop.key": keyPEM(t, b)} {
				link := filepath.Join(elsewhere, file)
				must(t, os.Link(filepath.Join(root, file), link))
				write(t, link, data)
			}
		}},
		"in a new directory": {replace: func(root string, b *certs.Bundle) {
			must(t, os.Mkdir(filepath.Join(root, "new"), 0o700))
			replace(filepath.Join(root, "new"), b)
		}},
		"above the root": {replace: func(root string, b *certs.Bundle) {
			parent := filepath.Dir(root)
			must(t, os.Rename(filepath.Dir(parent), filepath.Dir(parent)+".old"))
			must(t, os.MkdirAll(root, 0o700))
			replace(root, b)
		}},
		"where a link led nowhere": {
			before: func(root string) { must(t, os.Symlink("missing/x.pem", filepath.Join(root, "x.pem"))) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(scratch(t), "a", "b", "root")
			must(t, os.MkdirAll(root, 0o700))
			replace(root, issue(t, shop, 1))
			if test.before != nil {
				test.before(root)
			}
			if test.replace == nil {
				test.replace = replace
			}
			config := unhurried(root)
			config.PollInterval = time.Hour
			r := start(t, config, func(w *Watcher) {
				if test.prepare != nil {
					test.prepare(w)
				}
			})
			b := issue(t, shop, 2)
			test.replace(root, b)
			must(t, r.Refresh(t.Context(), shop, time.Time{}))
			r.is(shop, b)
			if n := r.Snapshot().Rescans[Manual]; n != 1 {
				t.Errorf("%d looks at everything", n)
			}
		})
	}
}

// TestRefreshByNameOfOthers: what is not known, or has a problem, is looked for everywhere.
func TestRefreshByNameOfOthers(t *testing.T) {
	root := localRoot(t)
	r := start(t, unhurried(root))
	must(t, r.Refresh(t.Context(), "unknown.example.com", time.Time{}))
	write(t, filepath.Join(root, "shop.key"), []byte("-----BEGIN"))
	must(t, r.Refresh(t.Context(), shop, time.Time{}))
	if c, _ := r.Snapshot().Certificate(shop); c.Problem == nil {
		t.Error("the broken key was not seen")
	}
	if n := r.Snapshot().Rescans[Manual]; n != 2 {
		t.Errorf("%d looks at everything", n)
	}
}

// TestRefreshByNameEqualsFresh: whatever is done, a watcher that looks only when it is asked for a
// certificate says then what a new one says.
func TestRefreshByNameEqualsFresh(t *testing.T) {
	var looks, refreshes uint64
	rapid.Check(t, func(rt *rapid.T) {
		base := scratch(t)
		root := filepath.Join(base, "root")
		must(t, os.Mkdir(root, 0o755))
		for i, path := range operationPaths {
			operation{path: path, content: []int{4, 16}[i%2]}.do(root) // pairs of both names
		}
		r := start(t, unhurried(root))
		for range rapid.IntRange(1, 12).Draw(rt, "operations") {
			o := drawOperation(rt)
			if o.kind >= 6 && rapid.IntRange(0, 4).Draw(rt, "rare") > 0 { // directories and links
				o.kind -= 6
			}
			o.do(root)
			if rapid.IntRange(0, 2).Draw(rt, "look") > 0 {
				continue
			}
			must(t, r.Refresh(t.Context(), fmt.Sprintf("n%d.example.com", rapid.IntRange(0, 1).Draw(rt, "name")), time.Time{}))
			refreshes++
			fresh, err := Look(r.config)
			must(t, err)
			if got, want := forgetful(r.Snapshot(), fresh), describe(fresh); got != want {
				rt.Fatalf("refreshed:\n%s\nfresh:\n%s", got, want)
			}
		}
		looks += r.Snapshot().Rescans[Manual]
	})
	t.Logf("%d looks at everything for %d refreshes", looks, refreshes)
}

// TestMarks: a mark that arrives ends those before it, and where none arrives no more are set.
func TestMarks(t *testing.T) {
	events, err := fsnotify.NewWatcher()
	must(t, err)
	defer func() { must(t, events.Close()) }()
	var m marks
	waits, other := &subscription{}, &subscription{}
	defer m.close(events)
	for number := range uint64(maxMarks) {
		must(t, m.put(events, waits, number+1))
	}
	if m.put(events, waits, 9) == nil {
		t.Error("one too many")
	}
	must(t, m.put(events, other, 1))
	for range 2 {
		<-events.Events
	}
	second := m.all[1].path
	if s, n := m.reached(events, second); s != waits || n != 2 || len(m.all) != maxMarks-2+1 {
		t.Errorf("reached %d, %d left", n, len(m.all))
	}
	for _, path := range []string{second, "/some/file"} {
		if s, n := m.reached(events, path); s != nil || n != 0 {
			t.Errorf("%s is mark %d", path, n)
		}
	}
}
