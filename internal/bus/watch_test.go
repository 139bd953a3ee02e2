package bus

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A server that holds the connection and does not serve JetStream is left for one that does.
func TestSilentServerIsLeft(t *testing.T) {
	leave(t, external(t, freePort(t), t.TempDir(), func(o *server.Options) {
		o.Users = []*server.User{{Username: "rotatord", Password: goodPassword, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}, // as good as no answer
		}}}
	}))
}

// So is one that answers that it knows of no leader, as when it is parted from its cluster.
func TestLeaderlessServerIsLeft(t *testing.T) {
	parted := external(t, freePort(t), t.TempDir(), func(o *server.Options) {
		withUser(o)
		o.JetStream = false
	})
	c := dial(t, parted.ClientURL(), nats.UserInfo("rotatord", goodPassword))
	_, err := c.Subscribe("$JS.API.>", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`))
	})
	must(t, err)
	must(t, c.Flush())
	leave(t, parted)
}

// leave connects to a server first, and to one in good health after it was left.
func leave(t *testing.T, mute *server.Server) {
	t.Helper()
	port := freePort(t)
	cfg, l := logged(at(t, mute.ClientURL()))
	cfg.URL += "," + onPort(port)
	cfg.User, cfg.Password = "rotatord", func() (string, error) { return goodPassword, nil }
	cfg.askEvery = 250 * time.Millisecond
	b := open(t, cfg)
	preparing := background(t, b.Prepare)
	eventually(t, "the first connection", b.Connected)
	external(t, port, t.TempDir(), withUser)
	if err := receive(t, preparing.ended, "Prepare"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(l.String(), "nats server is left for another") {
		t.Error("the log does not say that a server was left")
	}
	must(t, b.Ready())
	offer(t, b, Any, shop, nil)
}
