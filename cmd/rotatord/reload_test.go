package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/watcher"
)

// twoHosts is a cloud for two policies, shop and blog.
func twoHosts(t *testing.T) *rig {
	t.Helper()
	return newRig(t, "shop.example.com", "blog.example.com")
}

func TestReload(t *testing.T) {
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	shop := r.issue("shop", "shop.example.com")
	d := r.start()
	r.recorded(shop)
	part, looks := d.inForce().parts["shop"], len(r.sim.Ledger())

	r.says(0, []string{"reload"}, "reloaded", "no policy differs")
	if d.inForce().parts["shop"] != part {
		t.Error("a policy that did not change was built anew")
	}

	r.policy("blog", "blog.example.com", "")
	blog := r.issue("blog", "blog.example.com")
	r.says(0, []string{"reload"}, "added: blog")
	r.recorded(blog)
	if d.inForce().parts["shop"] != part {
		t.Error("a policy that did not change was built anew")
	}
	for _, e := range r.sim.Ledger()[looks:] {
		if strings.Contains(e.Path, "shop") {
			t.Errorf("the other policy was looked at: %+v", e)
		}
	}

	r.policy("blog", "blog.example.com", "drift: {every: 5m}\n")
	r.says(0, []string{"reload"}, "changed: blog")
	if p := d.inForce().parts["blog"].assembly.Policy; p.Drift.Every.Std().Minutes() != 5 {
		t.Errorf("drift every %s", p.Drift.Every)
	}
	r.log.wait("the changed policy to be looked at", func(line map[string]any) bool {
		return line["msg"] == "step" && line["policy"] == "blog" && line["step"] == "verify"
	})
	next := r.issue("blog", "blog.example.com") // its watcher is the new one
	r.recorded(next)

	if err := os.Remove(filepath.Join(r.dir, "policies", "blog.yaml")); err != nil {
		t.Fatal(err)
	}
	r.says(0, []string{"reload"}, "removed: blog")
	if metrics := r.fetch(d, "/metrics"); strings.Contains(metrics, `"blog"`) || !strings.Contains(metrics, `policy="shop"`) {
		t.Errorf("series of the removed policy are left:\n%s", linesWith(metrics, `"blog"`))
	}
	if s := asked[admin.Status](r, 0, "status"); len(s.Assignments) != 1 || s.Assignments[0].Policy != "shop" {
		t.Errorf("status %+v", s.Assignments)
	}
	uploads := r.effects("CreateCertificate")
	r.issue("blog", "blog.example.com")
	last := r.issue("shop", "shop.example.com")
	r.recorded(last)
	if n := r.effects("CreateCertificate"); n != uploads+1 {
		t.Errorf("%d uploads after the policy was removed, want 1", n-uploads)
	}
	r.says(1, []string{"rotate", "blog"}, `there is no policy "blog"`)
}

func linesWith(text, part string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, part) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// With a mistake anywhere everything stays as it is, and everybody is told.
func TestReloadWithAMistake(t *testing.T) {
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	shop := r.issue("shop", "shop.example.com")
	d := r.start()
	r.recorded(shop)
	inForce := d.inForce()
	r.policy("blog", "blog.example.com", "")
	r.write("policies/bad.yaml", "name: bad\nsource: {directory: {path: x}}\ntargts: []\n")
	out := r.says(1, []string{"reload"}, "refused; the configuration of before stays in force", `bad.yaml:3:1: unknown field "targts"`, "nothing was changed")
	if strings.Contains(out, "blog") {
		t.Error(out)
	}
	r.says(0, []string{"status"}, "the last reload", "was refused", `unknown field "targts"`)
	if s := asked[admin.Status](r, 0, "status"); s.Daemon.LastReload.OK || s.Daemon.LastReload.Problems[0].Line != 3 {
		t.Errorf("last reload %+v", s.Daemon.LastReload)
	}
	if metrics := r.fetch(d, "/metrics"); !strings.Contains(metrics, "rotatord_config_last_reload_successful 0") || d.inForce() != inForce {
		t.Error("half done, or not told")
	}
	next := r.issue("shop", "shop.example.com") // the old policies work on
	r.recorded(next)
	if err := os.Remove(filepath.Join(r.dir, "policies", "bad.yaml")); err != nil {
		t.Fatal(err)
	}
	r.says(0, []string{"reload"}, "added: blog")
	if metrics := r.fetch(d, "/metrics"); !strings.Contains(metrics, "rotatord_config_last_reload_successful 1") {
		t.Error("the gauge stays at 0")
	}
}

