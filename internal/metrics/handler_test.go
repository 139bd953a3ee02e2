package metrics

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/rotation"
)

// What Prometheus servers accept: 2.42, 3.5, and 3.5 with native histograms.
const (
	prometheus2      = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
	prometheus3      = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
	prometheusNative = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," + prometheus3
)

// ask sends a request to a handler and unpacks the answer.
func ask(t *rapid.T, h http.Handler, accept, encoding string) (contentType string, body []byte) {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", encoding)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if length := w.Header().Get("Content-Length"); length != "" && length != fmt.Sprint(w.Body.Len()) {
		t.Fatalf("Content-Length is %s, and there are %d", length, w.Body.Len())
	}
	body = w.Body.Bytes()
	if w.Header().Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false) // some clients read one stream only
		if body, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return w.Header().Get("Content-Type"), body
}

// byFamily takes an answer to pieces: the lines, or the fields of the message, of each family
// of ours, sorted. What the process tells of itself differs between any two answers.
func byFamily(t *rapid.T, contentType string, body []byte) map[string][]string {
	found := map[string][]string{}
	note := func(name string, all []string) {
		if found[name] != nil {
			t.Fatalf("%s comes twice", name)
		}
		slices.Sort(all)
		if strings.HasPrefix(name, "rotatord_") {
			found[name] = all
		}
	}
	if strings.Contains(contentType, "protobuf") {
		for len(body) > 0 {
			size, n := binary.Uvarint(body)
			message := body[n : n+int(size)]
			body = body[n+int(size):]
			var name string
			var all []string
			for len(message) > 0 {
				if message[0]&7 == 0 {
					all, message = append(all, string(message[:2])), message[2:]
					continue
				}
				length, n := binary.Uvarint(message[1:])
				field := message[:1+n+int(length)]
				if message = message[len(field):]; field[0] == 1<<3|2 {
					name = string(field[1+n:])
				}
				all = append(all, string(field))
			}
			note(name, all)
		}
		return found
	}
	openMetrics := strings.HasPrefix(contentType, "application/openmetrics-text")
	if openMetrics != bytes.HasSuffix(body, end) || bytes.Count(body, end) > 1 {
		t.Fatalf("the end is not where it belongs in %s", contentType)
	}
	var name string
	var all []string
	for line := range strings.Lines(strings.TrimSuffix(string(body), string(end))) {
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			if name != "" {
				note(name, all)
			}
			name, _, _ = strings.Cut(help, " ")
			all = nil
		}
		all = append(all, line)
	}
	note(name, all)
	return found
}

// TestAnswersAreAsThePlainOnes: over any history, what is kept ready is what the collector
// would have made anew, in every format that a Prometheus server asks for.
func TestAnswersAreAsThePlainOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := newHistory(t)
		m := New(fixedConfig(func() world { return world{Assignments: history.list} }))
		ready := m.Handler(slog.New(slog.DiscardHandler))
		plain := ready.(*scrapes).all
		for range rapid.IntRange(1, 6).Draw(t, "scrapes") {
			history.step(t)
			accept := rapid.SampledFrom([]string{prometheus2, prometheus3, prometheusNative, "text/plain", "*/*", "application/openmetrics-text;version=0.0.1"}).Draw(t, "accept")
			encoding := rapid.SampledFrom([]string{"gzip", "identity", "deflate, gzip;q=0.5", "zstd"}).Draw(t, "encoding")
			gotType, got := ask(t, ready, accept, encoding)
			wantType, want := ask(t, plain, accept, "identity")
			if gotType != wantType {
				t.Fatalf("Content-Type is %s, want %s", gotType, wantType)
			}
			g, w := byFamily(t, gotType, got), byFamily(t, wantType, want)
			for _, name := range slices.Sorted(maps.Keys(w)) {
				if !slices.Equal(g[name], w[name]) {
					t.Fatalf("%s, %s: got\n%q\nwant\n%q", accept, name, g[name], w[name])
				}
			}
			if len(g) != len(w) || len(w) < 20 {
				t.Fatalf("%d families, want %d", len(g), len(w))
			}
		}
	})
}

// history changes a list as daemons do: some come, go and change, between others.
type history struct {
	list []*Assignment
	odd  *rand.Rand
}

