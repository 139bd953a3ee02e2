package certs_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

var authority = sync.OnceValue(func() *certstest.CA {
	ca, err := certstest.NewCA("test")
	if err != nil {
		panic(err)
	}
	return ca
})

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func issue(t testing.TB, names ...string) *certs.Bundle {
	t.Helper()
	return issueWith(t, certstest.Options{Names: names})
}

func issueWith(t testing.TB, options certstest.Options) *certs.Bundle {
	t.Helper()
	b, err := authority().Issue(options)
	must(t, err)
	return b
}

// TestKeysPrintNothing prints a key in every way that the standard library
// offers and looks for its bytes.
func TestKeysPrintNothing(t *testing.T) {
	type open struct{ Key certs.PrivateKey }
	type closed struct{ key certs.PrivateKey }
	for _, kind := range []certstest.KeyType{certstest.EC256, certstest.RSA2048, certstest.Ed25519} {
		b := issueWith(t, certstest.Options{Names: []string{"x.example.com"}, KeyType: kind})
		values := []any{b.Key, &b.Key, open{b.Key}, &open{b.Key}, closed{b.Key}, []certs.PrivateKey{b.Key}, map[string]any{"k": b.Key}}
		var out bytes.Buffer
		for _, value := range values {
			for _, verb := range "vsdqxXobcUeEfFgGtTpw" {
				for _, flags := range []string{"", "+", "#", " ", "0", "-", "10.3"} {
					fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", value)
				}
			}
			json.NewEncoder(&out).Encode(value)
			for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
				slog.New(handler).Info("message", "key", value)
			}
		}
		text, err := b.Key.MarshalText()
		must(t, err)
		out.Write(text)
		if !strings.Contains(out.String(), "[redacted]") {
			t.Error("nothing was redacted")
		}
		refuseSecrets(t, b.Key, out.String())
	}
}

// refuseSecrets looks for any stretch of the key's PKCS #8 encoding beyond its
// header, in the usual spellings.
func refuseSecrets(t *testing.T, key certs.PrivateKey, text string) {
	t.Helper()
	written, err := key.PEM(certs.PKCS8)
	must(t, err)
	block, _ := pem.Decode(written)
	for from := 32; from+8 <= len(block.Bytes) && from < 200; from++ {
		part := block.Bytes[from : from+8]
		for _, spelling := range []string{
			string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
			strings.Trim(fmt.Sprint(part), "[]"), strings.TrimRight(base64.StdEncoding.EncodeToString(part[:6]), "="),
		} {
			if strings.Contains(text, spelling) {
				at := strings.Index(text, spelling)
				t.Fatalf("bytes %d-%d of the key were printed: %.60q", from, from+8, text[max(0, at-30):])
			}
		}
	}
}

func TestZeroPrivateKey(t *testing.T) {
	var key certs.PrivateKey
	if !key.IsZero() || key.Public() != nil || key.Signer() != nil || fmt.Sprint(key) != "[none]" {
		t.Errorf("zero key: %v", key)
	}
	if _, err := key.PEM(certs.PKCS8); err == nil {
		t.Error("no key was encoded")
	}
	if _, err := certs.NewPrivateKey(nil); err == nil {
		t.Error("nil was taken as a key")
	}
}

func TestCovers(t *testing.T) {
	info := certs.Info{Names: []string{"*.example.com", "example.com", "sub.other.org", "10.0.0.7", "2001:db8::1", "a@example.net", "spiffe://x/y"}}
	for host, want := range map[string]bool{
		"example.com": true, "EXAMPLE.com.": true, "www.example.com": true, "a.b.example.com": false,
		"*.example.com": true, "*.www.example.com": false, "*.com": false, "*.other.org": false, "sub.other.org": true,
		"x.sub.other.org": false, ".example.com": false, "": false, ".": false, "10.0.0.7": true, "10.0.0.8": false,
		"[2001:db8::1]": true, "2001:0db8:0::1": true, "a@example.net": false, "spiffe://x/y": false, "com": false,
	} {
		if got := info.Covers(host); got != want {
			t.Errorf("Covers(%q) = %v", host, got)
		}
	}
	b := issue(t, "*.Example.com")
	if !b.CoversHost("www.example.com") || b.CoversHost("example.com") {
		t.Error("CoversHost differs")
	}
}

