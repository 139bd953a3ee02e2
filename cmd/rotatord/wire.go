package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/metrics"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/apig"
	"github.com/rotatord/rotatord/internal/providers/file"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
	"github.com/rotatord/rotatord/internal/providers/identitycenter"
	"github.com/rotatord/rotatord/internal/providers/privateca"
	"github.com/rotatord/rotatord/internal/providers/waf"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// This file is the one place where the kinds that policies and configuration name meet
// the adapters that know them.

// wiring builds adapters and shares those that can be shared.
type wiring struct {
	set   *policy.Set
	meter *metrics.Metrics
	log   *slog.Logger
	// skew hears how far this host's clock is ahead of a cloud's, quota what an account holds.
	skew  func(time.Duration)
	quota func(holder, quota)
	// back hears of clouds of which a service had been away, and is not any more.
	back func(cloud string)
	// transport replaces the network of the clouds in tests; nil otherwise.
	transport http.RoundTripper
	clients   map[string]*huaweicloud.Client
	// roots are the contents of the clouds' ca_file that the clients were built with.
	roots map[string][]byte
	wafs  map[sharedWAF]*waf.Target
	// listings by target: adapters are pointers, so they can be keys.
	listings     map[providers.Target]*rotation.Listing
	applications map[*policy.IdentityCenter]*identitycenter.Application
	// authorities are what issuers read of their CAs, shared.
	authorities *privateca.Authorities
	// gateways make targets of one API gateway take turns.
	gateways *apig.Locks
	// events are those of all watched directories.
	events *watcher.Events
}

// sharedWAF is what targets of the firewall have in common that share an adapter.
type sharedWAF struct{ cloud, mode, enterpriseProject string }

func newWiring(set *policy.Set, meter *metrics.Metrics, log *slog.Logger) *wiring {
	return &wiring{
		set: set, meter: meter, log: log, skew: func(time.Duration) {}, quota: func(holder, quota) {}, back: func(string) {}, clients: map[string]*huaweicloud.Client{}, roots: map[string][]byte{}, wafs: map[sharedWAF]*waf.Target{},
		authorities: &privateca.Authorities{}, gateways: &apig.Locks{}, events: watcher.NewEvents(log),
		listings: map[providers.Target]*rotation.Listing{}, applications: map[*policy.IdentityCenter]*identitycenter.Application{},
	}
}

// part is a policy with everything that runs for it.
type part struct {
	assembly *rotation.Assembly
	source   source
	// watcher of a source that is a directory, with the password that it opens keys with, what
	// ends it, and what is closed then; nil for others.
	watcher     *watcher.Watcher
	keyPassword []byte
	stop        context.CancelFunc
	ended       <-chan struct{}
	// place is where the policy's work can be done: this node, or any.
	place string
}

// part builds a policy's source and targets. onChange hears of changes of the source.
func (w *wiring) part(p *policy.Policy, onChange func(watcher.Change)) (_ *part, err error) {
	made := &part{place: w.place(p), assembly: &rotation.Assembly{Policy: p, Targets: map[string]providers.Target{}, Listings: map[string]*rotation.Listing{}}}
	if err := w.source(made, p, onChange); err != nil {
		return nil, fmt.Errorf("policy %s: source: %w", p.Name, err)
	}
	made.assembly.Source = made.source
	for _, t := range p.Targets {
		target, err := w.target(t)
		if err != nil {
			return nil, fmt.Errorf("policy %s: target %s: %w", p.Name, t.Name, err)
		}
		made.assembly.Targets[t.Name] = target
		if t.Endpoints().Covered {
			if made.assembly.Listings[t.Name], err = w.listing(target); err != nil {
				return nil, fmt.Errorf("policy %s: target %s: %w", p.Name, t.Name, err)
			}
		}
	}
	return made, nil
}

// place says who can work for a policy: what touches this host's files stays with it.
func (w *wiring) place(p *policy.Policy) string {
	local := p.Source.Directory != nil || p.Source.PrivateCA != nil && p.Source.PrivateCA.Key.Held == policy.HeldLocal
	if local || slices.ContainsFunc(p.Targets, func(t policy.Target) bool { return t.File != nil }) {
		return w.set.Config.Node
	}
	return bus.Any
}

