package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rotatord/rotatord/internal/audit"
	"github.com/rotatord/rotatord/internal/bus"
	"github.com/rotatord/rotatord/internal/journal"
	"github.com/rotatord/rotatord/internal/rotation"
)

// records is the journal as the engine and the metrics see it: typed, and mirrored in
// memory as it changes, whoever in the cluster changes it.
type records struct {
	// changed is called with every record that came, by one goroutine.
	changed func(rotation.ID, rotation.Record)
	failed  func()
	// node is whose records those of a policy are, where each node has its own: it works with
	// its own files, whoever has a policy of that name. Empty where all nodes share them.
	node func(policy string) string
	// here is this node.
	here string

	// holdChanged is called with every policy that is held or released, by the same goroutine.
	holdChanged func(policy string)

	mu      sync.RWMutex
	journal *journal.Journal
	// byPlace are the records of this node and those that all nodes share: which of the two
	// are a policy's, a reload may change.
	byPlace map[placedID]*mirrored
	// byPolicy says which of them a policy has, and when one was last put there.
	byPolicy map[string]*shelf
	// puts counts what was put, and each forgetting of everything; forgot is its value then.
	puts, forgot uint64
	holds        map[string]mirroredHold
	// toldHolds are the holds that holdChanged has been told of.
	toldHolds map[string]*rotation.Hold
	// unpublished has room for one: there are, or were, events of holds that nobody published yet.
	unpublished chan struct{}
}

// shelf are the records of one policy.
type shelf struct {
	ids map[placedID]struct{}
	// version is what puts was when one was last put there.
	version uint64
}

// mirroredHold is the journal's word about a policy.
type mirroredHold struct {
	heldRecord
	revision journal.Revision
}

// placedID is an assignment and whether it is this node's own record of it.
type placedID struct {
	rotation.ID
	own bool
}

// mirrored is a record with its revision: a watch may lag behind our own writes. It never
// changes; another takes its place.
type mirrored struct {
	record   rotation.Record
	revision rotation.Revision
}

func newRecords(changed func(rotation.ID, rotation.Record), failed func()) *records {
	return &records{
		changed: changed, failed: failed, holdChanged: func(string) {}, node: func(string) string { return "" },
		byPlace: map[placedID]*mirrored{}, byPolicy: map[string]*shelf{}, holds: map[string]mirroredHold{}, toldHolds: map[string]*rotation.Hold{}, unpublished: make(chan struct{}, 1),
	}
}

// key is where a record is kept.
func (r *records) key(id rotation.ID) string { return keyAt(r.node(id.Policy), id) }

// keyAt is where a node keeps a record, or, without a name, all of them do.
func keyAt(node string, id rotation.ID) string {
	key := bus.Token(id.Policy) + "." + bus.Token(id.Certificate)
	if node != "" {
		key = bus.Token(node) + "." + key
	}
	return key
}

// placed is which record of an assignment counts.
func (r *records) placed(id rotation.ID) placedID { return placedID{id, r.node(id.Policy) != ""} }

// attach says which journal to use. Until then Load and Save fail. What was mirrored of
// an earlier one is forgotten: a lost store begins its revisions anew.
func (r *records) attach(j *journal.Journal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journal = j
	clear(r.byPlace)
	clear(r.byPolicy)
	r.puts++
	r.forgot = r.puts
	clear(r.holds)
	clear(r.toldHolds)
}

var errNoJournal = errors.New("the journal is not open yet")

func (r *records) open() (*journal.Journal, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.journal == nil {
		return nil, errNoJournal
	}
	return r.journal, nil
}

// Load implements rotation.Journal. A record that cannot be read counts as none: the
// cloud and the disk are the truth.
func (r *records) Load(ctx context.Context, id rotation.ID) (rotation.Record, rotation.Revision, error) {
	j, err := r.open()
	if err != nil {
		return rotation.Record{}, 0, err
	}
	entry, err := j.Load(ctx, r.key(id))
	if err != nil {
		return rotation.Record{}, 0, err
	}
	record, _ := decode(entry)
	return record, rotation.Revision(entry.Revision), nil
}

// Save implements rotation.Journal.
func (r *records) Save(ctx context.Context, id rotation.ID, record rotation.Record, read rotation.Revision) (rotation.Revision, error) {
	j, err := r.open()
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(record)
	if err != nil {
		return 0, fmt.Errorf("encode record: %w", err)
	}
	at := r.placed(id)
	revision, err := j.Save(ctx, r.key(id), id.Policy, id.Certificate, body, journal.Revision(read))
	if errors.Is(err, journal.ErrConflict) {
		return 0, fmt.Errorf("%w: %w", rotation.ErrConflict, err)
	}
	if err != nil {
		r.failed()
		return 0, err
	}
	r.put(at, mirrored{record, rotation.Revision(revision)})
	return rotation.Revision(revision), nil
}

