package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// BenchmarkScrapeOfADaemon is a scrape over a real connection of a daemon with a directory of
// certificates and a record of each: cpu-ms is what the process used, the asking side in it.
func BenchmarkScrapeOfADaemon(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d, ids := crowded(b, n)
			for _, encoding := range []string{"gzip", "identity"} {
				for _, changed := range []int{0, 1, n} {
					b.Run(fmt.Sprintf("%s/changed=%d", encoding, changed), func(b *testing.B) {
						benchmarkScrapes(b, d, ids[:changed], encoding)
					})
				}
			}
		})
	}
}

func benchmarkScrapes(b *testing.B, d *daemon, changed []rotation.ID, encoding string) {
	scrape := func() int64 {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+d.http.Addr()+"/metrics", nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,*/*;q=0.1")
		r.Header.Set("Accept-Encoding", encoding)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		defer response.Body.Close()
		size, err := io.Copy(io.Discard, response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			b.Fatal(response.Status, err)
		}
		return size
	}
	scrape()
	var size int64
	var used time.Duration
	for b.Loop() {
		for _, id := range changed {
			r := d.records.get(id)
			r.Since = r.Since.Add(time.Second)
			d.records.put(placedID{ID: id}, mirrored{record: r, revision: 1})
		}
		before := processorTime(b)
		size = scrape()
		used += processorTime(b) - before
	}
	b.ReportMetric(float64(used.Microseconds())/1000/float64(b.N), "cpu-ms")
	b.ReportMetric(float64(size), "answer-B")
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowded starts a daemon that watches n certificates and has a record of each.
func crowded(b *testing.B, n int) (*daemon, []rotation.ID) {
	dir := b.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range []string{"policies", "tree"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\n")
	write("policies/watch.yaml", "name: watch\nsource: {directory: {path: ../tree}}\n")
	issueMany(b, filepath.Join(dir, "tree"), n)
	set, err := policy.Load(filepath.Join(dir, "rotatord.yaml"), func(string) string { return "" })
	if err != nil {
		b.Fatal(err)
	}
	d, err := newDaemon(set, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for !d.replayed.Load() {
		time.Sleep(10 * time.Millisecond)
	}
	ids := d.assignments("watch")
	if len(ids) != n {
		b.Fatalf("%d assignments", len(ids))
	}
	for _, id := range ids {
		wanted, _ := d.engine.Wanted(id, rotation.Record{})
		active := rotation.Placed{Fingerprint: wanted.Info.Fingerprint, NotBefore: wanted.Info.NotBefore, NotAfter: wanted.Info.NotAfter}
		r := rotation.Record{
			Wanted: wanted.Info, State: rotation.StateConverged,
			Targets: map[string]rotation.TargetRecord{"edge": {Kind: "waf", Active: &active, LastSuccessAt: d.began}},
			Probes: []providers.Probe{{
				Endpoint: id.Certificate + ":443", Fingerprint: active.Fingerprint, NotBefore: active.NotBefore, NotAfter: active.NotAfter,
			}},
		}
		d.records.put(placedID{ID: id}, mirrored{record: r, revision: 1})
	}
	return d, ids
}

// issueMany makes pairs.
func issueMany(b *testing.B, dir string, n int) {
	ca, err := certstest.NewCA("many")
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("h%d.s%d.example.com", i, i%13)
		bundle, err := ca.Issue(certstest.Options{Names: []string{name}})
		if err != nil {
			b.Fatal(err)
		}
		// Together in one file, and not synced: what counts is what a scrape costs afterwards.
		text, err := bundle.Key.PEM(certs.PKCS8)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".pem"), append(text, bundle.FullChainPEM()...), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
