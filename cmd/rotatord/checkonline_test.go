package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

const gateway = "0123456789abcdef0123456789abcdef"

// newOnline is a cloud of everything, and a policy for each kind that is right with it.
func newOnline(t *testing.T, change func(cfg *cloudsim.Config)) *issuing {
	t.Helper()
	cfg := cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Misbehave: true, User: "robot", Password: "robots-own-password", Domain: "acme",
		Hosts:       []cloudsim.Host{{Name: host}, {Name: "plain.example.com", Protocol: "HTTP"}},
		Gateways:    []cloudsim.Gateway{{ID: gateway, Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{Name: "api.example.com"}}}}}},
		Authorities: []cloudsim.Authority{{CommonName: "Test Root"}},
		Instances:   []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: "grafana"}}}},
	}
	if change != nil {
		change(&cfg)
	}
	r := newRigWith(t, cfg)
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	must(t, err)
	i := &issuing{r, info}
	bundle, err := r.ca.Issue(certstest.Options{Names: []string{host, "api.example.com", "plain.example.com", "nowhere.example.com"}, NotBefore: time.Now().Add(-time.Minute)})
	must(t, err)
	r.put("shop", bundle)
	i.write("policies/shop.yaml", fmt.Sprintf("name: shop\nsource: {directory: {path: %s}}\ntargets:\n  - {name: edge, waf: {hosts: [%s]}}\n  - {name: gateway, apig: {instance_id: %s, domains: [api.example.com]}}\n", r.path("shop"), host, gateway))
	i.write("policies/pay.yaml", fmt.Sprintf("name: pay\nsource: {private_ca: {issuer_id: %s, common_name: pay.example.com, validity: 90d}}\ntargets: [{name: web, file: {directory: %s, full_chain: f, key: k}}]\n", info.AuthorityID, i.directory("web")))
	i.write("policies/sso.yaml", fmt.Sprintf("name: sso\nsource: {identity_center: {instance_id: %s, application_instance_id: %s}}\n", info.InstanceID, info.ApplicationID))
	return i
}

// rewrite changes the text of a file.
func (r *rig) rewrite(file, old, now string) {
	r.t.Helper()
	data, err := os.ReadFile(r.path(file))
	must(r.t, err)
	if !strings.Contains(string(data), old) {
		r.t.Fatalf("%s has no %q:\n%s", file, old, data)
	}
	r.write(file, strings.Replace(string(data), old, now, 1))
}

func (r *rig) fault(f cloudsim.Fault) {
	r.t.Helper()
	_, err := r.sim.Faults().Add(f)
	must(r.t, err)
}

