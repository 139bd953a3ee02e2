package privateca

import (
	"context"
	"slices"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// Collect fetches certificate and chain, and takes the key from this host or, where it
// is not here, from the service: after a change of who holds it a certificate in force
// still has its key where it was. It makes one call.
func (i *Issuer) Collect(ctx context.Context, r providers.IssueRequest, h providers.Handle) (*certs.Bundle, error) {
	if !isHandle(string(h)) {
		return nil, fail(providers.KindNotFound, opCollect, "%q is no certificate of the private CA service", h)
	}
	e, theirs, err := i.export(ctx, string(h))
	if err != nil {
		return nil, i.explain(ctx, h, err)
	}
	if e.problem != "" {
		return nil, fail(providers.KindInvalid, opCollect, "certificate %s: chain: %s", h, e.problem)
	}
	b := e.bundle()
	own, _, err := i.keyFor(r.Owner, h, e)
	switch {
	case err != nil:
		return nil, err
	case !own.IsZero():
		b.Key = own
	case theirs.IsZero():
		return nil, fail(providers.KindNotFound, opCollect,
			"the private key of certificate %s is not on this host, and the service has none: have a new one issued", h)
	case !theirs.Matches(e.leaf):
		return nil, fail(providers.KindInvalid, opCollect, "the service gives a private key that does not belong to certificate %s", h)
	default:
		b.Key = theirs
	}
	return b, nil
}

// explain finds out why a certificate cannot be exported: only issued ones can
// (reference 4.5).
func (i *Issuer) explain(ctx context.Context, h providers.Handle, refused error) error {
	switch providers.KindOf(refused) {
	case providers.KindInvalid, providers.KindDenied, providers.KindConflict:
	default:
		return refused
	}
	row, err := i.showCertificate(ctx, string(h))
	switch {
	case isNotFound(err):
		return err
	case err != nil:
		return refused
	case row.Status.Is(statusRevoked):
		return fail(providers.KindNotFound, opCollect, "certificate %s was revoked", h)
	case row.Status.Is(statusExpired):
		return fail(providers.KindNotFound, opCollect, "certificate %s has expired", h)
	}
	return refused
}

// Revoke revokes a certificate of the owner as superseded, or finds that there is
// nothing to revoke: it is gone, has expired, or was revoked before.
func (i *Issuer) Revoke(ctx context.Context, r providers.IssueRequest, h providers.Handle) error {
	if !isHandle(string(h)) {
		return fail(providers.KindInvalid, opRevoke, "%q is no certificate of the private CA service", h)
	}
	over, err := i.isOver(ctx, h)
	if over || err != nil {
		return err
	}
	marked, err := i.markOf(ctx, string(h))
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if marked != mark(r.Owner) && (marked != "" || !slices.Contains(r.Known, h)) {
		return fail(providers.KindInvalid, opRevoke,
			"certificate %s was not made by rotatord for %s/%s and stays", h, r.Owner.Policy, r.Owner.Certificate)
	}
	err = i.revokeCertificate(ctx, string(h))
	switch providers.KindOf(err) {
	case providers.KindNotFound, providers.KindExists:
		return nil
	case providers.KindInvalid, providers.KindConflict, providers.KindDenied:
		// Which code stands for "is revoked already" is not documented.
		if over, _ := i.isOver(ctx, h); over {
			return nil
		}
	default:
	}
	return err
}

// isOver reports whether there is nothing left to revoke.
func (i *Issuer) isOver(ctx context.Context, h providers.Handle) (bool, error) {
	row, err := i.showCertificate(ctx, string(h))
	if isNotFound(err) {
		return true, nil
	}
	return row.Status.Is(statusRevoked) || row.Status.Is(statusExpired), err
}

// Release removes the private keys that this host keeps for the owner, but those of the
// certificates to keep and the one for the next certificate.
func (i *Issuer) Release(ctx context.Context, r providers.IssueRequest, keep []providers.Handle) error {
	if i.keys.directory == "" {
		return nil
	}
	done, err := i.turn.take(ctx)
	if err != nil {
		return ended(opKey, err)
	}
	defer done()
	kept := make(map[providers.Handle]bool)
	for _, h := range keep {
		kept[h] = true
	}
	return i.keys.release(r.Owner, kept)
}
