package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// checkedRig is a configuration on a host, with a policy that check has nothing to say of,
// in a place that every user can reach.
func checkedRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rotatord-check-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ca, err := certstest.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, ca: ca}
	r.write("secret", "s3cret")
	r.write("ca.pem", string(ca.RootPEM()))
	r.write("rotatord.yaml", "state: state\nclouds:\n  default:\n    region: r\n    ca_file: ca.pem\n    auth: {access_key: {id: AK, secret_file: secret}}\n")
	r.write("policies/shop.yaml", "name: shop\nsource: {directory: {path: ../shop}}\ntargets:\n  - {name: web, file: {directory: ../web, full_chain: f, key: k}}\n  - {name: edge, waf: {hosts: [shop.example.com]}}\n")
	r.issue("shop", "shop.example.com")
	if err := os.Mkdir(filepath.Join(dir, "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// check runs the command and returns what it said, with paths relative to the rig.
func (r *rig) check(flags ...string) (code int, said string) {
	r.t.Helper()
	var out bytes.Buffer
	code = run(r.t.Context(), append([]string{"check", "--config", filepath.Join(r.dir, "rotatord.yaml")}, flags...), &out, &out)
	return code, strings.ReplaceAll(out.String(), r.dir+"/", "")
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCheckOfThisHost puts one thing wrong on a host that is fine otherwise.
func TestCheckOfThisHost(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(r *rig)
		code  int
		says  string // all of the first line that check prints
	}{
		{"nothing", func(*rig) {}, 0, "rotatord.yaml: ok, 1 policy"},
		{"no source directory", func(r *rig) { must(r.t, os.RemoveAll(r.path("shop"))) }, 1,
			"policies/shop.yaml:2:28: user root cannot look into it: shop: unreadable: no such file or directory"},
		{"an empty source directory", func(r *rig) { must(r.t, os.RemoveAll(r.path("shop"))); must(r.t, os.Mkdir(r.path("shop"), 0o755)) }, 0,
			"policies/shop.yaml:2:28: warning: no certificate is in shop yet"},
		{"a broken file", func(r *rig) { r.write("shop/x.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n") }, 0,
			"policies/shop.yaml:2:28: warning: 1 file cannot be used (rotatord inspect tells more): shop/x.pem: block 1: truncated: BEGIN CERTIFICATE without a matching END"},
		{"no target directory", func(r *rig) { must(r.t, os.Remove(r.path("web"))) }, 1,
			"policies/shop.yaml:4:35: directory web: user root cannot write to it: no such file or directory"},
		{"a target directory for everybody", func(r *rig) { must(r.t, os.Chmod(r.path("web"), 0o777)) }, 1,
			"policies/shop.yaml:4:35: web may be written by everybody (mode 0777)"},
		{"a target that is a file", func(r *rig) { must(r.t, os.Remove(r.path("web"))); r.write("web", "") }, 1,
			"policies/shop.yaml:4:35: directory web: it is not a directory"},
		{"an unknown owner", func(r *rig) { r.replace("key: k", "key: k, owner: no-such-user") }, 1,
			`policies/shop.yaml:4:73: this host has no user "no-such-user"`},
		{"an unknown group", func(r *rig) { r.replace("key: k", "key: k, group: no-such-group") }, 1,
			`policies/shop.yaml:4:73: this host has no group "no-such-group"`},
		{"a reload command that is not there", func(r *rig) { r.replace("key: k", "key: k, reload: {command: [/no/such/command]}") }, 1,
			"policies/shop.yaml:4:85: /no/such/command: user root cannot run it: no such file or directory"},
		{"roots that are none", func(r *rig) { r.write("ca.pem", "nothing") }, 1, "rotatord.yaml:5:14: "},
		{"a state directory that is a file", func(r *rig) { r.write("state", "") }, 1,
			"rotatord.yaml:1:8: state directory state: it is not a directory"},
		{"an expired certificate", func(r *rig) {
			old, err := r.ca.Issue(certstest.Options{Names: []string{"old.example.com"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
			must(r.t, err)
			r.put("shop", old)
		}, 0, "policies/shop.yaml:2:28: warning: 1 certificate is expired: old.example.com (" + time.Now().Add(-time.Hour).UTC().Format(time.DateOnly) + ")"},
		{"many names that nothing covers", func(r *rig) {
			r.replace("[shop.example.com]", "[a.org, b.org, c.org, d.org, e.org, f.org, g.org]")
		}, 0, "policies/shop.yaml:5:32: warning: no certificate in shop covers a.org, b.org, c.org, d.org, e.org, and 2 more"},
		{"a freeze until the end", func(r *rig) {
			end := time.Now().Add(365 * 24 * time.Hour)
			short, err := r.ca.Issue(certstest.Options{Names: []string{"shop.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(20 * 24 * time.Hour)})
			must(r.t, err)
			must(r.t, os.RemoveAll(r.path("shop")))
			r.put("shop", short)
			r.append("when: {freeze: [{from: 2026-01-01, to: " + end.Format(time.DateOnly) + "}]}\n")
		}, 0, "policies/shop.yaml:6:18: warning: no window opens for the successors of 1 certificate before expiry_wins (3d) lifts windows and freezes, if they are renewed after 66% of their lives: shop.example.com (due "},
	} {
		t.Run(test.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("the messages are those for root")
			}
			r := checkedRig(t)
			test.spoil(r)
			code, said := r.check()
			first, _, _ := strings.Cut(said, "\n")
			if code != test.code || !strings.HasPrefix(first, test.says) || !strings.HasSuffix(test.says, " ") && first != test.says {
				t.Errorf("code %d, and\n%s\nwant code %d, and\n%s", code, said, test.code, test.says)
			}
			if n := strings.Count(said, "^"); test.name != "nothing" && n != 1 {
				t.Errorf("%d findings, want one:\n%s", n, said)
			}
		})
	}
}

// replace changes the text of the policy.
func (r *rig) replace(old, now string) {
	r.t.Helper()
	data, err := os.ReadFile(r.path("policies/shop.yaml"))
	must(r.t, err)
	r.write("policies/shop.yaml", strings.Replace(string(data), old, now, 1))
}

func (r *rig) append(line string) {
	r.t.Helper()
	data, err := os.ReadFile(r.path("policies/shop.yaml"))
	must(r.t, err)
	r.write("policies/shop.yaml", string(data)+line)
}

// TestCheckAsAnotherUser finds what root may do and the service's user may not.
func TestCheckAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	r := checkedRig(t)
	if code, said := r.check("--user", "root"); code != 0 {
		t.Errorf("as root: code %d, and\n%s", code, said)
	}
	must(t, os.Chmod(r.dir, 0o755))
	for name, mode := range map[string]os.FileMode{"rotatord.yaml": 0o644, "policies": 0o755, "policies/shop.yaml": 0o644, "ca.pem": 0o644, "shop": 0o755, "shop/shop.example.com.crt": 0o644} {
		must(t, os.Chmod(r.path(name), mode))
	}
	r.replace("key: k", "key: k, owner: root, group: root")
	must(t, os.Chmod(r.path("policies/shop.yaml"), 0o644))
	code, said := r.check("--user", "nobody")
	want := []string{
		"rotatord.yaml:1:8: state directory state: user nobody cannot write to it: permission denied",
		"rotatord.yaml:6:46: secret: user nobody cannot read it: permission denied",
		"policies/shop.yaml:2:28: user nobody cannot read shop/shop.example.com.key",
		"policies/shop.yaml:4:35: directory web: user nobody cannot write to it: permission denied",
		"policies/shop.yaml:4:73: user nobody cannot give files to user root; only root can",
		"policies/shop.yaml:4:86: user nobody is not in group root, and cannot give files to it",
	}
	for _, line := range want {
		if !strings.Contains("\n"+said, "\n"+line+"\n") {
			t.Errorf("it does not say %q:\n%s", line, said)
		}
	}
	if n := strings.Count(said, "^"); code != 1 || n != len(want) {
		t.Errorf("code %d and %d findings, want 1 and %d:\n%s", code, n, len(want), said)
	}
	if strings.Count(said, "rotatord: the configuration cannot be used") != 1 {
		t.Errorf("the verdict is not there once:\n%s", said)
	}
}

// TestRunSaysWhatCheckProves: what a policy cannot keep is said at the start, and does not
// stop what can be done.
func TestRunSaysWhatCheckProves(t *testing.T) {
	r := newRig(t, host)
	r.policy("shop", host, "when: {subjects: [a.b, a.b], windows: [{start: \"0 0 * * *\", duration: 1h}, {start: \"0 1 * * *\", duration: 23h}]}\n")
	first := r.issue("shop", host)
	r.start()
	line := r.log.waitMessage("a policy promises what it cannot keep; rotatord check tells more")
	if line["level"] != "WARN" || fmt.Sprint(line["line"]) != "5" || !strings.Contains(fmt.Sprint(line["reason"]), `"a.b" is there twice`) {
		t.Errorf("the line is %v", line)
	}
	r.converged(first)
}
