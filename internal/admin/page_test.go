package admin

import (
	"errors"
	"flag"
	"fmt"
	"html"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var updatePages = flag.Bool("update", false, "write the golden pages anew")

// TestPagesAreWhole: every page has what readers and keyboards need, and the headers that keep a
// browser from making more of it than it is.
func TestPagesAreWhole(t *testing.T) {
	f := estate()
	base := serveSite(t, f)
	for _, path := range []string{"/", "/?q=shop", "/?state=failed", "/policies", "/policies/shop", "/policies/mail", "/assignments/shop/shop.example.com", "/assignments/mail/mail.example.com", "/assignments/shop/new.example.com", "/history", "/history?policy=shop&certificate=shop.example.com&before=90"} {
		r, body := fetch(t, http.MethodGet, base+path)
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": policyOfContents, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		for _, part := range []string{`<html lang="en">`, `<main id="main"`, `href="#main"`, `<nav aria-label=`, `<footer>`, `name="viewport"`} {
			if !strings.Contains(body, part) {
				t.Errorf("%s has no %s", path, part)
			}
		}
		if n := strings.Count(body, "<h1"); n != 1 {
			t.Errorf("%s has %d headings of the first order", path, n)
		}
		if strings.Count(body, "<table") != strings.Count(body, "<caption") {
			t.Errorf("%s has a table without a caption", path)
		}
		for _, bad := range []string{" style=", "<style", "<script>", "onclick", "http://", "https://", "ZgotmplZ", "%!", "<no value>"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
		if r, body := fetch(t, http.MethodHead, base+path); r.StatusCode != http.StatusOK || body != "" {
			t.Errorf("HEAD %s: %d", path, r.StatusCode)
		}
		if r, _ := fetch(t, http.MethodPost, base+path); r.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, r.StatusCode)
		}
	}
	for path, status := range map[string]int{"/assignments/shop/nope": 404, "/policies/nope": 404, "/?state=well": 400, "/?page=0": 400, "/history?before=x": 400, "/history?certificate=x": 400, "/static/openapi.json": 404, "/static/": 404, "/nope": 404} {
		if r, _ := fetch(t, http.MethodGet, base+path); r.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, r.StatusCode, status)
		}
	}
}

