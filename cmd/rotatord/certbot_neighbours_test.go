//go:build neighbours

package main

import (
	"crypto/rsa"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers"
)

// nobody is the user and the group that the daemon of these tests runs as: Debian's nobody and
// nogroup.
const nobody = 65534

// beside is a certbot and a rotatord on one host, which have live/ in common and nothing else:
// certbot is root, rotatord is not.
type beside struct {
	*rig
	*certbot
	t       *testing.T
	web     string // where the files of the file target are served
	binary  string
	running *process
}

func newBeside(t *testing.T) *beside {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: certbot's files are root's, and the daemon is nobody's")
	}
	b := &beside{t: t, rig: newRig(t, host), certbot: newCertbot(t, startACME(t))}
	served := filepath.Join(b.dir, "served")
	must(t, os.Mkdir(served, 0o755))
	b.web = fileServer(t, served)
	b.write("policies/shop.yaml", fmt.Sprintf(`name: shop
source: {directory: {path: %s, recursive: true}}
targets:
- {name: edge, waf: {hosts: [%s]}}
- {name: web, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem}}
verify: {endpoints: ["%s:443"], addresses: [%s, %q], ca_file: root.pem}
retain: {superseded: 1, for: 0s}
`, filepath.Join(b.config, "live"), host, served, host, quoted(b.sim.EdgeAddrs()), b.web))
	root, err := os.ReadFile(b.rootFile)
	must(t, err)
	b.write("policies/root.pem", string(root))

	// What rotatord needs is nobody's, and the way to it is open.
	built, err := buildBinary()
	must(t, err)
	program, err := os.ReadFile(built)
	must(t, err)
	b.binary = filepath.Join(b.dir, "rotatord")
	must(t, os.WriteFile(b.binary, program, 0o755))
	must(t, os.Chmod(filepath.Dir(b.dir), 0o711))
	b.asRoot("chown", "-R", "nobody:nogroup", b.dir)
	return b
}

