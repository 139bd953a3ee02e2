package admin

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// crowd is a listener with a bounded number of connections that nobody can shut others out of by
// holding all of them: whoever comes is let in, and where that is one too many, the connection
// is closed that is missed the least.
type crowd struct {
	net.Listener
	most int

	mu      sync.Mutex
	members map[*member]struct{}
}

// member is an accepted connection.
type member struct {
	net.Conn
	crowd *crowd
	// from is the address at the other end, of IPv6 its network: whoever has one of those has
	// all its addresses.
	from netip.Prefix
	// asking says that a request was read whose answer is not sent yet; since when it is, or
	// is not. Both are the crowd's.
	asking bool
	since  time.Time
}

func newCrowd(l net.Listener, most int) *crowd {
	return &crowd{Listener: l, most: most, members: map[*member]struct{}{}}
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m := &member{Conn: conn, crowd: c, from: networkOf(conn.RemoteAddr()), since: time.Now()}
	if out := c.enter(m); out != nil {
		_ = out.Conn.Close()
	}
	return m, nil
}

// enter lets somebody in, and returns who has to go for it.
func (c *crowd) enter(m *member) (out *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.members) >= c.most {
		out = c.leastMissed()
		delete(c.members, out)
	}
	c.members[m] = struct{}{}
	return out
}

// leastMissed is one of those from where most are: first whoever asks for nothing, or has not
// asked to the end, and of several the one that has done so for the longest time.
func (c *crowd) leastMissed() (least *member) {
	from := map[netip.Prefix]int{}
	for m := range c.members {
		from[m.from]++
	}
	for m := range c.members {
		if least == nil || cmp.Or(cmp.Compare(from[least.from], from[m.from]), bit(m.asking)-bit(least.asking), m.since.Compare(least.since)) < 0 {
			least = m
		}
	}
	return least
}

// note is the server's ConnState: it says what a connection is busy with.
func (c *crowd) note(conn net.Conn, state http.ConnState) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	m, ok := conn.(*member)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.asking, m.since = state == http.StateActive, time.Now()
}

// Close implements net.Conn.
func (m *member) Close() error {
	m.crowd.mu.Lock()
	delete(m.crowd.members, m)
	m.crowd.mu.Unlock()
	return m.Conn.Close()
}

// networkOf is where an address counts to; for what has no IP address, nowhere.
func networkOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	const bitsOfANetwork = 64
	p, _ := ip.Prefix(min(ip.BitLen(), bitsOfANetwork)) // an invalid address has none
	return p
}
