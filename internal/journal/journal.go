// Package journal is the durable memory of each assignment: a small JSON record with
// a revision, kept in a JetStream key-value bucket.
//
// It may import nats.go and the standard library. What a record says is its callers'
// business; here it is bytes with a version.
//
// Invariants: a record is written only over the revision that was read (compare and
// set), so that a worker whose message was handed to another loses its next write; a
// write that returned is on the server's disk.
package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// version of the envelope around each record. A reader takes its own and older ones.
const version = 1

// maxRecord is the largest record, in bytes. It bounds what a runaway list could do.
const maxRecord = 256 << 10

// lookWait bounds the look for the bucket: a cluster does not answer at all while another
// daemon is just making it.
const lookWait = 2 * time.Second

// ErrConflict means that the record is no longer at the revision that was read:
// somebody else wrote it.
var ErrConflict = errors.New("the record was changed by another worker")

// Revision identifies one state of one record; 0 is "there is none yet".
type Revision uint64

// Journal holds the records of all assignments. Its methods may be called by any
// goroutine.
type Journal struct {
	kv   jetstream.KeyValue
	conn *nats.Conn
}

// envelope is what is stored: the key in plain words beside the record, so that the
// bucket can be read by a person and nothing must be decoded from a key.
type envelope struct {
	Version     int             `json:"version"`
	Policy      string          `json:"policy"`
	Certificate string          `json:"certificate"`
	Record      json.RawMessage `json:"record"`
}

// What stands in an envelope before the version, which is the first of it, and before the record,
// which is the last.
var (
	beforeVersion = []byte(`{"version":`)
	beforeRecord  = []byte(`,"record":`)
)

// Entry is one record as it was read.
type Entry struct {
	Policy      string
	Certificate string
	// Record is nil where the record was removed.
	Record   []byte
	Revision Revision
	// Problem is why the record could not be read; it then counts as none, at this
	// revision, and the next write replaces it.
	Problem error
}

// Open finds or makes the bucket.
func Open(ctx context.Context, js jetstream.JetStream, bucket string, replicas int) (*Journal, error) {
	looking, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	kv, err := js.KeyValue(looking, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:       bucket,
			Description:  "Records of rotatord's assignments",
			History:      1,
			Replicas:     replicas,
			MaxValueSize: maxRecord + 1024,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open journal bucket %s: %w", bucket, err)
	}
	return &Journal{kv: kv, conn: js.Conn()}, nil
}

// Existing finds the bucket, and makes none.
func Existing(ctx context.Context, js jetstream.JetStream, bucket string) (*Journal, error) {
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("find journal bucket %s: %w", bucket, err)
	}
	return &Journal{kv: kv, conn: js.Conn()}, nil
}

// Load reads the record under key; an Entry with a nil Record where there is none.
func (j *Journal) Load(ctx context.Context, key string) (Entry, error) {
	stored, err := j.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Entry{}, nil
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read journal record %s: %w", key, err)
	}
	return decode(stored.Value(), stored.Revision()), nil
}

func decode(value []byte, revision uint64) Entry {
	entry := Entry{Revision: Revision(revision)}
	e, err := unwrap(value)
	if err != nil {
		entry.Problem = fmt.Errorf("record is not readable: %w", err)
		return entry
	}
	entry.Policy, entry.Certificate = e.Policy, e.Certificate
	if e.Version > version {
		entry.Problem = fmt.Errorf("record has version %d, this rotatord reads up to %d", e.Version, version)
		return entry
	}
	if len(e.Record) == 0 || string(e.Record) == "null" {
		entry.Problem = errors.New("record is not readable: there is nothing in it")
		return entry
	}
	entry.Record = e.Record
	return entry
}

// unwrap opens an envelope. One that Save wrote is cut open, as the record is most of it and is
// decoded by whoever wants it.
func unwrap(value []byte) (e envelope, err error) {
	head, record, ok := bytes.Cut(value, beforeRecord) // a string has no bare quotes: nothing else reads so
	if record, closed := bytes.CutSuffix(record, []byte("}")); ok && closed && bytes.HasPrefix(head, beforeVersion) && json.Valid(record) {
		if json.Unmarshal(append(slices.Clip(head), '}'), &e) == nil {
			e.Record = record
			return e, nil
		}
		e = envelope{}
	}
	err = json.Unmarshal(value, &e)
	return e, err
}

