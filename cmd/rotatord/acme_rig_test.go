//go:build neighbours

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// acmeServer is a pebble, with a DNS server that has every name on this host.
type acmeServer struct {
	// directory is its ACME URL, httpPort where it comes for http-01 challenges.
	directory, httpPort string
	// caFile is whom its own clients trust, rootFile what its certificates end at.
	caFile, rootFile string
}

// background starts a program and ends it with the test.
func background(t *testing.T, environment []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// startACME starts both. They need no name server and no network but the loopback.
func startACME(t *testing.T) *acmeServer {
	t.Helper()
	dir := t.TempDir()
	ca, err := certstest.NewCA("acme")
	must(t, err)
	own, err := ca.Issue(certstest.Options{Names: []string{"127.0.0.1"}})
	must(t, err)
	must(t, certstest.WritePair(dir, "own", own))
	listen, manage, dns, challenges := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	_, httpPort, err := net.SplitHostPort(challenges)
	must(t, err)
	files := &rig{t: t, dir: dir}
	files.write("ca.pem", string(ca.RootPEM()))
	files.write("pebble.json", fmt.Sprintf(`{"pebble": {"listenAddress": %q, "managementListenAddress": %q, "certificate": %q, "privateKey": %q,
		"httpPort": %s, "tlsPort": 1, "profiles": {"default": {"description": "90 days", "validityPeriod": 7776000}}}}`,
		listen, manage, filepath.Join(dir, "own.crt"), filepath.Join(dir, "own.key"), httpPort))
	background(t, nil, "pebble-challtestsrv", "-dnsserver", dns, "-management", freeAddress(t), "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	background(t, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=100", "PEBBLE_WFE_NONCEREJECT=0"}, "pebble", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", dns)
	a := &acmeServer{directory: "https://" + listen + "/dir", httpPort: httpPort, caFile: filepath.Join(dir, "ca.pem"), rootFile: filepath.Join(dir, "root.pem")}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Root())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
	eventually(t, "the ACME server", func() bool {
		answer, err := client.Get("https://" + manage + "/roots/0")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		root, err := io.ReadAll(answer.Body)
		must(t, err)
		files.write("root.pem", string(root))
		return true
	})
	return a
}

// certbot is a certbot with a configuration of its own.
type certbot struct {
	*acmeServer
	t *testing.T
	// config is what is /etc/letsencrypt elsewhere, and work what is in /var/lib and /var/log.
	config, work string
}

func newCertbot(t *testing.T, a *acmeServer) *certbot {
	t.Helper()
	dir := t.TempDir()
	return &certbot{acmeServer: a, t: t, config: filepath.Join(dir, "letsencrypt"), work: filepath.Join(dir, "work")}
}

// run calls certbot, as root.
func (c *certbot) run(args ...string) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "certbot", append([]string{
		"--config-dir", c.config, "--work-dir", c.work, "--logs-dir", c.work, "--server", c.directory,
		"--non-interactive", "--no-random-sleep-on-renew",
	}, args...)...)
	cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+c.caFile)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("certbot %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	c.t.Logf("certbot %s\n%s", strings.Join(args, " "), out)
}

// obtain gets a certificate of these names.
func (c *certbot) obtain(names []string, more ...string) {
	c.t.Helper()
	args := []string{"certonly", "--standalone", "--http-01-port", c.httpPort, "--agree-tos", "--register-unsafely-without-email"}
	for _, name := range names {
		args = append(args, "-d", name)
	}
	c.run(append(args, more...)...)
}

// renew renews all of them, or those that more names.
func (c *certbot) renew(more ...string) {
	c.t.Helper()
	c.run(append([]string{"renew", "--force-renewal"}, more...)...)
}

// live is what a lineage has now, and a line of its key.
func (c *certbot) live(lineage string) (bundle *certs.Bundle, line string) {
	c.t.Helper()
	dir := filepath.Join(c.config, "live", lineage)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem"))
	must(c.t, err)
	key, err := os.ReadFile(filepath.Join(dir, "privkey.pem"))
	must(c.t, err)
	return &certs.Bundle{Leaf: pair.Leaf}, strings.Split(string(key), "\n")[1]
}

// fromPage is a script that docs/acme.md has between two such words.
func fromPage(t *testing.T, word string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/acme.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(page), "<<'"+word+"'\n")
	script, _, found := strings.Cut(rest, "\n"+word+"\n")
	if !found {
		t.Fatalf("docs/acme.md has no %s", word)
	}
	return script + "\n"
}
