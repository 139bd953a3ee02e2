package file

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// metadataName stands in every generation that rotatord wrote.
const metadataName = control + "-generation"

// metadata says what was written, so that an edit is noticed, and for whom.
type metadata struct {
	Version int `json:"version"`
	// Name is providers.CertificateName of the owner; empty for a copy of what
	// somebody else had put into the directory.
	Name        string            `json:"name,omitempty"`
	Fingerprint certs.Fingerprint `json:"fingerprint"`
	NotBefore   time.Time         `json:"not_before"`
	NotAfter    time.Time         `json:"not_after"`
	Created     time.Time         `json:"created"`
	// Files are the SHA-256 of each file's content, by name.
	Files map[string]string `json:"files"`
}

// generation is one directory of files as found.
type generation struct {
	id    certs.Fingerprint
	meta  metadata
	wrote bool // by rotatord: there is metadata
	files map[string][]byte
	infos map[string]fs.FileInfo
	// fault is why the generation may not be put in force; nil where it may.
	fault error
}

func folder(id certs.Fingerprint) string { return path.Join(control, id.String()) }

// generationID reads the name of a generation's directory.
func generationID(name string) (certs.Fingerprint, bool) {
	id, err := certs.ParseFingerprint(name)
	return id, err == nil && id.String() == name
}

