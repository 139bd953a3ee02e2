package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// TestRollBack: edges that never take the new binding up serve the old certificate on,
// and the firewall is bound to it again.
func TestRollBack(t *testing.T) {
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	old, err := ca.Issue(certstest.Options{Names: []string{host}, NotBefore: time.Now().Add(-24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	key, err := old.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigWith(t, cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Edges: 2, Propagation: 1000 * time.Hour,
		Hosts: []cloudsim.Host{{Name: host, Certificate: cloudsim.Certificate{Name: "by-hand", CertPEM: old.FullChainPEM(), KeyPEM: key}}},
	})
	r.ca = ca
	r.write("ca.pem", string(ca.RootPEM()))
	r.write("policies/shop.yaml", fmt.Sprintf("name: shop\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: [%s]}}]\n"+
		"verify: {endpoints: [\"%s:443\"], addresses: [%s], ca_file: %s, within: 1s}\n", filepath.Join(r.dir, "shop"), host, host, quoted(r.sim.EdgeAddrs()), filepath.Join(r.dir, "ca.pem")))
	r.put("shop", old)
	d := r.start()
	r.converged(old)
	next := r.issue("shop", host)
	line := r.log.waitMessage("rolled back: the bundle was not served, its predecessor is again")
	if line["fingerprint"] != next.Fingerprint().Short() || line["back_to"] != old.Fingerprint().Short() {
		t.Errorf("rolled back: %v", line)
	}
	r.log.wait("the state", func(line map[string]any) bool {
		return line["msg"] == "assignment failed" && strings.Contains(fmt.Sprint(line["reason"]), "rolled back at")
	})
	if _, bound, _ := r.sim.Bound(host); bound != old.Fingerprint().String() {
		t.Errorf("the firewall is bound to %s", bound)
	}
	if metrics := r.fetch(d, "/metrics"); !strings.Contains(metrics, `rotatord_rollbacks_total{policy="shop",reason="unserved",target_kind="waf"} 1`) {
		t.Error("the metric does not tell")
	}
}

// TestBrake: more changes at once than brake.max_per_hour stop and ask, and go on when
// somebody confirms.
func TestBrake(t *testing.T) {
	t.Parallel()
	const count, most = 12, 5
	cfg := cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1}
	var hosts []string
	for i := range count {
		hosts = append(hosts, fmt.Sprintf("h%d.example.com", i))
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: hosts[i]})
	}
	r := newRigWith(t, cfg)
	r.configure(fmt.Sprintf("nats: {embedded: {listen: \"127.0.0.1:0\"}}\nbrake: {max_per_hour: %d}\n", most))
	r.write("policies/all.yaml", fmt.Sprintf("name: all\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: covered}}]\n", filepath.Join(r.dir, "all")))
	for _, name := range hosts {
		r.issue("all", name)
	}
	d := r.start()
	served := func(bundles map[string]*certs.Bundle) (n int) {
		for name, b := range bundles {
			if _, bound, _ := r.sim.Bound(name); bound == b.Fingerprint().String() {
				n++
			}
		}
		return n
	}
	eventually(t, "the first deployment, which replaces nothing", func() bool {
		return strings.Count(r.fetch(d, "/metrics"), `state="converged"} 1`) == count
	})
	next := map[string]*certs.Bundle{}
	for _, name := range hosts {
		next[name] = r.issue("all", name)
	}
	eventually(t, "the brake", func() bool {
		metrics := r.fetch(d, "/metrics")
		return strings.Count(metrics, `state="braked"} 1`) == count-most && strings.Count(metrics, `state="converged"} 1`) == most
	})
	if n := served(next); n != most {
		t.Errorf("%d were changed, want %d", n, most)
	}
	request(t, d, "rotatord.trigger.all", `{"confirm": true}`)
	eventually(t, "the rest, confirmed", func() bool { return served(next) == count })
}
