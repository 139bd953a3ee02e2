package privateca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
)

var testHashes = []string{"SHA256", "SHA384", "SHA512"}

func TestAsks(t *testing.T) {
	base := good()
	base.Held = HeldCloud
	same := map[string]func(*Spec){
		"order of names":  func(s *Spec) { slices.Reverse(s.Names) },
		"case of a name":  func(s *Spec) { s.Names[0].Value = "Payments.Internal" },
		"order of usages": func(s *Spec) { slices.Reverse(s.KeyUsages); slices.Reverse(s.ExtendedKeyUsages) },
		"backdate":        func(s *Spec) { s.Backdate = time.Minute },
		"hours":           func(s *Spec) { s.Validity = Validity{Hour, 90 * 24} },
	}
	other := map[string]func(*Spec){
		"issuer":    func(s *Spec) { s.IssuerID = "3cb2878b-6cd1-460d-bd25-afe655159bdc" },
		"name":      func(s *Spec) { s.Names = s.Names[1:] },
		"kind":      func(s *Spec) { s.Names[0].Type = URI },
		"key":       func(s *Spec) { s.KeyAlgorithm = "RSA2048" },
		"hash":      func(s *Spec) { s.Signature = "SHA512" },
		"days":      func(s *Spec) { s.Validity.Value++ },
		"usage":     func(s *Spec) { s.KeyUsages = s.KeyUsages[1:] },
		"country":   func(s *Spec) { s.Country = "DE" },
		"extension": func(s *Spec) { s.Extension = nil },
		"held":      func(s *Spec) { s.Held = HeldLocal },
		"project":   func(s *Spec) { s.EnterpriseProject = "0" },
	}
	fresh := func(change func(*Spec)) string {
		s := good()
		s.Held = HeldCloud
		change(&s)
		return s.digest()
	}
	want := base.digest()
	if len(want) != 32 {
		t.Errorf("digest %q", want)
	}
	for name, change := range same {
		if fresh(change) != want {
			t.Errorf("%s: another digest", name)
		}
	}
	seen := map[string]string{}
	for name, change := range other {
		got := fresh(change)
		if got == want || seen[got] != "" {
			t.Errorf("%s: the digest of %q", name, seen[got])
		}
		seen[got] = name
	}
	local := good()
	a := local.digest()
	local.Signature = "SHA512" // the service takes SHA384 in any case
	if local.digest() != a {
		t.Error("the hash matters where there is no choice")
	}
}

