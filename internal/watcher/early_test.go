package watcher

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// TestEarlyLook: before a replacement has settled, a new version is taken only when nothing of
// the old one is left and nothing of the new one can be missing.
func TestEarlyLook(t *testing.T) {
	other, err := certstest.NewCA("another")
	must(t, err)
	one, two := issue(t, shop, 1), issue(t, shop, 2)
	foreign, err := other.Issue(certstest.Options{Names: []string{shop}, NotBefore: time.Now()})
	must(t, err)
	sameKey, err := authority().Issue(certstest.Options{Names: []string{shop}, Key: one.Key.Signer(), NotBefore: time.Now()})
	must(t, err)
	file := func(name string, content func(*testing.T, *certs.Bundle) []byte) acmeFile {
		return acmeFile{name, content}
	}
	half := func(t *testing.T, b *certs.Bundle) []byte { data := leafAndChain(t, b); return data[:len(data)-40] }
	full, key, leaf, chain := file("full.pem", leafAndChain), file("key.pem", keyOnly), file("cert.pem", leafOnly), file("chain.pem", chainOnly)
	for name, test := range map[string]struct {
		before []acmeFile
		to     *certs.Bundle
		steps  []acmeFile
		taken  bool // after the last step; never before
	}{
		"key and full chain":              {[]acmeFile{key, full}, two, []acmeFile{key, full}, true},
		"full chain and key":              {[]acmeFile{key, full}, two, []acmeFile{full, key}, true},
		"certbot's four":                  {[]acmeFile{leaf, key, chain, full}, two, []acmeFile{leaf, key, chain, full}, true},
		"certbot's four, another chain":   {[]acmeFile{leaf, key, chain, full}, foreign, []acmeFile{leaf, key, chain, full}, false},
		"the chain may change yet":        {[]acmeFile{leaf, key, chain}, two, []acmeFile{leaf, key}, false},
		"the chain was replaced too":      {[]acmeFile{leaf, key, chain}, two, []acmeFile{leaf, key, chain}, true},
		"another chain":                   {[]acmeFile{key, full}, foreign, []acmeFile{key, full}, false},
		"the old leaf is left in a file":  {[]acmeFile{leaf, key, full}, two, []acmeFile{key, full}, false},
		"the key stays":                   {[]acmeFile{key, full}, sameKey, []acmeFile{full}, false},
		"the chain is not written yet":    {[]acmeFile{key, full}, two, []acmeFile{key, file("full.pem", leafOnly)}, false},
		"half written":                    {[]acmeFile{key, full}, two, []acmeFile{key, file("full.pem", half)}, false},
		"half written, and then the rest": {[]acmeFile{key, full}, two, []acmeFile{key, file("full.pem", half), full}, true},
		"older than what is in force":     {[]acmeFile{key, full}, issue(t, shop, 0), []acmeFile{key, full}, false},
		"the first version":               {nil, two, []acmeFile{key, full}, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range test.before {
				write(t, filepath.Join(root, f.name), f.content(t, one))
			}
			config, err := New(Config{Root: root})
			must(t, err)
			s := newScanner(config.config, config.logger)
			s.rescan(Startup)
			first, _ := s.snapshot(emptySnapshot())
			now := first
			for i, f := range test.steps {
				path := filepath.Join(root, f.name)
				must(t, certs.WriteFileAtomic(path, f.content(t, test.to), 0o600))
				if !s.applyEarly(batch{paths: map[string]bool{path: false}, early: true}) {
					t.Fatal("there was no look")
				}
				certificates, changed := s.judge.early(s, now.certificates)
				early := *now
				early.certificates = certificates
				now = &early
				if want := test.taken && i == len(test.steps)-1; (len(changed) > 0) != want {
					t.Errorf("after %s: changed %v, want %v", f.name, changed, want)
				}
				if c, ok := now.Certificate(shop); ok && c.Problem != nil {
					t.Errorf("after %s: %v", f.name, c.Problem)
				}
			}
			// What has settled is what a look at everything finds, whatever was seen on the way.
			s.apply(batch{paths: paths(root, test.steps)})
			settled, _ := s.snapshot(now)
			fresh, err := Look(Config{Root: root})
			must(t, err)
			a, _ := settled.Certificate(shop)
			b, ok := fresh.Certificate(shop)
			if ok && a.Pair.Info.Fingerprint != b.Pair.Info.Fingerprint {
				t.Errorf("settled at %s, a fresh look finds %s", a.Pair.Info.Fingerprint.Short(), b.Pair.Info.Fingerprint.Short())
			}
			if !ok && len(test.before) > 0 && (a.Pair.Info.Fingerprint != one.Fingerprint() || a.Problem == nil) {
				t.Errorf("broken files, and in force is %s with problem %v", a.Pair.Info.Fingerprint.Short(), a.Problem)
			}
		})
	}
}

func paths(root string, files []acmeFile) map[string]bool {
	all := map[string]bool{}
	for _, f := range files {
		all[filepath.Join(root, f.name)] = false
	}
	return all
}

// TestEarlyBeforeQuiet: a replaced pair is in force long before the quiet time is over, and what
// an early look found wrong is told when it has settled, not before.
func TestEarlyBeforeQuiet(t *testing.T) {
	root := t.TempDir()
	one, two, three := issue(t, shop, 1), issue(t, shop, 2), issue(t, shop, 3)
	must(t, certstest.WritePair(root, "shop", one))
	changes := make(chan Change, 16)
	w, err := New(Config{Root: root, Quiet: time.Hour, MaxQuiet: time.Hour, Interval: 2 * time.Hour, OnChange: func(c Change) { changes <- c }})
	must(t, err)
	w.config.Events.open = func() (source, error) {
		n, err := openSource()
		return withoutNeighbours{n, root, make(chan fsnotify.Event)}.start(t.Context()), err
	}
	looked := make(chan struct{}, 1)
	w.lookedEarly = func() {
		select {
		case looked <- struct{}{}:
		default:
		}
	}
	r := &run{Watcher: w, t: t, looks: looked}
	done := make(chan error, 1)
	go func() { done <- w.Run(t.Context()) }()
	<-w.Ready()
	<-changes
	must(t, certstest.WritePair(root, "shop", two))
	r.serves(shop, two)
	<-changes
	must(t, os.WriteFile(filepath.Join(root, "shop.crt"), []byte("-----BEGIN CERTIFICATE-----\nAA"), 0o600))
	<-looked
	select {
	case c := <-changes:
		t.Errorf("told of what had not settled: %+v, problems %v", c, w.Snapshot().Problems)
	default:
	}
	must(t, certstest.WritePair(root, "shop", three))
	r.serves(shop, three)
}

// withoutNeighbours hides what other tests do in the directories above the root: with a quiet
// time of an hour it adds up to more than is looked at early.
type withoutNeighbours struct {
	source
	root string
	out  chan fsnotify.Event
}

func (n withoutNeighbours) start(ctx context.Context) source {
	go func() {
		defer close(n.out)
		for event := range n.source.events() {
			if !strings.HasPrefix(event.Name, n.root+"/") {
				continue
			}
			select {
			case n.out <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return n
}

func (n withoutNeighbours) events() <-chan fsnotify.Event { return n.out }
