package waf

import (
	"context"
	"strings"

	"github.com/rotatord/rotatord/internal/providers"
)

const opActivate = "activate certificate"

// Activate binds the certificate to all endpoints in one call, once their ids
// are known. WAF goes on serving the old one until the new one is in effect
// (reference 2.7). Which hosts took it the caller sees through Observe: partial
// failures are not documented (doubt 13).
func (t *Target) Activate(ctx context.Context, r providers.Request, h providers.Handle) error {
	if h == "" {
		return fail(providers.KindInvalid, opActivate, "no certificate is named")
	}
	refs, err := t.locate(ctx, r.Endpoints)
	if err != nil || len(refs) == 0 {
		return err
	}
	if !t.lacksApply() {
		err := t.apply(ctx, string(h), refs)
		if err == nil {
			return nil
		}
		if !isMissingAPI(err) {
			t.forget(err, r.Endpoints)
			return err
		}
		t.log.InfoContext(ctx, "the service has no apply-to-hosts; hosts are changed one by one", "target_kind", "waf")
		t.mu.Lock()
		t.noApply = true
		t.mu.Unlock()
	}
	err = t.bindOneByOne(ctx, string(h), refs)
	t.forget(err, r.Endpoints)
	return err
}

func (t *Target) lacksApply() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.noApply
}

// forget drops what is remembered of hosts when the service does not know an id:
// the next look searches for them by name.
func (t *Target) forget(err error, endpoints []string) {
	if !isNotFound(err) {
		return
	}
	for _, e := range endpoints {
		t.hosts.drop(canonical(e))
	}
}

// locate returns where the endpoints are, or an error that names the one that
// cannot be served. Ids are looked up because their mode must be known.
func (t *Target) locate(ctx context.Context, endpoints []string) ([]hostRef, error) {
	at, err := t.resolve(ctx, endpoints)
	if err != nil {
		return nil, err
	}
	var refs []hostRef
	var missing []string
	for _, e := range endpoints {
		f := at[e]
		if len(f.refs) == 0 && isID(e) {
			s, err := t.look(ctx, e, f)
			if err != nil {
				return nil, err
			}
			if !s.missing {
				f.refs = []hostRef{s.ref}
			}
		}
		switch len(f.refs) {
		case 0:
			missing = append(missing, e)
		case 1:
			refs = append(refs, f.refs[0])
		default:
			return nil, fail(providers.KindInvalid, opActivate, "%s: %s", e, f.problem())
		}
	}
	if len(missing) > 0 {
		return nil, fail(providers.KindNotFound, opActivate, "WAF has no host %s", strings.Join(missing, ", "))
	}
	return refs, nil
}

func (t *Target) apply(ctx context.Context, id string, refs []hostRef) error {
	var cloud, dedicated []string
	for _, r := range refs {
		if r.mode.name == ModeCloud {
			cloud = append(cloud, r.id)
		} else {
			dedicated = append(dedicated, r.id)
		}
	}
	return t.applyToHosts(ctx, id, cloud, dedicated)
}

// bindOneByOne changes each host that does not serve the certificate yet. A
// failure leaves the earlier ones changed; doing it again goes on from there.
func (t *Target) bindOneByOne(ctx context.Context, id string, refs []hostRef) error {
	c, err := t.showCertificate(ctx, id) // certificateid and certificatename must belong together
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := t.bindOne(ctx, c, ref); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) bindOne(ctx context.Context, c certificate, ref hostRef) error {
	h, err := t.showHost(ctx, ref.mode, ref.id)
	if err != nil {
		return err
	}
	if h.CertificateID == c.ID {
		return nil
	}
	servers := h.Server.raw
	if ref.mode.name == ModeDedicated {
		// Only the two members: whatever else is sent may be reset (reference 2.10).
		servers = nil
	}
	// On a cloud host the change takes effect only beside "server", which replaces
	// the whole list: it goes back as it was read.
	return t.updateHost(ctx, ref.mode, ref.id, c, servers)
}
