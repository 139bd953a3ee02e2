//go:build nginx

package file

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
)

// nginx reads the files of two servers, is told to reload, and serves each new certificate to
// those who ask for its name; no handshake fails meanwhile. While nginx will not have its own
// configuration the reload fails, and what is served stays.
func TestNginx(t *testing.T) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal("this test needs nginx (apt-get install nginx-light)")
	}
	shop, blog := newSetup(t), newSetup(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	shop.must(err)
	address := listener.Addr().String()
	shop.must(listener.Close())
	work := t.TempDir()
	config := filepath.Join(work, "nginx.conf")
	configure := func(more string) {
		shop.must(os.WriteFile(config, fmt.Appendf(nil, `
daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen %[2]s ssl; server_name shop.test; ssl_certificate %[3]s/fullchain.pem; ssl_certificate_key %[3]s/privkey.pem; return 204; }
  server { listen %[2]s ssl; server_name blog.test; ssl_certificate %[4]s/fullchain.pem; ssl_certificate_key %[4]s/privkey.pem; return 204; }
  %[5]s
}`, work, address, shop.cfg.Directory, blog.cfg.Directory, more), 0o644))
	}
	configure("")
	one, two := shop.bundle(), blog.bundle()
	shop.putByHand(one) // nginx is there before rotatord
	blog.putByHand(two)
	nginx := exec.CommandContext(t.Context(), program, "-c", config)
	nginx.Stdout, nginx.Stderr = t.Output(), t.Output()
	nginx.Cancel = func() error { return nginx.Process.Signal(os.Interrupt) }
	shop.must(nginx.Start())
	t.Cleanup(func() { _ = nginx.Wait() })
	served := func(name string) func() (certs.Fingerprint, error) {
		return func() (certs.Fingerprint, error) { return shake(t.Context(), address, name) }
	}
	shop.waitServed(served("shop.test"), one)
	blog.waitServed(served("blog.test"), two)
	for _, s := range []*setup{shop, blog} {
		s.cfg.Reload.Command = []string{program, "-c", config, "-s", "reload"}
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var shakes atomic.Int64
	wg.Go(func() {
		for !stop.Load() {
			if _, err := served("shop.test")(); err != nil {
				t.Errorf("handshake: %v", err)
				return
			}
			shakes.Add(1)
		}
	})
	for range 5 {
		one, two = shop.bundle(), blog.bundle()
		shop.must(shop.deploy(one))
		shop.waitServed(served("shop.test"), one)
		blog.must(blog.deploy(two))
		blog.waitServed(served("blog.test"), two)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d handshakes", shakes.Load())

	configure("nonsense;")
	next := shop.bundle()
	err = shop.deploy(next)
	wantKind(t, err, providers.KindUnavailable)
	if err != nil && !strings.Contains(err.Error(), `unknown directive "nonsense"`) {
		t.Errorf("it is not said why: %v", err)
	}
	if is, err := served("shop.test")(); err != nil || is != one.Fingerprint() {
		t.Errorf("serves %s, want %s: %v", is.Short(), one.Fingerprint().Short(), err)
	}
	configure("")
	shop.must(shop.deploy(next))
	shop.waitServed(served("shop.test"), next)
}

func shake(ctx context.Context, address, name string) (certs.Fingerprint, error) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return certs.Fingerprint{}, err
	}
	defer conn.Close()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return certs.Fingerprint{}, errors.New("no TLS")
	}
	return certs.FingerprintOf(secure.ConnectionState().PeerCertificates[0]), nil
}

func (s *setup) waitServed(served func() (certs.Fingerprint, error), b *certs.Bundle) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		f, err := served()
		if err == nil && f == b.Fingerprint() {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("serves %s, want %s: %v", f.Short(), b.Fingerprint().Short(), err)
		}
		<-time.After(20 * time.Millisecond)
	}
}
