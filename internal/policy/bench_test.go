package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// BenchmarkLoad reads and checks a thousand policies, beside reading and decoding their files.
func BenchmarkLoad(b *testing.B) {
	const n = 1000
	policies := map[string]string{}
	for i := range n {
		name := fmt.Sprintf("p%04d", i)
		policies[name+".yaml"] = fmt.Sprintf(`name: %s
source:
  directory: {path: /etc/ssl/%[1]s}
targets:
  - name: edge
    waf: {hosts: [%[1]s.example.com]}
`, name)
	}
	dir := household(b, plainConfig, policies)
	var loading, decoding time.Duration
	for b.Loop() {
		began := time.Now()
		if set, problem := loadIn(dir); problem != "" || len(set.Policies) != n {
			b.Fatal(problem)
		}
		loaded := time.Now()
		for name := range policies {
			text, err := os.ReadFile(filepath.Join(dir, "policies", name))
			must(b, err)
			var any map[string]any
			must(b, yaml.Unmarshal(text, &any))
		}
		loading += loaded.Sub(began)
		decoding += time.Since(loaded)
	}
	b.ReportMetric(float64(loading)/float64(b.N)/n, "ns/policy")
	b.ReportMetric(float64(loading)/float64(decoding), "load/decode")
}
