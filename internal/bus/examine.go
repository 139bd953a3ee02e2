package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Finding is what would go wrong with an external server.
type Finding struct {
	// Warning says that rotatord can work all the same.
	Warning bool
	// Subject is the one that it is about; empty where it is about none.
	Subject string
	// Field of the configuration's nats that would have to change; empty where it is none.
	Field   string
	Message string
}

// Examine asks an external server whether rotatord could work with it. It makes nothing
// there, and sends nothing that anybody else would hear.
func Examine(ctx context.Context, cfg Config) []Finding {
	e := &examination{Bus: &Bus{names: names{cfg.Prefix}, cfg: cfg, log: cfg.Logger, subjects: cfg.Subjects}}
	if err := e.connect(ctx); err != nil {
		return append(e.found, Finding{Field: "url", Message: fmt.Sprintf("NATS (%s) cannot be used: %v", e.servers, err)})
	}
	defer e.conn.Close()
	if err := outdated(e.conn.ConnectedServerVersion()); err != nil {
		return append(e.found, Finding{Field: "url", Message: fmt.Sprintf("NATS (%s) cannot be used: %v", e.servers, err)})
	}
	e.permissions(ctx)
	if !e.jetStream(ctx) {
		return e.found
	}
	for _, want := range []jetstream.StreamConfig{e.triggerConfig(), e.workConfig(), e.eventConfig(), e.bucketConfig()} {
		e.stream(ctx, want)
	}
	return e.found
}

// examination is a Bus that is only asked with.
type examination struct {
	*Bus
	found []Finding
}

func (e *examination) add(f Finding, format string, args ...any) {
	f.Message = fmt.Sprintf(format, args...)
	e.found = append(e.found, f)
}

// connect tries once. What the daemon tries again and again is here a finding.
func (e *examination) connect(ctx context.Context) (err error) {
	if e.servers, err = hostsOf(e.cfg.URL); err != nil {
		return err
	}
	options, err := e.connectOptions()
	if err != nil {
		return err
	}
	quiet := []nats.Option{
		nats.RetryOnFailedConnect(false), nats.NoReconnect(), nats.ReconnectErrHandler(nil),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // refusals are said by what was asked
	}
	if deadline, ok := ctx.Deadline(); ok {
		quiet = append(quiet, nats.Timeout(min(connectWait, time.Until(deadline))))
	}
	if e.conn, err = nats.Connect(e.cfg.URL, append(options, quiet...)...); errors.Is(err, nats.ErrNoServers) {
		return errors.New("the connection is refused") // what the library calls no server
	}
	if err != nil {
		return err
	}
	e.js, err = jetstream.New(e.conn)
	return err
}

// jetStream reports whether it answers.
func (e *examination) jetStream(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	account, err := e.js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		e.add(Finding{Field: "url"}, "JetStream is not enabled on the NATS server (%s)", e.servers)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		e.add(Finding{Field: "url"}, "JetStream is not enabled for this user's account on the NATS server (%s)", e.servers)
	case err != nil:
		e.add(Finding{Field: "url"}, "JetStream of the NATS server (%s) does not answer; is it enabled, and may this user publish to $JS.API.>? %v", e.servers, err)
	default:
		e.limits(account)
		return true
	}
	return false
}

func (e *examination) limits(a *jetstream.AccountInfo) {
	if most := a.Limits.MaxStore; most > 0 && most < triggerBytes+eventBytes {
		e.add(Finding{Warning: true, Field: "url"}, "this user's account may store %d MiB, and rotatord's streams may grow to %d MiB", most>>20, (triggerBytes+eventBytes)>>20)
	}
}

func (e *examination) bucketConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{Name: "KV_" + e.JournalBucket(), Subjects: []string{"$KV." + e.JournalBucket() + ".>"}, Replicas: e.Replicas()}
}