// watch mirrors the journal until ctx ends or the watch breaks. caughtUp is called when
// everything that was there has been read.
func (r *records) watch(ctx context.Context, caughtUp func()) error {
	j, err := r.open()
	if err != nil {
		return err
	}
	return j.Watch(ctx, func(key string, e journal.Entry) {
		if policy, ok := strings.CutPrefix(key, holdKeys); ok {
			r.absorbHold(policy, e)
			return
		}
		id := rotation.ID{Policy: e.Policy, Certificate: e.Certificate}
		own := r.here != "" && key == keyAt(r.here, id)
		if e.Policy == "" || !own && key != keyAt("", id) {
			return // removed, or not readable at all; or another node's
		}
		at := placedID{id, own}
		record, ok := r.saved(at, rotation.Revision(e.Revision))
		if !ok {
			if record, ok = decode(e); !ok {
				return
			}
			r.put(at, mirrored{record, rotation.Revision(e.Revision)})
		}
		if at == r.placed(id) {
			r.changed(id, record)
		}
	}, caughtUp)
}

// saved returns the record at a revision if it is known already: mostly this process wrote it.
func (r *records) saved(at placedID, revision rotation.Revision) (rotation.Record, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if known := r.byPlace[at]; known != nil && known.revision == revision {
		return known.record, true
	}
	return rotation.Record{}, false
}

func decode(e journal.Entry) (rotation.Record, bool) {
	var record rotation.Record
	if e.Problem != nil || e.Record == nil || json.Unmarshal(e.Record, &record) != nil {
		return rotation.Record{}, false
	}
	return record, true
}

func (r *records) put(at placedID, m mirrored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.byPlace[at]; known != nil && m.revision < known.revision {
		return
	}
	r.byPlace[at] = &m
	of := r.byPolicy[at.Policy]
	if of == nil {
		of = &shelf{ids: map[placedID]struct{}{}}
		r.byPolicy[at.Policy] = of
	}
	of.ids[at] = struct{}{}
	r.puts++
	of.version = r.puts
}

// version changes with every record of a policy that is put.
func (r *records) version(policy string) uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if of := r.byPolicy[policy]; of != nil {
		return of.version
	}
	return r.forgot
}

// holdKeys begin the keys of what is known of policies; no record's key does.
const holdKeys = "=hold."

// hold is the policy's; nil where nobody holds it.
func (r *records) hold(policy string) *rotation.Hold {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.holds[policy].Hold
}

// heldRecord is what is kept of a policy: who holds it, if anybody does, and the events that
// told of it. The end of a hold is kept too, so that no watch misses it.
type heldRecord struct {
	Hold   *rotation.Hold   `json:"hold"`
	Head   audit.Head       `json:"head,omitzero"`
	Outbox []rotation.Event `json:"outbox,omitempty"`
}

// setHold writes a hold, nil for its end, with the event that tells of it. Whoever wrote last is
// right.
func (r *records) setHold(ctx context.Context, policy string, hold *rotation.Hold, event func(audit.Head) (rotation.Event, audit.Head, error)) (rotation.Event, error) {
	var told rotation.Event
	err := r.changeHold(ctx, policy, func(held *heldRecord) (err error) {
		held.Hold = hold
		told, err = held.tell(event)
		return err
	})
	return told, err
}

// tellOf puts an event of a policy into its outbox.
func (r *records) tellOf(ctx context.Context, policy string, event func(audit.Head) (rotation.Event, audit.Head, error)) error {
	return r.changeHold(ctx, policy, func(held *heldRecord) error {
		_, err := held.tell(event)
		return err
	})
}

// tell puts the event that follows into the outbox.
func (h *heldRecord) tell(event func(audit.Head) (rotation.Event, audit.Head, error)) (rotation.Event, error) {
	e, head, err := event(h.Head)
	if err != nil {
		return e, err
	}
	h.Outbox, _ = rotation.Enqueue(h.Outbox, e)
	h.Head = head
	return e, nil
}

// changeHold changes what is kept of a policy, as often as others change it meanwhile.
func (r *records) changeHold(ctx context.Context, policy string, change func(*heldRecord) error) error {
	j, err := r.open()
	if err != nil {
		return err
	}
	for {
		entry, err := j.Load(ctx, holdKeys+policy)
		if err != nil {
			return err
		}
		held := heldOf(entry)
		if err := change(&held); err != nil {
			return err
		}
		body, err := json.Marshal(held)
		if err != nil {
			return fmt.Errorf("encode hold: %w", err)
		}
		revision, err := j.Save(ctx, holdKeys+policy, policy, "", body, entry.Revision)
		switch {
		case errors.Is(err, journal.ErrConflict):
			continue
		case err != nil:
			r.failed()
			return err
		}
		r.putHold(policy, mirroredHold{held, revision})
		return nil
	}
}

// heldOf reads what is kept of a policy; what cannot be read counts as nothing.
func heldOf(e journal.Entry) heldRecord {
	var held heldRecord
	if e.Problem != nil || e.Record == nil || json.Unmarshal(e.Record, &held) != nil {
		return heldRecord{}
	}
	return held
}

