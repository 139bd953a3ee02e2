package main

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

// client builds the client of a cloud, once.
func (w *wiring) client(name string) (*huaweicloud.Client, error) {
	if c, ok := w.clients[name]; ok {
		return c, nil
	}
	spec := w.set.Config.Clouds[name]
	roots, err := loadPool(spec.CAFile)
	if err != nil {
		return nil, fmt.Errorf("cloud %s: %w", name, err)
	}
	limits := map[string]huaweicloud.Limit{}
	for service, l := range spec.Limits {
		limits[service] = huaweicloud.Limit{Rate: l.Rate, Burst: l.Burst, Concurrency: l.Concurrency}
	}
	meter := cloudMeter{Meter: w.meter.Cloud(name), cloud: name, skew: w.skew, quota: w.quota, back: w.back}
	c, err := huaweicloud.New(huaweicloud.Config{
		Name: name, Region: spec.Region, ProjectID: spec.ProjectID, DomainID: spec.DomainID,
		Auth: cloudAuth(spec.Auth), Endpoints: spec.Endpoints, RootCAs: roots,
		ClientCertificate: clientCertificate(spec), Proxy: spec.Proxy,
		PasswordMemory: filepath.Join(w.set.Config.State, "refused-password-"+name),
		Timeout:        spec.Timeout.Std(), Limits: limits, Logger: w.log.With("cloud", name), Meter: meter,
		Transport: w.transport,
	})
	if err != nil {
		return nil, err
	}
	w.clients[name], w.roots[name] = c, fileContents(spec.CAFile)
	return c, nil
}

// cloudAuth hands secrets on as functions: they are read when they are used.
func cloudAuth(a policy.Auth) huaweicloud.Auth {
	if g := a.Agency; g != nil {
		return huaweicloud.Agency{
			Name: g.Agency, Domain: g.Domain, DomainID: g.DomainID, Duration: g.Duration.Std(),
			Base: cloudLogin(g.AccessKey, g.Password, g.Metadata),
		}
	}
	return cloudLogin(a.AccessKey, a.Password, a.Metadata)
}

// cloudLogin is the way to log in that is set; with none of these it is the environment.
func cloudLogin(k *policy.AccessKey, p *policy.Password, m *policy.Metadata) huaweicloud.Auth {
	switch {
	case k != nil:
		auth := huaweicloud.AccessKey{ID: k.ID, Secret: huaweicloud.SecretFrom(k.SecretFile.Read)}
		if k.SecurityTokenFile != "" {
			auth.SecurityToken = huaweicloud.SecretFrom(k.SecurityTokenFile.Read)
		}
		return auth
	case p != nil:
		return huaweicloud.Password{
			User: p.User, Password: huaweicloud.SecretFrom(p.PasswordFile.Read), Domain: p.Domain, Project: p.Project,
		}
	case m != nil:
		return huaweicloud.Metadata{Endpoint: m.Endpoint}
	}
	return huaweicloud.Environment{}
}

// clientCertificate reads a cloud's client certificate, at each connection so that a
// renewed one is used; nil where none is configured.
func clientCertificate(spec policy.Cloud) func() (*tls.Certificate, error) {
	if spec.ClientCertFile == "" {
		return nil
	}
	return func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(spec.ClientCertFile, string(spec.ClientKeyFile))
		if err != nil {
			return nil, fmt.Errorf("load the client certificate: %w", err)
		}
		return &pair, nil
	}
}

// cloudMeter hears, besides the metrics, by how much a cloud's clock differs from ours, what an
// account holds, and when a service is back that had been away.
type cloudMeter struct {
	huaweicloud.Meter
	cloud string
	skew  func(time.Duration)
	quota func(holder, quota)
	back  func(cloud string)
}

// Circuit implements huaweicloud.Meter.
func (m cloudMeter) Circuit(service string, open bool) {
	m.Meter.Circuit(service, open)
	if !open {
		m.back(m.cloud)
	}
}

// ClockSkew implements huaweicloud.Meter.
func (m cloudMeter) ClockSkew(d time.Duration) {
	m.skew(d)
	m.Meter.ClockSkew(d)
}

// Quota implements huaweicloud.Meter.
func (m cloudMeter) Quota(service string, used, limit int) {
	m.quota(holder{m.cloud, service}, quota{used, limit})
	m.Meter.Quota(service, used, limit)
}