func newHistory(t *rapid.T) *history {
	h := &history{odd: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
	for range rapid.SampledFrom([]int{0, 1, 5, 300}).Draw(t, "first") {
		h.add()
	}
	return h
}

func (h *history) add() {
	name := fmt.Sprintf("h%d.example.com", h.odd.IntN(2000))
	if h.odd.IntN(10) == 0 {
		name = []string{"odd\xff", "odd\ufffd", `quote"back\slash`, "new\nline", ""}[h.odd.IntN(5)]
	}
	at := h.odd.IntN(len(h.list) + 1)
	h.list = slices.Insert(slices.Clone(h.list), at, h.any(name))
}

// any is an assignment of some kind.
func (h *history) any(name string) *Assignment {
	a := []func() *Assignment{converged, rotating, failed, unknown, issued, func() *Assignment { return ordinary(name) },
		func() *Assignment { return &Assignment{State: rotation.StateExpired} }}[h.odd.IntN(7)]()
	a.ID = rotation.ID{Policy: []string{"shop", "mail"}[h.odd.IntN(2)], Certificate: name}
	if h.odd.IntN(3) == 0 {
		a.State = rotation.States()[h.odd.IntN(len(rotation.States()))]
	}
	if a.Record != nil && h.odd.IntN(3) == 0 {
		a.Record = new(*a.Record)
		a.Record.Probes = append(slices.Clone(a.Record.Probes), providers.Probe{
			Endpoint: name + ":8443", NotAfter: noon, NotBefore: time.UnixMilli(h.odd.Int64N(1 << 45)), Fingerprint: certs.Fingerprint{7},
			Duration: time.Duration(h.odd.Int64N(1e12)),
		})
	}
	return a
}

func (h *history) step(t *rapid.T) {
	for range rapid.IntRange(0, 4).Draw(t, "events") {
		switch n := len(h.list); {
		case n == 0 || h.odd.IntN(3) == 0:
			h.add()
		case h.odd.IntN(20) == 0:
			h.list = nil
		case h.odd.IntN(2) == 0:
			at := h.odd.IntN(n)
			h.list = slices.Delete(slices.Clone(h.list), at, at+1)
		default:
			at := h.odd.IntN(n)
			h.list = slices.Clone(h.list)
			h.list[at] = h.any(h.list[at].ID.Certificate)
		}
	}
}

// TestOnlyWhatChangedIsEncoded holds the price of a change to the block that it is in.
func TestOnlyWhatChangedIsEncoded(t *testing.T) {
	var list []*Assignment
	for i := range 20 * blockSize {
		list = append(list, ordinary(fmt.Sprintf("host%05d.example.com", i)))
	}
	b := newBoard(func() []*Assignment { return list })
	b.answer(formatText, nil, noon)
	encoded := func() map[*[families]piece]bool {
		all := map[*[families]piece]bool{}
		for _, one := range b.blocks {
			all[one.encoded[formatText]] = true
		}
		return all
	}
	for name, change := range map[string]func(at int){
		"changed": func(at int) { list[at] = new(*list[at]) },
		"came":    func(at int) { list = slices.Insert(list, at, ordinary(fmt.Sprintf("host%05d.example.net", at))) },
		"gone":    func(at int) { list = slices.Delete(list, at, at+1) },
	} {
		for _, at := range []int{0, 700, 2500} {
			before := encoded()
			list = slices.Clone(list)
			change(at)
			b.answer(formatText, nil, noon)
			now := encoded()
			maps.DeleteFunc(now, func(e *[families]piece, _ bool) bool { return before[e] })
			// A cut may come or go with what changed, and where none is for long, one is made. Who goes
			// may have been a block alone.
			if len(now) == 0 && name != "gone" || len(now) > 4 {
				t.Errorf("%s at %d: %d blocks were encoded of %d", name, at, len(now), len(before))
			}
		}
	}
}

// TestBlocksAreBounded: where no name makes a cut, one is made all the same.
func TestBlocksAreBounded(t *testing.T) {
	b := newBoard(nil)
	var list []*Assignment
	for i := 0; len(list) < 3*maxBlock; i++ {
		if a := ordinary(fmt.Sprintf("host%05d.example.com", i)); !b.cutsAt(a.ID) {
			list = append(list, a)
		}
	}
	parts := b.cut(list)
	if len(parts) != 3 || len(slices.Concat(parts...)) != len(list) {
		t.Errorf("%d blocks", len(parts))
	}
}

// TestFormatsAreForgotten: what nobody asks for any more takes no memory.
func TestFormatsAreForgotten(t *testing.T) {
	list := []*Assignment{converged()}
	b := newBoard(func() []*Assignment { return list })
	b.answer(formatText, nil, noon)
	b.answer(formatOpenMetrics, nil, noon.Add(formatKept))
	if b.blocks[0].encoded[formatText] == nil {
		t.Error("a format was forgotten while it was asked for")
	}
	b.answer(formatOpenMetrics, nil, noon.Add(formatKept+1))
	if b.blocks[0].encoded[formatText] != nil || b.blocks[0].encoded[formatOpenMetrics] == nil {
		t.Error("the wrong format was forgotten, or none")
	}
}

// TestOneBadSeries: a collector that fails takes no other series with it.
func TestOneBadSeries(t *testing.T) {
	m := New(fixedConfig(fixedLook))
	bad := prometheus.NewDesc("bad", "x", nil, nil)
	m.live.MustRegister(prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) { ch <- prometheus.NewInvalidMetric(bad, io.ErrUnexpectedEOF) }))
	var logs strings.Builder
	w := httptest.NewRecorder()
	m.Handler(slog.New(slog.NewTextHandler(&logs, nil))).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "rotatord_triggers_total") || !strings.Contains(w.Body.String(), "rotatord_assignment_state") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !strings.Contains(logs.String(), io.ErrUnexpectedEOF.Error()) {
		t.Errorf("logged %q", logs.String())
	}
}

