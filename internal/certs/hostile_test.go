package certs_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// bigNumber is odd and has so many bits.
func bigNumber(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.Add(n, big.NewInt(1))
}

// rsaKey is a private key of that many bits, in form only.
func rsaKey(t testing.TB, bits int) []byte {
	t.Helper()
	half := bigNumber(bits / 2)
	der, err := asn1.Marshal(struct {
		Version           int
		N                 *big.Int
		E                 int
		D, P, Q, X, Y, Qi *big.Int
	}{0, new(big.Int).Mul(half, half), 65537, half, half, half, half, half, half})
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})
}

// oddCertificate issues what no CA should.
func oddCertificate(t testing.TB, change func(*x509.Certificate), public any) []byte {
	t.Helper()
	issuer := issue(t, "issuer.example.com")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "odd.example.com"}, DNSNames: []string{"odd.example.com"},
		NotBefore: day(1), NotAfter: day(20),
	}
	change(template)
	if public == nil {
		public = issuer.Key.Signer().Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Leaf, public, issuer.Key.Signer())
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func hugePublicKey(bits int) *rsa.PublicKey { return &rsa.PublicKey{N: bigNumber(bits), E: 65537} }

// TestOddFiles: whoever may write a watched file cannot keep the daemon busy with it, and what is
// odd is said.
func TestOddFiles(t *testing.T) {
	encrypted := read(t, glob(t, "testdata/encrypted/*.pem")[0])
	names := make([]string, 20_000)
	for i := range names {
		names[i] = fmt.Sprintf("h%d.example.com", i)
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"a key of four million bits":         {rsaKey(t, 4<<20), "unsupported_key: the key has"},
		"a certificate of four million bits": {oddCertificate(t, func(*x509.Certificate) {}, hugePublicKey(4<<20)), "bad_certificate: RSA key longer than 16384 bits"},
		"a thousand encrypted keys":          {bytes.Repeat(encrypted, 1000), "block 9: unsupported_key: more than 8 encrypted keys in one file"},
		"20,000 names":                       {oddCertificate(t, func(c *x509.Certificate) { c.DNSNames = names }, nil), ""},
		"a name with NUL":                    {oddCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"shop.example.com\x00.evil.example"} }, nil), ""},
		"an empty name":                      {oddCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{""} }, nil), ""},
		"a name that is a path":              {oddCertificate(t, func(c *x509.Certificate) { c.DNSNames = []string{"../../etc/passwd"} }, nil), ""},
		"no name at all":                     {oddCertificate(t, func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{}, nil }, nil), ""},
		"from 1 to 9999": {oddCertificate(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Time{}, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
		}, nil), ""},
		"ends before it begins": {oddCertificate(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = day(20), day(1) }, nil), ""},
		"a long serial number":  {oddCertificate(t, func(c *x509.Certificate) { c.SerialNumber = bigNumber(20_000) }, nil), ""},
		"5,000 begins":          {bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 5000), "truncated"},
		"one line":              {bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----"), 30_000), "not_pem"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			facts := certs.NewReader([]byte("wrong")).Parse("/x/y.pem", test.data)
			certs.Assemble([]*certs.FileFacts{facts})
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			var said strings.Builder
			for _, p := range facts.Problems {
				said.WriteString(p.Error() + "\n")
			}
			if test.want == "" && said.String() != "" || !strings.Contains(said.String(), test.want) {
				t.Errorf("%.200s, want %q", said.String(), test.want)
			}
		})
	}
	largest := rsaKey(t, 16384)
	if block, _ := pem.Decode(largest); len(block.Bytes) < 8<<10 {
		t.Errorf("a key of 16384 bits has %d bytes", len(block.Bytes))
	}
	if _, problems := certs.ParsePEM(largest, nil); len(problems) != 1 || problems[0].Reason != certs.BadKey {
		t.Errorf("a key of 16384 bits is not even parsed: %v", problems)
	}
}

