package certs

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Pair says where a complete bundle is on disk: a leaf, its key and its chain.
type Pair struct {
	// Certificate is the stable name, see PrimaryName.
	Certificate string `json:"certificate"`
	// Info is what is known of the leaf. It is shared, and held once however many keep it: do
	// not write through it.
	Info *Info `json:"info"`
	// LeafFile and KeyFile may be the same.
	LeafFile string `json:"leaf_file"`
	KeyFile  string `json:"key_file"`
	// ChainFiles are the further files that complete the chain, in its order.
	ChainFiles []string `json:"chain_files,omitempty"`
	// ChainLength counts the intermediates that names and key ids link; LoadPair
	// leaves out those whose signature does not verify.
	ChainLength int `json:"chain_length"`
	// Intermediates are those, the leaf's issuer first. They are shared: do not write through
	// them.
	Intermediates []*CertificateFacts `json:"-"`
	// Chain is a hash over those intermediates; zero for none.
	Chain Hash `json:"-"`
	// PublicKey is the hash of the leaf's public key.
	PublicKey Hash `json:"-"`
	// IsCA says that the leaf is a CA certificate, which a server's
	// certificate is only where it signed itself.
	IsCA bool `json:"is_ca,omitempty"`
	// Older are the complete, older versions in the same files, newest first.
	Older []Info `json:"older,omitempty"`
}

// maxChain bounds the chain's length; no public one is longer than three.
const maxChain = 10

// Assemble matches keys to leaves over all files, whatever they are called, and
// completes chains. Of several complete versions of a certificate it returns
// the newest. Pairs are sorted by name, problems by path. Pure.
func Assemble(files []*FileFacts) ([]Pair, []Problem) {
	set := NewSet()
	for _, f := range files {
		set.Put(f)
	}
	var pairs []Pair
	for _, name := range set.Update() {
		if assembly := set.Assembly(name); assembly.Pair != nil {
			pairs = append(pairs, *assembly.Pair)
		}
	}
	problems := set.Problems()
	for _, path := range slices.Sorted(maps.Keys(set.files)) {
		problems = append(problems, set.files[path].Problems...)
	}
	SortProblems(problems)
	return pairs, problems
}

// SortProblems sorts by path, then by block, then by reason.
func SortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Block, b.Block), cmp.Compare(a.Reason, b.Reason))
	})
}

// Update assembles anew what the changes since the last Update touched and
// returns those names, sorted.
func (s *Set) Update() []string {
	s.touchMoved()
	names := slices.Sorted(maps.Keys(s.dirty))
	s.dirty = make(map[string]struct{}) // a first scan's table would stay large
	s.fresh = make(map[string]*Pair)
	for _, name := range names {
		if pair := s.assemble(name); pair != nil {
			s.fresh[name] = pair
		}
	}
	return names
}

// Assembly returns what the files said of a name at the last Update; the zero
// Assembly if there is nothing of it. It belongs to the caller. There must have
// been no change since that Update.
func (s *Set) Assembly(name string) Assembly {
	g := s.groups[name]
	if g == nil {
		return Assembly{}
	}
	assembly := Assembly{Pair: s.fresh[name]}
	if assembly.Pair != nil {
		delete(s.fresh, name)
		if len(s.fresh) == 0 {
			s.fresh = nil // with its table
		}
	} else {
		assembly.Pair = s.assemble(name) // asked again
	}
	if len(g.keyless) > 0 {
		assembly.Problem = new(s.complaint(g.keyless[0]))
	}
	return assembly
}

// Problems returns the leaves that have no key, as of the last Update, in no
// order. The problems of single files are in their FileFacts.
func (s *Set) Problems() []Problem {
	var problems []Problem
	for name := range s.keyless {
		for _, e := range s.groups[name].keyless {
			problems = append(problems, s.complaint(e))
		}
	}
	return problems
}

// complaint is not stored, because which of its two reasons holds depends on
// other keys of the directory.
func (s *Set) complaint(e *entry) Problem {
	path, _ := e.firstFile("")
	problem := Problem{Reason: NoKey, Path: path, Detail: e.name + ": no private key for this certificate in any file"}
	if s.unmatched[filepath.Dir(path)] > 0 {
		problem.Reason = KeyMismatch
		problem.Detail = e.name + ": the private key in this directory belongs to another certificate"
	}
	for _, at := range s.files[path].Certificates {
		if at.Info.Fingerprint == e.Info.Fingerprint {
			problem.Block = at.Block
			break
		}
	}
	return problem
}

// assemble decides what is in force for one name: the newest complete version,
// or nil.
func (s *Set) assemble(name string) *Pair {
	g := s.groups[name]
	if g == nil {
		delete(s.keyless, name)
		return nil
	}
	s.forgetWants(name, g)
	if len(g.entries) == 0 {
		delete(s.groups, name)
		delete(s.keyless, name)
		return nil
	}
	// Newest first; one certificate may be there as leaf and as chain.
	slices.SortFunc(g.entries, func(a, b *entry) int {
		switch {
		case a.Info.newer(&b.Info):
			return -1
		case b.Info.newer(&a.Info):
			return 1
		case a.chain == b.chain:
			return 0
		case b.chain:
			return -1
		}
		return 1
	})
	var newest *Pair
	g.keyless = nil
	for _, e := range g.entries {
		switch {
		case len(s.keys[e.PublicKey].files) > 0:
			switch {
			case newest == nil:
				newest = s.pair(name, g, e)
			case newest.Info.Fingerprint != e.Info.Fingerprint:
				newest.Older = append(newest.Older, e.Info)
			}
		case !e.chain && newest == nil:
			g.keyless = append(g.keyless, e)
		}
	}
	if len(g.keyless) > 0 {
		s.keyless[name] = struct{}{}
	} else {
		delete(s.keyless, name)
	}
	return newest
}

