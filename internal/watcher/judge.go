package watcher

import (
	"maps"
	"slices"

	"github.com/rotatord/rotatord/internal/certs"
)

// judge decides what is in force: it compares what the files say now with the
// last good version, which a broken or half-finished replacement must not end.
type judge struct {
	// marked are the names of certificates that have a Problem.
	marked map[string]struct{}
	// reported are the leaves' names in quarantined files, at the last look.
	reported map[string]struct{}
	// postponed are those that an early look saw change: the next one judges them again.
	postponed map[string]struct{}
}

func newJudge() judge {
	return judge{marked: make(map[string]struct{}), reported: make(map[string]struct{}), postponed: make(map[string]struct{})}
}

// certificates returns the certificates after a look and the names of those that
// changed. It returns before itself if none did.
func (j *judge) certificates(s *scanner, before map[string]*Certificate) (map[string]*Certificate, []string) {
	broken := make(map[string][]*certs.FileFacts)
	for _, facts := range s.quarantined {
		for _, name := range facts.Names() {
			broken[name] = append(broken[name], facts)
		}
	}
	names := make(map[string]struct{})
	for _, name := range s.set.Update() {
		names[name] = struct{}{}
	}
	maps.Copy(names, j.postponed)
	clear(j.postponed)
	maps.Copy(names, j.marked)
	maps.Copy(names, j.reported) // what was broken may be so no longer
	clear(j.reported)
	for name := range broken {
		names[name], j.reported[name] = struct{}{}, struct{}{}
	}
	var after map[string]*Certificate
	var changed []string
	for name := range names {
		old := before[name]
		now := decide(s, old, s.set.Assembly(name), broken[name])
		if sameCertificate(old, now) {
			continue
		}
		if after == nil {
			after = maps.Clone(before)
			if after == nil {
				after = make(map[string]*Certificate, len(names))
			}
		}
		changed = append(changed, name)
		delete(j.marked, name)
		if now == nil {
			delete(after, name)
			continue
		}
		after[name] = now
		if now.Problem != nil {
			j.marked[name] = struct{}{}
		}
	}
	if after == nil {
		return before, nil
	}
	slices.Sort(changed)
	return after, changed
}

// early is certificates for a look at what has not settled yet: only what cannot be the middle
// of a replacement is taken.
func (j *judge) early(s *scanner, before map[string]*Certificate) (map[string]*Certificate, []string) {
	after := before
	var changed []string
	for _, name := range s.set.Update() {
		j.postponed[name] = struct{}{}
		old, found := before[name], s.set.Assembly(name)
		if old == nil || old.Problem != nil || found.Pair == nil || !s.replaced(&old.Pair, found.Pair) || problemOf(s, &Certificate{Pair: *found.Pair}, found, nil) != nil {
			continue
		}
		if len(changed) == 0 {
			after = maps.Clone(before)
		}
		after[name] = &Certificate{Pair: *found.Pair, Since: s.now, Older: len(found.Pair.Older)}
		changed = append(changed, name)
	}
	slices.Sort(changed)
	return after, changed
}

// replaced reports whether the files of a newer version have taken the place of all those of
// the one in force: every file of the pair was replaced just now, no file holds the old leaf
// any more, and the chain is the one that was there before. What still lacks a file, or is
// written in pieces, fails one of the three.
func (s *scanner) replaced(old, now *certs.Pair) bool {
	if !now.Info.NewerThan(*old.Info) || now.Chain != old.Chain || len(old.Info.Names) == 0 || s.set.HasLeaf(old.Info.Fingerprint) {
		return false
	}
	for _, path := range slices.Concat([]string{now.LeafFile, now.KeyFile}, now.ChainFiles, old.ChainFiles) {
		if _, ok := s.fresh[path]; !ok {
			return false
		}
	}
	return true
}

// decide returns what is in force for one name: the complete pair on disk, or the
// old one with what is wrong, or nil.
func decide(s *scanner, old *Certificate, found certs.Assembly, broken []*certs.FileFacts) *Certificate {
	problem := problemOf(s, old, found, broken)
	if pair := found.Pair; pair != nil && (old == nil || problem == nil || !old.Pair.Info.NewerThan(*pair.Info)) {
		now := &Certificate{Pair: *pair, Since: s.now, Older: len(pair.Older)}
		if old != nil && old.Pair.Info.Fingerprint == pair.Info.Fingerprint {
			now.Since = old.Since
		}
		// What broke a file of the version before does not matter to a newer.
		now.Problem = problemOf(s, now, found, broken)
		return now
	}
	if old == nil || problem == nil {
		return nil // nothing ever, or everything of it is gone
	}
	now := *old
	now.Problem = problem
	return &now
}

// problemOf says what is wrong now with a certificate: a file of its last good
// pair, a newer leaf without key, a newer leaf in a broken file, or a key that
// has lost its leaf.
func problemOf(s *scanner, last *Certificate, found certs.Assembly, broken []*certs.FileFacts) *certs.Problem {
	if last != nil {
		for _, path := range append([]string{last.Pair.LeafFile, last.Pair.KeyFile}, last.Pair.ChainFiles...) {
			if facts := s.quarantined[path]; facts != nil {
				return &facts.Problems[0]
			}
		}
	}
	if found.Problem != nil {
		return found.Problem
	}
	if last == nil {
		return nil
	}
	var first *certs.Problem
	for _, facts := range broken {
		for _, at := range facts.Certificates {
			if !at.Chain && at.Info.NewerThan(*last.Pair.Info) && (first == nil || facts.Path < first.Path) {
				first = &facts.Problems[0]
			}
		}
	}
	if first == nil && s.set.HasWaitingKey(last.Pair.PublicKey) {
		first = &certs.Problem{
			Reason: certs.NoCertificate, Path: last.Pair.KeyFile,
			Detail: last.Pair.Certificate + ": the certificate of this private key has gone",
		}
	}
	return first
}

// isRenamed reports whether one of the changed certificates came, went, or has other names or
// another issuer.
func isRenamed(before, after map[string]*Certificate, changed []string) bool {
	return slices.ContainsFunc(changed, func(name string) bool {
		a, b := before[name], after[name]
		return a == nil || b == nil || !slices.Equal(a.Pair.Info.Names, b.Pair.Info.Names) || a.Pair.Info.IssuerCN != b.Pair.Info.IssuerCN
	})
}

func sameCertificate(a, b *Certificate) bool {
	if a == nil || b == nil {
		return a == b
	}
	sameProblem := a.Problem == nil && b.Problem == nil ||
		a.Problem != nil && b.Problem != nil && *a.Problem == *b.Problem
	return sameProblem && samePair(&a.Pair, &b.Pair) && a.Older == b.Older
}

// samePair compares all that a pair says: where it is counts too, as Load goes
// there.
func samePair(a, b *certs.Pair) bool {
	return a.Info.Fingerprint == b.Info.Fingerprint && a.LeafFile == b.LeafFile && a.KeyFile == b.KeyFile &&
		a.Chain == b.Chain && slices.Equal(a.ChainFiles, b.ChainFiles)
}
