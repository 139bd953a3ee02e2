package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; it is reached only when something is broken. The library
// takes up to 20 seconds to notice that a watch has to be made again.
const patience = time.Minute

const bucket = "rotatord_journal"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
		panic("unreachable")
	}
}

// start runs a server on a directory, syncing every write as rotatord's own does. Port
// -1 is any.
func start(t testing.TB, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true,
	})
	must(t, err)
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server did not start")
	}
	t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// connect gives JetStream on a server, for as long as the test runs.
func connect(t testing.TB, s *server.Server) jetstream.JetStream {
	t.Helper()
	c, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	must(t, err)
	t.Cleanup(c.Close)
	js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(20_000))
	must(t, err)
	return js
}

func open(t testing.TB, js jetstream.JetStream) *Journal {
	t.Helper()
	j, err := Open(t.Context(), js, bucket, 1)
	must(t, err)
	return j
}

// fresh is an empty journal with the bucket behind it.
func fresh(t testing.TB) (*Journal, jetstream.KeyValue) {
	t.Helper()
	js := connect(t, start(t, t.TempDir(), -1))
	j := open(t, js)
	kv, err := js.KeyValue(t.Context(), bucket)
	must(t, err)
	return j, kv
}

func save(t testing.TB, j *Journal, key, record string, read Revision) Revision {
	t.Helper()
	revision, err := j.Save(t.Context(), key, "shop", "shop.example.com", []byte(record), read)
	must(t, err)
	return revision
}

func load(t testing.TB, j *Journal, key string) Entry {
	t.Helper()
	e, err := j.Load(t.Context(), key)
	must(t, err)
	return e
}

func TestSaveAndLoad(t *testing.T) {
	j, kv := fresh(t)
	if e := load(t, j, "shop.a"); e.Record != nil || e.Revision != 0 || e.Problem != nil {
		t.Errorf("before the first write: %+v", e)
	}
	first := save(t, j, "shop.a", `{"phase":"new"}`, 0)
	second := save(t, j, "shop.a", `{"phase":"done"}`, first)
	e := load(t, j, "shop.a")
	if string(e.Record) != `{"phase":"done"}` || e.Revision != second || e.Policy != "shop" || e.Certificate != "shop.example.com" || e.Problem != nil {
		t.Errorf("read %+v", e)
	}
	stored, err := kv.Get(t.Context(), "shop.a")
	must(t, err)
	const golden = `{"version":1,"policy":"shop","certificate":"shop.example.com","record":{"phase":"done"}}`
	if string(stored.Value()) != golden {
		t.Errorf("stored\n%s\nwant\n%s", stored.Value(), golden)
	}
}

func TestStaleWriterLoses(t *testing.T) {
	j, _ := fresh(t)
	first := save(t, j, "shop.a", `1`, 0)
	second := save(t, j, "shop.a", `2`, first)
	for name, read := range map[string]Revision{"from the beginning": 0, "over the first": first, "over one to come": second + 1} {
		if _, err := j.Save(t.Context(), "shop.a", "shop", "a", []byte(`3`), read); !errors.Is(err, ErrConflict) {
			t.Errorf("Save %s: %v", name, err)
		}
		if read != 0 {
			if err := j.Remove(t.Context(), "shop.a", read); !errors.Is(err, ErrConflict) {
				t.Errorf("Remove %s: %v", name, err)
			}
		}
	}
	must(t, j.Remove(t.Context(), "shop.a", 0)) // whoever saw none removes none
	if e := load(t, j, "shop.a"); string(e.Record) != "2" || e.Revision != second {
		t.Errorf("read %+v", e)
	}
}

// A cluster words its refusal differently; no test server here is one.
func TestEveryRefusalIsAConflict(t *testing.T) {
	for code, want := range map[jetstream.ErrorCode]bool{10071: true, 10164: true, 10077: false} {
		if got := isWrongSequence(fmt.Errorf("publish: %w", &jetstream.APIError{ErrorCode: code})); got != want {
			t.Errorf("error %d is a conflict: %v", code, got)
		}
	}
}