func (s *Set) forgetWants(name string, g *group) {
	for _, subject := range g.wants {
		delete(s.wants[subject], name)
		if len(s.wants[subject]) == 0 {
			delete(s.wants, subject)
		}
	}
	g.wants = nil
}

// pair chooses the files for a leaf that has a key: the leaf's file should have a
// key beside it, then the longest chain in itself, then the lowest path.
func (s *Set) pair(name string, g *group, e *entry) *Pair {
	keys := &s.keys[e.PublicKey].holders
	var leafFile *FileFacts
	var best, beside int
	for _, f := range e.files {
		near, length := 0, 0
		if len(e.files) > 1 { // else there is nothing to choose
			if keys.in(filepath.Dir(f.Path)) {
				near = 1
			}
			length = ownChainLength(f, e.CertificateFacts)
		}
		order := 1
		if leafFile != nil {
			order = cmp.Or(cmp.Compare(near, beside), cmp.Compare(length, best), strings.Compare(leafFile.Path, f.Path))
		}
		if order > 0 {
			leafFile, best, beside = f, length, near
		}
	}
	pair := &Pair{
		Certificate: name,
		Info:        &e.Info,
		LeafFile:    leafFile.Path,
		KeyFile:     keyFileFor(leafFile, e.PublicKey, keys),
		PublicKey:   e.PublicKey,
		IsCA:        e.IsCA,
	}
	s.completeChain(pair, g, e.CertificateFacts, leafFile)
	return pair
}

// keyFileFor prefers the same file, then the same directory and stem, then the
// same directory, then the lowest path.
func keyFileFor(leafFile *FileFacts, public Hash, keys *holders) string {
	if slices.ContainsFunc(leafFile.Keys, func(key KeyAt) bool { return key.PublicKey == public }) {
		return leafFile.Path
	}
	best := ""
	for _, k := range keys.withStem(stem(leafFile.Path)) {
		if stem(k.Path) == stem(leafFile.Path) && (best == "" || k.Path < best) {
			best = k.Path
		}
	}
	if best == "" {
		best = keys.lowestNear(filepath.Dir(leafFile.Path))
	}
	return best
}

func ownChainLength(f *FileFacts, leaf *CertificateFacts) int {
	length := 0
	for current := leaf; length < maxChain && !current.SelfSigned; length++ {
		next := issuerIn(f, current, leaf)
		if next == nil || next.SelfSigned {
			break
		}
		current = next
	}
	return length
}

// issuerIn finds the issuer among the chain material of one file.
func issuerIn(f *FileFacts, of, leaf *CertificateFacts) *CertificateFacts {
	for _, at := range f.Certificates {
		if at.Chain && of.issuedBy(at.CertificateFacts) && at.Info.Fingerprint != of.Info.Fingerprint &&
			at.Info.Fingerprint != leaf.Info.Fingerprint {
			return at.CertificateFacts
		}
	}
	return nil
}

// completeChain walks from the leaf upwards: its own file first, its directory
// next, all files last. A root ends the walk and is left out.
func (s *Set) completeChain(pair *Pair, g *group, leaf *CertificateFacts, own *FileFacts) {
	var prints []byte
	seen := map[Fingerprint]bool{leaf.Info.Fingerprint: true}
	for current := leaf; pair.ChainLength < maxChain && !current.SelfSigned; {
		next, path := issuerIn(own, current, leaf), ""
		if next == nil {
			next, path = s.issuerAnywhere(pair.Certificate, g, current, filepath.Dir(own.Path))
		}
		if next == nil || next.SelfSigned || seen[next.Info.Fingerprint] {
			break
		}
		seen[next.Info.Fingerprint] = true
		if path != "" && path != own.Path && !slices.Contains(pair.ChainFiles, path) {
			pair.ChainFiles = append(pair.ChainFiles, path)
		}
		prints = append(prints, next.Info.Fingerprint[:]...)
		pair.Intermediates = append(pair.Intermediates, next)
		pair.ChainLength++
		current = next
	}
	if len(prints) > 0 {
		sum := sha256.Sum256(prints)
		pair.Chain = Hash(sum[:16])
	}
}

// issuerAnywhere finds the issuer among all files and notes that the name wants
// it, found or not.
func (s *Set) issuerAnywhere(name string, g *group, of *CertificateFacts, directory string) (*CertificateFacts, string) {
	if !slices.Contains(g.wants, of.Issuer) {
		g.wants = append(g.wants, of.Issuer)
		if s.wants[of.Issuer] == nil {
			s.wants[of.Issuer] = make(map[string]struct{})
		}
		s.wants[of.Issuer][name] = struct{}{}
	}
	var best *entry
	var bestPath string
	var bestNear bool
	for _, candidate := range s.subjects[of.Issuer] {
		if !of.issuedBy(candidate.CertificateFacts) || candidate.Info.Fingerprint == of.Info.Fingerprint {
			continue
		}
		path, near := candidate.firstFile(directory)
		if best == nil || near && !bestNear || near == bestNear && candidate.Info.newer(&best.Info) {
			best, bestPath, bestNear = candidate, path, near
		}
	}
	if best == nil {
		return nil, ""
	}
	return best.CertificateFacts, bestPath
}