// The built binary reloads on SIGHUP and by itself when a file changes.
func TestReloadBySignalAndByFile(t *testing.T) {
	t.Parallel()
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	r.issue("shop", "shop.example.com")
	p := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	p.log.wait("convergence", isConverged)
	r.policy("blog", "blog.example.com", "")
	r.issue("blog", "blog.example.com")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if line := p.log.waitMessage("configuration reloaded"); fmt.Sprint(line["added"]) != "[blog]" {
		t.Errorf("reloaded: %v", line)
	}
	p.log.wait("the new policy", func(line map[string]any) bool { return isConverged(line) && line["policy"] == "blog" })
	if err := os.Remove(filepath.Join(r.dir, "policies", "blog.yaml")); err != nil {
		t.Fatal(err)
	}
	if line := p.log.waitMessage("configuration reloaded"); fmt.Sprint(line["removed"]) != "[blog]" || line["cause"] != "files changed" {
		t.Errorf("reloaded: %v", line)
	}
	r.write("policies/blog.yaml", "name: [")
	if line := p.log.waitMessage("reload refused; the configuration in force stays"); line["cause"] != "files changed" {
		t.Errorf("refused: %v", line)
	}
	endWell(t, p)
}

func isConverged(line map[string]any) bool {
	return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged")
}

// What a running process cannot change is said, and the rest is taken.
func TestReloadOfWhatNeedsAStart(t *testing.T) {
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	shop := r.issue("shop", "shop.example.com")
	d := r.start()
	r.recorded(shop)
	client := d.inForce().wiring.clients["default"]
	r.configure("brake: {max_per_hour: 7}\naudit: {retain: 1d}\n")
	r.says(0, []string{"reload"}, "reloaded", "no policy differs", "warning: audit has changed; that takes effect when the daemon is started again")
	if d.brake.limits.MaxPerHour == nil || *d.brake.limits.MaxPerHour != 7 || d.inForce().wiring.clients["default"] != client {
		t.Error("the brake is as before, or the cloud is not")
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "rotatord.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("rotatord.yaml", strings.Replace(string(text), "region: eu-west-101", "region: eu-west-102", 1))
	r.says(0, []string{"reload"}, "changed: shop") // its cloud is another one
	if d.inForce().wiring.clients["default"] == client {
		t.Error("the cloud's client is the old one")
	}
}

// New subjects are heard, and one that another stream has is refused with everything else.
func TestReloadOfSubjects(t *testing.T) {
	r := twoHosts(t)
	r.configure("nats: {embedded: {listen: \"127.0.0.1:0\"}}\n")
	r.policy("shop", "shop.example.com", "")
	shop := r.issue("shop", "shop.example.com")
	d := r.start()
	r.recorded(shop)
	r.policy("shop", "shop.example.com", "when: {subjects: [certs.shop.renewed]}\n")
	r.says(0, []string{"reload"}, "changed: shop")
	eventually(t, "NATS", func() bool { return d.bus.Ready() == nil })
	request(t, d, "certs.shop.renewed", "")
	r.log.wait("the trigger", func(line map[string]any) bool {
		return line["msg"] == "trigger heard" && line["subject"] == "certs.shop.renewed"
	})
	if _, err := d.bus.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"theirs.>"}}); err != nil {
		t.Fatal(err)
	}
	r.policy("blog", "blog.example.com", "when: {subjects: [theirs.x]}\n")
	inForce := d.inForce()
	r.says(1, []string{"reload"}, "refused", "theirs.x", "overlap")
	if d.inForce() != inForce {
		t.Error("half done")
	}
}

