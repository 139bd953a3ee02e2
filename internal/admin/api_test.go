package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// described reads openapi.json. Its schemas are closed here: an answer with a field that they
// do not describe is a mistake, though clients have to expect fields that are added.
func described(t *testing.T) (document map[string]any, schema func(name string) *jsonschema.Schema) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(description()))
	if err != nil {
		t.Fatal(err)
	}
	document = value.(map[string]any)
	for _, s := range schemasOf(document) {
		if s := s.(map[string]any); s["properties"] != nil {
			s["additionalProperties"] = false
		}
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	return document, func(name string) *jsonschema.Schema {
		compiled, err := c.Compile("openapi.json#/components/schemas/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return compiled
	}
}

func schemasOf(document map[string]any) map[string]any {
	return document["components"].(map[string]any)["schemas"].(map[string]any)
}

func valid(t *testing.T, s *jsonschema.Schema, what, text string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, text)
	}
	if err := s.Validate(value); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// TestAnswersAreAsDescribed asks everything and compares the answers with openapi.json.
func TestAnswersAreAsDescribed(t *testing.T) {
	f := estate()
	f.status.Daemon.LastReload = &Reload{At: time.Now(), Cause: "asked by user ada", Problems: []Problem{{"policies/x.yaml", 3, 7, "unknown field"}}, Warnings: []string{"w"}, Added: []string{"a"}}
	f.status.Daemon.Components = []Component{{"nats", false, "away"}, {"journal", true, ""}}
	base := serveSite(t, f)
	document, schema := described(t)
	for path, name := range map[string]string{
		"/status": "Overview", "/policies": "Policies", "/assignments": "Assignments", "/assignments?limit=2&sort=urgency": "Assignments",
		"/assignments/shop/shop.example.com": "Assignment", "/assignments/mail/mail.example.com": "Assignment", "/assignments/shop/new.example.com": "Assignment",
		"/history": "History", "/history?limit=3": "History",
	} {
		r, body := fetch(t, http.MethodGet, base+apiPath+path)
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, r.StatusCode, body)
		}
		valid(t, schema(name), path, body)
	}
	if _, body := fetch(t, http.MethodGet, base+apiPath+"/openapi.json"); body != string(description()) {
		t.Error("the description that is served is another one")
	}
	// Every path of the description is there and takes the parameters that it is said to take.
	for path, item := range document["paths"].(map[string]any) {
		operation := item.(map[string]any)["get"].(map[string]any)
		real := strings.NewReplacer("{policy}", "shop", "{certificate}", "shop.example.com").Replace(path)
		_, told := fetch(t, http.MethodGet, base+apiPath+real+"?no-such-parameter=1")
		parameters, _ := operation["parameters"].([]any)
		for _, p := range parameters {
			if p := p.(map[string]any); p["in"] == "query" && !strings.Contains(told, p["name"].(string)) {
				t.Errorf("%s: parameter %s is described and not known: %s", path, p["name"], told)
			}
		}
		// And the examples are what they are examples of.
		content := operation["responses"].(map[string]any)["200"].(map[string]any)["content"].(map[string]any)["application/json"].(map[string]any)
		example, err := json.Marshal(content["example"])
		if err != nil {
			t.Fatal(err)
		}
		name := content["schema"].(map[string]any)["$ref"].(string)
		valid(t, schema(name[strings.LastIndex(name, "/")+1:]), "example of "+path, string(example))
	}
	for name, response := range document["components"].(map[string]any)["responses"].(map[string]any) {
		example, err := json.Marshal(response.(map[string]any)["content"].(map[string]any)["application/problem+json"].(map[string]any)["example"])
		if err != nil {
			t.Fatal(err)
		}
		valid(t, schema("Problem"), "example of "+name, string(example))
	}
}

