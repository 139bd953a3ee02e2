package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// fileServer serves TLS with the pair that is in a directory.
func fileServer(t *testing.T, dir string) (address string) {
	t.Helper()
	return pairServer(t, filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem"))
}

// pairServer serves TLS with what is in these files at each handshake, as a program does
// that was told to reload.
func pairServer(t *testing.T, fullChain, key string) (address string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(fullChain, key)
			return &pair, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				_ = c.(*tls.Conn).Handshake()
			}(c)
		}
	}()
	return listener.Addr().String()
}

// script writes an executable shell script.
func (r *rig) script(name, body string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestFileTarget(t *testing.T) {
	r := newRig(t, "unused.example.com")
	out := filepath.Join(r.dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	address := fileServer(t, out)
	reload := r.script("reload", `echo "$ROTATORD_FINGERPRINT" >> `+filepath.Join(r.dir, "reloads"))
	r.write("policies/web.yaml", fmt.Sprintf(`name: web
source: {directory: {path: %s}}
targets:
  - name: server
    file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem, mode: "0640", reload: {command: [%s]}}
verify: {endpoints: ["%s:443"], addresses: ["%s"], ca_file: %s}
retain: {superseded: 1, for: 0s}
`, filepath.Join(r.dir, "web"), out, reload, host, address, filepath.Join(r.dir, "ca.pem")))
	first := r.issue("web", host)
	r.start()
	r.converged(first)
	second := r.issue("web", host)
	r.converged(second)
	third := r.issue("web", host)
	r.converged(third)

	reloads, err := os.ReadFile(filepath.Join(r.dir, "reloads"))
	if err != nil {
		t.Fatal(err)
	}
	want := first.Fingerprint().String() + "\n" + second.Fingerprint().String() + "\n" + third.Fingerprint().String() + "\n"
	if string(reloads) != want {
		t.Errorf("reloads:\n%swant\n%s", reloads, want)
	}
	info, err := os.Stat(filepath.Join(out, "privkey.pem"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the key's mode: %v, %v", info.Mode(), err)
	}
	if key, err := os.ReadFile(filepath.Join(out, "privkey.pem")); err != nil || strings.Contains(r.log.text(), strings.Split(string(key), "\n")[1]) {
		t.Errorf("the key is in the log, or cannot be read: %v", err)
	}
}

func TestFailingReloadIsRepeatedUntilItSucceeds(t *testing.T) {
	t.Parallel()
	r := newRig(t, "unused.example.com")
	out := filepath.Join(r.dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	reload := r.script("reload", `test -e `+filepath.Join(r.dir, "mended")+` || { echo "no such site"; exit 3; }`)
	r.write("policies/web.yaml", fmt.Sprintf(`name: web
source: {directory: {path: %s}}
targets: [{name: server, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem, reload: {command: [%s]}}}]
`, filepath.Join(r.dir, "web"), out, reload))
	bundle := r.issue("web", host)
	r.start()
	line := r.log.waitMessage("step failed")
	if line["step"] != "activate" {
		t.Errorf("step failed: %v", line)
	}
	r.write("mended", "yes")
	r.converged(bundle)
}

// TestGateway rotates a domain of an API gateway in both ways, from what a person bound
// there by hand.
func TestGateway(t *testing.T) {
	for _, replace := range []string{"in_place", "new"} {
		t.Run(replace, func(t *testing.T) {
			ca, err := certstest.NewCA("console")
			if err != nil {
				t.Fatal(err)
			}
			old, err := ca.Issue(certstest.Options{Names: []string{host}, NotBefore: time.Now().Add(-30 * 24 * time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			key, err := old.Key.PEM(certs.Traditional)
			if err != nil {
				t.Fatal(err)
			}
			r := newRigWith(t, cloudsim.Config{
				AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Edges: 2,
				Gateways: []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{
					Name: host, Certificates: []cloudsim.GatewayCertificate{{Name: "by_hand", CertPEM: old.FullChainPEM(), KeyPEM: key, Instance: true}},
				}}}}}},
			})
			gateway := r.sim.Config().Gateways[0].ID
			r.write("policies/gw.yaml", fmt.Sprintf("name: gw\nsource: {directory: {path: %s}}\ntargets: [{name: gateway, apig: {instance_id: %s, domains: [%s], replace: %s}}]\n"+
				"verify: {endpoints: [\"%s:443\"], addresses: [%s], ca_file: %s}\nretain: {superseded: 0, for: 0s}\n",
				filepath.Join(r.dir, "gw"), gateway, host, replace, host, quoted(r.sim.EdgeAddrs()), filepath.Join(r.dir, "ca.pem")))
			for i := range 3 {
				bundle := r.issue("gw", host)
				if i == 0 {
					r.start()
				}
				r.converged(bundle)
				r.expectServed(host, bundle)
			}
			made := 0
			for _, e := range r.sim.Ledger() {
				if e.Operation == "CreateCertificateV2" && e.Effect {
					made++
				}
			}
			if want := map[string]int{"in_place": 0, "new": 3}[replace]; made != want {
				t.Errorf("%d certificate objects were made, want %d", made, want)
			}
			eventually(t, "no superseded certificate", func() bool {
				return len(r.sim.APIGCertificates()) <= map[string]int{"in_place": 1, "new": 2}[replace] // by_hand stays
			})
		})
	}
}

// TestEditedFilesAreRepaired: somebody writes over the file that a program reads.
func TestEditedFilesAreRepaired(t *testing.T) {
	r := newRig(t, "unused.example.com")
	r.configure("nats: {embedded: {listen: \"127.0.0.1:0\"}}\n")
	out := filepath.Join(r.dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("policies/web.yaml", fmt.Sprintf("name: web\nsource: {directory: {path: %s}}\ntargets: [{name: server, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem}}]\n", filepath.Join(r.dir, "web"), out))
	bundle := r.issue("web", host)
	d := r.start()
	r.converged(bundle)
	file := filepath.Join(out, "fullchain.pem")
	if err := os.WriteFile(file, []byte("oops\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	request(t, d, "rotatord.trigger.web", "")
	if line := r.log.waitMessage("drift: the target no longer serves what was verified"); line["drift"] != "edited" {
		t.Errorf("drift: %v", line)
	}
	r.log.waitMessage("drift repaired")
	if got := certificateIn(t, file); got != bundle.Fingerprint() {
		t.Errorf("the file has %s", got.Short())
	}
}