// heads are the newest published events that the journal knows of what is selected.
func (r *records) heads(only selection) map[string]audit.Head {
	r.mu.RLock()
	defer r.mu.RUnlock()
	heads := map[string]audit.Head{}
	for at, m := range r.byPlace {
		node := ""
		if at.own {
			node = r.here
		}
		if only.has(at.ID) {
			heads[audit.Key(rotation.SubjectOf(at.Policy, at.Certificate), node)] = published(m.record.Head, m.record.Outbox)
		}
	}
	for policy, held := range r.holds {
		if only.certificate == "" && (only.policy == "" || only.policy == policy) {
			heads[policy] = published(held.Head, held.Outbox)
		}
	}
	return heads
}

// published is the newest event of a history that is not in the outbox any more.
func published(head audit.Head, outbox []rotation.Event) audit.Head {
	if len(outbox) == 0 {
		return head
	}
	first := outbox[0].Data.Chain
	return audit.Head{Sequence: first.Sequence - 1, Hash: first.Previous, At: first.PreviousAt}
}

// publishHolds sends the events of holds that are not published yet. What cannot be sent stays.
func (r *records) publishHolds(ctx context.Context, publish func(context.Context, rotation.Event) error) error {
	for policy, outbox := range r.holdOutboxes() {
		for _, e := range outbox {
			if err := publish(ctx, e); err != nil {
				r.notePublishing()
				return err
			}
		}
		last := outbox[len(outbox)-1].Data.Chain.Sequence
		err := r.changeHold(ctx, policy, func(held *heldRecord) error {
			held.Outbox = slices.DeleteFunc(held.Outbox, func(e rotation.Event) bool { return e.Data.Chain.Sequence <= last })
			return nil
		})
		if err != nil {
			r.notePublishing()
			return err
		}
	}
	return nil
}

// notePublishing has events of holds published, again where that failed.
func (r *records) notePublishing() {
	select {
	case r.unpublished <- struct{}{}:
	default:
	}
}

func (r *records) holdOutboxes() map[string][]rotation.Event {
	r.mu.RLock()
	defer r.mu.RUnlock()
	waiting := map[string][]rotation.Event{}
	for policy, held := range r.holds {
		if len(held.Outbox) > 0 {
			waiting[policy] = slices.Clone(held.Outbox)
		}
	}
	return waiting
}

func (r *records) absorbHold(policy string, e journal.Entry) {
	if e.Problem != nil {
		return
	}
	held := heldOf(e)
	if r.putHold(policy, mirroredHold{held, e.Revision}) && r.isNewHold(policy, held.Hold) {
		r.holdChanged(policy)
	}
}

// isNewHold reports whether holdChanged has not been told of a hold, or of its end. Only the
// events that are kept beside it may have changed.
func (r *records) isNewHold(policy string, hold *rotation.Hold) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reflect.DeepEqual(r.toldHolds[policy], hold) {
		return false
	}
	r.toldHolds[policy] = hold
	return true
}

// putHold mirrors a hold, unless a newer one is known.
func (r *records) putHold(policy string, m mirroredHold) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.revision < r.holds[policy].revision {
		return false
	}
	r.holds[policy] = m
	if len(m.Outbox) > 0 {
		r.notePublishing()
	}
	return true
}

// get returns the mirrored record; the zero Record where there is none.
func (r *records) get(id rotation.ID) rotation.Record {
	if record := r.peek(id); record != nil {
		return *record
	}
	return rotation.Record{}
}

// peek is get without a copy: nil where there is none. What it points to never changes, and
// is another for each record that is put.
func (r *records) peek(id rotation.ID) *rotation.Record {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m := r.byPlace[r.placed(id)]; m != nil {
		return &m.record
	}
	return nil
}

// changedSince are the assignments of which something that was served has been replaced
// since, and how many there are in all.
func (r *records) changedSince(since time.Time) (changed map[rotation.ID]bool, all int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	changed = map[rotation.ID]bool{}
	for at, m := range r.byPlace {
		if at != r.placed(at.ID) {
			continue
		}
		all++
		if m.record.ReplacedAt.After(since) {
			changed[at.ID] = true
		}
	}
	return changed, all
}

// ids are all assignments with a record, sorted.
func (r *records) ids() []rotation.ID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var ids []rotation.ID
	for _, of := range r.byPolicy {
		ids = r.appendIDs(ids, of)
	}
	sortIDs(ids)
	return ids
}

// idsOf are those of one policy.
func (r *records) idsOf(policy string) []rotation.ID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	of := r.byPolicy[policy]
	if of == nil {
		return nil
	}
	ids := r.appendIDs(make([]rotation.ID, 0, len(of.ids)), of)
	sortIDs(ids)
	return ids
}

func (r *records) appendIDs(ids []rotation.ID, of *shelf) []rotation.ID {
	for at := range of.ids {
		if at == r.placed(at.ID) {
			ids = append(ids, at.ID)
		}
	}
	return ids
}

func sortIDs(ids []rotation.ID) {
	slices.SortFunc(ids, func(a, b rotation.ID) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Certificate, b.Certificate))
	})
}
