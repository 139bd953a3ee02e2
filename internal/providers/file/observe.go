package file

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

const opObserve = "observe files"

// unsettled begins the handle of what is in force but not as wanted: a reload that did
// not succeed yet, a wrong owner or mode, a link that is gone, an edited file. Its
// Remote has dates, for the engine's guard, and no fingerprint, so that it never counts
// as the wanted bundle: the engine activates again. Where the generation itself is
// whole, it is there as a Remote too, under its own handle, and need not be staged
// again; else it has no fingerprint either, and is.
const unsettled = "unsettled:"

// Observe reads the directory. It changes nothing, and does not wait for a change that
// is under way.
func (t *Target) Observe(ctx context.Context, r providers.Request) (providers.Observation, error) {
	if err := ctx.Err(); err != nil {
		return providers.Observation{}, t.classify(opObserve, err)
	}
	o := providers.Observation{Endpoints: make([]providers.Endpoint, len(r.Endpoints))}
	mine := -1
	for i, name := range r.Endpoints {
		o.Endpoints[i] = providers.Endpoint{Name: name, Missing: true}
		if name == t.directory {
			mine = i
		}
	}
	d, err := t.open(opObserve)
	if err != nil {
		if t.missingDirectory(err) {
			return o, nil
		}
		return providers.Observation{}, err
	}
	defer d.close()
	if err := d.checkControl(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return providers.Observation{}, t.classify(opObserve, err)
	}
	s, err := t.look(d)
	if err != nil {
		return providers.Observation{}, t.classify(opObserve, err)
	}
	remotes, err := t.remotes(d, r, s)
	if err != nil {
		return providers.Observation{}, t.classify(opObserve, err)
	}
	endpoint := providers.Endpoint{Name: t.directory, ID: t.directory, Problem: s.problem}
	if s.problem == "" {
		endpoint.Serves = s.handle()
	}
	if mine >= 0 {
		o.Endpoints[mine] = endpoint
		if s.fault != nil && s.leaf != nil {
			t.log.InfoContext(ctx, "files are not as wanted", "reason", s.fault)
		}
	}
	o.Remotes = t.serving(remotes, s, endpoint.Serves)
	return o, nil
}

// place is what stands at the name of a wanted file.
type place int

const (
	absent  place = iota
	ours          // our link
	plain         // a file that somebody put there
	foreign       // a link of somebody else
)

// state is what the directory serves.
type state struct {
	reading
	id     certs.Fingerprint // of the leaf; zero where there is none
	force  *generation       // what the current link leads to; nil for nothing
	places map[string]place
	files  map[string][]byte
	// fault is why that is not as wanted; nil where it is.
	fault error
	// problem is why no certificate can be put there at all.
	problem string
	pending bool
}

func (s *state) handle() providers.Handle {
	switch {
	case s.leaf == nil:
		return ""
	case s.fault != nil:
		return providers.Handle(unsettled + s.id.String())
	}
	return providers.Handle(s.id.String())
}

// stray reports whether files that are no links of ours stand where links belong.
func (s *state) stray() bool {
	for _, p := range s.places {
		if p == plain || p == foreign {
			return true
		}
	}
	return false
}

// linked reports whether all files are links of ours.
func (s *state) linked(t *Target) bool {
	for _, f := range t.files {
		if s.places[f.name] != ours {
			return false
		}
	}
	return true
}

// look reads what is served, through whatever stands in the directory.
func (t *Target) look(d *disk) (*state, error) {
	s := &state{places: map[string]place{}, files: map[string][]byte{}}
	own, err := t.ownership()
	if err != nil {
		return nil, err
	}
	id, err := d.inForce()
	if err != nil {
		return nil, err
	}
	if !id.IsZero() {
		if s.force, err = t.examine(d, id); err != nil {
			return nil, err
		}
	}
	for _, f := range t.files {
		info, err := t.lookAt(d, s, f)
		if err != nil {
			return nil, err
		}
		if info != nil {
			if text := t.differs(own, f, info); text != "" {
				s.blame(errors.New(text))
			}
		}
	}
	s.reading = t.read(s.files)
	if s.leaf != nil {
		s.id = certs.FingerprintOf(s.leaf)
	}
	if s.pending, err = d.exists(pending); err != nil {
		return nil, err
	}
	t.judge(s)
	return s, nil
}

func (s *state) blame(err error) { s.fault = errors.Join(s.fault, err) }

