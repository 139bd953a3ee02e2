package admin

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
)

// pipes is a listener that hands out what it is given.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestWhoWasAcceptedIsAnswered: the server is told to end between a connection and its request.
func TestWhoWasAcceptedIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
		s, err := Listen(Config{Listener: l, Logger: slog.New(slog.DiscardHandler), Metrics: http.NotFoundHandler(), Alive: func() error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		client, server := net.Pipe()
		l.accepted <- server
		synctest.Wait()
		cancel()
		synctest.Wait()
		go func() { _, _ = io.WriteString(client, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") }()
		response, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			t.Error(response.Status)
		}
		_ = response.Body.Close()
		_ = client.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
