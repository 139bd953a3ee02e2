package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// example is a policy of policies/ moved into a test's world: its clouds are simulated,
// its directories temporary, its endpoints on loopback. The rest is as it stands there.
type example struct {
	*issuing
	name string
	doc  map[string]any
	// names of the certificates that are put into the source's directory.
	names []string
	// proves says that somebody else serves what is in the source's directory.
	proves bool
}

// TestExamplesRotate rotates each example policy twice over real HTTP and TLS, and looks
// at what is served.
func TestExamplesRotate(t *testing.T) {
	names := map[string][]string{ // of what certbot and the like put on disk
		"certbot-to-haproxy": {"shop.example.com"}, "certbot-to-waf": {"shop.example.com", "www.example.com"}, "gateway-in-place": {"api.example.com"}, "gateway-new": {"api.example.com"},
		"haproxy-combined": {"lb.example.com"}, "letsencrypt-to-nginx": {"shop.example.com"}, "nats-triggered": {"api.example.com"},
		"prove-only": {"intranet.example.com"}, "watch-only": {"service.example.com"}, "wildcard-to-all-hosts": {"*.example.com", "example.com"},
	}
	files, err := filepath.Glob("../../policies/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			e := newExample(t, name, text)
			e.names = names[name]
			e.move()
			if name == "watch-only" {
				e.runWatched()
				return
			}
			e.run()
		})
	}
}

func newExample(t *testing.T, name string, text []byte) *example {
	t.Helper()
	e := &example{name: name, proves: name == "prove-only"}
	if err := yaml.Unmarshal(text, &e.doc); err != nil {
		t.Fatal(err)
	}
	cfg := cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Edges: 2, Misbehave: true,
		Authorities: []cloudsim.Authority{{CommonName: "Root"}, {CommonName: "Issuing", Parent: "Root"}},
		Instances:   []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: "grafana"}}}},
	}
	if strings.HasPrefix(name, "gateway") {
		cfg.Gateways = []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{e.domain(t)}}}}}
	} else {
		for _, host := range []string{"shop", "www", "api", "intranet"} {
			cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: host + ".example.com", Dedicated: name == "nats-triggered"})
		}
	}
	r := newRigWith(t, cfg)
	r.configure("nats: {embedded: {listen: \"127.0.0.1:0\"}}\n")
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	e.issuing = &issuing{r, info}
	return e
}

