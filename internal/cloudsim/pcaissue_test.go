package cloudsim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// csr is a CSR for the bench's name, and its key.
func csr(t *testing.T, change func(*x509.CertificateRequest)) (string, *ecdsa.PrivateKey) {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: apiHost, Organization: []string{"Mine"}}, DNSNames: []string{apiHost}}
	if change != nil {
		change(request)
	}
	return csrOf(t, request, key), key
}

func csrOf(t *testing.T, request *x509.CertificateRequest, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		t.Fatal(err)
	}
	return pemText("CERTIFICATE REQUEST", der)
}

// Reference 4.3: by CSR. Subject and key are the CSR's, the hash is SHA384, and there is never a key to export.
func TestPrivateCertificateByCSR(t *testing.T) {
	oid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 2011, 4, 9}
	usage, _ := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 2}})
	keyUsage, _ := asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
	isCA, _ := asn1.Marshal([]bool{true})
	full := []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: usage}, {Id: oidExtKeyUsage, Critical: true, Value: keyUsage},
		{Id: oid, Value: []byte{5, 0}}, {Id: oidBasicConstraints, Value: isCA},
	}
	for _, ignore := range []bool{false, true} {
		b := newPCABench(t, func(c *Config) { c.IgnoreCSRExtensions = ignore })
		plain, _ := csr(t, nil)
		text, key := csr(t, func(r *x509.CertificateRequest) { r.ExtraExtensions = full })
		r := b.pca("POST", "/csr", b.csrBody(strings.ReplaceAll(text, "\n", "\r\n"), "type", "ENTITY_CERT",
			"subject_alternative_names", []any{san("DNS", "ignored.example.com")}))
		wantStatus(t, r, 200)
		e := b.export(r.str("certificate_id"), "type", "IIS", "password", "Secret_1")
		if _, has := e.json["private_key"]; has || len(e.json) != 2 {
			t.Errorf("export %s", e.text)
		}
		if !key.PublicKey.Equal(e.leaf.PublicKey) || e.leaf.Subject.String() != "CN=api.example.com,O=Mine" || e.leaf.IsCA ||
			e.leaf.SignatureAlgorithm != x509.ECDSAWithSHA384 || e.leaf.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("leaf %+v", e.leaf)
		}
		hasOID := slices.ContainsFunc(e.leaf.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oid) })
		if ignore == (len(e.leaf.DNSNames) == 1) || ignore == (len(e.leaf.ExtKeyUsage) == 1) || ignore == hasOID {
			t.Errorf("ignore %v: names %v, extensions %v", ignore, e.leaf.DNSNames, e.leaf.Extensions)
		}
		r = b.pca("POST", "/csr", b.csrBody(plain))
		wantStatus(t, r, 200)
		if e := b.export(r.str("certificate_id")); e.leaf.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement {
			t.Errorf("key usage %b", e.leaf.KeyUsage)
		}
		shown := b.pca("GET", "/"+r.str("certificate_id"), nil)
		name, _ := shown.json["distinguished_name"].(map[string]any)
		if shown.str("gen_mode") != "CSR" || shown.str("signature_algorithm") != "SHA384" || shown.str("key_algorithm") != "EC256" ||
			name["organization"] != "Mine" || name["country"] != "" {
			t.Errorf("shown %s", shown.text)
		}
	}
}