// The bodies are those of the seed's example and of the reference.
func TestBodies(t *testing.T) {
	s := good()
	s.Country, s.State, s.Locality, s.Backdate = "DE", "Hessen", "Frankfurt", time.Minute
	s.Names, s.EnterpriseProject = s.Names[:3], "0"
	at := time.UnixMilli(1_700_000_060_000)
	for body, want := range map[any]string{
		"spec": `{"issuer_id":"2cb2878b-6cd1-460d-bd25-afe655159bdc","key_algorithm":"EC256","signature_algorithm":"SHA256","distinguished_name":{"common_name":"payments.internal","country":"DE","state":"Hessen","locality":"Frankfurt","organization":"Acme Pay","organizational_unit":"Core"},"validity":{"type":"DAY","value":90,"start_from":1700000000000},"key_usages":["digitalSignature","keyAgreement"],"subject_alternative_names":[{"type":"DNS","value":"payments.internal"},{"type":"DNS","value":"*.payments.internal"},{"type":"IP","value":"10.0.0.7"}],"extended_key_usage":{"client_auth":true,"server_auth":true},"customized_extension":{"object_identifier":"1.3.6.1.4.1.2011.4.99","value":"payments"},"enterprise_project_id":"0"}`,
		"csr":  `{"issuer_id":"2cb2878b-6cd1-460d-bd25-afe655159bdc","csr":"CSR","validity":{"type":"DAY","value":90,"start_from":1700000000000},"type":"ENTITY_CERT","enterprise_project_id":"0"}`,
	} {
		var got []byte
		if body == "spec" {
			got, _ = json.Marshal(s.bySpec(at))
		} else {
			got, _ = json.Marshal(s.byRequest("CSR", at))
		}
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	least, _ := json.Marshal(Spec{IssuerID: "i", CommonName: "c", KeyAlgorithm: "EC256", Signature: "SHA256", Validity: Validity{Hour, 36}}.bySpec(at))
	if string(least) != `{"issuer_id":"i","key_algorithm":"EC256","signature_algorithm":"SHA256","distinguished_name":{"common_name":"c"},"validity":{"type":"HOUR","value":36}}` {
		t.Errorf("least: %s", least)
	}
}

// What is asked for in a request is what x509 reads there, and what Problems says of its
// length holds.
func TestRequest(t *testing.T) {
	for _, algorithm := range keyAlgorithms {
		s := good()
		s.KeyAlgorithm, s.KeyUsages = algorithm, keyUsageNames
		key, err := newKey(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		der, err := s.request(key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		// A CA that copies all extensions makes of it what was asked for.
		e := issueFor(t, s, key, func(c *x509.Certificate) {
			*c = x509.Certificate{SerialNumber: c.SerialNumber, NotBefore: c.NotBefore, NotAfter: c.NotAfter, RawSubject: csr.RawSubject, ExtraExtensions: csr.Extensions}
		})
		if d := s.differences(e, time.Now()); len(d) > 0 {
			t.Errorf("%s: %q", algorithm, d)
		}
		text := requestPEM(der)
		if block, rest := pem.Decode([]byte(text)); block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 || strings.HasSuffix(text, "\n") || len(text) > maxRequest {
			t.Errorf("%s: the request is not one block that the service takes", algorithm)
		}
	}
}

// testCA signs what the tests want.
var testCA = sync.OnceValue(func() (ca struct {
	root, issuer *x509.Certificate
	key          *ecdsa.PrivateKey
}) {
	keys := []*ecdsa.PrivateKey{}
	for range 2 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		keys = append(keys, key)
	}
	sign := func(name string, parent *x509.Certificate, public, signer *ecdsa.PrivateKey) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().AddDate(30, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public.Public(), signer)
		if err != nil {
			panic(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		return c
	}
	ca.root = sign("root", nil, keys[0], keys[0])
	ca.issuer = sign("issuer", ca.root, keys[1], keys[0])
	ca.key = keys[1]
	return ca
})

// issueFor makes a certificate of a Spec, by other means than the package's own.
func issueFor(t testing.TB, s Spec, key certs.PrivateKey, change func(*x509.Certificate)) exported {
	t.Helper()
	begin := time.Now().Add(-s.Backdate).UTC().Truncate(time.Second)
	days := map[string]int{Day: 1, Month: 31, Year: 366}[s.Validity.Type] * s.Validity.Value
	end := begin.AddDate(0, 0, days)
	if s.Validity.Type == Hour {
		end = begin.Add(time.Duration(s.Validity.Value) * time.Hour)
	}
	name := pkix.Name{CommonName: s.CommonName, Country: []string{"XX"}, Organization: []string{"of the CA"}}
	for text, field := range map[*string]*[]string{
		&s.Country: &name.Country, &s.State: &name.Province, &s.Locality: &name.Locality,
		&s.Organization: &name.Organization, &s.OrganizationalUnit: &name.OrganizationalUnit,
	} {
		if *text != "" {
			*field = []string{*text}
		}
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: name, NotBefore: begin, NotAfter: end}
	for _, n := range s.Names {
		switch n.Type {
		case DNS:
			template.DNSNames = append(template.DNSNames, n.Value)
		case IP:
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(n.Value))
		case EMAIL:
			template.EmailAddresses = append(template.EmailAddresses, n.Value)
		case URI:
			u, err := url.Parse(n.Value)
			if err != nil {
				t.Fatal(err)
			}
			template.URIs = append(template.URIs, u)
		}
	}
	order := []string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}
	for _, u := range s.KeyUsages {
		template.KeyUsage |= 1 << slices.Index(order, u)
	}
	for _, u := range s.ExtendedKeyUsages {
		template.ExtKeyUsage = append(template.ExtKeyUsage, map[string]x509.ExtKeyUsage{
			"server_auth": x509.ExtKeyUsageServerAuth, "client_auth": x509.ExtKeyUsageClientAuth, "code_signing": x509.ExtKeyUsageCodeSigning,
			"email_protection": x509.ExtKeyUsageEmailProtection, "time_stamping": x509.ExtKeyUsageTimeStamping,
		}[u])
	}
	if s.Extension != nil {
		var id asn1.ObjectIdentifier
		for arc := range strings.SplitSeq(s.Extension.OID, ".") {
			n, _ := strconv.Atoi(arc)
			id = append(id, n)
		}
		value, err := asn1.Marshal(s.Extension.Value)
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: id, Value: value})
	}
	template.SignatureAlgorithm = map[string]x509.SignatureAlgorithm{
		"SHA256": x509.ECDSAWithSHA256, "SHA384": x509.ECDSAWithSHA384, "SHA512": x509.ECDSAWithSHA512,
	}[s.Signature]
	if s.Held == HeldLocal {
		template.SignatureAlgorithm = x509.ECDSAWithSHA384
	}
	if change != nil {
		change(template)
	}
	ca := testCA()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.issuer, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	e, err := parseExport(strings.ReplaceAll(leaf, "\n", "\r\n"), chainPEM(ca.issuer, ca.root))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func chainPEM(chain ...*x509.Certificate) string {
	var text strings.Builder
	for _, c := range chain {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return text.String()
}

// testKeys are made once: RSA keys take long.
var testKeys = sync.OnceValue(func() map[string]certs.PrivateKey {
	keys := map[string]certs.PrivateKey{}
	for _, algorithm := range keyAlgorithms {
		key, err := newKey(algorithm)
		if err != nil {
			panic(err)
		}
		keys[algorithm] = key
	}
	return keys
})

var specs = rapid.Custom(func(t *rapid.T) Spec {
	some := func(label string, of []string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, len(of), rapid.ID).Draw(t, label)
	}
	word := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9 _.,-]{0,20}[A-Za-z0-9]`)
	maybe := func(label string) string {
		if rapid.Bool().Draw(t, "with "+label) {
			return word.Draw(t, label)
		}
		return ""
	}
	name := rapid.Custom(func(t *rapid.T) Name {
		host := rapid.StringMatching(`[a-zA-Z][a-zA-Z0-9]{0,9}\.[a-z]{2,5}`)
		switch kind := rapid.SampledFrom([]string{DNS, IP, EMAIL, URI}).Draw(t, "kind"); kind {
		case DNS:
			return Name{kind, rapid.SampledFrom([]string{"", "*.", "www."}).Draw(t, "label") + host.Draw(t, "host")}
		case IP:
			size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
			return Name{kind, net.IP(append([]byte{32}, rapid.SliceOfN(rapid.Byte(), size-1, size-1).Draw(t, "address")...)).String()}
		case EMAIL:
			return Name{kind, rapid.StringMatching(`[a-zA-Z0-9.]{0,5}[a-z]`).Filter(func(s string) bool { return s[0] != '.' && !strings.Contains(s, "..") }).Draw(t, "local") + "@" + host.Draw(t, "host")}
		default:
			return Name{kind, rapid.SampledFrom([]string{"spiffe", "https", "HTTP"}).Draw(t, "scheme") + "://" + host.Draw(t, "host") + rapid.StringMatching(`(/[a-z0-9%]{0}[a-z0-9]{1,8}){0,3}`).Draw(t, "path")}
		}
	})
	s := Spec{
		IssuerID: "2cb2878b-6cd1-460d-bd25-afe655159bdc", CommonName: word.Draw(t, "cn"), State: maybe("state"), Locality: maybe("locality"),
		Organization: maybe("organization"), OrganizationalUnit: maybe("unit"), Country: rapid.SampledFrom([]string{"", "DE", "fr"}).Draw(t, "country"),
		Names:        rapid.SliceOfNDistinct(name, 1, 8, func(n Name) Name { return n.canonical() }).Draw(t, "names"),
		KeyAlgorithm: rapid.SampledFrom(keyAlgorithms).Draw(t, "key"), Signature: rapid.SampledFrom(testHashes).Draw(t, "hash"),
		Validity: Validity{rapid.SampledFrom(units).Draw(t, "validity"), rapid.IntRange(1, 20).Draw(t, "of")}, Backdate: time.Duration(rapid.IntRange(0, 300).Draw(t, "backdate")) * time.Second,
		KeyUsages: some("usages", keyUsageNames), ExtendedKeyUsages: some("extended", extendedKeyUsageNames), Held: rapid.SampledFrom([]string{HeldLocal, HeldCloud}).Draw(t, "held"),
	}
	if rapid.Bool().Draw(t, "with extension") {
		s.Extension = &Extension{rapid.StringMatching(`1\.3\.6\.1\.4\.1(\.[1-9][0-9]{0,5}){1,4}`).Draw(t, "oid"), rapid.StringN(1, 64, 64).Filter(func(s string) bool {
			return strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
		}).Draw(t, "value")}
	}
	return s
})

// A certificate as it was asked for differs in nothing, and in what was changed.
func TestDifferencesProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := specs.Draw(r, "spec")
		e := issueFor(t, s, testKeys()[s.KeyAlgorithm], nil)
		if d := s.differences(e, time.Now()); len(d) > 0 {
			r.Fatalf("differences %q", d)
		}
		other := s
		what := rapid.SampledFrom([]string{
			"common name", "country", "state", "locality", "organization", "organizational unit", "names", "names less", "names kind",
			"key algorithm", "signature", "key usages", "extended key usages", "custom extension", "custom extension value", "validity",
		}).Draw(r, "change")
		changed := func(text string) string {
			if text == "" {
				return "something"
			}
			return "not " + text
		}
		without := func(have, all []string) []string {
			for _, one := range all {
				if !slices.Contains(have, one) {
					return append(slices.Clone(have), one)
				}
			}
			return have[1:]
		}
		want, _, _ := strings.Cut(what, " less")
		switch what {
		case "common name":
			other.CommonName = changed(s.CommonName)
		case "country":
			other.Country = "US"
		case "state":
			other.State = changed(s.State)
		case "locality":
			other.Locality = changed(s.Locality)
		case "organization":
			other.Organization = changed(s.Organization)
		case "organizational unit":
			other.OrganizationalUnit = changed(s.OrganizationalUnit)
		case "names":
			other.Names = append(slices.Clone(s.Names), Name{DNS, "one.more.example"})
		case "names less":
			if other.Names = s.Names[1:]; s.Names[0].canonical() == (Name{DNS, s.CommonName}).canonical() {
				return // the common name may be among them
			}
		case "names kind":
			want = "names"
			other.Names = slices.Clone(s.Names)
			other.Names[0] = Name{URI, "urn:x:" + s.Names[0].Value}
		case "key algorithm":
			other.KeyAlgorithm = keyAlgorithms[(slices.Index(keyAlgorithms, s.KeyAlgorithm)+1)%len(keyAlgorithms)]
		case "signature":
			if s.Held == HeldLocal {
				return
			}
			other.Signature = testHashes[(slices.Index(testHashes, s.Signature)+1)%len(testHashes)]
		case "key usages":
			other.KeyUsages = without(s.KeyUsages, keyUsageNames)
		case "extended key usages":
			other.ExtendedKeyUsages = without(s.ExtendedKeyUsages, extendedKeyUsageNames)
		case "custom extension":
			other.Extension = &Extension{"1.2.3.4.5", "x"}
		case "custom extension value":
			want = "custom extension"
			if s.Extension == nil {
				return
			}
			other.Extension = &Extension{s.Extension.OID, s.Extension.Value + "!"}
		case "validity":
			other.Validity.Value += max(3, s.Validity.Value/2)
		}
		d := other.differences(e, time.Now())
		if len(d) != 1 || !strings.HasPrefix(d[0], want) {
			r.Errorf("%s: differences %q", what, d)
		}
	})
}

func TestDifferences(t *testing.T) {
	s := good()
	s.Held = HeldCloud
	made := time.Now()
	for want, change := range map[string]func(*x509.Certificate){
		"":                       func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "PAYMENTS.internal") },
		"names: asked for":       func(c *x509.Certificate) { c.URIs = nil },
		"names: asked for dns:*": func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "evil.example") },
		"asked for a certificate that signs no others":           func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
		"extended key usages: asked for client_auth server_auth": func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) },
		"extended key usages: asked for client_auth server_auth, got 1.2.3": func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}}
		},
		"key usages: asked for digitalSignature keyAgreement, got none": func(c *x509.Certificate) { c.KeyUsage = 0 },
		"beginning of validity": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = c.NotBefore.Add(time.Hour), c.NotAfter.Add(time.Hour)
		},
		"beginning of validity: asked for 2": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = c.NotBefore.AddDate(0, 0, -2), c.NotAfter.AddDate(0, 0, -2)
		},
		"custom extension 1.3.6.1.4.1.2011.4.99: asked for it":     func(c *x509.Certificate) { c.ExtraExtensions = nil },
		"custom extension 1.3.6.1.4.1.2011.4.99: it does not hold": func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte("pay") },
	} {
		d := s.differences(issueFor(t, s, testKeys()["EC256"], change), made)
		if want == "" && len(d) > 0 || want != "" && (len(d) != 1 || !strings.HasPrefix(d[0], want)) {
			t.Errorf("%s: %q", want, d)
		}
	}
	// In whatever type the value of the extension comes.
	for _, value := range []any{
		asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("payments")}, []byte("payments"),
		asn1.RawValue{Tag: asn1.TagOctetString, Bytes: []byte("\x0c\x08payments")},
		asn1.RawValue{Tag: asn1.TagBMPString, Bytes: []byte("\x00p\x00a\x00y\x00m\x00e\x00n\x00t\x00s")},
	} {
		der, err := asn1.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		e := issueFor(t, s, testKeys()["EC256"], func(c *x509.Certificate) { c.ExtraExtensions[0].Value = der })
		if d := s.differences(e, made); len(d) > 0 {
			t.Errorf("%v: %q", value, d)
		}
	}
	e := issueFor(t, s, testKeys()["EC256"], func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte("payments") })
	if d := s.differences(e, time.Time{}); len(d) > 0 {
		t.Errorf("bare: %q", d)
	}
}

func TestChain(t *testing.T) {
	ca := testCA()
	foreign, err := certstest.NewCA("foreign")
	if err != nil {
		t.Fatal(err)
	}
	s := good()
	leaf := issueFor(t, s, testKeys()["EC256"], nil).leaf
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		want  int
		words string
	}{
		"in order":     {[]*x509.Certificate{ca.issuer, ca.root}, 1, ""},
		"out of order": {[]*x509.Certificate{ca.root, ca.issuer}, 1, ""},
		"without root": {[]*x509.Certificate{ca.issuer}, 1, ""},
		"twice":        {[]*x509.Certificate{leaf, ca.issuer, ca.issuer, ca.root}, 1, ""},
		"none":         {nil, 0, "nobody's certificate came with it"},
		"gap":          {[]*x509.Certificate{ca.root}, 0, `certificate "root" of the chain did not sign`},
		"foreign":      {[]*x509.Certificate{ca.issuer, foreign.Root()}, 1, `certificate "foreign root" of the chain did not sign`},
	} {
		e, err := parseExport(chainPEM(leaf), chainPEM(test.chain...))
		if err != nil || len(e.chain) != test.want || (test.words == "") != (e.problem == "") || !strings.Contains(e.problem, test.words) {
			t.Errorf("%s: %d, %q, %v", name, len(e.chain), e.problem, err)
		}
		if d := s.differences(e, time.Time{}); (len(d) > 0) != (test.words != "") {
			t.Errorf("%s: %q", name, d)
		}
	}
}

func TestMark(t *testing.T) {
	got := mark(providers.Owner{Policy: "payments", Certificate: "payments.internal"})
	if got == "" || strings.HasSuffix(got, "_") || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		t.Errorf("mark %q", got)
	}
}
