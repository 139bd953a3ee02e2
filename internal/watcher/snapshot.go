package watcher

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// RescanReason is why everything was looked at: a closed set, fit for a metric
// label.
type RescanReason string

// The reasons of a rescan.
const (
	Startup  RescanReason = "startup"
	Interval RescanReason = "interval" // the safety rescan, or polling
	Overflow RescanReason = "overflow" // the kernel dropped events
	Reload   RescanReason = "reload"
	Manual   RescanReason = "manual"
)

// RescanReasons returns every RescanReason, in a fixed order.
func RescanReasons() []RescanReason {
	return []RescanReason{Startup, Interval, Overflow, Reload, Manual}
}

// Snapshot is what was known at one moment. It never changes: read it from any
// goroutine, do not write to it.
type Snapshot struct {
	// Ready is false only before the first scan has ended.
	Ready bool
	// Up is false while the directory is missing or unreadable; Err says why.
	// Certificates and Problems are then the last known ones.
	Up  bool
	Err error
	// LastScan is when everything was last looked at; zero for never.
	LastScan time.Time
	// Directories and Files count what is watched; Files includes those
	// without PEM.
	Directories, Files int
	// Problems are the quarantined files and leaves, sorted by path.
	Problems []certs.Problem
	// Events counts hints of the kernel since the start; Coalesced those that
	// said nothing new before the next look.
	Events, Coalesced uint64
	// Rescans counts looks at everything; every reason is there.
	Rescans map[RescanReason]uint64
	// Errors counts problems found in files, each once while it lasts; every
	// reason is there.
	Errors map[certs.Reason]uint64
	// Polling says that the system has no watches left.
	Polling bool

	// Naming counts the snapshots in which a certificate came or went, or had other names or
	// another issuer than before: as long as it stays, so do these.
	Naming uint64

	certificates map[string]*Certificate
}

// Certificate is one certificate that has, or had, a complete pair.
type Certificate struct {
	// Pair is the version in force: the newest complete one, or the last good
	// one while there is a Problem.
	Pair certs.Pair
	// Problem, if not nil, is what is wrong with the certificate's files now.
	Problem *certs.Problem
	// Since is when this version was first seen by this process.
	Since time.Time
	// Older counts further complete, older versions.
	Older int
}

func emptySnapshot() *Snapshot {
	s := &Snapshot{
		Rescans: make(map[RescanReason]uint64),
		Errors:  make(map[certs.Reason]uint64),
	}
	for _, reason := range RescanReasons() {
		s.Rescans[reason] = 0
	}
	for _, reason := range certs.Reasons() {
		s.Errors[reason] = 0
	}
	return s
}

// Certificate returns one certificate by name.
func (s *Snapshot) Certificate(name string) (Certificate, bool) {
	if c := s.certificates[name]; c != nil {
		return *c, true
	}
	return Certificate{}, false
}

// Same reports whether a certificate is exactly as it is in another snapshot of the same watcher,
// also if it is in neither.
func (s *Snapshot) Same(other *Snapshot, name string) bool {
	return s.certificates[name] == other.certificates[name]
}

// take has other certificates take the place of those of the snapshot before, which this one
// begins with.
func (s *Snapshot) take(certificates map[string]*Certificate, changed []string) Change {
	change := Change{Certificates: changed, Renamed: isRenamed(s.certificates, certificates, changed)}
	s.certificates = certificates
	if change.Renamed {
		s.Naming++
	}
	return change
}

// All iterates over the certificates by name, in no order. The pointers are
// shared: do not write through them.
func (s *Snapshot) All() iter.Seq2[string, *Certificate] { return maps.All(s.certificates) }

// Names returns the names of all certificates, sorted.
func (s *Snapshot) Names() []string { return slices.Sorted(maps.Keys(s.certificates)) }

// Len returns the number of certificates.
func (s *Snapshot) Len() int { return len(s.certificates) }

func sameProblems(a, b []certs.Problem) bool { return slices.Equal(a, b) }
