package waf

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/providers"
)

// Observe reads hosts and certificates. For one endpoint that serves our only
// certificate it makes four calls: Show host, two lists of certificates, Show
// certificate; one more the first time, to find the host's id (two in ModeAny).
// Each further endpoint costs one call, each further certificate one.
func (t *Target) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	endpoints, err := t.observeHosts(ctx, r.Endpoints)
	if err != nil {
		return providers.Observation{}, err
	}
	ids, err := t.relevant(ctx, r, endpoints)
	if err != nil {
		return providers.Observation{}, err
	}
	remotes, err := t.observeCertificates(ctx, r.Owner, ids)
	if err != nil {
		return providers.Observation{}, err
	}
	for i := range remotes {
		remotes[i].InUse = addServing(remotes[i], endpoints)
	}
	return providers.Observation{Endpoints: endpoints, Remotes: remotes}, nil
}

// observeHosts returns one Endpoint for each name, in their order.
func (t *Target) observeHosts(ctx context.Context, names []string) ([]providers.Endpoint, error) {
	remembered := make(map[string]bool)
	for _, n := range names {
		_, remembered[n] = t.hosts.get(canonical(n))
	}
	at, err := t.resolve(ctx, names)
	if err != nil {
		return nil, err
	}
	endpoints := make([]providers.Endpoint, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, name := range names {
		g.Go(func() error {
			s, err := t.lookAgain(ctx, name, at[name], remembered[name])
			endpoints[i] = providers.Endpoint{
				Name: name, ID: s.ref.id, Serves: providers.Handle(s.host.CertificateID),
				Missing: s.missing, Problem: s.problem,
			}
			return err
		})
	}
	return endpoints, g.Wait()
}

// relevant returns the ids of the certificates that matter to the request: ours
// by name, those that the endpoints serve, and those the caller knows.
func (t *Target) relevant(ctx context.Context, r providers.Request, endpoints []providers.Endpoint) ([]string, error) {
	rows, err := t.listCertificates(ctx, providers.NamePrefix(r.Owner))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, row := range rows {
		if providers.Owns(r.Owner, string(row.Name)) {
			ids = append(ids, string(row.ID))
		}
	}
	for _, e := range endpoints {
		ids = append(ids, string(e.Serves))
	}
	for _, h := range r.Known {
		ids = append(ids, string(h))
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return slices.DeleteFunc(ids, func(id string) bool { return id == "" }), nil
}

// observeCertificates shows each certificate; one that is gone is left out.
func (t *Target) observeCertificates(ctx context.Context, o providers.Owner, ids []string) ([]providers.Remote, error) {
	var mu sync.Mutex
	var remotes []providers.Remote
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, id := range ids {
		g.Go(func() error {
			c, err := t.showCertificate(ctx, id)
			if isNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			remotes = append(remotes, remoteOf(o, id, c))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(remotes, func(a, b providers.Remote) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Handle, b.Handle))
	})
	return remotes, nil
}

func remoteOf(o providers.Owner, id string, c certificate) providers.Remote {
	r := providers.Remote{
		Handle:   providers.Handle(id),
		Name:     string(c.Name),
		NotAfter: c.ExpireTime.Millis(),
		Created:  c.Timestamp.Millis(),
		Owned:    providers.Owns(o, string(c.Name)),
	}
	describeLeaf(&r, string(c.Content))
	for _, b := range c.BindHost {
		r.InUse = append(r.InUse, cmp.Or(string(b.Hostname), string(b.ID)))
	}
	slices.Sort(r.InUse)
	r.InUse = slices.Compact(r.InUse)
	return r
}

// addServing completes the users of a certificate with what the hosts say
// themselves: the two are read one after the other and may differ.
func addServing(r providers.Remote, endpoints []providers.Endpoint) []string {
	users := r.InUse
	for _, e := range endpoints {
		if e.Serves != r.Handle {
			continue
		}
		known := slices.ContainsFunc(users, func(u string) bool { return canonical(u) == canonical(e.Name) })
		// An endpoint given by its id has its name among the users already.
		if !known && !(isID(e.Name) && len(users) > 0) {
			users = append(users, e.Name)
		}
	}
	slices.Sort(users)
	return users
}

// describeLeaf fills in what the first certificate in PEM text tells. The
// fingerprint is of its bytes: what somebody uploaded may be too odd to parse,
// and is the same certificate all the same.
func describeLeaf(r *providers.Remote, content string) {
	block, _ := pem.Decode([]byte(content))
	if block == nil || block.Type != "CERTIFICATE" {
		return
	}
	r.Fingerprint = sha256.Sum256(block.Bytes)
	if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
		r.NotBefore, r.NotAfter = leaf.NotBefore, leaf.NotAfter
	}
}
