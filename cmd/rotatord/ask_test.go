package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/rotation"
)

// ask runs a command as a user types it, in this process.
func (r *rig) ask(args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	var out, errs bytes.Buffer
	code = run(r.t.Context(), append(args, "--config", filepath.Join(r.dir, "rotatord.yaml")), &out, &errs)
	return code, out.String(), errs.String()
}

// says runs a command and checks its exit code and what it says.
func (r *rig) says(code int, args []string, want ...string) string {
	r.t.Helper()
	got, stdout, stderr := r.ask(args...)
	if got != code {
		r.t.Errorf("rotatord %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	for _, w := range want {
		if !strings.Contains(stdout+stderr, w) {
			r.t.Errorf("rotatord %s does not say %q:\n%s%s", strings.Join(args, " "), w, stdout, stderr)
		}
	}
	return stdout
}

// asked runs a command with -o json and reads its answer.
func asked[T any](r *rig, code int, args ...string) (answer T) {
	r.t.Helper()
	got, stdout, stderr := r.ask(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || got != code {
		r.t.Fatalf("rotatord %s: exit %d, want %d, %v\n%s%s", strings.Join(args, " "), got, code, err, stdout, stderr)
	}
	return answer
}

// recorded waits until the journal says what the log has said: that this bundle is served.
func (r *rig) recorded(b *certs.Bundle) {
	r.t.Helper()
	r.converged(b)
	eventually(r.t, "the record", func() bool {
		return slices.ContainsFunc(asked[admin.Status](r, 0, "status").Assignments, func(a admin.Assignment) bool {
			return a.State == "converged" && a.Wanted.Fingerprint == b.Fingerprint().String()
		})
	})
}

func TestStatusPlanAndExplain(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	r.start()
	r.recorded(b)
	r.says(0, []string{"status"}, "shop", host, "converged", "edge ok", "1 policy, 1 certificate: 1 converged")
	s := asked[admin.Status](r, 0, "status")
	if a := s.Assignments[0]; len(s.Assignments) != 1 || a.State != "converged" || a.Wanted.Fingerprint != b.Fingerprint().String() || !a.Targets[0].Current || a.VerifiedAt.IsZero() || len(a.Probes) != 2 {
		t.Errorf("status %+v", s.Assignments)
	}
	if !s.Daemon.Ready || s.Daemon.PID != os.Getpid() || s.Daemon.Node != "test" {
		t.Errorf("daemon %+v", s.Daemon)
	}
	r.says(0, []string{"plan"}, "1 certificate is converged, nothing to do", "No changes.")
	r.says(0, []string{"explain", "shop"}, "shop/"+host+" is converged", "serves it at "+host, "shows it", "compare wanted and served", "converged")
	r.says(1, []string{"status", "nope"}, `there is no policy "nope"`, "shop")
	r.says(1, []string{"explain", "shop/other.example.com"}, `has no certificate "other.example.com"`, host)
	r.says(1, []string{"status", "--socket", filepath.Join(r.dir, "nobody.sock")}, "no daemon answers on")
	r.says(64, []string{"explain"}, "takes one POLICY")
	r.says(64, []string{"status", "-o", "yaml"}, "neither text nor json")
}

// What plan shows is what the daemon does then: nothing while it is not asked, and these
// steps when it is.
func TestPlanIsWhatIsDone(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "when: {on: [drift]}\n") // files are no reason
	first := r.issue("shop", host)
	r.start()
	r.recorded(first)
	next := r.issue("shop", host)
	eventually(t, "the daemon to see the file", func() bool {
		s := asked[admin.Status](r, 0, "status")
		return s.Assignments[0].Wanted.Fingerprint == next.Fingerprint().String()
	})
	calls := r.effects("CreateCertificate")
	p := asked[admin.Plan](r, 2, "plan")
	var steps []string
	for _, s := range p.Assignments[0].Steps {
		if s.Cause != "drift" {
			steps = append(steps, s.Kind)
		}
	}
	if want := []string{"stage", "activate", "verify"}; !slices.Equal(steps, want) || p.Changes.Assignments != 1 || p.Changes.Endpoints["waf"] != 1 {
		t.Errorf("steps %v, want %v; changes %+v", steps, want, p.Changes)
	}
	r.says(2, []string{"plan", "shop"}, "stage", "activate", "Changes: 1 certificate, 1 firewall host.")
	if r.effects("CreateCertificate") != calls {
		t.Error("planning uploaded something")
	}
	r.says(0, []string{"rotate", "shop", "--wait", "--reason", "new file"}, "stage  edge  "+next.Fingerprint().Short(), "activate  edge", "verify", "converged", "1 certificate is served as wanted")
	if _, bound, _ := r.sim.Bound(host); bound != next.Fingerprint().String() {
		t.Errorf("bound to %s", bound)
	}
	h := r.says(0, []string{"history", "shop"}, "converged", "trigger manual", "by user ")
	if strings.Count(h, "deployed") != 2 {
		t.Errorf("history:\n%s", h)
	}
	if events := asked[admin.History](r, 0, "history", "-n", "1"); len(events.Events) != 1 || events.Events[0].Kind != "converged" {
		t.Errorf("the newest event is %+v", events)
	}
}

// Without a daemon the same is read from here, the journal from a copy; nothing of the
// state is touched.
func TestPlanWithoutADaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "retain: {superseded: 0, for: 1h}\n")
	r.issue("shop", host)
	r.says(2, []string{"plan"}, "stage", "activate", "no daemon was asked", "the journal cannot be read")
	if _, err := os.Stat(filepath.Join(r.dir, "state")); !os.IsNotExist(err) {
		t.Errorf("planning made the state directory: %v", err)
	}
	if len(r.sim.Certificates()) != 0 {
		t.Error("planning uploaded something")
	}
	p := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	p.log.wait("convergence", func(line map[string]any) bool { return strings.HasPrefix(line["msg"].(string), "converged") })
	second := r.issue("shop", host)
	p.log.wait("convergence", func(line map[string]any) bool {
		return strings.HasPrefix(line["msg"].(string), "converged") && line["fingerprint"] == second.Fingerprint().Short()
	})
	endWell(t, p)
	before := contents(t, filepath.Join(r.dir, "state"))
	copied := t.TempDir()
	if err := copyStore(filepath.Join(r.dir, "state", "nats"), copied); err != nil {
		t.Fatal(err)
	}
	if files := contents(t, copied); !strings.Contains(files, "KV_rotatord_journal") || strings.Contains(files, "ROTATORD_EVENTS") {
		t.Errorf("copied for a plan:\n%s", files)
	}
	// The grace of what is superseded is in the journal only.
	out := r.says(0, []string{"plan"}, "No changes.")
	if strings.Contains(out, "journal cannot be read") {
		t.Error(out)
	}
	e := asked[admin.Explanation](r, 0, "explain", "shop", "--offline")
	if e.Assignment.State != "converged" || e.Assignment.Targets[0].Superseded != 1 || !slices.ContainsFunc(e.Steps, func(s admin.Step) bool { return s.Cause == "grace" && s.Until.After(time.Now()) }) {
		t.Errorf("explanation %+v", e)
	}
	if after := contents(t, filepath.Join(r.dir, "state")); after != before {
		t.Errorf("planning changed the state:\n%s\n%s", before, after)
	}
}

