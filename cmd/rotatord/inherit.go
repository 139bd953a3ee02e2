package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// unitError is a mistake in the units that start this process: as with one in the
// configuration, starting it again does not help.
type unitError struct{ error }

// inheritedListener is the listener that systemd has bound for HTTP (sd_listen_fds(3)); nil
// where it has none for this process.
func inheritedListener() (net.Listener, error) {
	files := activation.Files(true)
	defer func() {
		for _, f := range files {
			_ = f.Close() // the listener has a copy
		}
	}()
	switch len(files) {
	case 0:
		return nil, nil
	case 1:
		return listenerOf(files[0])
	}
	return nil, unitError{fmt.Errorf("systemd passes %d sockets, and rotatord listens on one, for HTTP; leave one ListenStream= in rotatord.socket, and no other socket unit with Service=rotatord.service", len(files))}
}

// listenerOf refuses what no HTTP listener is.
func listenerOf(f *os.File) (net.Listener, error) {
	listening, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listening == 0 {
		err = errors.New("nobody listens on it")
	}
	var listener net.Listener
	if err == nil {
		listener, err = net.FileListener(f)
	}
	if err == nil {
		if _, tcp := listener.(*net.TCPListener); !tcp {
			err = fmt.Errorf("it is %s %s", listener.Addr().Network(), listener.Addr())
		}
	}
	if err != nil {
		return nil, unitError{fmt.Errorf("the socket that systemd passes cannot be the HTTP listener (%w); rotatord.socket is to have one ListenStream= with an address and a port, and Accept=no", err)}
	}
	return listener, nil
}
