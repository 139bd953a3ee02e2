package certs

import (
	"crypto/sha256"
	"maps"
	"path/filepath"
	"slices"
)

// Set assembles pairs from the facts of many files and keeps up with changes of
// single files: a change costs as much as the certificates it touches. The
// result depends on the files only, never on the order in which they came.
//
// A Set is not safe for concurrent use.
type Set struct {
	files map[string]*FileFacts
	// keys finds what belongs together whatever the files are called.
	keys map[Hash]*keyGroup
	// leaves and authorities hold each distinct certificate once, by
	// fingerprint (nameless leaves: by fingerprint and name).
	leaves, authorities map[Fingerprint]*entry
	subjects            map[Hash][]*entry // authorities by subject
	groups              map[string]*group // by certificate name
	// wants remembers who looked for an issuer among all files, so that a new
	// intermediate completes the chains that miss it.
	wants     map[Hash]map[string]struct{}
	unmatched map[string]int // directory -> keys that belong to no certificate
	dirty     map[string]struct{}
	// moved are the public keys of many certificates of which key files came or went since
	// the last Update, with their directories.
	moved   map[Hash]map[string]struct{}
	keyless map[string]struct{} // names of groups with leaves to complain of
	// fresh holds the pairs of the last Update until somebody takes them: kept
	// for good they would be half of the memory.
	fresh map[string]*Pair
}

// keyGroup is everything that has one public key.
type keyGroup struct {
	holders      // the files with the private key
	certificates []*entry
	// first was the lowest path of the files when moved was last looked through.
	first string
}

// entry is one distinct certificate and the files that hold it.
type entry struct {
	*CertificateFacts
	id    Fingerprint
	name  string
	chain bool
	// place in the certificates of its key.
	place int
	holders
}

// group is all versions of one certificate.
type group struct {
	entries []*entry
	wants   []Hash
	keyless []*entry
}

// Assembly is what the files say of one certificate name.
type Assembly struct {
	// Pair is the newest complete version; nil if there is none.
	Pair *Pair
	// Problem is why a newer (or the only) leaf of that name has no pair; nil if
	// there is none such.
	Problem *Problem
}

// NewSet returns an empty Set.
func NewSet() *Set {
	return &Set{
		files:       make(map[string]*FileFacts),
		keys:        make(map[Hash]*keyGroup),
		leaves:      make(map[Fingerprint]*entry),
		authorities: make(map[Fingerprint]*entry),
		subjects:    make(map[Hash][]*entry),
		groups:      make(map[string]*group),
		wants:       make(map[Hash]map[string]struct{}),
		unmatched:   make(map[string]int),
		dirty:       make(map[string]struct{}),
		moved:       make(map[Hash]map[string]struct{}),
		keyless:     make(map[string]struct{}),
	}
}

// Put adds a file or replaces what was known of its path.
func (s *Set) Put(f *FileFacts) {
	s.Remove(f.Path)
	if f.Empty() {
		return
	}
	s.files[f.Path] = f
	if len(f.Problems) > 0 {
		return
	}
	for i, at := range f.Certificates {
		if !f.repeats(i) {
			s.addCertificate(f, at)
		}
	}
	for i, key := range f.Keys {
		if !f.repeatsKey(i) {
			s.addKey(f, key.PublicKey)
		}
	}
}

// Remove forgets a file.
func (s *Set) Remove(path string) {
	f := s.files[path]
	if f == nil {
		return
	}
	delete(s.files, path)
	if len(f.Problems) > 0 {
		return
	}
	for i, at := range f.Certificates {
		if !f.repeats(i) {
			s.removeCertificate(f, at)
		}
	}
	for i, key := range f.Keys {
		if !f.repeatsKey(i) {
			s.removeKey(f, key.PublicKey)
		}
	}
}

// File returns what is known of a path; nil if nothing.
func (s *Set) File(path string) *FileFacts { return s.files[path] }

// HasLeaf reports whether a file holds the leaf with this fingerprint and a name of its own.
func (s *Set) HasLeaf(f Fingerprint) bool { return s.leaves[f] != nil }

// repeats reports whether the file has that certificate, in that role, before.
func (f *FileFacts) repeats(i int) bool {
	return slices.ContainsFunc(f.Certificates[:i], func(at CertificateAt) bool {
		return at.Info.Fingerprint == f.Certificates[i].Info.Fingerprint && at.Chain == f.Certificates[i].Chain
	})
}

func (f *FileFacts) repeatsKey(i int) bool {
	return slices.ContainsFunc(f.Keys[:i], func(key KeyAt) bool { return key.PublicKey == f.Keys[i].PublicKey })
}

// entryID gives a leaf without any name one entry for each name that files give
// it.
func entryID(at CertificateAt, name string) Fingerprint {
	id := at.Info.Fingerprint
	if at.Name == "" {
		id = sha256.Sum256(append(id[:], name...))
	}
	return id
}

func (s *Set) table(chain bool) map[Fingerprint]*entry {
	if chain {
		return s.authorities
	}
	return s.leaves
}

func (s *Set) addCertificate(f *FileFacts, at CertificateAt) {
	name := nameIn(at.CertificateFacts, f.Path)
	id := entryID(at, name)
	e := s.table(at.Chain)[id]
	if e == nil {
		e = &entry{CertificateFacts: at.CertificateFacts, id: id, name: name, chain: at.Chain}
		s.table(at.Chain)[id] = e
		s.link(e)
	}
	changed := e.add(f)
	if !e.chain {
		s.dirty[e.name] = struct{}{}
		return
	}
	if group := s.keys[e.PublicKey]; group != nil && len(group.files) > 0 {
		s.dirty[e.name] = struct{}{}
	}
	if changed || len(e.files) == 1 {
		s.touchWanting(e.Subject)
	}
}

