package waf

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud/cloudtest"
)

// canned answers calls with fixed texts: for what the simulator does not do.
type canned struct {
	// answers by "METHOD path" below the project; a missing one is 404
	// WAF.00022001. A status other than 200 stands before the body.
	answers map[string]string
	// answer is asked first, where set.
	answer func(call string, r *http.Request) (string, bool)

	mu     sync.Mutex
	calls  []string
	bodies map[string]string
	query  map[string]string
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/"+cloudtest.Project)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bodies == nil {
		c.bodies, c.query = map[string]string{}, map[string]string{}
	}
	c.calls = append(c.calls, call)
	c.bodies[call], c.query[call] = string(body), r.URL.RawQuery
	text, ok := c.answers[call]
	if c.answer != nil {
		if t, yes := c.answer(call, r); yes {
			text, ok = t, true
		}
	}
	if !ok {
		text = `404 {"error_code":"WAF.00022001","error_msg":"not found"}`
	}
	return cloudtest.Answer(text), nil
}

func (c *canned) target(t testing.TB, cfg Config, region string) *Target {
	t.Helper()
	cfg.Client = adapter().Canned(t, region, c)
	target, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

const noRows = `{"items":[],"total":0}`

func TestUploadAsSent(t *testing.T) {
	for _, kind := range []certstest.KeyType{certstest.EC256, certstest.RSA2048} {
		for _, region := range []string{"eu-west-101", "eu-de"} {
			fake := &canned{answers: map[string]string{
				"GET /waf/certificate":  noRows,
				"POST /waf/certificate": `{"id":"c1","name":"n","timestamp":"1700000000000","content":"x","key":"y"}`,
			}}
			b := bundle(t, kind, shop)
			got, err := fake.target(t, Config{Mode: ModeDedicated}, region).Stage(t.Context(), request(shop), b)
			if err != nil {
				t.Fatal(err)
			}
			want := providers.Remote{
				Handle: "c1", Name: providers.CertificateName(owner, b.Fingerprint()), Fingerprint: b.Fingerprint(),
				NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter, Created: time.UnixMilli(1700000000000).UTC(), Owned: true,
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			var sent map[string]string
			if err := json.Unmarshal([]byte(fake.bodies["POST /waf/certificate"]), &sent); err != nil {
				t.Fatal(err)
			}
			if sent["name"] != want.Name || len(sent) != 3 {
				t.Errorf("sent the members %d, name %s", len(sent), sent["name"])
			}
			begins := map[certstest.KeyType]string{certstest.EC256: "-----BEGIN EC PRIVATE KEY-----\n", certstest.RSA2048: "-----BEGIN RSA PRIVATE KEY-----\n"}[kind]
			if !strings.HasPrefix(sent["key"], begins) || !strings.HasSuffix(sent["key"], "PRIVATE KEY-----") {
				t.Error("the key is not in its traditional form, trimmed")
			}
			if strings.Count(sent["content"], "BEGIN CERTIFICATE") != 2 || !strings.HasSuffix(sent["content"], "CERTIFICATE-----") || strings.Contains(sent["content"], "\r") {
				t.Errorf("content %q", sent["content"])
			}
			if verify := fake.query["POST /waf/certificate"]; verify != map[string]string{"eu-west-101": "verify_cert_key=true", "eu-de": ""}[region] {
				t.Errorf("%s: query %q", region, verify)
			}
		}
	}
}

// The answers are read whatever forms their members take.
func TestLenientAnswers(t *testing.T) {
	b := bundle(t, certstest.EC256, shop)
	content, _ := json.Marshal(string(b.FullChainPEM()))
	name := providers.CertificateName(owner, b.Fingerprint())
	expires := b.Leaf.NotAfter.UnixMilli()
	for form, answers := range map[string][2]string{
		"as documented": {
			fmt.Sprintf(`{"items":[{"id":"c1","name":%q,"expire_time":%d}],"total":1}`, name, expires),
			fmt.Sprintf(`{"id":"c1","name":%q,"content":%s,"key":"SECRETKEY","expire_time":%d,"timestamp":1700000000000,"bind_host":[{"id":"h1","hostname":%q,"waf_type":"cloud"}]}`, name, content, expires, shop),
		},
		"numbers as strings": {
			fmt.Sprintf(`{"items":[{"id":"c1","name":%q,"expire_time":"%d","bind_host":null}],"total":"1"}`, name, expires),
			fmt.Sprintf(`{"id":"c1","name":%q,"content":%s,"key":null,"expire_time":"%d","timestamp":"1700000000000","bind_host":[{"id":"h1","hostname":%q,"mode":1}],"new":{"x":[]}}`, name, content, expires, shop),
		},
		"floats and no total": {
			fmt.Sprintf(`{"items":[{"id":"c1","name":%q,"expire_time":%d.0}]}`, name, expires),
			fmt.Sprintf(`{"name":%q,"content":%s,"expire_time":%d.0,"timestamp":1.7e12,"bind_host":[{"hostname":%q}]}`, name, content, expires, shop),
		},
	} {
		t.Run(form, func(t *testing.T) {
			fake := &canned{answers: map[string]string{
				"GET /waf/certificate":    answers[0],
				"GET /waf/certificate/c1": answers[1],
				"GET /waf/instance":       `{"items":[{"id":"h1","hostname":"SHOP.example.com."},{"id":"h2","hostname":"x.shop.example.com"}],"total":2}`,
				"GET /waf/instance/h1":    `{"id":"h1","hostname":"shop.example.com","certificateid":"c1","protocol":null,"server":null}`,
			}}
			o, err := fake.target(t, Config{Mode: ModeCloud}, "eu-west-101").Observe(t.Context(), request(shop))
			if err != nil {
				t.Fatal(err)
			}
			want := providers.Remote{
				Handle: "c1", Name: name, Fingerprint: b.Fingerprint(), NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter,
				Created: time.UnixMilli(1700000000000).UTC(), Owned: true, InUse: []string{shop},
			}
			if len(o.Remotes) != 1 || fmt.Sprint(o.Remotes[0]) != fmt.Sprint(want) {
				t.Errorf("got %+v\nwant %+v", o.Remotes, want)
			}
			if o.Endpoints[0] != (providers.Endpoint{Name: shop, ID: "h1", Serves: "c1"}) {
				t.Errorf("endpoint %+v", o.Endpoints[0])
			}
		})
	}
}

// A host that was made anew has another id under its name.
func TestHostMadeAnew(t *testing.T) {
	fake := &canned{answers: map[string]string{
		"GET /waf/certificate": noRows,
		"GET /waf/instance":    `{"items":[{"id":"h1","hostname":"shop.example.com"}],"total":1}`,
		"GET /waf/instance/h1": `{"id":"h1","certificateid":"c1"}`,
	}}
	target := fake.target(t, Config{Mode: ModeCloud}, "eu-west-101")
	look := func() providers.Endpoint {
		t.Helper()
		o, err := target.Observe(t.Context(), request(shop))
		if err != nil {
			t.Fatal(err)
		}
		return o.Endpoints[0]
	}
	if e := look(); e.ID != "h1" {
		t.Errorf("got %+v", e)
	}
	delete(fake.answers, "GET /waf/instance/h1")
	fake.answers["GET /waf/instance"] = `{"items":[{"id":"h2","hostname":"shop.example.com"}],"total":1}`
	fake.answers["GET /waf/instance/h2"] = `{"id":"h2","certificateid":"c1"}`
	if e := look(); e.ID != "h2" || e.Missing {
		t.Errorf("got %+v", e)
	}

	// Activate drops a host that is gone, too, and finds it the next time.
	delete(fake.answers, "GET /waf/instance/h2")
	fake.answers["GET /waf/instance"] = `{"items":[{"id":"h3","hostname":"shop.example.com"}],"total":1}`
	fake.answer = func(call string, r *http.Request) (string, bool) {
		if call != "POST /waf/certificate/c1/apply-to-hosts" {
			return "", false
		}
		body := fake.bodies[call]
		if strings.Contains(body, "h3") {
			return `{}`, true
		}
		return `400 {"error_code":"WAF.00014001","error_msg":"not found"}`, true
	}
	if err := target.Activate(t.Context(), request(shop), "c1"); providers.KindOf(err) != providers.KindNotFound {
		t.Errorf("got %v", err)
	}
	if err := target.Activate(t.Context(), request(shop), "c1"); err != nil {
		t.Errorf("got %v", err)
	}
	if got := fake.bodies["POST /waf/certificate/c1/apply-to-hosts"]; got != `{"cloud_host_ids":["h3"]}` {
		t.Errorf("body %s", got)
	}
	fake.answers["GET /waf/instance"] = noRows
	delete(fake.answers, "GET /waf/instance/h2")
	if e := look(); !e.Missing {
		t.Errorf("got %+v", e)
	}
}

func TestHostInBothModes(t *testing.T) {
	fake := &canned{answers: map[string]string{
		"GET /waf/certificate":  noRows,
		"GET /waf/instance":     `{"items":[{"id":"h1","hostname":"shop.example.com"}],"total":1}`,
		"GET /premium-waf/host": `{"items":[{"id":"h2","hostname":"shop.example.com"}],"total":1}`,
	}}
	target := fake.target(t, Config{}, "eu-west-101")
	o, err := target.Observe(t.Context(), request(shop))
	if err != nil {
		t.Fatal(err)
	}
	if p := o.Endpoints[0].Problem; !strings.Contains(p, "cloud h1, dedicated h2") || o.Endpoints[0].Missing {
		t.Errorf("endpoint %+v", o.Endpoints[0])
	}
	err = target.Activate(t.Context(), request(shop), "c1")
	if providers.KindOf(err) != providers.KindInvalid || !strings.Contains(err.Error(), "several hosts") {
		t.Errorf("got %v", err)
	}
}

// In the fall-back the list of origins goes back as it came, to the byte.
func TestServersGoBackUnchanged(t *testing.T) {
	const servers = `[{"front_protocol":"HTTPS","back_protocol":"HTTP","address":"192.0.2.1","port":"8080","type":"ipv4","weight":1,"new":{"a":[1,2]}}]`
	for given, want := range map[string]string{
		servers: `{"certificateid":"c1","certificatename":"n","server":` + servers + `}`,
		"null":  `{"certificateid":"c1","certificatename":"n"}`,
	} {
		fake := &canned{answers: map[string]string{
			"GET /waf/instance":                       `{"items":[{"id":"h1","hostname":"shop.example.com"}],"total":1}`,
			"GET /waf/instance/h1":                    `{"id":"h1","certificateid":"c0","server":` + given + `,"tls":"TLS v1.2"}`,
			"GET /waf/certificate/c1":                 `{"id":"c1","name":"n"}`,
			"PATCH /waf/instance/h1":                  `{}`,
			"POST /waf/certificate/c1/apply-to-hosts": `400 {"error_code":"WAF.00014009"}`,
		}}
		if err := fake.target(t, Config{Mode: ModeCloud}, "eu-west-101").Activate(t.Context(), request(shop), "c1"); err != nil {
			t.Fatal(err)
		}
		if got := fake.bodies["PATCH /waf/instance/h1"]; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	}
}

// Of a dedicated host only the two members are sent: others may be reset.
func TestDedicatedHostGetsTwoMembers(t *testing.T) {
	fake := &canned{answers: map[string]string{
		"GET /premium-waf/host":    `{"items":[{"id":"h1","hostname":"shop.example.com"}],"total":1}`,
		"GET /premium-waf/host/h1": `{"id":"h1","certificateid":"c0","server":[{"address":"192.0.2.1"}],"timestamp":1700000000000}`,
		"GET /waf/certificate/c1":  `{"id":"c1","name":"n"}`,
		"PUT /premium-waf/host/h1": `{}`,
	}}
	if err := fake.target(t, Config{Mode: ModeDedicated}, "eu-de").Activate(t.Context(), request(shop), "c1"); err != nil {
		t.Fatal(err)
	}
	if got := fake.bodies["PUT /premium-waf/host/h1"]; got != `{"certificateid":"c1","certificatename":"n"}` {
		t.Errorf("sent %s", got)
	}
	for _, call := range fake.calls {
		if strings.Contains(call, "apply-to-hosts") {
			t.Error("Open Telekom Cloud was asked for apply-to-hosts, which its documents do not have")
		}
	}
}
