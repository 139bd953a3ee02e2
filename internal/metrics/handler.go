package metrics

import (
	"bytes"
	"compress/flate"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/semaphore"
)

const (
	// maxScrapes bounds how many answers are worked out at once.
	maxScrapes = 4
	// placeWait is how long somebody waits for his turn: those who ask too often must not keep
	// a scraper out that asks twice a minute.
	placeWait = 5 * time.Second
)

// Handler answers scrapes: what lives is gathered and written by the Prometheus library, in
// the format that it chooses for the scraper, and what assignments have is added as it lies
// ready. What it cannot add to is answered by the library alone.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	options := promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		// A series that cannot be served is logged and counted; the others still tell.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	options.Registry = m.registry
	all := promhttp.HandlerFor(m.registry, options)
	options.Registry, options.DisableCompression = m.live, true
	return &scrapes{
		board: m.board, live: promhttp.HandlerFor(m.live, options), all: all,
		places: semaphore.NewWeighted(maxScrapes), plainPlaces: semaphore.NewWeighted(maxScrapes),
	}
}

type scrapes struct {
	board     *board
	live, all http.Handler
	// places are for working an answer out, plainPlaces for answers that are worked on while
	// they are read: those of the library, and what was compressed for who wants it plain.
	places, plainPlaces *semaphore.Weighted
}

// ServeHTTP implements http.Handler.
func (s *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("name[]") { // who asks for some families only
		s.plain(w, r)
		return
	}
	stream, header, free := s.answer(r)
	switch {
	case !free:
		busy(w)
	case stream == nil:
		s.plain(w, r)
	default:
		maps.Copy(w.Header(), header)
		w.Header().Set("Vary", "Accept, Accept-Encoding")
		s.send(w, r, stream)
	}
}

// send sends an answer that lies ready.
func (s *scrapes) send(w http.ResponseWriter, r *http.Request, of *stream) {
	if acceptsGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(of.gzipSize()))
		of.send(w, r)
		return
	}
	if !await(r.Context(), s.plainPlaces) {
		busy(w)
		return
	}
	defer s.plainPlaces.Release(1)
	w.Header().Set("Content-Length", strconv.Itoa(of.size))
	of.sendPlain(w, r)
}

// answer works an answer out, nil where it has to be the library's. It takes a place, if one
// is free, and who reads the answer slowly holds none.
func (s *scrapes) answer(r *http.Request) (of *stream, header http.Header, free bool) {
	if !await(r.Context(), s.places) {
		return nil, nil, false
	}
	defer s.places.Release(1)
	live := answer{header: http.Header{}, status: http.StatusOK}
	s.live.ServeHTTP(&live, r)
	f, ready := formatOf(live.header.Get("Content-Type"))
	if live.status != http.StatusOK || !ready {
		return nil, nil, true
	}
	return s.board.answer(f, live.body.Bytes(), time.Now()), live.header, true
}

// plain has the library answer.
func (s *scrapes) plain(w http.ResponseWriter, r *http.Request) {
	if !await(r.Context(), s.plainPlaces) {
		busy(w)
		return
	}
	defer s.plainPlaces.Release(1)
	s.all.ServeHTTP(w, r)
}

func busy(w http.ResponseWriter) {
	http.Error(w, "Limit of concurrent requests reached ("+strconv.Itoa(maxScrapes)+"), try again later.", http.StatusServiceUnavailable)
}

// await takes a place, in the order in which they came who want one. Whoever got it releases it.
func await(ctx context.Context, places *semaphore.Weighted) bool {
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	return places.Acquire(ctx, 1) == nil
}

// send writes the gzip stream. Whoever has gone need not be told.
func (s *stream) send(w io.Writer, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	parts := append(append(net.Buffers{gzipHeader}, s.parts...), s.trailer())
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// sendPlain writes what was compressed. Nobody keeps it, it is ten times as long.
func (s *stream) sendPlain(w io.Writer, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	parts := append(append(net.Buffers{}, s.parts...), lastBlock)
	_, _ = io.Copy(w, flate.NewReader(&parts))
}

// acceptsGzip reports whether the answer may be compressed.
func acceptsGzip(h http.Header) bool {
	for _, values := range h.Values("Accept-Encoding") {
		for value := range strings.SplitSeq(values, ",") {
			coding, parameter, _ := strings.Cut(value, ";")
			if coding = strings.TrimSpace(coding); coding != "gzip" && coding != "*" {
				continue
			}
			q, weighted := strings.CutPrefix(strings.TrimSpace(parameter), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			return !weighted || err == nil && weight > 0
		}
	}
	return false
}

// answer holds what a handler answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