// TestEveryFieldIsDescribed: a field that is added to an answer is added to openapi.json.
func TestEveryFieldIsDescribed(t *testing.T) {
	document, _ := described(t)
	for name, value := range map[string]any{
		"Overview": Overview{}, "Daemon": Daemon{}, "Component": Component{}, "Reload": Reload{}, "ConfigurationProblem": Problem{}, "Policies": Policies{}, "Policy": PolicyStates{},
		"Pause": Pause{}, "Assignments": Assignments{}, "Assignment": Assignment{}, "Bundle": Bundle{}, "Intermediate": Intermediate{}, "Target": Target{}, "Probe": Probe{}, "Next": Next{},
		"History": History{}, "Event": Event{}, "Link": Link{}, "Problem": problem{},
	} {
		s, ok := schemasOf(document)[name].(map[string]any)
		if !ok {
			t.Errorf("openapi.json has no schema %s", name)
			continue
		}
		properties := s["properties"].(map[string]any)
		var fields, required []string
		for _, field := range reflect.VisibleFields(reflect.TypeOf(value)) {
			if field.Anonymous {
				continue
			}
			tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, tag)
			if options == "" {
				required = append(required, tag)
			}
		}
		slices.Sort(fields)
		if have := slices.Sorted(maps.Keys(properties)); !slices.Equal(have, fields) {
			t.Errorf("schema %s of openapi.json has the properties\n%v, the answers have\n%v", name, have, fields)
		}
		var told []string
		for _, field := range s["required"].([]any) {
			told = append(told, field.(string))
		}
		slices.Sort(required)
		if slices.Sort(told); !slices.Equal(told, required) {
			t.Errorf("schema %s of openapi.json requires %v, the answers always have %v", name, told, required)
		}
		for field, p := range properties {
			p := p.(map[string]any)
			if p["description"] == nil && p["$ref"] == nil {
				t.Errorf("%s.%s has no description", name, field)
			}
		}
	}
	var told []string
	for _, state := range schemasOf(document)["State"].(map[string]any)["enum"].([]any) {
		told = append(told, state.(string))
	}
	if !slices.Equal(told, Urgency()) {
		t.Errorf("states %v, want %v", told, Urgency())
	}
}

func TestProblems(t *testing.T) {
	f := estate()
	base := serveSite(t, f)
	_, schema := described(t)
	for _, test := range []struct {
		method, path string
		status       int
		detail       string
	}{
		{"GET", "/api/", 404, "openapi.json"},
		{"GET", "/api/v2/assignments", 404, "openapi.json"},
		{"GET", "/api/v1/assignments/shop/nope", 404, `no certificate \"nope\" of a policy \"shop\"`},
		{"GET", "/api/v1/assignments/shop", 404, "openapi.json"},
		{"POST", "/api/v1/assignments", 405, "only reads"},
		{"DELETE", "/api/v1/assignments/shop/shop.example.com", 405, "only reads"},
		{"GET", "/api/v1/assignments?polcy=shop", 400, `no parameter \"polcy\"; there are: policy, certificate, state, q, expiring_within, sort, limit, cursor`},
		{"GET", "/api/v1/status?x=1", 400, "there are none here"},
		{"GET", "/api/v1/assignments?limit=0", 400, "a number from 1 to 1000"},
		{"GET", "/api/v1/assignments?limit=1001", 400, "a number from 1 to 1000"},
		{"GET", "/api/v1/assignments?limit=ten", 400, "a number from 1 to 1000"},
		{"GET", "/api/v1/assignments?state=well", 400, `no state \"well\"; there are: expired, failed`},
		{"GET", "/api/v1/assignments?sort=size", 400, "there are: expires, name, urgency"},
		{"GET", "/api/v1/assignments?expiring_within=soon", 400, "36h or 30d"},
		{"GET", "/api/v1/assignments?expiring_within=-4h", 400, "36h or 30d"},
		{"GET", "/api/v1/assignments?cursor=!!", 400, "cursor is not one"},
		{"GET", "/api/v1/assignments?policy=a&policy=b", 400, "2 times"},
		{"GET", "/api/v1/assignments?q=" + strings.Repeat("x", 257), 400, "longer than 256"},
		{"GET", "/api/v1/assignments?%zz", 400, "cannot be read"},
		{"GET", "/api/v1/history?before=0", 400, "sequence"},
		{"GET", "/api/v1/history?before=yesterday", 400, "sequence"},
		{"GET", "/api/v1/history?certificate=a", 400, "needs policy"},
	} {
		r, body := fetch(t, test.method, base+test.path)
		if r.StatusCode != test.status || !strings.Contains(body, test.detail) || r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", test.method, test.path, r.StatusCode, body)
		}
		valid(t, schema("Problem"), test.path, body)
		if allow := r.Header.Get("Allow"); test.status == 405 && allow != "GET, HEAD" {
			t.Errorf("%s: Allow %q", test.path, allow)
		}
	}
	f.pastErr = errors.New("NATS is not connected")
	if r, body := fetch(t, http.MethodGet, base+"/api/v1/history"); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "NATS is not connected") {
		t.Errorf("history without NATS: %d %s", r.StatusCode, body)
	}
}

