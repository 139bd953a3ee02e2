package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/policy"
)

// simulatedKey is the access key that the simulator of this command accepts. Its secret
// is made at each start.
const simulatedKey = "ROTATORDSIMULATOR"

// simulateFlags are the settings of the simulator.
type simulateFlags struct {
	listen      string
	dir         string
	hosts       []string
	dedicated   []string
	domains     []string
	authority   string
	application string
	quota       int
	edges       int
	propagation time.Duration
	latency     time.Duration
	misbehave   bool
	output      string
}

func newSimulateCommand(g *globals) *cobra.Command {
	f := &simulateFlags{}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run the cloud simulator alone, to try policies out",
		Long: "Simulate serves IAM, WAF, API gateway, private CA and Identity Center as the cloud does, over TLS on loopback,\n" +
			"and TLS edges that serve what is bound to each host and domain. Everything is in memory; credentials are made anew\n" +
			"at each start. It runs until it is interrupted.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return simulate(cmd.Context(), cmd, g, f) },
	}
	addOutputFlag(cmd, &f.output)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:0", "address of the API")
	flags.StringVar(&f.dir, "dir", "", "directory for ca.pem and secret (default a temporary one)")
	flags.StringArrayVar(&f.hosts, "host", nil, "a host that WAF protects in cloud mode; may be repeated")
	flags.StringArrayVar(&f.dedicated, "dedicated-host", nil, "a host in dedicated mode; may be repeated")
	flags.StringArrayVar(&f.domains, "domain", nil, "a domain of an API gateway; may be repeated")
	flags.StringVar(&f.authority, "private-ca", "Simulated Issuing CA", "common name of the private CA")
	flags.StringVar(&f.application, "application", "application", "name of the Identity Center application")
	flags.IntVar(&f.quota, "quota", -1, "how many certificates the account may hold; -1 for no limit")
	flags.IntVar(&f.edges, "edges", 1, "number of edges")
	flags.DurationVar(&f.propagation, "propagation", time.Second, "time from a binding until the edges serve it")
	flags.DurationVar(&f.latency, "latency", 0, "time that each API call takes")
	flags.BoolVar(&f.misbehave, "misbehave", false, "do everything that a client must bear although no page promises it")
	return cmd
}

// simulated is what a user needs to reach the simulator.
type simulated struct {
	URL        string   `json:"url"`
	Region     string   `json:"region"`
	ProjectID  string   `json:"project_id"`
	AccessKey  string   `json:"access_key"`
	SecretFile string   `json:"secret_file"`
	CAFile     string   `json:"ca_file"`
	Edges      []string `json:"edges"`
	// What policies refer to by id.
	GatewayID     string `json:"gateway_id,omitempty"`
	AuthorityID   string `json:"authority_id,omitempty"`
	AuthorityFile string `json:"authority_file,omitempty"`
	InstanceID    string `json:"instance_id,omitempty"`
	ApplicationID string `json:"application_id,omitempty"`
}

func simulate(ctx context.Context, cmd *cobra.Command, g *globals, f *simulateFlags) error {
	log, _, err := newLogger(cmd.ErrOrStderr(), g, policy.Log{Level: "info", Format: "auto"})
	if err != nil {
		return err
	}
	dir, remove, err := workDirectory(f.dir, "rotatord-simulate-")
	if err != nil {
		return err
	}
	defer remove()
	secret := rand.Text()
	cfg := cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: secret, Listen: f.listen, Management: true, CertificateQuota: f.quota,
		Edges: f.edges, Propagation: f.propagation, Latency: f.latency, Misbehave: f.misbehave, Logger: log,
	}
	for _, name := range f.hosts {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: strings.ToLower(name)})
	}
	for _, name := range f.dedicated {
		cfg.Hosts = append(cfg.Hosts, cloudsim.Host{Name: strings.ToLower(name), Dedicated: true})
	}
	if len(f.domains) > 0 {
		var domains []cloudsim.Domain
		for _, name := range f.domains {
			domains = append(domains, cloudsim.Domain{Name: strings.ToLower(name)})
		}
		cfg.Gateways = []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: domains}}}}
	}
	if f.authority != "" {
		root := f.authority + " Root"
		cfg.Authorities = []cloudsim.Authority{{CommonName: root}, {CommonName: f.authority, Parent: root}}
	}
	if f.application != "" {
		cfg.Instances = []cloudsim.IdentityInstance{{Applications: []cloudsim.Application{{Name: f.application}}}}
	}
	sim, err := cloudsim.New(cfg)
	if err != nil {
		return usageError{err}
	}
	if err := sim.Start(ctx); err != nil {
		return err
	}
	info, err := describeSimulator(sim, dir, secret)
	if err == nil {
		err = info.print(cmd, f.output)
	}
	if err == nil {
		<-ctx.Done()
	}
	if closing := sim.Close(); err == nil {
		err = closing
	}
	return err
}

