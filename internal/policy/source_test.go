package policy

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Identity Center takes signed requests only, which a password cannot make.
func TestIdentityCenterNeedsAKeyThatSigns(t *testing.T) {
	const text = `name: sso
source: {identity_center: {instance_id: ins-1, application_instance_id: app-ins-0123456789abcdef}}
`
	for login, want := range map[string]string{
		"password: {user: u, password_file: secret, domain: acme}": "Identity Center takes signed requests only",
		"access_key: {id: a, secret_file: secret}":                 "",
		"metadata: {}":    "",
		"environment: {}": "",
		"agency: {agency: certs, domain: acme, password: {user: u, password_file: secret, domain: robots}}": "",
	} {
		dir := household(t, "node: test\nclouds: {default: {region: r, auth: {"+login+"}}}\n", map[string]string{"p.yaml": text})
		_, problem := loadIn(dir)
		if (want == "") != (problem == "") || !strings.Contains(problem, want) {
			t.Errorf("%s: %q, want %q", login, problem, want)
		}
	}
}

// A program that reloads may have two processes for a moment: one handshake proves little.
func TestProofsAfterAReload(t *testing.T) {
	const text = `name: web
source: {directory: {path: /srv/certs}}
targets:
  - {name: cloud, waf: {hosts: [a.example.com]}}
  - {name: nginx, file: {directory: /etc/nginx/tls, full_chain: a.pem%s}}
verify: {endpoints: ["a.example.com:443"]%s}
`
	for _, c := range []struct {
		reload, successes string
		want              int
	}{
		{"", "", 1},
		{", reload: {unit: nginx.service}", "", 3},
		{", reload: {command: [/bin/true]}", "", 3},
		{", reload: {unit: nginx.service}", ", successes: 1", 1},
		{"", ", successes: 7", 7},
	} {
		dir := household(t, "node: test\nclouds: {default: {region: r, auth: {environment: {}}}}\n",
			map[string]string{"p.yaml": fmt.Sprintf(text, c.reload, c.successes)})
		set, err := Load(filepath.Join(dir, "rotatord.yaml"), noEnv)
		must(t, err)
		if got := set.Policy("web").Verify.Successes; got != c.want {
			t.Errorf("%+v: %d proofs in a row", c, got)
		}
	}
}

// What is issued is renewed while it is valid, whatever the policy says.
func TestRenewIsDueWithinTheLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "from"), 0)
		to := from.Add(time.Duration(rapid.Int64Range(3600, 20*366*86400).Draw(t, "life")) * time.Second)
		r := Renew{At: Percent(rapid.Float64Range(0.1, 99.9).Draw(t, "at")), Before: Duration(rapid.Int64Range(0, 400*86400).Draw(t, "before")) * Duration(time.Second)}
		due := r.Due(from, to)
		if !due.Before(to) {
			t.Fatalf("due at %s, after the end at %s", due, to)
		}
		if r.Before > 0 && due.After(to.Add(-r.Before.Std())) {
			t.Fatalf("due at %s, later than %s before the end", due, r.Before)
		}
		if share := from.Add(time.Duration(float64(to.Sub(from)) * float64(r.At) / 100)); due.After(share.Add(time.Second)) {
			t.Fatalf("due at %s, later than %s of the life", due, r.At)
		}
	})
}

func TestSourceKinds(t *testing.T) {
	dir := goodCopy(t)
	set, err := Load(filepath.Join(dir, "rotatord.yaml"), noEnv)
	must(t, err)
	for name, want := range map[string]struct {
		kind, certificate string
		issues            bool
	}{
		"shop":     {SourceDirectory, "", false},
		"payments": {SourcePrivateCA, "Payments.internal", true},
		"sso":      {SourceIdentityCenter, "app-ins-0123456789abcdef", true},
	} {
		s := set.Policy(name).Source
		if s.Kind() != want.kind || s.Certificate() != want.certificate || s.Issues() != want.issues {
			t.Errorf("%s: %s, %q, %v", name, s.Kind(), s.Certificate(), s.Issues())
		}
	}
	last := set.Policy("sso").Targets[1]
	if !last.Last() || last.Kind() != "identity_center" || last.Endpoints().List[0] != "app-ins-0123456789abcdef" {
		t.Errorf("the implied target: %+v", last)
	}
}