// TestCheckOnline puts one thing wrong in a cloud, or in what is said of it.
func TestCheckOnline(t *testing.T) {
	denied := func(service, operation, code string) cloudsim.Fault {
		return cloudsim.Fault{Service: service, Operation: operation, Name: cloudsim.FaultAnswer, Status: 403, Code: code, Message: "no permission"}
	}
	for _, test := range []struct {
		name  string
		cloud func(cfg *cloudsim.Config)
		spoil func(i *issuing)
		code  int
		says  string
	}{
		{"nothing", nil, nil, 0, "rotatord.yaml: ok, 3 policies\n"},
		{"a host that is not there", nil, func(i *issuing) { i.rewrite("policies/shop.yaml", host, "nowhere.example.com") }, 1,
			"policies/shop.yaml:4:32: the service knows no host nowhere.example.com"},
		{"a host without HTTPS", nil, func(i *issuing) { i.rewrite("policies/shop.yaml", host, "plain.example.com") }, 1,
			"policies/shop.yaml:4:32: host plain.example.com: the host does not speak HTTPS"},
		{"hosts in another enterprise project", nil, func(i *issuing) {
			i.rewrite("policies/shop.yaml", "waf: {", "waf: {enterprise_project: 7b1e94d2-85f4-4a03-b6d7-e0195c2a8f64, ")
		}, 1, "the service knows no host " + host},
		{"a domain that is not there", nil, func(i *issuing) {
			i.rewrite("policies/shop.yaml", "[api.example.com]", "[nowhere.example.com]")
		}, 1, "policies/shop.yaml:5:85: the service knows no domain nowhere.example.com"},
		{"a gateway that is not there", nil, func(i *issuing) { i.rewrite("policies/shop.yaml", gateway, strings.Repeat("f", 32)) }, 1,
			"policies/shop.yaml:5:41: list API groups: APIG."},
		{"a CA that is disabled", func(cfg *cloudsim.Config) { cfg.Authorities[0].Status = "DISABLED" }, nil, 1,
			"policies/pay.yaml:2:34: the CA is disabled: enable it in the console"},
		{"a CA that is not there", nil, func(i *issuing) {
			i.rewrite("policies/pay.yaml", i.info.AuthorityID, "2cb2878b-6cd1-460d-bd25-afe655159bdc")
		}, 1, "policies/pay.yaml:2:34: there is no private CA 2cb2878b-6cd1-460d-bd25-afe655159bdc in this account and region"},
		{"a CA that ends before the certificate", func(cfg *cloudsim.Config) { cfg.Authorities[0].NotAfter = time.Now().Add(30 * 24 * time.Hour) }, nil, 1,
			"policies/pay.yaml:2:34: a certificate of 90 DAY would end at "},
		{"a CA that ends soon", func(cfg *cloudsim.Config) { cfg.Authorities[0].NotAfter = time.Now().Add(120 * 24 * time.Hour) }, nil, 0,
			"policies/pay.yaml:2:34: warning: the CA ends at "},
		{"a quota that is used up", func(cfg *cloudsim.Config) { cfg.PrivateCertificateQuota = 1 }, func(i *issuing) {
			_, err := i.sim.ConsoleIssue(i.info.AuthorityID, "other.example.com", "other.example.com")
			must(i.t, err)
		}, 1, "policies/pay.yaml:2:34: the account has 1 private certificates and may have 1: delete some"},
		{"a quota that is nearly used up", func(cfg *cloudsim.Config) { cfg.PrivateCertificateQuota = 1 }, nil, 0,
			"policies/pay.yaml:2:34: warning: the account has 0 private certificates and may have 1: there is room for 1 more"},
		{"an application that is not there", nil, func(i *issuing) {
			i.rewrite("policies/sso.yaml", i.info.ApplicationID, "app-ins-0123456789abcdef")
		}, 1, "policies/sso.yaml:2:"},
		{"WAF denied", nil, func(i *issuing) { i.fault(denied("waf", "ListCertificates", "WAF.00000403")) }, 1,
			`the login of cloud "default" may not list certificates: `},
		{"APIG denied", nil, func(i *issuing) { i.fault(denied("apig", "*", "APIG.1005")) }, 1,
			`the login of cloud "default" may not list API groups: APIG.1005: no permission`},
		{"private CA denied", nil, func(i *issuing) { i.fault(denied("ccm", "*", "PCA.00000403")) }, 1,
			`the login of cloud "default" may not show private CA `},
		{"Identity Center denied", nil, func(i *issuing) { i.fault(denied("identity_center", "*", "IIC.1001")) }, 1,
			`the login of cloud "default" may not `},
		{"a login that may not ask IAM", nil, func(i *issuing) { i.fault(denied("iam", "ListProjects", "IAM.0002")) }, 0, "rotatord.yaml: ok, 3 policies\n"},
		{"a service that is down", nil, func(i *issuing) {
			i.rewrite("rotatord.yaml", "waf: \""+i.sim.URL(), "waf: \"https://127.0.0.1:1")
		}, 1, `rotatord.yaml:10:54: waf of cloud "default" does not answer as it should: `},
		{"a wrong secret key", nil, func(i *issuing) { i.write("secret", "wrong") }, 1,
			`rotatord.yaml:9:7: the login of cloud "default" is refused: APIGW.0301: `},
		{"an edge that does not answer", nil, func(i *issuing) {
			i.append("verify: {endpoints: [\"" + host + ":443\"], addresses: [\"127.0.0.1:1\"]}\n")
		}, 0, "policies/shop.yaml:6:22: warning: " + host + ":443 at 127.0.0.1:1: connect: connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			i := newOnline(t, test.cloud)
			if test.spoil != nil {
				test.spoil(i)
			}
			before := len(i.sim.Ledger())
			code, said := i.check("--online")
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("code %d, and\n%s\nwant code %d, and\n%s", code, said, test.code, test.says)
			}
			if want := strings.Count(test.says, ": ok,"); strings.Count(said, "^") != 1-want {
				t.Errorf("%d findings:\n%s", strings.Count(said, "^"), said)
			}
			for _, e := range i.sim.Ledger()[before:] {
				if e.Effect {
					t.Errorf("check changed something: %s", e.Operation)
				}
			}
			if strings.Contains(said, i.sim.Config().SecretKey) {
				t.Error("it shows the secret key")
			}
		})
	}
}

