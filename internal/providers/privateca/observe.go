package privateca

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rotatord/rotatord/internal/providers"
)

// Observe reads the CA, the tags and each certificate. In quiet times it makes two calls
// and one for each certificate that is Known. Of the others of the owner those are left
// out that have expired or were revoked: nothing is to be done with them any more, and
// the service keeps them forever.
func (i *Issuer) Observe(ctx context.Context, r providers.IssueRequest) (providers.Issuance, error) {
	ca, _, err := i.authority(ctx)
	if err != nil {
		return providers.Issuance{}, err
	}
	marked, err := i.listMarked(ctx, mark(r.Owner))
	if err != nil {
		return providers.Issuance{}, err
	}
	handles := slices.Clone(r.Known)
	for _, id := range marked {
		if h := providers.Handle(id); !slices.Contains(handles, h) && !i.memory.isOver(id) {
			handles = append(handles, h)
		}
	}
	found := make([]*providers.Issued, len(handles))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for n, h := range handles {
		g.Go(func() error {
			l := look{i: i, owner: r.Owner, handle: h, known: n < len(r.Known), marked: slices.Contains(marked, string(h))}
			var err error
			found[n], err = l.look(ctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return providers.Issuance{}, err
	}
	issuance := providers.Issuance{Authority: &ca}
	for _, f := range found {
		if f != nil {
			issuance.Certificates = append(issuance.Certificates, *f)
		}
	}
	// Newest first; those of unknown age keep their order, at the end.
	slices.SortStableFunc(issuance.Certificates, func(a, b providers.Issued) int { return b.Created.Compare(a.Created) })
	return issuance, nil
}

// look is one certificate that is looked at.
type look struct {
	i             *Issuer
	owner         providers.Owner
	handle        providers.Handle
	known, marked bool
}

// look returns nil for what is not to be reported.
func (l look) look(ctx context.Context) (*providers.Issued, error) {
	issued := &providers.Issued{Handle: l.handle, Owned: true}
	if !isHandle(string(l.handle)) {
		issued.Owned = false
		issued.Problem = "it is no certificate of the private CA service"
		return issued, nil
	}
	row, err := l.i.showCertificate(ctx, string(l.handle))
	if isNotFound(err) {
		issued.Problem = "it is gone: somebody deleted it"
		return l.over(issued), nil
	}
	if err != nil {
		return nil, err
	}
	issued.Created = row.Created.Millis()
	if end := row.NotAfter.Millis(); row.Status.Is(statusExpired) || !end.IsZero() && time.Now().After(end) {
		issued.Problem = "it has expired"
		return l.over(issued), nil
	}
	if row.Status.Is(statusRevoked) {
		issued.Problem = "it was revoked"
		return l.over(issued), nil
	}
	if !l.marked {
		theirs, err := l.i.markOf(ctx, string(l.handle))
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		issued.Owned = theirs == "" || theirs == mark(l.owner)
	}
	problems, err := l.describe(ctx, row, issued)
	if err != nil {
		return nil, err
	}
	if row.FreezeFlag != 0 {
		problems = append(problems, "it is frozen: see the account's bills")
	}
	issued.Problem = strings.Join(problems, "; ")
	return issued, nil
}

// over is for a certificate that will never be in force again.
func (l look) over(issued *providers.Issued) *providers.Issued {
	l.i.memory.markOver(string(l.handle))
	if !l.known {
		return nil
	}
	return issued
}

// describe fills in what a certificate is, and returns what is wrong with it.
func (l look) describe(ctx context.Context, row certificate, issued *providers.Issued) (problems []string, err error) {
	if !l.known {
		e, err := l.i.public(ctx, string(l.handle))
		switch providers.KindOf(err) {
		case providers.KindInvalid, providers.KindDenied, providers.KindNotFound:
			return []string{"it cannot be exported: " + err.Error()}, nil
		default:
		}
		if err != nil {
			return nil, err
		}
		issued.Info, issued.Chain, issued.PEM = e.bundle().Info(), len(e.chain), e.bundle().CertificatePEM()
		problems = l.i.spec.differences(e, issued.Created)
		if !may(label(row.IssuerID), l.i.spec.IssuerID) {
			problems = append(problems, "issuer: it is of CA "+string(row.IssuerID))
		}
	}
	if row.GenMode.Is(modeGenerate) || row.GenMode == "" && l.i.spec.Held == HeldCloud {
		return problems, nil
	}
	here, err := l.hasKey(ctx)
	switch {
	case providers.KindOf(err) == providers.KindDenied, errors.Is(err, fs.ErrPermission):
		problems = append(problems, "its private key cannot be read: "+err.Error())
	case err != nil:
		return nil, err
	case !here:
		problems = append(problems, "its private key is not on this host")
	}
	return problems, nil
}

// hasKey reports whether the key is here. One with the certificate's id is taken for
// its; one that waits for a certificate must fit.
func (l look) hasKey(ctx context.Context) (bool, error) {
	key, err := l.i.keys.key(l.owner, l.handle)
	if err != nil || !key.IsZero() && l.known {
		return !key.IsZero(), err
	}
	pending, _, err := l.i.keys.pending(l.owner)
	if err != nil || key.IsZero() && pending.IsZero() {
		return false, err
	}
	e, err := l.i.public(ctx, string(l.handle))
	if err != nil {
		return false, err
	}
	key, _, err = l.i.keyFor(l.owner, l.handle, e)
	return !key.IsZero(), err
}