// contents are the names, sizes and times of all files below a directory.
func contents(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && !e.IsDir() {
			b.WriteString(path + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A plan with gaps is not "no changes".
func TestPlanWithGapsFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	socket, err := admin.ListenSocket(path, admin.Control{"plan": {Do: func(context.Context, admin.Actor, []byte) (any, error) {
		return admin.Plan{Assignments: []admin.PlannedAssignment{{Policy: "shop", Certificate: host, State: "unknown", Error: "the plan does not end"}}}, nil
	}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- socket.Serve(ctx) }()
	r := &rig{t: t, dir: t.TempDir()}
	r.says(1, []string{"plan", "--socket", path}, "cannot be planned: the plan does not end", "not everything could be planned")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPlanShowsHowFarItReaches(t *testing.T) {
	r := newRigWith(t, cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Hosts: []cloudsim.Host{{Name: host}, {Name: "www.example.com"}},
		Authorities: []cloudsim.Authority{{CommonName: "Issuing CA"}},
	})
	r.configure("brake: {max_per_hour: 0}\n")
	r.write("policies/all.yaml", "name: all\nsource: {directory: {path: "+filepath.Join(r.dir, "all")+"}}\ntargets:\n- {name: edge, waf: {hosts: covered}}\n- {name: web, file: {directory: "+filepath.Join(r.dir, "out")+", full_chain: web.pem}}\n")
	if err := os.MkdirAll(filepath.Join(r.dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	issue := func() {
		b, err := r.ca.Issue(certstest.Options{Names: []string{host, "www.example.com"}, NotBefore: time.Now().Add(-time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		r.put("all", b)
	}
	issue()
	out := r.says(2, []string{"plan"}, "Changes: 1 certificate, 1 directory, 2 firewall hosts.")
	if strings.Contains(out, "Brake") {
		t.Errorf("what replaces nothing is braked:\n%s", out)
	}
	d := r.start()
	eventually(t, "the first deployment", func() bool { return strings.Contains(r.fetch(d, "/metrics"), `state="converged"} 1`) })
	issue()
	eventually(t, "the brake", func() bool { return strings.Contains(r.fetch(d, "/metrics"), `state="braked"} 1`) })
	r.says(0, []string{"plan"}, "Brake: 1 certificate would wait for a confirmation", "brake.max_per_hour is 0")
	r.says(0, []string{"explain", "all"}, "is braked", "held by   the brake: an operator has to confirm")
	r.says(1, []string{"rotate", "all", "--wait"}, "braked", "not every certificate is served as wanted")
	r.says(0, []string{"rotate", "all", "--confirm", "--wait"}, "converged")
}

func TestPauseAndResume(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	d := r.start()
	r.recorded(first)
	r.says(0, []string{"pause", "shop", "--reason", "the audit"}, "policy shop is paused since", "by user ", "the audit")
	if metrics := r.fetch(d, "/metrics"); !strings.Contains(metrics, `rotatord_policy_paused{policy="shop"} 1`) || !strings.Contains(metrics, `rotatord_certificate_renewal_deadline_timestamp_seconds{certificate="`+host+`"`) {
		t.Errorf("the pause or the deadline is not in the metrics:\n%s", metrics)
	}
	second := r.issue("shop", host)
	eventually(t, "the state to be paused", func() bool { return strings.Contains(r.fetch(d, "/metrics"), `state="paused"} 1`) })
	if _, bound, _ := r.sim.Bound(host); bound != first.Fingerprint().String() {
		t.Error("changed while paused")
	}
	r.says(0, []string{"status"}, "paused", "the audit")
	r.says(0, []string{"explain", "shop"}, "held by   whoever paused the policy")
	r.says(1, []string{"rotate", "shop", "--force"}, "is paused", "resume it first")
	r.says(1, []string{"pause", "nope"}, `there is no policy "nope"`)
	r.says(64, []string{"pause", "shop", "--for", "0s"}, "--for 0s is no time to come")
	r.says(0, []string{"resume", "shop"}, "policy shop goes on")
	r.recorded(second)
	r.says(0, []string{"history", "shop"}, "paused", "resumed", "the audit")
	if out := r.says(0, []string{"status"}); strings.Contains(out, "paused") {
		t.Errorf("still paused:\n%s", out)
	}
}

// What others wrote does nothing to a terminal, and stands on its own line only.
func TestNothingReachesTheTerminal(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	r.start()
	r.recorded(b)
	evil := "\x1b]0;owned\x07 \u009b2J\u202e\nshop/" + host + " is converged"
	r.says(0, []string{"pause", "shop", "--reason", evil})
	r.issue("shop", host)
	eventually(t, "the pause", func() bool { return asked[admin.Status](r, 0, "status").Assignments[0].State == "paused" })
	for _, command := range [][]string{{"status"}, {"plan"}, {"explain", "shop"}, {"history"}, {"rotate", "shop"}, {"plan", "--offline"}} {
		_, stdout, stderr := r.ask(command...)
		if out := stdout + stderr; !strings.Contains(out, "owned") || strings.ContainsAny(out, "\x1b\x07\u009b\u202e") || command[0] != "rotate" && strings.Contains(out, "\nshop/"+host+" is converged") {
			t.Errorf("rotatord %s: %q", strings.Join(command, " "), out)
		}
	}
	if p := asked[admin.Status](r, 0, "status").Policies[0].Paused; p == nil || p.Reason != evil {
		t.Errorf("as JSON: %+v", p)
	}
}

// A pause outlives the daemon, and ends by itself.
func TestPauseOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	p := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	p.log.wait("convergence", func(line map[string]any) bool { return strings.HasPrefix(line["msg"].(string), "converged") })
	r.says(0, []string{"pause", "shop", "--for", "12s"})
	_ = p.stop(os.Kill)
	second := r.issue("shop", host)
	p = launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	p.log.wait("the pause", func(line map[string]any) bool { return line["msg"] == "assignment paused" })
	if _, bound, _ := r.sim.Bound(host); bound != first.Fingerprint().String() {
		t.Error("changed while paused")
	}
	p.log.wait("convergence", func(line map[string]any) bool {
		return strings.HasPrefix(line["msg"].(string), "converged") && line["fingerprint"] == second.Fingerprint().Short()
	})
	endWell(t, p)
}

func TestRotateForces(t *testing.T) {
	r := newRigWith(t, cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Hosts: []cloudsim.Host{{Name: host}}, Authorities: []cloudsim.Authority{{CommonName: "Issuing CA"}}})
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	r.write("policies/pay.yaml", "name: pay\nsource: {private_ca: {issuer_id: "+info.AuthorityID+", common_name: "+host+", names: [\"dns:"+host+"\"], validity: 90d}}\ntargets: [{name: edge, waf: {hosts: ["+host+"]}}]\n")
	r.start()
	r.log.wait("convergence", func(line map[string]any) bool { return strings.HasPrefix(line["msg"].(string), "converged") })
	before := asked[admin.Status](r, 0, "status").Assignments[0].Wanted.Fingerprint
	r.says(0, []string{"rotate", "pay", "--wait"}, "converged")
	if again := asked[admin.Status](r, 0, "status").Assignments[0].Wanted.Fingerprint; again != before {
		t.Error("issued anew without force")
	}
	r.says(0, []string{"rotate", "pay/" + host, "--force", "--wait"}, "converged")
	if after := asked[admin.Status](r, 0, "status").Assignments[0].Wanted.Fingerprint; after == before {
		t.Error("not issued anew")
	}
	r.says(1, []string{"rotate", "pay/other"}, `has no certificate "other"`)
	r.says(64, []string{"rotate"}, "takes one POLICY")
	r.says(64, []string{"rotate", "pay/", "--force"}, "neither POLICY nor POLICY/CERTIFICATE") // not all of it
	r.says(64, []string{"status", "/" + host}, "neither POLICY nor POLICY/CERTIFICATE")
}

// A trigger of a server whose clock is ahead is no answer to what is asked for later.
func TestWaitingByOneClock(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	d := r.start()
	r.recorded(b)
	d.enqueue(rotation.ID{Policy: "shop", Certificate: host}, rotation.TriggerNATS, wish{asked: time.Now().Add(time.Hour)}, nil)
	var answered time.Time
	eventually(t, "the answer", func() bool {
		answered = asked[admin.Status](r, 0, "status").Assignments[0].Answered
		return !answered.IsZero()
	})
	if answered.After(time.Now()) {
		t.Errorf("answered what is asked for until %s", answered)
	}
}

func TestRotateFailureIsTold(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", "unknown.example.com", "")
	r.issue("shop", "unknown.example.com")
	r.start()
	r.log.wait("the failure", func(line map[string]any) bool { return line["msg"] == "assignment failed" })
	r.says(1, []string{"rotate", "shop", "--wait"}, "failed", "unknown.example.com", "not every certificate is served as wanted")
	r.says(0, []string{"explain", "shop"}, "held by   the service: it knows no such endpoint")
}

func TestStatusWatches(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	first := r.issue("shop", host)
	r.start()
	r.recorded(first)
	p := launch(t, "status", "--watch", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	shows := func(f string) {
		t.Helper()
		eventually(t, "a line with "+f, func() bool { return strings.Contains(string(p.stdout.bytes()), f+"  edge ok") })
	}
	shows(first.Fingerprint().Short())
	second := r.issue("shop", host)
	shows(second.Fingerprint().Short())
	eventually(t, "the steps", func() bool {
		return strings.Contains(string(p.stdout.bytes()), "activate  edge  "+second.Fingerprint().Short())
	})
	if err := p.stop(os.Interrupt); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

// endWell stops a process as systemd does.
func endWell(t *testing.T, p *process) {
	t.Helper()
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

// The socket is for its owner and group; keys and secrets do not leave through it.
func TestSocketMode(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	b := r.issue("shop", host)
	d := r.start()
	r.recorded(b)
	path := d.inForce().set.Config.Socket
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	key, err := os.ReadFile(filepath.Join(r.dir, "shop", host+".key"))
	if err != nil {
		matches, _ := filepath.Glob(filepath.Join(r.dir, "shop", "*"))
		t.Fatalf("%v; there are %v", err, matches)
	}
	secret := strings.Split(string(key), "\n")[1]
	for _, command := range [][]string{{"status"}, {"plan"}, {"explain", "shop"}, {"history"}} {
		_, stdout, stderr := r.ask(append(command, "-o", "json")...)
		if strings.Contains(stdout+stderr, secret) || strings.Contains(stdout+stderr, r.sim.Config().SecretKey) {
			t.Errorf("%v shows a secret", command)
		}
	}
}

// Every cause that holds a step back has words for who does.
func TestEveryBlockerHasWords(t *testing.T) {
	quiet := []rotation.Cause{rotation.CauseGrace, rotation.CauseBlocked, rotation.CauseDrift, rotation.CauseRenewal}
	guards := []rotation.Cause{rotation.CauseExpired, rotation.CauseCA, rotation.CauseChain, rotation.CauseOlder, rotation.CauseWeakKey,
		rotation.CauseRemaining, rotation.CauseLostNames, rotation.CauseIssuer}
	for _, c := range rotation.Causes() {
		if _, known := blockers[c]; known == slices.Contains(slices.Concat(quiet, guards), c) {
			t.Errorf("cause %s: known %v", c, known)
		}
	}
}

// A change of a gateway at which clients are asked for certificates says so.
func TestPlanShowsClientVerification(t *testing.T) {
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	old, err := ca.Issue(certstest.Options{Names: []string{"api.example.com"}, NotBefore: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	key, err := old.Key.PEM(certs.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigWith(t, cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Gateways: []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{
		Name: "api.example.com", ClientVerification: true,
		Certificates: []cloudsim.GatewayCertificate{{Name: "api_cert", CertPEM: old.FullChainPEM(), KeyPEM: key, TrustedCAPEM: ca.RootPEM()}},
	}}}}}}})
	r.write("policies/api.yaml", "name: api\nsource: {directory: {path: "+filepath.Join(r.dir, "api")+"}}\ntargets: [{name: gateway, apig: {scope: global, instance_id: "+r.sim.Config().Gateways[0].ID+", domains: [api.example.com], trusted_root_ca_file: "+filepath.Join(r.dir, "ca.pem")+"}}]\n")
	r.issue("api", "api.example.com")
	r.says(2, []string{"plan"}, "Changes: 1 certificate, 1 gateway domain.", "Clients are asked for certificates at: api.example.com.")
	if p := asked[admin.Plan](r, 2, "plan"); !slices.Equal(p.Changes.ClientVerification, []string{"api.example.com"}) {
		t.Errorf("changes %+v", p.Changes)
	}
}