// wrap puts a record into an envelope, as it is: it is most of what is written, and was encoded just now.
func wrap(policy, certificate string, record []byte) ([]byte, error) {
	if !json.Valid(record) {
		return nil, errors.New("it is not JSON")
	}
	empty, err := json.Marshal(envelope{version, policy, certificate, json.RawMessage("0")})
	if err != nil {
		return nil, err
	}
	return slices.Concat(bytes.TrimSuffix(empty, []byte("0}")), record, []byte("}")), nil
}

// Save writes a record over the revision that was read, 0 for a new one, and returns
// the new revision. ErrConflict means that it was not written.
func (j *Journal) Save(ctx context.Context, key, policy, certificate string, record []byte, read Revision) (Revision, error) {
	if len(record) > maxRecord {
		return 0, fmt.Errorf("write journal record %s: %d bytes are more than %d", key, len(record), maxRecord)
	}
	value, err := wrap(policy, certificate, record)
	if err != nil {
		return 0, fmt.Errorf("encode journal record %s: %w", key, err)
	}
	var revision uint64
	if read == 0 {
		revision, err = j.kv.Create(ctx, key, value)
	} else {
		revision, err = j.kv.Update(ctx, key, value, uint64(read))
	}
	if errors.Is(err, jetstream.ErrKeyExists) || isWrongSequence(err) {
		return 0, fmt.Errorf("write journal record %s over revision %d: %w", key, read, ErrConflict)
	}
	if err != nil {
		return 0, fmt.Errorf("write journal record %s: %w", key, err)
	}
	return Revision(revision), nil
}

// isWrongSequence recognises the server's refusal of a compare-and-set, in the words of
// one server and in those of a cluster.
func isWrongSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Watch calls handle with every record there is, then caughtUp once, and then handle
// with each change, until ctx ends or the watch breaks. It is one read of the bucket,
// however many records there are, and one more after each loss of the connection: then
// records may be told again.
func (j *Journal) Watch(ctx context.Context, handle func(key string, e Entry), caughtUp func()) error {
	reconnected := j.conn.StatusChanged(nats.CONNECTED)
	defer j.conn.RemoveStatusListener(reconnected)
	w, err := j.kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch the journal: %w", err)
	}
	defer func() { _ = w.Stop() }()
	var anew <-chan time.Time
	caughtUp = sync.OnceFunc(caughtUp)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-reconnected:
			// The server may be another one that knows of no watch. The library notices
			// after 20 s of silence.
			anew = time.After(0)
		case <-anew:
			anew = nil
			next, err := j.kv.WatchAll(ctx)
			if err != nil {
				anew = time.After(lookWait) // it may just have started
				continue
			}
			_ = w.Stop()
			w = next
		case update, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() != nil:
				return ctx.Err() // the library ends the watch with its context
			case !ok:
				return errors.New("watch the journal: the watch was closed")
			case update == nil:
				caughtUp()
			case update.Operation() == jetstream.KeyValuePut:
				handle(update.Key(), decode(update.Value(), update.Revision()))
			default:
				handle(update.Key(), Entry{Revision: Revision(update.Revision())})
			}
		}
	}
}

// Remove forgets the record under key if it is still at the revision that was read.
func (j *Journal) Remove(ctx context.Context, key string, read Revision) error {
	if read == 0 {
		return nil // there was none; and the server takes 0 for "whatever it is at"
	}
	err := j.kv.Delete(ctx, key, jetstream.LastRevision(uint64(read)))
	if isWrongSequence(err) {
		return fmt.Errorf("remove journal record %s at revision %d: %w", key, read, ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("remove journal record %s: %w", key, err)
	}
	return nil
}

// String is the revision's number.
func (r Revision) String() string { return strconv.FormatUint(uint64(r), 10) }
