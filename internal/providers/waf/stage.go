package waf

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"slices"
	"strings"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const opStage = "stage certificate"

// Stage uploads the bundle, or adopts the object that an earlier Stage made. It
// makes three calls: two lists and the creation; or two lists and a Show. Where the
// caller has seen that there is no such object, it is one: the creation.
func (t *Target) Stage(ctx context.Context, r providers.Request, b *certs.Bundle) (providers.Remote, error) {
	if err := check(b, time.Now()); err != nil {
		return providers.Remote{}, err
	}
	name := providers.CertificateName(r.Owner, b.Fingerprint())
	// Look first: a duplicate would be refused in most regions, and cost a place
	// in the quota in the others (reference 2.11, step 3).
	if !r.Seen.Lacks(name) {
		if found, err := t.findByName(ctx, r.Owner, name, b); err != nil || found.Handle != "" {
			return found, err
		}
	}
	u, err := uploadOf(name, b)
	if err != nil {
		return providers.Remote{}, err
	}
	c, err := t.createCertificate(ctx, u)
	switch providers.KindOf(err) {
	case providers.KindExists, providers.KindInvalid:
		// Which code stands for "content is there under another name" is not
		// documented (doubt 11): look before believing that the request is bad.
		return t.adoptDuplicate(ctx, r.Owner, b, err)
	case providers.KindQuota:
		return t.reuseStandby(ctx, r.Owner, u, b, err)
	default: // another object would not help
	}
	if err != nil {
		return providers.Remote{}, err
	}
	if c.ID == "" {
		return providers.Remote{}, fail(providers.KindUnknownOutcome, opStage, "the answer names no certificate id")
	}
	t.log.DebugContext(ctx, "certificate uploaded", "name", name, "handle", string(c.ID))
	return staged(string(c.ID), u.Name, b, c.Timestamp.Millis()), nil
}

func staged(id, name string, b *certs.Bundle, created time.Time) providers.Remote {
	return providers.Remote{
		Handle: providers.Handle(id), Name: name, Fingerprint: b.Fingerprint(),
		NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter, Created: created, Owned: true,
	}
}

// check refuses a bundle that the service would refuse, before anything is sent. The
// codes are those that the service would give (reference 6.2 and 7.3).
func check(b *certs.Bundle, now time.Time) error {
	refuse := func(format string, args ...any) error {
		return fail(providers.KindInvalid, opStage, format, args...)
	}
	switch b.Key.Public().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
	case nil:
		return refuse("the bundle has no private key")
	default:
		return refuse("WAF takes RSA and EC keys, this one is %s", b.Info().KeyAlgorithm)
	}
	if !b.Key.Matches(b.Leaf) {
		return refuse("the private key does not belong to the certificate (WAF.00011019)")
	}
	if now.After(b.Leaf.NotAfter) {
		return refuse("the certificate expired at %s (WAF.00011021)", b.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := certs.ChainProblem(b); err != nil {
		return refuse("%v (WAF.00011019)", err)
	}
	return nil
}

// uploadOf writes the bundle as WAF wants it: leaf first, no root, no white space
// around, and the key in its traditional form, since PKCS #8 is said to be
// refused (reference 7.3).
func uploadOf(name string, b *certs.Bundle) (upload, error) {
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		return upload{}, fail(providers.KindInvalid, opStage, "the private key cannot be encoded")
	}
	return upload{Name: name, Content: trimmed(b.FullChainPEM()), Key: trimmed(key)}, nil
}

func trimmed(pem []byte) string {
	return strings.TrimSpace(strings.ReplaceAll(string(pem), "\r\n", "\n"))
}

// findByName looks for the object that a Stage of this bundle would make. The
// zero Remote means that there is none.
func (t *Target) findByName(ctx context.Context, o providers.Owner, name string, b *certs.Bundle) (providers.Remote, error) {
	rows, err := t.listCertificates(ctx, name)
	if err != nil {
		return providers.Remote{}, err
	}
	for _, row := range rows {
		if string(row.Name) != name {
			continue
		}
		found, err := t.show(ctx, o, string(row.ID))
		if err != nil || found.Handle == "" {
			return found, err
		}
		if found.Fingerprint != b.Fingerprint() {
			return providers.Remote{}, fail(providers.KindExists, opStage,
				"certificate %s has the name %s but holds another certificate; somebody changed it: remove or rename it", found.Handle, name)
		}
		t.log.InfoContext(ctx, "certificate adopted", "target_kind", "waf", "name", name, "handle", string(found.Handle))
		return found, nil
	}
	return providers.Remote{}, nil
}

// show returns the zero Remote for a certificate that is gone.
func (t *Target) show(ctx context.Context, o providers.Owner, id string) (providers.Remote, error) {
	c, err := t.showCertificate(ctx, id)
	if isNotFound(err) {
		return providers.Remote{}, nil
	}
	if err != nil {
		return providers.Remote{}, err
	}
	return remoteOf(o, id, c), nil
}

// adoptDuplicate looks for a certificate with the same leaf after a refusal:
// whoever made it, WAF takes no second one. refused is returned if there is none.
func (t *Target) adoptDuplicate(ctx context.Context, o providers.Owner, b *certs.Bundle, refused error) (providers.Remote, error) {
	rows, err := t.listCertificates(ctx, "")
	if err != nil {
		return providers.Remote{}, err
	}
	for _, row := range rows {
		if !mayBe(row, b) {
			continue
		}
		found, err := t.show(ctx, o, string(row.ID))
		if err != nil {
			return providers.Remote{}, err
		}
		if found.Fingerprint == b.Fingerprint() {
			t.log.InfoContext(ctx, "certificate adopted", "target_kind", "waf", "name", found.Name, "handle", string(found.Handle))
			return found, nil
		}
	}
	return providers.Remote{}, refused
}

// mayBe saves a Show for certificates that expire at another time. A day of
// difference allows for services that count in another zone.
func mayBe(row certificate, b *certs.Bundle) bool {
	expires := row.ExpireTime.Millis()
	return expires.IsZero() || expires.Sub(b.Leaf.NotAfter).Abs() <= 24*time.Hour
}

// reuseStandby puts the bundle into our oldest object that nothing serves, when
// the account may not hold another one (reference 2.11). What serves now, the
// way back, is bound and thus never taken. refused is returned if there is none.
func (t *Target) reuseStandby(ctx context.Context, o providers.Owner, u upload, b *certs.Bundle, refused error) (providers.Remote, error) {
	rows, err := t.listCertificates(ctx, providers.NamePrefix(o))
	if err != nil {
		return providers.Remote{}, err
	}
	rows = slices.DeleteFunc(rows, func(row certificate) bool { return !providers.Owns(o, string(row.Name)) })
	slices.SortFunc(rows, func(a, b certificate) int { return a.Timestamp.Millis().Compare(b.Timestamp.Millis()) })
	for _, row := range rows {
		old, err := t.show(ctx, o, string(row.ID))
		if err != nil {
			return providers.Remote{}, err
		}
		if !old.Owned || len(old.InUse) > 0 {
			continue
		}
		err = t.updateCertificate(ctx, string(old.Handle), u)
		if k := providers.KindOf(err); k == providers.KindInUse || k == providers.KindNotFound {
			continue // bound or gone since
		}
		if err != nil {
			return providers.Remote{}, err
		}
		t.log.InfoContext(ctx, "quota is used up; an unused certificate was replaced",
			"target_kind", "waf", "name", u.Name, "replaced", old.Name, "handle", string(old.Handle))
		return staged(string(old.Handle), u.Name, b, time.Now().UTC()), nil
	}
	return providers.Remote{}, refused
}