// judge says what of the whole is not as wanted. A directory that somebody else keeps
// is fine as it is, as long as it serves one certificate with all that belongs to it.
func (t *Target) judge(s *state) {
	if s.err != nil {
		s.blame(s.err)
	}
	for _, f := range s.missing {
		s.blame(fmt.Errorf("%s is not there", f.name))
	}
	if s.pending {
		s.blame(errors.New("the service was not told to reload yet"))
	}
	switch {
	case s.linked(t):
		if s.force == nil {
			s.blame(errors.New("no generation is in force"))
		} else if s.force.fault != nil {
			s.blame(s.force.fault)
		} else if s.force.id != s.id {
			s.blame(errors.New("the generation in force holds another certificate than its name says"))
		}
	case slices.ContainsFunc(t.files, func(f wantedFile) bool { return s.places[f.name] == ours }):
		s.blame(errors.New("some files are no links into the generation in force"))
	}
}

// lookAt reads one file and returns what is known of it; nil for nothing.
func (t *Target) lookAt(d *disk, s *state, f wantedFile) (fs.FileInfo, error) {
	info, err := d.root.Lstat(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	switch {
	case info.Mode().IsRegular():
		s.places[f.name] = plain
		data, _, err := d.readFile(f.name)
		if errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if err == nil {
			s.files[f.name] = data
		}
		return info, nil
	case info.Mode()&fs.ModeSymlink == 0:
		s.problem = fmt.Sprintf("%s is neither a file nor a link; remove it", d.beside(f.name))
		return nil, nil
	}
	target, err := d.root.Readlink(f.name)
	if err != nil {
		return nil, err
	}
	if target == linkTo(f) {
		s.places[f.name] = ours
		if s.force == nil {
			return nil, nil
		}
		if data, ok := s.force.files[f.name]; ok {
			s.files[f.name] = data
		}
		return s.force.infos[f.name], nil
	}
	return t.lookThrough(d, s, f, info)
}

// lookThrough follows somebody else's link, as the service does. Where it leads is not
// touched.
func (t *Target) lookThrough(d *disk, s *state, f wantedFile, link fs.FileInfo) (fs.FileInfo, error) {
	if uid, _ := ownerOf(link); !trusted(uid) {
		return nil, refuse("the link %s belongs to user %d; want root or user %d", d.beside(f.name), uid, os.Geteuid())
	}
	s.places[f.name] = foreign
	data, err := certs.ReadFile(d.beside(f.name))
	if err == nil {
		s.files[f.name] = data
	}
	info, err := os.Stat(d.beside(f.name))
	if err != nil {
		return nil, nil //nolint:nilerr // it leads nowhere: the file counts as missing
	}
	return info, nil
}

func linkTo(f wantedFile) string { return path.Join(current, f.name) }

// remotes are the generations that matter: the owner's, the one in force and those
// that the caller knows.
func (t *Target) remotes(d *disk, r providers.Request, s *state) ([]providers.Remote, error) {
	ids, err := d.generations()
	if err != nil {
		return nil, err
	}
	var remotes []providers.Remote
	for _, id := range ids {
		g := s.force
		if g == nil || g.id != id {
			if g, err = t.examine(d, id); err != nil {
				return nil, err
			}
		}
		if g == nil {
			continue // retired just now
		}
		remote := g.remote(r.Owner)
		if s.force == g && g.fault == nil && s.err != nil {
			remote.Fingerprint = certs.Fingerprint{} // a PKCS #12 file that the password no longer opens
		}
		if s.force == g && slices.ContainsFunc(t.files, func(f wantedFile) bool { return s.places[f.name] == ours }) {
			remote.InUse = []string{t.directory}
		}
		if remote.Owned || id == s.id || s.force == g || slices.Contains(r.Known, remote.Handle) {
			remotes = append(remotes, remote)
		}
	}
	return remotes, nil
}

// serving adds what is served to the remotes, and to what is served where.
func (t *Target) serving(remotes []providers.Remote, s *state, served providers.Handle) []providers.Remote {
	if s.leaf == nil {
		return remotes
	}
	own := providers.Handle(s.id.String())
	i := slices.IndexFunc(remotes, func(r providers.Remote) bool { return r.Handle == own })
	if i < 0 && t.adoptable(s) {
		// Its files are there, if not as a generation: Activate makes them one.
		remotes = append(remotes, remoteOf(own, s.leaf, s.id))
		i = len(remotes) - 1
	}
	if i >= 0 {
		remotes[i].InUse = []string{t.directory}
	}
	if served != own && served != "" {
		r := remoteOf(served, s.leaf, certs.Fingerprint{})
		r.InUse = []string{t.directory}
		remotes = append(remotes, r)
	}
	return remotes
}

func remoteOf(h providers.Handle, leaf *x509.Certificate, f certs.Fingerprint) providers.Remote {
	return providers.Remote{Handle: h, Fingerprint: f, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
}
