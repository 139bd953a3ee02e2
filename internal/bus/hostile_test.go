package bus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// raw is a connection that speaks the protocol by hand, badly.
func raw(t *testing.T, b *Bus, lines ...string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(b.ListenURL(), "nats://"))
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, strings.Join(lines, ""))
	return c
}

// closedWith reads until the server has closed the connection, and returns what it said.
func closedWith(t *testing.T, c net.Conn) string {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	said, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it is not closed; it said %s", said)
	}
	return string(said)
}

const connect = "CONNECT {\"verbose\":false,\"headers\":true}\r\n"

// heap is what lives on it.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// TestLocalsAreBounded: who comes in over the listener has so many connections, subscriptions and
// bytes, and is told where they end.
func TestLocalsAreBounded(t *testing.T) {
	b := prepared(t, withListener(config(t, scratch(t))))
	huge := fmt.Sprintf("PUB rotatord.trigger.shop %d\r\n", maxPayload+1)
	for what, test := range map[string]struct{ lines, told string }{
		"a payload":        {connect + huge, "Maximum Payload Violation"},
		"a line":           {connect + "PUB " + strings.Repeat("x", 8192), "maximum control line exceeded"},
		"an unknown verb":  {connect + "GET / HTTP/1.1\r\n", "Unknown Protocol Operation"},
		"no number":        {connect + "PUB rotatord.trigger.shop -1\r\n", ""},
		"headers over all": {connect + "HPUB rotatord.trigger.shop 900 10\r\n", ""},
		"silence":          {"", "INFO"},
	} {
		if said := closedWith(t, raw(t, b, test.lines)); !strings.Contains(said, test.told) {
			t.Errorf("%s: %s", what, said)
		}
	}
	greedy := raw(t, b, connect)
	for i := range maxSubscriptions + 1 {
		_, err := fmt.Fprintf(greedy, "SUB rotatord.event.> %d\r\n", i)
		must(t, err)
	}
	hearLine(t, greedy, "-ERR 'maximum subscriptions exceeded'")
	must(t, greedy.Close())
	var in []net.Conn
	for range maxLocals {
		c := raw(t, b, connect, "PING\r\n")
		hearLine(t, c, "PONG")
		in = append(in, c)
	}
	if said := closedWith(t, raw(t, b, connect, "PING\r\n")); !strings.Contains(said, "maximum account active connections") {
		t.Errorf("one more was told %s", said)
	}
	_ = in[3].Close()
	eventually(t, "a place", func() bool {
		c, err := nats.Connect(b.ListenURL(), nats.NoReconnect())
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// hearLine reads until the server says something.
func hearLine(t *testing.T, c net.Conn, line string) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	for lines := bufio.NewReader(c); ; {
		said, err := lines.ReadString('\n')
		must(t, err)
		if strings.HasPrefix(said, line) {
			break
		}
	}
	must(t, c.SetReadDeadline(time.Time{}))
}

// TestHostileLocals: while the listener is full of those who say nothing, half of something,
// nonsense or far too much, and of those who read nothing, a trigger of somebody else is heard and
// work is done, the stream keeps to its bounds, and memory is bounded.
func TestHostileLocals(t *testing.T) {
	b := prepared(t, withListener(config(t, scratch(t))))
	heard := make(chan string, 100)
	listening := background(t, func(ctx context.Context) error {
		return b.Triggers(ctx, func(tr Trigger) {
			tr.Done()
			if tr.Policy == "honest" {
				heard <- tr.Certificate
			}
		})
	})
	defer listening.stop(t)
	honest := dial(t, b.ListenURL())
	before := heap()

	for range maxGuests - maxLocals - 10 { // before they say who they are they are no local yet
		raw(t, b, "C")
	}
	for i := range maxLocals / 4 {
		raw(t, b, connect, "PUB rotatord.trigger.shop 1000\r\n{")                             // half a message
		raw(t, b, connect, fmt.Sprintf("SUB rotatord.event.> %d\r\nSUB _INBOX.> 2\r\n", i))   // reads nothing
		raw(t, b, connect, strings.Repeat("SUB _INBOX.flood 1\r\n", 1), "SUB _INBOX.> 2\r\n") // hears all answers, and reads none
	}
	var flood sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 4 {
		c, err := nats.Connect(b.ListenURL(), nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		must(t, err)
		defer c.Close()
		m := nats.NewMsg([]string{"rotatord.trigger.nobody", "rotatord.trigger.shop", "rotatord.ack.shop", "rotatord.work.any.shop.a"}[i])
		m.Reply = "_INBOX.flood"
		m.Data = []byte([]string{`{"certificate":"` + strings.Repeat("x", 60<<10) + `"}`, "\x00\xff{{{{", `{"party":1}`, "{}"}[i])
		m.Header.Set("Nats-Msg-Id", fmt.Sprint(i))
		m.Header.Set("ce-specversion", strings.Repeat("y", 2<<10))
		m.Header.Set("Nats-Expected-Last-Sequence", "1") // which a stream would take as an order
		flood.Go(func() {
			for n := 0; ctx.Err() == nil && n < []int{300, 3000, 3000, 3000}[i]; n++ { // less than the stream keeps
				if m.Header.Set("Nats-Msg-Id", fmt.Sprint(i, n)); n%3 == 0 {
					m.Header.Del("Nats-Expected-Last-Sequence")
				}
				if c.PublishMsg(m) != nil {
					return
				}
				if n%50 == 0 {
					_ = c.FlushTimeout(time.Second)
				}
			}
		})
	}
	worked := make(chan Work, 100)
	working := work(t, b, 2, func(_ context.Context, w Work) error { worked <- w; return nil }, nil)
	defer working.stop(t)
	most := int64(0)
	for i := range 20 {
		answer, err := honest.Request("rotatord.trigger.honest", fmt.Appendf(nil, `{"certificate":"%d"}`, i), patience)
		must(t, err)
		if !strings.Contains(string(answer.Data), `"stream"`) {
			t.Errorf("the trigger was answered with %s", answer.Data)
		}
		if certificate := receive(t, heard, "the trigger"); certificate != fmt.Sprint(i) {
			t.Errorf("heard %s, want %d", certificate, i)
		}
		must(t, b.offer(t.Context(), Work{ID: ID{"shop", fmt.Sprint(i)}, Place: Any}))
		receive(t, worked, "the work")
		must(t, b.Publish(t.Context(), Event{ID: fmt.Sprint(i), Kind: "converged", Policy: "shop", Subject: "shop/a"}))
		most = max(most, heap()-before)
	}
	cancel()
	flood.Wait()
	t.Logf("%d MB more on the heap", most>>20)
	if most > 192<<20 {
		t.Errorf("they hold %d MB", most>>20)
	}
	stream, err := b.js.Stream(t.Context(), b.triggerStream())
	must(t, err)
	if state := stream.CachedInfo().State; state.Bytes > triggerBytes {
		t.Errorf("the stream has %d bytes, at most %d are allowed", state.Bytes, triggerBytes)
	}
	works, err := b.js.Stream(t.Context(), b.workStream())
	must(t, err)
	if info, err := works.Info(t.Context(), jetstream.WithSubjectFilter(b.work())); err != nil || info.State.Msgs > 2 {
		t.Errorf("somebody from outside got into the work queue: %+v, %v", info.State, err)
	}
}

// TestFullListenerKeepsNobodyInside: the daemon's own connection comes back although others hold all
// that the listener has, and come back as fast as they can.
func TestFullListenerKeepsNobodyInside(t *testing.T) {
	b := prepared(t, withListener(config(t, scratch(t))))
	ctx, cancel := context.WithCancel(t.Context())
	address := strings.TrimPrefix(b.ListenURL(), "nats://")
	var hostile sync.WaitGroup
	for range 2 * maxGuests {
		hostile.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", address)
				if err != nil {
					_ = pause(ctx, 10*time.Millisecond)
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				_, _ = io.WriteString(c, "C")
				_, _ = io.Copy(io.Discard, c)
				stop()
				_ = c.Close()
				_ = pause(ctx, 10*time.Millisecond)
			}
		})
	}
	defer hostile.Wait()
	defer cancel()
	eventually(t, "a full listener", func() bool { return len(b.store.door.guests) == maxGuests })
	for i := range 3 {
		must(t, b.SetSubjects(t.Context(), []string{fmt.Sprintf("certs.%d", i)})) // starts the server anew
		must(t, b.Prepare(ctx))                                                   // on a busy machine the change may be put off until the connection is back
		must(t, b.Ready())
		must(t, b.Publish(t.Context(), Event{ID: fmt.Sprint(i), Kind: "issued", Policy: "shop", Subject: "shop/a"}))
	}
	if n := len(b.store.door.guests); n > maxGuests {
		t.Errorf("%d guests", n)
	}
}