// TestScrapesOverHTTP asks over a real connection, as different clients do.
func TestScrapesOverHTTP(t *testing.T) {
	m := New(fixedConfig(fixedLook))
	h := m.Handler(slog.New(slog.DiscardHandler)).(*scrapes)
	server := httptest.NewServer(h)
	defer server.Close()
	get := func(method, query, encoding string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/metrics"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", encoding)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}
	for encoding, packed := range map[string]bool{
		"gzip": true, "gzip;q=0": false, "identity": false, "br, *": true, "*;q=0": false, "deflate, gzip;q=0.3": true, "gzip;q=x": false, "": false,
	} {
		response, body := get(http.MethodGet, "", encoding)
		if packed != (response.Header.Get("Content-Encoding") == "gzip") || packed == strings.Contains(body, "rotatord_assignment_state") {
			t.Errorf("%q: Content-Encoding %q, %d bytes", encoding, response.Header.Get("Content-Encoding"), len(body))
		}
		if vary := response.Header.Get("Vary"); !strings.Contains(vary, "Accept-Encoding") {
			t.Errorf("%q: Vary is %q", encoding, vary)
		}
	}
	if response, body := get(http.MethodHead, "", "gzip"); body != "" || response.ContentLength < 1000 {
		t.Errorf("HEAD: %d bytes of %d", len(body), response.ContentLength)
	}
	if _, body := get(http.MethodGet, "?name[]=rotatord_assignment_state", "identity"); strings.Count(body, "# HELP") != 1 || !strings.Contains(body, `rotatord_assignment_state{certificate="mx.example.com"`) {
		t.Errorf("one family was asked for:\n%s", body)
	}
	for range maxScrapes {
		if !h.places.TryAcquire(1) {
			t.Fatal("there are fewer places")
		}
	}
	if response, _ := get(http.MethodGet, "", "gzip"); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one scrape too many: %s", response.Status)
	}
}

// stuck is a client that does not read.
type stuck struct {
	*httptest.ResponseRecorder
	writes chan struct{}
	end    <-chan struct{}
}

// Write implements http.ResponseWriter.
func (s stuck) Write(p []byte) (int, error) {
	s.writes <- struct{}{}
	<-s.end
	return 0, io.ErrClosedPipe
}

// TestSlowScrapers: who does not read an answer keeps nobody else from a scrape.
func TestSlowScrapers(t *testing.T) {
	h := New(fixedConfig(fixedLook)).Handler(slog.New(slog.DiscardHandler))
	scrape := func(query string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/metrics"+query, nil)
		r.Header.Set("Accept-Encoding", "gzip")
		return r
	}
	end, ended := make(chan struct{}), make(chan struct{})
	for _, query := range []string{"", "?name[]=rotatord_assignment_state"} {
		for range maxScrapes {
			s := stuck{httptest.NewRecorder(), make(chan struct{}, 100), end}
			go func() {
				h.ServeHTTP(s, scrape(query))
				ended <- struct{}{}
			}()
			<-s.writes
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, scrape(""))
		if w.Code != http.StatusOK {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
	close(end)
	for range 2 * maxScrapes {
		<-ended
	}
}
