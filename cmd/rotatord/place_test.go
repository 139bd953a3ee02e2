package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
)

// Over an external NATS a policy with files of this host has records of this node. They are
// found by a plan without a daemon, and by a policy that a reload brings back to a daemon that
// was started without it.
func TestRecordsOfThisNode(t *testing.T) {
	url := startNATSServer(t)
	r := twoHosts(t)
	r.configure("nats: {url: \"" + url + "\"}\n")
	r.policy("shop", "shop.example.com", "retain: {superseded: 0, for: 1h}\n")
	p := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	for range 2 { // the second supersedes the first, which has its grace then
		b := r.issue("shop", "shop.example.com")
		p.log.wait("convergence", func(line map[string]any) bool {
			return isConverged(line) && line["fingerprint"] == b.Fingerprint().Short()
		})
	}
	var before admin.Assignment
	eventually(t, "the record of the second", func() bool {
		before = asked[admin.Status](r, 0, "status", "shop").Assignments[0]
		return before.State == "converged"
	})
	endWell(t, p)
	if e := asked[admin.Explanation](r, 0, "explain", "shop", "--offline"); e.Assignment.State != "converged" || e.Assignment.VerifiedAt.IsZero() || e.Assignment.Targets[0].Superseded != 1 {
		t.Errorf("without a daemon: %+v, notes %q", e.Assignment, e.Notes)
	}
	path := filepath.Join(r.dir, "policies", "shop.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.policy("blog", "blog.example.com", "")
	r.start()
	eventually(t, "the daemon", func() bool {
		code, _, _ := r.ask("plan")
		return code == 0
	})
	r.write("policies/shop.yaml", string(text))
	r.says(0, []string{"reload"}, "added: shop")
	if a := asked[admin.Status](r, 0, "status", "shop").Assignments[0]; a.State != "converged" || !a.Since.Equal(before.Since) || a.Targets[0].Superseded != 1 || a.NextLook.Before(time.Now()) {
		t.Errorf("after it came back: %+v\nbefore: %+v", a, before)
	}
}
