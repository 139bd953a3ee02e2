package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Verb answers one request of the micro service with a status as HTTP has it and a body.
type Verb func(ctx context.Context, by Asker, request []byte) (status int, answer []byte)

// Asker is who asks, as far as the server vouches for it: it does where the request comes from
// another account, and names the user where the import shares that (share: true). Within the
// daemon's own account it says nothing.
type Asker struct {
	Account string `json:"acc"`
	User    string `json:"user"`
}

const (
	// requestInfo is the header in which a server says whose a request is that it takes from
	// another account, in place of what the client may have put there.
	requestInfo = "Nats-Request-Info"
	// importedReply begins the reply subjects of such requests.
	importedReply = "_R_."
	// maxAsker is the longest name that is taken over, in bytes.
	maxAsker = 128
)

// askerOf reads who asks.
func askerOf(reply, header string) (by Asker) {
	if !strings.HasPrefix(reply, importedReply) || json.Unmarshal([]byte(header), &by) != nil {
		return Asker{}
	}
	return Asker{Account: cut(by.Account, maxAsker), User: cut(by.User, maxAsker)}
}

const (
	// serviceName is how `nats micro` calls the service.
	serviceName = "rotatord"
	// serviceWorkers is how many requests are answered at once.
	serviceWorkers = 16
	statusOK       = 200
	tooLarge       = 413
)

// Serve offers the verbs as a micro service until ctx ends: each at
// <prefix>.control.<verb>, where one of the daemons answers, and at
// <prefix>.control.<node>.<verb>, where this one does. An answer that is no success has
// the status in the header Nats-Service-Error-Code (NATS ADR-32).
func (b *Bus) Serve(ctx context.Context, version string, verbs map[string]Verb) error {
	service, err := micro.AddService(b.conn, micro.Config{
		Name: serviceName, Version: version, Description: "Certificate rotation daemon", Metadata: map[string]string{"node": b.cfg.Node},
	})
	if err != nil {
		return fmt.Errorf("offer the NATS micro service: %w", err)
	}
	var answering sync.WaitGroup
	defer answering.Wait()
	defer func() { _ = service.Stop() }()
	slots := make(chan struct{}, serviceWorkers)
	for name, verb := range verbs {
		handler := micro.HandlerFunc(func(r micro.Request) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			answering.Go(func() {
				defer func() { <-slots }()
				b.answer(ctx, name, r, verb)
			})
		})
		own := b.control(Token(b.cfg.Node) + "." + name)
		if err := service.AddEndpoint(name, handler, micro.WithEndpointSubject(b.control(name))); err != nil {
			return fmt.Errorf("offer %s over NATS: %w", name, err)
		}
		if err := service.AddEndpoint(name+"-here", handler, micro.WithEndpointSubject(own)); err != nil {
			return fmt.Errorf("offer %s over NATS: %w", name, err)
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b *Bus) answer(ctx context.Context, name string, r micro.Request, verb Verb) {
	status, body := verb(ctx, askerOf(r.Reply(), r.Headers().Get(requestInfo)), r.Data())
	if most := b.conn.MaxPayload(); int64(len(body)) > most {
		status, body = tooLarge, fmt.Appendf(nil, `{"error":"the answer has %d bytes, and the NATS server takes %d; ask for one policy or certificate"}`, len(body), most)
	}
	// Not by the request's own methods: the library reads the request when its handler has
	// returned, and this is later.
	m := nats.NewMsg(r.Reply())
	m.Data = body
	if status != statusOK {
		m.Header.Set(micro.ErrorHeader, name+" failed")
		m.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(status))
	}
	if err := b.conn.PublishMsg(m); err != nil {
		b.cfg.Meter.Message("control", "failed")
		b.log.Debug("an answer could not be sent", "verb", name, "err", err)
		return
	}
	b.cfg.Meter.Message("control", "ack")
}
