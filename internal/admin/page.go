package admin

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// The status page. What it shows are views of the wire's types (view.go), so that the templates
// hold no rules.

//go:embed templates
var templates embed.FS

// policyOfContents lets the page load its own files and nothing else, from nowhere else.
const policyOfContents = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

const (
	rowsOnPage   = 100
	eventsOnPage = 100
	// eventsOfOne is how many events the page of an assignment shows.
	eventsOfOne = 30
	// troublesShown is how many certificates the front page names that wait for people.
	troublesShown = 6
	// policiesToChoose is how many policies are offered in a list; of more, one types the name.
	policiesToChoose = 100
)

// page fills a frame's content and names the template that shows it.
type page func(r *http.Request, f *frame) (template string, err error)

// frame is what all pages have.
type frame struct {
	Title   string
	Section string // of the navigation
	// Live says that the page is worth to be looked at again when something changes.
	Live    bool
	Daemon  Daemon
	Trouble []Component
	Reload  *reloadView
	Made    moment
	Content any

	x *index
}

// parsePages reads the templates. A mistake in them is one of the binary: tests see it.
func parsePages() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"printable": Printable, "counted": counted, "thousands": thousands, "meaning": meaning,
		"cut": func(most int, s string) string { return cut(s, most) }, "short": short,
	}).ParseFS(templates, "templates/*.html"))
}

// serve shows a page.
func (s *site) serve(p page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policyOfContents)
		status, body, err := s.render(r, p)
		if err != nil {
			if status == http.StatusServiceUnavailable {
				h.Set("Retry-After", "2")
			}
			http.Error(w, err.Error(), status)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(body.Len()))
		w.WriteHeader(status)
		_, _ = body.WriteTo(w) // of a HEAD, the server lets only the headers through
	}
}

// render makes a page. It needs a place, and whoever reads the page slowly does not hold it.
func (s *site) render(r *http.Request, p page) (status int, body *bytes.Buffer, err error) {
	if !await(r.Context(), s.asking) {
		return http.StatusServiceUnavailable, nil, errBusy()
	}
	defer s.asking.Release(1)
	status, body = http.StatusOK, &bytes.Buffer{}
	f := s.newFrame()
	name, err := p(r, f)
	if err != nil {
		name, status = "problem", s.problemPage(f, err)
	}
	if err := s.pages.ExecuteTemplate(body, name, f); err != nil {
		s.log.Error("a page cannot be shown", "path", r.URL.Path, "err", err)
		return http.StatusInternalServerError, nil, errors.New("this page cannot be shown; the log says why")
	}
	return status, body, nil
}

func (s *site) newFrame() *frame {
	x := s.indexes.newest()
	f := &frame{Daemon: x.status.Daemon, Made: momentOf(x.made, x.made), x: x}
	for _, c := range s.ready() {
		if c.Reason != "" {
			f.Trouble = append(f.Trouble, c)
		}
	}
	if last := x.status.Daemon.LastReload; last != nil && !last.OK {
		f.Reload = &reloadView{*last, momentOf(last.At, x.made)}
	}
	return f
}

// problemPage says what is wrong with a request, in words.
func (s *site) problemPage(f *frame, err error) (status int) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = &problem{Title: "Something went wrong", Status: http.StatusInternalServerError, Detail: err.Error()}
	}
	f.Title, f.Live, f.Content = p.Title, false, p
	return p.Status
}

// frontView is the content of the front page.
type frontView struct {
	States   []stateCount
	Troubles []rowView
	More     int // troubles that are not shown
	Held     []policyView
	Problems []policyView // policies with problems of their sources
	Ending   int
	Table    tableView
	Search   searchView
	Unread   string
}

