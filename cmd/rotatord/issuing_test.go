package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// issuing is a rig with a private CA, an application of Identity Center, a firewall, and
// a listener for NATS clients.
type issuing struct {
	*rig
	info simulated
}

func newIssuing(t *testing.T) *issuing {
	t.Helper()
	r := newRigWith(t, cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Edges: 2, Misbehave: true,
		Hosts:       []cloudsim.Host{{Name: host}},
		Authorities: []cloudsim.Authority{{CommonName: "Test Root", Organization: "Test"}, {CommonName: "Test Issuing", Organization: "Test", Parent: "Test Root"}},
		Instances:   []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: "grafana"}}}},
	})
	r.configure("nats: {embedded: {listen: \"127.0.0.1:0\"}}\n")
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	return &issuing{r, info}
}

func (i *issuing) privateCA(held, names, extra string) string {
	return fmt.Sprintf("source:\n  private_ca: {issuer_id: %s, common_name: %s, names: [%s], key: {held: %s}, validity: 90d, extended_key_usages: [server_auth]%s}\n", i.info.AuthorityID, host, names, held, extra)
}

func (i *issuing) directory(name string) string {
	i.t.Helper()
	path := filepath.Join(i.dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// convergedAnew waits for a convergence on something else than before, and returns what.
func (i *issuing) convergedAnew(policy string, before ...string) string {
	i.t.Helper()
	line := i.log.wait("convergence of "+policy, func(line map[string]any) bool {
		return line["policy"] == policy && strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") && !slices.Contains(before, fmt.Sprint(line["fingerprint"]))
	})
	return fmt.Sprint(line["fingerprint"])
}

// issued are the private certificates that have a status, by their fingerprints' digits.
func (i *issuing) issued(status string) (short []string) {
	for _, c := range i.sim.PrivateCertificates() {
		if c.Status == status {
			short = append(short, c.Fingerprint[:12])
		}
	}
	return short
}

// request sends a message to the daemon's embedded NATS server.
func request(t *testing.T, d *daemon, subject, body string) {
	t.Helper()
	send(t, d.bus.ListenURL(), subject, body)
}

// send sends a message and waits until the stream has it.
func send(t *testing.T, url, subject, body string) {
	t.Helper()
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Request(subject, []byte(body), patience); err != nil {
		t.Fatal(err)
	}
}

// TestPrivateCA has certificates issued in both ways, served in both places, renewed when
// it is asked for, and revoked when they are superseded.
func TestPrivateCA(t *testing.T) {
	for _, held := range []string{"local", "cloud"} {
		t.Run(held, func(t *testing.T) {
			i := newIssuing(t)
			out := i.directory("out")
			address := fileServer(t, out)
			all := append(i.sim.EdgeAddrs(), address)
			i.write("policies/pay.yaml", "name: pay\n"+i.privateCA(held, `"dns:`+host+`", "uri:spiffe://example.com/pay"`, ", superseded: revoke")+fmt.Sprintf(`targets:
  - {name: edge, waf: {hosts: [%s]}}
  - {name: server, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem}}
verify: {endpoints: ["%s:443"], addresses: [%s], ca_file: %s}
retain: {superseded: 0, for: 0s}
`, host, out, host, quoted(all), i.info.AuthorityFile))
			d := i.start()
			first := i.convergedAnew("pay")
			request(t, d, "rotatord.trigger.pay", `{"force": true}`)
			second := i.convergedAnew("pay", first)
			eventually(t, "the revocation of the first", func() bool {
				return slices.Equal(i.issued("REVOKED"), []string{first}) && slices.Equal(i.issued("ISSUED"), []string{second})
			})
			for _, p := range (probe.Prober{}).Probe(t.Context(), providers.ProbeRequest{Endpoints: []string{host + ":443"}, Addresses: all, CheckChain: true, CAFile: i.info.AuthorityFile}) {
				if p.Err != "" || p.Fingerprint.Short() != second {
					t.Errorf("%s serves %s (%s), want %s", p.Address, p.Fingerprint.Short(), p.Err, second)
				}
			}
			i.expectNoKey(filepath.Join(out, "privkey.pem"))
			keys, err := filepath.Glob(filepath.Join(i.dir, "state", "keys", "*", "*"))
			if want := map[string]int{"local": 1, "cloud": 0}[held]; err != nil || len(keys) != want {
				t.Errorf("keys on this host: %v, want %d", keys, want)
			}
		})
	}
}

// expectNoKey looks for a key's bytes in everything that was logged and kept, but for the
// key's own places.
func (i *issuing) expectNoKey(file string) {
	i.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		i.t.Fatal(err)
	}
	secret := strings.Split(string(text), "\n")[1]
	if strings.Contains(i.log.text(), secret) {
		i.t.Error("the key is in the log")
	}
	err = filepath.WalkDir(filepath.Join(i.dir, "state", "nats"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), secret) {
			i.t.Errorf("the key is in %s", path)
		}
		return err
	})
	if err != nil {
		i.t.Error(err)
	}
}

