package waf

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

// What the service would refuse is refused before it is asked, with the service's code.
func TestStageRefusesBeforeTheCall(t *testing.T) {
	s := newSetup(t, cloudsim.Config{Hosts: []cloudsim.Host{{Name: shop}, {Name: store}}}, ModeCloud)
	good, other := bundle(t, certstest.RSA2048, shop, store), bundle(t, certstest.EC256, shop)
	old, err := s.ca(t).Issue(certstest.Options{Names: []string{shop}, NotBefore: time.Now().Add(-90 * 24 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		bundle *certs.Bundle
		want   string
	}{
		"no key":       {&certs.Bundle{Leaf: good.Leaf, Chain: good.Chain}, "no private key"},
		"other's key":  {&certs.Bundle{Leaf: good.Leaf, Chain: good.Chain, Key: other.Key}, "WAF.00011019"},
		"Ed25519":      {bundle(t, certstest.Ed25519, shop), "takes RSA and EC keys"},
		"expired":      {old, "WAF.00011021"},
		"wrong order":  {&certs.Bundle{Leaf: good.Leaf, Chain: []*x509.Certificate{other.Leaf}, Key: good.Key}, "WAF.00011019"},
		"fine as ever": {good, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.target(t).Stage(t.Context(), providers.Request{Owner: providers.Owner{Policy: "p", Certificate: name}, Endpoints: []string{shop}}, test.bundle)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if providers.KindOf(err) != providers.KindInvalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	created := slices.DeleteFunc(s.sim.Ledger(), func(e cloudsim.Entry) bool { return e.Operation != "CreateCertificate" })
	if len(created) != 1 {
		t.Errorf("%d creations were asked for, want that of the good one", len(created))
	}
}

func (s *setup) ca(t *testing.T) *certstest.CA {
	t.Helper()
	ca, err := certstest.NewCA("waf test")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}