// asRoot runs what an operator would.
func (b *beside) asRoot(args ...string) {
	b.t.Helper()
	if out, err := exec.CommandContext(b.t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// up starts the daemon, as nobody.
func (b *beside) up() {
	b.t.Helper()
	b.running = launchWith(b.t, func(cmd *exec.Cmd) {
		cmd.Path = b.binary
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}, "run", "--config", filepath.Join(b.dir, "rotatord.yaml"))
	b.log = b.running.log
}

func (b *beside) down() {
	b.t.Helper()
	if err := b.running.stop(syscall.SIGTERM); err != nil {
		b.t.Errorf("after SIGTERM: %v", err)
	}
}

// hook is the deploy hook of docs/acme.md, for the daemon's group.
func (b *beside) hook() string {
	b.t.Helper()
	text := fromPage(b.t, "HOOK")
	if !strings.Contains(text, "chgrp rotatord ") {
		b.t.Fatalf("it is not for the group rotatord: %s", text)
	}
	path := filepath.Join(filepath.Dir(b.config), "may-read")
	must(b.t, os.WriteFile(path, []byte(strings.ReplaceAll(text, "chgrp rotatord ", "chgrp nogroup ")), 0o755))
	return path
}

// arrives waits until what the lineage has now is served everywhere, as the n-th upload of all.
func (b *beside) arrives(lineage string, n int) *certs.Bundle {
	b.t.Helper()
	bundle, key := b.live(lineage)
	b.converged(bundle)
	b.serves(bundle)
	uploads := 0
	for _, e := range b.sim.Ledger() {
		if e.Operation == "CreateCertificate" { // also one that was refused, as a wrong key would be
			uploads++
		}
	}
	if uploads != n {
		b.t.Errorf("%d uploads were tried, want %d", uploads, n)
	}
	if strings.Contains(b.log.text(), key) {
		b.t.Error("the key is in the log")
	}
	return bundle
}

// missing waits until it is told that the source has a certificate no more.
func (b *beside) missing(certificate string) {
	b.t.Helper()
	eventually(b.t, "what is said of "+certificate, func() bool {
		for line := range strings.Lines(b.log.text()) {
			if strings.Contains(line, `"certificate":"`+certificate+`"`) && strings.Contains(line, "its source has no such certificate; what is served stays as it is") {
				return true
			}
		}
		return false
	})
}

// serves asks the firewall's edges and the server of the files.
func (b *beside) serves(bundle *certs.Bundle) {
	b.t.Helper()
	for _, p := range (probe.Prober{}).Probe(b.t.Context(), providers.ProbeRequest{
		Endpoints: []string{host + ":443"}, Addresses: append(b.sim.EdgeAddrs(), b.web), CheckChain: true, CAFile: b.rootFile,
	}) {
		if !p.Serves(bundle.Fingerprint()) {
			b.t.Error(p.Complaint(bundle.Fingerprint()))
		}
	}
}

// TestNeighbourCertbot has a real certbot get certificates of a real ACME server, in every way
// that changes its files, beside a daemon that may read them by docs/acme.md.
func TestNeighbourCertbot(t *testing.T) {
	t.Parallel()
	b := newBeside(t)
	b.obtain([]string{host})
	b.up()
	b.log.waitText("permission denied") // certbot's directories are root's
	hook := b.hook()
	b.asRoot("env", "RENEWED_LINEAGE="+filepath.Join(b.config, "live", host), hook)
	b.arrives(host, 1)

	b.renew() // with no hook: certbot keeps group and mode
	b.arrives(host, 2)
	b.renew("--key-type", "rsa", "--rsa-key-size", "2048")
	withRSA := b.arrives(host, 3)
	b.renew("--reuse-key")
	again := b.arrives(host, 4)
	if key, ok := withRSA.Leaf.PublicKey.(*rsa.PublicKey); !ok || !key.Equal(again.Leaf.PublicKey) {
		t.Errorf("certbot has made a %T and not used it again", withRSA.Leaf.PublicKey)
	}
	b.obtain([]string{host, "www." + host}, "--cert-name", host, "--key-type", "ecdsa", "--no-reuse-key")
	if more := b.arrives(host, 5); len(more.Leaf.DNSNames) != 2 {
		t.Errorf("certbot has expanded it to %v", more.Leaf.DNSNames)
	}

	b.down()
	b.renew()
	b.renew()
	b.up()
	b.arrives(host, 6) // the one between was never needed

	// A second lineage of the same names: the newer certificate counts.
	withHook := []string{"--deploy-hook", hook}
	b.obtain([]string{host, "www." + host}, append(withHook, "--duplicate")...)
	second := b.arrives(host+"-0001", 7)
	b.run("delete", "--cert-name", host+"-0001")
	b.log.waitText("serves a certificate that was issued later") // than what is left
	b.serves(second)
	// With another name first, which pebble gives no common name, it is another certificate.
	b.obtain([]string{"www." + host, host}, "--cert-name", host, "--force-renewal")
	renamed := b.arrives(host, 8)
	b.missing(host)
	b.run("delete", "--cert-name", host)
	b.missing("www." + host)
	b.serves(renamed)
	b.obtain([]string{host, "www." + host}, withHook...)
	b.arrives(host, 9)
	if strings.Contains(b.log.text(), `"msg":"step failed"`) {
		t.Error("a step has failed")
	}
}

// TestNeighbourCertbotACL: the other way of docs/acme.md, with default ACLs. They are enough for
// renewals; a lineage that is new needs setfacl once more, since certbot makes its key 0600.
func TestNeighbourCertbotACL(t *testing.T) {
	t.Parallel()
	b := newBeside(t)
	b.obtain([]string{host})
	allow := func() {
		t.Helper()
		b.asRoot("setfacl", "-R", "-m", "g:nogroup:rX,d:g:nogroup:rX", filepath.Join(b.config, "live"), filepath.Join(b.config, "archive"))
	}
	allow()
	b.up()
	b.arrives(host, 1)
	b.renew()
	b.arrives(host, 2)
	b.obtain([]string{host}, "--duplicate")
	b.log.waitText("permission denied")
	allow()
	b.arrives(host+"-0001", 3)
}