// source builds a policy's source: the switch over its kinds.
func (w *wiring) source(made *part, p *policy.Policy, onChange func(watcher.Change)) (err error) {
	switch {
	case p.Source.Directory != nil:
		if err = w.watch(made, p, onChange); err != nil {
			return err
		}
		made.source = newDirectorySource(p, made.watcher)
		return nil
	case p.Source.PrivateCA != nil:
		made.assembly.Issuer, err = w.privateCA(p.Source.PrivateCA)
	case p.Source.IdentityCenter != nil:
		var application *identitycenter.Application
		if application, err = w.application(p.Source.IdentityCenter); err == nil {
			made.assembly.Issuer = application.Issuer()
		}
	default:
		err = errors.New("the policy has none")
	}
	made.source = newIssuedSource(p)
	return err
}

func (w *wiring) watch(made *part, p *policy.Policy, onChange func(watcher.Change)) (err error) {
	dir := p.Source.Directory
	if made.keyPassword, err = secretBytes(dir.KeyPasswordFile); err != nil {
		return err
	}
	made.watcher, err = watcher.New(watcher.Config{
		Name: p.Name, Root: dir.Path, Recursive: dir.Recursive, Interval: dir.Rescan.Std(),
		KeyPassword: made.keyPassword, Logger: w.log.With("policy", p.Name), Events: w.events, OnChange: onChange,
	})
	return err
}

func (w *wiring) privateCA(spec *policy.PrivateCA) (*privateca.Issuer, error) {
	client, err := w.client(spec.Cloud)
	if err != nil {
		return nil, err
	}
	asked := privateca.Spec{
		IssuerID: spec.IssuerID, CommonName: spec.CommonName, Country: spec.Subject.Country, State: spec.Subject.State,
		Locality: spec.Subject.Locality, Organization: spec.Subject.Organization, OrganizationalUnit: spec.Subject.OrganizationalUnit,
		KeyAlgorithm: spec.Key.Algorithm, Held: spec.Key.Held, Signature: spec.Signature,
		Validity: privateca.Validity{Type: spec.Validity.Type, Value: spec.Validity.Value}, Backdate: spec.Backdate.Std(),
		KeyUsages: spec.KeyUsages, ExtendedKeyUsages: spec.ExtendedKeyUsages, EnterpriseProject: spec.EnterpriseProject,
	}
	for _, name := range spec.Names {
		asked.Names = append(asked.Names, privateca.Name{Type: name.Type, Value: name.Value})
	}
	if x := spec.CustomExtension; x != nil {
		asked.Extension = &privateca.Extension{OID: x.OID, Value: x.Value}
	}
	return privateca.New(privateca.Config{
		Client: client, Spec: asked, Keys: filepath.Join(w.set.Config.State, "keys"), Authorities: w.authorities,
		Logger: w.log.With("cloud", spec.Cloud, "service", "ccm"),
	})
}

// application builds what both the source and the target of an Identity Center policy
// use, once.
func (w *wiring) application(spec *policy.IdentityCenter) (*identitycenter.Application, error) {
	if a, ok := w.applications[spec]; ok {
		return a, nil
	}
	client, err := w.client(spec.Cloud)
	if err != nil {
		return nil, err
	}
	a, err := identitycenter.New(identitycenter.Config{
		Client: client, InstanceID: spec.InstanceID, ApplicationInstanceID: spec.ApplicationInstanceID,
		All: spec.Superseded == policy.SupersededDeleteAll, Logger: w.log.With("cloud", spec.Cloud, "service", "identity_center"),
	})
	if err != nil {
		return nil, err
	}
	w.applications[spec] = a
	return a, nil
}

// target builds the adapter of a target: the switch over kinds.
func (w *wiring) target(t policy.Target) (providers.Target, error) {
	switch {
	case t.WAF != nil:
		return w.waf(t.WAF)
	case t.APIG != nil:
		return w.apig(t.APIG)
	case t.File != nil:
		return w.file(t.File)
	case t.Application != nil:
		a, err := w.application(t.Application)
		if err != nil {
			return nil, err
		}
		return a.Target(), nil
	}
	return nil, fmt.Errorf("target %s has no kind", t.Name)
}

func (w *wiring) apig(spec *policy.APIG) (*apig.Target, error) {
	client, err := w.client(spec.Cloud)
	if err != nil {
		return nil, err
	}
	c := apig.Config{
		Client: client, Scope: spec.Scope, InstanceID: spec.InstanceID, Replace: spec.Replace, Locks: w.gateways,
		Logger: w.log.With("cloud", spec.Cloud, "service", "apig"),
	}
	if spec.TrustedRootCAFile != "" {
		c.TrustedRootCA = func() ([]byte, error) { return certs.ReadFile(spec.TrustedRootCAFile) }
	}
	return apig.New(c)
}

