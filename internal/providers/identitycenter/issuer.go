package identitycenter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

type issuer struct{ *Application }

const (
	opIssue   = "issue certificate"
	opCollect = "collect certificate"
	opRevoke  = "revoke certificate"

	// skew is how far the clocks of this host and of the service may be apart.
	skew = 5 * time.Minute
)

// Asks is constant: of a certificate nothing can be chosen but the application instance.
func (i issuer) Asks() string {
	sum := sha256.Sum256([]byte("identity_center 1 " + i.instance + "/" + i.id))
	return hex.EncodeToString(sum[:16])
}

// Observe returns every certificate that has not expired, whoever made it, and those
// Known. The service tells nothing of who made one. It makes one call for each hundred.
func (i issuer) Observe(ctx context.Context, r providers.IssueRequest) (providers.Issuance, error) {
	rows, err := i.list(ctx)
	if err != nil {
		return providers.Issuance{}, err
	}
	now := time.Now()
	var all []providers.Issued
	for _, row := range rows {
		expired := !row.expires().IsZero() && now.After(row.expires())
		if expired && !slices.Contains(r.Known, providers.Handle(row.ID)) {
			continue
		}
		issued := describe(row)
		if expired {
			issued.Problem = "it has expired"
		}
		all = append(all, issued)
	}
	for _, h := range r.Known {
		if _, found := find(rows, h); !found {
			all = append(all, providers.Issued{Handle: h, Problem: "it is gone: somebody deleted it"})
		}
	}
	return providers.Issuance{Certificates: all}, nil
}

// describe tells what a certificate is, and why it cannot be put in force.
func describe(row certificate) providers.Issued {
	issued := providers.Issued{Handle: providers.Handle(row.ID), Created: row.Issued.Millis()}
	leaf := row.leaf()
	if leaf == nil {
		issued.Problem = "the service shows it in a form that cannot be read"
		return issued
	}
	b := certs.Bundle{Leaf: leaf}
	issued.Info, issued.PEM = b.Info(), b.CertificatePEM()
	now := time.Now()
	switch {
	case !leaf.NotAfter.After(leaf.NotBefore):
		issued.Problem = "it ends before it begins"
	case now.After(leaf.NotAfter):
		issued.Problem = fmt.Sprintf("it expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(skew)):
		issued.Problem = fmt.Sprintf("it is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return issued
}

func find(rows []certificate, h providers.Handle) (certificate, bool) {
	at := slices.IndexFunc(rows, func(c certificate) bool { return h != "" && providers.Handle(c.ID) == h })
	if at < 0 {
		return certificate{}, false
	}
	return rows[at], true
}

// Issue lists, and adopts what is there to be activated, or creates a certificate. It
// makes one call or two.
func (i issuer) Issue(ctx context.Context, r providers.IssueRequest) (providers.Issued, error) {
	if err := ctx.Err(); err != nil {
		return providers.Issued{}, ended(opIssue, err)
	}
	done, err := i.turn.take(ctx)
	if err != nil {
		return providers.Issued{}, ended(opIssue, err)
	}
	defer done()
	rows, err := i.list(ctx)
	if err != nil {
		return providers.Issued{}, err
	}
	if row, ok := adoptable(rows, r, time.Now()); ok {
		issued := describe(row)
		issued.Owned, issued.Adopted = !r.Since.IsZero(), true
		i.setLost(time.Time{})
		i.log.InfoContext(ctx, "certificate adopted", "application", i.id, "handle", string(row.ID), "owned", issued.Owned)
		return issued, nil
	}
	if left := i.hidden(); left > 0 {
		err := fail(providers.KindUnavailable, opIssue,
			"the last request may have had an effect, and what it made may not be in the list yet")
		err.RetryAfter = left
		return providers.Issued{}, err
	}
	row, err := i.create(ctx)
	if providers.KindOf(err) == providers.KindUnknownOutcome {
		i.setLost(time.Now())
	}
	if err != nil {
		return providers.Issued{}, err
	}
	i.setLost(time.Time{})
	issued := describe(row)
	issued.Owned = true
	return issued, nil
}

// adoptable is the newest certificate that waits for its activation: inactive, not older
// than the active one, and not known. Where a try was made it must be of that time; where
// none was it must be newer and fit for use, since it is somebody else's.
func adoptable(rows []certificate, r providers.IssueRequest, now time.Time) (certificate, bool) {
	var active time.Time
	for _, row := range rows {
		if row.isActive() && row.Issued.Millis().After(active) {
			active = row.Issued.Millis()
		}
	}
	for _, row := range rows {
		made := row.Issued.Millis()
		switch {
		case !row.isInactive(), made.Before(active), slices.Contains(r.Known, providers.Handle(row.ID)):
		case !r.Since.IsZero():
			if !made.Before(r.Since.Add(-skew)) {
				return row, true
			}
		case made.After(active) && now.Before(row.expires()) && describe(row).Problem == "":
			return row, true
		}
	}
	return certificate{}, false
}

// hidden is how long what a lost request made may still be missing in the list.
func (a *Application) hidden() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost.IsZero() {
		return 0
	}
	return a.settle - time.Since(a.lost)
}

func (a *Application) setLost(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = at
}

// Collect returns the certificate alone: the key never leaves the service.
func (i issuer) Collect(ctx context.Context, _ providers.IssueRequest, h providers.Handle) (*certs.Bundle, error) {
	rows, err := i.list(ctx)
	if err != nil {
		return nil, err
	}
	row, ok := find(rows, h)
	if !ok {
		return nil, fail(providers.KindNotFound, opCollect, "application instance %s has no certificate %s", i.id, h)
	}
	leaf := row.leaf()
	if leaf == nil {
		return nil, fail(providers.KindInvalid, opCollect, "the service shows certificate %s in a form that cannot be read", h)
	}
	return &certs.Bundle{Leaf: leaf}, nil
}

// Revoke always fails: the service has no such call.
func (i issuer) Revoke(context.Context, providers.IssueRequest, providers.Handle) error {
	return fail(providers.KindInvalid, opRevoke, "Identity Center revokes no certificates; one that is not active can be deleted")
}

// Release does nothing: this host has no key.
func (i issuer) Release(context.Context, providers.IssueRequest, []providers.Handle) error {
	return nil
}

// turn is a mutex that one can stop waiting for.
type turn chan struct{}

// take waits for the turn. Without error the caller must call done.
func (t turn) take(ctx context.Context) (done func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
