package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// perform is the story.
func (d *demo) perform(ctx context.Context) error {
	if err := d.followAll(ctx); err != nil {
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
		return d.publish(ctx, demoSubject, `{"reason": "the CA renewed it"}`)
	})
	if err != nil {
		return err
	}
	if _, err := d.follow(ctx, "api", rotation.EventRetired); err != nil {
		return err
	}
	if err := d.reissue(ctx); err != nil {
		return err
	}
	if err := d.signOn(ctx); err != nil {
		return err
	}
	return d.showMetrics(ctx)
}

// publish sends a message as any program can.
func (d *demo) publish(ctx context.Context, subject, body string) error {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	reply, err := d.nats.RequestWithContext(ctx, subject, []byte(body))
	if err != nil {
		return fmt.Errorf("publish on %s: %w", subject, err)
	}
	d.say("published on %s: %s; the stream has it: %s", subject, body, strings.TrimSpace(string(reply.Data)))
	return nil
}

// reissue has the private CA make a new certificate before its time.
func (d *demo) reissue(ctx context.Context) error {
	before := d.served(ctx, demoPayments)
	d.title("The private CA issues anew: key and request are made here, only the request leaves the host")
	d.say("%s is served with %s", demoPayments, before.Short())
	if err := d.publish(ctx, "rotatord.trigger.payments", `{"force": true}`); err != nil {
		return err
	}
	converged, err := d.follow(ctx, "payments", rotation.EventConverged)
	if err != nil {
		return err
	}
	after := d.served(ctx, demoPayments)
	if after == before || after != converged.Data.Fingerprint {
		return fmt.Errorf("%s is served with %s", demoPayments, after.Short())
	}
	d.say("before  %s\n          now     %s\n          at %s", before, after, strings.Join(d.servers(demoPayments), ", "))
	for retired := (rotation.Event{}); retired.Data.Target != policy.SourcePrivateCA; {
		if retired, err = d.follow(ctx, "payments", rotation.EventRetired); err != nil {
			return err
		}
	}
	d.say("the CA has revoked its predecessor")
	return nil
}

// signOn rotates the certificate with which the identity provider signs. The party that
// trusts it must have the new one before it is used.
func (d *demo) signOn(ctx context.Context) error {
	d.title("The identity provider gets a new signing certificate: %s must have it first", demoParty)
	if err := d.publish(ctx, "rotatord.trigger.sso", `{"force": true}`); err != nil {
		return err
	}
	handedOut, err := d.follow(ctx, "sso", rotation.EventActivated)
	if err != nil {
		return err
	}
	d.say("%s has it in %s; the old one still signs", demoParty, filepath.Join(d.dir, "sso", "idp.pem"))
	err = d.publish(ctx, "rotatord.ack.sso", fmt.Sprintf(`{"party": %q, "fingerprint": "%s"}`, demoParty, handedOut.Data.Fingerprint))
	if err != nil {
		return err
	}
	_, err = d.follow(ctx, "sso", rotation.EventConverged)
	return err
}

// replace puts a new certificate on disk, sends the message if there is one, follows
// the rotation, and looks at the edges itself.
func (d *demo) replace(ctx context.Context, name, host string, before certs.Fingerprint, message func() error) error {
	bundle, err := d.issue(name, host)
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
	converged, err := d.follow(ctx, name, rotation.EventConverged)
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
func (d *demo) follow(ctx context.Context, name string, until rotation.EventKind) (rotation.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return rotation.Event{}, fmt.Errorf("wait for event %s of policy %s: %w", until, name, ctx.Err())
		case e := <-d.events:
			d.say("%-9s %s %s", e.Kind, e.Data.Policy, describeEvent(e.Data))
			if (name == "" || e.Data.Policy == name) && e.Kind == until {
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

// followAll waits for the first convergence of all policies, in whatever order.
func (d *demo) followAll(ctx context.Context) error {
	waiting := map[string]bool{"shop": true, "api": true, "payments": true, "sso": true}
	for len(waiting) > 0 {
		e, err := d.follow(ctx, "", rotation.EventConverged)
		if err != nil {
			return err
		}
		delete(waiting, e.Data.Policy)
	}
	return nil
}

// served asks the servers themselves; the zero Fingerprint if they do not agree.
func (d *demo) served(ctx context.Context, host string) certs.Fingerprint {
	probes := probe.Prober{}.Probe(ctx, providers.ProbeRequest{
		Endpoints: []string{host + ":443"}, Addresses: d.servers(host), CheckChain: true, CAFile: d.roots(host),
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
	fmt.Fprintf(d.out, `  status page   http://%[1]s/   read API: /api/v1/assignments, described by /api/v1/openapi.json
  metrics       http://%[1]s/metrics   health: /readyz /livez
  files         %[2]s   (configuration, policies, PEM files)
  NATS          %[3]s   (publish on %[4]s or rotatord.trigger.<policy>; events on rotatord.event.>)
  edges         openssl s_client -connect %[5]s -servername %[6]s
`, d.daemon.http.Addr(), d.dir, d.daemon.bus.ListenURL(), demoSubject, d.sim.EdgeAddrs()[0], demoShop)
}