// What is not what was asked for is never served, and not asked for again and again.
func TestPrivateCAThatIgnoresTheNames(t *testing.T) {
	r := newRigWith(t, cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), Authorities: []cloudsim.Authority{{CommonName: "Test Root"}}, IgnoreCSRExtensions: true,
	})
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuing{r, info}
	out := i.directory("out")
	i.write("policies/pay.yaml", "name: pay\n"+i.privateCA("local", `"dns:`+host+`"`, ", superseded: revoke")+
		fmt.Sprintf("targets: [{name: server, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem}}]\n", out))
	i.start()
	line := i.log.waitMessage("assignment failed")
	if reason := fmt.Sprint(line["reason"]); !strings.Contains(reason, "not what the policy asks for") || !strings.Contains(reason, host) {
		t.Errorf("reason %q", reason)
	}
	if files, err := os.ReadDir(out); err != nil || len(files) > 0 {
		t.Errorf("files were written: %v, %v", files, err)
	}
	eventually(t, "the revocation of the useless certificate", func() bool { return len(i.issued("REVOKED")) == 1 })
	if n := len(i.sim.PrivateCertificates()); n != 1 {
		t.Errorf("%d certificates were made", n)
	}
}

// TestIdentityCenter hands a new signing certificate out, waits for the party, and
// activates it; the old one, which rotatord did not make, stays.
func TestIdentityCenter(t *testing.T) {
	i := newIssuing(t)
	out := i.directory("saml")
	i.write("policies/sso.yaml", fmt.Sprintf(`name: sso
source: {identity_center: {instance_id: %s, application_instance_id: %s, activate: {after: 1h, acknowledgements: [grafana]}}}
targets: [{name: grafana, file: {directory: %s, certificate: idp.pem}}]
retain: {superseded: 0, for: 0s}
`, i.info.InstanceID, i.info.ApplicationID, out))
	d := i.start()
	old := i.convergedAnew("sso")
	if got := certificateIn(t, filepath.Join(out, "idp.pem")); got.Short() != old || i.active() != old {
		t.Fatalf("the file has %s, active is %s, converged on %s", got.Short(), i.active(), old)
	}

	events := i.subscribe(d, "rotatord.event.sso.issued")
	request(t, d, "rotatord.trigger.sso", `{"force": true}`)
	line := i.log.waitMessage("assignment waiting")
	if reason := fmt.Sprint(line["reason"]); !strings.Contains(reason, "acknowledgement of grafana") {
		t.Errorf("reason %q", reason)
	}
	next := certificateIn(t, filepath.Join(out, "idp.pem"))
	if next.Short() == old || i.active() != old {
		t.Fatalf("the file has %s, active is %s: it must be handed out before it is activated", next.Short(), i.active())
	}
	if told := i.toldCertificate(events); told != next {
		t.Errorf("the event tells of %s, the file has %s", told.Short(), next.Short())
	}
	request(t, d, "rotatord.ack.sso", `{"party": "grafana", "fingerprint": "`+next.String()+`"}`)
	if got := i.convergedAnew("sso", old); got != next.Short() || i.active() != got {
		t.Errorf("converged on %s, active is %s", got, i.active())
	}

	request(t, d, "rotatord.trigger.sso", `{"force": true}`)
	i.log.waitMessage("assignment waiting")
	third := certificateIn(t, filepath.Join(out, "idp.pem"))
	request(t, d, "rotatord.ack.sso", `{"party": "grafana", "fingerprint": "`+third.String()+`", "certificate": "`+i.info.ApplicationID+`"}`)
	i.convergedAnew("sso", next.Short())
	eventually(t, "the deletion of the second, which rotatord made", func() bool {
		all := i.sim.Applications()[0].Certificates
		return len(all) == 2 && all[0].Fingerprint[:12] == old && all[1].Fingerprint == third.String()
	})
}

// active is what the application signs with.
func (i *issuing) active() string {
	for _, c := range i.sim.Applications()[0].Certificates {
		if c.Status == "ACTIVE" {
			return c.Fingerprint[:12]
		}
	}
	return ""
}

func (i *issuing) subscribe(d *daemon, subject string) *nats.Subscription {
	i.t.Helper()
	c, err := nats.Connect(d.bus.ListenURL())
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(c.Close)
	s, err := c.SubscribeSync(subject)
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return s
}

// toldCertificate reads the next event as a relying party would.
func (i *issuing) toldCertificate(s *nats.Subscription) certs.Fingerprint {
	i.t.Helper()
	m, err := s.NextMsg(patience)
	if err != nil {
		i.t.Fatal(err)
	}
	var event struct{ Data rotation.EventData }
	if err := json.Unmarshal(m.Data, &event); err != nil {
		i.t.Fatal(err)
	}
	return fingerprintOf(i.t, []byte(event.Data.CertificatePEM))
}

