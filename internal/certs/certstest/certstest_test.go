package certstest_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

func TestIssuedCertificatesVerify(t *testing.T) {
	ca, err := certstest.NewCA("demo")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.RootPEM())
	for _, kind := range []certstest.KeyType{certstest.EC256, certstest.EC384, certstest.RSA2048, certstest.Ed25519} {
		b, err := ca.Issue(certstest.Options{Names: []string{"shop.example.com", "10.0.0.7"}, KeyType: kind})
		if err != nil {
			t.Fatal(err)
		}
		intermediates := x509.NewCertPool()
		intermediates.AddCert(b.Chain[0])
		options := x509.VerifyOptions{DNSName: "shop.example.com", Roots: roots, Intermediates: intermediates}
		if _, err := b.Leaf.Verify(options); err != nil {
			t.Error(err)
		}
		if err := certs.ChainProblem(b); err != nil || !b.Key.Matches(b.Leaf) {
			t.Errorf("key type %d: %v", kind, err)
		}
	}
}

func TestCertbotLayout(t *testing.T) {
	ca, err := certstest.NewCA("demo")
	if err != nil {
		t.Fatal(err)
	}
	lineage := certstest.NewCertbot(t.TempDir(), "shop")
	for range 2 {
		b, err := ca.Issue(certstest.Options{Names: []string{"shop.example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := lineage.Renew(b); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(lineage.Live(), "fullchain.pem"))
		if err != nil || string(data) != string(b.FullChainPEM()) {
			t.Errorf("fullchain.pem is not the newest: %v", err)
		}
	}
	if target, err := os.Readlink(filepath.Join(lineage.Live(), "privkey.pem")); target != "../../archive/shop/privkey2.pem" {
		t.Errorf("link to %s: %v", target, err)
	}
}