// TestOneKeyForAll: thousands of leaves with one key, and thousands of files with that key, cost
// no more than thousands of pairs.
func TestOneKeyForAll(t *testing.T) {
	ca, err := certstest.NewCA("test")
	must(t, err)
	first, err := ca.Issue(certstest.Options{Names: []string{"shop.example.com"}})
	must(t, err)
	n := 2000
	if testing.Short() {
		n = 300
	}
	files := fileSet{}
	for i := range n {
		files[fmt.Sprintf("/d%d/key.pem", i%50)+fmt.Sprint(i)] = keyPEM(t, first)
		template := *first.Leaf
		template.SerialNumber, template.DNSNames = big.NewInt(int64(i+1)), []string{fmt.Sprintf("h%d.example.com", i)}
		der, err := x509.CreateCertificate(rand.Reader, &template, first.Leaf, first.Key.Signer().Public(), first.Key.Signer())
		must(t, err)
		files[fmt.Sprintf("/d%d/leaf.pem", i%50)+fmt.Sprint(i)] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	facts := files.facts()
	began := time.Now()
	pairs, problems := certs.Assemble(facts)
	if len(pairs) != n || len(problems) > 0 {
		t.Errorf("%d pairs of %d, %d problems", len(pairs), n, len(problems))
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

// FuzzDirectory puts blocks into files as the input says, two bytes each: which file, which block.
// Every pair's key is its leaf's and its chain really signed, whatever else lies there, and neither
// the order of the files nor how they came matters.
func FuzzDirectory(f *testing.F) {
	ca, err := certstest.NewCA("test")
	must(f, err)
	var blocks [][]byte
	for i := range 3 {
		b, err := ca.Issue(certstest.Options{Names: []string{[]string{"shop.example.com", "www.example.com"}[i%2]}, NotBefore: day(i + 1)})
		must(f, err)
		key := keyPEM(f, b)
		blocks = append(blocks, b.CertificatePEM(), key, b.ChainPEM())
		if i == 0 {
			blocks = append(blocks, key[:len(key)/2], bytes.ReplaceAll(key, []byte("A"), []byte("B")), append(b.FullChainPEM(), key...))
		}
	}
	other := issue(f, "shop.example.com") // of another CA with the same name
	blocks = append(blocks, other.CertificatePEM(), keyPEM(f, other), other.ChainPEM(), ca.RootPEM(), []byte("no PEM\n"), read(f, glob(f, "testdata/encrypted/*.pem")[0]),
		oddCertificate(f, func(c *x509.Certificate) { c.DNSNames = nil }, nil))
	f.Add([]byte{0, 0, 0, 1, 0, 2})
	f.Add([]byte{0, 0, 1, 1, 2, 2, 3, 6, 4, 7})
	f.Add([]byte{0, 5, 1, 5, 2, 12, 3, 13, 4, 14})
	f.Add([]byte{0, 3, 0, 1, 1, 0, 2, 15, 3, 16, 4, 17, 5, 18})
	f.Add([]byte{0, 0, 1, 6, 2, 9, 3, 1, 3, 7, 3, 10})
	f.Fuzz(func(t *testing.T, data []byte) {
		files := fileSet{}
		for at := range slices.Chunk(data[:min(len(data), 60)], 2) {
			if len(at) == 2 {
				path := fmt.Sprintf("/d%d/%d.pem", at[0]%3, at[0]%7)
				files[path] = append(files[path], blocks[int(at[1])%len(blocks)]...)
			}
		}
		facts := files.facts()
		pairs, problems := certs.Assemble(facts)
		slices.Reverse(facts)
		if again, others := certs.Assemble(facts); !reflect.DeepEqual(pairs, again) || !reflect.DeepEqual(problems, others) {
			t.Errorf("the order matters:\n%v %v\n%v %v", pairs, problems, again, others)
		}
		set := certs.NewSet()
		for _, file := range facts {
			set.Put(file)
			set.Update()
		}
		for _, p := range problems {
			if strings.Contains(p.Error(), "-----") || len(p.Error()) > 500 {
				t.Errorf("a problem quotes: %s", p.Error())
			}
		}
		dir := t.TempDir()
		for path, data := range files {
			must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, path), data, 0o600))
		}
		for _, pair := range pairs {
			if one := set.Assembly(pair.Certificate).Pair; one == nil || !reflect.DeepEqual(*one, pair) {
				t.Errorf("one after the other they make %+v, at once %+v", one, pair)
			}
			pair.LeafFile, pair.KeyFile = filepath.Join(dir, pair.LeafFile), filepath.Join(dir, pair.KeyFile)
			for i := range pair.ChainFiles {
				pair.ChainFiles[i] = filepath.Join(dir, pair.ChainFiles[i])
			}
			b, err := certs.LoadPair(pair, nil)
			if err != nil {
				t.Errorf("%s cannot be loaded: %v", pair.Certificate, err)
				continue
			}
			if !b.Key.Matches(b.Leaf) || certs.FingerprintOf(b.Leaf) != pair.Info.Fingerprint || len(b.Chain) > pair.ChainLength {
				t.Errorf("%s is not what was promised", pair.Certificate)
			}
			if err := certs.ChainProblem(b); err != nil {
				t.Errorf("%s: %v", pair.Certificate, err)
			}
		}
	})
}

// FuzzEncryptedKey: whatever is in an encrypted key, opening it ends, and no error quotes it.
func FuzzEncryptedKey(f *testing.F) {
	for _, path := range glob(f, "testdata/encrypted/*.pem") {
		for rest := read(f, path); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			f.Add(block.Bytes, block.Headers["DEK-Info"], "password")
		}
	}
	f.Fuzz(func(t *testing.T, der []byte, dek, password string) {
		if i := bytes.Index(der, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c}); i >= 0 && bytes.Contains(der[i:], []byte{2, 3}) {
			t.Skip("counts of a million and more take seconds, and are allowed")
		}
		data := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
		if dek != "" && !strings.ContainsAny(dek, "\n\r") {
			data = append(data, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": dek}, Bytes: der})...)
		}
		contents, problems := certs.ParsePEM(data, []byte(password))
		for _, k := range contents.Keys {
			if k.Key.IsZero() || k.Key.Signer() == nil {
				t.Error("a key without a key")
			}
		}
		for _, p := range problems {
			if len(password) > 8 && strings.Contains(p.Error(), password) || len(p.Error()) > 200 {
				t.Errorf("the problem is %s", p.Error())
			}
		}
	})
}
