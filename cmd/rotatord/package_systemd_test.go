//go:build systemd

package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

const (
	configFile = "/etc/rotatord/rotatord.yaml"
	// edited begins a configuration that is not as the package has it.
	edited = "# edited\n"
)

// packageRig is a host with systemd as PID 1 and nothing of rotatord on it, and packages of two versions. They differ
// in the configuration file too, so that an upgrade has to decide whose it is.
type packageRig struct {
	*unitRig
	older, newer string // directories
}

func newPackageRig(t *testing.T) *packageRig {
	t.Helper()
	throwAway(t)
	ca, err := certstest.NewCA("package")
	must(t, err)
	packages := os.Getenv("ROTATORD_TEST_PACKAGES")
	p := &packageRig{
		unitRig: &unitRig{ctx: t.Context(), rig: &rig{t: t, dir: t.TempDir(), ca: ca, log: newLogTap(t)}, http: "127.0.0.1:9847", program: "/usr/bin/rotatord"},
		older:   filepath.Join(packages, "older"), newer: filepath.Join(packages, "newer"),
	}
	t.Cleanup(func() {
		if t.Failed() {
			after := &unitRig{ctx: context.Background()}
			journal, _ := after.try("journalctl", "-u", service, "-o", "cat", "--no-pager", "-n", "60")
			t.Logf("the journal:\n%s", journal)
		}
	})
	// Container images have one that forbids packages to start anything. This is a host.
	must(t, os.RemoveAll("/usr/sbin/policy-rc.d"))
	p.sim = launchSimulator(t, p.dir, "--host", host)
	return p
}

// file is the one package of a directory that ends so.
func (p *packageRig) file(dir, end string) string {
	p.t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"+end))
	must(p.t, err)
	if len(found) != 1 {
		p.t.Fatalf("packages %s in %s: %v", end, dir, found)
	}
	return found[0]
}

// useCloud is what an operator does after the installation: configuration, secret and a policy.
func (p *packageRig) useCloud() {
	p.t.Helper()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		must(p.t, err)
		return string(text)
	}
	p.unitRig.file("/etc/rotatord/credentials/cloud-secret", 0o600, read(p.sim.info.SecretFile))
	p.unitRig.file("/etc/rotatord/cloud.pem", 0o644, read(p.sim.info.CAFile))
	info := p.sim.info
	info.SecretFile, info.CAFile = "cloud-secret", "/etc/rotatord/cloud.pem"
	p.unitRig.file(configFile, 0o644, edited+info.cloudYAML())
	p.unitRig.file("/etc/rotatord/policies/shop.yaml", 0o644, "name: shop\nsource: {directory: {path: "+sourceDir+"}}\ntargets: [{name: edge, waf: {hosts: ["+host+"]}}]\n")
	p.dropIn("credentials", "LoadCredential=cloud-secret:/etc/rotatord/credentials/cloud-secret")
	p.run("systemctl", "daemon-reload")
	p.run("systemctl", "restart", service)
}

// uploads counts the certificates that were brought to the cloud.
func (p *packageRig) uploads() int {
	n := 0
	for _, e := range p.sim.ledger() {
		if e.Operation == "CreateCertificate" && e.Effect {
			n++
		}
	}
	return n
}

func (p *packageRig) wantUploads(when string, want int) {
	p.t.Helper()
	if n := p.uploads(); n != want {
		p.t.Errorf("%s: %d uploads in the ledger, want %d", when, n, want)
	}
}

func (p *packageRig) want(want string, args ...string) {
	p.t.Helper()
	if is := p.run(args...); is != want {
		p.t.Errorf("%v is\n%s\nwant\n%s", args, is, want)
	}
}

func (p *packageRig) wantEdited() {
	p.t.Helper()
	if text, err := os.ReadFile(configFile); err != nil || !strings.HasPrefix(string(text), edited) {
		p.t.Errorf("the edited configuration is\n%s%v", text, err)
	}
}