// Reference 4.3: parse a CSR. Its names are not in the answer.
func TestParseCSR(t *testing.T) {
	b := newPCABench(t, nil)
	text, key := csr(t, nil)
	r := b.pca("POST", "/csr/parse", map[string]any{"csr": text})
	wantStatus(t, r, 200)
	block, _ := pem.Decode([]byte(r.str("public_key")))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || !key.PublicKey.Equal(public) || !strings.Contains(r.str("public_key"), "\r\n") {
		t.Errorf("public key %v, %v", public, err)
	}
	if r.str("key_algorithm") != "EC" || r.json["key_algorithm_length"] != 256.0 || r.str("signature_algorithm") != "SHA256withECDSA" ||
		r.json["distinguished_name"].(map[string]any)["common_name"] != apiHost || len(r.json) != 5 {
		t.Errorf("parsed %s", r.text)
	}
	rsaKey, _ := newKey(keyRSA2048, 0)
	r = b.pca("POST", "/csr/parse", map[string]any{"csr": csrOf(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, rsaKey)})
	if r.str("key_algorithm") != "RSA" || r.json["key_algorithm_length"] != 2048.0 || r.str("signature_algorithm") != "SHA256withRSA" {
		t.Errorf("parsed %s", r.text)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	ed := csrOf(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, edKey)
	wantError(t, b.pca("POST", "/csr/parse", map[string]any{"csr": ed}), 400, "PCA.00020102")
	wantError(t, b.pca("POST", "/csr", b.csrBody(ed)), 400, "PCA.00020102")
	for _, body := range []any{"", map[string]any{}, map[string]any{"csr": 1}, map[string]any{"csr": "x"}} {
		wantError(t, b.pca("POST", "/csr/parse", body), 400, "PCA.00020001")
	}
}

// What is wrong with an application, and the code that says so: [S002], reference 4.2 and 6.4.
func TestPrivateApplicationRefusals(t *testing.T) {
	b := newPCABench(t, nil)
	now := time.Now()
	dn := func(pairs ...any) map[string]any {
		return map[string]any{"distinguished_name": changed(map[string]any{"common_name": apiHost}, pairs)}
	}
	sans := func(list ...any) map[string]any { return map[string]any{"subject_alternative_names": list} }
	valid := func(v any) map[string]any { return map[string]any{"validity": v} }
	one := func(name string, value any) map[string]any { return map[string]any{name: value} }
	custom := func(oid, value any) map[string]any {
		return one("customized_extension", changed(map[string]any{}, []any{"object_identifier", oid, "value", value}))
	}
	tests := map[string][]map[string]any{
		"PCA.00020001": {
			one("unknown", 1), one("key_usages", []string{"sign"}), one("key_usages", "digitalSignature"), one("key_usages", []any{1}),
			sans(slices.Repeat([]any{san("DNS", apiHost)}, 21)...), sans("x"), sans(map[string]any{"type": "DNS"}), sans(map[string]any{"value": "x"}),
			sans(map[string]any{"type": "DNS", "value": "x", "more": 1}), one("subject_alternative_names", nil2()),
			sans(san("EMAIL", "nobody")), sans(san("EMAIL", strings.Repeat("a", 245)+"@example.com")), sans(san("EMAIL", "a b@example.com")),
			sans(san("URI", "example")), sans(san("URI", "http://"+strings.Repeat("a", 250))),
			one("extended_key_usage", map[string]any{"any": true}), one("extended_key_usage", map[string]any{"server_auth": "true"}),
			custom("1.3.x", "v"), custom("2.5.29.17", "v"), custom("3.1", "v"), custom("1.3.6", ""), custom("1.3.6", strings.Repeat("v", 65)),
			custom("1.3."+strings.Repeat("1.", 40)+"1", "v"), custom(1, "v"), custom("1.3.6", 1), custom(nil, "v"), custom("1.3.6", nil), one("customized_extension", "x"), one("extended_key_usage", "x"), sans("text"),
			one("enterprise_project_id", "all"), one("enterprise_project_id", "x"), one("enterprise_project_id", 0),
		},
		"PCA.00020101": {
			dn("common_name", nil), dn("common_name", ""), dn("common_name", strings.Repeat("a", 65)), dn("common_name", "a/b"), dn("common_name", 1),
			dn("country", "D"), dn("country", "DEU"), dn("country", "D1"), dn("state", ""), dn("state", strings.Repeat("a", 129)),
			dn("locality", strings.Repeat("a", 129)), dn("organization", strings.Repeat("a", 65)), dn("organizational_unit", ""), dn("organization", "*"),
			dn("email", "x"), one("distinguished_name", nil), one("distinguished_name", "x"),
		},
		"PCA.00020102": {one("key_algorithm", nil), one("key_algorithm", "SM2"), one("key_algorithm", "RSA3072"), one("key_algorithm", 1)},
		"PCA.00020103": {one("signature_algorithm", nil), one("signature_algorithm", "SM3"), one("signature_algorithm", "SHA1")},
		"PCA.00020109": {
			valid(nil), valid(validity("WEEK", 1)), valid(validity("DAY", 0)), valid(validity("DAY", -1)), valid(validity("DAY", "1")), valid(validity("DAY", 1.5)),
			valid(validity("YEAR", 21)), valid(validity("YEAR", 11)), valid(validity("MONTH", 12*20)), valid(validity("HOUR", 1<<40)), valid(map[string]any{"value": 1}),
			valid(validity("DAY", 1, "start_from", now.Add(-6*time.Minute).UnixMilli())), valid(validity("DAY", 1, "start_from", fmt.Sprint(now.UnixMilli()))),
			valid(validity("DAY", 1, "end", 1)), valid(validity("DAY", 1, "start_from", now.AddDate(10, 0, 0).UnixMilli())),
		},
		"PCA.00020110": {
			sans(san("DNS", "")), sans(san("DNS", "a..b")), sans(san("DNS", "-a.example.com")), sans(san("DNS", "a_b.example.com")), sans(san("DNS", "a.*.example.com")),
			sans(san("DNS", "*.com")), sans(san("DNS", strings.Repeat("a", 64)+".com")), sans(san("DNS", strings.Repeat("abcdefg.", 32)+"com")),
		},
		"PCA.00020111": {sans(san("IP", "1.2.3")), sans(san("IP", "fe80::1%eth0")), sans(san("IP", apiHost))},
		"PCA.00020112": {sans(san("dns", apiHost)), sans(san("", apiHost)), sans(san("OTHER", apiHost))},
		"PCA.00020201": {one("issuer_id", nil), one("issuer_id", "x"), one("issuer_id", strings.ToUpper(b.issuer)), one("issuer_id", 1)},
		"PCA.10010002": {one("issuer_id", noUUID)},
		"PCA.10019001": {
			one("issuer_id", b.authority("PENDING").ID), one("issuer_id", b.authority("DISABLED").ID), one("issuer_id", b.authority("DELETED").ID),
			one("issuer_id", b.authority("EXPIRED").ID), one("issuer_id", b.authority("REVOKED").ID),
		},
	}
	for code, list := range tests {
		for i, change := range list {
			t.Run(fmt.Sprint(code, i), func(t *testing.T) {
				var pairs []any
				for name, value := range change {
					pairs = append(pairs, name, value)
				}
				wantError(t, b.pca("POST", "", b.application(pairs...)), 400, code)
			})
		}
	}
	for _, body := range []any{"", "x", "[]", `{"issuer_id":"x","issuer_id":"y"}`} {
		wantError(t, b.pca("POST", "", body), 400, "PCA.00020001")
	}
	wantError(t, b.pca("POST", "", b.application(), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }), 400, "PCA.00020001")
	wantError(t, b.pca("POST", "?x=1", b.application()), 400, "PCA.00020001")
	if n := len(b.sim.PrivateCertificates()); n != 0 {
		t.Errorf("%d certificates in spite of all refusals", n)
	}
	// What stands on the good side of the bounds.
	for _, change := range []map[string]any{
		sans(slices.Repeat([]any{san("DNS", "*.example.com")}, 20)...), sans([]any{}...), dn("common_name", "域名 *_-,."+strings.Repeat("a", 56)), dn("country", "nl"),
		valid(validity("YEAR", 9)), valid(validity("MONTH", 1)), valid(validity("HOUR", 1)), one("subject_alternative_names", nil), one("extended_key_usage", nil),
		valid(validity("DAY", 1, "start_from", now.Add(-4*time.Minute).UnixMilli())), one("enterprise_project_id", noUUID),
		one("extended_key_usage", map[string]any{"smart_card_logon": true, "client_auth": true, "code_signing": false}),
		one("signature_algorithm", "SHA512"), one("key_algorithm", "EC384"), one("key_algorithm", "RSA2048"),
	} {
		for name, value := range change {
			b.apply(name, value)
		}
	}
}

