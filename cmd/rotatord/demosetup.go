package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

const (
	demoShop     = "shop.example.com"
	demoAPI      = "api.example.com"
	demoPayments = "payments.example.com"
	demoSubject  = "certs.api.renewed"
	demoParty    = "grafana"
	demoChain    = "fullchain.pem"
	demoKey      = "privkey.pem"
)

// prepare makes a CA, a PEM directory, a cloud and the configuration files.
func (d *demo) prepare(ctx context.Context) error {
	d.title("A cloud, a CA and directories of PEM files")
	var err error
	if d.ca, err = certstest.NewCA("rotatord demo"); err != nil {
		return fmt.Errorf("make a CA: %w", err)
	}
	for _, dir := range []string{"shop", "api", "web", "payments", "sso", "policies"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o700); err != nil {
			return fmt.Errorf("make directories: %w", err)
		}
	}
	shop, err := d.issue("shop", demoShop)
	if err != nil {
		return err
	}
	if _, err := d.issue("api", demoAPI); err != nil {
		return err
	}
	d.say("a CA, and certificates for %s and %s below %s", demoShop, demoAPI, d.dir)
	if err := d.startCloud(ctx, shop); err != nil {
		return err
	}
	d.webServers = map[string]string{}
	for _, dir := range []string{"web", "payments"} {
		if d.webServers[dir], err = serveFiles(ctx, filepath.Join(d.dir, dir)); err != nil {
			return err
		}
		d.say("a web server at %s that reads its certificate from %s", d.webServers[dir], filepath.Join(d.dir, dir))
	}
	return d.configure()
}

// issue makes a new bundle and puts it on disk, each file renamed into its place.
func (d *demo) issue(dir, name string) (*certs.Bundle, error) {
	bundle, err := d.ca.Issue(certstest.Options{Names: []string{name}, NotBefore: time.Now().Add(-time.Minute)})
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	if err := certstest.WritePair(filepath.Join(d.dir, dir), name, bundle); err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	return bundle, nil
}

// startCloud starts the simulator: a firewall where a person once bound the shop's
// certificate by hand, an API gateway whose domain nobody has cared for yet, a private CA
// and an identity provider.
func (d *demo) startCloud(ctx context.Context, shop *certs.Bundle) error {
	key, err := shop.Key.PEM(certs.Traditional)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	d.sim, err = cloudsim.New(cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Propagation: 700 * time.Millisecond, Edges: 2,
		Hosts: []cloudsim.Host{
			{Name: demoShop, Certificate: cloudsim.Certificate{Name: "uploaded-by-hand", CertPEM: shop.FullChainPEM(), KeyPEM: key}},
		},
		Gateways: []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{Name: demoAPI}}}}}},
		Authorities: []cloudsim.Authority{
			{CommonName: "Demo Root CA", Organization: "Demo"},
			{CommonName: "Demo Issuing CA", Organization: "Demo", Parent: "Demo Root CA"},
		},
		Instances: []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: demoParty}}}},
	})
	if err != nil {
		return err
	}
	if err := d.sim.Start(ctx); err != nil {
		return err
	}
	d.say("a simulated cloud at %s: a firewall for %s, an API gateway for %s,", d.sim.URL(), demoShop, demoAPI)
	d.say("  a private CA, an identity provider for %s; edges at %s", demoParty, strings.Join(d.sim.EdgeAddrs(), " and "))
	return nil
}

// configure writes what a user would write.
func (d *demo) configure() error {
	info, err := describeSimulator(d.sim, d.dir, d.sim.Config().SecretKey)
	if err != nil {
		return err
	}
	files := map[string]string{
		"ca.pem": string(d.ca.RootPEM()),
		"rotatord.yaml": `state: state
http: {listen: "127.0.0.1:0"}
nats:
  embedded: {listen: "127.0.0.1:0"}
` + info.cloudYAML(),
		"policies/shop.yaml": d.directoryPolicy("shop", demoShop, fmt.Sprintf(`  - name: edge
    waf: {hosts: [%s]}
  - name: web
    file: {directory: %s, full_chain: %s, key: %s}
`, demoShop, filepath.Join(d.dir, "web"), demoChain, demoKey)),
		"policies/api.yaml": d.directoryPolicy("api", demoAPI, fmt.Sprintf(`  - name: gateway
    apig: {instance_id: %s, domains: [%s], replace: new}
when: {on: [nats, drift], subjects: [%s]}
`, info.GatewayID, demoAPI, demoSubject)),
		"policies/payments.yaml": fmt.Sprintf(`name: payments
source:
  private_ca:
    issuer_id: %s
    common_name: %s
    key: {algorithm: EC256, held: local}
    validity: 90d
    extended_key_usages: [server_auth]
    superseded: revoke
targets:
  - name: server
    file: {directory: %s, full_chain: %s, key: %s}
when: {renew: {before: 30d}}
%sretain: {superseded: 0, for: 1s}
`, info.AuthorityID, demoPayments, filepath.Join(d.dir, "payments"), demoChain, demoKey, d.verify(demoPayments)),
		"policies/sso.yaml": fmt.Sprintf(`name: sso
source:
  identity_center:
    instance_id: %s
    application_instance_id: %s
    activate: {after: 24h, acknowledgements: [%s]}
targets:
  - name: %[3]s
    file: {directory: %[4]s, certificate: idp.pem}
retain: {superseded: 0, for: 1s}
`, info.InstanceID, info.ApplicationID, demoParty, filepath.Join(d.dir, "sso")),
	}
	for name, content := range files {
		if err := certs.WriteFileAtomic(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}

func (d *demo) directoryPolicy(name, host, targets string) string {
	return fmt.Sprintf(`name: %s
source:
  directory: {path: %s}
targets:
%s%sretain: {superseded: 0, for: 1s}
`, name, filepath.Join(d.dir, name), targets, d.verify(host))
}

func (d *demo) verify(host string) string {
	return fmt.Sprintf(`verify:
  endpoints: ["%s:443"]
  addresses: [%s]
  ca_file: %s
`, host, quoted(d.servers(host)), d.roots(host))
}

// servers are where a host is served: at the edges, by a web server, or both.
func (d *demo) servers(host string) []string {
	switch host {
	case demoShop:
		return append(d.sim.EdgeAddrs(), d.webServers["web"])
	case demoPayments:
		return []string{d.webServers["payments"]}
	}
	return d.sim.EdgeAddrs()
}

// roots are what the chain of a host's certificate leads to.
func (d *demo) roots(host string) string {
	if host == demoPayments {
		return filepath.Join(d.dir, "private-ca.pem")
	}
	return filepath.Join(d.dir, "ca.pem")
}

// serveFiles is a web server as there are many: TLS from two files, read anew for each
// connection. It ends with ctx.
func serveFiles(ctx context.Context, dir string) (address string, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the web server: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: demoStep,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the web server of the demo\n") }),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, demoChain), filepath.Join(dir, demoKey))
			return &pair, err
		}},
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.ServeTLS(listener, "", "") }()
	return listener.Addr().String(), nil
}