// upgradeInFlight has a package manager upgrade while the cloud has not answered an upload yet.
func (p *packageRig) upgradeInFlight(upgrade ...string) {
	p.t.Helper()
	before := p.uploads()
	p.sim.hold("waf", "CreateCertificate", "after")
	bundle := p.renew()
	p.sim.awaitHeld()
	out, ended := []byte(nil), make(chan error, 1)
	go func() {
		var err error
		out, err = exec.CommandContext(p.ctx, upgrade[0], upgrade[1:]...).CombinedOutput()
		ended <- err
	}()
	eventually(p.t, "the stop of the old version", func() bool { return p.property("ActiveState") == "deactivating" })
	if status := p.property("StatusText"); !strings.HasPrefix(status, "stopping: steps in flight are finished") {
		p.t.Errorf("the old version says %q", status)
	}
	p.sim.call(http.MethodDelete, "faults", nil, nil)
	if err := <-ended; err != nil {
		p.t.Fatalf("%v: %v\n%s", upgrade, err, out)
	}
	p.converged(bundle)
	p.wantUploads("after the upgrade", before+1)
	p.wantEdited()
}

// TestPackageDeb takes the Debian package through its life.
func TestPackageDeb(t *testing.T) {
	p := newPackageRig(t)

	// Installed, it runs, with a configuration in which there is nothing to do.
	p.run("dpkg", "-i", p.file(p.older, "_amd64.deb"))
	version := p.run(p.program, "version")
	p.wantProperty("ActiveState", "active")
	p.wantProperty("UnitFileState", "enabled")
	p.want("/usr/lib/systemd/system/rotatord.service", "readlink", "-f", p.property("FragmentPath"))
	p.want(p.program, "readlink", "/proc/"+p.property("MainPID")+"/exe")
	if out, err := p.try("systemctl", "is-enabled", "rotatord.socket"); err == nil {
		t.Errorf("the socket is %s", out)
	}
	if status, body := p.get("/readyz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if _, metrics := p.get("/metrics"); !regexp.MustCompile(`rotatord_build_info\{go_version="go1[^"]+",revision="[0-9a-f]{40}",version="` + strings.TrimPrefix(version, "rotatord ") + `"\} 1`).MatchString(metrics) {
		t.Error("the metrics do not say which build it is")
	}
	p.want("", "dpkg", "--verify", "rotatord")
	p.want("root:rotatord 750\nroot:root 644\nroot:root 755\nroot:root 700\nrotatord:rotatord 700\nrotatord:rotatord 660",
		"stat", "-c", "%U:%G %a", "/etc/rotatord", configFile, "/etc/rotatord/policies", "/etc/rotatord/credentials", "/var/lib/rotatord", "/run/rotatord/rotatord.sock")
	p.want(configFile+": ok, 0 policies", "runuser", "-u", "rotatord", "--", p.program, "check", "--strict")

	// Who is in the group may ask and tell, and nobody else.
	p.run("useradd", "-G", "rotatord", "alice")
	p.run("useradd", "bob")
	p.run("runuser", "-u", "alice", "--", p.program, "status")
	if out, err := p.try("runuser", "-u", "bob", "--", p.program, "status", "--socket", "/run/rotatord/rotatord.sock"); err == nil {
		t.Errorf("anybody may ask: %s", out)
	}

	// Manual pages, completion, and a unit that names nothing that is not there.
	p.want("", "systemd-analyze", "verify", "--man=yes", service, "rotatord.socket")
	for _, page := range []string{"rotatord", "rotatord-plan", "rotatord-history-verify"} {
		p.want("/usr/share/man/man8/"+page+".8.gz", "man", "-w", page)
	}
	p.want("complete -o default -F __start_rotatord rotatord", "bash", "-c", ". /usr/share/bash-completion/completions/rotatord; complete -p rotatord")
	p.run("stat", "/usr/share/zsh/vendor-completions/_rotatord", "/usr/share/fish/vendor_completions.d/rotatord.fish", "/usr/share/doc/rotatord/copyright")

	p.useCloud()
	first := p.renew()
	p.converged(first)

	t.Run("upgrade", func(t *testing.T) {
		p.upgradeInFlight("dpkg", "--force-confold", "-i", p.file(p.newer, "_amd64.deb"))
		if now := p.run(p.program, "version"); now == version || !strings.Contains(p.run(p.program, "status", "-o", "json"), strings.TrimPrefix(now, "rotatord ")) {
			t.Errorf("%s was upgraded to %s, and the daemon says\n%s", version, now, p.run(p.program, "status", "-o", "json"))
		}
		if history := p.run(p.program, "history"); !strings.Contains(history, first.Fingerprint().Short()) {
			t.Errorf("what was before the upgrade is gone from the history:\n%s", history)
		}
		p.run("stat", configFile+".dpkg-dist") // so that the administrator can compare
	})

	t.Run("upgrade of a stopped service", func(t *testing.T) {
		p.run("systemctl", "disable", "--now", service)
		p.run("dpkg", "--force-confold", "-i", p.file(p.newer, "_amd64.deb"))
		p.wantProperty("ActiveState", "inactive")
		p.wantProperty("UnitFileState", "disabled")
		p.run("systemctl", "enable", "--now", service)
	})

	t.Run("remove", func(t *testing.T) {
		p.run("dpkg", "-r", "rotatord")
		p.wantProperty("ActiveState", "inactive")
		p.wantProperty("LoadState", "not-found")
		p.wantEdited()
		p.run("stat", "/etc/rotatord/policies/shop.yaml", "/var/lib/rotatord/nats")
		if exists(p.program) {
			t.Error("the program is still there")
		}
	})

	t.Run("install again", func(t *testing.T) {
		before := p.uploads()
		p.run("dpkg", "--force-confold", "-i", p.file(p.newer, "_amd64.deb"))
		p.wantProperty("ActiveState", "active")
		p.wantProperty("UnitFileState", "enabled")
		p.wantEdited()
		p.converged(p.renew())
		p.wantUploads("after the second installation", before+1)
	})

	t.Run("purge", func(t *testing.T) {
		// The state on a disk of its own, and what a time with DynamicUser= has left.
		p.run("mount", "--bind", "/var/lib/rotatord", "/var/lib/rotatord")
		p.run("mkdir", "-p", "/var/lib/private/rotatord/keys")
		p.run("dpkg", "-P", "rotatord")
		p.want("", "ls", "-A", "/var/lib/rotatord")
		p.run("umount", "/var/lib/rotatord")
		p.run("rmdir", "/var/lib/rotatord")
		p.wantProperty("LoadState", "not-found")
		left := strings.Fields(p.run("find", "/etc", "/usr", "/var", "(", "-path", "/usr/local", "-o", "-path", "/var/tmp", "-o", "-path", "/var/cache/man", ")", "-prune", "-o", "-name", "*rotatord*", "-print"))
		if want := []string{unitsDir + "/rotatord.service.d"}; !slices.Equal(left, want) {
			t.Errorf("left behind are %v, want %v", left, want)
		}
		p.run("id", "rotatord")
	})
}

// TestPackageRPM: the same with rpm, as far as Debian's rpm goes: it knows nothing of what is installed here, so that
// dependencies are not looked at.
func TestPackageRPM(t *testing.T) {
	p := newPackageRig(t)
	rpm := func(args ...string) []string {
		return append([]string{"rpm", "--dbpath", "/var/lib/rpm", "--force-debian", "--nodeps"}, args...)
	}
	p.run(rpm("-i", p.file(p.older, ".x86_64.rpm"))...)
	p.wantProperty("UnitFileState", "enabled") // Debian's preset
	p.want("root:rotatord 750", "stat", "-c", "%U:%G %a", "/etc/rotatord")
	p.run("systemctl", "start", service)
	if status, body := p.get("/readyz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	p.want("", rpm("-V", "rotatord")...)
	p.useCloud()
	p.converged(p.renew())
	p.upgradeInFlight(rpm("-U", p.file(p.newer, ".x86_64.rpm"))...)
	p.run("stat", configFile+".rpmnew")
	p.run(rpm("-e", "rotatord")...)
	p.wantProperty("LoadState", "not-found")
	p.run("stat", configFile+".rpmsave", "/etc/rotatord/policies/shop.yaml", "/var/lib/rotatord/nats")
}
