package cloudsim

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Sim is one simulated cloud account.
type Sim struct {
	cfg    Config
	routes []route
	faults *Faults
	ledger ledger
	done   chan struct{} // closed by Close

	mu       sync.Mutex // guards the states of the services; held during an operation, never while waiting
	iam      iamState
	waf      wafState
	apig     apigState
	pca      pcaState
	identity identityState

	rngMu sync.Mutex
	rng   *rand.Rand

	closing  sync.Once
	listenMu sync.Mutex // guards what follows
	closed   bool
	api      *apiListener // nil before Start
	edges    []*edgeListener
	metadata *webServer  // nil before Start and without Config.Metadata
	stopCtx  func() bool // unties Close from Start's context
}

// New builds an account without listening anywhere; Handler and Transport work at once. Inside a synctest bubble New
// must be called in the bubble.
func New(cfg Config) (*Sim, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("simulated cloud: %w", err)
	}
	s := &Sim{
		cfg:    cfg,
		routes: slices.Concat(iamRoutes(), wafRoutes(cfg.OpenTelekom), apigRoutes(), pcaRoutes(), identityRoutes()),
		faults: newFaults(),
		done:   make(chan struct{}),
		rng:    rand.New(rand.NewPCG(cfg.Seed, 0x726f7461746f7264)),
		iam:    newIAMState(),
	}
	if s.waf, err = newWAFState(s); err != nil {
		return nil, fmt.Errorf("simulated cloud: %w", err)
	}
	if s.apig, err = newAPIGState(s); err != nil {
		return nil, fmt.Errorf("simulated cloud: %w", err)
	}
	if s.pca, err = newPCAState(s); err != nil {
		return nil, fmt.Errorf("simulated cloud: %w", err)
	}
	if s.identity, err = newIdentityState(s); err != nil {
		return nil, fmt.Errorf("simulated cloud: %w", err)
	}
	return s, nil
}

// Start listens for the API and the edges and returns. The end of ctx closes the simulator.
func (s *Sim) Start(ctx context.Context) error {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	if s.closed || s.api != nil {
		return errors.New("simulated cloud: a simulator starts once")
	}
	api, err := listenAPI(s)
	if err != nil {
		return fmt.Errorf("simulated cloud: %w", err)
	}
	var metadata *webServer
	if s.cfg.Metadata {
		if metadata, err = listenMetadata(s); err != nil {
			api.close()
			return fmt.Errorf("simulated cloud: metadata: %w", err)
		}
	}
	var edges []*edgeListener
	for i := range s.cfg.Edges {
		edge, err := listenEdge(s, i)
		if err != nil {
			api.close()
			metadata.close()
			for _, e := range edges {
				e.close()
			}
			return fmt.Errorf("simulated cloud: edge %d: %w", i, err)
		}
		edges = append(edges, edge)
	}
	s.api, s.edges, s.metadata = api, edges, metadata
	s.stopCtx = context.AfterFunc(ctx, func() { _ = s.Close() })
	return nil
}

// Close ends held calls and connections and waits for every goroutine of the simulator. It may be called twice.
// The ledger and the state can still be read afterwards.
func (s *Sim) Close() error {
	s.closing.Do(func() {
		close(s.done)
		s.listenMu.Lock()
		s.closed = true
		api, edges, metadata, stopCtx := s.api, s.edges, s.metadata, s.stopCtx
		s.listenMu.Unlock() // a handler that is waited for below may ask for URL
		if api == nil {
			return
		}
		stopCtx()
		api.close()
		metadata.close()
		for _, e := range edges {
			e.close()
		}
	})
	return nil
}

// Handler answers API calls, in process or behind any server. A connection is cut by a panic with
// http.ErrAbortHandler, as net/http's server understands it; Transport understands it too.
func (s *Sim) Handler() http.Handler {
	if !s.cfg.Management {
		return http.HandlerFunc(s.serveAPI)
	}
	management := s.ManagementHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/sim/") {
			management.ServeHTTP(w, r)
			return
		}
		s.serveAPI(w, r)
	})
}

// URL is https://address:port of the API listener, "" before Start.
func (s *Sim) URL() string {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	if s.api == nil {
		return ""
	}
	return s.api.url()
}

// base is the address that r's caller used, for the catalog.
func (s *Sim) base(r *http.Request) string { return "https://" + r.Host }

// CAPEM is the root that signed the API listener's certificate, made anew by each Start; nil before.
func (s *Sim) CAPEM() []byte {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	if s.api == nil {
		return nil
	}
	return append([]byte(nil), s.api.caPEM...)
}

// EdgeAddrs are the addresses of the edge listeners, empty before Start.
func (s *Sim) EdgeAddrs() []string {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	var addrs []string
	for _, e := range s.edges {
		addrs = append(addrs, e.addr())
	}
	return addrs
}

// Ledger is every call so far, in the order of arrival.
func (s *Sim) Ledger() []Entry { return s.ledger.after(0) }

// LedgerAfter is the part of it after the call with this number.
func (s *Sim) LedgerAfter(seq int) []Entry { return s.ledger.after(seq) }

// Calls is how many there are in the ledger.
func (s *Sim) Calls() int { return s.ledger.len() }

// Faults is where misfortune is ordered.
func (s *Sim) Faults() *Faults { return s.faults }

// Config is the configuration with its defaults.
func (s *Sim) Config() Config { return s.cfg }

// now is the cloud's clock.
func (s *Sim) now() time.Time { return time.Now().Add(s.cfg.ClockOffset) }

// newID is an id as WAF and the gateway write them: 32 hex digits.
func (s *Sim) newID() string { return hex.EncodeToString(s.randomBytes(16)) }

func (s *Sim) randomBytes(n int) []byte {
	s.rngMu.Lock()
	defer s.rngMu.Unlock()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rng.Uint64())
	}
	return b
}

// either settles a doubt of the reference one way or the other: always the same way for one seed, and always the
// first way without Misbehave.
func (s *Sim) either(doubt string) bool {
	return s.cfg.Misbehave && s.hash(doubt)%2 == 1
}

func (s *Sim) hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.FormatUint(s.cfg.Seed, 16) + "/" + text))
	sum := h.Sum64()
	return sum ^ sum>>32 ^ sum>>13 // FNV's low bits alone are too regular for a coin
}

// logServer passes net/http's own complaints on at debug level.
type logServer struct{ logger *slog.Logger }

func (l logServer) Write(p []byte) (int, error) {
	l.logger.Debug("http server", "err", string(p))
	return len(p), nil
}

// listenTCP exists so that both listeners report the address they failed on.
func listenTCP(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return listener, nil
}
