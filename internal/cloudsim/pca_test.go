package cloudsim

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	rootCA, issuingCA = "Example Root", "Example Issuing CA"
	noUUID            = "00000000-0000-4000-8000-000000000000"
)

// pcaBench is an account with a root CA, a CA below it, one of each other status, and a token for the account.
type pcaBench struct {
	*bench
	issuer string // id of the CA that issues
}

func newPCABench(t *testing.T, change func(*Config)) *pcaBench {
	t.Helper()
	b := &pcaBench{}
	b.bench = newBench(t, func(c *Config) {
		c.Authorities = []Authority{
			{CommonName: issuingCA, Parent: rootCA, Country: "DE", State: "Bavaria", Organization: "Example", OrganizationalUnit: "Keys", PathLength: 0},
			{CommonName: rootCA, KeyAlgorithm: keyEC384},
		}
		for _, status := range authorityStates[1:] {
			c.Authorities = append(c.Authorities, Authority{CommonName: status, Status: status})
		}
		if change != nil {
			change(c)
		}
	})
	b.token = b.login("domain")
	b.issuer = b.sim.Config().Authorities[0].ID
	return b
}

func (b *pcaBench) authority(name string) AuthorityInfo {
	b.t.Helper()
	for _, a := range b.sim.Authorities() {
		if a.CommonName == name {
			return a
		}
	}
	b.t.Fatalf("no CA %s", name)
	return AuthorityInfo{}
}

// pca makes a call below /v1/private-certificates with the bench's token.
func (b *pcaBench) pca(method, path string, body any, change ...func(*http.Request)) reply {
	b.t.Helper()
	return b.send(method, "/v1/private-certificates"+path, body, append([]func(*http.Request){b.withToken}, change...)...)
}

// application is a good body; pairs of names and values change it, and a value of nil takes a member away.
func (b *pcaBench) application(change ...any) map[string]any {
	return changed(map[string]any{
		"issuer_id": b.issuer, "key_algorithm": "EC256", "signature_algorithm": "SHA256",
		"distinguished_name": map[string]any{"common_name": apiHost}, "validity": validity("DAY", 30),
		"subject_alternative_names": []any{san("DNS", apiHost)}, "extended_key_usage": map[string]any{"server_auth": true},
	}, change)
}

func changed(body map[string]any, change []any) map[string]any {
	body = maps.Clone(body)
	for i := 0; i < len(change); i += 2 {
		body[change[i].(string)] = change[i+1]
		if change[i+1] == nil {
			delete(body, change[i].(string))
		}
	}
	return body
}

func validity(kind string, value any, more ...any) map[string]any {
	return changed(map[string]any{"type": kind, "value": value}, more)
}

func san(kind, value string) map[string]any { return map[string]any{"type": kind, "value": value} }

// apply makes a private certificate and returns its id.
func (b *pcaBench) apply(change ...any) string {
	b.t.Helper()
	r := b.pca("POST", "", b.application(change...))
	wantStatus(b.t, r, 200)
	if len(r.json) != 1 && !b.sim.cfg.Misbehave || len(r.str("certificate_id")) != 36 {
		b.t.Fatalf("answer %s", r.text)
	}
	return r.str("certificate_id")
}

func (b *pcaBench) csrBody(text string, change ...any) map[string]any {
	return changed(map[string]any{"issuer_id": b.issuer, "csr": text, "validity": validity("DAY", 30)}, change)
}

// exported is a certificate as the JSON form shows it.
type exported struct {
	leaf  *x509.Certificate
	chain []*x509.Certificate
	key   string
	reply
}

func (b *pcaBench) export(id string, change ...any) exported {
	b.t.Helper()
	r := b.pca("POST", "/"+id+"/export", exportBody(change...))
	wantStatus(b.t, r, 200)
	e := exported{reply: r, key: r.str("private_key")}
	e.leaf = fromCRLF(b.t, r.str("certificate"))[0]
	e.chain = fromCRLF(b.t, r.str("certificate_chain"))
	return e
}

func exportBody(change ...any) map[string]any {
	return changed(map[string]any{"type": "OTHER", "is_compressed": "false"}, change)
}

