package admin

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The read API: openapi.json describes it.

const (
	apiPath = "/api/v1"
	// Assignments and events on a page.
	usualLimit      = 100
	maxLimit        = 1000
	maxHistoryLimit = 1000
)

// problem is an error as RFC 9457 has it.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance,omitempty"`
}

func (p *problem) Error() string { return p.Detail }

func failed(status int, format string, args ...any) error {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// question is one thing that the API answers.
type question struct {
	// parameters are those that it knows; the repeatable one, state, may come several times.
	parameters []string
	answer     func(r *http.Request, q url.Values) (answered, error)
}

// answered is an answer, and what leads to the next page, if there is one.
type answered struct {
	body any
	next url.Values
}

func (s *site) routeAPI(mux *http.ServeMux) {
	for path, q := range map[string]question{
		"/status":   {nil, s.askOverview},
		"/policies": {nil, s.askPolicies},
		"/assignments": {
			[]string{"policy", "certificate", "state", "q", "expiring_within", "sort", "limit", "cursor"}, s.askAssignments,
		},
		"/assignments/{policy}/{certificate}": {nil, s.askAssignment},
		"/history":                            {[]string{"policy", "certificate", "limit", "before"}, s.askHistory},
		"/openapi.json":                       {nil, nil},
	} {
		mux.HandleFunc(apiPath+path, func(w http.ResponseWriter, r *http.Request) { s.api(w, r, q) })
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		sendProblem(w, r, failed(http.StatusNotFound, "nothing is here; %s/openapi.json describes what is", apiPath))
	})
}

// api answers one question.
func (s *site) api(w http.ResponseWriter, r *http.Request, q question) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		sendProblem(w, r, failed(http.StatusMethodNotAllowed, "this API only reads; rotatord's socket does the rest"))
		return
	}
	body, next, err := s.answer(r, q)
	if err != nil {
		sendProblem(w, r, err)
		return
	}
	if next != nil {
		to := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: next.Encode()}
		w.Header().Set("Link", "<"+to.String()+`>; rel="next"`)
	}
	sendJSON(w, r, http.StatusOK, "application/json", body)
}

// answer works out an answer. It needs a place, and whoever reads the answer slowly does not
// hold it.
func (s *site) answer(r *http.Request, q question) (body []byte, next url.Values, err error) {
	if !await(r.Context(), s.asking) {
		return nil, nil, errBusy()
	}
	defer s.asking.Release(1)
	query, err := parametersOf(r, q.parameters)
	if err != nil {
		return nil, nil, err
	}
	if q.answer == nil {
		return description(), nil, nil
	}
	a, err := q.answer(r, query)
	if err != nil {
		return nil, nil, err
	}
	if body, err = json.Marshal(a.body); err != nil {
		s.log.Error("an answer of the API cannot be encoded", "path", r.URL.Path, "err", err)
		return nil, nil, failed(http.StatusInternalServerError, "the answer cannot be encoded")
	}
	return append(body, '\n'), a.next, nil
}

// description is the API's, embedded.
func description() []byte {
	content, _ := static.ReadFile("static/openapi.json") // a test reads it
	return content
}

func errBusy() error {
	return failed(http.StatusServiceUnavailable, "too many ask at once; come again in a moment")
}

// parametersOf reads the query strictly: a misspelt parameter is not taken for an absent one.
func parametersOf(r *http.Request, known []string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, failed(http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, failed(http.StatusBadRequest, "there is no parameter %q; there are none here", cut(name, 40))
		case !slices.Contains(known, name):
			return nil, failed(http.StatusBadRequest, "there is no parameter %q; there are: %s", cut(name, 40), strings.Join(known, ", "))
		case len(q[name]) > 1 && name != "state":
			return nil, failed(http.StatusBadRequest, "parameter %s is there %d times", name, len(q[name]))
		}
	}
	return q, nil
}

// complete is the index, once everything was read.
func (s *site) complete() (*index, error) {
	x := s.indexes.newest()
	if x.unread != nil {
		return nil, failed(http.StatusServiceUnavailable, "%v", x.unread)
	}
	return x, nil
}

func (s *site) askOverview(*http.Request, url.Values) (answered, error) {
	x := s.indexes.newest() // what the daemon waits for can be asked at any time
	return answered{body: Overview{x.status.Daemon, len(x.status.Policies), len(x.rows), x.states}}, nil
}

func (s *site) askPolicies(*http.Request, url.Values) (answered, error) {
	x, err := s.complete()
	if err != nil {
		return answered{}, err
	}
	all := Policies{Policies: []PolicyStates{}}
	for _, p := range x.status.Policies {
		all.Policies = append(all.Policies, x.policies[p.Name])
	}
	return answered{body: all}, nil
}