func (s *site) front(r *http.Request, f *frame) (string, error) {
	q := r.URL.Query()
	filter, err := filterOf(q, "urgency")
	if err != nil {
		return "", failed(http.StatusBadRequest, "%v", err)
	}
	f.Title, f.Section, f.Live = "Certificates", "certificates", true
	v := &frontView{States: f.x.counts(f.x.states, q), Ending: f.x.ending, Search: f.x.search(filter, q)}
	if f.x.unread != nil {
		v.Unread = f.x.unread.Error()
	}
	v.Table, err = f.x.table(filter, q, "/")
	if err != nil {
		return "", err
	}
	v.Table.Empty = v.whyEmpty(f.x)
	if !v.Search.Active && v.Table.Page == 1 {
		v.attention(f.x)
	}
	f.Content = v
	return "front", nil
}

// attention collects what waits for people.
func (v *frontView) attention(x *index) {
	for _, r := range x.rows {
		switch {
		case !troubled(r.State):
			continue
		case len(v.Troubles) < troublesShown:
			v.Troubles = append(v.Troubles, x.rowView(r))
		default:
			v.More++
		}
	}
	for _, p := range x.status.Policies {
		view := x.policyView(p)
		if p.Paused != nil {
			v.Held = append(v.Held, view)
		}
		if len(p.Problems) > 0 {
			v.Problems = append(v.Problems, view)
		}
	}
	v.Held, v.Problems = v.Held[:min(len(v.Held), troublesShown)], v.Problems[:min(len(v.Problems), troublesShown)]
}

// Calm reports whether nothing waits for people.
func (v *frontView) Calm() bool {
	return len(v.Troubles)+len(v.Held)+len(v.Problems)+v.Ending == 0
}

// whyEmpty says in words why a table has no rows.
func (v *frontView) whyEmpty(x *index) string {
	switch {
	case v.Search.Active:
		return "No certificate matches."
	case x.unread != nil:
		return "Nothing is known yet: " + x.unread.Error() + "."
	case len(x.status.Policies) == 0:
		return "No policy is in force. A policy says where certificates come from and where they go; put one below the policies directory."
	}
	return "No certificate yet: no source of a policy has one, and none has been issued."
}

type policyListView struct {
	Policies []policyView
	Total    int
	Pages    pages
}

func (s *site) policyList(r *http.Request, f *frame) (string, error) {
	f.Title, f.Section, f.Live = "Policies", "policies", true
	all := f.x.status.Policies
	p, err := pageOf(r.URL.Query(), len(all), rowsOnPage, "/policies")
	if err != nil {
		return "", err
	}
	v := &policyListView{Total: len(all), Pages: p}
	for _, policy := range all[p.from:p.to] {
		v.Policies = append(v.Policies, f.x.policyView(policy))
	}
	f.Content = v
	return "policies", nil
}

type policyPageView struct {
	Policy policyView
	States []stateCount
	Table  tableView
}

func (s *site) policyPage(r *http.Request, f *frame) (string, error) {
	name := r.PathValue("policy")
	p, known := f.x.policies[name]
	if !known {
		return "", failed(http.StatusNotFound, "There is no policy %q in force on this node.", cut(name, 63))
	}
	f.Title, f.Section, f.Live = "Policy "+name, "policies", true
	q := r.URL.Query()
	q.Set("policy", name)
	filter, err := filterOf(q, "urgency")
	if err != nil {
		return "", failed(http.StatusBadRequest, "%v", err)
	}
	v := &policyPageView{Policy: f.x.policyView(p.Policy), States: f.x.counts(p.States, url.Values{"policy": {name}})}
	q.Del("policy")
	if v.Table, err = f.x.table(filter, q, r.URL.EscapedPath()); err != nil {
		return "", err
	}
	v.Table.Empty = "No certificate yet: its source has none."
	f.Content = v
	return "policy", nil
}

type assignmentPageView struct {
	rowView
	Facts         *bundleView
	Chain         []intermediateView
	Places        []placeView
	Probes        []probeView
	Verified      moment
	RenewalDue    moment
	Since         moment
	NextLook      moment
	PolicyView    policyView
	Events        []eventView
	HistoryPath   string
	HistoryFailed string
}

