package apig

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// stageObject makes a certificate object, or adopts the one that an earlier Stage made.
// It makes two calls: the list of certificates with the name, and the creation; or the
// list and a Show. Where the caller has seen that there is no such object, it is one: the
// creation.
func (t *Target) stageObject(ctx context.Context, r providers.Request, b *certs.Bundle) (providers.Remote, error) {
	name := providers.CertificateName(r.Owner, b.Fingerprint())
	ca, err := t.trustedCA()
	if err != nil {
		return providers.Remote{}, err
	}
	f, err := t.formOf(name, b)
	if err != nil {
		return providers.Remote{}, err
	}
	f.TrustedCA = ca
	done, err := t.turn.take(ctx)
	if err != nil {
		return providers.Remote{}, ended(opStage, err)
	}
	defer done()
	if !r.Seen.Lacks(name) {
		c, err := t.named(ctx, name)
		if err != nil {
			return providers.Remote{}, err
		}
		if c.ID != "" {
			return t.adopt(ctx, c, f, b)
		}
	}
	c, err := t.createCertificate(ctx, f)
	if err != nil {
		return providers.Remote{}, err
	}
	t.log.DebugContext(ctx, "certificate uploaded", "target_kind", "apig", "name", name, "handle", string(c.ID))
	return staged(c, name, b), nil
}

// named reads the certificate of this name; the zero certificate if there is none.
func (t *Target) named(ctx context.Context, name string) (certificate, error) {
	rows, err := t.listCertificates(ctx, name)
	if err != nil {
		return certificate{}, err
	}
	for _, row := range rows {
		if string(row.Name) != name {
			continue
		}
		c, err := t.showCertificate(ctx, string(row.ID))
		if providers.KindOf(err) != providers.KindNotFound {
			return c, err
		}
	}
	return certificate{}, nil
}

func staged(c certificate, name string, b *certs.Bundle) providers.Remote {
	return providers.Remote{
		Handle: providers.Handle(c.ID), Name: name, Fingerprint: b.Fingerprint(),
		NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter, Created: c.Created.Time, Owned: true,
	}
}

// adopt takes the object that has our name if it holds the bundle. One that was made
// before a CA was configured, and serves nothing yet, gets it.
func (t *Target) adopt(ctx context.Context, c certificate, f form, b *certs.Bundle) (providers.Remote, error) {
	if !c.holds(b.Info()) {
		return providers.Remote{}, fail(providers.KindExists, opStage,
			"certificate %s has the name %s but holds another certificate; somebody changed it: remove or rename it", c.ID, f.Name)
	}
	if f.TrustedCA != "" && !c.HasCA.on() {
		attached, err := t.attached(ctx, string(c.ID))
		if err != nil {
			return providers.Remote{}, err
		}
		if len(attached) == 0 {
			if err := t.updateCertificate(ctx, string(c.ID), f); err != nil {
				return providers.Remote{}, err
			}
		}
	}
	t.log.InfoContext(ctx, "certificate adopted", "target_kind", "apig", "name", f.Name, "handle", string(c.ID))
	return staged(c, f.Name, b), nil
}

// activateObject attaches the endpoints to the certificate and detaches what they served
// before, where the service has not done so by itself (doubt 5). It makes four calls: the
// group, Show certificate, the attachment and the group again; one, the group, where
// everything is right already; one more for each certificate that is to be detached, and
// one, to look whose it is, for each with a key of the other kind.
func (t *Target) activateObject(ctx context.Context, r providers.Request, h providers.Handle) error {
	if isContent(h) {
		return fail(providers.KindNotFound, opActivate, "%s is no certificate object: it is from a time of replace: in_place", h)
	}
	id := string(h)
	sites, err := t.locate(ctx, r.Endpoints)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(sites, func(s *site) bool { return !s.bound(id) || len(s.bindings) > 1 }) {
		return nil
	}
	c, err := t.showCertificate(ctx, id)
	if err != nil {
		return err
	}
	leave, err := t.goers(ctx, r, c, sites)
	if err != nil {
		return err
	}
	var attach []*site
	for _, s := range sites {
		if s.bound(id) {
			continue
		}
		if hadCA := s.hasCA || slices.ContainsFunc(s.bindings, func(b binding) bool { return b.HasCA.on() }); hadCA && !c.HasCA.on() {
			return fail(providers.KindInvalid, opActivate, "%s serves a certificate with a CA that clients are checked against, and certificate %s has none; "+
				"set trusted_root_ca_file to that CA, and remove certificate %s", s.name, id, id)
		}
		attach = append(attach, s)
	}
	global := c.Type == ScopeGlobal
	if len(attach) > 0 {
		if err := t.attach(ctx, id, t.attachments(attach, global)); err != nil {
			return err
		}
		t.log.InfoContext(ctx, "certificate attached", "target_kind", "apig", "name", string(c.Name), "handle", id, "endpoints", siteNames(attach))
		if sites, err = t.locate(ctx, r.Endpoints); err != nil {
			return err
		}
	}
	return t.detachRest(ctx, id, sites, leave)
}

