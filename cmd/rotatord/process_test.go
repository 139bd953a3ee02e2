package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
)

// buildBinary builds the program once for all tests of this file, unless there is one already. It is a
// copy of what go run would start, which the go command keeps where it keeps what it compiled: nothing
// is linked twice.
var buildBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ROTATORD_TEST_BINARY"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "rotatord-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rotatord")
	build := exec.Command("go", "run", "-exec", "cp")
	if raceDetector && os.Getenv("ROTATORD_TEST_LONG") != "" {
		build.Args = append(build.Args, "-race") // it starts slowly then
	}
	build.Args = append(build.Args, ".", path)
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// process is a running rotatord.
type process struct {
	cmd    *exec.Cmd
	log    *logTap
	stdout *lockedBuffer
	ended  chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// launch starts the built binary with JSON logs and ends it with the test.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	return launchWith(t, nil, args...)
}

// launchWith is launch with the last word about how.
func launchWith(t *testing.T, prepare func(*exec.Cmd), args ...string) *process {
	t.Helper()
	if raceDetector && testing.Short() {
		t.Skip("the built binary has no race detector in it")
	}
	binary, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(binary, args...), log: newLogTap(t), stdout: &lockedBuffer{}, ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), "ROTATORD_LOG_FORMAT=json", "ROTATORD_LOG_LEVEL=debug")
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.log
	if prepare != nil {
		prepare(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	})
	return p
}

// stop sends a signal and returns how the process ended.
func (p *process) stop(s os.Signal) error {
	_ = p.cmd.Process.Signal(s)
	err := <-p.ended
	return err
}

// remoteSim is a simulator in another process, driven over its management routes.
type remoteSim struct {
	t    *testing.T
	info simulated
	http *http.Client
}

func launchSimulator(t *testing.T, dir string, args ...string) *remoteSim {
	t.Helper()
	p := launch(t, append([]string{"simulate", "-o", "json", "--dir", dir}, args...)...)
	s := &remoteSim{t: t}
	eventually(t, "the simulator's address", func() bool { return json.Unmarshal(p.stdout.bytes(), &s.info) == nil })
	pool, err := loadPool(s.info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	s.http = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	return s
}

// call uses a management route.
func (s *remoteSim) call(method, path string, body, answer any) {
	s.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := http.NewRequestWithContext(context.Background(), method, s.info.URL+"/sim/"+path, bytes.NewReader(encoded))
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := s.http.Do(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode/100 != 2 {
		s.t.Fatalf("%s %s: %d %s %v", method, path, r.StatusCode, data, err)
	}
	if answer != nil {
		if err := json.Unmarshal(data, answer); err != nil {
			s.t.Fatal(err)
		}
	}
}

// hold makes the next call of an operation wait, before or after its effect.
func (s *remoteSim) hold(service, operation, phase string) {
	s.call(http.MethodPost, "faults", map[string]any{"name": "hold", "service": service, "operation": operation, "phase": phase, "count": 1}, nil)
}

// awaitHeld waits until a call is being held.
func (s *remoteSim) awaitHeld() {
	s.t.Helper()
	eventually(s.t, "a held call", func() bool {
		var state struct {
			Faults []struct {
				Held []any `json:"held"`
			} `json:"faults"`
		}
		s.call(http.MethodGet, "faults", nil, &state)
		return len(state.Faults) > 0 && len(state.Faults[0].Held) > 0
	})
}

func (s *remoteSim) ledger() []cloudsim.Entry {
	var l struct {
		Entries []cloudsim.Entry `json:"entries"`
	}
	s.call(http.MethodGet, "ledger", nil, &l)
	return l.Entries
}

// TestKilledInMidRotation runs the built binary against a simulator in another process,
// kills it with SIGKILL at a known point, and starts it again: it converges, with one
// upload in the simulator's ledger.
func TestKilledInMidRotation(t *testing.T) {
	t.Parallel()
	tests := []struct{ operation, phase string }{
		{"CreateCertificate", "before"}, // asked for, not made; whether it was is not known to a restart
		{"CreateCertificate", "after"},  // uploaded, the answer lost: between upload and binding
		{"ApplyCertificateToHost", "before"},
		{"ApplyCertificateToHost", "after"}, // bound, not yet read back
		{"ShowHost", "after"},
	}
	for _, test := range tests {
		t.Run(test.operation+" "+test.phase, func(t *testing.T) {
			ca, err := certstest.NewCA("test")
			if err != nil {
				t.Fatal(err)
			}
			r := &rig{t: t, dir: t.TempDir(), ca: ca}
			sim := launchSimulator(t, r.dir, "--host", host, "--propagation", "100ms", "--edges", "2")
			r.write("ca.pem", string(ca.RootPEM()))
			r.write("rotatord.yaml", "state: state\nhttp: {listen: \"127.0.0.1:0\"}\n"+sim.info.cloudYAML())
			r.write("policies/shop.yaml", fmt.Sprintf("name: shop\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: [%s]}}]\n"+
				"verify: {endpoints: [\"%s:443\"], addresses: [%s], ca_file: %s}\n", filepath.Join(r.dir, "shop"), host, host, quoted(sim.info.Edges), filepath.Join(r.dir, "ca.pem")))
			bundle := r.issue("shop", host)

			sim.hold("waf", test.operation, test.phase)
			first := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
			sim.awaitHeld()
			if err := first.stop(syscall.SIGKILL); err == nil {
				t.Fatal("a killed process ended well")
			}
			sim.call(http.MethodDelete, "faults", nil, nil)

			second := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
			r.log = second.log
			r.converged(bundle)
			if err := second.stop(syscall.SIGTERM); err != nil {
				t.Errorf("after SIGTERM: %v", err)
			}
			uploads := 0
			for _, e := range sim.ledger() {
				if e.Operation == "CreateCertificate" && e.Effect {
					uploads++
				}
			}
			if uploads != 1 {
				t.Errorf("%d uploads in the ledger, want 1", uploads)
			}
		})
	}
}

// TestGracefulStopFinishesTheStepInFlight sends SIGTERM while a call is under way.
func TestGracefulStopFinishesTheStepInFlight(t *testing.T) {
	r, sim, p := launchHeld(t, "CreateCertificate", "before")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.log.waitMessage("stopping: steps in flight are finished, no new one starts")
	sim.call(http.MethodDelete, "faults", nil, nil)
	if err := <-p.ended; err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, p.log.text())
	}
	for _, e := range sim.ledger() {
		if e.Operation == "ApplyCertificateToHost" {
			t.Error("a new step was started after SIGTERM")
		}
	}
	again := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	again.log.wait("convergence", func(line map[string]any) bool { return strings.HasPrefix(fmt.Sprint(line["msg"]), "converged") })
}

