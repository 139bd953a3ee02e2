package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/repeat"
)

const (
	// startWait bounds the start of the embedded server: it reads its store first.
	startWait = 60 * time.Second
	// noLimit is the size of the store: each stream has its own.
	noLimit = 1 << 50
	// internalUser is rotatord itself on its own embedded server, with a password
	// that only this process knows.
	internalUser = "rotatord-internal"
	// localUser is anybody who comes in over the listener without a name.
	localUser = "local"

	// What those who come in over the listener may have together, and each of them: without
	// bounds one of them could have this process hold as much memory as there is.
	maxLocals        = 64
	maxSubscriptions = 16
	maxPayload       = 2 * maxTrigger // what is over maxTrigger the stream refuses in words
	// silence is after which time somebody who says nothing is asked whether he is still there,
	// and writeWait how long he may take to read.
	silence   = 20 * time.Second
	writeWait = 5 * time.Second
)

// embedded is the server in this process, with somebody to look after its store: a stream
// that could not be written once refuses everything until the server is started anew, and a
// stream that cannot be read is not there at all. Neither is to need a hand. The client
// connects through it, and so finds the server that runs now.
type embedded struct {
	dir     string
	log     *slog.Logger
	options func() (*server.Options, error)
	stop    context.CancelFunc
	stopped sync.WaitGroup

	// suspect has room for one: the server complained of something.
	suspect chan struct{}

	// changing is held by who ends the server or starts it: there is never more than one on a
	// store.
	changing sync.Mutex

	mu sync.Mutex
	// running is nil while trouble keeps the server from it.
	running *server.Server
	trouble error
	// door is the listener, which stays while servers come and go; nil for none.
	door *door
}

// startEmbedded starts the server and returns the options for connecting to it inside the
// process. A disk that is full, read-only or failing is no error: the server starts when
// it is well again.
func (b *Bus) startEmbedded() ([]nats.Option, error) {
	password := rand.Text()
	e := &embedded{dir: b.cfg.StoreDir, log: b.log, suspect: make(chan struct{}, 1), options: func() (*server.Options, error) { return b.serverOptions(password) }}
	if err := e.listen(b.cfg.Listener); err != nil {
		return nil, err
	}
	s, err := e.start()
	if err != nil {
		if !IsPassing(err) {
			e.lock()
			return nil, err
		}
		e.down(err)
		if s, err = e.newServer(); err != nil { // it stands for the one to come, and is not started
			e.lock()
			return nil, err
		}
	}
	if e.door != nil {
		e.door.serve()
	}
	b.server, b.store = s, e
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.stopped.Go(func() { e.keep(ctx) })
	return []nats.Option{nats.InProcessServer(e), nats.UserInfo(internalUser, password)}, nil
}

func (b *Bus) stopEmbedded() {
	if b.store != nil {
		b.store.close()
	}
}

// InProcessConn implements nats.InProcessConnProvider.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		return nil, e.trouble
	}
	return e.running.InProcessConn()
}

// listen binds the listener, if there is to be one.
func (e *embedded) listen(l *Listener) (err error) {
	if l == nil {
		return nil
	}
	port := cmp.Or(l.Port, server.DEFAULT_PORT)
	if e.door, err = openDoor(net.JoinHostPort(l.Host, strconv.Itoa(max(0, port))), e.InProcessConn); err != nil {
		return fmt.Errorf("listen for local publishers: %w", err)
	}
	return nil
}

// lock closes the listener.
func (e *embedded) lock() {
	if e.door != nil {
		e.door.close()
	}
}

func (e *embedded) close() {
	e.lock()
	e.stop()
	e.stopped.Wait()
	e.down(errors.New("the embedded NATS server is stopped"))
}

// restart ends the server and has it start anew, with options made anew.
func (e *embedded) restart() {
	e.changing.Lock()
	defer e.changing.Unlock()
	e.down(errors.New("the embedded NATS server is started anew"))
	if _, err := e.start(); err != nil {
		e.down(err) // keep goes on trying
	}
}

