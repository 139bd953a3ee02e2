//go:build systemd

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
)

const (
	service   = "rotatord.service"
	unitsDir  = "/etc/systemd/system"
	webDir    = "/etc/web/tls"
	sourceDir = "/srv/certificates"
	// commandGate and commandEnded are files of the reload command: it waits for the first, and
	// makes the second.
	commandGate  = "/var/lib/rotatord/gate"
	commandBegun = "/var/lib/rotatord/begun"
	commandEnded = "/var/lib/rotatord/ended"
)

// unitRig is a host with systemd as PID 1 on which rotatord is installed as docs/systemd.md
// says, with a simulated cloud.
type unitRig struct {
	*rig
	ctx context.Context //nolint:containedctx // of the test
	sim *remoteSim
	// deploy is the directory with what is in deploy/systemd.
	deploy string
	http   string // the address of the HTTP listener
	// program is where it is installed; in the test's own PATH the test comes first.
	program string
}

// newUnitRig installs. It does so in a throw-away system only.
func newUnitRig(t *testing.T) *unitRig {
	t.Helper()
	throwAway(t)
	ca, err := certstest.NewCA("systemd")
	must(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, free.Close())
	executable, err := os.Executable()
	must(t, err)
	u := &unitRig{ctx: t.Context(), rig: &rig{t: t, dir: t.TempDir(), ca: ca, log: newLogTap(t)}, deploy: filepath.Join(filepath.Dir(executable), "systemd"), http: free.Addr().String(), program: "/usr/local/bin/rotatord"}
	binary, err := buildBinary()
	must(t, err)
	u.run("install", "-m", "0755", binary, u.program)
	must(t, os.RemoveAll(filepath.Join(unitsDir, service+".d")))
	u.run("systemd-sysusers", filepath.Join(u.deploy, "sysusers.d/rotatord.conf"))
	for _, unit := range []string{service, "rotatord.socket"} {
		u.run("install", "-m", "0644", filepath.Join(u.deploy, unit), unitsDir)
	}
	t.Cleanup(func() {
		after := &unitRig{rig: &rig{t: t}, ctx: context.Background()}
		if t.Failed() {
			journal, _ := after.try("journalctl", "-u", service, "-o", "cat", "--no-pager", "-n", "60")
			t.Logf("the journal:\n%s", journal)
		}
		if out, err := after.try("systemctl", "stop", "rotatord.socket", service, "web.service"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	u.sim = launchSimulator(t, u.dir, "--host", host)
	u.configure()
	return u
}

// throwAway ends a test that does not run in test/rig/systemd.
func throwAway(t *testing.T) {
	t.Helper()
	if environment, err := os.ReadFile("/proc/1/environ"); err != nil || !strings.Contains(string(environment), "container=rig") {
		t.Fatalf("this test changes the system that it runs on: run it in test/rig/systemd (%v)", err)
	}
}

// configure writes configuration and policy, the secret for root only, and the first
// certificate, for the group rotatord.
func (u *unitRig) configure() {
	u.t.Helper()
	secret, err := os.ReadFile(u.sim.info.SecretFile)
	must(u.t, err)
	u.file("/etc/rotatord/credentials/cloud-secret", 0o600, string(secret))
	must(u.t, os.Chmod("/etc/rotatord/credentials", 0o700))
	roots, err := os.ReadFile(u.sim.info.CAFile)
	must(u.t, err)
	u.file("/etc/rotatord/cloud.pem", 0o644, string(roots))
	info := u.sim.info
	info.SecretFile, info.CAFile = "cloud-secret", "/etc/rotatord/cloud.pem"
	u.file("/etc/rotatord/rotatord.yaml", 0o644, "http: {listen: \""+u.http+"\"}\n"+info.cloudYAML())
	u.policy(webDir, `owner: root, group: www-data, mode: "0640", reload: {unit: web.service}`)
	u.dropIn("credentials", "LoadCredential=cloud-secret:/etc/rotatord/credentials/cloud-secret")
	must(u.t, os.MkdirAll(webDir, 0o755))
	u.example("owners.conf", "/etc/nginx/tls", webDir)
	u.file(unitsDir+"/web.service", 0o644, "[Service]\nExecStart=sleep infinity\nExecReload=/bin/sh -c 'echo told >> /run/web-was-told'\n")
	u.run("install", "-D", "-m", "0644", filepath.Join(u.deploy, "polkit-1/rotatord.rules"), "/etc/polkit-1/rules.d/50-rotatord.rules")
	u.run("sed", "-i", "s/nginx.service/web.service/", "/etc/polkit-1/rules.d/50-rotatord.rules")
	must(u.t, os.RemoveAll("/run/web-was-told"))
	u.run("systemctl", "daemon-reload")
	u.run("systemctl", "start", "web.service")
}

// policy is for a host of the firewall and a directory of files.
func (u *unitRig) policy(directory, more string) {
	u.t.Helper()
	u.file("/etc/rotatord/policies/shop.yaml", 0o644, fmt.Sprintf("name: shop\nsource: {directory: {path: %s}}\ntargets:\n- {name: edge, waf: {hosts: [%s]}}\n"+
		"- {name: web, file: {directory: %s, full_chain: fullchain.pem, key: privkey.pem, %s}}\n", sourceDir, host, directory, more))
}

func (u *unitRig) file(path string, mode os.FileMode, content string) {
	u.t.Helper()
	must(u.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(u.t, certs.WriteFileAtomic(path, []byte(content), mode))
}

func (u *unitRig) dropIn(name string, lines ...string) {
	u.t.Helper()
	u.file(filepath.Join(unitsDir, service+".d", name+".conf"), 0o644, "[Service]\n"+strings.Join(lines, "\n")+"\n")
}

// example puts one of the drop-ins into force, with another path in it.
func (u *unitRig) example(name, path, instead string) {
	u.t.Helper()
	text, err := os.ReadFile(filepath.Join(u.deploy, "drop-ins", name))
	must(u.t, err)
	if !strings.Contains(string(text), path) {
		u.t.Fatalf("%s does not name %s", name, path)
	}
	u.file(filepath.Join(unitsDir, service+".d", name), 0o644, strings.ReplaceAll(string(text), path, instead))
}

// renew puts a new bundle where the daemon may read it.
func (u *unitRig) renew() *certs.Bundle {
	u.t.Helper()
	bundle, err := u.ca.Issue(certstest.Options{Names: []string{host}, NotBefore: time.Now().Add(-time.Minute)})
	must(u.t, err)
	must(u.t, os.MkdirAll(sourceDir, 0o755))
	staged := u.t.TempDir()
	must(u.t, certstest.WritePair(staged, host, bundle))
	u.run("sh", "-c", fmt.Sprintf("chgrp rotatord %[1]s/* && chmod 0640 %[1]s/* && mv -f %[1]s/* %[2]s", staged, sourceDir))
	return bundle
}

func (u *unitRig) try(args ...string) (string, error) {
	out, err := exec.CommandContext(u.ctx, args[0], args[1:]...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (u *unitRig) run(args ...string) string {
	u.t.Helper()
	out, err := u.try(args...)
	if err != nil {
		u.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return out
}

// property is one of the service as systemd sees it.
func (u *unitRig) property(name string) string {
	u.t.Helper()
	return u.run("systemctl", "show", "-P", name, service)
}

func (u *unitRig) wantProperty(name, want string) {
	u.t.Helper()
	if is := u.property(name); is != want {
		u.t.Errorf("%s is %q, want %q", name, is, want)
	}
}

func (u *unitRig) get(path string) (int, string) {
	response, err := http.Get("http://" + u.http + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// converged waits until the daemon says that this bundle is served everywhere.
func (u *unitRig) converged(b *certs.Bundle) {
	u.t.Helper()
	eventually(u.t, "convergence on "+b.Fingerprint().Short(), func() bool {
		var s admin.Status
		out, err := u.try(u.program, "status", "-o", "json")
		return err == nil && json.Unmarshal([]byte(out), &s) == nil && len(s.Assignments) == 1 &&
			s.Assignments[0].State == "converged" && s.Assignments[0].Wanted.Fingerprint == b.Fingerprint().String() &&
			!slices.ContainsFunc(s.Assignments[0].Targets, func(t admin.Target) bool { return !t.Current })
	})
}

// restarted sends the daemon a signal that ends it, and waits until there is another one.
func (u *unitRig) restarted(s syscall.Signal) {
	u.t.Helper()
	before, times := u.property("MainPID"), u.property("NRestarts")
	pid, err := strconv.Atoi(before)
	must(u.t, err)
	must(u.t, syscall.Kill(pid, s))
	eventually(u.t, "another process", func() bool {
		now := u.property("MainPID")
		return now != before && now != "0" && u.property("ActiveState") == "active"
	})
	if now := u.property("NRestarts"); now == times {
		u.t.Errorf("systemd has counted no restart: %s", now)
	}
}

// TestSystemdUnitFiles: systemd has nothing to say about them, and little to say against.
func TestSystemdUnitFiles(t *testing.T) {
	u := newUnitRig(t)
	exposure := map[string]string{"": "12", "files.conf": "12", "group.conf": "12", "owners.conf": "18"}
	for dropIn, threshold := range exposure {
		must(t, os.RemoveAll(filepath.Join(unitsDir, service+".d")))
		if dropIn != "" {
			u.run("install", "-D", "-m", "0644", filepath.Join(u.deploy, "drop-ins", dropIn), filepath.Join(unitsDir, service+".d", dropIn))
		}
		if out := u.run("systemd-analyze", "verify", "--man=no", service, "rotatord.socket"); out != "" {
			t.Errorf("with %q: %s", dropIn, out)
		}
		if out, err := u.try("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+threshold, service); err != nil {
			t.Errorf("with %q: %s", dropIn, out)
		} else {
			t.Logf("with %q: %s", dropIn, out[strings.LastIndex(out, "\n")+1:])
		}
	}
}

// TestSystemdService takes the service through its life, under its full hardening.
func TestSystemdService(t *testing.T) {
	u := newUnitRig(t)
	first := u.renew()
	u.dropIn("test", "RestartSec=200ms", "WatchdogSec=2s", "TimeoutStopSec=4s")
	u.run("systemctl", "daemon-reload")

	// It is ready when systemctl start returns.
	u.run("systemctl", "start", service)
	if status, body := u.get("/readyz"); status != http.StatusOK {
		t.Errorf("after the start: %d %s", status, body)
	}
	if status := u.property("StatusText"); !strings.HasPrefix(status, "1 certificate: ") {
		t.Errorf("status %q", status)
	}
	u.converged(first)
	if out, err := u.try("runuser", "-u", "rotatord", "--", "cat", "/etc/rotatord/credentials/cloud-secret"); err == nil {
		t.Errorf("the secret is not for root only: %s", out)
	}
	if is := u.run("stat", "-L", "-c", "%U:%G %a", webDir+"/privkey.pem"); is != "root:www-data 640" {
		t.Errorf("the key belongs to %s", is)
	}
	if is := u.run("stat", "-c", "%U:%G %a", "/var/lib/rotatord", "/run/rotatord", "/run/rotatord/rotatord.sock"); is != "rotatord:rotatord 700\nrotatord:rotatord 750\nrotatord:rotatord 660" {
		t.Errorf("its directories and its socket are\n%s", is)
	}
	if told, err := os.ReadFile("/run/web-was-told"); err != nil || string(told) != "told\n" {
		t.Errorf("the web server's unit was told %q, %v", told, err)
	}
	if _, metrics := u.get("/metrics"); !strings.Contains(metrics, "\nprocess_start_time_seconds ") || !strings.Contains(metrics, "\nprocess_open_fds ") {
		t.Error("metrics of the process are hidden from it")
	}
	eventually(t, "the status line", func() bool {
		out, _ := u.try("systemctl", "status", "--no-pager", service)
		return strings.Contains(out, `Status: "1 certificate: 1 converged"`)
	})

	t.Run("reload", func(t *testing.T) {
		bad := "/etc/rotatord/policies/bad.yaml"
		u.run("systemctl", "reload", service)
		u.file(bad, 0o644, "name: bad\nsource: {directory: {path: x}}\ntargts: []\n")
		if out, err := u.try("systemctl", "reload", service); err == nil {
			t.Errorf("systemctl reload with a mistake succeeded: %s", out)
		}
		u.wantProperty("ActiveState", "active")
		if status := u.property("StatusText"); !strings.HasPrefix(status, "1 certificate: 1 converged; the last reload was refused: "+bad+`:3:1: unknown field "targts"`) {
			t.Errorf("status %q", status)
		}
		if out := u.run("journalctl", "-u", service, "-o", "cat", "--no-pager"); !strings.Contains(out, "refused; the configuration of before stays in force:\n"+bad+":3:1: unknown field") {
			t.Errorf("the journal does not say why:\n%s", out)
		}
		must(t, os.Remove(bad))
		u.run("systemctl", "reload", service)
		u.wantProperty("StatusText", "1 certificate: 1 converged")
	})

	t.Run("killed", func(t *testing.T) {
		u.restarted(syscall.SIGKILL)
		second := u.renew()
		u.converged(second)
	})

	t.Run("watchdog", func(t *testing.T) {
		u.restarted(syscall.SIGSTOP)
		if out := u.run("journalctl", "-u", service, "-o", "cat", "--no-pager"); !strings.Contains(out, "Watchdog timeout") {
			t.Errorf("it was not the watchdog:\n%s", out)
		}
	})

	t.Run("stopped in mid-rotation", func(t *testing.T) {
		u.policy(webDir, fmt.Sprintf(`reload: {command: [/bin/sh, -c, "touch %s; until [ -e %s ]; do sleep 0.1; done; touch %s"]}`, commandBegun, commandGate, commandEnded))
		u.run("systemctl", "reload", service)
		third := u.renew()
		eventually(t, "the step in flight", func() bool { return exists(commandBegun) })
		pid := u.property("MainPID")
		stopping := time.Now()
		u.run("systemctl", "stop", "--no-block", service)
		eventually(t, "more patience than the unit has", func() bool { return time.Since(stopping) > 7*time.Second })
		u.wantProperty("MainPID", pid)
		u.wantProperty("ActiveState", "deactivating")
		if status := u.property("StatusText"); !strings.HasPrefix(status, "stopping: steps in flight are finished, for ") {
			t.Errorf("status %q", status)
		}
		must(t, os.WriteFile(commandGate, nil, 0o600))
		eventually(t, "the end", func() bool { return u.property("ActiveState") == "inactive" })
		u.wantProperty("Result", "success")
		u.wantProperty("ExecMainStatus", "0")
		if !exists(commandEnded) {
			t.Error("the reload command was not finished")
		}
		u.run("systemctl", "start", service)
		u.converged(third)
	})

	t.Run("files without capabilities", func(t *testing.T) {
		const own = "/etc/web/own"
		u.run("install", "-d", "-o", "rotatord", "-g", "rotatord", own)
		must(t, os.Remove(filepath.Join(unitsDir, service+".d", "owners.conf")))
		u.example("files.conf", "/etc/nginx/tls", own)
		u.policy(own, "reload: {unit: web.service}")
		u.run("systemctl", "daemon-reload")
		u.run("systemctl", "restart", service)
		u.converged(u.renew())
		if is := u.run("stat", "-L", "-c", "%U:%G %a", own+"/privkey.pem"); is != "rotatord:rotatord 600" {
			t.Errorf("the key belongs to %s", is)
		}
		if is := u.run("sh", "-c", "grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs):' /proc/"+u.property("MainPID")+"/status | tr -s '[:space:]' ' '"); is != "CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1" {
			t.Errorf("it may %s", is)
		}
	})

	t.Run("socket", func(t *testing.T) {
		u.run("systemctl", "stop", service)
		u.file(filepath.Join(unitsDir, "rotatord.socket.d/test.conf"), 0o644, "[Socket]\nListenStream=\nListenStream="+u.http+"\n")
		u.run("systemctl", "daemon-reload")
		u.run("systemctl", "start", "rotatord.socket")
		u.run("systemctl", "start", service)
		// Whoever asks while it is started again waits, and is answered.
		over, asked := make(chan struct{}), make(chan error, 1)
		go func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					asked <- nil
					return
				default:
				}
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				response, err := client.Get("http://" + u.http + "/livez")
				if err != nil {
					asked <- fmt.Errorf("request %d: %w", n, err)
					return
				}
				_ = response.Body.Close()
			}
		}()
		u.run("systemctl", "restart", service)
		u.restarted(syscall.SIGTERM) // a clean end is no reason to stay away
		close(over)
		if err := <-asked; err != nil {
			t.Error(err)
		}
		u.run("systemctl", "stop", service)
		if status, body := u.get("/livez"); status != http.StatusOK { // which starts it
			t.Errorf("%d %s", status, body)
		}
		eventually(t, "the end of the start", func() bool { return u.property("ActiveState") == "active" })
	})

	t.Run("bad configuration", func(t *testing.T) {
		u.run("systemctl", "stop", "rotatord.socket", service)
		u.run("sed", "-i", "1i stat: x", "/etc/rotatord/rotatord.yaml")
		if out, err := u.try("systemctl", "start", service); err == nil {
			t.Errorf("it was started: %s", out)
		}
		u.wantProperty("ExecMainStatus", "78")
		u.wantProperty("ActiveState", "failed")
		u.wantProperty("NRestarts", "0")
		if status := u.property("StatusText"); !strings.HasPrefix(status, `failed: /etc/rotatord/rotatord.yaml:1:1: unknown field "stat"`) {
			t.Errorf("status %q", status)
		}
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