// leaving says which certificates go from which domain.
type leaving map[string][]binding

// goers finds what the certificate takes the place of: what has a key of the same kind,
// or of an unknown one; and of the other kind what was ours, or was alone. A pair that
// somebody else made, RSA and ECC, stays one.
func (t *Target) goers(ctx context.Context, r providers.Request, c certificate, sites []*site) (leaving, error) {
	kind, leaves := c.algorithm(r.Owner, r.Leaves), r.Leaves
	shown := make(map[identifier]bool) // whether it is ours
	leave := make(leaving)
	for _, s := range sites {
		for _, b := range s.bindings {
			switch {
			case b.ID == c.ID:
				continue
			case kind == "" || b.Algorithm == "" || strings.EqualFold(string(b.Algorithm), kind), len(s.bindings) == 1:
				leave[s.name] = append(leave[s.name], b)
				continue
			}
			ours, ok := shown[b.ID]
			if !ok {
				other, err := t.showCertificate(ctx, string(b.ID))
				if err != nil && providers.KindOf(err) != providers.KindNotFound {
					return nil, err
				}
				ours = err == nil && other.ours(r.Owner, leaves)
				shown[b.ID] = ours
			}
			if ours {
				leave[s.name] = append(leave[s.name], b)
			}
		}
	}
	return leave, nil
}

// detachRest detaches what leaves, where it is still attached. A site that does not
// serve the certificate yet keeps what it has.
func (t *Target) detachRest(ctx context.Context, id string, sites []*site, leave leaving) error {
	type departure struct {
		binding
		from []*site
	}
	var gone []departure
	for _, s := range sites {
		for _, b := range leave[s.name] {
			if !s.bound(id) || !s.bound(string(b.ID)) {
				continue
			}
			i := slices.IndexFunc(gone, func(d departure) bool { return d.ID == b.ID })
			if i < 0 {
				i, gone = len(gone), append(gone, departure{binding: b})
			}
			gone[i].from = append(gone[i].from, s)
		}
	}
	for _, d := range gone {
		domains := t.attachments(d.from, d.isGlobal(t.scope))
		for i := range domains {
			domains[i].Verifies = nil // belongs to what stays
		}
		if err := t.detach(ctx, string(d.ID), domains); err != nil && !isDetached(err) {
			return err
		}
		t.log.InfoContext(ctx, "certificate detached", "target_kind", "apig", "name", string(d.Name), "handle", string(d.ID), "endpoints", siteNames(d.from))
	}
	return nil
}

// isDetached reports whether a detachment failed because there was nothing to detach:
// "no valid domain name" (reference 3.6).
func isDetached(err error) bool {
	e, ok := errors.AsType[*providers.Error](err)
	return ok && (e.Code == "APIG.2000" || e.Kind == providers.KindNotFound)
}

// Retire deletes a certificate of ours that no domain serves: Show, its domains, and the
// deletion. Between the second and the third somebody may attach it; the service then
// refuses. What a handle of in-place replacement stands for is gone by itself.
func (t *Target) Retire(ctx context.Context, r providers.Request, h providers.Handle) error {
	switch {
	case h == "":
		return fail(providers.KindInvalid, opRetire, "no certificate is named")
	case ctx.Err() != nil:
		return ended(opRetire, ctx.Err())
	case isContent(h):
		return nil
	}
	done, err := t.turn.take(ctx)
	if err != nil {
		return ended(opRetire, err)
	}
	defer done()
	id := string(h)
	c, err := t.showCertificate(ctx, id)
	switch {
	case providers.KindOf(err) == providers.KindNotFound:
		return nil // gone already
	case err != nil:
		return err
	case !providers.Owns(r.Owner, string(c.Name)):
		return fail(providers.KindInvalid, opRetire,
			"certificate %s (%s) was not made by rotatord for %s/%s and stays", h, c.Name, r.Owner.Policy, r.Owner.Certificate)
	}
	if err := t.unused(ctx, c); err != nil {
		return err
	}
	err = t.deleteCertificate(ctx, id)
	switch providers.KindOf(err) {
	case providers.KindNotFound:
		return nil
	case providers.KindInvalid, providers.KindDenied, providers.KindConflict, providers.KindExists:
		// Which code stands for "still attached" is not documented (doubt 7).
		if used := t.unused(ctx, c); providers.KindOf(used) == providers.KindInUse {
			return used
		}
	default: // as it is
	}
	return err
}

// unused fails with KindInUse if a domain serves the certificate.
func (t *Target) unused(ctx context.Context, c certificate) error {
	attached, err := t.attached(ctx, string(c.ID))
	if err != nil && providers.KindOf(err) != providers.KindNotFound {
		return err
	}
	if len(attached) == 0 {
		return nil
	}
	return fail(providers.KindInUse, opRetire, "certificate %s is served by %s", c.ID, strings.Join(object{c, attached}.users(), ", "))
}
