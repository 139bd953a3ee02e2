package file

import (
	"context"
	"maps"
	"path"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const opStage = "stage files"

// Stage writes the bundle's generation, or finds the one that an earlier Stage wrote
// and mends what was edited or is missing. Nothing of it is served yet, except that a
// damaged generation in force is mended in place.
func (t *Target) Stage(ctx context.Context, r providers.Request, b *certs.Bundle) (providers.Remote, error) {
	if err := ctx.Err(); err != nil {
		return providers.Remote{}, t.classify(opStage, err)
	}
	if t.wantsKey() && b.Key.IsZero() {
		return providers.Remote{}, fail(providers.KindInvalid, opStage, "the bundle has no private key, and the policy wants one in %s", t.directory)
	}
	d, err := t.openLocked(ctx, opStage, true)
	if err != nil {
		return providers.Remote{}, err
	}
	defer d.close()
	remote, err := t.stage(ctx, d, r.Owner, b)
	return remote, t.classify(opStage, err)
}

func (t *Target) stage(ctx context.Context, d *disk, o providers.Owner, b *certs.Bundle) (providers.Remote, error) {
	var none providers.Remote
	g, err := t.examine(d, b.Fingerprint())
	switch {
	case err != nil:
		return none, err
	case g == nil:
		err = t.createFrom(d, providers.CertificateName(o, b.Fingerprint()), b)
	case g.strange(t.read(g.files)):
		return none, fail(providers.KindExists, opStage,
			"%s was not made by rotatord and holds another certificate; remove it", d.beside(folder(g.id)))
	default:
		err = t.mend(ctx, d, g, b)
	}
	if err != nil {
		return none, err
	}
	// Trust what is there, not what was meant to be.
	if g, err = t.examine(d, b.Fingerprint()); err != nil {
		return none, err
	}
	if g == nil || g.fault != nil {
		e := fail(providers.KindConflict, opStage, "what was written in %s reads otherwise", d.beside(folder(b.Fingerprint())))
		if g != nil {
			e.Err = g.fault
		}
		return none, e
	}
	return g.remote(o), nil
}

func metadataOf(name string, b *certs.Bundle) metadata {
	return metadata{
		Name: name, Fingerprint: b.Fingerprint(), NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter,
		Created: time.Now().UTC().Truncate(time.Second),
	}
}

func (t *Target) createFrom(d *disk, name string, b *certs.Bundle) error {
	files, err := t.encodeAll(b, nil)
	if err != nil {
		return err
	}
	return t.create(d, opStage, metadataOf(name, b), files)
}

// encodeAll writes the bundle in all wanted forms, except the files that are there.
func (t *Target) encodeAll(b *certs.Bundle, there map[string][]byte) (map[string][]byte, error) {
	files := maps.Clone(there)
	if files == nil {
		files = make(map[string][]byte, len(t.files))
	}
	for _, f := range t.files {
		if _, ok := files[f.name]; ok {
			continue
		}
		data, err := t.encode(f.form, b)
		if err != nil {
			return nil, fail(providers.KindInvalid, opStage, "%s: %v", f.name, err)
		}
		files[f.name] = data
	}
	return files, nil
}

// mend writes the files of a generation that are missing, edited or another form of
// the bundle: one by one, since all right files of one leaf belong together.
func (t *Target) mend(ctx context.Context, d *disk, g *generation, b *certs.Bundle) error {
	var broken []wantedFile
	for _, f := range t.files {
		data, ok := g.files[f.name]
		if !ok || g.wrote && g.meta.Files[f.name] != digest(data) || !t.holds(f.form, data, b) {
			broken = append(broken, f)
		}
	}
	if len(broken) == 0 && g.fault == nil {
		return nil
	}
	force, err := d.inForce()
	if err != nil {
		return err
	}
	if force == g.id {
		// The service may have read what is now taken away.
		if err := t.setPending(d, g.id); err != nil {
			return err
		}
	}
	saved, err := t.saveEdits(d, opStage, g, b)
	if err != nil {
		return err
	}
	if !saved.IsZero() && force == g.id {
		// What is served stays what it is, as a whole, until Activate.
		if err := t.swap(d, opStage, saved); err != nil {
			return err
		}
	}
	t.log.InfoContext(ctx, "generation mended", "generation", g.id.Short(), "reason", g.fault)
	return t.rewrite(d, g, b, broken)
}

// saveEdits keeps what somebody wrote into a generation: as a generation of its own
// where it is a whole other certificate, which is then returned, else aside. b is what
// belongs there, if that is known.
func (t *Target) saveEdits(d *disk, op string, g *generation, b *certs.Bundle) (certs.Fingerprint, error) {
	if r := t.read(g.files); r.complete() && certs.FingerprintOf(r.leaf) != g.id {
		id := certs.FingerprintOf(r.leaf)
		other, err := t.adopt(d, op, id, r, g.files)
		if err != nil {
			return certs.Fingerprint{}, err
		}
		if other != nil {
			return id, t.enforceAll(d, other)
		}
	}
	for _, f := range t.files {
		data, ok := g.files[f.name]
		if !ok || len(data) == 0 || g.wrote && g.meta.Files[f.name] == digest(data) || b != nil && t.holds(f.form, data, b) {
			continue
		}
		if err := d.keep(path.Join(folder(g.id), f.name), f.name, data); err != nil {
			return certs.Fingerprint{}, err
		}
	}
	return certs.Fingerprint{}, nil
}

func (t *Target) rewrite(d *disk, g *generation, b *certs.Bundle, broken []wantedFile) error {
	own, err := t.ownership()
	if err != nil {
		return err
	}
	files := maps.Clone(g.files)
	for _, f := range broken {
		data, err := t.encode(f.form, b)
		if err != nil {
			return fail(providers.KindInvalid, opStage, "%s: %v", f.name, err)
		}
		files[f.name] = data
		if err := t.replace(d, own, f, path.Join(folder(g.id), f.name), data); err != nil {
			return err
		}
	}
	m := metadataOf(g.meta.Name, b)
	if g.wrote {
		m.Created = g.meta.Created
	}
	data, err := describe(m, files)
	if err != nil {
		return err
	}
	if err := d.write(part, data); err != nil {
		return err
	}
	if err := d.rename(part, path.Join(folder(g.id), metadataName)); err != nil {
		return err
	}
	return d.sync(folder(g.id))
}

// replace puts a file over another with one rename.
func (t *Target) replace(d *disk, own ownership, f wantedFile, name string, data []byte) error {
	if err := d.write(part, data); err != nil {
		return err
	}
	if _, err := t.enforce(d, own, f, part); err != nil {
		return err
	}
	return d.rename(part, name)
}

// adopt makes a generation of files that somebody else wrote, so that there is a way
// back to them. It returns nil where a generation of that certificate is there with
// other files.
func (t *Target) adopt(d *disk, op string, id certs.Fingerprint, r reading, files map[string][]byte) (*generation, error) {
	g, err := t.examine(d, id)
	if err != nil {
		return nil, err
	}
	if g == nil {
		all, err := t.encodeAll(r.bundle, files)
		if err != nil {
			return nil, err
		}
		if err := t.create(d, op, metadataOf("", r.bundle), all); err != nil {
			return nil, err
		}
		t.log.Info("files of somebody else were copied into a generation", "generation", id.Short())
		return t.examine(d, id)
	}
	if g.fault != nil {
		g = nil // it is not those files
	}
	return g, nil
}
