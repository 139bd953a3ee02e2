package privateca

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// Issue makes a certificate, or adopts one that an earlier try left. Without anything to
// adopt it makes six calls: CA, quota, creation, tag, show, export; and before them a
// list where the service makes the key, or a key waits for its certificate.
func (i *Issuer) Issue(ctx context.Context, r providers.IssueRequest) (providers.Issued, error) {
	if err := ctx.Err(); err != nil {
		return providers.Issued{}, ended(opIssue, err)
	}
	done, err := i.turn.take(ctx)
	if err != nil {
		return providers.Issued{}, ended(opIssue, err)
	}
	defer done()
	if i.spec.Held == HeldLocal {
		return i.issueLocal(ctx, r)
	}
	return i.issueCloud(ctx, r)
}

// issueLocal has a certificate made for a key of this host. What a crash leaves, and who
// repairs it, stands beside each step; "the next Issue" begins at the top.
func (i *Issuer) issueLocal(ctx context.Context, r providers.IssueRequest) (providers.Issued, error) {
	// A key with the id of a certificate that the caller does not know: see settle below.
	id, err := i.leftSettled(ctx, r)
	if err != nil {
		return providers.Issued{}, err
	}
	if id != "" {
		return i.finish(ctx, r, id, true)
	}
	key, written, err := i.keys.pending(r.Owner)
	if err != nil {
		return providers.Issued{}, err
	}
	if !key.IsZero() {
		id, err := i.leftPending(ctx, &r, &key, written)
		if err != nil {
			return providers.Issued{}, err
		}
		if id != "" {
			return i.finish(ctx, r, id, true)
		}
	}
	if !key.IsZero() {
		if err := i.mayBeHidden(r.Owner, written); err != nil {
			return providers.Issued{}, err
		}
	}
	if err := i.mayIssue(ctx); err != nil {
		return providers.Issued{}, err
	}
	if key.IsZero() || certs.KeyAlgorithm(key.Public()) != i.spec.KeyAlgorithm {
		// Made or about to be used, but nothing was issued for it.
		if key, err = newKey(i.spec.KeyAlgorithm); err != nil {
			return providers.Issued{}, fail(providers.KindInvalid, opIssue, "%v", err)
		}
		// A crash within: no key, or a whole one that the next Issue uses.
		if err := i.keys.putPending(r.Owner, key); err != nil {
			return providers.Issued{}, err
		}
		i.memory.tried(r.Owner, try{at: time.Now()})
	}
	der, err := i.spec.request(key)
	if err != nil {
		return providers.Issued{}, fail(providers.KindInvalid, opIssue, "no request can be made: %v", err)
	}
	csr := requestPEM(der)
	if len(csr) > maxRequest {
		return providers.Issued{}, fail(providers.KindInvalid, opIssue,
			"the request has %d characters, and the service takes %d: ask for fewer or shorter names", len(csr), maxRequest)
	}
	// A crash before the request leaves: the next Issue finds the key, nothing in the
	// list, and sends it. After: it finds the certificate by its public key.
	id, err = i.applied(r.Owner, func() (string, error) {
		return i.create(ctx, opCreateByRequest, certificatesPath+"/csr", i.spec.byRequest(csr, time.Now()))
	})
	if err != nil {
		return providers.Issued{}, err
	}
	return i.finish(ctx, r, id, false)
}

// issueCloud has a certificate and its key made by the service. Nothing in a request can
// be recognised later (reference 4.2), so what a lost answer left is found by what it is.
func (i *Issuer) issueCloud(ctx context.Context, r providers.IssueRequest) (providers.Issued, error) {
	id, err := i.leftInCloud(ctx, r)
	if err != nil {
		return providers.Issued{}, err
	}
	if id != "" {
		return i.finish(ctx, r, id, true)
	}
	if err := i.mayBeHidden(r.Owner, time.Time{}); err != nil {
		return providers.Issued{}, err
	}
	if err := i.mayIssue(ctx); err != nil {
		return providers.Issued{}, err
	}
	// A crash after the request left, before or after the tag: the next Issue finds the
	// certificate, equal to the Spec and made since r.Since.
	id, err = i.applied(r.Owner, func() (string, error) {
		return i.create(ctx, opCreateCertificate, certificatesPath, i.spec.bySpec(time.Now()))
	})
	if err != nil {
		return providers.Issued{}, err
	}
	return i.finish(ctx, r, id, false)
}

