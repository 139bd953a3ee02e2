//go:build neighbours

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// haproxy is a running HAProxy that serves what a file target installs.
type haproxy struct {
	*rig
	address, config, served string
	socket, pidFile         string
}

const haproxyConfig = `global
  master-worker
  stats socket %s mode 600 level admin
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend web
  bind %s ssl crt %s
  http-request return status 200
  %s
`

// newHAProxy writes its configuration; files and program come with installed.
func newHAProxy(t *testing.T) *haproxy {
	t.Helper()
	r := newRig(t, "unused.example.com")
	h := &haproxy{rig: r, address: freeAddress(t), config: filepath.Join(r.dir, "haproxy.cfg"), served: filepath.Join(r.dir, "tls"),
		socket: filepath.Join(r.dir, "admin.sock"), pidFile: filepath.Join(r.dir, "haproxy.pid")}
	must(t, os.Mkdir(h.served, 0o755))
	h.configureHAProxy("")
	return h
}

// configureHAProxy writes its configuration, with one more line in it.
func (h *haproxy) configureHAProxy(more string) {
	h.t.Helper()
	h.write("haproxy.cfg", fmt.Sprintf(haproxyConfig, h.socket, h.address, filepath.Join(h.served, "site.pem"), more))
}

// worker is the process that serves, as HAProxy says.
func (h *haproxy) worker() string {
	h.t.Helper()
	conn, err := net.Dial("unix", h.socket)
	must(h.t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("show info\n"))
	must(h.t, err)
	answer, err := io.ReadAll(conn)
	must(h.t, err)
	_, rest, _ := strings.Cut(string(answer), "\nPid: ")
	pid, _, found := strings.Cut(rest, "\n")
	if !found {
		h.t.Fatalf("HAProxy says %s", answer)
	}
	return pid
}

// serves asks HAProxy once.
func (h *haproxy) serves(b *certs.Bundle) {
	h.t.Helper()
	conn, err := tls.Dial("tcp", h.address, &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	must(h.t, err)
	defer conn.Close()
	if is := certs.FingerprintOf(conn.ConnectionState().PeerCertificates[0]); is != b.Fingerprint() {
		h.t.Errorf("HAProxy serves %s, want %s", is.Short(), b.Fingerprint().Short())
	}
}

// run starts HAProxy with what is installed.
func (h *haproxy) run() {
	h.t.Helper()
	background(h.t, nil, "haproxy", "-W", "-f", h.config, "-p", h.pidFile)
}

// installed starts HAProxy and a daemon with such a reload command, and waits for the first bundle.
func (h *haproxy) installed(reload string) *certs.Bundle {
	h.t.Helper()
	h.write("policies/lb.yaml", fmt.Sprintf(`name: lb
source: {directory: {path: %s}}
targets: [{name: haproxy, file: {directory: %s, combined: site.pem, reload: {command: [%s]}}}]
verify: {endpoints: ["%s:443"], addresses: [%q], ca_file: ../ca.pem}
`, filepath.Join(h.dir, "lb"), h.served, reload, host, h.address))
	first, err := h.ca.Issue(certstest.Options{Names: []string{host}, NotBefore: time.Now().Add(-time.Minute)})
	must(h.t, err)
	must(h.t, os.WriteFile(filepath.Join(h.served, "site.pem"), combined(h.t, first), 0o600)) // by hand
	h.run()
	h.put("lb", first)
	h.start()
	h.converged(first)
	return first
}

func combined(t *testing.T, b *certs.Bundle) []byte {
	t.Helper()
	key, err := b.Key.PEM(certs.PKCS8)
	must(t, err)
	return append(b.FullChainPEM(), key...)
}

// clients ask a server over new connections, one after the other, and count what went wrong.
type clients struct {
	stop     context.CancelFunc
	wg       sync.WaitGroup
	requests int
	failures []error
}

func newClients(t *testing.T, address string) *clients {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &clients{stop: cancel}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		},
	}}
	c.wg.Go(func() {
		for ctx.Err() == nil {
			c.requests++
			answer, err := client.Get("https://" + host + "/")
			if err == nil {
				_, err = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
			if err != nil {
				c.failures = append(c.failures, err)
			}
		}
	})
	return c
}

// never ends them, and wants that nobody was turned away.
func (c *clients) never(t *testing.T) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	t.Logf("%d requests", c.requests)
	if c.requests == 0 || len(c.failures) > 0 {
		t.Errorf("%d requests, %d failed: %v", c.requests, len(c.failures), c.failures[:min(len(c.failures), 3)])
	}
}

// TestNeighbourHAProxy has a real HAProxy serve what is installed, and be told in both ways of
// docs/acme.md. Nobody is turned away meanwhile.
func TestNeighbourHAProxy(t *testing.T) {
	t.Parallel()
	t.Run("reload", func(t *testing.T) {
		t.Parallel()
		h := newHAProxy(t)
		served := h.installed(h.script("reload", fmt.Sprintf(`haproxy -c -f %s && kill -USR2 "$(cat %s)"`, h.config, h.pidFile)))
		busy := newClients(t, h.address)
		for range 3 {
			served = h.issue("lb", host)
			h.converged(served)
		}
		busy.never(t)

		// HAProxy will not have its own configuration: it goes on with the certificate of before.
		h.configureHAProxy("bind nonsense")
		next := h.issue("lb", host)
		h.log.waitMessage("step failed")
		eventually(t, "the failure in the status", func() bool {
			_, out, _ := h.ask("status")
			return strings.Contains(out, "haproxy failing") && strings.Contains(out, "the files are switched, but the service was not told: exit status 1") &&
				strings.Contains(out, "Fatal errors found in configuration")
		})
		h.serves(served)
		h.configureHAProxy("")
		h.converged(next)
		h.serves(next)
	})
	t.Run("socket", func(t *testing.T) {
		t.Parallel()
		h := newHAProxy(t)
		script := strings.ReplaceAll(fromPage(t, "SCRIPT"), "/run/haproxy/admin.sock", h.socket)
		h.installed(h.script("take", strings.TrimPrefix(script, "#!/bin/sh\n")))
		process := h.worker()
		busy := newClients(t, h.address)
		for range 3 {
			served := h.issue("lb", host)
			h.converged(served)
			h.serves(served)
		}
		busy.never(t)
		if now := h.worker(); now != process {
			t.Errorf("HAProxy was reloaded: its worker was %s and is %s", process, now)
		}
	})
}
