//go:build browser

package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/rotation"
)

var updatePictures = flag.Bool("update", false, "take the pictures of docs/images anew")

const day = 24 * time.Hour

// TestBrowser has Chromium look at the status page of a daemon that has something of everything
// to show; test/browser/check.mjs is what it looks for. Needs chromium and npm ci in test/browser.
func TestBrowser(t *testing.T) {
	r, d := browsed(t)
	script, err := filepath.Abs("../../test/browser/check.mjs")
	must(t, err)
	node := exec.Command("node", script, "http://"+d.http.Addr())
	if *updatePictures {
		pictures, err := filepath.Abs("../../docs/images")
		must(t, err)
		must(t, os.MkdirAll(pictures, 0o755))
		node.Args = append(node.Args, pictures)
	}
	said, err := node.StdoutPipe()
	must(t, err)
	asked, err := node.StdinPipe()
	must(t, err)
	node.Stderr = t.Output()
	must(t, node.Start())
	// The script asks for what has to happen while it looks.
	for lines := bufio.NewScanner(said); lines.Scan(); {
		t.Log(lines.Text())
		switch what, _ := strings.CutPrefix(lines.Text(), "please "); what {
		case "renew shop.example.com":
			bundle := r.issue("shop", "shop.example.com")
			fmt.Fprintln(asked, bundle.Fingerprint())
		case "pause api":
			_, err := d.setHold(t.Context(), "api", "user ada", &rotation.Hold{By: "user ada", Reason: "<b>release</b>", Since: time.Now()})
			must(t, err)
			fmt.Fprintln(asked, "done")
		}
	}
	if err := node.Wait(); err != nil {
		t.Errorf("the page is not as it should be: %v", err)
	}
}

// browsed is a daemon with an estate of which some parts are in trouble.
func browsed(t *testing.T) (*rig, *daemon) {
	hosts := []string{"shop.example.com", "api.example.com", "www.example.com", "login.example.com", "intranet.example.com", "checkout.example.com"}
	cfg := cloudsim.Config{AccessKey: simulatedKey, SecretKey: "s3cret-of-this-test", CertificateQuota: -1, Edges: 2}
	for _, host := range hosts {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: host})
	}
	r := newRigWith(t, cfg)
	r.dir = filepath.Join(os.TempDir(), "estate") // it is in the pictures
	must(t, os.Mkdir(r.dir, 0o700))
	t.Cleanup(func() { _ = os.RemoveAll(r.dir) })
	r.write("ca.pem", string(r.ca.RootPEM()))
	r.configure("")
	put := func(policy, name string, began, ends time.Duration) {
		bundle, err := r.ca.Issue(certstest.Options{Names: []string{name}, NotBefore: time.Now().Add(began), NotAfter: time.Now().Add(ends)})
		must(t, err)
		r.put(policy, bundle)
	}
	for i, host := range hosts {
		policy, _, _ := strings.Cut(host, ".")
		put(policy, host, -time.Duration(10+9*i)*day, time.Duration(80-9*i)*day)
		extra := ""
		if policy == "intranet" { // no window soon
			now := time.Now().UTC().Add(11 * time.Hour)
			extra = fmt.Sprintf("when: {windows: [{start: \"%d %d * * *\", duration: 2h, time_zone: UTC}]}\n", now.Minute(), now.Hour())
		}
		r.policy(policy, host, extra)
	}
	put("mail", "mail.example.com", -30*day, 60*day)
	r.policy("mail", "mail.example.com", "") // no such host at the firewall
	for i, name := range []string{"ldap", "git", "wiki", "metrics", "vpn", "<i>strange"} {
		put("watched", name+".corp.example.com", -time.Duration(20+40*i)*day, time.Duration(345-40*i)*day)
	}
	put("watched", "printer.corp.example.com", -360*day, 5*day)
	put("watched", "fax.corp.example.com", -360*day, -2*day)
	r.write("policies/watched.yaml", "name: watched\nsource: {directory: {path: "+filepath.Join(r.dir, "watched")+"}}\n")
	r.write("watched/broken.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
	r.put("files", must1(r.ca.Issue(certstest.Options{Names: []string{"proxy.example.com"}, NotBefore: time.Now().Add(-40 * day), NotAfter: time.Now().Add(50 * day)}))(t))
	must(t, os.MkdirAll(filepath.Join(r.dir, "nginx"), 0o755))
	r.write("policies/files.yaml", fmt.Sprintf("name: files\nsource: {directory: {path: %s}}\ntargets: [{name: nginx, file: {directory: %s, full_chain: a.pem, key: a.key}}]\n", filepath.Join(r.dir, "files"), filepath.Join(r.dir, "nginx")))
	d := r.start()
	awaitReady(t, d)
	want := map[string]string{
		"shop.example.com": "converged", "api.example.com": "converged", "www.example.com": "converged", "login.example.com": "converged", "checkout.example.com": "converged",
		"proxy.example.com": "converged", "mail.example.com": "failed", "fax.corp.example.com": "expired", "intranet.example.com": "waiting",
	}
	why := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("of the estate, last: " + why)
		}
	})
	eventually(t, "the estate's first round", func() bool {
		for _, a := range d.status(selection{}).Assignments {
			if state := want[a.Certificate]; state != "" && state != a.State {
				why = fmt.Sprintf("%s is %s: %s", a.Certificate, a.State, a.Reason)
				return false
			}
		}
		return true
	})
	return r, d
}

func must1[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return value
	}
}