// stream looks whether a stream can be used as it is, or could be made.
func (e *examination) stream(ctx context.Context, want jetstream.StreamConfig) {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	info, err := e.js.Stream(ctx, want.Name)
	var has []string
	switch {
	case err == nil:
		have := info.CachedInfo().Config
		has = have.Subjects
		if problem := unusable(have, want); problem != "" && !strings.HasPrefix(want.Name, "KV_") {
			e.add(Finding{Field: "prefix"}, "stream %s is there already, and %s", want.Name, problem)
		}
		if have.Replicas < want.Replicas {
			e.add(Finding{Warning: true, Field: "replicas"}, "stream %s has %d replicas and not %d: rotatord does not change what is there", want.Name, have.Replicas, want.Replicas)
		}
	case !isMissing(err):
		e.add(Finding{Field: "prefix"}, "stream %s cannot be looked at: %v", want.Name, err)
		return
	case want.Replicas > 1 && e.conn.ConnectedClusterName() == "":
		e.add(Finding{Field: "replicas"}, "stream %s is to have %d replicas, and the server is no member of a cluster", want.Name, want.Replicas)
	}
	for _, subject := range want.Subjects {
		if !missingSubjects(has, []string{subject}) {
			continue
		}
		if other := e.holderOf(ctx, subject, want.Name); other != "" {
			e.add(Finding{Subject: subject}, "subject %s is captured by stream %s already, and a subject can be of one stream only", subject, other)
		}
	}
}

// holderOf is the stream that has a subject which overlaps with this one; empty for none.
func (e *examination) holderOf(ctx context.Context, subject, but string) string {
	streams := e.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
	var other string
	for name := range streams.Name() {
		if name != but {
			other = name
		}
	}
	return other
}

// permissions compares what the server lets this user do with what rotatord does. A server
// that does not tell is believed to allow it.
func (e *examination) permissions(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, infoWait)
	defer cancel()
	answer, err := e.conn.RequestWithContext(ctx, "$SYS.REQ.USER.INFO", nil)
	if err != nil {
		return
	}
	var info struct {
		Data struct {
			Permissions struct {
				Publish, Subscribe *permission
			} `json:"permissions"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.Data, &info) != nil {
		return
	}
	for _, right := range []struct {
		verb    string
		have    *permission
		samples []string
	}{
		{"publish to", info.Data.Permissions.Publish, e.published()},
		{"subscribe to", info.Data.Permissions.Subscribe, []string{e.names.inbox() + ".x", e.names.control("status")}},
	} {
		for _, subject := range right.samples {
			if !right.have.allows(subject) {
				e.add(Finding{Field: e.loginField()}, "this user of NATS may not %s %s", right.verb, subject)
			}
		}
	}
}

// infoWait is how long a server may take to tell a user's permissions.
const infoWait = 2 * time.Second

// published are subjects of every kind that rotatord publishes to.
func (e *examination) published() []string {
	trigger, work := e.names.triggerStream(), e.names.workStream()
	return []string{
		e.names.event("policy", "planned"), e.names.workFor(Any, ID{"policy", "certificate"}),
		"$KV." + e.JournalBucket() + ".policy.certificate",
		"$JS.API.STREAM.CREATE." + trigger, "$JS.API.STREAM.UPDATE." + trigger, "$JS.API.STREAM.INFO." + trigger,
		"$JS.API.CONSUMER.CREATE." + work + ".x", "$JS.API.CONSUMER.MSG.NEXT." + work + ".x", "$JS.ACK." + work + ".x",
	}
}

func (e *examination) loginField() string {
	switch {
	case e.cfg.CredentialsFile != "":
		return "credentials_file"
	case e.cfg.NKeySeedFile != "":
		return "nkey_seed_file"
	case e.cfg.User != "":
		return "user"
	}
	return "url"
}

// permission is what a server tells of one.
type permission struct{ Allow, Deny []string }

func (p *permission) allows(subject string) bool {
	if p == nil {
		return true
	}
	holds := func(pattern string) bool {
		pattern, _, _ = strings.Cut(pattern, " ") // what follows is a queue
		return covers(pattern, subject)
	}
	return (len(p.Allow) == 0 || slices.ContainsFunc(p.Allow, holds)) && !slices.ContainsFunc(p.Deny, holds)
}
