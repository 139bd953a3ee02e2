package certs_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
)

// BenchmarkSharedKey is a set in which all leaves share one key, as where a key is kept over
// renewals, or made once for a whole platform: filled, assembled, one file replaced, emptied.
func BenchmarkSharedKey(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			files := sharedKey(n)
			b.ReportAllocs()
			for b.Loop() {
				set := certs.NewSet()
				for _, f := range files {
					set.Put(f)
				}
				if got := len(set.Update()); got != n {
					b.Fatal(got)
				}
				set.Put(files[n/2])
				set.Update()
				for _, f := range files {
					set.Remove(f.Path)
				}
				set.Update()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/leaf")
		})
	}
}

// TestSharedKeyAnyOrder: with many leaves of one key, of which files come and go, what the set says
// is what it would say of the files that are there, had it just been filled.
func TestSharedKeyAnyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	files := sharedKey(80)
	for i, f := range files { // some together in a directory, some with the key of another name
		f.Path = fmt.Sprintf("/live/%02d/%03d.%s", i*7%29, i/2, []string{"crt", "key"}[i%2])
		switch {
		case i%20 == 0:
			f.Keys = []certs.KeyAt{{PublicKey: certs.Hash{1}, Block: 2}}
		case i%6 == 4: // the same leaf is elsewhere too
			f.Certificates = files[i-4].Certificates
		}
	}
	set, there := certs.NewSet(), map[string]*certs.FileFacts{}
	pairs := map[string]*certs.Pair{}
	for range 400 {
		for range 1 + random.IntN(4) {
			f := files[random.IntN(len(files))]
			if there[f.Path] == nil {
				set.Put(f)
				there[f.Path] = f
			} else if random.IntN(3) > 0 {
				set.Remove(f.Path)
				delete(there, f.Path)
			}
		}
		for _, name := range set.Update() {
			if pairs[name] = set.Assembly(name).Pair; pairs[name] == nil {
				delete(pairs, name)
			}
		}
		var all []*certs.FileFacts
		for _, f := range files {
			if there[f.Path] == f {
				all = append(all, f)
			}
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		want, _ := certs.Assemble(all)
		var got []certs.Pair
		for _, pair := range pairs {
			got = append(got, *pair)
		}
		slices.SortFunc(got, func(a, b certs.Pair) int { return strings.Compare(a.Certificate, b.Certificate) })
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%d files: %d pairs %+v\nwant %d %+v", len(all), len(got), got, len(want), want)
		}
	}
}

// sharedKey are the facts of n leaves in files of their own, each with the same key beside it.
func sharedKey(n int) []*certs.FileFacts {
	key := certs.Hash{1}
	var files []*certs.FileFacts
	for i := range n {
		leaf := &certs.CertificateFacts{Name: fmt.Sprintf("host%06d.example.com", i), PublicKey: key}
		leaf.Info.Fingerprint = certs.Fingerprint{byte(i), byte(i >> 8), byte(i >> 16)}
		directory := fmt.Sprintf("/live/%06d/", i)
		files = append(files,
			&certs.FileFacts{Path: directory + "fullchain.pem", Certificates: []certs.CertificateAt{{CertificateFacts: leaf, Block: 1}}},
			&certs.FileFacts{Path: directory + "privkey.pem", Keys: []certs.KeyAt{{PublicKey: key, Block: 1}}})
	}
	return files
}
