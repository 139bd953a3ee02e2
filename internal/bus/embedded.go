package bus

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// startWait bounds the start of the embedded server: it reads its store first.
	startWait = 60 * time.Second
	// internalUser is rotatord itself on its own embedded server, with a password
	// that only this process knows.
	internalUser = "rotatord-internal"
	// localUser is anybody who comes in over the listener without a name.
	localUser = "local"
)

// startEmbedded starts the server and returns the options for connecting to it
// inside the process.
func (b *Bus) startEmbedded() ([]nats.Option, error) {
	if err := os.MkdirAll(b.cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the NATS store directory: %w", err)
	}
	password := rand.Text()
	logger := &serverLogger{log: b.log.With("component", "nats-server"), fatal: make(chan string, 1)}
	options, err := b.serverOptions(password)
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	if err := waitReady(s, logger); err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("start the embedded NATS server: %w", err)
	}
	b.server = s
	return []nats.Option{nats.InProcessServer(s), nats.UserInfo(internalUser, password)}, nil
}

// accounts are the two worlds of the embedded server. Whoever comes in over the
// listener is in the second, which has no streams and sees of the first only what is
// shared; permissions alone would not do, since the server's answer to a trigger goes
// wherever the sender's reply subject says, be it the work queue.
const accounts = `accounts: {rotatord: {jetstream: enabled}, local: {}}`

func (b *Bus) serverOptions(password string) (*server.Options, error) {
	o := &server.Options{}
	if err := o.ProcessConfigString(accounts); err != nil {
		return nil, err
	}
	own, local := accountNamed(o, "rotatord"), accountNamed(o, "local")
	o.ServerName = "rotatord-" + b.cfg.Node
	o.JetStream = true
	o.StoreDir = b.cfg.StoreDir
	o.SyncAlways = true
	o.NoSigs = true
	o.DontListen = b.cfg.Listener == nil
	o.Users = []*server.User{{Username: internalUser, Password: password, Account: own}}
	l := b.cfg.Listener
	if l == nil {
		return o, nil
	}
	o.Host, o.Port = l.Host, l.Port
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
			return errors.New(why)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it was not ready after %s", startWait)
		}
	}
	return nil
}

func (b *Bus) stopEmbedded() {
	if b.server == nil {
		return
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// serverLogger sends the embedded server's log to ours, a level lower: what matters
// to an operator is said by rotatord itself. The server calls Fatalf for what keeps
// it from starting and expects to be ended by it; here it is handed on instead.
type serverLogger struct {
	log   *slog.Logger
	fatal chan string
}

func (l *serverLogger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Errorf(format string, v ...any)  { l.log.Warn(fmt.Sprintf(format, v...)) }

func (l *serverLogger) Warnf(format string, v ...any) {
	// Passwords that are in this process's memory only are not in a file for anybody to
	// read, which is what the server warns of.
	if !strings.HasPrefix(format, "Plaintext passwords detected") {
		l.log.Info(fmt.Sprintf(format, v...))
	}
}

func (l *serverLogger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
