//go:build neighbours

package main

import (
	"net"
	"testing"
)

// TestNeighbourNATS is TestPlainNATSClients on the NATS server of the distribution, Debian's 2.9
// or a later one.
func TestNeighbourNATS(t *testing.T) {
	t.Parallel()
	config, address, passwords := shippedNATS(t)
	background(t, nil, "nats-server", "-c", config)
	eventually(t, "the NATS server", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	talkPlainly(t, address, passwords)
}