// domain has a certificate that somebody bound by hand: what is replaced in place must be
// there.
func (e *example) domain(t *testing.T) cloudsim.Domain {
	t.Helper()
	ca, err := certstest.NewCA("by hand")
	if err != nil {
		t.Fatal(err)
	}
	old, err := ca.Issue(certstest.Options{Names: []string{"api.example.com"}, NotBefore: time.Now().Add(-30 * 24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	key, err := old.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	return cloudsim.Domain{Name: "api.example.com", Certificates: []cloudsim.GatewayCertificate{{Name: "by_hand", CertPEM: old.FullChainPEM(), KeyPEM: key, Instance: true}}}
}

func member(doc map[string]any, path ...string) map[string]any {
	for _, name := range path {
		next, ok := doc[name].(map[string]any)
		if !ok {
			return nil
		}
		doc = next
	}
	return doc
}

// set changes a member that is there.
func set(doc map[string]any, name string, value any) {
	if _, ok := doc[name]; ok {
		doc[name] = value
	}
}

// move makes the example one of this world and writes it down.
func (e *example) move() {
	e.t.Helper()
	roots, addresses := filepath.Join(e.dir, "ca.pem"), e.sim.EdgeAddrs()
	set(member(e.doc, "source", "directory"), "path", e.directory(e.name))
	if ca := member(e.doc, "source", "private_ca"); ca != nil {
		set(ca, "cloud", "default")
		set(ca, "issuer_id", e.info.AuthorityID)
		roots = e.info.AuthorityFile
	}
	if ic := member(e.doc, "source", "identity_center"); ic != nil {
		set(ic, "cloud", "default")
		set(ic, "instance_id", e.info.InstanceID)
		set(ic, "application_instance_id", e.info.ApplicationID)
	}
	targets, _ := e.doc["targets"].([]any)
	for _, t := range targets {
		target, _ := t.(map[string]any)
		set(member(target, "waf"), "cloud", "default")
		set(member(target, "apig"), "cloud", "default")
		set(member(target, "apig"), "instance_id", e.info.GatewayID)
		if file := member(target, "file"); file != nil {
			file["directory"] = e.directory("out")
			delete(file, "owner") // of users that a test cannot be sure of
			delete(file, "group")
			set(file, "reload", map[string]any{"command": []string{e.script("reload", "date >> "+filepath.Join(e.dir, "reloads"))}})
			addresses = []string{fileServer(e.t, filepath.Join(e.dir, "out"))}
			if combined, ok := file["combined"].(string); ok {
				path := filepath.Join(e.dir, "out", combined)
				addresses = []string{pairServer(e.t, path, path)}
			}
		}
	}
	if e.proves {
		addresses = []string{fileServer(e.t, filepath.Join(e.dir, e.name))}
	}
	if verify := member(e.doc, "verify"); verify != nil {
		verify["ca_file"], verify["addresses"] = roots, addresses
	}
	e.doc["retain"] = map[string]any{"superseded": 0, "for": "0s"}
	text, err := yaml.Marshal(e.doc)
	if err != nil {
		e.t.Fatal(err)
	}
	e.write("policies/"+e.name+".yaml", string(text))
}

// renew puts a new bundle on disk, or asks for one to be issued.
func (e *example) renew(d *daemon) {
	e.t.Helper()
	if e.names == nil {
		send(e.t, d.bus.ListenURL(), "rotatord.trigger."+e.name, `{"force": true}`)
		return
	}
	b, err := e.ca.Issue(certstest.Options{Names: e.names, NotBefore: time.Now().Add(-time.Minute)})
	if err != nil {
		e.t.Fatal(err)
	}
	key, err := b.Key.PEM(certs.PKCS8)
	if err != nil {
		e.t.Fatal(err)
	}
	e.write(e.name+"/privkey.pem", string(key))
	e.write(e.name+"/fullchain.pem", string(b.FullChainPEM()))
	if d != nil && member(e.doc, "when")["subjects"] != nil {
		send(e.t, d.bus.ListenURL(), "certs.api.renewed", "")
	}
}

// plans expects a plan that changes neither the cloud nor a file.
func (e *example) plans() {
	e.t.Helper()
	calls, files := len(e.sim.Ledger()), contents(e.t, e.dir)
	if e.proves {
		e.says(0, []string{"plan"}, "verify", "No changes.")
	} else {
		e.says(2, []string{"plan"}, "stage", "activate", "verify", "Changes: 1 certificate, ")
	}
	for _, call := range e.sim.Ledger()[calls:] {
		if call.Effect {
			e.t.Errorf("planning made the call %s", call.Operation)
		}
	}
	if now := contents(e.t, e.dir); now != files {
		e.t.Errorf("planning changed files:\n%s\n%s", files, now)
	}
}

// run rotates the example, and again.
func (e *example) run() {
	e.t.Helper()
	if e.names != nil {
		e.renew(nil)
	}
	e.plans()
	d := e.start()
	first := e.convergedAnew(e.name)
	e.renew(d)
	if member(e.doc, "source", "identity_center") != nil {
		e.log.waitMessage("assignment waiting")
		next := certificateIn(e.t, filepath.Join(e.dir, "out", "idp.pem"))
		send(e.t, d.bus.ListenURL(), "rotatord.ack."+e.name, `{"party": "grafana", "fingerprint": "`+next.String()+`"}`)
	}
	if e.proves { // nothing was changed, so nothing is said of convergence
		e.log.wait("the proof of the second", func(line map[string]any) bool {
			return line["msg"] == "bundle verified" && line["fingerprint"] != first
		})
		return
	}
	second := e.convergedAnew(e.name, first)
	eventually(e.t, "a plan without changes", func() bool { code, _, _ := e.ask("plan"); return code == 0 })
	if e.names != nil {
		if want := certificateIn(e.t, filepath.Join(e.dir, e.name, "fullchain.pem")).Short(); second != want {
			e.t.Errorf("converged on %s, on disk is %s", second, want)
		}
	}
	if member(e.doc, "verify") != nil && !strings.Contains(e.log.text(), `"msg":"bundle verified"`) {
		e.t.Error("nothing was verified")
	}
	if combined := filepath.Join(e.dir, "out", "site.pem"); e.name == "haproxy-combined" && certificateIn(e.t, combined).Short() != second {
		e.t.Errorf("%s has something else than %s", combined, second)
	}
	targets, _ := e.doc["targets"].([]any)
	for _, t := range targets {
		if member(t.(map[string]any), "file", "reload") == nil {
			continue
		}
		if reloads, err := os.ReadFile(filepath.Join(e.dir, "reloads")); err != nil || strings.Count(string(reloads), "\n") != 2 {
			e.t.Errorf("reloads %q, %v; want 2", reloads, err)
		}
	}
}

// runWatched expects the certificate in the metrics, and the next one.
func (e *example) runWatched() {
	e.t.Helper()
	e.renew(nil)
	d := e.start()
	for range 2 {
		f := certificateIn(e.t, filepath.Join(e.dir, e.name, "fullchain.pem"))
		eventually(e.t, "the certificate in the metrics", func() bool {
			return strings.Contains(e.fetch(d, "/metrics"), fmt.Sprintf(`fingerprint_sha256="%s"`, f))
		})
		e.renew(d)
	}
}