// down stops the server, if it runs. Whoever connects hears why.
func (e *embedded) down(why error) {
	e.mu.Lock()
	s := e.running
	e.running, e.trouble = nil, why
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

const (
	// checkStore is how long after a complaint the server is asked how its store is, and the
	// first pause between two attempts to start it anew, each of which is twice the one before.
	checkStore    = time.Second
	maxStartPause = 30 * time.Second
	// checkAnyway is when it is asked although it does not complain.
	checkAnyway = 15 * time.Second
	// streamsFolder is where the server has the streams of an account.
	streamsFolder = "streams"
)

// keep starts the server anew when its store fails, and says so when the reason changes,
// until ctx ends.
func (e *embedded) keep(ctx context.Context) {
	var failure repeat.Failure
	say := func(err error) {
		if times, tell := failure.Met(err.Error()); tell {
			e.log.Error("the NATS store fails; nothing is rotated until it can be written again", "path", e.dir, "times", times, "err", err)
		}
	}
	if err := e.problem(); err != nil {
		say(err)
	}
	for wait := checkStore; ; {
		if wait == 0 {
			e.awaitComplaint(ctx)
			wait = checkStore
		}
		if pause(ctx, wait) != nil {
			return
		}
		switch mended, err := e.mend(say); {
		case err != nil:
			say(err)
			wait = min(2*wait, maxStartPause)
		case mended:
			e.log.Info("the NATS store can be written again", "path", e.dir)
			wait = checkStore
		default:
			wait = 0 // all is well
			failure.Over()
		}
	}
}

// awaitComplaint returns when the server has complained, or been silent for a while. A write
// that fails makes it complain before it counts as failed.
func (e *embedded) awaitComplaint(ctx context.Context) {
	select {
	case <-e.suspect:
	case <-ctx.Done():
	case <-time.After(checkAnyway):
	}
}

// complain notes that the server said something that may be the end of its store.
func (e *embedded) complain() {
	select {
	case e.suspect <- struct{}{}:
	default:
	}
}

// mend starts the server anew if something is wrong with it.
func (e *embedded) mend(say func(error)) (mended bool, err error) {
	e.changing.Lock()
	defer e.changing.Unlock()
	problem := e.problem()
	if problem == nil {
		return false, nil
	}
	say(problem)
	e.down(problem)
	if _, err := e.start(); err != nil {
		e.down(err)
		return false, err
	}
	return true, nil
}

// problem is why the server does not run, or cannot store; nil for none.
func (e *embedded) problem() error {
	e.mu.Lock()
	s, trouble := e.running, e.trouble
	e.mu.Unlock()
	if s == nil {
		return trouble
	}
	for _, h := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if h.Type == server.HealthzErrorJetStream || h.Type == server.HealthzErrorStream && !isUnreadable(h) {
			return errors.New(h.Error)
		}
	}
	return nil
}

// isUnreadable tells a stream that is on the disk and not in the server from one that the
// server has and cannot write.
func isUnreadable(h server.HealthzError) bool {
	return h.Type == server.HealthzErrorStream && strings.HasSuffix(h.Error, "could not be recovered")
}

