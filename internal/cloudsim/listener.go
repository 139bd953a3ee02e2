package cloudsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// webServer is an http.Server on one listener, with an end that waits for everything.
type webServer struct {
	tcp    net.Listener
	server *http.Server
	serve  sync.WaitGroup
	conns  sync.WaitGroup // Add happens only while serve is not done
}

// serveOn serves handler on listener, which is tcp or wraps it. HTTP/1.1 only: cutting an HTTP/2 stream would not cut the
// connection.
func serveOn(s *Sim, tcp, listener net.Listener, handler http.Handler) *webServer {
	web := &webServer{tcp: tcp}
	web.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(logServer{s.cfg.Logger}, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				web.conns.Add(1)
			case http.StateClosed:
				web.conns.Done()
			}
		},
	}
	web.serve.Go(func() { _ = web.server.Serve(listener) }) // it ends with ErrServerClosed
	return web
}

// close cuts every connection and waits. net/http's own Close does not wait for handlers. nil is closed already.
func (w *webServer) close() {
	if w == nil {
		return
	}
	_ = w.server.Close()
	w.serve.Wait()
	w.conns.Wait()
}

// apiListener is the TLS listener of all services.
type apiListener struct {
	*webServer
	caPEM []byte
}

func listenAPI(s *Sim) (*apiListener, error) {
	caPEM, cert, err := serverCertificate()
	if err != nil {
		return nil, err
	}
	tcp, err := listenTCP(s.cfg.Listen)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	listener := tls.NewListener(refusingListener{Listener: tcp, faults: s.faults}, config)
	return &apiListener{webServer: serveOn(s, tcp, listener, s.Handler()), caPEM: caPEM}, nil
}

func (a *apiListener) url() string { return "https://" + a.tcp.Addr().String() }

// refusingListener closes connections on accept while FaultRefuse with OperationConnect is armed.
type refusingListener struct {
	net.Listener
	faults *Faults
}

func (l refusingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err // the listener's own words: Serve looks for net.ErrClosed
		}
		if _, struck := l.faults.take("", OperationConnect, true); !struck {
			return conn, nil
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not a polite end
		}
		_ = conn.Close()
	}
}

// serverCertificate makes a root and a certificate for loopback names. Both are new at each start, so that nobody
// can come to trust the simulator for good.
func serverCertificate() (caPEM []byte, cert tls.Certificate, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, cert, fmt.Errorf("make root key: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "rotatord cloud simulator root"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, cert, fmt.Errorf("make root: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, cert, fmt.Errorf("make server key: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "rotatord cloud simulator"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, cert, fmt.Errorf("make server certificate: %w", err)
	}
	caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return caPEM, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
