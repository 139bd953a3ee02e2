package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// fileSet is files by path, as PEM.
type fileSet map[string][]byte

func (s fileSet) facts() []*certs.FileFacts {
	reader := certs.NewReader(nil)
	var facts []*certs.FileFacts
	for path, data := range s {
		facts = append(facts, reader.Parse(path, data))
	}
	return facts
}

// describe is what assembling says, in one line a pair and a problem.
func (s fileSet) describe() string {
	pairs, problems := certs.Assemble(s.facts())
	var lines []string
	for _, p := range pairs {
		lines = append(lines, fmt.Sprintf("%s: %s + %s chain %d %v older %d",
			p.Certificate, p.LeafFile, p.KeyFile, p.ChainLength, p.ChainFiles, len(p.Older)))
	}
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("%s: %s", p.Path, p.Reason))
	}
	return strings.Join(lines, "\n")
}

func keyPEM(t testing.TB, b *certs.Bundle) []byte {
	t.Helper()
	data, err := b.Key.PEM(certs.PKCS8)
	must(t, err)
	return data
}

func TestAssemble(t *testing.T) {
	const name = "shop.example.com"
	one := issueWith(t, certstest.Options{Names: []string{name}, NotBefore: day(1)})
	two := issueWith(t, certstest.Options{Names: []string{name}, NotBefore: day(2)})
	other := issue(t, "other.example.com")
	nameless := issueWith(t, certstest.Options{NoCommonName: true})
	ca := authority()
	key1, key2 := keyPEM(t, one), keyPEM(t, two)
	for _, c := range []struct {
		what  string
		files fileSet
		want  string
	}{
		{"one file", fileSet{"/d/a.pem": append(one.FullChainPEM(), key1...)}, name + ": /d/a.pem + /d/a.pem chain 1 [] older 0"},
		{"whatever they are called", fileSet{"/d/x": one.FullChainPEM(), "/d/y": key1}, name + ": /d/x + /d/y chain 1 [] older 0"},
		{"key elsewhere", fileSet{"/d/certs/a": one.FullChainPEM(), "/d/private/b": key1}, name + ": /d/certs/a + /d/private/b chain 1 [] older 0"},
		{
			"certbot", fileSet{"/l/cert.pem": one.CertificatePEM(), "/l/chain.pem": one.ChainPEM(), "/l/fullchain.pem": one.FullChainPEM(), "/l/privkey.pem": key1},
			name + ": /l/fullchain.pem + /l/privkey.pem chain 1 [] older 0",
		},
		{
			"chain in another file", fileSet{"/d/a.crt": one.CertificatePEM(), "/d/a.key": key1, "/d/ca.pem": ca.IntermediatePEM(), "/a/ca.pem": ca.IntermediatePEM()},
			name + ": /d/a.crt + /d/a.key chain 1 [/d/ca.pem] older 0",
		},
		{
			"chain in another directory", fileSet{"/d/a.crt": one.CertificatePEM(), "/d/a.key": key1, "/b/ca.pem": ca.IntermediatePEM(), "/a/ca.pem": ca.IntermediatePEM()},
			name + ": /d/a.crt + /d/a.key chain 1 [/a/ca.pem] older 0",
		},
		{"root left out", fileSet{"/d/a": append(append(one.FullChainPEM(), ca.RootPEM()...), key1...)}, name + ": /d/a + /d/a chain 1 [] older 0"},
		{
			"chain out of order", fileSet{"/d/a": append(append(append(ca.RootPEM(), ca.IntermediatePEM()...), one.CertificatePEM()...), key1...)},
			name + ": /d/a + /d/a chain 1 [] older 0",
		},
		{
			"newest in force", fileSet{"/d/1.crt": one.FullChainPEM(), "/d/1.key": key1, "/d/2.crt": two.FullChainPEM(), "/d/2.key": key2},
			name + ": /d/2.crt + /d/2.key chain 1 [] older 1",
		},
		{"leaf without key", fileSet{"/d/1.crt": one.FullChainPEM()}, "/d/1.crt: no_key"},
		{"leaf with another key", fileSet{"/d/1.crt": one.FullChainPEM(), "/d/2.key": key2}, "/d/1.crt: key_mismatch"},
		{"another key in another directory", fileSet{"/d/1.crt": one.FullChainPEM(), "/e/2.key": key2}, "/d/1.crt: no_key"},
		{
			"newer leaf without key", fileSet{"/d/1.crt": one.FullChainPEM(), "/d/1.key": key1, "/d/2.crt": two.FullChainPEM()},
			name + ": /d/1.crt + /d/1.key chain 1 [] older 0\n/d/2.crt: no_key",
		},
		{
			"older leaf without key", fileSet{"/d/1.crt": one.FullChainPEM(), "/d/2.key": key2, "/d/2.crt": two.FullChainPEM()},
			name + ": /d/2.crt + /d/2.key chain 1 [] older 0",
		},
		{"CA alone", fileSet{"/d/ca.pem": append(ca.IntermediatePEM(), ca.RootPEM()...)}, ""},
		{"key alone", fileSet{"/d/1.key": key1}, ""},
		{
			"key beside preferred", fileSet{"/d/1.crt": one.FullChainPEM(), "/d/z.key": key1, "/a/1.key": key1},
			name + ": /d/1.crt + /d/z.key chain 1 [] older 0",
		},
		{
			"leaf beside a key preferred", fileSet{"/a/1.crt": one.FullChainPEM(), "/d/1.crt": one.CertificatePEM(), "/d/1.key": key1},
			name + ": /d/1.crt + /d/1.key chain 1 [/a/1.crt] older 0",
		},
		{"no name at all", fileSet{"/d/Thing.crt": nameless.FullChainPEM(), "/d/x.key": keyPEM(t, nameless)}, "thing: /d/Thing.crt + /d/x.key chain 1 [] older 0"},
		{
			"broken file contributes nothing",
			fileSet{"/d/1.crt": one.FullChainPEM()[:len(one.FullChainPEM())-40], "/d/1.key": key1, "/d/o.pem": append(other.FullChainPEM(), keyPEM(t, other)...)},
			"other.example.com: /d/o.pem + /d/o.pem chain 1 [] older 0\n/d/1.crt: truncated",
		},
	} {
		if got := c.files.describe(); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

// TestSelfSigned: what `openssl req -x509` makes is a CA certificate and a leaf.
func TestSelfSigned(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "box.local"}, NotBefore: day(1), NotAfter: day(30),
		BasicConstraintsValid: true, IsCA: true, DNSNames: []string{"box.local"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := certs.NewPrivateKey(key)
	must(t, err)
	written, err := private.PEM(certs.Traditional)
	must(t, err)
	files := fileSet{"/d/a.pem": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), written...)}
	if got, want := files.describe(), "box.local: /d/a.pem + /d/a.pem chain 0 [] older 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	pairs, _ := certs.Assemble(files.facts())
	if !pairs[0].IsCA {
		t.Error("the pair does not say that it is a CA")
	}
}

