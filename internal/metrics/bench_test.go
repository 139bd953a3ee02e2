package metrics

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// BenchmarkScrape is a scrape of assignments with a target and an endpoint each, over the
// real handler, in the format that Prometheus asks for, after nothing, one and all changed.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		for _, encoding := range []string{"gzip", "identity"} {
			for _, changed := range []string{"nothing", "one", "all"} {
				b.Run(fmt.Sprintf("%d/%s/%s", n, encoding, changed), func(b *testing.B) { benchmarkScrape(b, n, encoding, changed) })
			}
		}
	}
}

func benchmarkScrape(b *testing.B, n int, encoding, changed string) {
	b.ReportAllocs()
	list := make([]*Assignment, n)
	for i := range list {
		list[i] = ordinary(fmt.Sprintf("host%06d.example.com", i))
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	handler := handler(New(fixedConfig(func() world { return world{Assignments: list} })))
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept-Encoding", encoding)
	r.Header.Set("Accept", prometheus2)
	series := seriesOf(handler, r)
	var size, round int
	for b.Loop() {
		switch round++; changed {
		case "one":
			list = slices.Clone(list)
			list[round*7919%n] = new(*list[round*7919%n])
		case "all":
			list = slices.Clone(list)
			for i := range list {
				list[i] = new(*list[i])
			}
		}
		w := &counting{header: http.Header{}}
		handler.ServeHTTP(w, r)
		if size = w.size; size == 0 || encoding == "gzip" != (w.header.Get("Content-Encoding") == "gzip") {
			b.Fatal(w.header)
		}
	}
	b.ReportMetric(float64(size), "answer-B")
	b.ReportMetric(float64(size)/float64(series), "B/series")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(max(0, float64(after.HeapAlloc)-float64(before.HeapAlloc))/(1<<20), "kept-MiB")
	runtime.KeepAlive(handler)
}

// seriesOf scrapes once, and counts.
func seriesOf(h http.Handler, r *http.Request) int {
	plain := r.Clone(r.Context())
	plain.Header.Del("Accept-Encoding")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, plain)
	text := w.Body.String()
	return strings.Count(text, "\n") - strings.Count(text, "\n#")
}

// counting is a client that only counts.
type counting struct {
	header http.Header
	size   int
}

func (c *counting) Header() http.Header { return c.header }
func (c *counting) WriteHeader(int)     {}
func (c *counting) Write(p []byte) (int, error) {
	c.size += len(p)
	return len(p), nil
}

func ordinary(name string) *Assignment {
	fingerprint := sha256.Sum256([]byte(name))
	now := certs.Info{
		Fingerprint: fingerprint, SerialNumber: hex.EncodeToString(fingerprint[:18]), SubjectCN: name, IssuerCN: "R11", KeyAlgorithm: "EC256",
		NotBefore: noon, NotAfter: noon.Add(90 * day),
	}
	return &Assignment{
		ID: rotation.ID{Policy: "shop", Certificate: name}, Wanted: &now, State: rotation.StateConverged,
		Record: &rotation.Record{
			Wanted:  now,
			Targets: map[string]rotation.TargetRecord{"edge": {Kind: "waf", Active: new(placed(now, true)), LastSuccessAt: noon}},
			Probes:  []providers.Probe{seen(name+":443", "192.0.2.1:443", now, 20*time.Millisecond)},
		},
	}
}