// start makes one attempt. What cannot be read of the store is set aside: what is lost with
// it is history, and costs looks at the cloud.
func (e *embedded) start() (*server.Server, error) {
	if err := e.probe(); err != nil {
		return nil, err
	}
	if err := e.forgetIndex(); err != nil {
		return nil, err
	}
	aside := e.dir + ".broken-" + time.Now().UTC().Format("20060102T150405.000Z")
	s, err := e.serve()
	if spoilt, ok := errors.AsType[*spoiltStore](err); ok {
		if err := e.setAside(server.JetStreamStoreDir, aside, spoilt.why); err != nil {
			return nil, err
		}
		s, err = e.serve()
	}
	if err == nil {
		if err = e.setAsideUnreadable(s, aside); err != nil {
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("start the embedded NATS server: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.trouble = s, nil
	return s, nil
}

// forgetIndex makes the server read its messages, which carry checksums, at each start and
// not only what it wrote down of them when it ended. A message that went bad in between would
// be found later, one by one, by writes that fail and reads that find nothing.
func (e *embedded) forgetIndex() error {
	files, err := filepath.Glob(filepath.Join(e.dir, server.JetStreamStoreDir, "*", streamsFolder, "*", "msgs", "index.db"))
	for _, file := range files {
		err = errors.Join(err, removed(file))
	}
	return err
}

// probeSize is more than a rotation writes.
const probeSize = 256 << 10

// probe finds out whether the store can be written, in words for an operator.
func (e *embedded) probe() error {
	err := os.MkdirAll(e.dir, 0o700)
	if err == nil {
		path := filepath.Join(e.dir, ".probe")
		err = writeSynced(path, make([]byte, probeSize))
		if removal := removed(path); err == nil {
			err = removal
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk of the NATS store is full; make room, it goes on by itself then: %w", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the NATS store is mounted read-only; mount it writable, it goes on by itself then: %w", err)
	case IsPassing(err):
		return fmt.Errorf("the disk of the NATS store fails; it goes on by itself when that is over: %w", err)
	}
	return fmt.Errorf("use the NATS store: %w", err)
}

// IsPassing reports whether an error is a disk's that may be well again without a hand.
func IsPassing(err error) bool {
	for _, passing := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// removed removes a file that may not be there.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setAsideUnreadable sets the streams and consumers aside that are on the disk and that the
// server could not read. They are made anew by whoever needs them.
func (e *embedded) setAsideUnreadable(s *server.Server, aside string) error {
	unreadable := map[string]string{}
	for _, h := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if isUnreadable(h) && !strings.HasPrefix(h.Stream, ".") { // the server's own rubbish has a dot
			unreadable[filepath.Join(server.JetStreamStoreDir, h.Account, streamsFolder, h.Stream)] = h.Error
		}
	}
	consumers, err := filepath.Glob(filepath.Join(e.dir, server.JetStreamStoreDir, "*", streamsFolder, "*", "obs", "*"))
	if err != nil {
		return err
	}
	for _, path := range consumers {
		stream := filepath.Dir(filepath.Dir(path))
		if _, known := unreadable[strings.TrimPrefix(stream, e.dir+"/")]; known {
			continue
		}
		account := filepath.Base(filepath.Dir(filepath.Dir(stream)))
		for _, h := range s.Healthz(&server.HealthzOptions{Account: account, Stream: filepath.Base(stream), Consumer: filepath.Base(path), Details: true}).Errors {
			if h.Type == server.HealthzErrorConsumer {
				unreadable[strings.TrimPrefix(path, e.dir+"/")] = h.Error
			}
		}
	}
	for _, part := range slices.Sorted(maps.Keys(unreadable)) {
		if err := e.probe(); err != nil {
			return err // the disk is what is wrong
		}
		if err := e.setAside(part, aside, unreadable[part]); err != nil {
			return err
		}
	}
	return nil
}

// setAside moves a part of the store out of the way, for whoever wants to look at it.
func (e *embedded) setAside(part, aside, why string) error {
	to := filepath.Join(aside, part)
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(filepath.Join(e.dir, part), to)
	}
	if err != nil {
		return fmt.Errorf("set a broken part of the NATS store aside: %w", err)
	}
	e.log.Error("a part of the NATS store cannot be read; it is set aside and begun anew, and what was in it is looked up at the targets",
		"path", filepath.Join(e.dir, part), "moved_to", to, "err", why)
	return nil
}

// spoiltStore is the error of a server that cannot do anything with its store.
type spoiltStore struct{ why string }

func (s *spoiltStore) Error() string { return s.why }

func (e *embedded) newServer() (*server.Server, error) {
	options, err := e.options()
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(&serverLogger{log: e.log.With("component", "nats-server"), complain: e.complain, fatal: make(chan string, 1)}, false, false, false)
	return s, nil
}

// serve starts a server and waits until it answers.
func (e *embedded) serve() (*server.Server, error) {
	s, err := e.newServer()
	if err != nil {
		return nil, err
	}
	s.Start()
	if err := waitReady(s, s.Logger().(*serverLogger)); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	return s, nil
}

// accounts are the two worlds of the embedded server. Whoever comes in over the
// listener is in the second, which has no streams and sees of the first only what is
// shared; permissions alone would not do, since the server's answer to a trigger goes
// wherever the sender's reply subject says, be it the work queue.
const accounts = `accounts: {rotatord: {jetstream: enabled}, local: {limits: {max_connections: %d, max_subscriptions: %d, max_payload: %d}}}`

func (b *Bus) serverOptions(password string) (*server.Options, error) {
	o := &server.Options{}
	if err := o.ProcessConfigString(fmt.Sprintf(accounts, maxLocals, maxSubscriptions, maxPayload)); err != nil {
		return nil, err
	}
	own, local := accountNamed(o, "rotatord"), accountNamed(o, "local")
	o.ServerName = "rotatord-" + b.cfg.Node
	o.JetStream = true
	o.StoreDir = b.cfg.StoreDir
	// Without it the limit is worked out of what is free at the start, and on a disk that is
	// full then the streams that are there would count as too large.
	o.JetStreamMaxStore = noLimit
	o.SyncAlways = true
	o.NoSigs = true
	o.DontListen = true // who comes from outside comes through our own door
	o.Users = []*server.User{{Username: internalUser, Password: password, Account: own}}
	l := b.cfg.Listener
	if l == nil {
		return o, nil
	}
	o.Host, o.PingInterval, o.WriteDeadline = l.Host, silence, writeWait
	publisher := &server.User{Username: l.User, Password: l.Password, Account: local, Permissions: b.publisherPermissions()}
	if l.User == "" {
		publisher.Username, publisher.Password = localUser, rand.Text()
		o.NoAuthUser = localUser
	}
	o.Users = append(o.Users, publisher)
	return o, b.share(own, local)
}

func accountNamed(o *server.Options, name string) *server.Account {
	return o.Accounts[slices.IndexFunc(o.Accounts, func(a *server.Account) bool { return a.Name == name })]
}

// share lets local clients send triggers, with an answer if they want one, and hear
// events.
func (b *Bus) share(own, local *server.Account) error {
	for _, subject := range b.triggerSubjects() {
		if err := own.AddServiceExport(subject, nil); err != nil {
			return fmt.Errorf("share subject %q: %w", subject, err)
		}
		if err := local.AddServiceImport(own, subject, subject); err != nil {
			return fmt.Errorf("share subject %q: %w", subject, err)
		}
	}
	if err := own.AddStreamExport(b.names.events(), nil); err != nil {
		return fmt.Errorf("share events: %w", err)
	}
	if err := local.AddStreamImport(own, b.names.events(), ""); err != nil {
		return fmt.Errorf("share events: %w", err)
	}
	return nil
}

// publisherPermissions let a local client publish triggers and listen to events and
// answers. What else it tries is refused with a message, not ignored.
func (b *Bus) publisherPermissions() *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: b.triggerSubjects()},
		Subscribe: &server.SubjectPermission{Allow: []string{b.names.events(), "_INBOX.>"}},
	}
}

