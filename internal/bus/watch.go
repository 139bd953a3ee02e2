package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// askServer is the pause between two questions whether JetStream is there, and the time
	// for an answer. A cluster that looks for a new leader is silent for 4 to 8 s.
	askServer = 5 * time.Second
	// maxSilence is how many questions in a row may stay without an answer.
	maxSilence = 2
)

// watchServer asks until ctx ends whether JetStream answers, and goes to another server when
// it does not. A connection alone says little: a server that is parted from its cluster, or
// stands still, keeps its clients, and they would wait for as long as that lasts.
func (b *Bus) watchServer(ctx context.Context, every time.Duration) {
	silent := 0
	for pause(ctx, every) == nil {
		if !b.Connected() {
			silent = 0
			continue
		}
		server := b.conn.ConnectedUrlRedacted()
		err := b.askJetStream(ctx, every)
		if err == nil || ctx.Err() != nil {
			silent = 0
			b.silence.Store(nil)
			continue
		}
		err = fmt.Errorf("JetStream does not answer at %s: %w", server, err)
		b.silence.Store(&err)
		b.log.Debug("nats server is silent", "err", err)
		if silent++; silent < maxSilence {
			continue
		}
		silent = 0
		b.log.Warn("nats server is left for another: JetStream does not answer", "server", server)
		if err := b.conn.ForceReconnect(); err != nil {
			b.log.Debug("nats server cannot be left", "err", err)
		}
	}
}

// askJetStream fails where nothing answers, or only a server that knows of no leader: it may
// be parted from those who do. What is answered otherwise does not matter: other parts say
// what is wrong with it.
func (b *Bus) askJetStream(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	m, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+b.workStream(), nil)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil // there is no JetStream; Prepare says so
	}
	if err != nil {
		return err
	}
	var answer struct {
		Error struct {
			Code        int    `json:"code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err == nil && answer.Error.Code == http.StatusServiceUnavailable {
		return errors.New(answer.Error.Description)
	}
	return nil
}
