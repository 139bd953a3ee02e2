package apig

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// activateContent puts the held bundle into every certificate object that the endpoints
// serve and that holds something else. For endpoints of one group with one object it
// makes four calls: the group, Show, the object's domains, and the change; one more, its
// domains again, where a CA for client authentication is in play; nothing after the
// third where the content is right already. Endpoints without a certificate cost the
// list of certificates, creation and attachment on top.
//
// Everything that can be refused is refused before the first change.
func (t *Target) activateContent(ctx context.Context, r providers.Request, h providers.Handle) error {
	b, ok := t.held.get(r.Owner, h)
	if !ok {
		return fail(providers.KindNotFound, opActivate, "the bundle is no longer held; it is staged again")
	}
	sites, err := t.locate(ctx, r.Endpoints)
	if err != nil {
		return err
	}
	if err := check(b, siteNames(sites), time.Now()); err != nil {
		return err
	}
	ca, err := t.trustedCA()
	if err != nil {
		return err
	}
	var ids []string
	var bare []*site
	for _, s := range sites {
		if len(s.bindings) == 0 {
			bare = append(bare, s)
			continue
		}
		ids = append(ids, string(s.serves(algorithmOf(b)).ID))
	}
	objects, err := t.inspect(ctx, ids)
	if err != nil {
		return err
	}
	var todo []object
	for _, id := range distinct(ids) {
		o, ok := objects[id]
		if !ok {
			return fail(providers.KindConflict, opActivate, "certificate %s went while it was looked at", id)
		}
		if o.holds(b.Info()) && !t.owed.has(id) {
			continue
		}
		if err := t.mayReplace(o, b, ca, t.leaves(r), r.Owner); err != nil {
			return err
		}
		todo = append(todo, o)
	}
	for _, o := range todo {
		if err := t.replace(ctx, r.Owner, o, b, ca); err != nil {
			return err
		}
	}
	if len(bare) == 0 {
		return nil
	}
	return t.equip(ctx, r.Owner, bare, b, ca)
}

func siteNames(sites []*site) []string {
	var names []string
	for _, s := range sites {
		names = append(names, s.name)
	}
	return names
}

// mayReplace refuses a change that the service would refuse, or that would harm a domain.
func (t *Target) mayReplace(o object, b *certs.Bundle, ca string, leaves []certs.Info, owner providers.Owner) error {
	if has, comes := o.algorithm(owner, leaves), algorithmOf(b); has != "" && has != comes {
		return fail(providers.KindInvalid, opActivate, "certificate %s (%s) has an %s key and the new one an %s key, which cannot be changed in place; "+
			"set replace: new", o.ID, o.Name, has, comes)
	}
	if lost := uncovered(b.Info(), o.users()); len(lost) > 0 {
		return fail(providers.KindInvalid, opActivate, "certificate %s (%s) also serves %s, which the new one does not cover (APIG.2103); "+
			"attach another certificate there, or set replace: new", o.ID, o.Name, strings.Join(lost, ", "))
	}
	if o.HasCA.on() && ca == "" {
		return missingCA(opActivate, o.certificate)
	}
	return nil
}

// replace changes the content of an object and sees to it that its domains go on
// verifying their clients, or not, as before.
func (t *Target) replace(ctx context.Context, owner providers.Owner, o object, b *certs.Bundle, ca string) error {
	id := string(o.ID)
	if !o.holds(b.Info()) {
		f, err := t.formLike(o.certificate, owner, b, ca)
		if err != nil {
			return err
		}
		noted := false
		if o.HasCA.on() || slices.ContainsFunc(o.attached, func(a attachment) bool { return a.Verifies.on() }) {
			noted = t.owed.put(id, o.attached)
		}
		if err := t.updateCertificate(ctx, id, f); err != nil {
			if k := providers.KindOf(err); noted && k != providers.KindUnknownOutcome && k != providers.KindUnavailable {
				t.owed.settle(id) // nothing has changed
			}
			return err
		}
		t.log.InfoContext(ctx, "certificate replaced in place", "target_kind", "apig", "name", f.Name, "handle", id, "endpoints", o.users())
	}
	before, owes := t.owed.get(id)
	if !owes {
		return nil
	}
	after, err := t.attached(ctx, id)
	if err != nil {
		return err
	}
	for _, was := range before {
		is := slices.IndexFunc(after, func(a attachment) bool { return a.ID == was.ID })
		if is < 0 || was.Verifies.value == nil || after[is].Verifies.value == nil || was.Verifies.on() == after[is].Verifies.on() {
			continue
		}
		t.log.WarnContext(ctx, "client verification changed with the certificate; it is restored", "target_kind", "apig", "endpoint", string(was.Domain), "client_verification", was.Verifies.on())
		if err := t.restoreDomain(ctx, was); err != nil {
			return err
		}
	}
	t.owed.settle(id)
	return nil
}

