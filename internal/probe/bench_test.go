package probe

import (
	"crypto/tls"
	"testing"
	"time"
)

// BenchmarkProbe is a proof at one address, chain and all, beside a handshake of crypto/tls.
func BenchmarkProbe(b *testing.B) {
	w := newWorld(b)
	address := serve(b, "127.0.0.1", configFor(w.issueFor("shop.example.com")))
	var probing, shaking time.Duration
	for b.Loop() {
		began := time.Now()
		if p := w.probe(address); p[0].Err != "" {
			b.Fatal(p[0].Err)
		}
		probed := time.Now()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		must(b, err)
		must(b, conn.Close())
		probing += probed.Sub(began)
		shaking += time.Since(probed)
	}
	b.ReportMetric(float64(shaking)/float64(b.N), "handshake-ns/op")
	b.ReportMetric(float64(probing)/float64(shaking), "probe/handshake")
}
