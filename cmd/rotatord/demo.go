package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

const (
	demoShop    = "shop.example.com"
	demoAPI     = "api.example.com"
	demoSubject = "certs.api.renewed"
	demoChain   = "fullchain.pem"
	demoKey     = "privkey.pem"
	// demoStep bounds what the demo waits for; it takes a second or two.
	demoStep = 30 * time.Second
)

func newDemoCommand(g *globals) *cobra.Command {
	var keep bool
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole job, offline: simulator, NATS, PEM directory and daemon in one process",
		Long: "Demo starts a simulated cloud, an embedded NATS server and the daemon, replaces certificates on disk, and shows\n" +
			"how the new ones come to be served. It needs no configuration and no network, and listens on loopback only.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, remove, err := workDirectory(dir, "rotatord-demo-")
			if err != nil {
				return err
			}
			defer remove()
			d := &demo{out: cmd.OutOrStdout(), dir: path, began: time.Now()}
			return d.run(cmd, g, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave everything running afterwards, until interrupted")
	cmd.Flags().StringVar(&dir, "dir", "", "keep the files in this directory (default a temporary one)")
	return cmd
}

// demo is one performance.
type demo struct {
	out    io.Writer
	dir    string
	began  time.Time
	ca     *certstest.CA
	sim    *cloudsim.Sim
	server string // address of the web server
	daemon *daemon
	nats   *nats.Conn
	events chan rotation.Event
}

func (d *demo) run(cmd *cobra.Command, g *globals, keep bool) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	defer func() { _ = d.sim.Close() }()
	stopped, err := d.startDaemon(ctx, cmd, g)
	if err != nil {
		return err
	}
	err = d.perform(ctx)
	if err == nil && keep {
		d.explore()
		<-cmd.Context().Done()
	}
	if d.nats != nil {
		d.nats.Close()
	}
	cancel()
	if stopping := <-stopped; err == nil {
		err = stopping
	}
	if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
		return errors.New("the demo was interrupted")
	}
	if err == nil && !keep {
		d.say("Done in %s. rotatord demo --keep leaves it running; README.md says how to go on.", time.Since(d.began).Round(10*time.Millisecond))
	}
	return err
}

// title and say narrate: with the time since the demo began.
func (d *demo) title(format string, args ...any) {
	fmt.Fprintf(d.out, "\n"+format+"\n", args...)
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%7.2fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// prepare makes a CA, a PEM directory, a cloud and the configuration files.
func (d *demo) prepare(ctx context.Context) error {
	d.title("A cloud, a CA and a directory of PEM files")
	var err error
	if d.ca, err = certstest.NewCA("rotatord demo"); err != nil {
		return fmt.Errorf("make a CA: %w", err)
	}
	for _, dir := range []string{"shop", "api", "web", "policies"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o700); err != nil {
			return fmt.Errorf("make directories: %w", err)
		}
	}
	shop, err := d.issue("shop", demoShop)
	if err != nil {
		return err
	}
	if _, err := d.issue("api", demoAPI); err != nil {
		return err
	}
	d.say("a CA, and certificates for %s and %s below %s", demoShop, demoAPI, d.dir)
	if err := d.startCloud(ctx, shop); err != nil {
		return err
	}
	if d.server, err = serveFiles(ctx, filepath.Join(d.dir, "web")); err != nil {
		return err
	}
	d.say("a web server at %s that reads its certificate from %s", d.server, filepath.Join(d.dir, "web"))
	return d.configure()
}

// issue makes a new bundle and puts it on disk, each file renamed into its place.
func (d *demo) issue(dir, name string) (*certs.Bundle, error) {
	bundle, err := d.ca.Issue(certstest.Options{Names: []string{name}, NotBefore: time.Now().Add(-time.Minute)})
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	if err := certstest.WritePair(filepath.Join(d.dir, dir), name, bundle); err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	return bundle, nil
}

// startCloud starts the simulator: a firewall where a person once bound the shop's
// certificate by hand, and an API gateway whose domain nobody has cared for yet.
func (d *demo) startCloud(ctx context.Context, shop *certs.Bundle) error {
	key, err := shop.Key.PEM(certs.Traditional)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	d.sim, err = cloudsim.New(cloudsim.Config{
		AccessKey: simulatedKey, SecretKey: rand.Text(), CertificateQuota: -1, Propagation: 700 * time.Millisecond, Edges: 2,
		Hosts: []cloudsim.Host{
			{Name: demoShop, Certificate: cloudsim.Certificate{Name: "uploaded-by-hand", CertPEM: shop.FullChainPEM(), KeyPEM: key}},
		},
		Gateways: []cloudsim.Gateway{{Groups: []cloudsim.Group{{Domains: []cloudsim.Domain{{Name: demoAPI}}}}}},
	})
	if err != nil {
		return err
	}
	if err := d.sim.Start(ctx); err != nil {
		return err
	}
	d.say("a simulated cloud at %s: a firewall for %s, an API gateway for %s, edges at %s", d.sim.URL(), demoShop, demoAPI, strings.Join(d.sim.EdgeAddrs(), " and "))
	return nil
}

