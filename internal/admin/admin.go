// Package admin is how people and monitoring look at the daemon, and tell it what to do: the
// HTTP listener with metrics and health, which is read-only, and the control socket.
//
// It may import golang.org/x/sys and the standard library; what is true it is told by
// functions, and what is asked of it, it hands on to functions and handlers.
//
// Invariants: nothing can be changed over the HTTP listener; who may write to the socket may
// do everything that its verbs do, and who that is, the kernel says; a slow or hostile client holds
// up nobody else; what is served holds no key and no secret, because none is ever
// handed to it.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Config is what the listener serves.
type Config struct {
	// Listen is host:port; port 0 lets the system choose.
	Listen string
	// Listener, if there is one, is served instead of Listen: somebody else has bound it.
	Listener net.Listener
	// Metrics answers scrapes.
	Metrics http.Handler
	// Ready returns the state of each component; the daemon is ready when none has a
	// reason.
	Ready func() []Component
	// Alive returns nil while the process makes progress.
	Alive  func() error
	Logger *slog.Logger
}

// Component is a part of the daemon with the reason why it is not ready, if any.
type Component struct {
	Name   string `json:"component"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

const (
	headerWait   = 5 * time.Second
	requestWait  = 30 * time.Second
	idleWait     = 2 * time.Minute
	maxHeader    = 16 << 10
	shutdownWait = 5 * time.Second
	readWait     = 100 * time.Millisecond
)

// Server is a bound listener.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen binds the address, unless there is a listener already. Nothing is served before Serve.
func Listen(cfg Config) (*Server, error) {
	listener, err := cfg.Listener, error(nil)
	if listener == nil {
		listener, err = net.Listen("tcp", cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w", err)
	}
	return &Server{listener, &http.Server{
		Handler:           Handler(cfg),
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       requestWait,
		WriteTimeout:      requestWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}}, nil
}

// Addr is the bound address.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close closes a listener that was never served.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers until ctx ends, and then a little longer those who asked already.
func (s *Server) Serve(ctx context.Context) error {
	if err := serveUntil(ctx, s.http, s.listener); err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// serveUntil answers until ctx ends and returns when nobody is answered any more. What is being
// answered then hears of it by its own context.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := s.Serve(l); ctx.Err() == nil {
		return err
	}
	// Nobody is accepted any more. A request that is read after Shutdown has begun would be
	// dropped, so that those who were accepted are read first.
	<-time.After(readWait)
	shutdown(ctx, s)
	return nil
}

// shutdown ends a server: those who asked already are answered, if it does not take long.
func shutdown(ctx context.Context, s *http.Server) {
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	if s.Shutdown(wait) != nil {
		_ = s.Close()
	}
}

// Handler is the listener's content.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", cfg.Metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { live(w, cfg.Alive()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { ready(w, cfg.Ready()) })
	mux.HandleFunc("GET /{$}", index)
	return harden(mux)
}

// harden sets the headers that keep a browser from making more of an answer than it is.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func live(w http.ResponseWriter, problem error) {
	if problem != nil {
		http.Error(w, problem.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// ready answers with every component, so that whoever is woken sees at once which.
func ready(w http.ResponseWriter, components []Component) {
	status := http.StatusOK
	for i := range components {
		components[i].Ready = components[i].Reason == ""
		if !components[i].Ready {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(struct {
		Ready      bool        `json:"ready"`
		Components []Component `json:"components"`
	}{status == http.StatusOK, components})
}

func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "rotatord\n\n/metrics   Prometheus metrics\n/readyz    is it ready, and which part is not\n/livez     is it alive\n")
}