func TestFilters(t *testing.T) {
	base := serveSite(t, estate())
	for query, want := range map[string][]string{
		"policy=shop": {"gone.example.com", "new.example.com", "old.example.com", "shop.example.com"},
		"policy=shop&certificate=new.example.com": {"new.example.com"},
		"state=failed":                      {"mail.example.com"},
		"state=failed,paused&state=waiting": {"mail.example.com", "night.example.com", "release.example.com"},
		"q=PAY":                             {"payments.example.com"},
		"q=" + otherPrint[:8]:               {"mail.example.com"},
		"q=nothing-like-it":                 {},
		"expiring_within=10d":               {"gone.example.com", "old.example.com"},
		"expiring_within=36h":               {"gone.example.com"},
		"state=converged&sort=expires":      {"old.example.com", "payments.example.com", "shop.example.com"},
		"policy=nope":                       {},
	} {
		var page Assignments
		ask(t, base+"/api/v1/assignments?"+query, &page)
		if got := namesOf(page); !slices.Equal(got, want) || page.Total != len(want) {
			t.Errorf("%s: %v of %d, want %v", query, got, page.Total, want)
		}
	}
}

func namesOf(page Assignments) []string {
	names := []string{}
	for _, a := range page.Assignments {
		names = append(names, a.Certificate)
	}
	return names
}

func ask(t *testing.T, url string, into any) *http.Response {
	t.Helper()
	r, body := fetch(t, http.MethodGet, url)
	if err := json.Unmarshal([]byte(body), into); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %s", url, r.StatusCode, err, body)
	}
	return r
}

// TestPages walks with Link and with cursors: in every order, all are met, each once, and what
// comes or goes on the way disturbs no other.
func TestPages(t *testing.T) {
	f := large(250)
	all := f.status // the same for each order: an answer may come from what was so a moment ago
	base := serveSite(t, f)
	for _, order := range slices.Sorted(maps.Keys(orders())) {
		seen := map[string]int{}
		next := base + "/api/v1/assignments?limit=60&sort=" + order
		for pages := 0; next != ""; pages++ {
			var page Assignments
			r := ask(t, next, &page)
			for _, name := range namesOf(page) {
				seen[name]++
			}
			if pages == 1 { // something that was seen goes
				f.change(func(f *fakeReader) {
					f.status.Assignments = slices.DeleteFunc(slices.Clone(f.status.Assignments), func(a Assignment) bool { return a.Certificate == page.Assignments[3].Certificate })
				})
			}
			link, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Link"), "<"), ">")
			if (link == "") != (page.NextCursor == "") {
				t.Fatalf("link %q, cursor %q", link, page.NextCursor)
			}
			if next = ""; link != "" {
				next = base + link
			}
		}
		for name, times := range seen {
			if times != 1 {
				t.Errorf("%s: %s %d times", order, name, times)
			}
		}
		if len(seen) != 250 {
			t.Errorf("%s: %d seen", order, len(seen))
		}
		f.change(func(f *fakeReader) { f.status = all })
	}
	past := estate()
	base = serveSite(t, past)
	var h History
	r := ask(t, base+"/api/v1/history?policy=shop&certificate=shop.example.com&limit=7", &h)
	if link := r.Header.Get("Link"); len(h.Events) != 7 || h.NextBefore != 94 || link != `</api/v1/history?before=94&certificate=shop.example.com&limit=7&policy=shop>; rel="next"` {
		t.Errorf("%d events, next %d, link %s", len(h.Events), h.NextBefore, link)
	}
	ask(t, base+"/api/v1/history?before=94&certificate=shop.example.com&limit=7&policy=shop", &h)
	if got := past.asked[len(past.asked)-1]; got != (HistoryQuery{"shop", "shop.example.com", 94, 7}) {
		t.Errorf("asked for %+v", got)
	}
}

func TestTags(t *testing.T) {
	f := estate()
	f.status.Assignments = f.status.Assignments[2:3] // nothing in it that goes on with time
	base := serveSite(t, f)
	for _, path := range []string{"/api/v1/assignments", "/api/v1/openapi.json", "/static/style.css", "/static/live.js", "/static/icon.svg"} {
		r, body := fetch(t, http.MethodGet, base+path)
		tag := r.Header.Get("ETag")
		if tag == "" || body == "" {
			t.Fatalf("%s: no tag", path)
		}
		if r, body = fetch(t, http.MethodGet, base+path, "If-None-Match", `"x", W/`+tag); r.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s: %d %s", path, r.StatusCode, body)
		}
		if r, body = fetch(t, http.MethodHead, base+path); r.StatusCode != http.StatusOK || body != "" || r.Header.Get("ETag") != tag {
			t.Errorf("HEAD %s: %d", path, r.StatusCode)
		}
	}
	r, _ := fetch(t, http.MethodGet, base+"/api/v1/assignments")
	f.change(func(f *fakeReader) { f.status.Assignments[0].State = "failed" })
	for deadline := time.Now().Add(10 * time.Second); ; {
		again, _ := fetch(t, http.MethodGet, base+"/api/v1/assignments", "If-None-Match", r.Header.Get("ETag"))
		if again.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a change does not change the tag")
		}
	}
}

