package admin

import (
	"context"
	"errors"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

type peerKey struct{}

// withPeer notes who is at the other end of the socket, as the kernel says (unix(7),
// SO_PEERCRED).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peer(c))
}

func peerOf(ctx context.Context) Actor {
	a, _ := ctx.Value(peerKey{}).(Actor)
	return a
}

func peer(c net.Conn) Actor {
	if m, ok := c.(*member); ok {
		c = m.Conn
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || failed != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(credentials.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return Actor("user " + u.Username)
	}
	return Actor("user " + uid)
}

// isRefused reports whether a socket is there and nobody listens on it.
func isRefused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