// link enters a new entry everywhere.
func (s *Set) link(e *entry) {
	g := s.groups[e.name]
	if g == nil {
		g = &group{}
		s.groups[e.name] = g
	}
	g.entries = append(g.entries, e)
	k := s.keyGroup(e.PublicKey)
	e.place = len(k.certificates)
	k.certificates = append(k.certificates, e)
	if len(k.certificates) == 1 {
		s.countUnmatched(k, -1)
	}
	if e.chain {
		s.subjects[e.Subject] = append(s.subjects[e.Subject], e)
	}
}

func (s *Set) removeCertificate(f *FileFacts, at CertificateAt) {
	id := entryID(at, nameIn(at.CertificateFacts, f.Path))
	e := s.table(at.Chain)[id]
	changed := e.remove(f)
	if !e.chain {
		s.dirty[e.name] = struct{}{}
	} else {
		if len(s.keys[e.PublicKey].files) > 0 {
			s.dirty[e.name] = struct{}{}
		}
		if changed || len(e.files) == 0 {
			s.touchWanting(e.Subject)
		}
	}
	if len(e.files) == 0 {
		s.unlink(e)
	}
}

func (s *Set) unlink(e *entry) {
	delete(s.table(e.chain), e.id)
	g := s.groups[e.name]
	g.entries = without(g.entries, e)
	s.dirty[e.name] = struct{}{} // so that an empty group is dropped
	k := s.keys[e.PublicKey]
	last := k.certificates[len(k.certificates)-1]
	k.certificates[e.place], last.place = last, e.place
	k.certificates[len(k.certificates)-1] = nil // let the collector have it
	k.certificates = k.certificates[:len(k.certificates)-1]
	if len(k.certificates) == 0 {
		s.countUnmatched(k, +1)
	}
	s.dropKeyGroup(e.PublicKey)
	if e.chain {
		rest := without(s.subjects[e.Subject], e)
		if len(rest) == 0 {
			delete(s.subjects, e.Subject)
		} else {
			s.subjects[e.Subject] = rest
		}
	}
}

func (s *Set) keyGroup(public Hash) *keyGroup {
	k := s.keys[public]
	if k == nil {
		k = &keyGroup{}
		s.keys[public] = k
	}
	return k
}

func (s *Set) dropKeyGroup(public Hash) {
	if k := s.keys[public]; len(k.files) == 0 && len(k.certificates) == 0 {
		delete(s.keys, public)
	}
}

func (s *Set) addKey(f *FileFacts, public Hash) {
	k := s.keyGroup(public)
	k.add(f)
	if len(k.certificates) == 0 {
		s.unmatched[filepath.Dir(f.Path)]++
	}
	s.touchCertificates(k, public, f)
}

func (s *Set) removeKey(f *FileFacts, public Hash) {
	k := s.keys[public]
	k.remove(f)
	if len(k.certificates) == 0 {
		s.decreaseUnmatched(filepath.Dir(f.Path))
	}
	s.touchCertificates(k, public, f)
	s.dropKeyGroup(public)
}

// countUnmatched is called when the group's first certificate came (-1) or its
// last went (+1).
func (s *Set) countUnmatched(k *keyGroup, change int) {
	for _, f := range k.files {
		if change > 0 {
			s.unmatched[filepath.Dir(f.Path)]++
		} else {
			s.decreaseUnmatched(filepath.Dir(f.Path))
		}
	}
}

func (s *Set) decreaseUnmatched(directory string) {
	if s.unmatched[directory]--; s.unmatched[directory] == 0 {
		delete(s.unmatched, directory)
	}
}

// touchCertificates is called when a file with the group's key came or went. Of many
// certificates it is found out at the next Update, once, which of them that matters to.
func (s *Set) touchCertificates(k *keyGroup, public Hash, f *FileFacts) {
	if len(k.certificates) > few {
		if s.moved[public] == nil {
			s.moved[public] = make(map[string]struct{})
		}
		s.moved[public][filepath.Dir(f.Path)] = struct{}{}
		return
	}
	for _, e := range k.certificates {
		s.dirty[e.name] = struct{}{}
	}
}

// touchMoved marks the certificates that key files which came or went may matter to: those
// that are in the same directory, or all, if it is another file now that is the last resort.
func (s *Set) touchMoved() {
	for public, directories := range s.moved {
		k := s.keys[public]
		if k == nil {
			continue
		}
		first := ""
		if len(k.files) > 0 {
			first, _ = k.firstFile("")
		}
		for _, e := range k.certificates {
			if first != k.first || slices.ContainsFunc(e.files, func(f *FileFacts) bool {
				_, moved := directories[filepath.Dir(f.Path)]
				return moved
			}) {
				s.dirty[e.name] = struct{}{}
			}
		}
		k.first = first
	}
	clear(s.moved)
}

func (s *Set) touchWanting(subject Hash) { maps.Copy(s.dirty, s.wants[subject]) }

// HasWaitingKey reports whether a readable file holds a private key to which no
// certificate belongs, by its public key.
func (s *Set) HasWaitingKey(public Hash) bool {
	k := s.keys[public]
	return k != nil && len(k.files) > 0 && len(k.certificates) == 0
}

func without[T comparable](list []T, element T) []T {
	i := slices.Index(list, element)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	list[i] = list[last]
	var none T
	list[last] = none // let the collector have it
	return list[:last]
}
