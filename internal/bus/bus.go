package bus

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rotatord/rotatord/internal/repeat"
)

// Config says which server to use and how.
type Config struct {
	// Prefix begins the names of all subjects, streams and buckets.
	Prefix string
	// Node is this daemon's name among several; it owns the work at its place.
	Node string
	// Subjects are the trigger subjects besides <Prefix>.trigger.<policy>.
	Subjects []string

	// URL is one or several servers, comma separated; empty for the embedded server.
	URL string
	// Login, at most one: a credentials file, an nkey seed file, or user and password.
	// The password is asked for at each connection, so that it can be replaced.
	CredentialsFile string
	NKeySeedFile    string
	User            string
	Password        func() (string, error)
	// TLS for an external server; nil for the library's default.
	TLS *tls.Config
	// Replicas of what is created on an external server.
	Replicas int

	// EventAge is how long events are kept; zero for ever.
	EventAge time.Duration

	// StoreDir is the embedded server's directory.
	StoreDir string
	// Listener of the embedded server for local publishers; nil for none.
	Listener *Listener

	Logger *slog.Logger
	Meter  Meter

	// askEvery replaces askServer in tests.
	askEvery time.Duration
}

// Listener is where the embedded server accepts local publishers. They may publish
// triggers and read events, and nothing else.
type Listener struct {
	// Host must be a loopback address. Port 0 means the default, -1 any free one.
	Host string
	Port int
	// User and Password; without a user everybody on the machine may publish.
	User     string
	Password string
}

// Meter hears what the bus counts. Its methods are called by any goroutine.
type Meter interface {
	// Message counts a message: subject is trigger, ack, work, event or control; result is
	// ack, nak, duplicate, published or failed.
	Message(subject, result string)
	Reconnected()
}

// Bus is a connection with the streams that rotatord uses.
type Bus struct {
	names
	cfg    Config
	log    *slog.Logger
	server *server.Server // embedded; nil otherwise
	// store looks after the embedded server; nil for an external one.
	store *embedded
	// subjects are those of the policies in force, at first Config.Subjects.
	subjectsMu sync.RWMutex
	subjects   []string
	conn       *nats.Conn
	js         jetstream.JetStream
	// servers are the hosts of the URL: what may be shown of it.
	servers string
	// prepared is set when the streams were found or made.
	prepared atomic.Bool
	// unprepared is why the last attempt at that failed; nil before the first has ended.
	unprepared atomic.Pointer[error]
	// trouble is why the last attempt to connect failed; nil while connected.
	trouble atomic.Pointer[error]
	// told are the reasons that were logged since the connection was lost: each server of
	// a cluster has its own.
	toldMu sync.Mutex
	told   map[string]time.Time
	// failing is what else failed, by kind.
	failing repeat.Failures[string]
	// silence is why JetStream does not count as there although the server is connected;
	// nil while it answers.
	silence atomic.Pointer[error]
	// unwatch ends watchServer; nil for the embedded server.
	unwatch func()
	// fetches are those that wait for work now: a server that was started anew knows of none.
	fetches fetches
}

// fetches are what waits for an answer of the server. The zero value is empty.
type fetches struct {
	mu   sync.Mutex
	last int
	all  map[int]func()
}

// add notes how to end a fetch; what it returns is called when that has ended.
func (f *fetches) add(end func()) (ended func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[int]func(){}
	}
	f.last++
	n := f.last
	f.all[n] = end
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.all, n)
	}
}

// end ends all of them.
func (f *fetches) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, end := range f.all {
		end()
	}
}

// maxTold is how many reasons for one loss are worth a warning. There may be no end of
// them, with a port in each.
const maxTold = 5

// connectWait bounds a single attempt to connect.
const connectWait = 5 * time.Second

// Open starts the embedded server, or begins to connect to an external one. It fails
// on what will not heal by itself: an unusable store, a port in use, a bad URL or
// login file. An external server that cannot be reached is no error; Prepare waits
// for it.
func Open(cfg Config) (*Bus, error) {
	b := &Bus{names: names{cfg.Prefix}, cfg: cfg, log: cfg.Logger, subjects: cfg.Subjects}
	options, err := b.connectOptions()
	if err != nil {
		return nil, err
	}
	b.servers, err = hostsOf(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.URL == "" {
		internal, err := b.startEmbedded()
		if err != nil {
			return nil, err
		}
		options = append(options, internal...)
	}
	b.conn, err = nats.Connect(cfg.URL, options...)
	if err != nil {
		b.stopEmbedded()
		return nil, fmt.Errorf("connect to NATS %s: %w", b.servers, err)
	}
	b.js, err = jetstream.New(b.conn)
	if err != nil {
		b.conn.Close()
		b.stopEmbedded()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	if cfg.URL != "" {
		watching, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { b.watchServer(watching, cmp.Or(cfg.askEvery, askServer)) })
		b.unwatch = func() { stop(); wg.Wait() }
	}
	return b, nil
}

// hostsOf lists the hosts of a comma-separated list of URLs. They may hold a password,
// so neither they nor the parser's complaint are repeated.
func hostsOf(urls string) (string, error) {
	if urls == "" {
		return "embedded", nil
	}
	var hosts []string
	for one := range strings.SplitSeq(urls, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one // as nats.go does
		}
		u, err := url.Parse(one)
		if err != nil || u.Host == "" {
			return "", errors.New("a URL of the NATS server is not of the form nats://host:port")
		}
		hosts = append(hosts, u.Host)
	}
	return strings.Join(hosts, ","), nil
}