// TestCheckTriesAPasswordOnce: the cloud locks accounts whose password is tried again and
// again, however many policies there are.
func TestCheckTriesAPasswordOnce(t *testing.T) {
	i := newOnline(t, nil)
	must(t, os.Remove(i.path("policies/sso.yaml"))) // it takes no tokens
	i.write("password", "not-the-password-of-robot")
	i.rewrite("rotatord.yaml", fmt.Sprintf("access_key: {id: %s, secret_file: %s}", i.info.AccessKey, i.info.SecretFile), "password: {user: robot, domain: acme, password_file: password}")
	for range 2 {
		code, said := i.check("--online")
		if code != 1 || strings.Count(said, "^") != 1 || !strings.Contains(said, `the login of cloud "default" is refused: `) || !strings.Contains(said, "not tried again until") {
			t.Errorf("code %d, and\n%s", code, said)
		}
		if strings.Contains(said, "not-the-password") {
			t.Error("it shows the password")
		}
	}
	logins := 0
	for _, e := range i.sim.Ledger() {
		if e.Service == "iam" {
			logins++
		}
	}
	if logins != 1 || len(i.sim.Ledger()) != 1 {
		t.Errorf("%d logins and %d calls, want one", logins, len(i.sim.Ledger()))
	}
	i.write("password", i.sim.Config().Password)
	if code, said := i.check("--online"); code != 0 {
		t.Errorf("with the right password: code %d, and\n%s", code, said)
	}
}

// TestCheckAsksNATS points at the policy whose subject belongs to somebody else.
func TestCheckAsksNATS(t *testing.T) {
	outside := newOutsideNATS(t)
	c, err := nats.Connect(outside.running.ClientURL())
	must(t, err)
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	must(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"certs.>"}})
	must(t, err)

	i := newOnline(t, nil)
	i.configure("nats: {url: \"" + outside.running.ClientURL() + "\"}\n")
	if code, said := i.check("--online"); code != 0 || strings.Contains(said, "^") {
		t.Errorf("code %d, and\n%s", code, said)
	}
	i.append("when: {subjects: [other, certs.renewed]}\n")
	code, said := i.check("--online", "-o", "json")
	if code != 1 || !strings.Contains(said, `"message": "subject certs.renewed is captured by stream THEIRS already, and a subject can be of one stream only"`) || !strings.Contains(said, "\"line\": 6,\n      \"column\": 26,") {
		t.Errorf("code %d, and\n%s", code, said)
	}
	outside.stop()
	if code, said := i.check("--online"); code != 1 || !strings.Contains(said, "rotatord.yaml:17:13: NATS (") {
		t.Errorf("without a server: code %d, and\n%s", code, said)
	}
}