// fromCRLF reads certificates whose lines all end in \r\n.
func fromCRLF(t *testing.T, text string) []*x509.Certificate {
	t.Helper()
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") || strings.Count(text, "\n") < 3 {
		t.Fatalf("lines do not end in CRLF: %q", text)
	}
	chain, err := parseCertificates(strings.ReplaceAll(text, "\r\n", "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// verify checks that the chain leads to the root and that the leaf covers the name.
func (b *pcaBench) verify(e exported, at time.Time) {
	b.t.Helper()
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(e.chain[len(e.chain)-1])
	for _, c := range e.chain[:len(e.chain)-1] {
		inter.AddCert(c)
	}
	if _, err := e.leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: apiHost, CurrentTime: at}); err != nil {
		b.t.Error(err)
	}
}

func keyMatches(t *testing.T, text string, leaf *x509.Certificate) {
	t.Helper()
	key, err := parseKey(strings.ReplaceAll(text, "\r\n", "\n"), false)
	if err != nil {
		t.Fatal(err)
	}
	if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
		t.Error("the key is not the certificate's")
	}
}

// Reference 4.2, 4.4, 4.5, 4.6: apply, show, list, export, revoke, delete.
func TestPrivateCertificateLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPCABench(t, func(c *Config) { c.ClockOffset = 3 * time.Hour })
		now := b.sim.now()
		id := b.apply("key_usages", []string{"digitalSignature", "nonRepudiation"}, "subject_alternative_names", []any{
			san("DNS", apiHost), san("IP", "192.0.2.7"), san("IP", "2001:db8::7"), san("EMAIL", "me@example.com"), san("URI", "spiffe://example.com/x"),
		}, "customized_extension", map[string]any{"object_identifier": "1.3.6.1.4.1.2011.4.1", "value": "This is custom."})

		entry := lastEntry(b.bench)
		e := b.export(id)
		sum := sha256.Sum256(e.leaf.Raw)
		if entry.Service != "ccm" || entry.Operation != "create_certificate" || !entry.Effect || entry.Fingerprint != hex.EncodeToString(sum[:]) ||
			entry.Name != apiHost || fmt.Sprint(entry.Objects) != "["+id+"]" || entry.Auth != "token" {
			t.Errorf("ledger %+v", entry)
		}
		b.verify(e, now.Add(time.Hour))
		keyMatches(t, e.key, e.leaf)
		if !strings.HasPrefix(e.key, "-----BEGIN EC PRIVATE KEY-----\r\n") || len(e.chain) != 2 || e.chain[1].Subject.CommonName != rootCA {
			t.Errorf("export %s", e.text)
		}
		subject := e.leaf.Subject
		if subject.String() != "CN=api.example.com,OU=Keys,O=Example,ST=Bavaria,C=DE" || e.leaf.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			t.Errorf("subject %s, %s", subject, e.leaf.SignatureAlgorithm)
		}
		if e.leaf.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment || len(e.leaf.ExtKeyUsage) != 1 ||
			len(e.leaf.IPAddresses) != 2 || len(e.leaf.EmailAddresses) != 1 || len(e.leaf.URIs) != 1 || e.leaf.IsCA {
			t.Errorf("leaf %+v", e.leaf)
		}
		if at := slices.IndexFunc(e.leaf.Extensions, func(x pkix.Extension) bool { return x.Id.String() == "1.3.6.1.4.1.2011.4.1" }); at < 0 ||
			!strings.Contains(string(e.leaf.Extensions[at].Value), "This is custom.") {
			t.Error("the custom extension is missing")
		}
		if !e.leaf.NotBefore.Equal(now.Truncate(time.Second)) || !e.leaf.NotAfter.Equal(now.Truncate(time.Second).AddDate(0, 0, 30)) {
			t.Errorf("valid %s to %s", e.leaf.NotBefore, e.leaf.NotAfter)
		}

		shown := b.pca("GET", "/"+id, nil)
		wantStatus(t, shown, 200)
		want := map[string]any{
			"certificate_id": id, "status": "ISSUED", "issuer_id": b.issuer, "issuer_name": issuingCA, "key_algorithm": "EC256",
			"signature_algorithm": "SHA256", "freeze_flag": 0.0, "gen_mode": "GENERATE", "serial_number": e.leaf.SerialNumber.String(),
			"create_time": float64(now.Truncate(time.Second).UnixMilli()), "delete_time": nil, "not_before": float64(e.leaf.NotBefore.UnixMilli()),
			"not_after": float64(e.leaf.NotAfter.UnixMilli()), "enc_cert_info": nil, "enterprise_project_id": "0",
			"distinguished_name": map[string]any{
				"common_name": apiHost, "country": "DE", "state": "Bavaria", "locality": "", "organization": "Example", "organizational_unit": "Keys",
			},
		}
		if got, _ := json.Marshal(shown.json); string(got) != mustJSON(want) {
			t.Errorf("shown %s\nwant  %s", got, mustJSON(want))
		}
		listed := b.pca("GET", "", nil)
		if mustJSON(listed.json) != mustJSON(map[string]any{"total": 1, "certificates": []any{want}}) {
			t.Errorf("listed %s", listed.text)
		}
		quota := b.pca("GET", "/quotas", nil)
		if mustJSON(quota.json) != `{"quotas":{"resources":[{"quota":100000,"type":"CERTIFICATE","used":1}]}}` {
			t.Errorf("quota %s", quota.text)
		}

		r := b.pca("POST", "/"+id+"/revoke", map[string]any{"reason": "SUPERSEDED"})
		wantStatus(t, r, 204)
		info := b.sim.PrivateCertificates()[0]
		if r.text != "" || info.Status != "REVOKED" || info.RevokedReason != "SUPERSEDED" || info.Fingerprint != entry.Fingerprint {
			t.Errorf("revoked %+v", info)
		}
		wantError(t, b.pca("POST", "/"+id+"/revoke", map[string]any{}), 403, "PCA.10010071")
		wantError(t, b.pca("POST", "/"+id+"/export", exportBody()), 400, "PCA.10019003")
		wantStatus(t, b.pca("DELETE", "/"+id, nil), 204)
		for _, gone := range []reply{
			b.pca("GET", "/"+id, nil), b.pca("DELETE", "/"+id, nil), b.pca("POST", "/"+id+"/export", exportBody()),
			b.pca("POST", "/"+id+"/revoke", map[string]any{}), b.pca("GET", "/"+id+"/tags", nil),
		} {
			wantError(t, gone, 400, "PCA.10010002")
		}
	})
}

func mustJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Reference 0.2, 1.4: a signature, or a token with the account as its scope.
func TestPCAAuthentication(t *testing.T) {
	b := newPCABench(t, nil)
	domain := b.sim.Config().DomainID
	get := func(change ...func(*http.Request)) reply {
		return b.send("GET", "/v1/private-certificates", nil, change...)
	}
	named := func(id string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("X-Domain-Id", id) } }
	wantStatus(t, get(b.withToken), 200)
	wantStatus(t, get(b.withToken, named(domain)), 200)
	wantStatus(t, get(signAs(testAK, testSK)), 200)
	wantStatus(t, get(named(domain), signAs(testAK, testSK)), 200)
	wantError(t, get(), 401, "APIGW.0301")
	wantError(t, get(named(b.sim.Config().ProjectID), signAs(testAK, testSK)), 403, "PCA.00000403")
	wantError(t, get(signAs(testAK, "wrong")), 401, "APIGW.0301")
	wantError(t, get(func(r *http.Request) { r.Header.Set("X-Auth-Token", "x") }), 401, "APIGW.0301")
	for _, scope := range []string{"project", "none"} {
		b.token = b.login(scope)
		wantError(t, get(b.withToken), 403, "PCA.00000403")
	}
	inService := newPCABench(t, func(c *Config) { c.TokenErrorsInService = true })
	inService.sim.ExpireTokens()
	wantError(t, inService.pca("GET", "", nil), 401, "PCA.00000401")
}

// signAs signs as the owner of a key, now.
func signAs(ak, sk string) func(*http.Request) {
	return func(r *http.Request) { signIndependently(r, ak, sk, time.Now()) }
}

// What Misbehave may change: an unknown member, and by the seed the base of serial numbers, a last newline, hours and
// the signs of tag keys.
func TestPCAMisbehave(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(12) {
		b := newPCABench(t, func(c *Config) { c.Misbehave, c.Seed = true, seed })
		id := b.apply()
		shown := b.pca("GET", "/"+id, nil)
		if shown.json["extra_since_next_release"] == nil {
			t.Fatalf("shown %s", shown.text)
		}
		e := b.export(id)
		serial := shown.str("serial_number")
		if got := e.leaf.SerialNumber; got.String() != serial && got.Text(16) != serial {
			t.Errorf("serial %s, certificate %s", serial, got)
		}
		seen[fmt.Sprint("hex ", e.leaf.SerialNumber.String() != serial)] = true
		seen[fmt.Sprint("newline ", strings.HasSuffix(e.str("certificate"), "\n"))] = true
		seen[fmt.Sprint("hours ", b.pca("POST", "", b.application("validity", validity("HOUR", 1))).status)] = true
		seen[fmt.Sprint("slash ", b.pca("POST", "/"+id+"/tags/create", tags("a/b", "c")).status)] = true
	}
	if len(seen) != 8 {
		t.Errorf("seen %v", slices.Sorted(maps.Keys(seen)))
	}
}