// TestSecondSignalEndsAtOnce: the first SIGTERM waits for a call that never ends.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	_, _, p := launchHeld(t, "CreateCertificate", "before")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.log.waitMessage("stopping: steps in flight are finished, no new one starts")
	err := p.stop(syscall.SIGTERM)
	if state := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() || state.Signal() != syscall.SIGTERM {
		t.Errorf("after a second SIGTERM: %v", err)
	}
}

// launchHeld starts a simulator and a daemon whose first call of an operation is held.
func launchHeld(t *testing.T, operation, phase string) (*rig, *remoteSim, *process) {
	t.Helper()
	return launchHeldWith(t, nil, operation, phase)
}

func launchHeldWith(t *testing.T, prepare func(*exec.Cmd), operation, phase string) (*rig, *remoteSim, *process) {
	t.Helper()
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), ca: ca}
	sim := launchSimulator(t, r.dir, "--host", host)
	r.write("rotatord.yaml", "state: state\nhttp: {listen: \"127.0.0.1:0\"}\n"+sim.info.cloudYAML())
	r.write("policies/shop.yaml", fmt.Sprintf("name: shop\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: [%s]}}]\n", filepath.Join(r.dir, "shop"), host))
	r.issue("shop", host)
	sim.hold("waf", operation, phase)
	p := launchWith(t, prepare, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"))
	sim.awaitHeld()
	return r, sim, p
}

// TestProfilesOfARunningDaemon: with --pprof the socket has them, without it nobody has.
func TestProfilesOfARunningDaemon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags []string
		want  int
	}{{nil, http.StatusNotFound}, {[]string{"--pprof"}, http.StatusOK}} {
		r := newRig(t, host)
		r.policy("shop", host, "")
		r.issue("shop", host)
		p := launch(t, append([]string{"run", "--config", filepath.Join(r.dir, "rotatord.yaml")}, c.flags...)...)
		p.log.waitMessage("converged: every target serves the bundle")
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(r.dir, "state", "rotatord.sock"))
		}}}
		response, err := client.Get("http://rotatord/debug/pprof/heap")
		must(t, err)
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != c.want {
			t.Errorf("%q: %s, %v; want %d", c.flags, response.Status, err, c.want)
		}
		must(t, response.Body.Close())
		endWell(t, p)
	}
}

func TestPortInUse(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "")
	taken := r.start().http.Addr()
	r.write("none/none.yaml", "name: none\nsource: {directory: {path: /nowhere}}\n")
	r.write("second.yaml", "state: elsewhere\npolicies: none\nhttp: {listen: \""+taken+"\"}\n")
	p := launch(t, "run", "--config", filepath.Join(r.dir, "second.yaml"))
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if text := p.log.text(); !strings.Contains(text, "listen for HTTP") || !strings.Contains(text, taken) || !strings.Contains(text, "in use") {
		t.Errorf("the error does not say what and where: %s", text)
	}
}