// configure writes what a user would write.
func (d *demo) configure() error {
	info, err := describeSimulator(d.sim, d.dir, d.sim.Config().SecretKey)
	if err != nil {
		return err
	}
	files := map[string]string{
		"ca.pem": string(d.ca.RootPEM()),
		"rotatord.yaml": `state: state
http: {listen: "127.0.0.1:0"}
nats:
  embedded: {listen: "127.0.0.1:0"}
` + info.cloudYAML(),
		"policies/shop.yaml": d.policy("shop", demoShop, fmt.Sprintf(`  - name: edge
    waf: {hosts: [%s]}
  - name: web
    file: {directory: %s, full_chain: %s, key: %s}
`, demoShop, filepath.Join(d.dir, "web"), demoChain, demoKey), d.servers(demoShop)),
		"policies/api.yaml": d.policy("api", demoAPI, fmt.Sprintf(`  - name: gateway
    apig: {instance_id: %s, domains: [%s], replace: new}
when: {on: [nats, drift], subjects: [%s]}
`, d.sim.Config().Gateways[0].ID, demoAPI, demoSubject), d.servers(demoAPI)),
	}
	for name, content := range files {
		if err := certs.WriteFileAtomic(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}

func (d *demo) policy(name, host, targets string, addresses []string) string {
	return fmt.Sprintf(`name: %s
source:
  directory: {path: %s}
targets:
%sverify:
  endpoints: ["%s:443"]
  addresses: [%s]
  ca_file: %s
retain: {superseded: 0, for: 1s}
`, name, filepath.Join(d.dir, name), targets, host, quoted(addresses), filepath.Join(d.dir, "ca.pem"))
}

// serveFiles is a web server as there are many: TLS from two files, read anew for each
// connection. It ends with ctx.
func serveFiles(ctx context.Context, dir string) (address string, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the web server: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: demoStep,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the web server of the demo\n") }),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, demoChain), filepath.Join(dir, demoKey))
			return &pair, err
		}},
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.ServeTLS(listener, "", "") }()
	return listener.Addr().String(), nil
}

// startDaemon runs the daemon on the files as rotatord run does, and listens to its
// events as any NATS client can.
func (d *demo) startDaemon(ctx context.Context, cmd *cobra.Command, g *globals) (<-chan error, error) {
	d.title("The daemon starts")
	set, err := policy.Load(filepath.Join(d.dir, "rotatord.yaml"), func(string) string { return "" })
	if err != nil {
		return nil, err
	}
	log, err := newLogger(cmd.ErrOrStderr(), g, policy.Log{Level: "warn", Format: "auto"})
	if err != nil {
		return nil, err
	}
	if d.daemon, err = newDaemon(set, log); err != nil {
		return nil, err
	}
	stopped := make(chan error, 1)
	listening := d.listen()
	go func() { stopped <- d.daemon.Run(ctx) }()
	return stopped, listening
}