// generations lists what is in the control directory, sorted.
func (d *disk) generations() ([]certs.Fingerprint, error) {
	f, err := d.root.Open(control)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var ids []certs.Fingerprint
	for _, name := range names {
		if id, ok := generationID(name); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// examine reads a generation and judges it. It returns nil where there is none.
func (t *Target) examine(d *disk, id certs.Fingerprint) (*generation, error) {
	info, err := d.root.Lstat(folder(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g := &generation{id: id, files: map[string][]byte{}, infos: map[string]fs.FileInfo{}}
	if !info.IsDir() {
		g.fault = errors.New("is no directory")
		return g, nil
	}
	data, _, err := d.readFile(path.Join(folder(id), metadataName))
	if err == nil && json.Unmarshal(data, &g.meta) == nil && g.meta.Version == 1 && g.meta.Fingerprint == id {
		g.wrote = true
	} else {
		g.meta = metadata{}
	}
	for _, f := range t.files {
		data, info, err := d.regular(path.Join(folder(id), f.name))
		if err != nil {
			g.fault = errors.Join(g.fault, fmt.Errorf("%s cannot be read: %w", f.name, err))
			continue
		}
		g.files[f.name], g.infos[f.name] = data, info
		if g.wrote && g.meta.Files[f.name] != digest(data) {
			g.fault = errors.Join(g.fault, fmt.Errorf("%s was edited", f.name))
		}
	}
	if g.fault == nil && !g.wrote {
		if r := t.read(g.files); r.err != nil {
			g.fault = r.err
		} else if certs.FingerprintOf(r.leaf) != id {
			g.fault = errors.New("holds another certificate than its name says")
		} else {
			g.meta.NotBefore, g.meta.NotAfter = r.leaf.NotBefore, r.leaf.NotAfter
		}
	}
	return g, nil
}

// regular reads a file that is no link.
func (d *disk) regular(name string) ([]byte, fs.FileInfo, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, info, fmt.Errorf("%s is no regular file", name)
	}
	return d.readFile(name)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// owned reports whether rotatord made the generation for that owner.
func (g *generation) owned(o providers.Owner) bool { return g.wrote && providers.Owns(o, g.meta.Name) }

// strange reports whether somebody else made a directory of that name, with another
// certificate in it.
func (g *generation) strange(r reading) bool {
	return !g.wrote && r.leaf != nil && certs.FingerprintOf(r.leaf) != g.id
}

// remote is the generation as the engine sees it. Without a fingerprint it is not put
// in force as it is, but staged again.
func (g *generation) remote(o providers.Owner) providers.Remote {
	r := providers.Remote{
		Handle: providers.Handle(g.id.String()), Name: g.meta.Name, Created: g.meta.Created,
		NotBefore: g.meta.NotBefore, NotAfter: g.meta.NotAfter, Owned: g.owned(o),
	}
	if g.fault == nil {
		r.Fingerprint = g.id
	}
	return r
}

// inForce returns the generation that the current link leads to; zero for none, or
// where it leads elsewhere.
func (d *disk) inForce() (certs.Fingerprint, error) {
	target, err := d.root.Readlink(current)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL) {
		return certs.Fingerprint{}, nil
	}
	if err != nil {
		return certs.Fingerprint{}, err
	}
	id, _ := generationID(target)
	return id, nil
}

// create writes a generation beside the others and puts it in its place when it is
// complete. A failure after that says that the outcome is unknown.
func (t *Target) create(d *disk, op string, m metadata, files map[string][]byte) error {
	own, err := t.ownership()
	if err != nil {
		return err
	}
	if err := d.do("mkdir "+staging, func() error { return d.root.Mkdir(staging, 0o700) }); err != nil {
		return err
	}
	err = t.fill(d, own, m, files)
	if err == nil {
		err = d.rename(staging, folder(m.Fingerprint))
	}
	if err != nil {
		// What cannot be removed now is removed by the next who gets the lock.
		_ = d.removeAll(staging)
		return err
	}
	if err := d.sync(control); err != nil {
		return unknownOutcome(op, err)
	}
	return nil
}

func unknownOutcome(op string, err error) error {
	return &providers.Error{Kind: providers.KindUnknownOutcome, Service: service, Op: op, Message: "it is done, but may not survive a power cut", Err: err}
}

func (t *Target) fill(d *disk, own ownership, m metadata, files map[string][]byte) error {
	for _, f := range t.files {
		name := path.Join(staging, f.name)
		if err := d.write(name, files[f.name]); err != nil {
			return err
		}
		if _, err := t.enforce(d, own, f, name); err != nil {
			return err
		}
	}
	data, err := describe(m, files)
	if err != nil {
		return err
	}
	if err := d.write(path.Join(staging, metadataName), data); err != nil {
		return err
	}
	if err := d.chmod(staging, controlMode); err != nil {
		return err
	}
	return d.sync(staging)
}

// describe writes the metadata of files.
func describe(m metadata, files map[string][]byte) ([]byte, error) {
	m.Version, m.Files = 1, make(map[string]string, len(files))
	for name, data := range files {
		m.Files[name] = digest(data)
	}
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}

// ownership is whom files belong to; -1 where that is not enforced.
type ownership struct{ uid, gid int }

// ownership looks the names up each time: a package may make its user later.
func (t *Target) ownership() (ownership, error) {
	own := ownership{-1, -1}
	var err error
	if t.owner != "" {
		own.uid, err = number(t.owner, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if err != nil {
			return own, fail(providers.KindInvalid, "look up owner", "this host has no user %q", t.owner)
		}
	}
	if t.group != "" {
		own.gid, err = number(t.group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if err != nil {
			return own, fail(providers.KindInvalid, "look up group", "this host has no group %q", t.group)
		}
	}
	return own, nil
}

func number(name string, lookup func(string) (string, error)) (int, error) {
	if strings.Trim(name, "0123456789") != "" {
		var err error
		if name, err = lookup(name); err != nil {
			return 0, err
		}
	}
	id, err := strconv.ParseUint(name, 10, 31)
	return int(id), err
}

// differs says in words how a file is not owned or not protected as wanted; "" where
// it is.
func (t *Target) differs(own ownership, f wantedFile, info fs.FileInfo) string {
	uid, gid := ownerOf(info)
	switch {
	case own.uid >= 0 && int(uid) != own.uid:
		return fmt.Sprintf("%s belongs to user %d, not %d", f.name, uid, own.uid)
	case own.gid >= 0 && int(gid) != own.gid:
		return fmt.Sprintf("%s belongs to group %d, not %d", f.name, gid, own.gid)
	case info.Mode() != t.modeOf(f.form):
		return fmt.Sprintf("%s has mode %#o, not %#o", f.name, info.Mode().Perm(), t.modeOf(f.form))
	}
	return ""
}

// enforce gives a file of ours its owner and mode, and tells whether it had others.
func (t *Target) enforce(d *disk, own ownership, f wantedFile, name string) (changed bool, err error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return false, err
	}
	if t.differs(own, f, info) == "" {
		return false, nil
	}
	uid, gid := ownerOf(info)
	if own.uid >= 0 && int(uid) != own.uid || own.gid >= 0 && int(gid) != own.gid {
		if err := d.chown(name, own.uid, own.gid); err != nil {
			return true, err
		}
	}
	return true, d.chmod(name, t.modeOf(f.form))
}

// enforceAll does it for a generation.
func (t *Target) enforceAll(d *disk, g *generation) error {
	own, err := t.ownership()
	if err != nil {
		return err
	}
	changed := false
	for _, f := range t.files {
		one, err := t.enforce(d, own, f, path.Join(folder(g.id), f.name))
		if err != nil {
			return err
		}
		changed = changed || one
	}
	if info, err := d.root.Stat(folder(g.id)); err == nil && info.Mode().Perm() != controlMode {
		return d.chmod(folder(g.id), controlMode)
	}
	if !changed {
		return nil
	}
	return d.sync(folder(g.id))
}
