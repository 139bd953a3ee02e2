package bus

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// A server that holds the connection and does not serve JetStream is left for one that does.
func TestSilentServerIsLeft(t *testing.T) {
	mute := external(t, freePort(t), t.TempDir(), func(o *server.Options) {
		o.Users = []*server.User{{Username: "rotatord", Password: goodPassword, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}, // as good as no answer
		}}}
	})
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
