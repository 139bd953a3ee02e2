package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rotatord/rotatord/internal/admin"
	"github.com/rotatord/rotatord/internal/certs"
)

// TestUnderAttack: while all doors of the daemon are held by those who say nothing, trickle, flood
// and do not read, a rotation converges, a scrape and a question over the socket are answered, a
// trigger is told what became of it, and memory is bounded.
func TestUnderAttack(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures, and the race detector makes everything slower and larger; every door has a test of its own")
	}
	r := newRig(t, host)
	r.policy("shop", host, "")
	r.issue("shop", host)
	r.configure("nats: {embedded: {listen: \"127.0.0.1:0\"}}\n")
	d := r.start()
	r.log.waitMessage("converged: every target serves the bundle")
	events := strings.TrimPrefix(d.bus.ListenURL(), "nats://")

	inUse := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse)
	}
	before := inUse()
	ctx, cancel := context.WithCancel(t.Context())
	var attack sync.WaitGroup
	defer attack.Wait()
	defer cancel()
	// hold opens connections again and again and says something on each, a byte at a time at its
	// end.
	hold := func(n int, network, address, says string) {
		for range n {
			attack.Go(func() {
				for ctx.Err() == nil {
					c, err := net.Dial(network, address)
					if err != nil {
						runtime.Gosched()
						continue
					}
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					_, err = io.WriteString(c, says)
					for ticks := time.NewTicker(100 * time.Millisecond); err == nil; <-ticks.C {
						_, err = io.WriteString(c, "x")
					}
					stop()
					_ = c.Close()
				}
			})
		}
	}
	get := "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
	hold(150, "tcp", d.http.Addr(), "GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
	hold(100, "tcp", d.http.Addr(), strings.Repeat(fmt.Sprintf(get, "/metrics"), 20))
	hold(80, "tcp", d.http.Addr(), fmt.Sprintf(get, "/events"))
	hold(150, "unix", d.inForce().set.Config.Socket, "POST /v1/rotate HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{")
	hold(150, "unix", d.inForce().set.Config.Socket, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: ")
	hold(30, "tcp", events, "CONNECT {}\r\nPUB rotatord.trigger.shop 1000\r\n")
	hold(30, "tcp", events, "CONNECT {}\r\nSUB rotatord.event.> 1\r\n")
	attack.Go(func() {
		c, err := nats.Connect(d.bus.ListenURL())
		if err != nil {
			return // others hold all places
		}
		defer c.Close()
		for i := 0; ctx.Err() == nil && i < 20_000; i++ {
			_ = c.Publish([]string{"rotatord.trigger.shop", "rotatord.trigger.nobody", "rotatord.ack.shop"}[i%3], []byte([]string{"{", `{"certificate":"nobody"}`, "\x00"}[i/3%3]))
			if i%100 == 0 {
				_ = c.FlushTimeout(time.Second)
			}
		}
	})

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	for range 3 {
		r.expectServed(host, r.rotated())
		response, err := client.Get("http://" + d.http.Addr() + "/metrics")
		must(t, err)
		found := false
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			found = found || strings.HasPrefix(lines.Text(), "rotatord_certificate_info")
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || !found {
			t.Errorf("a scrape: %s", response.Status)
		}
		var status admin.Status
		asking, done := context.WithTimeout(ctx, 30*time.Second)
		if err := admin.NewClient(d.inForce().set.Config.Socket).Ask(asking, "status", nil, &status); err != nil || len(status.Assignments) != 1 {
			t.Errorf("the socket: %v", err)
		}
		done()
	}
	grown := inUse() - before
	t.Logf("%d MB more on the heap", grown>>20)
	if grown > 256<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
}

// rotated puts a new bundle into the directory and waits until it is served.
func (r *rig) rotated() *certs.Bundle {
	r.t.Helper()
	b := r.issue("shop", host)
	r.converged(b)
	return b
}
