package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// TestHostAheadOfTheCloud: the answer to a request for a certificate is lost, and by the
// cloud's clock the certificate is older than the try that made it. It is found all the same,
// also when the process was started again in between, and none is made besides.
func TestHostAheadOfTheCloud(t *testing.T) {
	t.Parallel()
	for _, held := range []string{"local", "cloud"} {
		t.Run(held, func(t *testing.T) {
			i := newSkewed(t, -10*time.Minute)
			i.policyOn(held)
			for _, operation := range []string{"create_certificate", "create_certificate_by_csr"} {
				if _, err := i.sim.Faults().Add(cloudsim.Fault{Name: cloudsim.FaultLost, Service: "ccm", Operation: operation, Count: 1}); err != nil {
					t.Fatal(err)
				}
			}
			i.start()
			line := i.log.wait("convergence", func(line map[string]any) bool { return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") })
			if all := i.sim.PrivateCertificates(); len(all) != 1 || all[0].Fingerprint[:12] != line["fingerprint"] {
				t.Errorf("%d certificates were made", len(all))
			}
			if !strings.Contains(i.log.text(), "unknown outcome") {
				t.Error("no answer was lost")
			}
		})
	}
}

// TestHostBehindTheCloud: what the cloud has just issued is not valid yet by this host's
// clock. That is said, with what is wrong, and no other one is made.
func TestHostBehindTheCloud(t *testing.T) {
	i := newSkewed(t, 10*time.Minute)
	i.policyOn("local")
	i.start()
	line := i.log.waitMessage("assignment failed")
	if reason := fmt.Sprint(line["reason"]); !strings.Contains(reason, "behind the cloud's") {
		t.Errorf("reason %q", reason)
	}
	if n := len(i.sim.PrivateCertificates()); n != 1 || i.effects("ApplyCertificateToHost") > 0 {
		t.Errorf("%d certificates were made", n)
	}
}

// newSkewed is a rig whose cloud has another time.
func newSkewed(t *testing.T, ahead time.Duration) *issuing {
	t.Helper()
	r := newRigWith(t, cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Edges: 1, ClockOffset: ahead,
		Hosts: []cloudsim.Host{{Name: host}}, Authorities: []cloudsim.Authority{{CommonName: "Test Root"}},
	})
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	return &issuing{r, info}
}

func (i *issuing) policyOn(held string) {
	i.t.Helper()
	i.write("policies/pay.yaml", "name: pay\n"+i.privateCA(held, `"dns:`+host+`"`, ", superseded: revoke")+
		fmt.Sprintf("targets: [{name: edge, waf: {hosts: [%s]}}]\n", host))
}

// TestSuspended stops a daemon while two of its times come, and a new file: awake again, it
// does each once, at once.
func TestSuspended(t *testing.T) {
	t.Parallel()
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	const grace = 5 * time.Second
	r := &rig{t: t, dir: t.TempDir(), ca: ca}
	sim := launchSimulator(t, r.dir, "--host", host, "--host", "mail.example.com", "--propagation", "100ms")
	r.write("rotatord.yaml", "state: state\nhttp: {listen: \"127.0.0.1:0\"}\n"+sim.info.cloudYAML())
	for name, host := range map[string]string{"shop": host, "mail": "mail.example.com"} {
		r.write("policies/"+name+".yaml", fmt.Sprintf("name: %s\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: [%s]}}]\nretain: {superseded: 0, for: %s}\n",
			name, filepath.Join(r.dir, name), host, grace))
	}
	first, _ := r.issue("shop", host), r.issue("mail", "mail.example.com")
	p := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	r.log = p.log
	seen := map[string]bool{}
	both := func(line map[string]any) bool {
		if strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") {
			seen[fmt.Sprint(line["policy"], line["fingerprint"])] = true
		}
		return len(seen) == 2
	}
	r.log.wait("both", both)
	second := r.issue("shop", host)
	r.converged(second)

	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	due := time.After(grace + time.Second)
	mail := r.issue("mail", "mail.example.com")
	<-due // the first is to be retired by now
	if n := len(sim.certificates()); n != 3 {
		t.Errorf("%d certificates at the firewall while the daemon stands still", n)
	}
	woken := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.converged(mail)
	eventually(t, "the retirement of the first", func() bool {
		return !slices.ContainsFunc(sim.certificates(), func(c cloudsim.CertificateInfo) bool { return c.Fingerprint == first.Fingerprint().String() })
	})
	t.Logf("all done %s after it was woken", time.Since(woken).Round(time.Millisecond))
	eventually(t, "the retirement of the other", func() bool { return len(sim.certificates()) == 2 })
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	counts := map[string]int{}
	for _, e := range sim.ledger() {
		if e.Effect {
			counts[e.Operation]++
		}
	}
	if counts["CreateCertificate"] != 4 || counts["ApplyCertificateToHost"] != 4 || counts["DeleteCertificate"] != 2 {
		t.Errorf("effects: %v", counts)
	}
}

// certificates are those that the firewall holds.
func (s *remoteSim) certificates() []cloudsim.CertificateInfo {
	var state struct {
		Certificates []cloudsim.CertificateInfo `json:"certificates"`
	}
	s.call(http.MethodGet, "state", nil, &state)
	return state.Certificates
}

// TestAliveByTheRunningClock: only time that this process was running for counts.
func TestAliveByTheRunningClock(t *testing.T) {
	d := &daemon{}
	if err := d.alive(); err != nil {
		t.Errorf("before the first beat: %v", err)
	}
	for age, alive := range map[time.Duration]bool{0: true, staleBeat - time.Minute: true, staleBeat + time.Second: false} {
		d.beat.Store(new(time.Now().Add(-age)))
		if err := d.alive(); (err == nil) != alive {
			t.Errorf("after %s: %v", age, err)
		}
	}
	if last := d.beat.Load(); *last == last.Round(0) {
		t.Error("the beat is a time of the wall clock")
	}
}
