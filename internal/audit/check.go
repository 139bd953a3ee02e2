package audit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Head is the newest event of a subject, as somebody else than the history knows it.
type Head struct {
	Sequence uint64    `json:"sequence"`
	Hash     string    `json:"hash"`
	At       time.Time `json:"at"`
}

// Next is the link of the event that follows the head; its hash is yet to be reckoned.
func (h Head) Next() Link {
	return Link{Sequence: h.Sequence + 1, Previous: h.Hash, PreviousAt: h.At}
}

// Finding is something that does not fit in a history.
type Finding struct {
	// Subject is the history's Key.
	Subject string
	// Time is of the event at which it shows; zero where there is none.
	Time    time.Time
	Problem string
}

// Chain is what was read of one history.
type Chain struct {
	// Subject is the history's Key.
	Subject string
	Events  int
	// First and Last are the sequence numbers of the oldest and the newest event.
	First, Last uint64
	// Hash is the newest event's.
	Hash string
	// Begun are the times at which the history began anew: its record had been lost.
	Begun []time.Time
}

// Checker reads the events of a history, in the order in which they were stored, and notes
// what does not fit. It holds a few numbers for each subject, not the events.
type Checker struct {
	// kept is since when nothing may be missing; what is older has had its time.
	kept     time.Time
	subjects map[string]*reading
	findings []Finding
}

// reading is how far a subject's history was read.
type reading struct {
	chain Chain
	seen  bool
	// fork is a second event of a number that was there already: if others follow it, they are
	// what the journal went on with.
	fork Link
	// ahead are events whose predecessor has not come yet: a publisher that failed tries
	// again later than another publishes.
	ahead map[uint64]ahead
	// recent are the marks of the newest events, chain's Last at the end: a publisher whose
	// last try ended half-way sends what it had sent once more.
	recent []mark
}

// mark is enough of a hash to know it again.
type mark [32]byte

func markOf(hash string) (m mark) {
	copy(m[:], hash)
	return m
}

type ahead struct {
	entry Entry
	link  Link
}

const (
	// maxAhead bounds how many events wait for one that is missing.
	maxAhead = 64
	// maxRecent bounds how many events are known again when they come twice.
	maxRecent = 32
	// leeway is how much earlier than by our clock an event may have had its time: whoever keeps
	// the events has a clock of its own, and goes on removing them while they are read.
	leeway = time.Minute
)

// NewChecker returns a Checker of a history from which nothing was to be removed that is
// younger than kept, but for a minute.
func NewChecker(kept time.Time) *Checker {
	return &Checker{kept: kept.Add(leeway), subjects: map[string]*reading{}}
}

// Read takes the next event.
func (c *Checker) Read(e Entry) {
	link, err := linkOf(e)
	if err != nil {
		c.find(e, "event %s cannot be checked: %v", e.ID, err)
		return
	}
	hash, err := Hash(e)
	if err != nil {
		c.find(e, "event %s cannot be checked: %v", e.ID, err)
		return
	}
	e.Subject = Key(e.Subject, link.Node)
	r := c.subjects[e.Subject]
	if r == nil {
		r = &reading{chain: Chain{Subject: e.Subject}, ahead: map[uint64]ahead{}}
		c.subjects[e.Subject] = r
	}
	r.chain.Events++
	if hash != link.Hash {
		c.find(e, "event %d (%s) was changed: its hash is %s, and it holds %s", link.Sequence, e.ID, short(hash), short(link.Hash))
	}
	c.follow(r, e, link)
}

// follow puts an event behind those that were read, or aside until its turn has come.
func (c *Checker) follow(r *reading, e Entry, link Link) {
	if r.fork.Hash != "" && link.Previous == r.fork.Hash && link.Sequence == r.fork.Sequence+1 {
		r.take(r.fork)
		r.fork = Link{}
	}
	switch next := r.chain.Last + 1; {
	case !r.seen, link.Sequence == next:
		c.append(r, e, link)
		for {
			waiting, ok := r.ahead[r.chain.Last+1]
			if !ok {
				return
			}
			delete(r.ahead, r.chain.Last+1)
			c.append(r, waiting.entry, waiting.link)
		}
	case link.Sequence < next && r.knows(link): // delivered twice
	case link.Sequence == 1 && link.Previous == "":
		c.flush(r)
		r.chain.Begun = append(r.chain.Begun, e.Time)
		r.take(link)
	case link.Sequence < next:
		c.find(e, "there are two events %d: the journal was set back, or somebody added one", link.Sequence)
		r.fork = link
	default:
		r.ahead[link.Sequence] = ahead{e, link}
		if len(r.ahead) > maxAhead {
			c.flush(r)
		}
	}
}