// nil2 is JSON's null, which changed would take for "take it away".
func nil2() any { return json.RawMessage("null") }

// The same for the way by CSR: reference 4.3.
func TestPrivateCSRRefusals(t *testing.T) {
	b := newPCABench(t, nil)
	good, key := csr(t, nil)
	block, _ := pem.Decode([]byte(good))
	block.Bytes[len(block.Bytes)-1] ^= 1
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	long, _ := csr(t, func(r *x509.CertificateRequest) { r.DNSNames = slices.Repeat([]string{"long.example.com"}, 250) })
	nameless, _ := csr(t, func(r *x509.CertificateRequest) { r.Subject = pkix.Name{Organization: []string{"x"}} })
	odd, _ := csr(t, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"a&b"} })
	broken, _ := csr(t, func(r *x509.CertificateRequest) {
		r.DNSNames, r.ExtraExtensions = nil, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Value: []byte{1}}}
	})
	sec1, _ := x509.MarshalECPrivateKey(key)
	for name, tt := range map[string]struct {
		code   string
		change []any
	}{
		"none":             {"PCA.00020001", []any{"csr", nil}},
		"no PEM":           {"PCA.00020001", []any{"csr", "x"}},
		"around":           {"PCA.00020001", []any{"csr", "comment\n" + good}},
		"after":            {"PCA.00020001", []any{"csr", good + good}},
		"key":              {"PCA.00020001", []any{"csr", pemText("EC PRIVATE KEY", sec1)}},
		"broken":           {"PCA.00020001", []any{"csr", pemText("CERTIFICATE REQUEST", []byte("x"))}},
		"signature":        {"PCA.00020001", []any{"csr", string(pem.EncodeToMemory(block))}},
		"long":             {"PCA.00020001", []any{"csr", long}},
		"curve":            {"PCA.00020102", []any{"csr", csrOf(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, p521)}},
		"broken SANs":      {"PCA.00020001", []any{"csr", broken}},
		"no name":          {"PCA.00020101", []any{"csr", nameless}},
		"odd name":         {"PCA.00020101", []any{"csr", odd}},
		"no validity":      {"PCA.00020109", []any{"validity", nil}},
		"validity":         {"PCA.00020109", []any{"validity", validity("YEAR", 11)}},
		"type":             {"PCA.00020001", []any{"type", "ROOT"}},
		"type's type":      {"PCA.00020001", []any{"type", 1}},
		"subordinate":      {"PCA.00020001", []any{"type", "INTERMEDIATE_CA"}},
		"path length":      {"PCA.00020203", []any{"path_length", 1}},
		"names":            {"PCA.00020001", []any{"subject_alternative_names", "x"}},
		"project":          {"PCA.00020001", []any{"enterprise_project_id", "all"}},
		"issuer":           {"PCA.00020201", []any{"issuer_id", "x"}},
		"disabled":         {"PCA.10019001", []any{"issuer_id", b.authority("DISABLED").ID}},
		"of the other way": {"PCA.00020001", []any{"key_algorithm", "EC256"}},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, b.pca("POST", "/csr", b.csrBody(good, tt.change...)), 400, tt.code) })
	}
	for _, e := range b.sim.Ledger() {
		if strings.Contains(e.Message, "BEGIN") {
			t.Errorf("the ledger repeats what was sent: %+v", e)
		}
	}
}

