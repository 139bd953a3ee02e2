package main

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

// TestLogins deploys a certificate of the private CA to the firewall, which takes
// credentials of the account and of the project, with each way to log in.
func TestLogins(t *testing.T) {
	for name, login := range map[string]func(r *rig) string{
		"password": func(r *rig) string {
			r.write("password", r.sim.Config().Password)
			return "password: {user: robot, domain: acme, password_file: password}"
		},
		"agency with access key": func(*rig) string {
			return fmt.Sprintf("agency: {agency: certificates, domain: acme, access_key: {id: %s, secret_file: secret}}", simulatedKey)
		},
		"agency with password": func(r *rig) string {
			r.write("password", r.sim.Config().Password)
			return "agency: {agency: certificates, domain: acme, password: {user: robot, domain: acme, password_file: password}}"
		},
		"metadata": func(r *rig) string { return fmt.Sprintf("metadata: {endpoint: %q}", r.sim.MetadataURL()) },
		"environment": func(r *rig) string {
			r.t.Setenv("HUAWEICLOUD_SDK_AK", simulatedKey)
			r.t.Setenv("HUAWEICLOUD_SDK_SK", r.sim.Config().SecretKey)
			return "environment: {}"
		},
		"profile file": func(r *rig) string {
			r.write("profile", fmt.Sprintf("[basic]\nak = %s\nsk = %s\n", simulatedKey, r.sim.Config().SecretKey))
			r.t.Setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", filepath.Join(r.dir, "profile"))
			return "environment: {}"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, cloudsim.Config{
				AccessKey: simulatedKey, SecretKey: rand.Text(), User: "robot", Password: rand.Text(), Domain: "acme", Agency: "certificates", Metadata: true,
				Hosts: []cloudsim.Host{{Name: host}}, CertificateQuota: -1, Authorities: []cloudsim.Authority{{CommonName: "Root"}},
			})
			info, err := describeSimulator(r.sim, r.dir, r.sim.Config().SecretKey)
			if err != nil {
				t.Fatal(err)
			}
			cloud := strings.Replace(info.cloudYAML(), fmt.Sprintf("access_key: {id: %s, secret_file: %s}", info.AccessKey, info.SecretFile), login(r), 1)
			r.write("rotatord.yaml", "state: state\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\n"+strings.Replace(cloud, "    project_id: "+info.ProjectID+"\n", "", 1))
			i := &issuing{r, info}
			i.write("policies/pay.yaml", "name: pay\n"+i.privateCA("cloud", `"dns:`+host+`"`, "")+fmt.Sprintf(`targets: [{name: edge, waf: {hosts: [%s]}}]
verify: {endpoints: ["%s:443"], addresses: [%s], ca_file: %s}
`, host, host, quoted(r.sim.EdgeAddrs()), info.AuthorityFile))
			i.start()
			i.convergedAnew("pay")
			for _, secret := range []string{r.sim.Config().Password, r.sim.Config().SecretKey} {
				if strings.Contains(r.log.text(), secret) {
					t.Error("a secret is in the log")
				}
			}
		})
	}
}
