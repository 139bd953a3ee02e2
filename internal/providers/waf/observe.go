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
// Each further endpoint costs one call, each further certificate one. Where the caller
// has seen the certificates a moment before, the lists are left out: two calls.
func (t *Target) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	endpoints, err := t.observeHosts(ctx, r.Endpoints)
	if err != nil {
		return providers.Observation{}, err
	}
	ids := served(endpoints)
	var remotes []providers.Remote
	if r.Seen != nil && !slices.ContainsFunc(r.Endpoints, isID) {
		remotes = unserved(r.Seen.Remotes, endpoints)
	} else {
		ours, err := t.relevant(ctx, r)
		if err != nil {
			return providers.Observation{}, err
		}
		ids = append(ids, ours...)
	}
	read, err := t.observeCertificates(ctx, r.Owner, distinct(ids))
	if err != nil {
		return providers.Observation{}, err
	}
	remotes = append(remotes, read...)
	slices.SortFunc(remotes, func(a, b providers.Remote) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Handle, b.Handle))
	})
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

// served returns the ids of the certificates that the endpoints serve.
func served(endpoints []providers.Endpoint) []string {
	var ids []string
	for _, e := range endpoints {
		ids = append(ids, string(e.Serves))
	}
	return ids
}

// unserved returns those certificates of an earlier look that none of the endpoints serves now.
// Nothing but what the endpoints serve has changed since, so they are as they were, but for
// the endpoints that served them then.
func unserved(seen []providers.Remote, endpoints []providers.Endpoint) []providers.Remote {
	var kept []providers.Remote
	for _, r := range seen {
		if slices.ContainsFunc(endpoints, func(e providers.Endpoint) bool { return e.Serves == r.Handle }) {
			continue
		}
		r.InUse = slices.DeleteFunc(slices.Clone(r.InUse), func(user string) bool {
			return slices.ContainsFunc(endpoints, func(e providers.Endpoint) bool { return canonical(e.Name) == canonical(user) })
		})
		kept = append(kept, r)
	}
	return kept
}

// distinct returns the ids sorted, each once, none of them empty.
func distinct(ids []string) []string {
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" })
}

// relevant returns the ids of the certificates that matter to the request beside those
// that are served: ours by name, and those the caller knows.
func (t *Target) relevant(ctx context.Context, r providers.Request) ([]string, error) {
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
	for _, h := range r.Known {
		ids = append(ids, string(h))
	}
	return ids, nil
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
	return remotes, g.Wait()
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
