package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const opActivate = "activate files"

// Activate switches the directory to a generation and has the service reload. A
// reload that is still due from an earlier time is made up for; with nothing to change
// and nothing due, nothing is done.
func (t *Target) Activate(ctx context.Context, r providers.Request, h providers.Handle) error {
	if err := ctx.Err(); err != nil {
		return t.classify(opActivate, err)
	}
	id, ok := generationID(strings.TrimPrefix(string(h), unsettled))
	if !ok {
		return fail(providers.KindInvalid, opActivate, "%q is no generation", h)
	}
	for _, name := range r.Endpoints {
		if name != t.directory {
			return fail(providers.KindNotFound, opActivate, "this target keeps %s and not %s", t.directory, name)
		}
	}
	if len(r.Endpoints) == 0 {
		return nil
	}
	d, err := t.openLocked(ctx, opActivate, true)
	if err != nil {
		return err
	}
	defer d.close()
	return t.classify(opActivate, t.activate(ctx, d, id))
}

func (t *Target) activate(ctx context.Context, d *disk, id certs.Fingerprint) error {
	s, err := t.look(d)
	if err != nil {
		return err
	}
	if s.problem != "" {
		return fail(providers.KindInvalid, opActivate, "%s", s.problem)
	}
	g, err := t.examine(d, id)
	switch {
	case err != nil:
		return err
	case g == nil && (s.id != id || !t.adoptable(s)):
		return fail(providers.KindNotFound, opActivate, "%s has no generation %s", t.directory, id.Short())
	case g != nil && g.fault != nil:
		return &providers.Error{Kind: providers.KindConflict, Service: service, Op: opActivate,
			Message: "generation " + id.Short() + " must be staged again", Err: g.fault}
	case s.fault == nil && s.id == id && s.linked(t):
		return nil
	}
	if err := t.setPending(d, id); err != nil {
		return err
	}
	if err := t.makeRoom(d, s); err != nil {
		return err
	}
	if g, err = t.examine(d, id); err != nil {
		return err
	}
	if g == nil {
		return fail(providers.KindConflict, opActivate, "generation %s is gone", id.Short())
	}
	if err := t.enforceAll(d, g); err != nil {
		return err
	}
	if err := t.swap(d, opActivate, id); err != nil {
		return err
	}
	if err := t.linkAll(d, s); err != nil {
		return err
	}
	t.log.InfoContext(ctx, "files switched", "generation", id.Short())
	return t.tell(ctx, d, id)
}

// setPending notes that the service has to be told, before there is anything to tell.
func (t *Target) setPending(d *disk, id certs.Fingerprint) error {
	if !t.reload.wanted() {
		return nil
	}
	if there, err := d.exists(pending); there || err != nil {
		return err
	}
	if err := d.write(part, []byte(id.String()+"\n")); err != nil {
		return err
	}
	if err := d.rename(part, pending); err != nil {
		return err
	}
	return d.sync(control)
}

// tell has the service reload, and forgets that it was due.
func (t *Target) tell(ctx context.Context, d *disk, id certs.Fingerprint) error {
	if err := t.runReload(ctx, id); err != nil {
		return err
	}
	there, err := d.exists(pending)
	if err != nil || !there {
		return err
	}
	if err := d.removeAll(pending); err != nil {
		return err
	}
	return d.sync(control)
}

// swap puts a generation in force: one rename for all its files.
func (t *Target) swap(d *disk, op string, id certs.Fingerprint) error {
	target, err := d.root.Readlink(current)
	if err == nil && target == id.String() {
		return d.sync(control) // a crash may have come between rename and sync
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(providers.KindInvalid, op, "%s is no link; remove it", d.beside(current))
	}
	if err := d.link(id.String(), current, controlLink); err != nil {
		return err
	}
	if err := d.sync(control); err != nil {
		return unknownOutcome(op, err)
	}
	return nil
}

// adoptable reports whether the files that are served can be a generation: they agree,
// and have the key where one is wanted.
func (t *Target) adoptable(s *state) bool {
	return s.bundle != nil && (!t.wantsKey() || !s.bundle.Key.IsZero())
}

// makeRoom gets files that are no links of ours out of the way without a moment
// without them. A whole certificate becomes a generation, is put in force as such, and
// then replaced file by file by links to itself: whoever reads meanwhile reads the
// same. What is no whole certificate, and what a generation does not hold, is kept
// aside.
func (t *Target) makeRoom(d *disk, s *state) error {
	edited := s.force != nil && s.force.id != s.id
	if !s.stray() && !edited {
		return nil
	}
	var kept *generation
	if t.adoptable(s) {
		var err error
		if kept, err = t.adopt(d, opActivate, s.id, s.reading, s.files); err != nil {
			return err
		}
	}
	for _, f := range t.files {
		p := s.places[f.name]
		if p != plain && p != foreign {
			continue
		}
		if p == plain && kept != nil && bytes.Equal(kept.files[f.name], s.files[f.name]) {
			continue
		}
		if err := d.keep(f.name, f.name, s.files[f.name]); err != nil {
			return err
		}
	}
	if kept == nil || !s.stray() {
		return nil
	}
	if err := t.enforceAll(d, kept); err != nil {
		return err
	}
	if err := t.swap(d, opActivate, s.id); err != nil {
		return err
	}
	return t.linkAll(d, s)
}

// linkAll makes the links that are not there, and removes those of ours that the
// policy no longer asks for.
func (t *Target) linkAll(d *disk, s *state) error {
	changed := false
	for _, f := range t.files {
		if s.places[f.name] == ours {
			continue
		}
		if err := d.link(linkTo(f), f.name, outerLink); err != nil {
			return err
		}
		s.places[f.name] = ours
		changed = true
	}
	stale, err := t.staleLinks(d)
	if err != nil {
		return err
	}
	for _, name := range stale {
		if err := d.removeAll(name); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return d.sync(".")
}

// staleLinks are links of ours for files that are not wanted any more and that the
// generation in force does not have.
func (t *Target) staleLinks(d *disk) ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var stale []string
	for _, name := range names {
		target, err := d.root.Readlink(name)
		if err != nil || target != path.Join(current, name) {
			continue
		}
		if _, err := d.root.Stat(target); errors.Is(err, fs.ErrNotExist) {
			stale = append(stale, name)
		}
	}
	return stale, nil
}

// keep puts a second name on a file, or a second link beside a link, before something
// else takes its place. What was kept before stays.
func (d *disk) keep(from, name string, data []byte) error {
	const places = 9
	for i := 1; i <= places; i++ {
		aside := name + asideSuffix
		if i > 1 {
			aside += fmt.Sprintf(".%d", i)
		}
		there, err := d.exists(aside)
		if err != nil {
			return err
		}
		if there {
			if old, _, err := d.readFile(aside); err == nil && bytes.Equal(old, data) {
				return nil
			}
			continue
		}
		return d.keepAs(from, aside)
	}
	return fail(providers.KindExists, opActivate, "%s has %d files kept aside already; look through them and remove them", d.beside(name), places)
}

func (d *disk) keepAs(from, aside string) error {
	if target, err := d.root.Readlink(from); err == nil {
		return d.do("symlink "+aside, func() error { return d.root.Symlink(target, aside) })
	}
	if err := d.do("link "+aside, func() error { return d.root.Link(from, aside) }); err != nil {
		return err
	}
	return d.sync(".")
}
