//go:build systemd

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

const letsencrypt = "/etc/letsencrypt"

// besideServers is the host of docs/acme.md: certbot's files, rotatord, HAProxy and nginx, each
// of them a service as its package has it.
type besideServers struct {
	*unitRig
	page string
	// address is where the server of a host listens.
	address map[string]string
}

func newBesideServers(t *testing.T) *besideServers {
	t.Helper()
	u := newUnitRig(t)
	page, err := os.ReadFile(filepath.Join(filepath.Dir(u.deploy), "acme.md"))
	must(t, err)
	b := &besideServers{unitRig: u, page: string(page), address: map[string]string{}}
	for _, name := range []string{"shop.example.com", "blog.example.com"} {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		b.address[name] = free.Addr().String()
		must(t, free.Close())
	}
	must(t, os.MkdirAll(letsencrypt, 0o755)) // as the package has it, where it is not installed
	for _, dir := range []string{"live", "archive"} {
		must(t, os.RemoveAll(filepath.Join(letsencrypt, dir)))
		must(t, os.MkdirAll(filepath.Join(letsencrypt, dir), 0o700))
	}
	must(t, os.RemoveAll("/etc/rotatord/policies"))
	must(t, os.Remove(filepath.Join(unitsDir, service+".d", "owners.conf"))) // no capability is needed
	u.run("install", "-m", "0644", filepath.Join(u.deploy, "polkit-1/rotatord.rules"), "/etc/polkit-1/rules.d/50-rotatord.rules")
	u.file("/etc/rotatord/roots.pem", 0o644, string(u.ca.RootPEM()))
	u.dropIn("roots", "Environment=SSL_CERT_FILE=/etc/rotatord/roots.pem")
	t.Cleanup(func() {
		after := &unitRig{rig: &rig{t: t}, ctx: context.Background()}
		after.run("systemctl", "stop", "haproxy.service", "nginx.service")
		after.run("rm", "-r", "/etc/rotatord/policies", letsencrypt)
	})
	return b
}

// blocks are the page's of a language.
func (b *besideServers) blocks(language string) (blocks []string) {
	for _, found := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)```").FindAllStringSubmatch(b.page, -1) {
		blocks = append(blocks, found[1])
	}
	return blocks
}

// policies writes those of the page, with the ports of here.
func (b *besideServers) policies() {
	b.t.Helper()
	for i, text := range b.blocks("yaml") {
		for name, address := range b.address {
			_, port, err := net.SplitHostPort(address)
			must(b.t, err)
			text = strings.ReplaceAll(text, `["`+name+`:443"]`, fmt.Sprintf("[%q]\n  addresses: [%q]", net.JoinHostPort(name, port), address))
		}
		b.file(fmt.Sprintf("/etc/rotatord/policies/%d.yaml", i), 0o644, text)
	}
}

// servers configures HAProxy and nginx to serve what is installed.
func (b *besideServers) servers() {
	b.t.Helper()
	b.file("/etc/haproxy/haproxy.cfg", 0o644, fmt.Sprintf(`global
  chroot /var/lib/haproxy
  stats socket /run/haproxy/admin.sock mode 660 level admin
  user haproxy
  group haproxy
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend web
  bind %s ssl crt /etc/haproxy/tls/site.pem
  http-request return status 200
`, b.address["shop.example.com"]))
	b.file("/etc/nginx/nginx.conf", 0o644, fmt.Sprintf(`user www-data; pid /run/nginx.pid;