func (b *Bus) connectOptions() ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("rotatord " + b.cfg.Node),
		nats.CustomInboxPrefix(b.names.inbox()),
		nats.Timeout(connectWait),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		// A refused login is tried again too: its file may have been replaced.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("nats disconnected", "err", err)
			}
		}),
		nats.ConnectHandler(b.connected),
		nats.ReconnectHandler(func(c *nats.Conn) {
			b.connected(c)
			b.fetches.end()
			b.cfg.Meter.Reconnected()
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { b.unreachable(err) }),
		nats.ErrorHandler(func(c *nats.Conn, _ *nats.Subscription, err error) {
			if !c.IsConnected() {
				b.unreachable(err) // a refused login, at each attempt
				return
			}
			if times, tell := b.failing.Met("connection", err.Error()); tell {
				b.log.Warn("nats error", "times", times, "err", err)
			}
		}),
	}
	if b.cfg.TLS != nil {
		options = append(options, nats.Secure(b.cfg.TLS))
	}
	switch {
	case b.cfg.CredentialsFile != "":
		options = append(options, nats.UserCredentials(b.cfg.CredentialsFile))
	case b.cfg.NKeySeedFile != "":
		key, err := nats.NkeyOptionFromSeed(b.cfg.NKeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("read nkey seed file %s: %w", b.cfg.NKeySeedFile, err)
		}
		options = append(options, key)
	case b.cfg.User != "":
		options = append(options, nats.UserInfoHandler(func() (string, string) {
			password, err := b.cfg.Password()
			if err == nil {
				b.failing.Over("password")
			} else if times, tell := b.failing.Met("password", err.Error()); tell {
				b.log.Error("nats password cannot be read", "times", times, "err", err)
			}
			return b.cfg.User, password
		}))
	}
	return options, nil
}

func (b *Bus) connected(c *nats.Conn) {
	b.trouble.Store(nil)
	b.silence.Store(nil)
	b.toldMu.Lock()
	b.told = nil
	b.toldMu.Unlock()
	if b.cfg.URL != "" {
		b.log.Info("nats connected", "server", c.ConnectedUrlRedacted())
	}
}

// unreachable hears of every failed attempt to connect, and says each reason once, and hourly.
func (b *Bus) unreachable(err error) {
	b.trouble.Store(&err)
	level := slog.LevelDebug
	if b.isNews(err.Error()) {
		level = slog.LevelWarn
	}
	b.log.Log(context.Background(), level, "nats cannot be reached; trying again", "servers", b.servers, "err", err)
}

func (b *Bus) isNews(reason string) bool {
	b.toldMu.Lock()
	defer b.toldMu.Unlock()
	if last, known := b.told[reason]; known && time.Since(last) < repeat.Every || !known && len(b.told) >= maxTold {
		return false
	}
	if b.told == nil {
		b.told = map[string]time.Time{}
	}
	b.told[reason] = time.Now()
	return true
}

// Connected reports whether the server answers now.
func (b *Bus) Connected() bool { return b.conn.IsConnected() }

// AwaitConnection returns when the server answers, or with the reason why it did not before
// ctx ended.
func (b *Bus) AwaitConnection(ctx context.Context) error {
	for !b.Connected() {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return b.notConnected()
		}
	}
	return nil
}

// Ready says nil when the bus works, and otherwise why not.
func (b *Bus) Ready() error {
	if !b.Connected() {
		return b.notConnected()
	}
	if !b.prepared.Load() {
		if why := b.unprepared.Load(); why != nil {
			return fmt.Errorf("NATS streams are not ready: %w", *why)
		}
		return errors.New("NATS streams are not prepared yet")
	}
	if silence := b.silence.Load(); silence != nil {
		return *silence
	}
	return nil
}

// Prepared reports whether the streams are as they should be.
func (b *Bus) Prepared() bool { return b.prepared.Load() }

func (b *Bus) notConnected() error {
	err := b.conn.LastError()
	if last := b.trouble.Load(); err == nil && last != nil {
		err = *last
	}
	if err == nil {
		return fmt.Errorf("NATS (%s) is not connected", b.servers)
	}
	return fmt.Errorf("NATS (%s) is not connected: %w", b.servers, err)
}

// JetStream is for the journal, which keeps its bucket on the same server.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// JournalBucket is the name of the journal's bucket, Replicas how many copies it has.
func (b *Bus) JournalBucket() string { return b.names.journalBucket() }

// Replicas is how many copies streams and buckets have.
func (b *Bus) Replicas() int { return max(b.cfg.Replicas, 1) }

// ListenURL is where the embedded server's listener accepts publishers; empty where
// there is none.
func (b *Bus) ListenURL() string {
	if b.store == nil || b.store.door == nil {
		return ""
	}
	return "nats://" + b.store.door.Addr().String()
}

// Close sends what is buffered, closes the connection and stops the embedded server.
func (b *Bus) Close() error {
	if b.unwatch != nil {
		b.unwatch()
	}
	flush, cancel := context.WithTimeout(context.Background(), connectWait)
	defer cancel()
	var err error
	if b.conn.IsConnected() {
		err = b.conn.FlushWithContext(flush)
	}
	b.conn.Close()
	b.stopEmbedded()
	if err != nil {
		return fmt.Errorf("flush NATS connection: %w", err)
	}
	return nil
}

// isMissing reports whether an error of the JetStream API says that a stream,
// consumer or key is not there.
func isMissing(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound)
}

// shortReason is an error of the server on one line.
func shortReason(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
