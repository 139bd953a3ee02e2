//go:build cluster

package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// TestClusterLosesNATSNodes kills the leaders of the work queue and of the journal, parts the
// server that most daemons are connected to from the others, and lets one stand still, each
// in the middle of a rotation of everything. All is done, once, before the server is back.
func TestClusterLosesNATSNodes(t *testing.T) {
	leaderOf := func(stream string) func(*crew) *natsNode {
		return func(f *crew) *natsNode { return f.nats.leader(stream) }
	}
	for _, trouble := range []struct {
		what  string
		which func(*crew) *natsNode
		begin func(*natsCluster, *natsNode)
		end   func(*natsCluster, *natsNode)
	}{
		{"work queue killed", leaderOf("ROTATORD_WORK"), (*natsCluster).kill, (*natsCluster).start},
		{"journal killed", leaderOf("KV_rotatord_journal"), (*natsCluster).kill, (*natsCluster).start},
		{"daemons parted", (*crew).busiest, (*natsCluster).part, (*natsCluster).join},
		{"triggers stopped", leaderOf("ROTATORD_TRIGGERS"), (*natsCluster).pause, (*natsCluster).wake},
	} {
		t.Run(trouble.what, func(t *testing.T) {
			t.Parallel()
			f := newCrew(t, 15)
			f.startAll()
			f.awaitServed(f.times(1))
			f.awaitReady()
			f.settled()
			n := trouble.which(f)
			issued := len(f.said(isIssued))
			f.force(f.hosts...)
			long(t, "the first of the new certificates", func() bool { return len(f.said(isIssued)) > issued })
			began := time.Now()
			trouble.begin(f.nats, n)
			f.awaitServed(f.times(2))
			t.Logf("without %s all is done after %s", n.name, time.Since(began).Round(100*time.Millisecond))
			trouble.end(f.nats, n)
			f.nats.current()
			f.awaitReady()
			f.settled()
			f.awaitServed(f.times(2))
			f.expectOnce(f.times(2))
			f.noComplaints()
		})
	}
}

// busiest is the server that most daemons are connected to.
func (f *crew) busiest() (most *natsNode) {
	clients := map[string]int{}
	for _, m := range f.daemons {
		last := ""
		for _, s := range f.said(func(line map[string]any) bool { return line["msg"] == "nats connected" }) {
			if s.peer == m {
				last = fmt.Sprint(s.line["server"])
			}
		}
		clients[last]++
	}
	for _, n := range f.nats.nodes {
		if most == nil || clients[n.url()] > clients[most.url()] {
			most = n
		}
	}
	f.t.Logf("%d daemons are connected to %s", clients[most.url()], most.name)
	return most
}

func isIssued(line map[string]any) bool { return line["msg"] == "certificate issued" }

// TestClusterOutage takes all of NATS away: daemons go on watching and measuring, end the
// step in flight, begin no new one, and say why. What was missed is done once afterwards.
func TestClusterOutage(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 6)
	f.startAll()
	f.awaitServed(f.times(1))
	f.awaitReady()
	for _, m := range f.daemons {
		f.ownWork(m)
	}
	f.settled()

	busy := f.heldAt("ccm", "create_certificate", "before", f.hosts[0])
	for _, n := range f.nats.nodes {
		f.nats.kill(n)
	}
	for _, m := range f.daemons {
		eventually(t, m.node+" to say that it is not ready", func() bool {
			code, reason := m.get(t, "/readyz")
			return code == http.StatusServiceUnavailable && strings.Contains(reason, "nats") && strings.Contains(reason, "not connected")
		})
		if got := m.metric(t, "rotatord_nats_connected"); got != "0" {
			t.Errorf("%s: rotatord_nats_connected is %q", m.node, got)
		}
		if code, _ := m.get(t, "/livez"); code != http.StatusOK {
			t.Errorf("%s: /livez answers %d", m.node, code)
		}
	}
	calls := len(f.cloud.ledger())
	f.cloud.call(http.MethodDelete, "faults", nil, nil)
	busy.log.waitText("create_tags") // the step in flight goes on to its end

	for _, m := range f.daemons {
		expires := fmt.Sprintf("rotatord_certificate_not_after_timestamp_seconds{certificate=%q,policy=%q,role=\"source\",target=\"\"}", m.node+".example.com", "ours-"+m.node)
		before := m.metric(t, expires)
		f.issue(m.node+"/in", m.node+".example.com")
		eventually(t, m.node+" to see the new file", func() bool {
			now := m.metric(t, expires)
			return now != "" && now != before
		})
	}
	for _, e := range f.cloud.ledger()[calls:] {
		if e.Effect && e.Operation != "create_tags" {
			t.Errorf("a step was begun without NATS: %s", e.Operation)
		}
	}

	for _, n := range f.nats.nodes {
		f.nats.start(n)
	}
	f.nats.current()
	f.force(f.hosts[1:3]...)
	each := f.times(1)
	for _, host := range f.hosts[:3] {
		each[host] = 2
	}
	f.awaitServed(each)
	for _, m := range f.daemons {
		m.log.wait("the file that was missed", func(line map[string]any) bool {
			return line["policy"] == "ours-"+m.node && strings.HasPrefix(fmt.Sprint(line["msg"]), "converged")
		})
	}
	f.awaitReady()
	f.settled()
	f.expectOnce(each)
	f.noComplaints()
}

