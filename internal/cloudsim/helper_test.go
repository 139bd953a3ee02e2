package cloudsim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testAK, testSK                       = "HPUAAAAAAAAAAAAAAAAA", "sk-of-the-test-account"
	testUser, testPassword, testDomain   = "rotator", "correct horse", "OTC-EU-TEST"
	shopHost, apiHost, plainHost, inHost = "shop.example.com", "api.example.com", "plain.example.com", "in.example.com"
)

// testCA is a tiny CA: a root and an intermediate, so that chains have an order to get wrong.
type testCA struct {
	root, inter       *x509.Certificate
	rootKey, interKey *ecdsa.PrivateKey
}

var makeCA = sync.OnceValue(func() *testCA {
	ca := &testCA{}
	ca.rootKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca.interKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca.root = signCert("root", nil, ca.rootKey, ca.rootKey.Public(), nil, true, time.Now().AddDate(9, 0, 0))
	ca.inter = signCert("intermediate", ca.root, ca.rootKey, ca.interKey.Public(), nil, true, time.Now().AddDate(8, 0, 0))
	return ca
})

func signCert(cn string, parent *x509.Certificate, signer crypto.Signer, public crypto.PublicKey, names []string, isCA bool, until time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn}, DNSNames: names, IsCA: isCA, BasicConstraintsValid: true,
		// Far back: synctest's clock starts in the year 2000.
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: until,
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// pair is a leaf with the ways to write its key.
type pair struct {
	leaf                   *x509.Certificate
	chain, key, pkcs8, sha string
	der                    []byte
}

func newPair(names ...string) pair { return newPairUntil(time.Now().AddDate(1, 0, 0), names...) }

func newPairUntil(until time.Time, names ...string) pair {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.MarshalECPrivateKey(key)
	return finishPair(key, "EC PRIVATE KEY", der, until, names)
}

func newRSAPair(names ...string) pair {
	key, _ := rsa.GenerateKey(rand.Reader, 2048)
	return finishPair(key, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), time.Now().AddDate(1, 0, 0), names)
}

func finishPair(key crypto.Signer, kind string, der []byte, until time.Time, names []string) pair {
	ca := makeCA()
	leaf := signCert(names[0], ca.inter, ca.interKey, key.Public(), names, false, until)
	p8, _ := x509.MarshalPKCS8PrivateKey(key)
	sum := sha256.Sum256(leaf.Raw)
	return pair{
		leaf: leaf, der: der, sha: hex.EncodeToString(sum[:]),
		chain: pemText("CERTIFICATE", leaf.Raw) + pemText("CERTIFICATE", ca.inter.Raw),
		key:   pemText(kind, der), pkcs8: pemText("PRIVATE KEY", p8),
	}
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// bench is an account with four hosts, of which two have a certificate that a person bound, and a client for it.
type bench struct {
	t      *testing.T
	sim    *Sim
	client *http.Client
	base   string
	token  string
	old    pair // "console-shop", bound to shop and in
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, old: newPair(shopHost, inHost)}
	console := Certificate{Name: "console-shop", CertPEM: []byte(b.old.chain), KeyPEM: []byte(b.old.pkcs8)}
	cfg := Config{
		AccessKey: testAK, SecretKey: testSK, User: testUser, Password: testPassword, Domain: testDomain,
		CertificateQuota: 20, Hosts: []Host{
			{Name: shopHost, Certificate: console}, {Name: apiHost}, {Name: plainHost, Protocol: "HTTP"},
			{Name: inHost, Dedicated: true, Certificate: console},
		},
	}
	if change != nil {
		change(&cfg)
	}
	sim, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	b.sim, b.base = sim, "https://cloud.invalid"
	b.client = &http.Client{Transport: sim.Transport()}
	b.token = b.login("project")
	return b
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	text   string
	json   map[string]any
	err    error
}

func (r reply) code() string {
	code, _ := r.json["error_code"].(string)
	return code
}

func (r reply) str(name string) string {
	text, _ := r.json[name].(string)
	return text
}

func (r reply) items() []map[string]any {
	var rows []map[string]any
	list, _ := r.json["items"].([]any)
	for _, row := range list {
		rows = append(rows, row.(map[string]any))
	}
	return rows
}

