package waf

import (
	"context"
	"strings"

	"github.com/rotatord/rotatord/internal/providers"
)

const opRetire = "retire certificate"

// Retire deletes a certificate of ours that no host serves: one Show, one
// Delete. Between the two somebody may bind it; WAF then refuses.
func (t *Target) Retire(ctx context.Context, r providers.Request, h providers.Handle) error {
	if h == "" {
		return fail(providers.KindInvalid, opRetire, "no certificate is named")
	}
	c, err := t.show(ctx, r.Owner, string(h))
	switch {
	case err != nil:
		return err
	case c.Handle == "":
		return nil // gone already
	case !c.Owned:
		return fail(providers.KindInvalid, opRetire,
			"certificate %s (%s) was not made by rotatord for %s/%s and stays", h, c.Name, r.Owner.Policy, r.Owner.Certificate)
	case len(c.InUse) > 0:
		return fail(providers.KindInUse, opRetire, "certificate %s is served by %s", h, strings.Join(c.InUse, ", "))
	}
	if err := t.deleteCertificate(ctx, string(h)); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}
