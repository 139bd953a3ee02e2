package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/rotation"
)

// shownAsNew waits until what is shown is what would be worked out from nothing, and good.
func (r *rig) shownAsNew(d *daemon, what string, good func(shown map[string]*metrics.Assignment) bool) map[string]*metrics.Assignment {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for range time.Tick(10 * time.Millisecond) {
		shown := map[string]*metrics.Assignment{}
		for _, a := range d.shown() {
			shown[a.ID.Policy+"/"+a.ID.Certificate] = a
		}
		var anew []*metrics.Assignment
		for _, p := range d.inForce().set.Policies {
			is := &gaugesOf{generation: d.inForce(), at: time.Now()}
			d.gather(p, is, &gaugesOf{})
			anew = append(anew, is.list...)
		}
		same := len(anew) == len(shown) && !slices.ContainsFunc(anew, func(a *metrics.Assignment) bool {
			old := shown[a.ID.Policy+"/"+a.ID.Certificate]
			return old == nil || !sameGauge(old, a)
		})
		if same && good(shown) {
			return shown
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: as new: %v; shown: %+v", what, same, shown)
		}
	}
	return nil
}

// TestGaugesFollow: what the metrics show of assignments is kept, and follows records,
// directories, policies and the time.
func TestGaugesFollow(t *testing.T) {
	t.Parallel()
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	r.write("policies/watch.yaml", "name: watch\nsource: {directory: {path: ../watch}}\n")
	shop := r.issue("shop", "shop.example.com")
	lasting, err := r.ca.Issue(certstest.Options{Names: []string{"lasting.example.com"}})
	must(t, err)
	r.put("watch", lasting)
	d := r.start()
	r.recorded(shop)
	const state = rotation.StateConverged
	before := r.shownAsNew(d, "all at rest", func(shown map[string]*metrics.Assignment) bool {
		return len(shown) == 2 && shown["shop/shop.example.com"].State == state && shown["watch/lasting.example.com"].State == state
	})
	eventually(t, "a list that stays while nothing changes", func() bool {
		a, b := d.shown(), d.shown()
		return &a[0] == &b[0]
	})

	ends := time.Now().Add(3 * time.Second)
	short, err := r.ca.Issue(certstest.Options{Names: []string{"short.example.com"}, NotBefore: ends.Add(-time.Hour), NotAfter: ends})
	must(t, err)
	r.put("watch", short)
	r.shownAsNew(d, "the one that came", func(shown map[string]*metrics.Assignment) bool {
		a := shown["watch/short.example.com"]
		return a != nil && a.Wanted.Fingerprint == short.Fingerprint() && shown["watch/lasting.example.com"] == before["watch/lasting.example.com"]
	})
	r.shownAsNew(d, "the one that expired", func(shown map[string]*metrics.Assignment) bool {
		return shown["watch/short.example.com"].State == rotation.StateExpired && shown["watch/lasting.example.com"] == before["watch/lasting.example.com"]
	})

	shop = r.issue("shop", "shop.example.com")
	r.recorded(shop)
	r.shownAsNew(d, "the one that was rotated", func(shown map[string]*metrics.Assignment) bool {
		a := shown["shop/shop.example.com"]
		return a.Wanted.Fingerprint == shop.Fingerprint() && a.State == state && a.Record.Verified == shop.Fingerprint()
	})
	at := placedID{ID: rotation.ID{Policy: "shop", Certificate: "shop.example.com"}}
	record := d.records.get(at.ID)
	record.State = rotation.StateFailed
	d.records.put(at, mirrored{record: record, revision: math.MaxUint64})
	r.shownAsNew(d, "the record that another daemon wrote", func(shown map[string]*metrics.Assignment) bool {
		return shown["shop/shop.example.com"].State == rotation.StateFailed && shown["watch/lasting.example.com"] == before["watch/lasting.example.com"]
	})
	must(t, os.RemoveAll(filepath.Join(r.dir, "watch")))
	must(t, os.MkdirAll(filepath.Join(r.dir, "watch"), 0o700))
	r.shownAsNew(d, "what went", func(shown map[string]*metrics.Assignment) bool { return len(shown) == 1 })
	must(t, os.Remove(r.path("policies/watch.yaml")))
	r.policy("blog", "blog.example.com", "")
	blog := r.issue("blog", "blog.example.com")
	r.says(0, []string{"reload"}, "added: blog", "removed: watch")
	r.recorded(blog)
	r.shownAsNew(d, "the policy that came", func(shown map[string]*metrics.Assignment) bool {
		return len(shown) == 2 && shown["blog/blog.example.com"].Wanted.Fingerprint == blog.Fingerprint()
	})
}