// send makes one request. body is text or something to marshal; nil is none.
func (b *bench) send(method, path string, body any, change ...func(*http.Request)) reply {
	b.t.Helper()
	return b.sendCtx(b.t.Context(), method, path, body, change...)
}

func (b *bench) sendCtx(ctx context.Context, method, path string, body any, change ...func(*http.Request)) reply {
	b.t.Helper()
	var data []byte
	switch v := body.(type) {
	case nil:
	case string:
		data = []byte(v)
	default:
		data, _ = json.Marshal(v)
	}
	r, err := http.NewRequestWithContext(ctx, method, b.base+path, bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	if data != nil {
		r.Header.Set("Content-Type", "application/json;charset=utf8")
	}
	for _, fn := range change {
		fn(r)
	}
	response, err := b.client.Do(r)
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	out := reply{status: response.StatusCode, header: response.Header, text: string(text), err: err}
	if len(text) < hugeMember { // reading that much as JSON takes seconds under the race detector
		_ = json.Unmarshal(text, &out.json)
	}
	return out
}

// waf makes a call of the WAF with the bench's token.
func (b *bench) waf(method, path string, body any, change ...func(*http.Request)) reply {
	b.t.Helper()
	return b.send(method, "/v1/"+b.sim.Config().ProjectID+path, body, append([]func(*http.Request){b.withToken}, change...)...)
}

func (b *bench) withToken(r *http.Request) { r.Header.Set("X-Auth-Token", b.token) }

func loginBody(user, password, domain string, scope any) map[string]any {
	auth := map[string]any{"identity": map[string]any{
		"methods":  []string{"password"},
		"password": map[string]any{"user": map[string]any{"name": user, "password": password, "domain": map[string]any{"name": domain}}},
	}}
	if scope != nil {
		auth["scope"] = scope
	}
	return map[string]any{"auth": auth}
}

func (b *bench) login(scope string) string {
	b.t.Helper()
	scopes := map[string]any{
		"project": map[string]any{"project": map[string]any{"name": b.sim.Config().Region}},
		"domain":  map[string]any{"domain": map[string]any{"name": testDomain}}, "none": nil,
	}
	r := b.send("POST", "/v3/auth/tokens?nocatalog=true", loginBody(testUser, testPassword, testDomain, scopes[scope]))
	if r.status != 201 {
		b.t.Fatalf("login: %d %s %v", r.status, r.text, r.err)
	}
	return r.header.Get("X-Subject-Token")
}

// create uploads p and returns its id.
func (b *bench) create(name string, p pair) string {
	b.t.Helper()
	r := b.waf("POST", "/waf/certificate", upl(name, p))
	if r.status != 200 {
		b.t.Fatalf("create %s: %d %s %v", name, r.status, r.text, r.err)
	}
	return r.str("id")
}

func upl(name string, p pair) map[string]any {
	return map[string]any{"name": name, "content": p.chain, "key": p.key}
}

func applyBody(cloud, premium []string) map[string]any {
	body := map[string]any{}
	if cloud != nil {
		body["cloud_host_ids"] = cloud
	}
	if premium != nil {
		body["premium_host_ids"] = premium
	}
	return body
}

// wantError checks status and code of an error answer and its documented shape.
func wantError(t *testing.T, r reply, status int, code string) {
	t.Helper()
	if r.err != nil || r.status != status || r.code() != code || r.str("error_msg") == "" {
		t.Errorf("got %d %s (%v), want %d %s with a message", r.status, r.text, r.err, status, code)
	}
	if r.header.Get("X-Request-Id") == "" && r.err == nil {
		t.Error("no X-Request-Id")
	}
}

func wantStatus(t *testing.T, r reply, status int) {
	t.Helper()
	if r.err != nil || r.status != status {
		t.Fatalf("got %d %s (%v), want %d", r.status, r.text, r.err, status)
	}
}

// noKeyIn fails when text holds any long run of the pair's private key.
func noKeyIn(t *testing.T, text string, p pair) {
	t.Helper()
	flat := strings.NewReplacer("\n", "", `\n`, "").Replace(text)
	body := strings.NewReplacer("\n", "").Replace(p.key)
	if strings.Contains(flat, body[40:80]) {
		t.Error("a private key leaked")
	}
}