events {}
http {
  server { listen %s ssl; ssl_certificate /etc/nginx/tls/blog.pem; ssl_certificate_key /etc/nginx/tls/blog.key; return 204; }
}
`, b.address["blog.example.com"]))
}

// certbot makes the next version of each lineage, as certbot does; the key has group and mode of
// the one before.
func (b *besideServers) certbot(lineages map[string]*certstest.Certbot) map[string]*certs.Bundle {
	b.t.Helper()
	bundles := map[string]*certs.Bundle{}
	for name, lineage := range lineages {
		bundle, err := b.ca.Issue(certstest.Options{Names: []string{name}, NotBefore: time.Now().Add(-time.Minute)})
		must(b.t, err)
		must(b.t, lineage.Save(bundle))
		before, newest := filepath.Join(lineage.Live(), "privkey.pem"), b.newestKey(lineage)
		if exists(before) {
			b.run("chgrp", "--reference="+b.run("readlink", "-f", before), newest)
			b.run("chmod", "--reference="+b.run("readlink", "-f", before), newest)
		}
		for _, stem := range certstest.CertbotFiles() {
			must(b.t, lineage.Link(stem))
		}
		bundles[name] = bundle
	}
	return bundles
}

func (b *besideServers) newestKey(lineage *certstest.Certbot) string {
	return filepath.Join(lineage.Archive(), strings.TrimSpace(b.run("sh", "-c", "ls -v "+lineage.Archive()+" | grep privkey | tail -1")))
}

// serve waits until rotatord says that all are converged, and asks the servers.
func (b *besideServers) serve(bundles map[string]*certs.Bundle) {
	b.t.Helper()
	eventually(b.t, "convergence", func() bool {
		var s admin.Status
		out, err := b.try("/usr/local/bin/rotatord", "status", "-o", "json")
		if err != nil || json.Unmarshal([]byte(out), &s) != nil || len(s.Assignments) != len(bundles) {
			return false
		}
		for _, a := range s.Assignments {
			// Of a bundle that was not looked at yet the state is its predecessor's.
			if a.State != "converged" || len(a.Probes) != 1 || a.Probes[0].Fingerprint != bundles[a.Certificate].Fingerprint().String() {
				return false
			}
		}
		return true
	})
	for name, bundle := range bundles {
		conn, err := tls.Dial("tcp", b.address[name], &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
		must(b.t, err)
		if is := certs.FingerprintOf(conn.ConnectionState().PeerCertificates[0]); is != bundle.Fingerprint() {
			b.t.Errorf("%s is served with %s, want %s", name, is.Short(), bundle.Fingerprint().Short())
		}
		_ = conn.Close()
	}
}

// TestSystemdACME does what docs/acme.md says, with its commands and its policies.
func TestSystemdACME(t *testing.T) {
	b := newBesideServers(t)
	lineages := map[string]*certstest.Certbot{}
	for name := range b.address {
		lineages[name] = certstest.NewCertbot(letsencrypt, name)
	}
	bundles := b.certbot(lineages)
	for _, lineage := range lineages {
		must(t, os.Chmod(b.newestKey(lineage), 0o600))
	}
	may := func() error {
		_, err := b.try("runuser", "-u", "rotatord", "--", "cat", letsencrypt+"/live/shop.example.com/privkey.pem")
		return err
	}
	if may() == nil {
		t.Error("the user rotatord reads the key before anything was done")
	}
	for i, block := range b.blocks("sh") {
		b.run("sh", "-euc", block)
		if i == 1 && may() != nil {
			t.Error("the hook does not let the user rotatord read the key")
		}
	}
	b.policies()
	b.servers()
	b.run("systemctl", "start", service)
	eventually(t, "the files", func() bool { return exists("/etc/haproxy/tls/site.pem") && exists("/etc/nginx/tls/blog.pem") })
	b.run("systemctl", "start", "haproxy.service", "nginx.service")
	b.serve(bundles)
	b.serve(b.certbot(lineages))

	// The other way to tell HAProxy.
	b.dropIn("group", "SupplementaryGroups=haproxy")
	b.run("systemctl", "daemon-reload")
	b.run("sed", "-i", "s#{unit: haproxy.service}#{command: [/usr/local/sbin/haproxy-take-certificate]}#", "/etc/rotatord/policies/0.yaml")
	b.run("systemctl", "restart", service)
	worker := func() string {
		return b.run("sh", "-c", "echo show info | socat - UNIX-CONNECT:/run/haproxy/admin.sock | grep ^Pid:")
	}
	process := worker()
	b.serve(b.certbot(lineages))
	if now := worker(); now != process {
		t.Errorf("HAProxy was reloaded: %s, %s", process, now)
	}
}
