package bus

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxGuests is how many connections come in over the listener at once, those included that
	// have not said who they are, and firstWord how long one may take to say anything.
	maxGuests = 128
	firstWord = 2 * time.Second
)

// door is the listener of the embedded server. It is ours and not the server's: a bound on the
// server's connections would count the daemon's own, and keep it out when others hold them all.
type door struct {
	net.Listener
	// to connects to the server that runs now.
	to func() (net.Conn, error)
	// guests has as many places as there may be of them.
	guests chan struct{}
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// openDoor binds the address. Nobody is let in before serve.
func openDoor(address string, to func() (net.Conn, error)) (*door, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return &door{Listener: l, to: to, guests: make(chan struct{}, maxGuests)}, nil
}

// serve lets guests in until close.
func (d *door) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.ended.Go(func() {
		for {
			c, err := d.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // no file descriptors are left, for instance
				if pause(ctx, firstTry) != nil {
					return
				}
				continue
			}
			select {
			case d.guests <- struct{}{}:
				d.ended.Go(func() {
					defer func() { <-d.guests }()
					d.lead(ctx, c)
				})
			default:
				_, _ = io.WriteString(c, "-ERR 'maximum connections exceeded'\r\n") // the buffer of a new socket takes it
				_ = c.Close()
			}
		}
	})
}

// firstTry is the pause after a connection that could not be accepted.
const firstTry = 100 * time.Millisecond

// lead connects a guest with the server, until one of them or ctx ends.
func (d *door) lead(ctx context.Context, guest net.Conn) {
	defer func() { _ = guest.Close() }()
	server, err := d.to()
	if err != nil {
		return // it is being started anew; who comes again finds it
	}
	defer func() { _ = server.Close() }()
	closeBoth := func() {
		_ = guest.Close()
		_ = server.Close()
	}
	defer context.AfterFunc(ctx, closeBoth)()
	d.ended.Go(func() {
		defer closeBoth()
		_, _ = io.Copy(guest, server)
	})
	var first [1]byte
	if guest.SetReadDeadline(time.Now().Add(firstWord)) != nil {
		return
	}
	if _, err := io.ReadFull(guest, first[:]); err != nil || guest.SetReadDeadline(time.Time{}) != nil {
		return
	}
	if _, err := server.Write(first[:]); err == nil {
		_, _ = io.Copy(server, guest)
	}
}

// close lets nobody in any more, and all go.
func (d *door) close() {
	_ = d.Close()
	if d.stop != nil {
		d.stop()
	}
	d.ended.Wait()
}