// A policy that is replaced in the middle of a rotation: the step in flight ends, and the
// next look has the new policy. Nothing is made twice.
func TestReloadInMidRotation(t *testing.T) {
	r := newRigWith(t, cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Hosts: []cloudsim.Host{{Name: host}}})
	r.policy("shop", host, "")
	if err := os.Mkdir(filepath.Join(r.dir, "shop"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := r.start()
	r.log.waitMessage("directory is watched")
	id, err := r.sim.Faults().Add(cloudsim.Fault{Service: "waf", Operation: "CreateCertificate", Name: cloudsim.FaultHold, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := r.issue("shop", host)
	if _, err := r.sim.Faults().WaitHeld(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r.policy("shop", host, "drift: {every: 5m}\n")
	if result := d.reload(context.Background(), "test", ""); !result.OK {
		t.Fatalf("%+v", result)
	}
	r.sim.Faults().Release(id)
	r.recorded(b)
	if n := r.effects("CreateCertificate"); n != 1 {
		t.Errorf("%d uploads", n)
	}
}

// A policy that was removed by mistake goes on where it was.
func TestReloadTakenBack(t *testing.T) {
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	shop := r.issue("shop", "shop.example.com")
	r.start()
	r.recorded(shop)
	text, err := os.ReadFile(filepath.Join(r.dir, "policies", "shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	calls := r.effects("CreateCertificate")
	if err := os.Remove(filepath.Join(r.dir, "policies", "shop.yaml")); err != nil {
		t.Fatal(err)
	}
	r.says(0, []string{"reload"}, "removed: shop")
	if err := certs.WriteFileAtomic(filepath.Join(r.dir, "policies", "shop.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.says(0, []string{"reload"}, "added: shop")
	next := r.issue("shop", "shop.example.com")
	r.recorded(next)
	if n := r.effects("CreateCertificate"); n != calls+1 {
		t.Errorf("%d uploads, want 1", n-calls)
	}
}

// A policy may be removed while it is planned: what was asked over NATS is answered by no
// server that would catch a panic.
func TestPolicyRemovedWhileItIsPlanned(t *testing.T) {
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	r.policy("blog", "blog.example.com", "")
	blog := r.issue("blog", "blog.example.com")
	d := r.start()
	r.recorded(blog)
	for _, verb := range []string{"plan", "explain"} {
		id, err := r.sim.Faults().Add(cloudsim.Fault{Service: "waf", Name: cloudsim.FaultHold, Count: 1})
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() {
			status, answer := d.serviceVerbs()[verb](t.Context(), bus.Asker{}, []byte(`{"of":"blog"}`))
			if status >= 500 {
				answered <- fmt.Errorf("%s: %d %s", verb, status, answer)
			}
			close(answered)
		}()
		if _, err := r.sim.Faults().WaitHeld(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(r.dir, "policies", "blog.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(r.dir, "policies", "blog.yaml")); err != nil {
			t.Fatal(err)
		}
		r.says(0, []string{"reload"}, "removed: blog")
		r.sim.Faults().Release(id)
		if err := <-answered; err != nil {
			t.Error(err)
		}
		r.write("policies/blog.yaml", string(text))
		r.says(0, []string{"reload"}, "added: blog")
	}
}

// A daemon that stops is not reloaded any more, and a reload in flight ends before it does.
func TestReloadOfADaemonThatStops(t *testing.T) {
	r := twoHosts(t)
	r.policy("shop", "shop.example.com", "")
	set, err := policy.Load(filepath.Join(r.dir, "rotatord.yaml"), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(set, r.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	d.configFile = filepath.Join(r.dir, "rotatord.yaml")
	ended, end := context.WithCancel(context.Background())
	end()
	if result := d.reload(ended, "SIGHUP", ""); result.OK { // as it comes before Run
		t.Errorf("%+v", result)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, reloads := make(chan error, 1), make(chan struct{})
	go func() { done <- d.Run(ctx) }()
	go func() {
		defer close(reloads)
		for i := 0; ctx.Err() == nil; i++ {
			r.policy("blog", "blog.example.com", fmt.Sprintf("drift: {every: %dm}\n", 5+i))
			d.reload(context.Background(), "SIGHUP", "")
		}
	}()
	r.log.waitMessage("configuration reloaded")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-reloads
	inForce := d.inForce()
	r.policy("blog", "blog.example.com", "")
	if result := d.reload(context.Background(), "SIGHUP", ""); result.OK || len(result.Problems) != 1 || d.inForce() != inForce {
		t.Errorf("after the end: %+v", result)
	}
}

// A directory that cannot be scanned keeps a daemon from beginning only as long as a policy
// has it.
func TestDismissedDirectoryIsNotAwaited(t *testing.T) {
	hangs, err := watcher.New(watcher.Config{Name: "hangs", Root: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}) // never run
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	before, next := &generation{parts: map[string]*part{"hangs": {watcher: hangs, stop: stop, ended: running.Done()}}}, &generation{}
	d := &daemon{}
	d.generation.Store(before)
	replayed, begun := make(chan struct{}), make(chan bool, 1)
	close(replayed)
	go func() { begun <- d.awaitStart(t.Context(), replayed) }()
	select {
	case <-begun:
		t.Fatal("nothing was waited for")
	case <-time.After(50 * time.Millisecond):
	}
	d.generation.Store(next)
	before.dismiss(next)
	select {
	case ok := <-begun:
		if !ok {
			t.Error("the daemon gives up")
		}
	case <-time.After(patience):
		t.Error("the daemon waits for what it does not watch any more")
	}
}

// A file that is made readable is as good as one that is changed.
func TestFilesThatBecomeReadable(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	d := r.start()
	before := d.filesNow()
	path := filepath.Join(r.dir, "policies", "shop.yaml")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if now := d.filesNow(); maps.Equal(before, now) {
		t.Error("chmod is not noticed")
	}
}