// material is a small world of bundles that collide in names, keys and issuers.
var material = sync.OnceValue(func() [][]byte {
	second, err := certstest.NewCA("test") // same subjects as authority
	if err != nil {
		panic(err)
	}
	var out [][]byte
	add := func(parts ...[]byte) { out = append(out, slices.Concat(parts...)) }
	for i, ca := range []*certstest.CA{authority(), second} {
		for n := range 3 {
			b, err := ca.Issue(certstest.Options{Names: []string{fmt.Sprintf("n%d.example.com", n%2)}, NotBefore: day(1 + n + i)})
			if err != nil {
				panic(err)
			}
			key, _ := b.Key.PEM(certs.PKCS8)
			add(b.CertificatePEM())
			add(b.FullChainPEM())
			add(key)
			add(b.FullChainPEM(), key)
			renewed, _ := ca.Issue(certstest.Options{Names: []string{"n0.example.com"}, NotBefore: day(9), Key: b.Key.Signer()})
			add(renewed.CertificatePEM())
			add(b.FullChainPEM()[:700])
		}
		add(ca.IntermediatePEM())
		add(ca.RootPEM())
		nameless, _ := ca.Issue(certstest.Options{NoCommonName: true})
		key, _ := nameless.Key.PEM(certs.PKCS8)
		add(nameless.CertificatePEM(), key)
	}
	return out
})