func TestNoUpdateIsLost(t *testing.T) {
	const writers, rounds = 8, 25
	j, _ := fresh(t)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				if err := increment(t.Context(), j); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e := load(t, j, "shop.n"); string(e.Record) != fmt.Sprint(writers*rounds) {
		t.Errorf("the count is %s, want %d", e.Record, writers*rounds)
	}
}

func increment(ctx context.Context, j *Journal) error {
	for {
		e, err := j.Load(ctx, "shop.n")
		if err != nil {
			return err
		}
		n := 0
		if e.Record != nil {
			if err := json.Unmarshal(e.Record, &n); err != nil {
				return err
			}
		}
		_, err = j.Save(ctx, "shop.n", "shop", "n", fmt.Append(nil, n+1), e.Revision)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

func TestUnreadableRecords(t *testing.T) {
	j, kv := fresh(t)
	for name, row := range map[string]struct{ stored, want string }{
		"garbage":       {"\x00\xff", "not readable"},
		"nothing":       {"", "not readable"},
		"null":          {"null", "nothing in it"},
		"list":          {"[]", "not readable"},
		"no record":     {`{"version":1,"policy":"shop","certificate":"a"}`, "nothing in it"},
		"null record":   {`{"version":1,"policy":"shop","certificate":"a","record":null}`, "nothing in it"},
		"cut short":     {`{"version":1,"policy":"shop","certificate":"a","record":{"a":`, "not readable"},
		"newer version": {`{"version":2,"policy":"shop","certificate":"a","record":{"a":1}}`, "record has version 2, this rotatord reads up to 1"},
		"another's":     {`{"stream":"ROTATORD_TRIGGERS","seq":1}`, "nothing in it"},
	} {
		t.Run(name, func(t *testing.T) {
			key := "shop." + strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "")
			_, err := kv.Put(t.Context(), key, []byte(row.stored))
			must(t, err)
			e := load(t, j, key)
			if e.Problem == nil || !strings.Contains(e.Problem.Error(), row.want) || e.Record != nil || e.Revision == 0 {
				t.Errorf("read %+v, want a problem with %q", e, row.want)
			}
			save(t, j, key, `{}`, e.Revision)
			if e := load(t, j, key); string(e.Record) != `{}` || e.Problem != nil {
				t.Errorf("after the next write: %+v", e)
			}
		})
	}
}

func TestOlderVersionIsRead(t *testing.T) {
	for v := range version + 1 {
		stored := fmt.Sprintf(`{"version":%d,"policy":"shop","certificate":"a","record":{"old":true},"gone":1}`, v)
		if e := decode([]byte(stored), 7); e.Problem != nil || string(e.Record) != `{"old":true}` || e.Policy != "shop" || e.Revision != 7 {
			t.Errorf("version %d is read as %+v", v, e)
		}
	}
}

func TestRecordsHaveALimit(t *testing.T) {
	j, _ := fresh(t)
	largest := `"` + strings.Repeat("x", maxRecord-2) + `"`
	revision := save(t, j, "shop.large", largest, 0)
	_, err := j.Save(t.Context(), "shop.large", "shop", "large", []byte(largest+" "), revision)
	if err == nil || !strings.Contains(err.Error(), "262145 bytes are more than 262144") {
		t.Errorf("one byte more: %v", err)
	}
	if e := load(t, j, "shop.large"); string(e.Record) != largest {
		t.Error("the record was changed by the write that was refused")
	}
	if _, err := j.Save(t.Context(), "shop.odd", "shop", "odd", []byte("not JSON"), 0); err == nil {
		t.Error("a record that is not JSON was written")
	}
}

// told is what Watch told, in order.
type told struct {
	key      string
	entry    Entry
	caughtUp bool
}

// follow watches until the test ends.
func follow(t testing.TB, j *Journal) <-chan told {
	c := make(chan told, 20_000)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- j.Watch(ctx, func(key string, e Entry) { c <- told{key: key, entry: e} }, func() { c <- told{caughtUp: true} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, ended, "the end of the watch"); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	return c
}

func TestWatch(t *testing.T) {
	j, kv := fresh(t)
	a := save(t, j, "shop.a", `1`, 0)
	a = save(t, j, "shop.a", `2`, a)
	save(t, j, "shop.b", `3`, 0)
	_, err := kv.Put(t.Context(), "shop.bad", []byte("garbage"))
	must(t, err)
	updates := follow(t, j)

	there := map[string]Entry{}
	for u := receive(t, updates, "the records"); !u.caughtUp; u = receive(t, updates, "the records") {
		if _, twice := there[u.key]; twice {
			t.Errorf("%s was told twice", u.key)
		}
		there[u.key] = u.entry
	}
	if len(there) != 3 || string(there["shop.a"].Record) != "2" || there["shop.a"].Revision != a || string(there["shop.b"].Record) != "3" || there["shop.bad"].Problem == nil {
		t.Errorf("there were %+v", there)
	}
	a = save(t, j, "shop.a", `4`, a)
	if u := receive(t, updates, "the change"); u.key != "shop.a" || string(u.entry.Record) != "4" || u.entry.Revision != a {
		t.Errorf("told %+v", u)
	}
	must(t, j.Remove(t.Context(), "shop.a", a))
	u := receive(t, updates, "the removal")
	if u.key != "shop.a" || u.entry.Record != nil || u.entry.Problem != nil || u.entry.Revision <= a {
		t.Errorf("told %+v", u)
	}
	// What is removed is as good as new, also for who knows its last revision.
	if e := load(t, j, "shop.a"); e.Record != nil || e.Revision != 0 {
		t.Errorf("after the removal: %+v", e)
	}
	again := save(t, j, "shop.a", `5`, u.entry.Revision)
	if u := receive(t, updates, "the new record"); string(u.entry.Record) != "5" || u.entry.Revision != again {
		t.Errorf("told %+v", u)
	}
	must(t, j.Remove(t.Context(), "shop.a", again))
	receive(t, updates, "the second removal")
	save(t, j, "shop.a", `6`, 0)
	if u := receive(t, updates, "the newest record"); string(u.entry.Record) != "6" {
		t.Errorf("told %+v", u)
	}
}

func TestWatchOfNothing(t *testing.T) {
	j, _ := fresh(t)
	updates := follow(t, j)
	if u := receive(t, updates, "the end of nothing"); !u.caughtUp {
		t.Errorf("told %+v", u)
	}
}

// The server restarts under a watch, which goes on where it was and is caught up only
// once.
func TestWatchOutlivesTheServer(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, -1)
	port := s.Addr().(*net.TCPAddr).Port
	j := open(t, connect(t, s))
	revision := save(t, j, "shop.a", `1`, 0)
	updates := follow(t, j)
	receive(t, updates, "the record")
	if u := receive(t, updates, "the end of the records"); !u.caughtUp {
		t.Fatalf("told %+v", u)
	}
	stop(s)
	start(t, dir, port)
	// A server that has just started may not answer in time, and have written it all the same.
	for {
		_, err := j.Save(t.Context(), "shop.a", "shop", "shop.example.com", []byte(`2`), revision)
		if err == nil || errors.Is(err, ErrConflict) {
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrNoResponders) {
			t.Fatal(err)
		}
	}
	u := receive(t, updates, "the change after the restart")
	for u.key == "shop.a" && string(u.entry.Record) == "1" {
		u = receive(t, updates, "the change after the restart") // told again, which does no harm
	}
	if u.caughtUp || string(u.entry.Record) != "2" {
		t.Errorf("told %+v", u)
	}
}

func TestRestartKeepsRecords(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, -1)
	j := open(t, connect(t, s))
	revision := save(t, j, "shop.a", `{"phase":"staged"}`, 0)
	stop(s)
	j = open(t, connect(t, start(t, dir, -1)))
	e := load(t, j, "shop.a")
	if string(e.Record) != `{"phase":"staged"}` || e.Revision != revision {
		t.Errorf("read %+v", e)
	}
	if _, err := j.Save(t.Context(), "shop.a", "shop", "a", []byte(`{}`), 0); !errors.Is(err, ErrConflict) {
		t.Errorf("written over as if it were new: %v", err)
	}
}