func waitReady(s *server.Server, logger *serverLogger) error {
	deadline := time.Now().Add(startWait)
	for !s.ReadyForConnections(50 * time.Millisecond) {
		select {
		case why := <-logger.fatal:
			if strings.HasPrefix(why, "Can't start JetStream") {
				return &spoiltStore{why}
			}
			return errors.New(why)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it was not ready after %s", startWait)
		}
	}
	return nil
}

// serverLogger sends the embedded server's log to ours, a level lower: what matters
// to an operator is said by rotatord itself. The server calls Fatalf for what keeps
// it from starting and expects to be ended by it; here it is handed on instead.
type serverLogger struct {
	log *slog.Logger
	// complain is called with every warning and error.
	complain func()
	fatal    chan string

	mu sync.Mutex
	// said are the lines since the time begun.
	begun time.Time
	said  int
}

const (
	// maxSaid is how many lines a minute are shown of what a client can have the server say.
	maxSaid    = 20
	saidPeriod = time.Minute
)

// level is that of a line, unless there are too many: whoever can reach the listener could
// fill the disk with them.
func (l *serverLogger) level(of slog.Level) slog.Level {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.begun) > saidPeriod {
		l.begun, l.said = now, 0
	}
	switch l.said++; {
	case l.said == maxSaid+1:
		l.log.Warn("the NATS server complains a lot; more of it is shown with debug logging", "times", maxSaid, "period", saidPeriod)
		fallthrough
	case l.said > maxSaid:
		return slog.LevelDebug
	}
	return of
}

func (l *serverLogger) say(level slog.Level, format string, v ...any) {
	l.complain()
	l.log.Log(context.Background(), l.level(level), fmt.Sprintf(format, v...))
}

func (l *serverLogger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Errorf(format string, v ...any)  { l.say(slog.LevelWarn, format, v...) }

func (l *serverLogger) Warnf(format string, v ...any) {
	// Passwords that are in this process's memory only are not in a file for anybody to
	// read, which is what the server warns of.
	if !strings.HasPrefix(format, "Plaintext passwords detected") {
		l.say(slog.LevelInfo, format, v...)
	}
}

func (l *serverLogger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