// Named answers have the service's own codes; the faults of the wire work as for the others.
func TestPCAFaults(t *testing.T) {
	b := newPCABench(t, nil)
	for name, tt := range map[string]struct {
		status int
		code   string
	}{
		FaultInternal: {500, "PCA.00010001"}, FaultBusy: {500, "PCA.00010002"}, FaultTokenInvalid: {401, "PCA.00000401"},
		FaultThrottle: {429, "APIGW.0308"}, FaultUnauthorized: {401, "APIGW.0301"},
	} {
		for _, phase := range []Phase{Before, After} {
			before := len(b.sim.PrivateCertificates())
			b.add(Fault{Service: "ccm", Operation: "create_certificate", Name: name, Phase: phase, Count: 1})
			wantError(t, b.pca("POST", "", b.application()), tt.status, tt.code)
			if effect := len(b.sim.PrivateCertificates()) > before; effect != (phase == After) || lastEntry(b.bench).Effect != effect {
				t.Errorf("%s %s: effect %v", name, phase, effect)
			}
		}
	}
	b.add(Fault{Service: "ccm", Operation: "create_certificate_by_csr", Name: FaultLost, Count: 1})
	text, _ := csr(t, nil)
	before := len(b.sim.PrivateCertificates())
	if r := b.pca("POST", "/csr", b.csrBody(text)); r.err == nil || len(b.sim.PrivateCertificates()) != before+1 {
		t.Errorf("lost: %v", r.err)
	}
	id := b.apply()
	b.add(Fault{Service: "ccm", Operation: "show_certificate", Name: FaultWrongType, Field: "certificate_id", Count: 1})
	if r := b.pca("GET", "/"+id, nil); r.status != 200 || r.str("certificate_id") != "" {
		t.Errorf("wrong type: %s", r.text)
	}
	b.add(Fault{Service: "ccm", Operation: "export_certificate", Name: FaultCut, Count: 1})
	if r := b.pca("POST", "/"+id+"/export", exportBody("is_compressed", "true")); r.err == nil {
		t.Error("the zip is whole")
	}
}

// Every operation has its name in the ledger.
func TestPCAOperations(t *testing.T) {
	b := newPCABench(t, nil)
	id := b.apply()
	text, _ := csr(t, nil)
	for _, call := range []struct {
		method, path string
		body         any
		operation    string
	}{
		{"POST", "", b.application(), "create_certificate"}, {"POST", "/csr", b.csrBody(text), "create_certificate_by_csr"},
		{"POST", "/csr/parse", map[string]any{"csr": text}, "parse_csr"}, {"GET", "", nil, "list_certificates"}, {"GET", "/" + id, nil, "show_certificate"},
		{"POST", "/" + id + "/export", exportBody(), "export_certificate"}, {"GET", "/quotas", nil, "show_quota"},
		{"POST", "/" + id + "/tags/create", tags("k", "v"), "create_tags"}, {"GET", "/" + id + "/tags", nil, "list_tags"},
		{"DELETE", "/" + id + "/tags/delete", tags("k", ""), "delete_tags"}, {"POST", "/resource-instances/filter", map[string]any{}, "filter_certificates"},
		{"POST", "/" + id + "/revoke", map[string]any{}, "revoke_certificate"}, {"DELETE", "/" + id, nil, "delete_certificate"},
		{"GET", "-x", nil, ""},
	} {
		r := b.pca(call.method, call.path, call.body)
		if e := lastEntry(b.bench); e.Operation != call.operation && call.operation != "" || call.operation != "" && r.status >= 300 {
			t.Errorf("%s %s: %s, %d", call.method, call.path, e.Operation, r.status)
		}
		wrong := b.pca(call.method, call.path+"?surprise=1", call.body)
		if call.operation != "" {
			wantError(t, wrong, 400, "PCA.00020001")
		}
	}
}

