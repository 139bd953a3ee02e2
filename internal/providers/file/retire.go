package file

import (
	"context"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const opRetire = "retire generation"

// Retire removes a generation of ours that is not in force.
func (t *Target) Retire(ctx context.Context, r providers.Request, h providers.Handle) error {
	if err := ctx.Err(); err != nil {
		return t.classify(opRetire, err)
	}
	id, ok := generationID(string(h))
	if !ok {
		return fail(providers.KindInvalid, opRetire, "%q is no generation", h)
	}
	d, err := t.openLocked(ctx, opRetire, false)
	if t.missingDirectory(err) {
		return t.neverMade(r.Owner, id)
	}
	if err != nil {
		return err
	}
	defer d.close()
	return t.classify(opRetire, t.retire(d, r.Owner, id))
}

// neverMade answers for a directory that rotatord has not written to, or that is gone.
func (t *Target) neverMade(o providers.Owner, id certs.Fingerprint) error {
	d, err := t.open(opRetire)
	if t.missingDirectory(err) {
		return nil // and the generation with it
	}
	if err != nil {
		return err
	}
	defer d.close()
	s, err := t.look(d)
	if err == nil && s.id == id {
		err = t.notOurs(o, id)
	}
	return t.classify(opRetire, err)
}

func (t *Target) notOurs(o providers.Owner, id certs.Fingerprint) error {
	return fail(providers.KindInvalid, opRetire,
		"%s in %s was not made by rotatord for %s/%s and stays", id.Short(), t.directory, o.Policy, o.Certificate)
}

func (t *Target) retire(d *disk, o providers.Owner, id certs.Fingerprint) error {
	g, err := t.examine(d, id)
	if err != nil {
		return err
	}
	s, err := t.look(d)
	if err != nil {
		return err
	}
	switch {
	case g == nil && s.id != id:
		return nil // gone already
	case g == nil || !g.owned(o):
		return t.notOurs(o, id)
	case s.id == id || s.force != nil && s.force.id == id:
		return fail(providers.KindInUse, opRetire, "generation %s is served from %s", id.Short(), t.directory)
	}
	if g.fault != nil {
		if _, err := t.saveEdits(d, opRetire, g, nil); err != nil {
			return err
		}
	}
	// Out of sight first: a half removed generation is none.
	if err := d.rename(folder(id), trash); err != nil {
		return err
	}
	if err := d.sync(control); err != nil {
		return unknownOutcome(opRetire, err)
	}
	t.log.Debug("generation removed", "generation", id.Short())
	return d.removeAll(trash)
}
