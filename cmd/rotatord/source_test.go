package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// Who is served where is worked out again when names change, and only then: of ten thousand certificates one is
// renewed every few minutes.
func TestOwnersChangeWithNamesOnly(t *testing.T) {
	ca, err := certstest.NewCA("source test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(file string, names ...string) {
		t.Helper()
		b, err := ca.Issue(certstest.Options{Names: names})
		if err != nil {
			t.Fatal(err)
		}
		key, err := b.Key.PEM(certs.Traditional)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{file + ".crt": b.FullChainPEM(), file + ".key": key} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("a", "a.example.com")
	put("b", "b.example.com", "www.example.com")
	w, err := watcher.New(watcher.Config{Name: "p", Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	defer func() { stop(); <-ended }()
	source := newDirectorySource(&policy.Policy{Source: policy.Source{Directory: &policy.Directory{Path: dir}}}, w)
	owners := func() *rotation.Owners {
		t.Helper()
		if err := w.Refresh(t.Context(), "", time.Time{}); err != nil {
			t.Fatal(err)
		}
		return source.Owners()
	}
	before, listed := owners(), source.names()
	put("a", "a.example.com")
	renewed := owners()
	if renewed != before {
		t.Error("a renewal changed who is served where")
	}
	if got := source.names(); &got[0] != &listed[0] {
		t.Error("a renewal changed the list of names")
	}
	put("b", "b.example.com", "shop.example.com")
	renamed := owners()
	if _, stays := renamed.Of("www.example.com"); stays || renamed == renewed {
		t.Error("a name that a certificate lost is served with it still")
	}
	put("c", "www.example.com")
	added := owners()
	if got := source.names(); !slices.Equal(got, []string{"a.example.com", "b.example.com", "www.example.com"}) {
		t.Errorf("names %q", got)
	}
	if owner, _ := added.Of("www.example.com"); owner != "www.example.com" {
		t.Errorf("www.example.com belongs to %q, not to the certificate that was added", owner)
	}
	for _, name := range []string{"c.crt", "c.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, stays := owners().Of("www.example.com"); stays {
		t.Error("a certificate that is gone has an endpoint")
	}
	if source.has("www.example.com") || len(source.names()) != 2 {
		t.Errorf("names %q after one has gone", source.names())
	}
}