// hostile are names that somebody could put into a certificate.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `a/b/../c`, `..`, `.`, ``, `%2e%2e`, `a%2Fb`, `a\b`, `a b+c&d=e?f#g`, "\u202egnp.exe", "a\x00b\nc\td",
	"\xff\xfe", `{{.}}`, `javascript:alert(1)`, strings.Repeat("long.", 800), "//evil.example/x", "שלום.example", "x\u2028y",
}

// TestHostileNames: whatever a certificate is called, its page and its answer are reached by
// the links, and the names do no harm there.
func TestHostileNames(t *testing.T) {
	f := newFake()
	f.status.Policies = []Policy{{Name: "shop", Source: "directory", Place: "here"}}
	for i, name := range hostile {
		a := certificate("shop", name, "failed", 0.5)
		a.Reason, a.Targets[0].Failure, a.Targets[0].Failures, a.Wanted.Issuer, a.Probes[0].Error = name, name, 1, name, name
		a.Wanted.SerialNumber = fmt.Sprintf("%04x", i)
		f.status.Assignments = append(f.status.Assignments, a)
		f.past = append(f.past, Event{Kind: name, Policy: "shop", Certificate: name, Target: name, Reason: name, By: name, Sequence: uint64(i + 1)})
	}
	base := serveSite(t, f)
	_, front := get(t, base+"/")
	harmless(t, "the front page", front)
	front = html.UnescapeString(front)
	_, past := get(t, base+"/history")
	harmless(t, "the history", past)
	for i, name := range hostile {
		path := pathOf("shop", name)
		if !strings.Contains(front, `href="`+path+`"`) {
			t.Errorf("no link %s on the front page", path)
		}
		// As a browser resolves it.
		at, err := url.Parse(base + "/")
		if err != nil {
			t.Fatal(err)
		}
		to, err := at.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		r, body := fetch(t, http.MethodGet, to.String())
		if r.StatusCode != http.StatusOK || !strings.Contains(body, fmt.Sprintf("<code>%04x</code>", i)) {
			t.Errorf("%q at %s: %d", name, path, r.StatusCode)
		}
		harmless(t, path, body)
		var page Assignments
		ask(t, base+"/api/v1/assignments?"+url.Values{"policy": {"shop"}, "certificate": {name}}.Encode(), &page)
		if name != "" && (len(page.Assignments) != 1 || page.Assignments[0].Wanted.SerialNumber != fmt.Sprintf("%04x", i)) {
			t.Errorf("%q is not found by the API: %d", name, len(page.Assignments))
		}
		if name != "" && name != "." && name != ".." {
			var a Assignment
			ask(t, base+"/api/v1/assignments/shop/"+url.PathEscape(name), &a)
			if a.Wanted.SerialNumber != fmt.Sprintf("%04x", i) {
				t.Errorf("%q by its path is another one", name)
			}
		}
	}
}

// harmless fails the test where a name made it into a page as more than text.
func harmless(t *testing.T, where, body string) {
	t.Helper()
	for _, bad := range []string{"<script>alert", "<img", "javascript:alert(1)\"", "\u202e", "\x00", "\u2028", "\xff"} {
		if strings.Contains(body, bad) {
			t.Errorf("%s has %q", where, bad)
		}
	}
	if strings.Contains(body, strings.Repeat("long.", 500)+"l") && !strings.Contains(body, "…") {
		t.Errorf("%s shows a long name whole", where)
	}
}

// large makes an estate of so many, most of them well.
func large(n int) *fakeReader {
	all := make([]Assignment, 0, n)
	for i := range n {
		state := "converged"
		switch {
		case i%97 == 0:
			state = "failed"
		case i%50 == 0:
			state = "waiting"
		}
		a := certificate(fmt.Sprintf("policy-%02d", i%40), fmt.Sprintf("host-%05d.example.com", i), state, float64(i%89+5)/100)
		if state == "failed" {
			a.Reason = "WAF answered 500: something that takes some words to say"
		}
		all = append(all, a)
	}
	return newFake(all...)
}

// TestDocumentationIsTrue asks what docs/status-page.md shows, and compares the answer where
// it has one.
func TestDocumentationIsTrue(t *testing.T) {
	text, err := os.ReadFile("../../docs/status-page.md")
	if err != nil {
		t.Fatal(err)
	}
	base := serveSite(t, estate())
	examples := regexp.MustCompile(`(?m)^\$ curl -f?s\S* 'http://127.0.0.1:9847([^']*)'\n(\{.*)?`).FindAllStringSubmatch(string(text), -1)
	if len(examples) < 5 {
		t.Fatalf("only %d examples are found", len(examples))
	}
	for _, example := range examples {
		r, body := fetch(t, http.MethodGet, base+example[1])
		if want := example[2]; want != "" && body != want+"\n" || want == "" && r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", example[1], r.StatusCode, body)
		}
	}
}
