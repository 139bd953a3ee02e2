package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// BenchmarkScrape10k is a scrape of 10,000 assignments with a target and an endpoint
// each, over the real handler.
func BenchmarkScrape10k(b *testing.B) {
	look := Look{Assignments: make([]Assignment, 10_000)}
	for i := range look.Assignments {
		look.Assignments[i] = ordinary(fmt.Sprintf("host%05d.example.com", i))
	}
	handler := handler(New(fixedConfig(func() Look { return look })))
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept-Encoding", encoding)
			size := 0
			for b.Loop() {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if size = w.Body.Len(); w.Code != http.StatusOK || encoding == "gzip" != (w.Header().Get("Content-Encoding") == "gzip") {
					b.Fatal(w.Code, w.Header())
				}
			}
			b.ReportMetric(float64(size), "answer-B")
		})
	}
}

func ordinary(name string) Assignment {
	now := certs.Info{
		Fingerprint: certs.Fingerprint{1}, SerialNumber: "0a1b", SubjectCN: name, IssuerCN: "R11", KeyAlgorithm: "EC256",
		NotBefore: noon, NotAfter: noon.Add(90 * day),
	}
	return Assignment{
		ID: rotation.ID{Policy: "shop", Certificate: name}, Wanted: &now,
		Record: rotation.Record{
			Wanted: now, State: rotation.StateConverged,
			Targets: map[string]rotation.TargetRecord{"edge": {Kind: "waf", Active: new(placed(now, true)), LastSuccessAt: noon}},
			Probes:  []providers.Probe{seen(name+":443", "192.0.2.1:443", now, 20*time.Millisecond)},
		},
	}
}