// TestClusterCredentialsAreRotated replaces the passwords, the servers' certificates, and the
// CA of the clients' certificates, while everything runs: no daemon is started again.
func TestClusterCredentialsAreRotated(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 3)
	f.startAll()
	f.awaitServed(f.times(1))
	f.awaitReady()

	next, err := certstest.NewCA("next")
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]string{}
	for user, password := range f.nats.passwords {
		old[user], f.nats.passwords[user] = password, password+"-next"
	}
	f.nats.credentials()
	for _, n := range f.nats.nodes {
		f.nats.trust(n, f.nats.ca, next)
	}
	// The daemons' files first: they are read at each connection.
	f.clientCredentials(next)
	reconnections := f.connections()
	f.nats.reload()
	for i, m := range f.daemons {
		eventually(t, m.node+" to log in with the new password", func() bool { return f.connections()[i] > reconnections[i] })
	}
	for _, n := range f.nats.nodes {
		f.nats.trust(n, next)
	}
	f.nats.reload()
	// A server asks for a certificate when a client connects: each has to.
	for _, n := range f.nats.nodes {
		f.nats.kill(n)
		f.nats.start(n)
		f.nats.current()
	}
	f.awaitReady()
	f.nats.pair(f.nats.dir, "publisher", next)
	f.nats.client = filepath.Join(f.nats.dir, "publisher")
	f.force(f.hosts...)
	f.awaitServed(f.times(2))
	f.settled()
	f.expectOnce(f.times(2))
	for _, s := range f.said(func(line map[string]any) bool { return strings.Contains(fmt.Sprint(line), old["rotatord"]) }) {
		t.Errorf("%s: a password is in the log: %v", s.node, s.line)
	}
}

// connections counts how often each daemon has connected.
func (f *crew) connections() (counts []int) {
	for _, m := range f.daemons {
		counts = append(counts, strings.Count(m.log.text(), `"msg":"nats connected"`))
	}
	return counts
}