func certificateIn(t *testing.T, file string) certs.Fingerprint {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fingerprintOf(t, data)
}

func fingerprintOf(t *testing.T, data []byte) certs.Fingerprint {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no certificate: %s", data)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certs.FingerprintOf(c)
}

// newest is the certificate that was made last, if it is the only private one or the active
// one of the application.
func (s *remoteSim) newest() string {
	var state struct {
		PrivateCertificates []cloudsim.PrivateCertificateInfo `json:"private_certificates"`
		Applications        []cloudsim.ApplicationInfo        `json:"applications"`
	}
	s.call(http.MethodGet, "state", nil, &state)
	if len(state.PrivateCertificates) == 1 {
		return state.PrivateCertificates[0].Fingerprint
	}
	all := state.Applications[0].Certificates
	if last := all[len(all)-1]; last.Status == "ACTIVE" && len(all) == 2 {
		return last.Fingerprint
	}
	return ""
}

// TestKilledWhileIssuing kills the built binary around each call that makes something, for
// all ways of issuing, and starts it again: one certificate is made.
func TestKilledWhileIssuing(t *testing.T) {
	t.Parallel()
	type point struct{ service, operation, phase string }
	privateCA := func(held string) func(simulated) string {
		return func(s simulated) string {
			return fmt.Sprintf("private_ca: {issuer_id: %s, common_name: %s, key: {held: %s}, validity: 30d}", s.AuthorityID, host, held)
		}
	}
	application := func(s simulated) string {
		return fmt.Sprintf("identity_center: {instance_id: %s, application_instance_id: %s, activate: {after: 0s}}", s.InstanceID, s.ApplicationID)
	}
	const pair, single = "full_chain: fullchain.pem, key: privkey.pem", "certificate: idp.pem"
	for _, test := range []struct {
		name   string
		source func(simulated) string
		files  string
		points []point
	}{
		{"local", privateCA("local"), pair, []point{{"ccm", "create_certificate_by_csr", "before"}, {"ccm", "create_certificate_by_csr", "after"}, {"ccm", "create_tags", "before"}, {"ccm", "export_certificate", "after"}}},
		{"cloud", privateCA("cloud"), pair, []point{{"ccm", "create_certificate", "before"}, {"ccm", "create_certificate", "after"}, {"ccm", "create_tags", "after"}}},
		{"identity center", application, single, []point{{"identity_center", "create_certificate", "before"}, {"identity_center", "create_certificate", "after"}, {"identity_center", "activate_certificate", "after"}}},
	} {
		for _, at := range test.points {
			t.Run(test.name+"/"+at.operation+" "+at.phase, func(t *testing.T) {
				r := &rig{t: t, dir: t.TempDir()}
				sim := launchSimulator(t, r.dir)
				out := filepath.Join(r.dir, "out")
				if err := os.Mkdir(out, 0o755); err != nil {
					t.Fatal(err)
				}
				config := filepath.Join(r.dir, "rotatord.yaml")
				r.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\nnats: {embedded: {listen: \"127.0.0.1:0\"}}\n"+sim.info.cloudYAML())
				r.write("policies/p.yaml", fmt.Sprintf("name: p\nsource: {%s}\ntargets: [{name: web, file: {directory: %s, %s}}]\n", test.source(sim.info), out, test.files))

				sim.hold(at.service, at.operation, at.phase)
				first := launch(t, "run", "--config", config)
				if at.service == "identity_center" { // what is there is taken over; the next one is asked for
					url := fmt.Sprint(first.log.waitMessage("rotatord started")["nats"])
					first.log.waitText("converged")
					send(t, url, "rotatord.trigger.p", `{"force": true}`)
				}
				sim.awaitHeld()
				_ = first.stop(syscall.SIGKILL)
				sim.call(http.MethodDelete, "faults", nil, nil)

				second := launch(t, "run", "--config", config)
				second.log.wait("convergence", func(line map[string]any) bool { return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") })
				name := strings.TrimSuffix(strings.Fields(test.files)[1], ",")
				eventually(t, "the certificate that was made, in its file and in force", func() bool {
					return sim.newest() != "" && sim.newest() == certificateIn(t, filepath.Join(out, name)).String()
				})
				if err := second.stop(syscall.SIGTERM); err != nil {
					t.Errorf("after SIGTERM: %v", err)
				}
				made := 0
				for _, e := range sim.ledger() {
					if strings.HasPrefix(e.Operation, "create_certificate") && e.Effect {
						made++
					}
				}
				if made != 1 {
					t.Errorf("%d certificates were made, want 1", made)
				}
			})
		}
	}
}
