package admin

import (
	"cmp"
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
)

// Reader is what the status page and the read API are told. Nothing that it does calls a
// cloud, and but for History it answers from memory: whoever reaches the listener may ask, as
// often as they like.
type Reader interface {
	// Status is how everything stands.
	Status() Status
	// Unread is why Status does not tell all yet; nil when it does, and then for good, or until
	// what is told has to be read anew.
	Unread() error
	// Chain are the intermediates of what is wanted, where they are known.
	Chain(policy, certificate string) []Intermediate
	// History returns events, newest first. It looks through a bounded number of them.
	History(ctx context.Context, q HistoryQuery) (History, error)
	// Changed is closed when Status tells, or may tell, something else than at the time of the
	// call.
	Changed() <-chan struct{}
}

// HistoryQuery says which events are meant.
type HistoryQuery struct {
	// Policy and Certificate are whose; empty: all.
	Policy, Certificate string
	// Before is the sequence that all of them come before; 0: the newest come first.
	Before uint64
	Limit  int
}

const (
	// maxAsking and maxHistories bound how many are answered at once. Whoever comes too much
	// waits for a place of the first kind, and then is told to come again.
	maxAsking    = 32
	placeWait    = 5 * time.Second
	maxHistories = 4
	// maxListeners bounds who is told of changes.
	maxListeners = 64
)

// site is the status page and the read API.
type site struct {
	reader  Reader
	ready   func() []Component
	log     *slog.Logger
	indexes *indexes
	pages   *template.Template
	// asking, histories and listeners have as many places as there may be of them.
	asking, histories, listeners *semaphore.Weighted
	// heartbeat is the longest time between two signs of life to a listener.
	heartbeat time.Duration
}

//go:embed static
var static embed.FS

func newSite(cfg Config) *site {
	return &site{
		reader: cfg.Reader, ready: cfg.Ready, log: cfg.Logger, indexes: newIndexes(cfg.Reader), pages: parsePages(), asking: semaphore.NewWeighted(maxAsking),
		histories: semaphore.NewWeighted(maxHistories), listeners: semaphore.NewWeighted(maxListeners),
		heartbeat: cmp.Or(cfg.heartbeat, heartbeat),
	}
}

// route adds the page and the API to a mux.
func (s *site) route(mux *http.ServeMux) {
	for pattern, page := range map[string]page{
		"/{$}": s.front, "/policies": s.policyList, "/policies/{policy}": s.policyPage, "/history": s.historyPage,
		"/assignments/{policy}/{certificate}": s.assignmentPage,
		// For the few names that no path can hold.
		"/assignments/{policy}/{$}": s.assignmentPage,
	} {
		mux.HandleFunc("GET "+pattern, s.serve(page))
	}
	mux.HandleFunc("GET /events", s.events)
	for _, name := range []string{"style.css", "live.js", "icon.svg"} {
		mux.HandleFunc("GET /static/"+name, serveStatic(name))
	}
	s.routeAPI(mux)
}

// serveStatic serves an embedded file. Browsers keep it, and ask whether it is still that one.
func serveStatic(name string) http.HandlerFunc {
	content, err := static.ReadFile("static/" + name)
	if err != nil {
		panic("a file of the status page is not in the binary: " + name)
	}
	kind := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}[name[strings.LastIndexByte(name, '.'):]]
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		send(w, r, http.StatusOK, content)
	}
}

// await takes a place, in the order in which they came who want one. Whoever got it releases it.
func await(ctx context.Context, places *semaphore.Weighted) bool {
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	return places.Acquire(ctx, 1) == nil
}

// pathOf is where an assignment is found. A path cannot have a segment that is empty or dots:
// browsers and proxies take those for something else.
func pathOf(policy, certificate string) string {
	path := "/assignments/" + url.PathEscape(policy) + "/"
	switch certificate {
	case "", ".", "..":
		return path + "?" + url.Values{"certificate": {certificate}}.Encode()
	}
	return path + url.PathEscape(certificate)
}