// TestClusterPermissions tries what the shipped accounts are to prevent.
func TestClusterPermissions(t *testing.T) {
	t.Parallel()
	f := newCrew(t, 1)
	f.start(f.daemons[0])
	f.awaitServed(f.times(1))
	f.settled()
	f.asksAsOperator()
	if err := f.daemons[0].stop(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	work := "rotatord.work.any." + policyOf(f.hosts[0]) + ".x"
	for user, test := range map[string]struct{ publish, publishNot, hear, hearNot []string }{
		"rotatord": {
			publish:    []string{"rotatord.event.x.y"},
			publishNot: []string{"rotatord.trigger.x", "rotatord.ack.x", "rotatord.control.status", "$JS.API.STREAM.DELETE.ROTATORD_WORK", "$JS.API.STREAM.PURGE.KV_rotatord_journal", "$JS.API.STREAM.CREATE.OTHER", "$JS.API.STREAM.UPDATE.ROTATORD_WORK", "anything"},
			hear:       []string{"_INBOX.rotatord.x"},
			hearNot:    []string{"rotatord.>", "$KV.rotatord_journal.>", "_INBOX.x"},
		},
		"publisher": {
			publish:    []string{"rotatord.trigger.x"},
			publishNot: []string{work, "rotatord.ack.x", "rotatord.control.rotate", "rotatord.event.x.issued", "$KV.rotatord_journal.x.y", "$JS.API.INFO", "$JS.ACK.ROTATORD_WORK.at-any.1.1.1.1.0"},
			hear:       []string{"_INBOX.x"},
			hearNot:    []string{"rotatord.event.>", "rotatord.work.>", "$KV.>", ">"},
		},
		"party": {
			publish:    []string{"rotatord.ack.x"},
			publishNot: []string{"rotatord.trigger.x", work, "rotatord.event.x.issued"},
			hear:       []string{"rotatord.event.x.issued", "_INBOX.x"},
			hearNot:    []string{"rotatord.event.>", "rotatord.ack.*"},
		},
		"operator": {
			publish:    []string{"rotatord.control.status"},
			publishNot: []string{"rotatord.trigger.x", "rotatord.ack.x", work, "$JS.API.INFO", "$KV.rotatord_journal.x.y"},
			hear:       []string{"_INBOX.x"},
			hearNot:    []string{"rotatord.control.>", "rotatord.event.>", ">"},
		},
		"reader": {
			publishNot: []string{"rotatord.trigger.x", "rotatord.event.x.issued", work, "anything"},
			hear:       []string{"rotatord.event.>"},
			hearNot:    []string{">", "rotatord.trigger.*"},
		},
	} {
		t.Run(user, func(t *testing.T) {
			refused := make(chan error, 100)
			conn := f.nats.dial(user, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
			try := func(action, subject string, allowed bool) {
				t.Helper()
				var err error
				if action == "Publish" {
					err = conn.Publish(subject, nil)
				} else {
					_, err = conn.SubscribeSync(subject)
				}
				if err == nil {
					err = conn.Flush() // the refusal comes before the answer to this
				}
				if err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-refused:
					if allowed || !strings.Contains(err.Error(), action) {
						t.Errorf("%s %s: %v", action, subject, err)
					}
				default:
					if !allowed {
						// The library may tell later than it flushes.
						select {
						case <-refused:
						case <-time.After(patience):
							t.Errorf("%s %s was allowed", action, subject)
						}
					}
				}
			}
			for _, s := range test.publish {
				try("Publish", s, true)
			}
			for _, s := range test.publishNot {
				try("Publish", s, false)
			}
			for _, s := range test.hear {
				try("Subscription", s, true)
			}
			for _, s := range test.hearNot {
				try("Subscription", s, false)
			}
		})
	}

	// What the server answers to a trigger must not get where the trigger could not.
	publisher := f.nats.dial("publisher")
	if err := publisher.PublishRequest("rotatord.trigger.x", work, nil); err != nil {
		t.Fatal(err)
	}
	f.nats.trigger(publisher, "rotatord.trigger.x", "")
	if n := f.nats.messages("ROTATORD_WORK"); n != 0 {
		t.Errorf("%d messages came into the work queue", n)
	}
	if n := f.nats.messages("ROTATORD_TRIGGERS"); n < 3 {
		t.Errorf("%d triggers are in the stream", n)
	}
}

// asksAsOperator asks the daemons over NATS, in the operators' own account.
func (f *crew) asksAsOperator() {
	f.t.Helper()
	operator := f.nats.dial("operator")
	policy := policyOf(f.hosts[0])
	for verb, want := range map[string]string{"status": `"state":"converged"`, "plan": `"changes":false`, "explain": `"next":`, "history": `"event":"issued"`} {
		answer, err := operator.Request("rotatord.control."+verb, []byte(`{"of":"`+policy+`"}`), patience)
		if err != nil {
			f.t.Fatalf("%s: %v", verb, err)
		}
		if code := answer.Header.Get("Nats-Service-Error-Code"); code != "" || !strings.Contains(string(answer.Data), want) {
			f.t.Errorf("%s: code %q, %s", verb, code, answer.Data)
		}
	}
}
