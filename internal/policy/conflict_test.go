package policy

import (
	"strings"
	"testing"
)

// Two policies that care for one place are refused; the same name elsewhere is another
// place.
func TestPlacesOfTwoPolicies(t *testing.T) {
	const config = plainConfig + "  other: {region: r, auth: {access_key: {id: a, secret_file: secret}}}\n"
	for name, test := range map[string]struct{ first, second, want string }{
		"host":            {"waf: {hosts: [a.example.com]}", "waf: {hosts: [b.example.com, A.EXAMPLE.COM]}", `host a.example.com is cared for already by policy "first"`},
		"domain":          {"apig: {instance_id: i1, domains: [a.example.com]}", "apig: {instance_id: i1, domains: [a.example.com]}", "domain a.example.com is cared for already"},
		"directory":       {"file: {directory: /tmp, certificate: a.pem}", "file: {directory: /tmp/, certificate: b.pem}", "directory /tmp is cared for already"},
		"another cloud":   {"waf: {hosts: [a.example.com]}", "waf: {cloud: other, hosts: [a.example.com]}", ""},
		"another mode":    {"waf: {hosts: [a.example.com]}", "waf: {mode: dedicated, hosts: [a.example.com]}", ""},
		"another gateway": {"apig: {instance_id: i1, domains: [a.example.com]}", "apig: {instance_id: i2, domains: [a.example.com]}", ""},
		"covered":         {"waf: {hosts: covered}", "waf: {hosts: covered}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			policy := func(name, target string) string {
				return "name: " + name + "\nsource: {directory: {path: /tmp}}\ntargets: [{name: t, " + target + "}]\n"
			}
			dir := household(t, config, map[string]string{"1.yaml": policy("first", test.first), "2.yaml": policy("second", test.second)})
			_, problem := loadIn(dir)
			if (test.want == "") != (problem == "") || !strings.Contains(problem, test.want) || test.want != "" && !strings.Contains(problem, "policies/2.yaml:3:") {
				t.Errorf("%q, want %q", problem, test.want)
			}
		})
	}
}
