package bus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

// bubble is synctest.Test for what talks to NATS. Its client pools timers for all connections, and
// one that was made in a bubble must not be used outside of it: two collections empty the pool.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer runtime.GC()
	defer runtime.GC()
	synctest.Test(t, f)
}

// TestMain keeps the server's clock goroutine alive outside of all synctest bubbles: a
// bubble in which it was started would never become idle.
func TestMain(m *testing.M) {
	// What is parallel waits, for a server or a disk. -parallel says otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	ats.Register()
	code := m.Run()
	ats.Unregister()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// patience bounds every wait of these tests. It is reached only when something is
// broken.
const patience = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// receive waits for a value.
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

// eventually asks until the answer is yes, for states that nobody announces.
func eventually(t testing.TB, what string, yes func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !yes(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// tally is a Meter.
type tally struct {
	mu          sync.Mutex
	messages    map[string]int
	reconnected int
}

func (m *tally) Message(subject, result string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.messages == nil {
		m.messages = map[string]int{}
	}
	m.messages[subject+" "+result]++
}

func (m *tally) Reconnected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reconnected++
}

func (m *tally) count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.messages[what]
}

// logs is a log that can be read while it is written.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// config is an embedded bus on a directory.
func config(t testing.TB, dir string) Config {
	return Config{
		Prefix: "rotatord", Node: "node-1", StoreDir: dir, Meter: &tally{},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// open opens a bus until the test ends, or the test closes it.
func open(t testing.TB, cfg Config) *Bus {
	t.Helper()
	b, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// prepared opens a bus with its streams.
func prepared(t testing.TB, cfg Config) *Bus {
	t.Helper()
	b := open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, b.Prepare(ctx))
	return b
}

// running is a part of a bus that runs in the background.
type running struct {
	cancel context.CancelFunc
	ended  chan error
}

// background runs f until stop.
func background(t testing.TB, f func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel, make(chan error, 1)}
	go func() { r.ended <- f(ctx) }()
	t.Cleanup(cancel)
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := receive(t, r.ended, "the end of a background task"); !errors.Is(err, context.Canceled) {
		t.Errorf("background task ended with %v", err)
	}
}

// hear runs Triggers and hands each one over a channel.
func hear(t testing.TB, b *Bus) (*running, <-chan Trigger) {
	c := make(chan Trigger, 100)
	r := background(t, func(ctx context.Context) error {
		return b.Triggers(ctx, func(tr Trigger) { c <- tr })
	})
	return r, c
}

// work runs one worker a place.
func work(t testing.TB, b *Bus, workers int, handle func(context.Context, Work) error, done func(ID)) *running {
	if done == nil {
		done = func(ID) {}
	}
	return background(t, func(ctx context.Context) error { return b.Work(ctx, func() int { return workers }, handle, done) })
}

// withListener adds a listener on a free port.
func withListener(cfg Config) Config {
	cfg.Listener = &Listener{Host: "127.0.0.1", Port: -1}
	return cfg
}

// dial connects a plain client, as a deploy hook would.
func dial(t testing.TB, url string, options ...nats.Option) *nats.Conn {
	t.Helper()
	c, err := nats.Connect(url, options...)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// send publishes without JetStream and returns when the server has it.
func send(t testing.TB, c *nats.Conn, subject, body string) {
	t.Helper()
	must(t, c.Publish(subject, []byte(body)))
	must(t, c.Flush())
}

// freePort is a port that nobody listened on a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// external starts a server that stands for one elsewhere. It can be killed and started
// again on the same port and store.
func external(t testing.TB, port int, store string, change func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: store, NoSigs: true, NoLog: true}
	if change != nil {
		change(o)
	}
	s, err := server.NewServer(o)
	must(t, err)
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the external server did not start")
	}
	t.Cleanup(func() { kill(s) })
	return s
}

func kill(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// selfSigned makes a certificate for 127.0.0.1 and the pool that trusts it.
func selfSigned(t testing.TB) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return pool, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// long is eventually for what takes its time on a slow machine.
func long(t testing.TB, what string, yes func() bool) {
	t.Helper()
	const patience = 5 * time.Minute
	for deadline := time.Now().Add(patience); !yes(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// scratch is a temporary directory in memory where there is one: 100,000 synced writes take
// minutes on some disks.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rotatord-bus-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}