// TestPageWords compares the words of some pages with a golden file.
func TestPageWords(t *testing.T) {
	base := serveSite(t, estate())
	var all strings.Builder
	for _, path := range []string{"/", "/policies", "/assignments/mail/mail.example.com", "/assignments/shop/new.example.com"} {
		_, body := get(t, base+path)
		fmt.Fprintf(&all, "=== %s\n%s\n", path, wordsOf(body))
	}
	golden := "testdata/pages.txt"
	if *updatePages {
		if err := os.WriteFile(golden, []byte(all.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if all.String() != string(want) {
		t.Errorf("the pages say something else than %s; look at it, and run with -update\n%s", golden, all.String())
	}
}

var (
	notShown = regexp.MustCompile(`(?s)<svg.*?</svg>|<head>.*?</head>|<noscript>.*?</noscript>|<option.*?</option>`)
	tag      = regexp.MustCompile(`<[^>]*>`)
	instant  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	spanText = regexp.MustCompile(`\b\d+(s|m|h\d\dm|d\d+h|d)\b`)
)

// wordsOf is a page as it is read out: without tags, and without times.
func wordsOf(page string) string {
	page = tag.ReplaceAllString(notShown.ReplaceAllString(page, ""), "\n")
	page = spanText.ReplaceAllString(instant.ReplaceAllString(html.UnescapeString(page), "TIME"), "SPAN")
	var lines []string
	for line := range strings.SplitSeq(page, "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// TestEmpty: what is not there is said in words.
func TestEmpty(t *testing.T) {
	for _, test := range []struct {
		name   string
		reader func() *fakeReader
		path   string
		want   string
	}{
		{"no policy", func() *fakeReader { return newFake() }, "/", "No policy is in force."},
		{"no policy", func() *fakeReader { return newFake() }, "/policies", "No policy is in force."},
		{"no certificate", func() *fakeReader {
			f := newFake()
			f.status.Policies = []Policy{{Name: "shop", Source: "directory", Place: "here"}}
			return f
		}, "/", "No certificate yet"},
		{"no certificate of a policy", func() *fakeReader {
			f := newFake()
			f.status.Policies = []Policy{{Name: "shop", Source: "directory", Place: "here"}}
			return f
		}, "/policies/shop", "No certificate yet"},
		{"not read", func() *fakeReader {
			f := newFake()
			f.unread = errors.New("the journal has not been read")
			return f
		}, "/", "Nothing is known yet: the journal has not been read."},
		{"no match", estate, "/?q=nothing-like-it", "No certificate matches."},
		{"nothing wrong", func() *fakeReader { return newFake(certificate("shop", "a", "converged", 0.9)) }, "/", "Nothing needs attention"},
		{"no NATS", func() *fakeReader {
			f := estate()
			f.pastErr = errors.New("NATS is not connected")
			return f
		}, "/assignments/shop/shop.example.com", "the history cannot be read: NATS is not connected"},
		{"no past", func() *fakeReader {
			f := estate()
			f.past = nil
			return f
		}, "/history", "Nothing happened yet"},
	} {
		if _, body := get(t, serveSite(t, test.reader())+test.path); !strings.Contains(html.UnescapeString(body), test.want) {
			t.Errorf("%s: %s does not say %q\n%s", test.name, test.path, test.want, wordsOf(body))
		}
	}
}

// TestTenThousand: a page of a large estate stays small, cheap and complete.
func TestTenThousand(t *testing.T) {
	f := large(10_000)
	base := serveSite(t, f)
	status, body := get(t, base+"/")
	if status != http.StatusOK || strings.Count(body, "<tr role=\"row\" data-key") != rowsOnPage || !strings.Contains(body, "1–100 of 10,000 certificates") {
		t.Errorf("%d, %d rows", status, strings.Count(body, "data-key"))
	}
	if len(body) > 250_000 {
		t.Errorf("the page has %d bytes", len(body))
	}
	if _, last := get(t, base+"/?page=100&sort=name"); !strings.Contains(last, "9,901–10,000 of 10,000") || !strings.Contains(last, "Page 100 of 100") {
		t.Errorf("the last page: %s", wordsOf(last)[:400])
	}
	if _, beyond := get(t, base+"/?page=5000"); !strings.Contains(beyond, "Page 100 of 100") {
		t.Error("a page beyond the last is not the last")
	}
	if _, found := get(t, base+"/?q=host-07777"); !strings.Contains(found, "host-07777.example.com") || !strings.Contains(found, "1–1 of 1 certificate<") {
		t.Errorf("search: %s", wordsOf(found))
	}
	// A hundred pages cost far less than a hundred looks: one in five seconds, and some ms each.
	looks, before, began := f.looks, processorTime(t), time.Now()
	for i := range 100 {
		get(t, fmt.Sprintf("%s/?page=%d", base, i+1))
	}
	if took := processorTime(t) - before; took > 10*time.Second && !testing.Short() {
		t.Errorf("100 pages took %s of the processor", took)
	}
	if more, due := f.looks-looks, 1+int(time.Since(began)/staleAfter); more > due {
		t.Errorf("%d looks for 100 pages, want %d", more, due)
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkFrontPage is the front page of 10,000 certificates, from the request to the last byte.
func BenchmarkFrontPage(b *testing.B) {
	for _, test := range []struct{ name, path string }{{"page", "/"}, {"search", "/?q=host-07"}, {"api", "/api/v1/assignments"}, {"assignment", "/assignments/policy-00/host-00000.example.com"}} {
		b.Run(test.name, func(b *testing.B) {
			handler := Handler(Config{Metrics: http.NotFoundHandler(), Reader: large(10_000), Ready: func() []Component { return nil }, Logger: discard()})
			bytes := 0
			for b.Loop() {
				w := &counting{header: http.Header{}}
				q, err := http.NewRequestWithContext(b.Context(), http.MethodGet, test.path, nil)
				if err != nil {
					b.Fatal(err)
				}
				handler.ServeHTTP(w, q)
				bytes = w.n
			}
			b.ReportMetric(float64(bytes), "bytes/answer")
		})
	}
	b.Run("index", func(b *testing.B) {
		f := large(10_000)
		for b.Loop() {
			newIndex(f)
		}
	})
}

type counting struct {
	header http.Header
	n      int
}

func (c *counting) Header() http.Header { return c.header }
func (c *counting) WriteHeader(int)     {}
func (c *counting) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}