func TestInfo(t *testing.T) {
	b := issueWith(t, certstest.Options{
		Names:      []string{"b.example.com", "A.example.com", "10.0.0.2", "a@example.net", "spiffe://x/y", "a.example.com"},
		CommonName: "Shop", KeyType: certstest.EC384,
	})
	info := b.Info()
	if got := fmt.Sprint(info.Names); got != "[a.example.com b.example.com 10.0.0.2 a@example.net spiffe://x/y]" {
		t.Errorf("names %s", got)
	}
	if info.KeyAlgorithm != "EC384" || info.SubjectCN != "Shop" || info.IssuerCN != "test intermediate" || info.SerialNumber == "" {
		t.Errorf("%+v", info)
	}
}

func TestPrimaryName(t *testing.T) {
	for _, c := range []struct {
		commonName string
		names      []string
		want       string
	}{
		{"Shop.example.com", []string{"a.example.com", "shop.example.com"}, "shop.example.com"},
		{"Shop Inc", []string{"z.example.com", "a.example.com"}, "z.example.com"},
		{"", []string{"spiffe://x/y", "10.0.0.1"}, "10.0.0.1"},
		{"", []string{"a@example.com", "spiffe://x/y"}, "spiffe://x/y"},
		{"legacy", nil, "legacy"},
		{"", nil, ""},
	} {
		b := issueWith(t, certstest.Options{Names: c.names, CommonName: c.commonName, NoCommonName: c.commonName == ""})
		if got := certs.PrimaryName(b.Leaf); got != c.want {
			t.Errorf("%q %v: %q, want %q", c.commonName, c.names, got, c.want)
		}
	}
}

func TestChainProblem(t *testing.T) {
	b := issue(t, "shop.example.com")
	must(t, certs.ChainProblem(b))
	other, err := certstest.NewCA("test") // the same names, other keys
	must(t, err)
	root := authority().Root()
	for name, c := range map[string]struct {
		chain []int
		want  string
	}{
		"root included": {[]int{0, 1}, ""},
		"no chain":      {nil, ""},
		"order":         {[]int{1, 0}, "is not the issuer of"},
		"signature":     {[]int{2}, "did not sign"},
		"leaf again":    {[]int{3}, "is the leaf again"},
	} {
		broken := *b
		broken.Chain = nil
		for _, i := range c.chain {
			broken.Chain = append(broken.Chain, append(b.Chain, root, other.Intermediate(), b.Leaf)[i])
		}
		err := certs.ChainProblem(&broken)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBundlePEM(t *testing.T) {
	b := issue(t, "shop.example.com")
	full := b.FullChainPEM()
	if !bytes.Equal(full, append(b.CertificatePEM(), b.ChainPEM()...)) || !bytes.HasSuffix(full, []byte("-----END CERTIFICATE-----\n")) {
		t.Errorf("%s", full)
	}
	b.Chain = nil
	if len(b.ChainPEM()) != 0 {
		t.Error("an empty chain is not empty")
	}
}

func TestFingerprintText(t *testing.T) {
	f := issue(t, "x.example.com").Fingerprint()
	text, err := f.MarshalText()
	must(t, err)
	var again certs.Fingerprint
	must(t, again.UnmarshalText(text))
	if again != f || f.IsZero() || len(f.Short()) != 12 {
		t.Errorf("%s became %s", f, again)
	}
	for _, bad := range []string{"12", strings.Repeat("g", 64)} {
		if err := again.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func day(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
