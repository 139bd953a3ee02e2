package main

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/policy"
	"github.com/rotatord/rotatord/internal/rotation"
	"github.com/rotatord/rotatord/internal/watcher"
)

// source is a policy's source, as the daemon needs it besides the engine.
type source interface {
	rotation.Source
	// names are the certificates that the policy takes, by name. The list does not change.
	names() []string
	// has reports whether a certificate is one of names.
	has(certificate string) bool
}

// issuedSource is the source of a policy that issues its one certificate.
type issuedSource struct{ *rotation.IssuedSource }

func (s issuedSource) names() []string { return []string{s.Certificate} }

func (s issuedSource) has(certificate string) bool { return certificate == s.Certificate }

// newIssuedSource says who is served where before anything is issued: the names are those
// that are asked for.
func newIssuedSource(p *policy.Policy) issuedSource {
	s := issuedSource{&rotation.IssuedSource{Certificate: p.Source.Certificate()}}
	if ca := p.Source.PrivateCA; ca != nil {
		for _, name := range ca.Names {
			s.Names = append(s.Names, name.Value)
		}
	}
	if ic := p.Source.IdentityCenter; ic != nil {
		s.Names = []string{ic.ApplicationInstanceID} // where the certificate is activated
	}
	return s
}

// directorySource is a policy's view of a watched directory: a rotation.Source.
type directorySource struct {
	match   policy.Match
	watcher *watcher.Watcher

	mu sync.Mutex
	// owners is who is served where, and listed are the names; nil before somebody asks. They
	// are right for snapshots of the same naming.
	owners           *rotation.Owners
	listed           []string
	ownersOf, listOf uint64
	// troubled is since when the files of a certificate cannot be used.
	troubled map[string]time.Time
}

func newDirectorySource(p *policy.Policy, w *watcher.Watcher) *directorySource {
	return &directorySource{match: p.Source.Directory.Match, watcher: w, troubled: map[string]time.Time{}}
}

// Wanted implements rotation.Source.
func (s *directorySource) Wanted(certificate string) (rotation.Wanted, bool) {
	c, ok := s.watcher.Snapshot().Certificate(certificate)
	if !ok || !s.match.Matches(*c.Pair.Info) {
		return rotation.Wanted{}, false
	}
	w := rotation.Wanted{Info: *c.Pair.Info, Chain: c.Pair.ChainLength, CA: c.Pair.IsCA}
	w.ProblemSince = s.troubledSince(certificate, c.Problem != nil)
	if c.Problem != nil {
		w.Problem = c.Problem.Error()
	}
	return w, true
}

// troubledSince remembers when a certificate's problem was first seen.
func (s *directorySource) troubledSince(certificate string, troubled bool) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !troubled {
		delete(s.troubled, certificate)
		return time.Time{}
	}
	since, known := s.troubled[certificate]
	if !known {
		since = time.Now()
		s.troubled[certificate] = since
	}
	return since
}

// Refresh implements rotation.Source.
func (s *directorySource) Refresh(ctx context.Context, certificate string, since time.Time) error {
	return s.watcher.Refresh(ctx, certificate, since)
}

// Load implements rotation.Source.
func (s *directorySource) Load(_ context.Context, certificate string, f certs.Fingerprint) (*certs.Bundle, error) {
	return s.watcher.Load(certificate, f)
}

// Owners implements rotation.Source. A renewal keeps the names, and so the owners.
func (s *directorySource) Owners() *rotation.Owners {
	snapshot := s.watcher.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners == nil || s.ownersOf != snapshot.Naming {
		s.owners, s.ownersOf = rotation.NewOwners(s.all(snapshot)), snapshot.Naming
	}
	return s.owners
}

// all are the certificates that the policy takes from its directory.
func (s *directorySource) all(snapshot *watcher.Snapshot) iter.Seq2[string, certs.Info] {
	return func(yield func(string, certs.Info) bool) {
		for name, c := range snapshot.All() {
			if s.match.Matches(*c.Pair.Info) && !yield(name, *c.Pair.Info) {
				return
			}
		}
	}
}

// has implements source.
func (s *directorySource) has(certificate string) bool {
	c, ok := s.watcher.Snapshot().Certificate(certificate)
	return ok && s.match.Matches(*c.Pair.Info)
}

// names implements source. The list is worked out again when names or issuers change.
func (s *directorySource) names() []string {
	snapshot := s.watcher.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed != nil && s.listOf == snapshot.Naming {
		return s.listed
	}
	names := make([]string, 0, snapshot.Len())
	for name := range s.all(snapshot) {
		names = append(names, name)
	}
	slices.Sort(names)
	s.listed, s.listOf = names, snapshot.Naming
	return names
}
