package identitycenter

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"slices"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud"
)

type target struct{ *Application }

const (
	opStage    = "stage certificate"
	opActivate = "activate certificate"
	opRetire   = "retire certificate"
)

// Observe makes two calls: the application instance, and its certificates.
func (t target) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	o := providers.Observation{Endpoints: make([]providers.Endpoint, len(r.Endpoints))}
	for n, name := range r.Endpoints {
		o.Endpoints[n] = providers.Endpoint{Name: name, Missing: true}
	}
	active, err := t.showActive(ctx)
	if isNotFound(err) {
		return o, nil
	}
	if err != nil {
		return providers.Observation{}, err
	}
	rows, err := t.list(ctx)
	if err != nil {
		return providers.Observation{}, err
	}
	if active == "" { // the application instance does not tell
		active = activeOf(rows)
	}
	for n, name := range r.Endpoints {
		if name == t.id {
			o.Endpoints[n] = providers.Endpoint{Name: name, ID: t.id, Serves: providers.Handle(active)}
		}
	}
	for _, row := range rows {
		o.Remotes = append(o.Remotes, t.remote(r, row, active))
	}
	return o, nil
}

func activeOf(rows []certificate) string {
	at := slices.IndexFunc(rows, certificate.isActive)
	if at < 0 {
		return ""
	}
	return string(rows[at].ID)
}

func (t target) remote(r providers.Request, row certificate, active string) providers.Remote {
	remote := providers.Remote{
		Handle: providers.Handle(row.ID), Name: string(row.ID), Created: row.Issued.Millis(), NotAfter: row.Expires.Millis(),
		Owned: t.owns(r, providers.Handle(row.ID)), Fingerprint: fingerprint(row),
	}
	if leaf := row.leaf(); leaf != nil {
		remote.NotBefore, remote.NotAfter = leaf.NotBefore, leaf.NotAfter
	}
	if row.isActive() || string(row.ID) == active {
		remote.InUse = []string{t.id}
	}
	return remote
}

// fingerprint is of the certificate's bytes, whether or not they can be parsed.
func fingerprint(row certificate) certs.Fingerprint {
	block, _ := pem.Decode([]byte(row.PEM))
	if block == nil || block.Type != "CERTIFICATE" {
		return certs.Fingerprint{}
	}
	return sha256.Sum256(block.Bytes)
}

// owns reports whether the certificate may be retired.
func (t target) owns(r providers.Request, h providers.Handle) bool {
	return t.all || slices.Contains(r.Made, h)
}

// Stage finds the certificate: what the issuer made is here already. It makes one call.
func (t target) Stage(ctx context.Context, r providers.Request, b *certs.Bundle) (providers.Remote, error) {
	rows, err := t.list(ctx)
	if err != nil {
		return providers.Remote{}, err
	}
	for _, row := range rows {
		if fingerprint(row) == b.Fingerprint() {
			return t.remote(r, row, ""), nil
		}
	}
	return providers.Remote{}, fail(providers.KindNotFound, opStage,
		"application instance %s has no certificate %s, and takes none from outside", t.id, b.Fingerprint().Short())
}

// Activate makes the application instance sign with the certificate from now on. It
// makes one call where it does so already, and two otherwise.
func (t target) Activate(ctx context.Context, r providers.Request, h providers.Handle) error {
	if !huaweicloud.IsIdentifier(string(h)) {
		return fail(providers.KindInvalid, opActivate, "%q is no certificate of Identity Center", h)
	}
	if len(r.Endpoints) == 0 {
		return nil
	}
	for _, name := range r.Endpoints {
		if name != t.id {
			return fail(providers.KindNotFound, opActivate, "%q is not application instance %s", name, t.id)
		}
	}
	active, err := t.showActive(ctx)
	if err != nil {
		return err
	}
	if active == string(h) {
		return nil
	}
	t.log.DebugContext(ctx, "certificate is made the active one", "application", t.id, "handle", string(h), "instead_of", active)
	return t.activate(ctx, string(h))
}

// Retire deletes a certificate that is not active: the application instance and the list
// must both say so, right before. Whether the service would refuse to delete an active
// one is not documented (reference 11, doubt 1), and all logins would fail.
func (t target) Retire(ctx context.Context, r providers.Request, h providers.Handle) error {
	if h == "" {
		return fail(providers.KindInvalid, opRetire, "no certificate is named")
	}
	active, err := t.showActive(ctx)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := t.list(ctx)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	row, ok := find(rows, h)
	switch {
	case active == string(h), ok && row.isActive():
		return fail(providers.KindInUse, opRetire, "certificate %s is the active one of application instance %s", h, t.id)
	case !ok:
		return nil // gone already
	case !t.owns(r, h):
		return fail(providers.KindInvalid, opRetire,
			"certificate %s was not made by rotatord for %s/%s and stays", h, r.Owner.Policy, r.Owner.Certificate)
	case !row.isInactive():
		return fail(providers.KindInUse, opRetire, "certificate %s has the status %q, and only INACTIVE ones are deleted", h, row.Status)
	}
	if err := t.delete(ctx, string(h)); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}