// start_from is in ms; a certificate that ends with its CA to the second is fine.
func TestPrivateValidity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().Truncate(time.Second)
		b := newPCABench(t, func(c *Config) { c.Authorities[0].NotAfter = now.AddDate(0, 0, 62) })
		for _, tt := range []struct {
			kind  string
			value int
			want  time.Time
		}{
			{"HOUR", 5, now.Add(6 * time.Hour)}, {"DAY", 3, now.Add(73 * time.Hour)}, {"MONTH", 1, now.Add(31*24*time.Hour + time.Hour)},
		} {
			id := b.apply("validity", validity(tt.kind, tt.value, "start_from", now.Add(time.Hour).UnixMilli()))
			if leaf := b.export(id).leaf; !leaf.NotBefore.Equal(now.Add(time.Hour)) || !leaf.NotAfter.Equal(tt.want) {
				t.Errorf("%s: %s to %s", tt.kind, leaf.NotBefore, leaf.NotAfter)
			}
		}
		b.apply("validity", validity("MONTH", 2))
		wantError(t, b.pca("POST", "", b.application("validity", validity("HOUR", 62*24+1))), 400, "PCA.00020109")
		time.Sleep(31 * 24 * time.Hour)
		b.token = b.login("domain")
		wantError(t, b.pca("POST", "", b.application("validity", validity("MONTH", 1, "start_from", now.Add(32*24*time.Hour).UnixMilli()))), 400, "PCA.00020109")
	})
}

// A hierarchy of RSA CAs signs with RSA; keys differ; the quota counts what is there.
func TestPrivateQuotaAndRSA(t *testing.T) {
	b := newPCABench(t, func(c *Config) {
		c.PrivateCertificateQuota = 2
		c.Authorities = []Authority{{CommonName: "R", KeyAlgorithm: keyRSA2048}}
	})
	ids := []string{b.apply("key_algorithm", "RSA2048", "signature_algorithm", "SHA384"), b.apply("key_algorithm", "RSA2048")}
	wantError(t, b.pca("POST", "", b.application()), 400, "PCA.10019002")
	one, two := b.export(ids[0]), b.export(ids[1], "type", "NGINX")
	wantStatus(t, b.pca("DELETE", "/"+ids[1], nil), 204)
	if three := b.export(b.apply("signature_algorithm", "SHA512")); three.leaf.SignatureAlgorithm != x509.SHA512WithRSA {
		t.Errorf("%s", three.leaf.SignatureAlgorithm)
	}
	if one.leaf.SignatureAlgorithm != x509.SHA384WithRSA || two.leaf.SignatureAlgorithm != x509.SHA256WithRSA || one.key == two.key || len(one.chain) != 1 {
		t.Errorf("%s, %s", one.leaf.SignatureAlgorithm, two.leaf.SignatureAlgorithm)
	}
	keyMatches(t, one.key, one.leaf)
	keyMatches(t, two.key, two.leaf)
	if !strings.HasPrefix(one.key, "-----BEGIN RSA PRIVATE KEY-----\r\n") {
		t.Error("the key's form")
	}
	b.verify(one, time.Now())
	wantStatus(t, b.pca("DELETE", "/"+ids[0], nil), 204)
	b.apply()
}