func (s *site) assignmentPage(r *http.Request, f *frame) (string, error) {
	policy, certificate := r.PathValue("policy"), r.PathValue("certificate")
	if certificate == "" {
		certificate = r.URL.Query().Get("certificate")
	}
	if f.x.unread != nil {
		return "", failed(http.StatusServiceUnavailable, "Nothing is known yet: %v.", f.x.unread)
	}
	a, err := s.find(f.x, policy, certificate)
	if err != nil {
		return "", err
	}
	f.Title, f.Section, f.Live = cut(certificate, 80)+" of policy "+policy, "certificates", true
	v := f.x.assignmentView(&a)
	h, err := s.history(r, HistoryQuery{Policy: policy, Certificate: certificate, Limit: eventsOfOne})
	if err != nil {
		v.HistoryFailed = err.Error()
	}
	for _, e := range h.Events {
		v.Events = append(v.Events, eventViewOf(e, f.x.made))
	}
	q := url.Values{"policy": {policy}, "certificate": {certificate}}
	v.HistoryPath = "/history?" + q.Encode()
	f.Content = v
	return "assignment", nil
}

type historyView struct {
	Policy, Certificate string
	AssignmentPath      string
	Events              []eventView
	Newest, Older       string // paths; empty: there are none
	Failed              string
}

func (s *site) historyPage(r *http.Request, f *frame) (string, error) {
	q := r.URL.Query()
	wanted := HistoryQuery{Policy: q.Get("policy"), Certificate: q.Get("certificate"), Limit: eventsOnPage}
	var err error
	if wanted.Before, err = beforeOf(q.Get("before")); err != nil {
		return "", failed(http.StatusBadRequest, "%v", err)
	}
	if wanted.Certificate != "" && wanted.Policy == "" {
		return "", failed(http.StatusBadRequest, "Say which policy the certificate is of.")
	}
	f.Title, f.Section = "History", "history"
	f.Live = wanted.Before == 0
	v := &historyView{Policy: wanted.Policy, Certificate: wanted.Certificate}
	if wanted.Certificate != "" {
		v.AssignmentPath = pathOf(wanted.Policy, wanted.Certificate)
	}
	h, err := s.history(r, wanted)
	if err != nil {
		v.Failed = err.Error()
	}
	for _, e := range h.Events {
		v.Events = append(v.Events, eventViewOf(e, f.x.made))
	}
	link := func(before uint64) string {
		to := url.Values{}
		for _, name := range []string{"policy", "certificate"} {
			if value := q.Get(name); value != "" {
				to.Set(name, value)
			}
		}
		if before > 0 {
			to.Set("before", strconv.FormatUint(before, 10))
		}
		return "/history?" + to.Encode()
	}
	if wanted.Before > 0 {
		v.Newest = link(0)
	}
	if h.NextBefore > 0 {
		v.Older = link(h.NextBefore)
	}
	f.Content = v
	return "history", nil
}

// pages are the links between the pages of a list.
type pages struct {
	Page, Of       int
	Previous, Next string // paths; empty: there are none
	First, Last    int    // of the rows, counted from 1
	Total          int
	from, to       int
}

// pageOf says which rows are on the page that is asked for.
func pageOf(q url.Values, total, each int, path string) (pages, error) {
	p := pages{Page: 1, Of: max(1, (total+each-1)/each), Total: total}
	if text := q.Get("page"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return p, failed(http.StatusBadRequest, "page %q is not a number from 1", cut(text, 40))
		}
		p.Page = min(n, p.Of) // there may have been more a moment ago
	}
	p.from = (p.Page - 1) * each
	p.to = min(total, p.from+each)
	p.First, p.Last = min(total, p.from+1), p.to
	if p.Page > 1 {
		p.Previous = with(q, path, "page", strconv.Itoa(p.Page-1))
	}
	if p.Page < p.Of {
		p.Next = with(q, path, "page", strconv.Itoa(p.Page+1))
	}
	return p, nil
}

