package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/probe"
	"github.com/rotatord/rotatord/internal/providers"
)

const (
	// endpointWait bounds the handshakes with the endpoints of one policy.
	endpointWait = 30 * time.Second
	// natsWait bounds the questions to NATS.
	natsWait = 20 * time.Second
	// askAtOnce is how much is asked of one cloud at once, within its limits.
	askAtOnce = 4
)

// examiner is an issuer that tells what keeps it from issuing, now and later.
type examiner interface {
	Examine(ctx context.Context) (problems, warnings []string, err error)
}

// question is one thing to ask of a cloud.
type question struct {
	cloud  string
	policy *policy.Policy
	at     string // what of the policy it is about
	ask    func(ctx context.Context) error
}

// online asks everybody whom the policies name. Nothing is changed anywhere.
func (c *checker) online(ctx context.Context) {
	asked := map[string][]question{}
	for name := range c.set.Config.Clouds {
		if _, err := c.wiring.client(name); err != nil {
			c.add(policy.Error, c.set.Config.File, "$.clouds."+name, "%v", err)
			continue
		}
		asked[name] = nil // its login is tried, whoever needs it
	}
	for _, p := range c.set.Policies {
		for _, q := range c.questions(p) {
			asked[q.cloud] = append(asked[q.cloud], q)
		}
	}
	var g errgroup.Group
	for cloud, questions := range asked {
		g.Go(func() error { c.cloud(ctx, cloud, questions); return nil })
	}
	g.Go(func() error { c.nats(ctx); return nil })
	g.Go(func() error { c.endpoints(ctx); return nil })
	_ = g.Wait() // what went wrong is a finding
}

// cloud logs in, once, and asks the rest only where that worked: each login with a wrong
// password counts towards a locked account.
func (c *checker) cloud(ctx context.Context, name string, questions []question) {
	said := &failures{c: c, cloud: name, seen: map[string]bool{}}
	client, err := c.wiring.client(name)
	if err != nil {
		return // said already
	}
	if err := client.LogIn(ctx); err != nil {
		said.tell(err, nil)
		return
	}
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for _, q := range questions {
		g.Go(func() error {
			if err := q.ask(ctx); err != nil {
				said.tell(err, &q)
			}
			return nil
		})
	}
	_ = g.Wait() // as above
}

// failures tells each failure of a cloud where it belongs, and what concerns many
// policies once.
type failures struct {
	c     *checker
	cloud string
	mu    sync.Mutex
	seen  map[string]bool
}

func (f *failures) tell(err error, q *question) {
	e, ok := errors.AsType[*providers.Error](err)
	if !ok {
		e = &providers.Error{Err: err}
	}
	at := "$.clouds." + f.cloud
	text := saying(e)
	switch e.Kind {
	case providers.KindUnauthenticated:
		f.once("login", at+".auth", "the login of cloud %q is refused: %s", f.cloud, text)
	case providers.KindDenied:
		f.once("denied "+e.Service+" "+e.Op, at+".auth", "the login of cloud %q may not %s: %s", f.cloud, e.Op, text)
	case providers.KindUnavailable, providers.KindUnknownOutcome, providers.KindThrottled:
		f.once("unavailable "+e.Service, at+".endpoints."+e.Service, "%s of cloud %q does not answer as it should: %s", e.Service, f.cloud, text)
	default:
		if q == nil {
			f.once("other", at, "cloud %q: %s: %s", f.cloud, e.Op, text)
			return
		}
		f.c.add(policy.Error, q.policy.File, q.at, "%s: %s", e.Op, text)
	}
}

func (f *failures) once(what, at, format string, args ...any) {
	f.mu.Lock()
	first := !f.seen[what]
	f.seen[what] = true
	f.mu.Unlock()
	if first {
		f.c.add(policy.Error, f.c.set.Config.File, at, format, args...)
	}
}

// saying is what the service said, or what kept it from being asked.
func saying(e *providers.Error) string {
	parts := []string{e.Code, e.Message}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return strings.ReplaceAll(e.Kind.String(), "_", " ")
	}
	return strings.Join(parts, ": ")
}

// questions are what a policy gives reason to ask of clouds. The adapters are built here,
// where nothing runs at once, since some are shared.
func (c *checker) questions(p *policy.Policy) []question {
	var all []question
	if ca := p.Source.PrivateCA; ca != nil {
		const at = "$.source.private_ca.issuer_id"
		issuer, err := c.wiring.privateCA(ca)
		if err != nil {
			c.add(policy.Error, p.File, at, "%v", err)
		} else {
			all = append(all, question{ca.Cloud, p, at, func(ctx context.Context) error { return c.examine(ctx, p, issuer) }})
		}
	}
	for i, t := range p.Targets {
		if t.File != nil {
			continue
		}
		target, err := c.wiring.target(t)
		if err != nil {
			c.add(policy.Error, p.File, fmt.Sprintf("$.targets[%d]", i), "%v", err)
			continue
		}
		q := question{cloud: cloudOf(t), policy: p, at: fmt.Sprintf("$.targets[%d].%s", i, t.Kind())}
		switch {
		case t.APIG != nil:
			q.at += ".instance_id"
		case t.Application != nil:
			q.at = "$.source.identity_center.application_instance_id"
		}
		q.ask = func(ctx context.Context) error { return c.endpointsOf(ctx, p, i, t, target) }
		if lister, ok := target.(providers.Lister); ok && t.Endpoints().Covered {
			q.ask = func(ctx context.Context) error { return c.coveredBy(ctx, p, q.at, lister) }
		}
		all = append(all, q)
	}
	return all
}