// append takes an event whose number is the next one.
func (c *Checker) append(r *reading, e Entry, link Link) {
	switch {
	case !r.seen:
		r.chain.First, r.seen = link.Sequence, true
		if link.Sequence == 1 && link.Previous != "" || link.Sequence > 1 && link.Previous == "" {
			c.find(e, "event %d says that the hash before it is %q, which cannot be", link.Sequence, link.Previous)
		}
		if link.Sequence > 1 && link.PreviousAt.After(c.kept) {
			c.find(e, "the event before event %d is gone %s", link.Sequence, tooEarly)
		}
	case link.Previous != r.chain.Hash:
		c.find(e, "event %d does not follow the event before it: that one's hash is %s, and it holds %s", link.Sequence, short(r.chain.Hash), short(link.Previous))
	}
	r.take(link)
}

// take makes an event the newest.
func (r *reading) take(link Link) {
	first := r.chain.Last + 1 - uint64(len(r.recent))
	if link.Sequence <= first || link.Sequence > r.chain.Last+1 {
		r.recent = nil
	} else {
		r.recent = r.recent[:link.Sequence-first]
	}
	if len(r.recent) == maxRecent {
		r.recent = append(r.recent[:0], r.recent[1:]...)
	}
	r.recent = append(r.recent, markOf(link.Hash))
	r.chain.Last, r.chain.Hash = link.Sequence, link.Hash
}

// knows reports whether an event that is not ahead is one of the newest.
func (r *reading) knows(link Link) bool {
	back := r.chain.Last - link.Sequence
	return back < uint64(len(r.recent)) && r.recent[uint64(len(r.recent))-1-back] == markOf(link.Hash)
}

// flush gives up the wait for events that are missing.
func (c *Checker) flush(r *reading) {
	for _, sequence := range slices.Sorted(maps.Keys(r.ahead)) {
		waiting := r.ahead[sequence]
		if first := r.chain.Last + 1; first < sequence {
			c.find(waiting.entry, "%s missing before this one", missing(first, sequence-1))
			r.chain.Hash = waiting.link.Previous // nobody can tell
		}
		c.append(r, waiting.entry, waiting.link)
	}
	clear(r.ahead)
}

// End ends the reading. heads are the newest events that must be there, by Key, as the journal
// knew them before the first event was read.
func (c *Checker) End(heads map[string]Head) ([]Chain, []Finding) {
	for _, subject := range slices.Sorted(maps.Keys(c.subjects)) {
		c.flush(c.subjects[subject])
	}
	for _, subject := range slices.Sorted(maps.Keys(heads)) {
		c.compare(subject, heads[subject])
	}
	chains := []Chain{}
	for _, subject := range slices.Sorted(maps.Keys(c.subjects)) {
		chains = append(chains, c.subjects[subject].chain)
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return cmp.Compare(a.Subject, b.Subject) })
	return chains, c.findings
}

// compare holds the end of a history against the journal.
func (c *Checker) compare(subject string, head Head) {
	r := c.subjects[subject]
	if r != nil && r.fork.Hash != "" && r.fork.Hash == head.Hash {
		return // the fork was told already
	}
	switch {
	case head.Sequence == 0:
	case r == nil && !head.At.After(c.kept): // all of it has had its time
	case r == nil:
		c.findings = append(c.findings, Finding{Subject: subject, Problem: fmt.Sprintf("none of %d events is left, gone %s", head.Sequence, tooEarly)})
	case r.chain.Last < head.Sequence:
		c.findings = append(c.findings, Finding{Subject: subject, Problem: missing(r.chain.Last+1, head.Sequence) + " missing at the end: the journal knows of them"})
	case r.chain.Last == head.Sequence && r.chain.Hash != head.Hash:
		c.findings = append(c.findings, Finding{Subject: subject, Problem: fmt.Sprintf("the last event, %d, is not the journal's: its hash is %s there, and %s here", head.Sequence, short(head.Hash), short(r.chain.Hash))})
	}
}

func (c *Checker) find(e Entry, format string, args ...any) {
	c.findings = append(c.findings, Finding{Subject: e.Subject, Time: e.Time, Problem: fmt.Sprintf(format, args...)})
}

// tooEarly says why events that should be there may be gone.
const tooEarly = "before its time: somebody removed events, their stream is full, or audit.retain was shorter"

// missing names a range of events.
func missing(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("event %d is", first)
	}
	return fmt.Sprintf("events %d to %d are", first, last)
}

// short is what a person compares of a hash.
func short(hash string) string {
	if len(hash) <= 16 {
		return hash
	}
	return hash[:16]
}