func (s *site) askAssignments(_ *http.Request, q url.Values) (answered, error) {
	f, err := filterOf(q, "name")
	if err != nil {
		return answered{}, failed(http.StatusBadRequest, "%v", err)
	}
	limit, err := limitOf(q.Get("limit"), usualLimit, maxLimit)
	if err != nil {
		return answered{}, failed(http.StatusBadRequest, "%v", err)
	}
	x, err := s.complete()
	if err != nil {
		return answered{}, err
	}
	rows := f.of(x)
	page := Assignments{Assignments: []Assignment{}, Total: len(rows)}
	if rows, err = after(rows, f.order, q.Get("cursor")); err != nil {
		return answered{}, failed(http.StatusBadRequest, "%v", err)
	}
	for _, r := range rows[:min(limit, len(rows))] {
		page.Assignments = append(page.Assignments, x.assignment(r))
	}
	if len(rows) <= limit {
		return answered{body: page}, nil
	}
	page.NextCursor = rows[limit-1].cursor(f.order)
	next := maps.Clone(q)
	next.Set("cursor", page.NextCursor)
	return answered{page, next}, nil
}

// assignment is a row with what comes next.
func (x *index) assignment(r row) Assignment {
	a := *r.Assignment
	next, blocked := upcoming(&a, x.policies[a.Policy].Paused, x.made)
	a.Next, a.Blocked = &next, blocked
	return a
}

// find returns one assignment with its chain.
func (s *site) find(x *index, policy, certificate string) (Assignment, error) {
	i, known := x.byName[assignmentName{policy, certificate}]
	if !known {
		return Assignment{}, failed(http.StatusNotFound, "there is no certificate %q of a policy %q", cut(certificate, 200), cut(policy, 63))
	}
	a := x.assignment(x.rows[i])
	a.Chain = s.reader.Chain(policy, certificate)
	return a, nil
}

func (s *site) askAssignment(r *http.Request, _ url.Values) (answered, error) {
	x, err := s.complete()
	if err != nil {
		return answered{}, err
	}
	a, err := s.find(x, r.PathValue("policy"), r.PathValue("certificate"))
	return answered{body: a}, err
}

func (s *site) askHistory(r *http.Request, q url.Values) (answered, error) {
	wanted := HistoryQuery{Policy: q.Get("policy"), Certificate: q.Get("certificate")}
	var err error
	if wanted.Limit, err = limitOf(q.Get("limit"), usualLimit, maxHistoryLimit); err != nil {
		return answered{}, failed(http.StatusBadRequest, "%v", err)
	}
	if wanted.Before, err = beforeOf(q.Get("before")); err != nil {
		return answered{}, failed(http.StatusBadRequest, "%v", err)
	}
	if wanted.Certificate != "" && wanted.Policy == "" {
		return answered{}, failed(http.StatusBadRequest, "certificate needs policy: names are a policy's own")
	}
	h, err := s.history(r, wanted)
	if err != nil {
		return answered{}, err
	}
	if h.NextBefore == 0 {
		return answered{body: h}, nil
	}
	next := maps.Clone(q)
	next.Set("before", strconv.FormatUint(h.NextBefore, 10))
	return answered{h, next}, nil
}

func beforeOf(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("before %q is not the sequence of an event", cut(text, 40))
	}
	return n, nil
}

// history asks for events; few at once may.
func (s *site) history(r *http.Request, q HistoryQuery) (History, error) {
	if !s.histories.TryAcquire(1) {
		return History{}, errBusy()
	}
	defer s.histories.Release(1)
	h, err := s.reader.History(r.Context(), q)
	if err != nil {
		return History{}, failed(http.StatusServiceUnavailable, "the history cannot be read: %v", err)
	}
	return h, nil
}

func sendProblem(w http.ResponseWriter, r *http.Request, err error) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = &problem{Type: "about:blank", Title: http.StatusText(http.StatusInternalServerError), Status: http.StatusInternalServerError, Detail: err.Error()}
	}
	p.Instance = r.URL.EscapedPath()
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte("{}")
	}
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	sendJSON(w, r, p.Status, "application/problem+json", append(body, '\n'))
}

func sendJSON(w http.ResponseWriter, r *http.Request, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	send(w, r, status, body)
}

// send answers with a body that can be asked for again by its tag.
func send(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if status == http.StatusOK {
		sum := sha256.Sum256(body)
		tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "no-cache")
		if matches(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) //nolint:gosec // JSON or a file of ours, and the headers keep a browser from taking it for a page
	}
}

// matches reads If-None-Match.
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == tag || part == "*" {
			return true
		}
	}
	return false
}

// stamp is an instant as logs and reasons have it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