// The console, in Go and over the management API; keys are in neither, nor in the ledger.
func TestPCAConsole(t *testing.T) {
	b := newPCABench(t, func(c *Config) { c.Management = true })
	manage := func(path string, body any) reply { return b.send("POST", "/sim/console/ca/"+path, body) }
	id, err := b.sim.ConsoleIssue(b.issuer, "other.example.com", apiHost, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	e := b.export(id)
	b.verify(e, time.Now())
	if len(e.leaf.IPAddresses) != 1 || !e.leaf.IPAddresses[0].Equal(net.ParseIP("192.0.2.1")) {
		t.Errorf("leaf %v", e.leaf.IPAddresses)
	}
	r := manage("issue", map[string]any{"issuer_id": b.issuer, "common_name": "x", "names": []string{"x.example.com"}})
	wantStatus(t, r, 200)
	wantStatus(t, manage("revoke", map[string]any{"certificate_id": r.str("id")}), 200)
	wantStatus(t, manage("authority", map[string]any{"id": b.issuer, "status": "DISABLED"}), 200)
	wantStatus(t, manage("delete", map[string]any{"certificate_id": id}), 200)
	var operations []string
	for _, entry := range b.sim.Ledger() {
		if entry.Service == serviceConsole {
			operations = append(operations, entry.Operation)
		}
	}
	if fmt.Sprint(operations) != "[IssuePrivate IssuePrivate RevokePrivate SetAuthority DeletePrivate]" {
		t.Errorf("ledger %v", operations)
	}
	for _, err := range []error{
		b.sim.ConsoleRevoke(id), b.sim.ConsoleRevoke(r.str("id")), b.sim.ConsoleDeletePrivate(id), b.sim.ConsoleSetAuthority("x", "ACTIVED"),
		b.sim.ConsoleSetAuthority(b.issuer, "x"),
	} {
		if err == nil {
			t.Error("no error")
		}
	}
	for _, tt := range [][2]string{{b.issuer, "x"}, {"x", "x"}} { // disabled, unknown
		if _, err := b.sim.ConsoleIssue(tt[0], tt[1]); err == nil {
			t.Error("no error")
		}
	}
	_ = b.sim.ConsoleSetAuthority(b.issuer, "ACTIVED")
	if _, err := b.sim.ConsoleIssue(b.issuer, "a/b"); err == nil {
		t.Error("no error for the name")
	}
	state := b.send("GET", "/sim/state", nil)
	if len(state.json["authorities"].([]any)) != 7 || len(state.json["private_certificates"].([]any)) != 1 {
		t.Errorf("state %s", state.text)
	}
	for _, text := range []string{state.text, fmt.Sprintf("%+v", b.sim.Ledger()), b.send("GET", "/sim/ledger", nil).text} {
		if strings.Contains(text, "PRIVATE KEY") {
			t.Error("a key leaked")
		}
	}
}

// What a caller puts in the wrong place, and what is exported, is neither in the log nor in the ledger.
func TestPCANoSecretsLeak(t *testing.T) {
	var log bytes.Buffer
	b := newPCABench(t, func(c *Config) {
		c.Misbehave, c.Logger = true, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	p := newPair(apiHost)
	id := b.apply()
	key := strings.ReplaceAll(b.export(id).key, "\r\n", "\n")
	wantStatus(t, b.pca("POST", "/"+id+"/export", exportBody("password", "Secret-1", "is_compressed", "true")), 200)
	b.pca("POST", "/"+id+"/export", exportBody("password", "Secret 1"))
	b.pca("POST", "", b.application(p.key, p.key))
	b.pca("POST", "", b.application("distinguished_name", map[string]any{"common_name": p.key, "state": p.key}))
	b.pca("POST", "", b.application("issuer_id", p.key, "key_algorithm", p.key))
	b.pca("POST", "", b.application("issuer_id", b.issuer, "key_usages", []string{p.key}, "subject_alternative_names", []any{san(p.key, p.key)}))
	b.pca("POST", "/csr", b.csrBody(p.key))
	b.pca("POST", "/"+id+"/tags/create", tags(p.key, p.key))
	b.pca("POST", "/"+id+"/revoke", map[string]any{"reason": p.key})
	b.pca("POST", "/resource-instances/filter", map[string]any{"matches": []any{map[string]any{"key": p.key, "value": p.key}}})
	for _, text := range []string{log.String(), fmt.Sprintf("%+v", b.sim.Ledger()), fmt.Sprintf("%+v", b.sim.state())} {
		noKeyIn(t, text, p)
		noKeyIn(t, text, pair{key: key})
		if strings.Contains(text, "Secret") || strings.Contains(text, b.token) {
			t.Error("a secret leaked")
		}
	}
}
