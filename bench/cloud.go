package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rotatord/rotatord/internal/cloudsim"
)

// cloud is a simulated account in this process, and how a daemon gets there.
type cloud struct {
	*cloudsim.Sim
	dir string
}

// newCloud starts an account with n protected hosts, none of which has a certificate.
func newCloud(ctx context.Context, dir string, n int, cfg cloudsim.Config) (*cloud, error) {
	cfg.AccessKey, cfg.SecretKey, cfg.CertificateQuota = "BENCHBENCHBENCHBENCH", rand.Text(), -1
	for i := range n {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: host(i)})
	}
	sim, err := cloudsim.New(cfg)
	if err != nil {
		return nil, err
	}
	c := &cloud{Sim: sim, dir: dir}
	if err := sim.Start(ctx); err != nil {
		return nil, err
	}
	err = errors.Join(os.WriteFile(filepath.Join(dir, "secret"), []byte(cfg.SecretKey), 0o600),
		os.WriteFile(filepath.Join(dir, "cloud-ca.pem"), sim.CAPEM(), 0o600))
	if err != nil {
		_ = sim.Close()
		return nil, err
	}
	return c, nil
}

// yaml is the account as a cloud of a configuration, with these bounds on its calls.
func (c *cloud) yaml(rate, concurrency int) string {
	cfg := c.Config()
	return fmt.Sprintf(`clouds:
  default:
    region: %s
    project_id: %s
    auth: {access_key: {id: %s, secret_file: %s}}
    endpoints: {iam: "%[5]s", waf: "%[5]s"}
    ca_file: %[6]s
    limits: {waf: {rate: %[7]d, burst: %[7]d, concurrency: %[8]d}}
brake: {max_share: 99%%, max_per_hour: 100000000}
`, cfg.Region, cfg.ProjectID, cfg.AccessKey, filepath.Join(c.dir, "secret"), c.URL(), filepath.Join(c.dir, "cloud-ca.pem"), rate, concurrency)
}

// covered is the policy that serves every pair at every host that it covers, proven at the edges.
func (c *cloud) covered(p *pairs, extra string) string {
	return fmt.Sprintf("name: all\nsource: {directory: {path: %s}}\ntargets: [{name: edge, waf: {hosts: covered}}]\n%s", p.root, extra)
}

// bound is how many hosts have a certificate.
func (c *cloud) bound() int {
	n := 0
	for _, h := range c.Hosts() {
		if h.CertificateID != "" {
			n++
		}
	}
	return n
}

// quoted is a list for YAML.
func quoted(list []string) string { return `["` + strings.Join(list, `", "`) + `"]` }