// applied sends the request and remembers how it ended.
func (i *Issuer) applied(o providers.Owner, send func() (string, error)) (string, error) {
	id, err := send()
	i.memory.tried(o, try{at: time.Now(), lost: providers.KindOf(err) == providers.KindUnknownOutcome})
	return id, err
}

// mayBeHidden refuses to ask again as long as what the last request made may not be in
// the list yet. written is when a key was kept of which this process knows no request: a
// process before it may have sent one.
func (i *Issuer) mayBeHidden(o providers.Owner, written time.Time) error {
	last, known := i.memory.lastTry(o)
	if !known && !written.IsZero() {
		last = try{at: written, lost: true}
	}
	left := i.settle - time.Since(last.at)
	if !last.lost || left <= 0 || left > i.settle {
		return nil
	}
	err := fail(providers.KindUnavailable, opIssue,
		"the last request may have had an effect, and what it made may not be in the list yet")
	err.RetryAfter = left
	return err
}

// finish marks, checks and describes a certificate that was made or found. It can be
// repeated from its beginning.
func (i *Issuer) finish(ctx context.Context, r providers.IssueRequest, id string, adopted bool) (providers.Issued, error) {
	h := providers.Handle(id)
	if !isHandle(id) {
		return providers.Issued{}, fail(providers.KindInvalid, opIssue, "the service gives the id %q, which cannot be used", id)
	}
	// A crash before this: the next Issue adopts as above. After: it does so too, and
	// whoever has lost all state finds the certificate by its tag.
	if err := i.setMark(ctx, id, mark(r.Owner)); err != nil {
		return providers.Issued{}, notYet(err)
	}
	row, err := i.showCertificate(ctx, id)
	if err != nil {
		return providers.Issued{}, notYet(err)
	}
	e, err := i.public(ctx, id)
	if err != nil {
		return providers.Issued{}, notYet(err)
	}
	differences := i.spec.differences(e, row.Created.Millis())
	if !may(label(row.IssuerID), i.spec.IssuerID) {
		differences = append(differences, "issuer: asked for CA "+i.spec.IssuerID+", got "+string(row.IssuerID))
	}
	if i.spec.Held == HeldLocal {
		own, err := i.placeKey(r.Owner, h, e)
		if err != nil {
			return providers.Issued{}, err
		}
		if !own {
			differences = append(differences, "key: asked for a certificate for a key of this host, got one for another key")
		}
	}
	i.memory.forgetTry(r.Owner)
	if adopted {
		i.log.InfoContext(ctx, "certificate of an earlier try adopted", "certificate", r.Owner.Certificate, "handle", id)
	}
	return providers.Issued{
		Handle: h, Info: e.bundle().Info(), Chain: len(e.chain), PEM: e.bundle().CertificatePEM(),
		Created: row.Created.Millis(), Owned: true, Adopted: adopted, Problem: strings.Join(differences, "; "),
	}, nil
}

// placeKey puts the key of a certificate where Collect looks for it. It reports whether
// there is one.
func (i *Issuer) placeKey(o providers.Owner, h providers.Handle, e exported) (bool, error) {
	key, pending, err := i.keyFor(o, h, e)
	if err != nil || key.IsZero() || !pending {
		return !key.IsZero(), err
	}
	// A crash before this: the next Issue finds the certificate by the pending key. After:
	// by the key with its id, which the caller does not know yet.
	return true, i.keys.settle(o, h)
}

// keyFor returns the key of a certificate where it is on this host: the one with its id,
// or the pending one.
func (i *Issuer) keyFor(o providers.Owner, h providers.Handle, e exported) (key certs.PrivateKey, pending bool, err error) {
	if key, err = i.keys.key(o, h); err != nil || !key.IsZero() && key.Matches(e.leaf) {
		return key, false, err
	}
	if key, _, err = i.keys.pending(o); err != nil || !key.IsZero() && key.Matches(e.leaf) {
		return key, true, err
	}
	return certs.PrivateKey{}, false, nil
}

// notYet is for what was just made: that it cannot be found means to try again.
func notYet(err error) error {
	if e, ok := errors.AsType[*providers.Error](err); ok && e.Kind == providers.KindNotFound {
		e.Kind = providers.KindUnavailable
	}
	return err
}
