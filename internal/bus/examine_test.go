package bus

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// TestExamine has one thing wrong at an external server.
func TestExamine(t *testing.T) {
	user := func(p server.Permissions) func(*server.Options) {
		return func(o *server.Options) {
			o.Users = []*server.User{{Username: "rotatord", Password: goodPassword, Permissions: &p}}
		}
	}
	everything := &server.SubjectPermission{Allow: []string{">"}}
	for _, test := range []struct {
		name   string
		server func(*server.Options)
		there  jetstream.StreamConfig
		change func(*Config)
		want   []string // field or subject, and the message
	}{
		{name: "nothing"},
		{name: "not there", change: func(c *Config) { c.URL = onPort(1) }, want: []string{"url: NATS (127.0.0.1:1) cannot be used: the connection is refused"}},
		{name: "wrong password", server: withUser, change: func(c *Config) { c.User, c.Password = "rotatord", func() (string, error) { return "wrong", nil } },
			want: []string{"url: NATS (ADDRESS) cannot be used: nats: Authorization Violation"}},
		{name: "no JetStream", server: func(o *server.Options) { o.JetStream = false }, want: []string{"url: JetStream is not enabled on the NATS server (ADDRESS)"}},
		{name: "no cluster", change: func(c *Config) { c.Replicas = 3 }, want: []string{
			"replicas: stream ROTATORD_TRIGGERS is to have 3 replicas, and the server is no member of a cluster",
			"replicas: stream ROTATORD_WORK is to have 3 replicas, and the server is no member of a cluster",
			"replicas: stream ROTATORD_EVENTS is to have 3 replicas, and the server is no member of a cluster",
			"replicas: stream KV_rotatord_journal is to have 3 replicas, and the server is no member of a cluster",
		}},
		{name: "fewer replicas", there: jetstream.StreamConfig{Name: "ROTATORD_EVENTS", Subjects: []string{"rotatord.event.>"}}, change: func(c *Config) { c.Replicas = 3 },
			want: []string{"replicas: warning: stream ROTATORD_EVENTS has 1 replicas and not 3: rotatord does not change what is there"}},
		{name: "a subject of somebody else", there: jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"certs.>"}}, change: func(c *Config) { c.Subjects = []string{"certs.renewed", "other"} },
			want: []string{"certs.renewed: subject certs.renewed is captured by stream THEIRS already, and a subject can be of one stream only"}},
		{name: "our subjects with somebody else", there: jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"rotatord.event.shop.converged"}},
			want: []string{"rotatord.event.>: subject rotatord.event.> is captured by stream THEIRS already, and a subject can be of one stream only"}},
		{name: "a stream that is something else", there: jetstream.StreamConfig{Name: "ROTATORD_WORK", Subjects: []string{"rotatord.work.>"}},
			want: []string{"prefix: stream ROTATORD_WORK is there already, and its retention is Limits, not WorkQueue"}},
		{name: "may not publish events", server: user(server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"rotatord.event.>"}}, Subscribe: everything}),
			want: []string{"user: this user of NATS may not publish to rotatord.event.policy.planned"}},
		{name: "may not hear answers", server: user(server.Permissions{Publish: everything, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.mine.>"}}}),
			want: []string{"url: JetStream of the NATS server (ADDRESS) does not answer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := external(t, -1, t.TempDir(), test.server)
			cfg := at(t, s.ClientURL())
			if o := test.server; o != nil && len(test.want) > 0 && !strings.Contains(test.name, "JetStream") {
				cfg.User, cfg.Password = "rotatord", func() (string, error) { return goodPassword, nil }
			}
			if test.there.Name != "" {
				js, err := jetstream.New(dial(t, s.ClientURL()))
				must(t, err)
				_, err = js.CreateStream(t.Context(), test.there)
				must(t, err)
			}
			if test.change != nil {
				test.change(&cfg)
			}
			before := streamNames(t, s)
			var got []string
			for _, f := range Examine(t.Context(), cfg) {
				where := f.Field + f.Subject + ": "
				if f.Warning {
					where += "warning: "
				}
				got = append(got, where+strings.ReplaceAll(f.Message, strings.TrimPrefix(s.ClientURL(), "nats://"), "ADDRESS"))
			}
			if test.name == "fewer replicas" {
				got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "no member") })
			}
			if len(got) != len(test.want) || slices.ContainsFunc(test.want, func(w string) bool {
				return !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) })
			}) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			if after := streamNames(t, s); !slices.Equal(before, after) {
				t.Errorf("streams were %v and are %v", before, after)
			}
		})
	}
}

// streamNames asks the server itself: users of tests may not.
func streamNames(t *testing.T, s *server.Server) []string {
	t.Helper()
	if !s.JetStreamEnabled() {
		return nil
	}
	info, err := s.Jsz(&server.JSzOptions{Streams: true})
	must(t, err)
	var names []string
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			names = append(names, stream.Name)
		}
	}
	slices.Sort(names)
	return names
}

// A server that rotatord works with has nothing to be examined for.
func TestExamineAfterPrepare(t *testing.T) {
	s := external(t, -1, t.TempDir(), nil)
	cfg := at(t, s.ClientURL())
	cfg.Subjects = []string{"certs.renewed"}
	prepared(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if found := Examine(ctx, cfg); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}