func (d *demo) listen() error {
	var err error
	if d.nats, err = nats.Connect(d.daemon.bus.ListenURL(), nats.Name("rotatord demo")); err != nil {
		return fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	d.events = make(chan rotation.Event, 256)
	_, err = d.nats.Subscribe("rotatord.event.>", func(m *nats.Msg) {
		var e struct {
			Type string             `json:"type"`
			Time time.Time          `json:"time"`
			Data rotation.EventData `json:"data"`
		}
		if json.Unmarshal(m.Data, &e) == nil {
			d.events <- rotation.Event{Kind: rotation.EventKind(strings.TrimPrefix(e.Type, "io.rotatord.")), Time: e.Time, Data: e.Data}
		}
	})
	if err == nil {
		err = d.nats.Flush()
	}
	if err != nil {
		return fmt.Errorf("listen to events: %w", err)
	}
	return nil
}

// perform is the story.
func (d *demo) perform(ctx context.Context) error {
	if err := d.followBoth(ctx); err != nil {
		return err
	}
	shop := d.served(ctx, demoShop)
	d.say("%s serves %s already at the firewall, uploaded by hand: only the files were missing", demoShop, shop.Short())

	d.title("A certificate file changes on disk")
	if err := d.replace(ctx, "shop", demoShop, shop, nil); err != nil {
		return err
	}
	d.title("A file changes, and the policy waits for a NATS message on %s", demoSubject)
	err := d.replace(ctx, "api", demoAPI, d.served(ctx, demoAPI), func() error {
		reply, err := d.nats.Request(demoSubject, []byte(`{"reason": "the CA renewed it"}`), demoStep)
		if err != nil {
			return fmt.Errorf("publish the trigger: %w", err)
		}
		d.say("message published; the stream has it: %s", strings.TrimSpace(string(reply.Data)))
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := d.follow(ctx, "api", rotation.EventRetired); err != nil {
		return err
	}
	return d.showMetrics(ctx)
}

// replace puts a new certificate on disk, sends the message if there is one, follows
// the rotation, and looks at the edges itself.
func (d *demo) replace(ctx context.Context, policy, host string, before certs.Fingerprint, message func() error) error {
	bundle, err := d.issue(policy, host)
	if err != nil {
		return err
	}
	changed := time.Now()
	d.say("new certificate %s on disk; %s is served with %s", bundle.Fingerprint().Short(), host, before.Short())
	if message != nil {
		if err := message(); err != nil {
			return err
		}
	}
	converged, err := d.follow(ctx, policy, rotation.EventConverged)
	if err != nil {
		return err
	}
	after := d.served(ctx, host)
	if after != bundle.Fingerprint() || converged.Data.Fingerprint != after {
		return fmt.Errorf("%s is served with %s, not %s", host, after.Short(), bundle.Fingerprint().Short())
	}
	d.say("before  %s\n          now     %s\n          at %s, %s after the change on disk",
		before, after, strings.Join(d.servers(host), ", "), converged.Time.Sub(changed).Round(10*time.Millisecond))
	return nil
}

// follow narrates the events until one of the kind comes from the policy, or from any
// where none is named.
func (d *demo) follow(ctx context.Context, policy string, until rotation.EventKind) (rotation.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return rotation.Event{}, fmt.Errorf("wait for event %s of policy %s: %w", until, policy, ctx.Err())
		case e := <-d.events:
			d.say("%-9s %s %s", e.Kind, e.Data.Policy, describeEvent(e.Data))
			if (policy == "" || e.Data.Policy == policy) && e.Kind == until {
				return e, nil
			}
		}
	}
}

func describeEvent(e rotation.EventData) string {
	parts := []string{e.Fingerprint.Short()}
	if e.Target != "" {
		parts = append(parts, "target "+e.Target)
	}
	if len(e.Endpoints) > 0 {
		parts = append(parts, strings.Join(e.Endpoints, ", "))
	}
	if !e.Previous.IsZero() {
		parts = append(parts, "instead of "+e.Previous.Short())
	}
	if e.Trigger != "" {
		parts = append(parts, "("+e.Trigger+")")
	}
	return strings.Join(append(parts, e.Reason), "  ")
}

// followBoth waits for the first convergence of both policies, in whatever order.
func (d *demo) followBoth(ctx context.Context) error {
	waiting := map[string]bool{"shop": true, "api": true}
	for len(waiting) > 0 {
		e, err := d.follow(ctx, "", rotation.EventConverged)
		if err != nil {
			return err
		}
		delete(waiting, e.Data.Policy)
	}
	return nil
}

// servers are where a host is served: the edges, and the shop by the web server too.
func (d *demo) servers(host string) []string {
	if host == demoShop {
		return append(d.sim.EdgeAddrs(), d.server)
	}
	return d.sim.EdgeAddrs()
}

// served asks the servers themselves; the zero Fingerprint if they do not agree.
func (d *demo) served(ctx context.Context, host string) certs.Fingerprint {
	probes := probe.Prober{}.Probe(ctx, providers.ProbeRequest{
		Endpoints: []string{host + ":443"}, Addresses: d.servers(host), CheckChain: true, CAFile: filepath.Join(d.dir, "ca.pem"),
	})
	for _, p := range probes {
		if p.Err != "" || p.Fingerprint != probes[0].Fingerprint {
			return certs.Fingerprint{}
		}
	}
	return probes[0].Fingerprint
}

// demoMetrics are the series that an operator looks at first.
var demoMetrics = []string{
	`rotatord_assignment_state{`, `rotatord_certificate_not_after_timestamp_seconds{`, `rotatord_rotations_total{`,
	`rotatord_probe_fingerprint_match{`, `rotatord_superseded_certificates{`, `rotatord_trigger_to_converged_seconds_sum{`, `rotatord_api_request_failures_total{`,
}

func (d *demo) showMetrics(ctx context.Context) error {
	url := "http://" + d.daemon.http.Addr() + "/metrics"
	d.title("The metrics that matter, of all that %s serves (those at 0 left out)", url)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask for metrics: %w", err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return fmt.Errorf("ask for metrics: %w", err)
	}
	defer func() { _ = r.Body.Close() }()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		line := lines.Text()
		for _, prefix := range demoMetrics {
			if strings.HasPrefix(line, prefix) && !strings.HasSuffix(line, " 0") {
				fmt.Fprintln(d.out, "  "+line)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	return nil
}

// explore tells what can be tried while everything goes on running.
func (d *demo) explore() {
	d.title("Everything goes on running until it is interrupted (Ctrl-C). To explore:")
	fmt.Fprintf(d.out, `  metrics       http://%[1]s/metrics   health: /readyz /livez
  files         %[2]s   (configuration, policies, PEM files)
  NATS          %[3]s   (publish on %[4]s or rotatord.trigger.shop; events on rotatord.event.>)
  edges         openssl s_client -connect %[5]s -servername %[6]s
`, d.daemon.http.Addr(), d.dir, d.daemon.bus.ListenURL(), demoSubject, d.sim.EdgeAddrs()[0], demoShop)
}
