package cloudsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestIndexesAgree: whatever was made, bound, renamed and deleted, a search by name and the hosts of a
// certificate are what looking through everything finds.
func TestIndexesAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p := newPair("shop.example.com")
	m, err := parseMaterial(p.chain, p.key, true)
	if err != nil {
		t.Fatal(err)
	}
	w := emptyWAF()
	for i := range 20 {
		w.hosts = append(w.hosts, &wafHost{id: fmt.Sprint("h", i), place: i})
	}
	made := 0
	for range 2000 {
		switch n := random.IntN(4); {
		case n == 0 || len(w.certs) == 0:
			made++
			w.add(&wafCertificate{id: fmt.Sprint("c", made), name: strings.Repeat("n", random.IntN(3)+1) + fmt.Sprint(made%10), material: m})
		case n == 1:
			if at := random.IntN(len(w.certs)); len(w.boundHosts(w.certs[at])) == 0 {
				w.remove(at)
			}
		case n == 2:
			w.certs[random.IntN(len(w.certs))].name = fmt.Sprint("renamed", random.IntN(10))
			w.gatherNames()
		default:
			w.bind(w.hosts[random.IntN(len(w.hosts))], w.certs[random.IntN(len(w.certs))], time.Time{})
		}
		text := []string{"n", "nn1", "med3", "7", "no such"}[random.IntN(5)]
		plain := slices.DeleteFunc(slices.Clone(w.certs), func(c *wafCertificate) bool { return !strings.Contains(c.name, text) })
		if got := w.named(text); !slices.Equal(got, plain) {
			t.Fatalf("%d certificates have %q in their names, want %d", len(got), text, len(plain))
		}
		for _, cert := range w.certs {
			of := slices.DeleteFunc(slices.Clone(w.hosts), func(h *wafHost) bool { return h.certificateID() != cert.id })
			if got := w.boundHosts(cert); !slices.Equal(got, of) {
				t.Fatalf("%d hosts use %s, want %d", len(got), cert.id, len(of))
			}
		}
	}
}