func cloudOf(t policy.Target) string {
	switch {
	case t.WAF != nil:
		return t.WAF.Cloud
	case t.APIG != nil:
		return t.APIG.Cloud
	}
	return t.Application.Cloud
}

func (c *checker) examine(ctx context.Context, p *policy.Policy, issuer examiner) error {
	const at = "$.source.private_ca.issuer_id"
	problems, warnings, err := issuer.Examine(ctx)
	for _, problem := range problems {
		c.add(policy.Error, p.File, at, "%s", problem)
	}
	for _, warning := range warnings {
		c.add(policy.Warning, p.File, at, "%s", warning)
	}
	return err
}

// endpointsOf finds out whether a target has the endpoints that the policy lists, and
// whether these can take a certificate.
func (c *checker) endpointsOf(ctx context.Context, p *policy.Policy, index int, t policy.Target, target providers.Target) error {
	owner := providers.Owner{Policy: p.Name, Certificate: p.Source.Certificate()}
	o, err := target.Observe(ctx, providers.Request{Owner: owner, Endpoints: t.Endpoints().List})
	if err != nil {
		return err
	}
	at := map[string]string{"waf": "hosts", "apig": "domains"}[t.Kind()]
	for i, e := range o.Endpoints {
		path := fmt.Sprintf("$.targets[%d].%s.%s[%d]", index, t.Kind(), at, i)
		what := "host"
		switch {
		case t.APIG != nil:
			what = "domain"
		case t.Application != nil:
			path, what = "$.source.identity_center.application_instance_id", "application instance"
		}
		switch {
		case e.Missing:
			c.add(policy.Error, p.File, path, "the service knows no %s %s", what, e.Name)
		case e.Problem != "":
			c.add(policy.Error, p.File, path, "%s %s: %s", what, e.Name, e.Problem)
		}
	}
	return nil
}

// coveredBy lists the endpoints of a target whose policy says covered.
func (c *checker) coveredBy(ctx context.Context, p *policy.Policy, at string, lister providers.Lister) error {
	names, err := lister.List(ctx)
	if err != nil || p.Source.PrivateCA == nil {
		return err
	}
	if !slices.ContainsFunc(names, p.Source.PrivateCA.Covers) {
		c.add(policy.Warning, p.File, at, "the certificate covers none of the %s of the service", counted(len(names), "endpoint", "endpoints"))
	}
	return nil
}

// endpoints finds out whether somebody answers where bundles are to be proven. What is
// served does not matter yet.
func (c *checker) endpoints(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for _, p := range c.set.Policies {
		if len(p.Verify.Endpoints) == 0 {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, endpointWait)
			defer cancel()
			told := map[string]bool{}
			for _, answer := range (probe.Prober{}).Probe(ctx, providers.ProbeRequest{
				Endpoints: p.Verify.Endpoints, Addresses: p.Verify.Addresses, CheckChain: p.Verify.Chain == "verify", CAFile: p.Verify.CAFile,
			}) {
				if answer.Err == "" || told[answer.Endpoint] {
					continue
				}
				told[answer.Endpoint] = true
				at := fmt.Sprintf("$.verify.endpoints[%d]", slices.Index(p.Verify.Endpoints, answer.Endpoint))
				c.add(policy.Warning, p.File, at, "%s", where(answer))
			}
			return nil
		})
	}
	_ = g.Wait() // as above
}

// where is an unsuccessful handshake in words.
func where(p providers.Probe) string {
	if p.Address == "" || p.Address == p.Endpoint {
		return p.Endpoint + ": " + p.Err
	}
	return p.Endpoint + " at " + p.Address + ": " + p.Err
}

// nats asks the server, where it is not our own: that one begins with the daemon.
func (c *checker) nats(ctx context.Context) {
	n := c.set.Config.NATS
	if n.URL == "" {
		if n.Embedded != nil {
			c.listener(ctx, n.Embedded.Listen)
		}
		return
	}
	config, err := busConfig(c.set, metrics.New(metrics.Config{}), slog.New(slog.DiscardHandler))
	if err != nil {
		c.add(policy.Error, c.set.Config.File, "$.nats", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, natsWait)
	defer cancel()
	for _, found := range bus.Examine(ctx, config) {
		severity := policy.Error
		if found.Warning {
			severity = policy.Warning
		}
		file, at := c.subject(found.Subject)
		if found.Field != "" {
			at = "$.nats." + found.Field
		}
		c.add(severity, file, at, "%s", found.Message)
	}
}

// subject is where a subject of NATS comes from: a policy, or else the configuration.
func (c *checker) subject(name string) (file, at string) {
	for _, p := range c.set.Policies {
		if i := slices.Index(p.When.Subjects, name); i >= 0 {
			return p.File, fmt.Sprintf("$.when.subjects[%d]", i)
		}
	}
	return c.set.Config.File, "$.nats.prefix"
}

// listener warns where something else than rotatord may have the port of the embedded
// server already. A running rotatord has it too, so it is no error.
func (c *checker) listener(ctx context.Context, address string) {
	if strings.HasSuffix(address, ":0") {
		return
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		c.add(policy.Warning, c.set.Config.File, "$.nats.embedded.listen", "%s is taken, by a running rotatord or by something else: %v", address, err)
		return
	}
	_ = l.Close() // nobody connected
}