// known are the parameters that links between pages keep.
func keptParameters() []string {
	return []string{"q", "policy", "certificate", "state", "expiring_within", "sort", "page"}
}

// with is a path with the query, one parameter set to something else; empty: without it.
func with(q url.Values, path, name, value string) string {
	to := url.Values{}
	for _, kept := range keptParameters() {
		for _, v := range q[kept] {
			if v != "" {
				to.Add(kept, v)
			}
		}
	}
	if to.Del(name); value != "" {
		to.Set(name, value)
	}
	if to.Get("page") == "1" || name != "page" {
		to.Del("page")
	}
	if len(to) == 0 {
		return path
	}
	return path + "?" + to.Encode()
}

// sortLink is a way to order a table.
type sortLink struct {
	Name, Path string
	Current    bool
}

// tableView is a page of certificates.
type tableView struct {
	pages
	Rows  []rowView
	Sorts []sortLink
	Empty string
}

func (x *index) table(f filter, q url.Values, path string) (tableView, error) {
	rows := f.of(x)
	p, err := pageOf(q, len(rows), rowsOnPage, path)
	t := tableView{pages: p}
	if err != nil {
		return t, err
	}
	for _, r := range rows[p.from:p.to] {
		t.Rows = append(t.Rows, x.rowView(r))
	}
	for _, order := range []struct{ order, name string }{{"urgency", "urgency"}, {"expires", "expiry"}, {"name", "name"}} {
		value := order.order
		if value == "urgency" {
			value = ""
		}
		t.Sorts = append(t.Sorts, sortLink{order.name, with(q, path, "sort", value), f.order == order.order})
	}
	return t, nil
}

// stateCount is a state with the number of certificates in it, and a link to them.
type stateCount struct {
	State   string
	Count   int
	Path    string
	Current bool
}

// counts are the states that some certificate is in, by urgency.
func (x *index) counts(states map[string]int, q url.Values) (all []stateCount) {
	for _, state := range Urgency() {
		if states[state] > 0 {
			current := len(q["state"]) == 1 && q.Get("state") == state
			all = append(all, stateCount{state, states[state], with(url.Values{"policy": q["policy"]}, "/", "state", state), current})
		}
	}
	return all
}

// searchView is the search form, filled in.
type searchView struct {
	Text, Policy, State, Within, Sort string
	Policies                          []string // to choose from; nil: there are too many
	States                            []string
	// Active says that not everything is shown.
	Active bool
}

func (x *index) search(f filter, q url.Values) searchView {
	v := searchView{Text: q.Get("q"), Policy: f.policy, Within: q.Get("expiring_within"), States: Urgency()}
	if len(f.states) > 0 {
		v.State = f.states[0]
	}
	if f.order != "urgency" {
		v.Sort = f.order
	}
	v.Active = f.text != "" || f.policy != "" || len(f.states) > 0 || f.within > 0 || f.certificate != ""
	if len(x.status.Policies) <= policiesToChoose {
		v.Policies = []string{}
		for _, p := range x.status.Policies {
			v.Policies = append(v.Policies, p.Name)
		}
		if f.policy != "" && !slices.Contains(v.Policies, f.policy) {
			v.Policies = nil
		}
	}
	return v
}

// moment is a time as machines and as people read it.
type moment struct {
	Machine string // empty: never
	Words   string // as a span from now
	Past    bool
}

func momentOf(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	m := moment{Machine: stamp(t)}
	switch d := t.Sub(now); {
	case d < 0:
		m.Words, m.Past = Span(-d)+" ago", true
	case d < time.Second:
		m.Words = "now"
	default:
		m.Words = "in " + Span(d)
	}
	return m
}
