package bus

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
)

func TestOutdated(t *testing.T) {
	for version, want := range map[string]bool{
		"2.8.4": true, "2.0.0": true, "1.4.1": true, "0.9.6": true, "v2.8.4": true, "2.8.4-beta.1": true,
		"2.9.0": false, "2.9.10": false, "2.10.0": false, "2.15.2": false, "3.0.0": false, "2.9": false,
		"": false, "development": false, "2": false, "2.x": false,
	} {
		if err := outdated(version); (err != nil) != want {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// oldServer says that it is of an old version, and writes down what it is asked.
func oldServer(t *testing.T) (url string, asked chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	asked = make(chan string, 100)
	done := make(chan struct{})
	serve := func(conn net.Conn) {
		defer conn.Close()
		if _, err := fmt.Fprint(conn, `INFO {"server_id":"OLD","version":"2.8.4","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}`+"\r\n"); err != nil {
			return
		}
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			switch verb, _, _ := strings.Cut(lines.Text(), " "); verb {
			case "PING":
				if _, err := fmt.Fprint(conn, "PONG\r\n"); err != nil {
					return
				}
			case "PUB", "HPUB":
				asked <- lines.Text()
			}
		}
	}
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return "nats://" + listener.Addr().String(), asked
}

// A server that would let two daemons work on one assignment is not used, and nothing is made
// there; who looks learns why.
func TestOldServerIsRefused(t *testing.T) {
	const why = "the NATS server is version 2.8.4; rotatord needs 2.9 or later"
	url, asked := oldServer(t)
	cfg, log := logged(at(t, url))
	b, err := Open(cfg)
	must(t, err)
	preparing := background(t, b.Prepare)
	eventually(t, "the reason", func() bool {
		err := b.Ready()
		return err != nil && strings.Contains(err.Error(), why)
	})
	eventually(t, "the log", func() bool { return strings.Contains(log.String(), why) })
	preparing.stop(t)
	must(t, b.Close())

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if found := Examine(ctx, at(t, url)); len(found) != 1 || found[0].Field != "url" || !strings.Contains(found[0].Message, why) {
		t.Errorf("found %v", found)
	}
	for len(asked) > 0 {
		if request := <-asked; strings.Contains(request, ".CREATE.") {
			t.Errorf("it was asked %s", request)
		}
	}
}