func TestEverythingNamesItsKey(t *testing.T) {
	s := start(t, t.TempDir(), -1)
	j := open(t, connect(t, s))
	stop(s)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, loadErr := j.Load(ctx, "shop.a")
	_, saveErr := j.Save(ctx, "shop.a", "shop", "a", []byte("1"), 0)
	removeErr := j.Remove(ctx, "shop.a", 1)
	for what, err := range map[string]error{"Load": loadErr, "Save": saveErr, "Remove": removeErr} {
		if err == nil || !strings.Contains(err.Error(), "journal record shop.a") || errors.Is(err, ErrConflict) {
			t.Errorf("%s without a server: %v", what, err)
		}
	}
	if err := j.Watch(ctx, func(string, Entry) {}, func() {}); err == nil {
		t.Error("Watch without a server returned nil")
	}
	if _, err := Open(ctx, connectLater(t), bucket, 1); err == nil || !strings.Contains(err.Error(), "open journal bucket "+bucket) {
		t.Errorf("Open without a server: %v", err)
	}
}

// connectLater is JetStream on a server that is not there.
func connectLater(t testing.TB) jetstream.JetStream {
	c, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	must(t, err)
	t.Cleanup(c.Close)
	js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(20_000))
	must(t, err)
	return js
}

// BenchmarkSave compares a write of the journal with the least that durability can
// cost: append the same bytes to a file and sync it.
func BenchmarkSave(b *testing.B) {
	j := open(b, connect(b, start(b, b.TempDir(), -1)))
	record := []byte(`{"filler":"` + strings.Repeat("x", 1500) + `"}`)
	bare, err := os.OpenFile(filepath.Join(b.TempDir(), "bare"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(b, err)
	defer bare.Close()
	var revision Revision
	var inJournal, inFile time.Duration
	for b.Loop() {
		started := time.Now()
		revision, err = j.Save(b.Context(), "shop.a", "shop", "a", record, revision)
		must(b, err)
		written := time.Now()
		_, err = bare.Write(record)
		must(b, err)
		must(b, bare.Sync())
		inJournal += written.Sub(started)
		inFile += time.Since(written)
	}
	b.ReportMetric(float64(inJournal)/float64(b.N), "save-ns/op")
	b.ReportMetric(float64(inFile)/float64(b.N), "fsync-ns/op")
	b.ReportMetric(float64(inJournal)/float64(inFile), "save/fsync")
}

// BenchmarkReplay reads ten thousand records, as a start of the daemon does.
func BenchmarkReplay(b *testing.B) {
	const records = 10_000
	js := connect(b, start(b, b.TempDir(), -1))
	j := open(b, js)
	value, err := json.Marshal(envelope{version, "shop", "a", json.RawMessage(`{"filler":"` + strings.Repeat("x", 1500) + `"}`)})
	must(b, err)
	for i := range records {
		_, err := js.PublishAsync(fmt.Sprintf("$KV.%s.shop.%d", bucket, i), value)
		must(b, err)
	}
	receive(b, js.PublishAsyncComplete(), "the records to be written")
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		n := 0
		err := j.Watch(ctx, func(string, Entry) { n++ }, cancel)
		if n != records || !errors.Is(err, context.Canceled) {
			b.Fatalf("%d records, %v", n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
}
