package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

const host = "shop.example.com"

func TestFileChangeIsServed(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	r.start()
	r.converged(first)
	r.expectServed(host, first)

	second := r.issue("shop", host)
	r.converged(second)
	r.expectServed(host, second)
	if n := r.effects("CreateCertificate"); n != 2 {
		t.Errorf("%d uploads for 2 bundles", n)
	}
}

func TestRestartAsksTheCloudNothing(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	bundle := r.issue("shop", host)
	t.Run("first run", func(t *testing.T) {
		r.t = t
		r.start()
		r.converged(bundle)
	})
	calls := len(r.sim.Ledger())
	r.t = t
	d := r.start()
	r.log.waitMessage("rotatord started")
	awaitReady(t, d)
	if more := len(r.sim.Ledger()) - calls; more != 0 {
		t.Errorf("%d calls of the cloud after a restart with nothing to do", more)
	}
}

// awaitReady asks /readyz until it says yes.
func awaitReady(t *testing.T, d *daemon) {
	t.Helper()
	eventually(t, "readiness", func() bool {
		r, err := http.Get("http://" + d.http.Addr() + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// eventually repeats a question that has no event to wait for.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	within(t, patience, what, ask)
}

// within is eventually with a patience of its own.
func within(t *testing.T, patience time.Duration, what string, ask func() bool) {
	t.Helper()
	every(t, 20*time.Millisecond, patience, what, ask)
}

// every is within for what is not cheap to ask.
func every(t *testing.T, pause, patience time.Duration, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ask(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s in vain", patience, what)
		}
		<-tick.C
	}
}

func TestTriggersOverNATS(t *testing.T) {
	r := newRig(t, host)
	r.configure("nats: {embedded: {listen: \"127.0.0.1:0\"}}\n")
	r.policy("shop", host, "when: {on: [nats], subjects: [certs.shop.renewed]}\n")
	first := r.issue("shop", host)
	d := r.start()
	r.converged(first)

	client, err := nats.Connect(d.bus.ListenURL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, subject := range []string{"rotatord.trigger.shop", "certs.shop.renewed"} {
		bundle := r.issue("shop", host)
		if err := client.Publish(subject, []byte(`{"reason":"test","certificate":"`+host+`"}`)); err != nil {
			t.Fatal(err)
		}
		r.converged(bundle)
		r.expectServed(host, bundle)
	}
	// Bad payloads and unknown names are said, and do no harm.
	if err := client.Publish("rotatord.trigger.shop", []byte(`{"forse":true}`)); err != nil {
		t.Fatal(err)
	}
	r.log.waitText(`unknown field "forse"`)
	if err := client.Publish("rotatord.trigger.nobody", nil); err != nil {
		t.Fatal(err)
	}
	r.log.waitMessage("trigger for a policy that is not here")
}

// TestEverythingElseGoesOn puts one thing wrong beside a policy that is fine.
func TestEverythingElseGoesOn(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(r *rig)
		says  string
	}{
		{"truncated PEM", func(r *rig) {
			r.damage("bad", "bad.example.com.crt", func(pem []byte) []byte { return pem[:len(pem)/3] })
		}, "truncated"},
		{"key of another certificate", func(r *rig) {
			other, err := r.ca.Issue(certstest.Options{Names: []string{"other.example.com"}})
			if err != nil {
				r.t.Fatal(err)
			}
			key, err := other.Key.PEM(certs.PKCS8)
			if err != nil {
				r.t.Fatal(err)
			}
			r.damage("bad", "bad.example.com.key", func([]byte) []byte { return key })
		}, "key_mismatch"},
		{"encrypted key without a password", func(r *rig) {
			r.damage("bad", "bad.example.com.key", func([]byte) []byte { return []byte(encryptedKey) })
		}, "encrypted_key"},
		{"symlink loop", func(r *rig) {
			loop := filepath.Join(r.dir, "bad", "loop.pem")
			if err := os.Symlink(loop, loop); err != nil {
				r.t.Fatal(err)
			}
		}, "symlink_loop"},
		{"expired", func(r *rig) {
			old, err := r.ca.Issue(certstest.Options{Names: []string{"bad.example.com"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
			if err != nil {
				r.t.Fatal(err)
			}
			if err := certstest.WritePair(filepath.Join(r.dir, "bad"), "bad.example.com", old); err != nil {
				r.t.Fatal(err)
			}
		}, "the bundle expired at"},
		{"unknown host", func(r *rig) { r.policy("bad", "nowhere.example.com", ""); r.issue("bad", "nowhere.example.com") }, "knows no host nowhere.example.com"},
		{"missing directory", func(r *rig) {
			if err := os.RemoveAll(filepath.Join(r.dir, "bad")); err != nil {
				r.t.Fatal(err)
			}
		}, filepath.Join("", "bad")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, host, "bad.example.com")
			r.policy("shop", host, "")
			r.policy("bad", "bad.example.com", "")
			r.issue("bad", "bad.example.com")
			test.spoil(r)
			good := r.issue("shop", host)
			r.start()
			r.converged(good)
			r.log.seen = 0
			r.log.waitText(test.says)
			next := r.issue("shop", host)
			r.converged(next)
			r.expectServed(host, next)
			for _, c := range r.sim.Certificates() {
				for _, bound := range c.Hosts {
					if bound == "bad.example.com" && test.name != "symlink loop" {
						t.Errorf("something was bound to the host of the broken policy")
					}
				}
			}
		})
	}
}

// damage rewrites a file of a pair.
func (r *rig) damage(policy, file string, change func([]byte) []byte) {
	r.t.Helper()
	path := filepath.Join(r.dir, policy, file)
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func TestBrokenRenewalKeepsTheLastGoodBundle(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	r.start()
	r.converged(first)
	r.damage("shop", host+".crt", func(pem []byte) []byte { return pem[:len(pem)/3] })
	r.log.waitMessage("assignment quarantined; the last good bundle stays in force")
	r.expectServed(host, first)
	second := r.issue("shop", host)
	r.converged(second)
	r.expectServed(host, second)
}

func TestWrongSecretKeyIsSaidAndHeals(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	secret := r.sim.Config().SecretKey
	r.write("secret", "wrong\n")
	r.issue("shop", host)
	r.start()
	line := r.log.waitMessage("step failed")
	if line["kind"] != "unauthenticated" || !strings.Contains(fmt.Sprint(line["err"]), "APIGW.0301") {
		t.Errorf("step failed with %v", line)
	}
	// The file is read at each call: mending it is enough. The next try is up to the
	// clock, so a new bundle is what makes it come at once.
	if len(r.sim.Certificates()) != 0 {
		t.Errorf("something was uploaded: %v", r.sim.Certificates())
	}
	r.write("secret", secret+"\n")
	next := r.issue("shop", host)
	r.converged(next)
	r.expectServed(host, next)
}

func TestUnreachableNATSLeavesWatchingAndMetricsAlive(t *testing.T) {
	r := newRig(t, host)
	r.configure("nats: {url: \"nats://127.0.0.1:1\"}\n")
	r.policy("shop", host, "")
	bundle := r.issue("shop", host)
	d := r.start()
	r.log.waitText("streams are not ready")
	eventually(t, "the certificate in the metrics", func() bool {
		return strings.Contains(r.fetch(d, "/metrics"), `fingerprint_sha256="`+bundle.Fingerprint().String()+`"`)
	})
	if ready := r.fetch(d, "/readyz"); !strings.Contains(ready, "is not connected") || strings.Contains(ready, `"ready": true,
  "components"`) {
		t.Errorf("readyz: %s", ready)
	}
	if len(r.sim.Ledger()) != 0 {
		t.Error("the cloud was called without a journal")
	}
}

func (r *rig) fetch(d *daemon, path string) string {
	r.t.Helper()
	answer, err := http.Get("http://" + d.http.Addr() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(body)
}

func TestTwoDaemonsOnOneStateDirectory(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	r.issue("shop", host)
	d := r.start()
	_, err := newDaemon(d.inForce().set, r.log.logger())
	if err == nil || !strings.Contains(err.Error(), "is in use by another rotatord") {
		t.Errorf("second daemon: %v", err)
	}
}

func TestStateLostCostsLooksNotUploads(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "retain: {superseded: 0, for: 0s}\n")
	r.issue("shop", host)
	var second *certs.Bundle
	t.Run("two rotations", func(t *testing.T) {
		r.t, r.log.t = t, t
		r.start()
		r.log.waitMessage("converged: every target serves the bundle")
		second = r.issue("shop", host)
		r.converged(second)
	})
	r.t, r.log.t = t, t
	if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.log.waitMessage("converged: nothing to do")
	r.expectServed(host, second)
	if n := r.effects("CreateCertificate"); n != 2 {
		t.Errorf("%d uploads for 2 bundles", n)
	}
	third := r.issue("shop", host)
	r.converged(third)
	eventually(t, "one certificate in the cloud", func() bool { return len(r.sim.Certificates()) == 1 })
}

func TestCoveredHosts(t *testing.T) {
	r := newRigWith(t, cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Misbehave: true, Hosts: []cloudsim.Host{
		{Name: host}, {Name: "www.example.com"}, {Name: "other.example.org"}, {Name: "plain.example.com", Protocol: "HTTP"},
	}})
	r.policy("shop", host, "")
	r.write("policies/shop.yaml", fmt.Sprintf("name: shop\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: covered}}]\n"+
		"verify: {endpoints: [\"%s:443\", \"www.example.com:443\"], addresses: [%s], ca_file: %s}\n", filepath.Join(r.dir, "shop"), host, quoted(r.sim.EdgeAddrs()), filepath.Join(r.dir, "ca.pem")))
	bundle, err := r.ca.Issue(certstest.Options{Names: []string{host, "*.example.com"}, NotBefore: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	r.put("shop", bundle)
	r.start()
	r.converged(bundle)
	r.expectServed("www.example.com", bundle)
	for _, h := range r.sim.Hosts() {
		served := h.CertificateID != ""
		if want := h.Name == host || h.Name == "www.example.com"; served != want {
			t.Errorf("%s serves a certificate: %t", h.Name, served)
		}
	}
}

// outsideNATS is a server of its own, with a store that can be lost.
type outsideNATS struct {
	t       *testing.T
	options *server.Options
	running *server.Server
}

func newOutsideNATS(t *testing.T) *outsideNATS {
	n := &outsideNATS{t: t, options: &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}}
	n.start()
	n.options.Port = n.running.Addr().(*net.TCPAddr).Port
	t.Cleanup(n.stop)
	return n
}

func (n *outsideNATS) start() {
	n.t.Helper()
	s, err := server.NewServer(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		n.t.Fatal("the NATS server did not start")
	}
	n.running = s
}

func (n *outsideNATS) stop() {
	n.running.Shutdown()
	n.running.WaitForShutdown()
}

func TestNATSThatComesLate(t *testing.T) {
	outside := newOutsideNATS(t)
	outside.stop()
	r := newRig(t, host)
	r.configure("nats: {url: \"" + outside.running.ClientURL() + "\"}\n")
	r.policy("shop", host, "")
	bundle := r.issue("shop", host)
	d := r.start()
	r.log.waitText("cannot be reached")
	outside.start()
	r.converged(bundle)
	awaitReady(t, d)
}

func TestNATSThatLosesItsStore(t *testing.T) {
	t.Parallel()
	outside := newOutsideNATS(t)
	r := newRig(t, host)
	r.configure("nats: {url: \"" + outside.running.ClientURL() + "\"}\n")
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	r.start()
	r.converged(first)
	outside.stop()
	outside.options.StoreDir = t.TempDir()
	outside.start()
	second := r.issue("shop", host)
	r.converged(second)
	r.expectServed(host, second)
	if n := r.effects("CreateCertificate"); n != 2 {
		t.Errorf("%d uploads for 2 bundles", n)
	}
}

// encryptedKey is a P-256 key under PBES2, made with
// openssl ecparam -name prime256v1 -genkey | openssl pkcs8 -topk8 -v2 aes-256-cbc.
const encryptedKey = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjw3A+aqeVrHAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEJ7rGurDy87N4HzmC8xOt/kEgZCd
A6Dp33kJ5Ss5RIp4HQeRDXXcA9qGoj/ifZL02mptH/CoE5PKzzArgSp5IliSPgXW
IG2Rym/+0lUr4+Fbw3yur6QShpwp7pc/RG8tMxWMsF8NsQUAHs/wBZIfPIzzF7xL
apyqHadYptVzSPiVF2FdrBctL/zyNvrd1PFozRG5NUReuLSnOsTAdbdmco9YAa4=
-----END ENCRYPTED PRIVATE KEY-----
`