// formLike writes the bundle as the new content of an object that keeps its name and its
// scope.
func (t *Target) formLike(c certificate, owner providers.Owner, b *certs.Bundle, ca string) (form, error) {
	f, err := t.formOf(providers.CertificateName(owner, b.Fingerprint()), b)
	if err != nil {
		return form{}, err
	}
	if c.Name != "" {
		f.Name = string(c.Name)
	}
	f.Type, f.InstanceID = ScopeInstance, t.instance
	switch {
	case c.Type == ScopeGlobal || c.Type == "" && c.InstanceID == commonInstance:
		f.Type, f.InstanceID = ScopeGlobal, ""
	case c.InstanceID != "":
		f.InstanceID = string(c.InstanceID)
	}
	if c.HasCA.on() {
		f.TrustedCA = ca
	}
	return f, nil
}

// commonInstance is the instance id of certificates for all gateways (reference 3.3).
const commonInstance = "common"

// equip gives sites that serve no certificate one of ours: one that holds the bundle
// already, left by an earlier try or serving other endpoints; else one that serves
// nothing, with the bundle as its new content; else a new one.
func (t *Target) equip(ctx context.Context, owner providers.Owner, bare []*site, b *certs.Bundle, ca string) error {
	ids, err := t.own(ctx, providers.Request{Owner: owner})
	if err != nil {
		return err
	}
	objects, err := t.inspect(ctx, ids)
	if err != nil {
		return err
	}
	f, err := t.formOf(providers.CertificateName(owner, b.Fingerprint()), b)
	if err != nil {
		return err
	}
	f.TrustedCA = ca
	id, global := "", t.scope == ScopeGlobal
	var spare string
	for _, at := range distinct(ids) {
		o, ok := objects[at]
		switch {
		case !ok:
		case o.holds(b.Info()):
			id, global = at, o.Type == ScopeGlobal
		case len(o.attached) == 0:
			spare = at
		}
	}
	switch {
	case id != "":
	case spare != "":
		if err := t.updateCertificate(ctx, spare, f); err != nil {
			return err
		}
		id = spare
	default:
		made, err := t.createCertificate(ctx, f)
		if err != nil {
			return err
		}
		id = string(made.ID)
	}
	t.log.InfoContext(ctx, "certificate for domains that had none", "target_kind", "apig", "name", f.Name, "handle", id, "endpoints", siteNames(bare))
	return t.attach(ctx, id, t.attachments(bare, global))
}

// owed remembers, across failures, how the domains of a certificate verified their
// clients before its content was replaced. It does not outlive the process.
type owed struct {
	mu     sync.Mutex
	before map[string][]attachment // by certificate id
}

// put notes what was seen before a change; it reports whether nothing was noted before:
// what an earlier try saw, that failed, is the truth.
func (o *owed) put(id string, attached []attachment) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.before == nil {
		o.before = make(map[string][]attachment)
	}
	if _, ok := o.before[id]; ok {
		return false
	}
	o.before[id] = attached
	return true
}

func (o *owed) get(id string) ([]attachment, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	attached, ok := o.before[id]
	return attached, ok
}

func (o *owed) has(id string) bool { _, ok := o.get(id); return ok }

func (o *owed) settle(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.before, id)
}
