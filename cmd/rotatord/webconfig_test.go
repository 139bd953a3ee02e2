package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// webUsers lets one user in: ada's password is "correct horse", as bcrypt has it with the least cost.
const webUsers = "basic_auth_users: {ada: $2a$04$Heshat01fB3lW5WnpOvuVefp4hdGXUMSX4lRJZhl6r8CRk3AAk00a}\n"

// TestWebConfig: with a web configuration nobody gets anything from the listener who is not let
// in, over TLS that has the newest certificate on disk.
func TestWebConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	r.issue("shop", host)
	first := r.webCertificate()
	r.write("web.yaml", "tls_server_config: {cert_file: web.pem, key_file: web.key, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert}\n"+webUsers)
	r.configure("")
	r.listenWith("web.yaml")
	d := r.start()
	r.log.waitMessage("converged: every target serves the bundle")

	client, err := r.ca.Issue(certstest.Options{Names: []string{"prometheus"}})
	must(t, err)
	one := tls.Certificate{Certificate: [][]byte{client.Leaf.Raw}, PrivateKey: client.Key.Signer()}
	for _, c := range client.Chain {
		one.Certificate = append(one.Certificate, c.Raw)
	}
	for _, test := range []struct {
		name, user, password string
		certificate          *tls.Certificate
		path                 string
		status               int // 0: no answer
	}{
		{"everything right", "ada", "correct horse", &one, "/metrics", http.StatusOK},
		{"the page too", "ada", "correct horse", &one, "/", http.StatusOK},
		{"wrong password", "ada", "battery staple", &one, "/metrics", http.StatusUnauthorized},
		{"no user", "", "", &one, "/api/v1/assignments", http.StatusUnauthorized},
		{"no user for health either", "", "", &one, "/readyz", http.StatusUnauthorized},
		{"no certificate", "ada", "correct horse", nil, "/metrics", 0},
	} {
		status, shown := r.webAsk(d, test.path, test.user, test.password, test.certificate)
		if status != test.status || status != 0 && shown != first.Fingerprint() {
			t.Errorf("%s: status %d, want %d; certificate %s", test.name, status, test.status, shown.Short())
		}
	}
	second := r.webCertificate()
	if _, shown := r.webAsk(d, "/metrics", "ada", "correct horse", &one); shown != second.Fingerprint() {
		t.Errorf("the listener shows %s, the newest is %s", shown.Short(), second.Fingerprint().Short())
	}
	plain, err := http.Get("http://" + d.http.Addr() + "/metrics")
	if err == nil {
		defer plain.Body.Close()
		if body, _ := io.ReadAll(plain.Body); plain.StatusCode == http.StatusOK || strings.Contains(string(body), "rotatord_") {
			t.Errorf("in the clear: %d %s", plain.StatusCode, body)
		}
	}
	if strings.Contains(r.log.text(), "correct horse") || strings.Contains(r.log.text(), "battery staple") {
		t.Error("a password is in the log")
	}
}

// A web configuration that cannot be used keeps the daemon from starting, and check says why.
func TestWebConfigThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"unknown field":  {"tls: {}\n", "field tls not found"},
		"no certificate": {"tls_server_config: {cert_file: nowhere.pem, key_file: web.key}\n", "nowhere.pem"},
		"no hash":        {"basic_auth_users: {ada: secretpassword}\n", "bcrypt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, host)
			r.policy("shop", host, "")
			r.issue("shop", host)
			r.webCertificate()
			r.write("web.yaml", test.text)
			r.listenWith("web.yaml")
			for _, args := range [][]string{{"check"}, {"run"}} {
				code := map[string]int{"check": 1, "run": exitBadConfig}[args[0]]
				out := r.says(code, args, "web.yaml", test.want)
				_, stdout, stderr := r.ask(args...)
				if strings.Contains(out+stdout+stderr, "secretpassword") {
					t.Errorf("%v shows what should have been a hash", args)
				}
			}
		})
	}
}

// webCertificate puts a new certificate for the listener on disk.
func (r *rig) webCertificate() *certs.Bundle {
	r.t.Helper()
	b, err := r.ca.Issue(certstest.Options{Names: []string{"127.0.0.1"}})
	must(r.t, err)
	key, err := b.Key.PEM(certs.PKCS8)
	must(r.t, err)
	r.write("web.key", string(key))
	r.write("web.pem", string(b.FullChainPEM()))
	return b
}

// listenWith names a web configuration.
func (r *rig) listenWith(name string) {
	r.t.Helper()
	path := filepath.Join(r.dir, "rotatord.yaml")
	text, err := os.ReadFile(path)
	must(r.t, err)
	r.write("rotatord.yaml", strings.Replace(string(text), `{listen: "127.0.0.1:0"}`, `{listen: "127.0.0.1:0", web_config: `+name+`}`, 1))
}

// webAsk gets a path; status 0 means that there was no answer.
func (r *rig) webAsk(d *daemon, path, user, password string, certificate *tls.Certificate) (status int, shown certs.Fingerprint) {
	r.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.ca.RootPEM())
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://"+d.http.Addr()+path, nil)
	must(r.t, err)
	if user != "" {
		q.SetBasicAuth(user, password)
	}
	answer, err := transport.RoundTrip(q)
	if err != nil {
		return 0, shown
	}
	defer answer.Body.Close()
	return answer.StatusCode, certs.FingerprintOf(answer.TLS.PeerCertificates[0])
}