// workDirectory makes a directory, a temporary one that remove takes away if none is
// named.
func workDirectory(dir, pattern string) (path string, remove func(), err error) {
	if dir == "" {
		path, err = os.MkdirTemp("", pattern)
		if err != nil {
			return "", nil, fmt.Errorf("make a temporary directory: %w", err)
		}
		return path, func() { _ = os.RemoveAll(path) }, nil
	}
	path, err = filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		return "", nil, fmt.Errorf("make directory %s: %w", dir, err)
	}
	return path, func() {}, nil
}

// describeSimulator writes the files that a configuration refers to.
func describeSimulator(sim *cloudsim.Sim, dir, secret string) (simulated, error) {
	cfg := sim.Config()
	info := simulated{
		URL: sim.URL(), Region: cfg.Region, ProjectID: cfg.ProjectID, AccessKey: cfg.AccessKey,
		SecretFile: filepath.Join(dir, "secret"), CAFile: filepath.Join(dir, "cloud-ca.pem"), Edges: sim.EdgeAddrs(),
	}
	if err := certs.WriteFileAtomic(info.SecretFile, []byte(secret+"\n"), 0o600); err != nil {
		return simulated{}, fmt.Errorf("write the secret: %w", err)
	}
	if err := certs.WriteFileAtomic(info.CAFile, sim.CAPEM(), 0o644); err != nil {
		return simulated{}, fmt.Errorf("write the simulator's CA: %w", err)
	}
	if len(cfg.Gateways) > 0 {
		info.GatewayID = cfg.Gateways[0].ID
	}
	if all := sim.Authorities(); len(all) > 0 {
		info.AuthorityID, info.AuthorityFile = all[len(all)-1].ID, filepath.Join(dir, "private-ca.pem")
		if err := certs.WriteFileAtomic(info.AuthorityFile, []byte(all[0].CertificatePEM), 0o644); err != nil {
			return simulated{}, fmt.Errorf("write the private CA's root: %w", err)
		}
	}
	if all := sim.Applications(); len(all) > 0 {
		info.InstanceID, info.ApplicationID = all[0].InstanceID, all[0].ID
	}
	return info, nil
}

// cloudYAML is the simulator as a cloud of a configuration.
func (s simulated) cloudYAML() string {
	return fmt.Sprintf(`clouds:
  default:
    region: %s
    project_id: %s
    auth:
      access_key: {id: %s, secret_file: %s}
    endpoints: {iam: "%[5]s", waf: "%[5]s", apig: "%[5]s", ccm: "%[5]s", identity_center: "%[5]s"}
    ca_file: %[6]s
    limits:
      waf: &fast {rate: 50, burst: 50, concurrency: 8}
      apig: *fast
      ccm: *fast
      identity_center: *fast
`, s.Region, s.ProjectID, s.AccessKey, s.SecretFile, s.URL, s.CAFile)
}

func (s simulated) print(cmd *cobra.Command, output string) error {
	if output == "json" {
		return printJSON(cmd, s)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), `The simulator answers at %s until it is interrupted.
Its edges are at %s; for a policy:

verify:
  addresses: [%s]
%s
For rotatord.yaml:

%s`, s.URL, strings.Join(s.Edges, " and "), quoted(s.Edges), s.ids(), s.cloudYAML())
	return err
}

// ids are what policies refer to, as they stand in them.
func (s simulated) ids() string {
	var b strings.Builder
	if s.GatewayID != "" {
		fmt.Fprintf(&b, "\napig: {instance_id: %s}\n", s.GatewayID)
	}
	if s.AuthorityID != "" {
		fmt.Fprintf(&b, "\nprivate_ca: {issuer_id: %s}   # its root is in %s\n", s.AuthorityID, s.AuthorityFile)
	}
	if s.ApplicationID != "" {
		fmt.Fprintf(&b, "\nidentity_center: {instance_id: %s, application_instance_id: %s}\n", s.InstanceID, s.ApplicationID)
	}
	return b.String()
}

// quoted writes strings as the items of a YAML list.
func quoted(items []string) string {
	q := make([]string, len(items))
	for i, item := range items {
		q[i] = fmt.Sprintf("%q", item)
	}
	return strings.Join(q, ", ")
}