func (w *wiring) file(spec *policy.File) (*file.Target, error) {
	c := file.Config{
		Directory: spec.Directory, Certificate: spec.Certificate, Chain: spec.Chain, FullChain: spec.FullChain,
		Key: spec.Key, Combined: spec.Combined, PKCS12: spec.PKCS12, Owner: spec.Owner, Group: spec.Group,
		Mode: os.FileMode(spec.Mode), Logger: w.log.With("directory", spec.Directory),
	}
	if spec.PKCS12PasswordFile != "" {
		c.PKCS12Password = spec.PKCS12PasswordFile.Read
	}
	if r := spec.Reload; r != nil {
		c.Reload = file.Reload{Unit: r.Unit, Command: r.Command, Timeout: r.Timeout.Std()}
	}
	return file.New(c)
}

// listing returns the list of a target's endpoints, one for all policies that share the
// target.
func (w *wiring) listing(t providers.Target) (*rotation.Listing, error) {
	if l, ok := w.listings[t]; ok {
		return l, nil
	}
	lister, ok := t.(providers.Lister)
	if !ok {
		return nil, errors.New("this kind of target cannot list its endpoints; name them instead of covered")
	}
	w.listings[t] = rotation.NewListing(lister)
	return w.listings[t], nil
}

func (w *wiring) waf(spec *policy.WAF) (*waf.Target, error) {
	shared := sharedWAF{spec.Cloud, spec.Mode, spec.EnterpriseProject}
	if t, ok := w.wafs[shared]; ok {
		return t, nil
	}
	client, err := w.client(spec.Cloud)
	if err != nil {
		return nil, err
	}
	t, err := waf.New(waf.Config{
		Client: client, Mode: spec.Mode, EnterpriseProject: spec.EnterpriseProject, Logger: w.log.With("cloud", spec.Cloud, "service", "waf"),
	})
	if err != nil {
		return nil, err
	}
	w.wafs[shared] = t
	return t, nil
}

// busConfig translates the configuration of NATS.
func busConfig(set *policy.Set, meter bus.Meter, log *slog.Logger) (bus.Config, error) {
	n := set.Config.NATS
	c := bus.Config{
		Prefix: n.Prefix, Node: set.Config.Node, URL: n.URL, Replicas: n.Replicas,
		CredentialsFile: string(n.CredentialsFile), NKeySeedFile: string(n.NKeySeedFile), User: n.User, Password: n.PasswordFile.Read,
		EventAge: set.Config.Audit.Retain.Std(), StoreDir: filepath.Join(set.Config.State, "nats"), Meter: meter, Logger: log.With("component", "bus"),
	}
	c.Subjects = (&generation{set: set}).subjects()
	var err error
	if c.TLS, err = natsTLS(n.TLS); err != nil {
		return bus.Config{}, err
	}
	c.Listener, err = natsListener(n.Embedded)
	return c, err
}

func natsListener(e *policy.EmbeddedNATS) (*bus.Listener, error) {
	if e == nil {
		return nil, nil
	}
	password, err := secretBytes(e.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("nats.embedded: %w", err)
	}
	host, port, err := net.SplitHostPort(e.Listen)
	if err != nil {
		return nil, fmt.Errorf("nats.embedded.listen: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("nats.embedded.listen: port %q: %w", port, err)
	}
	l := &bus.Listener{Host: host, Port: int(number), User: e.User, Password: string(password)}
	if number == 0 {
		l.Port = -1 // the server's way to say "any free one"
	}
	return l, nil
}

func natsTLS(t *policy.NATSTLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	roots, err := loadPool(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("nats.tls: %w", err)
	}
	c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if t.CertFile != "" {
		// Read at each connection, so that a renewed client certificate is used.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.CertFile, string(t.KeyFile))
			if err != nil {
				return nil, fmt.Errorf("nats.tls: load the client certificate: %w", err)
			}
			return &pair, nil
		}
	}
	return c, nil
}

// loadPool reads roots; nil, which means the system's, for no file.
func loadPool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	return certs.ReadPool(file)
}

func secretBytes(f policy.SecretFile) ([]byte, error) {
	if f == "" {
		return nil, nil
	}
	secret, err := f.Read()
	return []byte(secret), err
}

// operations are the cloud calls that can be made, for pre-creating metric series.
func operations() map[string][]string {
	return map[string][]string{
		huaweicloud.IAM: huaweicloud.Operations(), huaweicloud.WAF: waf.Operations(), huaweicloud.APIG: apig.Operations(),
		huaweicloud.CCM: privateca.Operations(), huaweicloud.IdentityCenter: identitycenter.Operations(),
	}
}

func kindNames() []string {
	var names []string
	for _, k := range providers.Kinds() {
		names = append(names, k.String())
	}
	return names
}
