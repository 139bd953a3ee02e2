// Package admin is how people and monitoring look at the daemon, and tell it what to do: the
// HTTP listener with status page, read API, metrics and health, which is read-only, and the
// control socket.
//
// It may import golang.org/x/sync and x/sys, the Prometheus exporter toolkit and the standard library; what is true it is told by
// functions, and what is asked of it, it hands on to functions and handlers.
//
// Invariants: nothing can be changed over the HTTP listener, and nothing asked over it calls a
// cloud or is without a bound; who may write to the socket may
// do everything that its verbs do, and who that is, the kernel says; a slow or hostile client holds
// up nobody else; what is served holds no key and no secret, because none is ever
// handed to it.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
)

// Config is what the listener serves.
type Config struct {
	// Listen is host:port; port 0 lets the system choose.
	Listen string
	// WebConfig is a file in the format of the Prometheus exporter toolkit: TLS, client
	// certificates, users. It is read again when it changes. Empty: plain HTTP for everybody.
	WebConfig string
	// Listener, if there is one, is served instead of Listen: somebody else has bound it.
	Listener net.Listener
	// Metrics answers scrapes.
	Metrics http.Handler
	// Ready returns the state of each component; the daemon is ready when none has a
	// reason.
	Ready func() []Component
	// Alive returns nil while the process makes progress.
	Alive func() error
	// Reader is what the status page and the read API are told.
	Reader Reader
	Logger *slog.Logger
	// requestWait and heartbeat are set by tests that cannot wait; zero: the constants.
	requestWait, heartbeat time.Duration
}

// Component is a part of the daemon with the reason why it is not ready, if any.
type Component struct {
	Name   string `json:"component"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

const (
	headerWait  = 5 * time.Second
	requestWait = 30 * time.Second
	idleWait    = 2 * time.Minute
	maxHeader   = 16 << 10
	// maxConnections bounds what those cost who read their answer slowly, or ask for nothing,
	// maxStreams how much one connection of HTTP/2 may ask for at once.
	maxConnections = 256
	maxStreams     = 32
	shutdownWait   = 5 * time.Second
	readWait       = 100 * time.Millisecond
)

// Server is a bound listener.
type Server struct {
	listener net.Listener
	http     *http.Server
	// serve answers on the listener, in the clear or as the web configuration says.
	serve func() error
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
	admitted := newCrowd(listener, maxConnections)
	server := &http.Server{
		Handler:           atHome(Handler(cfg), cfg, listener.Addr()),
		ConnState:         admitted.note,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       cmp.Or(cfg.requestWait, requestWait),
		WriteTimeout:      cmp.Or(cfg.requestWait, requestWait),
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: eventWait},
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return &Server{admitted, server, serving(server, admitted, cfg)}, nil
}

// serving says how a server answers.
func serving(s *http.Server, l net.Listener, cfg Config) func() error {
	if cfg.WebConfig == "" {
		return func() error { return s.Serve(l) }
	}
	return func() error {
		return web.Serve(l, s, &web.FlagConfig{WebConfigFile: &cfg.WebConfig}, cfg.Logger.With("component", "http"))
	}
}

// CheckWebConfig says what is wrong with a web configuration: nil for none.
func CheckWebConfig(path string) error {
	if err := web.Validate(path); err != nil {
		return fmt.Errorf("web configuration: %w", err)
	}
	return nil
}

// Addr is the bound address.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close closes a listener that was never served.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers until ctx ends, and then a little longer those who asked already.
func (s *Server) Serve(ctx context.Context) error {
	if err := serveUntil(ctx, s.http, s.listener, s.serve); err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// serveUntil answers until ctx ends and returns when nobody is answered any more. What is being
// answered then hears of it by its own context.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener, serve func() error) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := serve(); ctx.Err() == nil {
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
	newSite(cfg).route(mux)
	return harden(mux)
}

// harden sets the headers that keep a browser from making more of an answer than it is.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
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
