package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers"
)

// patience bounds every wait of these tests; a wait that ends by it has failed.
const patience = 2 * time.Minute

// rig is a simulated cloud, a CA and a directory with a configuration, as a user has
// them.
type rig struct {
	t   *testing.T
	dir string
	ca  *certstest.CA
	sim *cloudsim.Sim
	log *logTap
}

// newRig starts a cloud with these hosts.
func newRig(t *testing.T, hosts ...string) *rig {
	t.Helper()
	cfg := cloudsim.Config{AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Edges: 2, Misbehave: true}
	for _, host := range hosts {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: host})
	}
	return newRigWith(t, cfg)
}

func newRigWith(t *testing.T, cfg cloudsim.Config) *rig {
	t.Helper()
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	sim, err := cloudsim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	r := &rig{t: t, dir: t.TempDir(), ca: ca, sim: sim, log: newLogTap(t)}
	r.write("ca.pem", string(ca.RootPEM()))
	r.configure("")
	return r
}

// configure writes rotatord.yaml, with extra lines at its end.
func (r *rig) configure(extra string) {
	r.t.Helper()
	info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\n"+info.cloudYAML()+extra)
}

// policy writes a policy for one host with a directory of the same name.
func (r *rig) policy(name, host, extra string) {
	r.t.Helper()
	r.write("policies/"+name+".yaml", fmt.Sprintf(`name: %s
source: {directory: {path: %s}}
targets: [{name: edge, waf: {hosts: [%s]}}]
verify: {endpoints: ["%s:443"], addresses: [%s], ca_file: %s}
%s`, name, filepath.Join(r.dir, name), host, host, quoted(r.sim.EdgeAddrs()), filepath.Join(r.dir, "ca.pem"), extra))
}

func (r *rig) write(name, content string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := certs.WriteFileAtomic(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// issue puts a new bundle for a host into a policy's directory.
func (r *rig) issue(policy, host string) *certs.Bundle {
	r.t.Helper()
	bundle, err := r.ca.Issue(certstest.Options{Names: []string{host}, NotBefore: time.Now().Add(-time.Minute)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(policy, bundle)
	return bundle
}

// put writes a bundle into a policy's directory, under its first name.
func (r *rig) put(policy string, bundle *certs.Bundle) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Join(r.dir, policy), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := certstest.WritePair(filepath.Join(r.dir, policy), certs.PrimaryName(bundle.Leaf), bundle); err != nil {
		r.t.Fatal(err)
	}
}

// start runs a daemon on the files, in this process, and stops it with the test.
func (r *rig) start() *daemon {
	r.t.Helper()
	set, err := policy.Load(filepath.Join(r.dir, "rotatord.yaml"), func(string) string { return "" })
	if err != nil {
		r.t.Fatal(err)
	}
	tellProblems(set, r.log.logger())
	d, err := newDaemon(set, r.log.logger())
	if err != nil {
		r.t.Fatal(err)
	}
	d.configFile = filepath.Join(r.dir, "rotatord.yaml")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("daemon: %v", err)
		}
	})
	return d
}

// converged waits until the log says that this bundle is served everywhere.
func (r *rig) converged(b *certs.Bundle) {
	r.t.Helper()
	r.log.wait("convergence on "+b.Fingerprint().Short(), func(line map[string]any) bool {
		return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") && line["fingerprint"] == b.Fingerprint().Short()
	})
}

// expectServed asks every edge.
func (r *rig) expectServed(host string, b *certs.Bundle) {
	r.t.Helper()
	for _, p := range (probe.Prober{}).Probe(r.t.Context(), providers.ProbeRequest{
		Endpoints: []string{host + ":443"}, Addresses: r.sim.EdgeAddrs(), CheckChain: true, CAFile: filepath.Join(r.dir, "ca.pem"),
	}) {
		if !p.Serves(b.Fingerprint()) {
			r.t.Error(p.Complaint(b.Fingerprint()))
		}
	}
}

// effects counts the calls of an operation that changed something.
func (r *rig) effects(operation string) int {
	n := 0
	for _, e := range r.sim.Ledger() {
		if e.Operation == operation && e.Effect {
			n++
		}
	}
	return n
}

// logTap is a log that tests wait on: the daemon says what it does, and that is the
// only clock these tests have.
type logTap struct {
	t     *testing.T
	mu    sync.Mutex
	lines []map[string]any
	raw   bytes.Buffer
	begun []byte // of a line
	more  chan struct{}
	seen  int // lines that a wait has consumed
}

func newLogTap(t *testing.T) *logTap { return &logTap{t: t, more: make(chan struct{}, 1)} }

func (l *logTap) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write implements io.Writer for lines of JSON, several at once. A process's pipe may be
// read in the middle of one.
func (l *logTap) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.raw.Write(p)
	l.begun = append(l.begun, p...)
	for {
		text, rest, whole := bytes.Cut(l.begun, []byte("\n"))
		if !whole {
			break
		}
		l.begun = rest
		var line map[string]any
		if json.Unmarshal(text, &line) == nil {
			l.lines = append(l.lines, line)
		}
	}
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

// wait returns the next line that matches; lines before it are consumed.
func (l *logTap) wait(what string, match func(map[string]any) bool) map[string]any {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		for l.seen < len(l.lines) {
			line := l.lines[l.seen]
			l.seen++
			if match(line) {
				l.mu.Unlock()
				return line
			}
		}
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-deadline:
			l.t.Fatalf("waited %s for %s in vain; the log:\n%s", patience, what, l.text())
		}
	}
}

// waitMessage waits for a line with this message.
func (l *logTap) waitMessage(message string) map[string]any {
	l.t.Helper()
	return l.wait("the message "+message, func(line map[string]any) bool { return line["msg"] == message })
}

// waitText waits for a line that holds this text anywhere.
func (l *logTap) waitText(text string) map[string]any {
	l.t.Helper()
	return l.wait("a line with "+text, func(line map[string]any) bool { return strings.Contains(fmt.Sprint(line), text) })
}

func (l *logTap) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raw.String()
}
