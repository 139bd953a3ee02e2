package apig

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// Observe reads the endpoints and the certificates. For endpoints of one API group that
// serve one certificate it makes three calls: the group (a listing the first time, see
// find), Show certificate and its domains; with new objects one more, the list of
// certificates. Each further certificate costs two calls.
func (t *Target) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	found, err := t.find(ctx, r.Endpoints)
	if err != nil {
		return providers.Observation{}, err
	}
	v := view{t: t, r: r, leaves: t.leaves(r), sites: found}
	ids := v.served()
	if !t.inPlace {
		others, err := t.own(ctx, r)
		if err != nil {
			return providers.Observation{}, err
		}
		ids = append(ids, others...)
	}
	if v.objects, err = t.inspect(ctx, ids); err != nil {
		return providers.Observation{}, err
	}
	o := providers.Observation{Endpoints: v.endpoints()}
	o.Remotes = v.remotes(o.Endpoints)
	return o, nil
}

// leaves are what contents are recognised by: the request's, and what is held for its
// owner.
func (t *Target) leaves(r providers.Request) []certs.Info {
	all := slices.Clone(r.Leaves)
	for _, b := range t.held.of(r.Owner) {
		all = append(all, b.Info())
	}
	return all
}

// own returns the ids of the certificates that were made for the owner, by their names,
// and of those that the caller knows.
func (t *Target) own(ctx context.Context, r providers.Request) ([]string, error) {
	rows, err := t.listCertificates(ctx, "")
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
		if h != "" && !isContent(h) {
			ids = append(ids, string(h))
		}
	}
	return ids, nil
}

// object is a certificate and who serves it.
type object struct {
	certificate
	attached []attachment
}

// users are the names of the domains, each once.
func (o object) users() []string {
	var names []string
	for _, a := range o.attached {
		names = append(names, cmp.Or(canonical(string(a.Domain)), string(a.ID)))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// distinct returns the ids sorted, each once, none of them empty.
func distinct(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" })
}

// inspect reads each certificate and its domains; one that is gone is left out.
func (t *Target) inspect(ctx context.Context, ids []string) (map[string]object, error) {
	var mu sync.Mutex
	objects := make(map[string]object)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, id := range distinct(ids) {
		g.Go(func() error {
			o, err := t.inspectOne(ctx, id)
			if providers.KindOf(err) == providers.KindNotFound {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			objects[id] = o
			return err
		})
	}
	return objects, g.Wait()
}

func (t *Target) inspectOne(ctx context.Context, id string) (object, error) {
	c, err := t.showCertificate(ctx, id)
	if err != nil {
		return object{}, err
	}
	attached, err := t.attached(ctx, id)
	return object{c, attached}, err
}

// view is what was read for one Observe.
type view struct {
	t       *Target
	r       providers.Request
	leaves  []certs.Info
	sites   map[string]*site
	objects map[string]object
}

// wanted is the algorithm of what is to be served; empty where nobody says.
func (v *view) wanted() string {
	if len(v.r.Leaves) == 0 {
		return ""
	}
	return algorithmNamed(v.r.Leaves[0])
}

// served are the ids of the certificates that count for the sites: in place only those
// that would be changed, else all.
func (v *view) served() []string {
	var ids []string
	for _, s := range v.sites {
		if v.t.inPlace {
			ids = append(ids, string(s.serves(v.wanted()).ID))
			continue
		}
		for _, b := range s.bindings {
			ids = append(ids, string(b.ID))
		}
	}
	return ids
}

func (v *view) endpoints() []providers.Endpoint {
	endpoints := make([]providers.Endpoint, len(v.r.Endpoints))
	for i, name := range v.r.Endpoints {
		s := v.sites[name]
		if s == nil {
			endpoints[i] = providers.Endpoint{Name: name, Missing: true}
			continue
		}
		e := providers.Endpoint{Name: name, ID: s.id, VerifiesClients: s.verifies.on()}
		if s.noHTTPS && len(s.bindings) == 0 {
			e.Problem = "the domain has no HTTPS port, so API Gateway takes no certificate for it"
		}
		if id := v.servedBy(s); id != "" {
			e.Serves = v.handle(id)
		}
		endpoints[i] = e
	}
	return endpoints
}

// servedBy is the object that counts for the site; empty for none.
func (v *view) servedBy(s *site) string {
	served := string(s.serves(v.wanted()).ID)
	if _, ok := v.objects[served]; !ok {
		return "" // detached and deleted since
	}
	if v.t.inPlace {
		if v.t.owed.has(served) {
			return "" // until client verification is as it was, Activate has work to do
		}
		return served
	}
	// A certificate of ours with a key of the other kind is left over from a change of
	// algorithm that was cut off: until it is detached, Activate has work to do. What
	// somebody else attached beside ours was meant so.
	for _, b := range s.bindings {
		if o, ok := v.objects[string(b.ID)]; ok && string(b.ID) != served && o.ours(v.r.Owner, v.leaves) {
			return string(b.ID)
		}
	}
	return served
}

// ours reports whether the object was made for the owner, or holds one of its leaves.
func (c certificate) ours(o providers.Owner, leaves []certs.Info) bool {
	_, known := c.leafOf(o, leaves)
	return known || providers.Owns(o, string(c.Name))
}

func (v *view) handle(id string) providers.Handle {
	if v.t.inPlace {
		return v.objects[id].contentOf(v.r.Owner, v.leaves)
	}
	return providers.Handle(id)
}

// remotes are the objects or, in place, the contents that the endpoints serve.
func (v *view) remotes(endpoints []providers.Endpoint) []providers.Remote {
	at := make(map[providers.Handle]providers.Remote)
	for id, o := range v.objects {
		h := v.handle(id)
		remote := v.remoteOf(h, o)
		if other, ok := at[h]; ok { // one content in several objects
			remote.InUse = append(remote.InUse, other.InUse...)
			remote.Name = min(remote.Name, other.Name)
		}
		at[h] = remote
	}
	var all []providers.Remote
	for h, remote := range at {
		for _, e := range endpoints {
			if s := v.sites[e.Name]; e.Serves == h && s != nil {
				remote.InUse = append(remote.InUse, s.name)
			}
		}
		slices.Sort(remote.InUse)
		remote.InUse = slices.Compact(remote.InUse)
		all = append(all, remote)
	}
	slices.SortFunc(all, func(a, b providers.Remote) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Handle, b.Handle))
	})
	return all
}

func (v *view) remoteOf(h providers.Handle, o object) providers.Remote {
	remote := providers.Remote{
		Handle: h, Name: string(o.Name), NotBefore: o.NotBefore.Time, NotAfter: o.NotAfter.Time,
		InUse: o.users(), Created: o.Created.Time,
	}
	remote.Owned = !v.t.inPlace && providers.Owns(v.r.Owner, string(o.Name))
	if leaf, ok := o.leafOf(v.r.Owner, v.leaves); ok {
		remote.Fingerprint, remote.NotBefore, remote.NotAfter = leaf.Fingerprint, leaf.NotBefore, leaf.NotAfter
	}
	return remote
}
