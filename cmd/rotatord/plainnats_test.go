package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// freeAddress is one of the loopback that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	return listener.Addr().String()
}

// shippedNATS writes a configuration of a NATS server that includes deploy/nats, for one server
// without TLS.
func shippedNATS(t *testing.T) (config, address string, passwords map[string]string) {
	t.Helper()
	files := &rig{t: t, dir: t.TempDir()}
	shipped, err := os.ReadFile("../../deploy/nats/rotatord.conf")
	must(t, err)
	files.write("rotatord.conf", string(shipped))
	passwords = map[string]string{}
	var lines strings.Builder
	for _, user := range []string{"rotatord", "publisher", "party", "reader", "operator"} {
		passwords[user] = rand.Text()
		fmt.Fprintf(&lines, "%s_password: %q\n", user, passwords[user])
	}
	files.write("rotatord-passwords.conf", lines.String())
	address = freeAddress(t)
	files.write("nats.conf", fmt.Sprintf("listen: %q\njetstream: {store_dir: %q}\ninclude \"rotatord.conf\"\n", address, filepath.Join(files.dir, "store")))
	return filepath.Join(files.dir, "nats.conf"), address, passwords
}

// plainClient speaks the protocol by hand, as a shell script with nc would.
type plainClient struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// plainMessage is what a MSG or HMSG brings.
type plainMessage struct{ subject, headers, data string }

func dialPlain(t *testing.T, address, user, password string) *plainClient {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	c := &plainClient{t, conn, bufio.NewReader(conn)}
	if greeting := c.line(); !strings.HasPrefix(greeting, "INFO {") {
		t.Fatalf("the server begins with %q", greeting)
	}
	c.send(fmt.Sprintf(`CONNECT {"verbose":false,"pedantic":true,"user":%q,"pass":%q,"headers":true}`, user, password), "PING")
	if answer := c.line(); answer != "PONG" {
		t.Fatalf("the server answers %q", answer)
	}
	return c
}

func (c *plainClient) send(lines ...string) {
	c.t.Helper()
	_, err := io.WriteString(c.conn, strings.Join(lines, "\r\n")+"\r\n")
	must(c.t, err)
}

// line is the next line. It answers the server's pings, which come when they like.
func (c *plainClient) line() string {
	c.t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		must(c.t, err)
		if line = strings.TrimSuffix(line, "\r\n"); line != "PING" {
			return line
		}
		c.send("PONG")
	}
}

// next is the next message.
func (c *plainClient) next() plainMessage {
	c.t.Helper()
	fields := strings.Fields(c.line())
	if fields[0] != "MSG" && fields[0] != "HMSG" {
		c.t.Fatalf("the server says %q", fields)
	}
	total, err := strconv.Atoi(fields[len(fields)-1])
	must(c.t, err)
	headers := 0
	if fields[0] == "HMSG" {
		headers, err = strconv.Atoi(fields[len(fields)-2])
		must(c.t, err)
	}
	body := make([]byte, total+len("\r\n"))
	_, err = io.ReadFull(c.in, body)
	must(c.t, err)
	return plainMessage{fields[1], string(body[:headers]), string(body[headers:total])}
}

// cloudEvent is what others need of an event.
type cloudEvent struct {
	SpecVersion, ID, Source, Type, Subject, DataContentType string

	Time time.Time
	Data struct{ Policy, Certificate, Outcome, Fingerprint, Trigger string }
}

// TestPlainNATSClients has clients without anything of ours tell a daemon of a new certificate
// and hear what it does with it, on a server with the users of deploy/nats.
func TestPlainNATSClients(t *testing.T) {
	t.Parallel()
	config, address, passwords := shippedNATS(t)
	options, err := server.ProcessConfigFile(config)
	must(t, err)
	options.NoSigs, options.NoLog = true, true
	s, err := server.NewServer(options)
	must(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	talkPlainly(t, address, passwords)
}

func talkPlainly(t *testing.T, address string, passwords map[string]string) {
	t.Helper()
	r := newRig(t, host)
	r.write("nats-password", passwords["rotatord"])
	r.configure("nats: {url: \"nats://" + address + "\", user: rotatord, password_file: nats-password}\n")
	r.policy("shop", host, "when: {on: [nats]}\n") // the file alone is no reason
	first := r.issue("shop", host)
	d := r.start()
	r.converged(first)
	awaitReady(t, d)

	reader := dialPlain(t, address, "reader", passwords["reader"])
	reader.send("SUB rotatord.event.shop.* 1", "PING")
	if answer := reader.line(); answer != "PONG" {
		t.Fatalf("the reader hears %q", answer)
	}
	second := r.issue("shop", host)
	publisher := dialPlain(t, address, "publisher", passwords["publisher"])
	publisher.send("SUB _INBOX.script 1", "PUB rotatord.trigger.shop _INBOX.script 0", "")
	var stored struct {
		Stream string
		Seq    int
	}
	if answer := publisher.next(); json.Unmarshal([]byte(answer.data), &stored) != nil || stored.Stream != "ROTATORD_TRIGGERS" || stored.Seq == 0 {
		t.Errorf("the answer to a trigger is %q", answer.data)
	}
	for {
		m := reader.next()
		var e cloudEvent
		must(t, json.Unmarshal([]byte(m.data), &e))
		_, kind, _ := strings.Cut(e.Type, "io.rotatord.")
		if m.subject != "rotatord.event.shop."+kind || !strings.Contains(m.headers, "Nats-Msg-Id: "+e.ID+"\r\n") {
			t.Errorf("%s with %q brings %+v", m.subject, m.headers, e)
		}
		if e.SpecVersion != "1.0" || e.Source != "/rotatord/test" || e.Subject != "shop/"+host || e.DataContentType != "application/json" || time.Since(e.Time) > patience {
			t.Errorf("the event is %+v", e)
		}
		if kind == "converged" && e.Data.Fingerprint == second.Fingerprint().String() { // and not the event of before, which may come late
			if e.Data.Trigger != "nats" {
				t.Errorf("it was %+v", e.Data)
			}
			break
		}
	}
	publisher.send("PUB rotatord.event.shop.converged 0", "")
	if answer := publisher.line(); !strings.HasPrefix(answer, "-ERR 'Permissions Violation for Publish") {
		t.Errorf("a publisher of triggers publishes events: %q", answer)
	}

	// The same with the library that everybody has.
	connect := func(user string, options ...nats.Option) *nats.Conn {
		c, err := nats.Connect(address, append(options, nats.UserInfo(user, passwords[user]))...)
		must(t, err)
		t.Cleanup(c.Close)
		return c
	}
	hears := connect("reader", nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // of what it may not
	events, err := hears.SubscribeSync("rotatord.event.shop.converged")
	must(t, err)
	must(t, hears.Flush())
	third := r.issue("shop", host)
	hook := connect("publisher")
	_, err = hook.Request("rotatord.trigger.shop", []byte(`{"specversion":"1.0","id":"1","source":"/hook","type":"renewed","data":{"certificate":"`+host+`"}}`), patience)
	must(t, err)
	m, err := events.NextMsg(patience)
	must(t, err)
	if !strings.Contains(string(m.Data), third.Fingerprint().String()) {
		t.Errorf("the event is %s", m.Data)
	}
	if _, err := hears.Request("rotatord.trigger.shop", nil, time.Second); err == nil || errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("a reader may ask: %v", err)
	}
}
