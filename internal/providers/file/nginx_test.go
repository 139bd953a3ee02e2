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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
)

// nginx reads the files, is told to reload, and serves each new certificate; no
// handshake fails meanwhile.
func TestNginx(t *testing.T) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal("this test needs nginx (apt-get install nginx-light)")
	}
	s := newSetup(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	address := listener.Addr().String()
	s.must(listener.Close())
	work := t.TempDir()
	config := filepath.Join(work, "nginx.conf")
	s.must(os.WriteFile(config, fmt.Appendf(nil, `
daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen %[2]s ssl; ssl_certificate %[3]s/fullchain.pem; ssl_certificate_key %[3]s/privkey.pem; return 204; }
}`, work, address, s.cfg.Directory), 0o644))
	b := s.bundle()
	s.putByHand(b) // nginx is there before rotatord
	nginx := exec.CommandContext(t.Context(), program, "-c", config)
	nginx.Stdout, nginx.Stderr = t.Output(), t.Output()
	nginx.Cancel = func() error { return nginx.Process.Signal(os.Interrupt) }
	s.must(nginx.Start())
	t.Cleanup(func() { _ = nginx.Wait() })
	s.waitServed(address, b)
	s.cfg.Reload.Command = []string{program, "-c", config, "-s", "reload"}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var shakes atomic.Int64
	wg.Go(func() {
		for !stop.Load() {
			if _, err := shake(t.Context(), address); err != nil {
				t.Errorf("handshake: %v", err)
				return
			}
			shakes.Add(1)
		}
	})
	for range 10 {
		b = s.bundle()
		s.must(s.deploy(b))
		s.waitServed(address, b)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d handshakes", shakes.Load())
}

func shake(ctx context.Context, address string) (certs.Fingerprint, error) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{InsecureSkipVerify: true}}
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

func (s *setup) waitServed(address string, b *certs.Bundle) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		f, err := shake(s.t.Context(), address)
		if err == nil && f == b.Fingerprint() {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("serves %s, want %s: %v", f.Short(), b.Fingerprint().Short(), err)
		}
		<-time.After(20 * time.Millisecond)
	}
}