// TestSetEqualsAssemble: however files come, change and go, a Set says what a
// fresh look at the final files says.
func TestSetEqualsAssemble(t *testing.T) {
	contents := material()
	paths := []string{"/a/1", "/a/2", "/a/3.pem", "/b/1", "/b/2", "/b/c/1"}
	rapid.Check(t, func(t *rapid.T) {
		files := make(fileSet)
		set := certs.NewSet()
		reader := certs.NewReader(nil)
		known := make(map[string]certs.Assembly)
		for range rapid.IntRange(1, 25).Draw(t, "operations") {
			path := rapid.SampledFrom(paths).Draw(t, "path")
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				delete(files, path)
				set.Remove(path)
			} else {
				files[path] = rapid.SampledFrom(contents).Draw(t, "content")
				set.Put(reader.Parse(path, files[path]))
			}
			if rapid.Bool().Draw(t, "update") {
				for _, name := range set.Update() {
					known[name] = set.Assembly(name)
				}
			}
		}
		for _, name := range set.Update() {
			known[name] = set.Assembly(name)
		}
		wantPairs, wantProblems := certs.Assemble(files.facts())
		gotPairs := []certs.Pair(nil)
		for _, assembly := range known {
			if assembly.Pair != nil {
				gotPairs = append(gotPairs, *assembly.Pair)
			}
		}
		slices.SortFunc(gotPairs, func(a, b certs.Pair) int { return strings.Compare(a.Certificate, b.Certificate) })
		if !reflect.DeepEqual(gotPairs, wantPairs) {
			t.Fatalf("set says\n%+v\na fresh look says\n%+v", gotPairs, wantPairs)
		}
		gotProblems := set.Problems()
		for _, facts := range files.facts() {
			gotProblems = append(gotProblems, facts.Problems...)
		}
		certs.SortProblems(gotProblems)
		if !slices.Equal(gotProblems, wantProblems) {
			t.Fatalf("set has problems\n%v\na fresh look has\n%v", gotProblems, wantProblems)
		}
	})
}

func TestLoadPair(t *testing.T) {
	directory := t.TempDir()
	b := issue(t, "shop.example.com")
	second, err := certstest.NewCA("test")
	must(t, err)
	write := func(name string, data []byte) {
		must(t, os.WriteFile(filepath.Join(directory, name), data, 0o600))
	}
	write("a.crt", b.CertificatePEM())
	write("a.key", keyPEM(t, b))
	// The first file has an intermediate of the same name whose signature does
	// not verify: the second must be found.
	write("ca1.pem", second.IntermediatePEM())
	write("ca2.pem", b.ChainPEM())
	pair := certs.Pair{
		Certificate: "shop.example.com", Info: new(b.Info()),
		LeafFile: filepath.Join(directory, "a.crt"), KeyFile: filepath.Join(directory, "a.key"),
		ChainFiles: []string{filepath.Join(directory, "ca1.pem"), filepath.Join(directory, "ca2.pem"), filepath.Join(directory, "gone.pem")},
	}
	loaded, err := certs.LoadPair(pair, nil)
	must(t, err)
	if len(loaded.Chain) != 1 || !loaded.Chain[0].Equal(b.Chain[0]) || !loaded.Key.Matches(loaded.Leaf) {
		t.Errorf("loaded %d certificates of chain", len(loaded.Chain))
	}
	must(t, certs.ChainProblem(loaded))
	other := issue(t, "shop.example.com")
	write("a.key", keyPEM(t, other))
	if _, err := certs.LoadPair(pair, nil); err == nil || !strings.Contains(err.Error(), "key_mismatch") {
		t.Errorf("another key: %v", err)
	}
	write("a.crt", other.FullChainPEM())
	if _, err := certs.LoadPair(pair, nil); err == nil || !strings.Contains(err.Error(), "no longer holds certificate") {
		t.Errorf("another leaf: %v", err)
	}
	write("a.crt", other.FullChainPEM()[:300])
	if _, err := certs.LoadPair(pair, nil); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("truncated: %v", err)
	}
}

func tenThousand(b *testing.B) []*certs.FileFacts {
	facts := make([]*certs.FileFacts, 0, 20000)
	reader := certs.NewReader(nil)
	for i := range 10000 {
		name := fmt.Sprintf("host%05d.example.com", i)
		bundle := issue(b, name)
		facts = append(facts, reader.Parse("/d/"+name+".crt", bundle.FullChainPEM()), reader.Parse("/d/"+name+".key", keyPEM(b, bundle)))
	}
	return facts
}

func BenchmarkAssemble10k(b *testing.B) {
	facts := tenThousand(b)
	b.ReportAllocs()
	for b.Loop() {
		if pairs, problems := certs.Assemble(facts); len(pairs) != 10000 || len(problems) != 0 {
			b.Fatal(len(pairs), problems)
		}
	}
}

func BenchmarkOneChangeIn10k(b *testing.B) {
	facts := tenThousand(b)
	set := certs.NewSet()
	for _, f := range facts {
		set.Put(f)
	}
	set.Update()
	for b.Loop() {
		set.Put(facts[4000])
		set.Update()
	}
}
