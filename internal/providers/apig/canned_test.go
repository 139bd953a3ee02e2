package apig

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
	"github.com/rotatord/rotatord/internal/providers/huaweicloud/cloudtest"
)

// canned answers calls with fixed texts: for what the simulator does not do.
type canned struct {
	// answers by "METHOD path" below apigw; a missing one is 404 APIG.3021. A status other
	// than 200 stands before the body.
	answers map[string]string
	// answer is asked first, where set.
	answer func(call string, r *http.Request) (string, bool)

	mu     sync.Mutex
	calls  []string
	bodies map[string]string
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v2/"+cloudtest.Project+"/apigw")
	call = strings.Replace(call, "/instances/"+gatewayID, "", 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bodies == nil {
		c.bodies = map[string]string{}
	}
	c.calls = append(c.calls, call)
	c.bodies[call] = string(body)
	text, ok := c.answers[call]
	if c.answer != nil {
		if t, yes := c.answer(call, r); yes {
			text, ok = t, true
		}
	}
	if !ok {
		text = `404 {"error_code":"APIG.3021","error_msg":"not found"}`
	}
	return cloudtest.Answer(text), nil
}

func (c *canned) target(t testing.TB, cfg Config) *Target {
	t.Helper()
	cfg.Client, cfg.InstanceID = adapter().Canned(t, "eu-de", c), gatewayID
	target, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func requestFor(leaves []*certs.Bundle, endpoints ...string) providers.Request {
	return (&setup{}).request(leaves, endpoints...)
}

const noCertificates = `{"size":0,"total":0,"certs":[]}`

func TestFormAsSent(t *testing.T) {
	ca := caPEM(t)
	for _, kind := range []certstest.KeyType{certstest.EC256, certstest.RSA2048} {
		for _, scope := range []string{ScopeInstance, ScopeGlobal} {
			fake := &canned{answers: map[string]string{
				"GET /certificates":  noCertificates,
				"POST /certificates": `201 {"id":"c1","create_time":"2026-01-02T03:04:05Z"}`,
			}}
			b := bundle(t, kind, shop)
			got, err := fake.target(t, Config{Scope: scope, Replace: ReplaceNew, TrustedRootCA: func() ([]byte, error) { return ca, nil }}).
				Stage(t.Context(), requestFor(nil, shop), b)
			if err != nil {
				t.Fatal(err)
			}
			want := providers.Remote{
				Handle: "c1", Name: providers.CertificateName(owner, b.Fingerprint()), Fingerprint: b.Fingerprint(),
				NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Owned: true,
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			var sent map[string]string
			if err := json.Unmarshal([]byte(fake.bodies["POST /certificates"]), &sent); err != nil {
				t.Fatal(err)
			}
			members := map[string]int{ScopeInstance: 6, ScopeGlobal: 5}[scope]
			instance := map[string]string{ScopeInstance: gatewayID}[scope]
			if sent["name"] != want.Name || len(sent) != members || sent["type"] != scope || sent["instance_id"] != instance {
				t.Errorf("sent %d members, name %s, type %s, instance %s", len(sent), sent["name"], sent["type"], sent["instance_id"])
			}
			if sent["trusted_root_ca"] != strings.TrimSpace(string(ca)) {
				t.Error("the CA is not as given, trimmed")
			}
			begins := map[certstest.KeyType]string{certstest.EC256: "-----BEGIN EC PRIVATE KEY-----\n", certstest.RSA2048: "-----BEGIN RSA PRIVATE KEY-----\n"}[kind]
			if !strings.HasPrefix(sent["private_key"], begins) || !strings.HasSuffix(sent["private_key"], "PRIVATE KEY-----") {
				t.Error("the key is not in its traditional form, trimmed")
			}
			if strings.Count(sent["cert_content"], "BEGIN CERTIFICATE") != 2 || !strings.HasSuffix(sent["cert_content"], "CERTIFICATE-----") {
				t.Errorf("content %q", sent["cert_content"])
			}
		}
	}
}

// oneObject is a gateway where shop serves the certificate c1.
func oneObject(b *certs.Bundle, more string) *canned {
	info := b.Info()
	return &canned{answers: map[string]string{
		"GET /api-groups":    `{"total":1,"groups":[{"id":"g1","url_domains":[{"id":"d1","domain":"shop.example.com","ssl_infos":[{"ssl_id":"c1","algorithm_type":"ECC","type":1}]}]}]}`,
		"GET /api-groups/g1": `{"id":"g1","url_domains":[{"id":"d1","domain":"shop.example.com","ssl_infos":[{"ssl_id":"c1","algorithm_type":"ECC","type":1}]}]}`,
		"GET /certificates":  noCertificates,
		"GET /certificates/c1": fmt.Sprintf(`{"id":"c1","name":"by_hand","type":"instance","instance_id":"i1","algorithm_type":"ECC","san":["shop.example.com"],
			"not_after":%q,"serial_number":%q%s}`, info.NotAfter.UTC().Format(time.RFC3339), b.Leaf.SerialNumber.String(), more),
		"PUT /certificates/c1":                  `{"id":"c1"}`,
		"GET /certificates/c1/attached-domains": `{"total":1,"bound_domains":[{"id":"d1","url_domain":"shop.example.com","api_group_id":"g1","min_ssl_version":"TLSv1.2","is_http_redirect_to_https":true,"verified_client_certificate_enabled":true}]}`,
		"PUT /api-groups/g1/domains/d1":         `{}`,
	}}
}

// The service turns client verification off with the change: it is turned on again, with
// the domain's other settings as they were; until then the endpoint counts as not served.
func TestClientVerificationIsRestored(t *testing.T) {
	old, b := bundle(t, certstest.EC256, shop), bundle(t, certstest.EC256, shop)
	for _, trouble := range []string{"", "PUT /certificates/c1", "GET /certificates/c1/attached-domains", "PUT /api-groups/g1/domains/d1"} {
		synctest.Test(t, func(t *testing.T) { // reads are repeated after pauses
			fake := oneObject(old, `,"is_has_trusted_root_ca":true`)
			after := oneObject(b, `,"is_has_trusted_root_ca":true`)
			replaced, failures := false, 4
			const attachedDomains = "GET /certificates/c1/attached-domains"
			fake.answer = func(call string, _ *http.Request) (string, bool) {
				fails := call == trouble && failures > 0
				switch {
				case call == "PUT /certificates/c1" && replaced, call == attachedDomains && !replaced:
					fails = false
				}
				if fails {
					failures--
				}
				switch call {
				case "PUT /certificates/c1":
					replaced = true
					if fails {
						failures = 0
						return "502 ", true
					}
				case "GET /certificates/c1":
					if replaced {
						return after.answers[call], true
					}
				case attachedDomains:
					if replaced && !fails {
						return strings.Replace(fake.answers[call], `enabled":true`, `enabled":"false"`, 1), true
					}
				case "PUT /api-groups/g1/domains/d1":
					if fails {
						failures = 0
					}
				}
				return "500 {}", fails
			}
			ca := caPEM(t)
			target := fake.target(t, Config{TrustedRootCA: func() ([]byte, error) { return ca, nil }})
			r := requestFor([]*certs.Bundle{b, old}, shop)
			staged, err := target.Stage(t.Context(), r, b)
			if err != nil {
				t.Fatal(err)
			}
			err = target.Activate(t.Context(), r, staged.Handle)
			if (err != nil) != (trouble != "") {
				t.Fatalf("%s: %v", trouble, err)
			}
			if trouble != "" {
				o, err := target.Observe(t.Context(), r)
				if err != nil || o.Endpoints[0].Serves != "" {
					t.Errorf("%s: observed %+v, %v", trouble, o, err)
				}
				if err := target.Activate(t.Context(), r, staged.Handle); err != nil {
					t.Fatalf("%s: %v", trouble, err)
				}
			}
			want := `{"min_ssl_version":"TLSv1.2","is_http_redirect_to_https":true,"verified_client_certificate_enabled":true}`
			if got := fake.bodies["PUT /api-groups/g1/domains/d1"]; got != want {
				t.Errorf("%s: sent %s, want %s", trouble, got, want)
			}
			if n := count(fake.calls, "PUT /certificates/c1"); n != 1 {
				t.Errorf("%s: %d replacements", trouble, n)
			}
			o, err := target.Observe(t.Context(), r)
			if err != nil || o.Endpoints[0].Serves != staged.Handle || o.Remotes[0].Fingerprint != b.Fingerprint() {
				t.Errorf("%s: observed %+v, %v", trouble, o, err)
			}
		})
	}
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

// In place an object keeps its name, type and gateway.
func TestFormKeepsIdentity(t *testing.T) {
	b := bundle(t, certstest.EC256, shop)
	target := (&canned{}).target(t, Config{})
	on := true
	for _, tt := range []struct {
		c    certificate
		want form
	}{
		{certificate{Name: "Zertifikat für", Type: "instance", InstanceID: "i9"}, form{Name: "Zertifikat für", Type: "instance", InstanceID: "i9"}},
		{certificate{Name: "n", Type: "global", InstanceID: "common"}, form{Name: "n", Type: "global"}},
		{certificate{Name: "n", InstanceID: "common"}, form{Name: "n", Type: "global"}},
		{certificate{HasCA: flag{&on}}, form{Name: providers.CertificateName(owner, b.Fingerprint()), Type: "instance", InstanceID: gatewayID, TrustedCA: "ca"}},
	} {
		got, err := target.formLike(tt.c, owner, b, "ca")
		got.Content, got.Key = "", ""
		if err != nil || got != tt.want {
			t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
		}
	}
}

// The answers are read whatever forms their members take: with the old ones, which know
// ssl_id only, and numbers and flags in quotes.
func TestLenientAnswers(t *testing.T) {
	b := bundle(t, certstest.RSA2048, shop)
	hex := b.Leaf.SerialNumber.Text(16)
	colons := ""
	for i := 0; i < len(hex); i += 2 {
		colons += strings.ToUpper(hex[i:min(i+2, len(hex))]) + ":"
	}
	if len(hex)%2 != 0 {
		colons = "0" + hex
	}
	expires := b.Leaf.NotAfter.UTC()
	for form, answers := range map[string][3]string{
		"old": {
			`{"groups":[{"id":"g1","url_domains":[{"id":"d1","domain":"SHOP.example.com.","ssl_id":"c1","ssl_name":"n"}]},{"id":"g2"},{"id":"g3","url_domains":null}]}`,
			fmt.Sprintf(`{"id":"c1","name":"n","san":["shop.example.com"],"not_after":%q,"serial_number":%q}`, expires.Format(time.RFC3339), b.Leaf.SerialNumber.String()),
			`{"bound_domains":[{"id":"d1","url_domain":"shop.example.com"},{"id":"d2","url_domain":"shop.example.com"}]}`,
		},
		"hexadecimal": {
			`{"total":"1","groups":[{"id":"g1","url_domains":[{"id":"d1","domain":"shop.example.com","ssl_id":"c1","ssl_infos":[{"ssl_id":"c1","algorithm_type":"rsa","type":"1","is_has_trusted_root_ca":"false"}]}]}]}`,
			fmt.Sprintf(`{"name":"n","san":"DNS:Shop.Example.com","not_after":%q,"not_before":null,"serial_number":%q,"issuer":{},"new":[{}]}`, expires.Format("2006-01-02 15:04:05"), hex),
			`{"total":1,"bound_domains":[{"id":1,"url_domain":"shop.example.com","verified_client_certificate_enabled":0}]}`,
		},
		"colons": {
			`{"total":1,"groups":[{"id":"g1","url_domains":[{"id":"d1","domain":"shop.example.com","ssl_infos":[{"ssl_id":"c1"}]}]}]}`,
			fmt.Sprintf(`{"id":"c1","name":"n","not_after":%d,"serial_number":%q}`, expires.UnixMilli(), strings.TrimSuffix(colons, ":")),
			`{"bound_domains":null}`,
		},
	} {
		fake := &canned{answers: map[string]string{
			"GET /api-groups": answers[0], "GET /certificates/c1": answers[1], "GET /certificates/c1/attached-domains": answers[2],
		}}
		o, err := fake.target(t, Config{}).Observe(t.Context(), requestFor([]*certs.Bundle{b}, shop))
		if err != nil {
			t.Fatal(err)
		}
		h := contentHandle(b.Info().SerialNumber)
		want := providers.Remote{
			Handle: h, Name: "n", Fingerprint: b.Fingerprint(), NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter, InUse: []string{shop},
		}
		if len(o.Remotes) != 1 || fmt.Sprint(o.Remotes[0]) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v\nwant %+v", form, o.Remotes, want)
		}
		if o.Endpoints[0] != (providers.Endpoint{Name: shop, ID: "d1", Serves: h}) {
			t.Errorf("%s: endpoint %+v", form, o.Endpoints[0])
		}
	}
}

// An object is taken for a leaf only if everything that is told fits.
func TestContents(t *testing.T) {
	b, other := bundle(t, certstest.EC256, shop, "10.0.0.7", "mailto@example.com"), bundle(t, certstest.EC256, shop)
	info := b.Info()
	like := certificate{
		ID: "c1", Name: "n", Serial: label(b.Leaf.SerialNumber.String()), SAN: labels{shop, "10.0.0.7"},
		NotBefore: moment{info.NotBefore}, NotAfter: moment{info.NotAfter},
	}
	known := []certs.Info{other.Info(), info}
	for name, tt := range map[string]struct {
		change func(*certificate)
		holds  bool
		handle providers.Handle
	}{
		"the same":         {func(*certificate) {}, true, contentHandle(info.SerialNumber)},
		"DNS names only":   {func(c *certificate) { c.SAN = labels{shop} }, true, contentHandle(info.SerialNumber)},
		"nothing more":     {func(c *certificate) { c.SAN, c.NotAfter, c.NotBefore = nil, moment{}, moment{} }, true, contentHandle(info.SerialNumber)},
		"fractions":        {func(c *certificate) { c.NotAfter.Time = c.NotAfter.Add(999 * time.Millisecond) }, true, contentHandle(info.SerialNumber)},
		"expires later":    {func(c *certificate) { c.NotAfter.Time = c.NotAfter.Add(time.Second) }, false, contentHandle(info.SerialNumber + "@c1")},
		"starts earlier":   {func(c *certificate) { c.NotBefore.Time = c.NotBefore.Add(-time.Hour) }, false, contentHandle(info.SerialNumber + "@c1")},
		"another name":     {func(c *certificate) { c.SAN = append(slices.Clone(c.SAN), store) }, false, contentHandle(info.SerialNumber + "@c1")},
		"a name is gone":   {func(c *certificate) { c.SAN = labels{"10.0.0.7"} }, false, contentHandle(info.SerialNumber + "@c1")},
		"another serial":   {func(c *certificate) { c.Serial = "13010" }, false, "serial:32d2"},
		"a serial in hex":  {func(c *certificate) { c.Serial = "0x13:01:0A" }, false, "serial:13010a"},
		"no serial":        {func(c *certificate) { c.Serial = "" }, false, "serial:unknown@c1"},
		"a strange serial": {func(c *certificate) { c.Serial = "-5_0" }, false, "serial:unknown@c1"},
	} {
		c := like
		tt.change(&c)
		if got := c.holds(info); got != tt.holds {
			t.Errorf("%s: holds is %t", name, got)
		}
		if got := c.contentOf(owner, known); got != tt.handle {
			t.Errorf("%s: handle %s, want %s", name, got, tt.handle)
		}
	}
	// Two leaves that nothing tells apart but their fingerprints: the name decides.
	twin := info
	twin.Fingerprint[0]++
	if _, ok := like.leafOf(owner, []certs.Info{info, twin}); ok {
		t.Error("one of two was chosen by chance")
	}
	like.Name = label(providers.CertificateName(owner, twin.Fingerprint))
	if leaf, ok := like.leafOf(owner, []certs.Info{info, twin}); !ok || leaf.Fingerprint != twin.Fingerprint {
		t.Errorf("got %v %t", leaf.Fingerprint.Short(), ok)
	}
}

// A domain that moved to another group is found there; one that is gone is missing.
func TestDomainMoves(t *testing.T) {
	b := bundle(t, certstest.EC256, shop)
	fake := oneObject(b, "")
	target := fake.target(t, Config{})
	r := requestFor([]*certs.Bundle{b}, shop)
	look := func() providers.Endpoint {
		t.Helper()
		o, err := target.Observe(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return o.Endpoints[0]
	}
	if e := look(); e.ID != "d1" {
		t.Errorf("got %+v", e)
	}
	fake.answers["GET /api-groups"] = strings.NewReplacer("g1", "g2", "d1", "d2").Replace(fake.answers["GET /api-groups"])
	fake.answers["GET /api-groups/g1"] = `{"id":"g1","url_domains":[]}`
	if e := look(); e.ID != "d2" {
		t.Errorf("got %+v", e)
	}
	delete(fake.answers, "GET /api-groups/g2")
	fake.answers["GET /api-groups"] = `{"groups":[]}`
	for range 2 {
		if e := look(); !e.Missing || e.ID != "" {
			t.Errorf("got %+v", e)
		}
	}
	if n := count(fake.calls, "GET /api-groups/g2"); n != 1 {
		t.Errorf("the lost group was asked for %d times", n)
	}
	// The gateway itself is gone: that is no missing domain.
	fake.answers["GET /api-groups"] = `404 {"error_code":"APIG.3030","error_msg":"gateway not found"}`
	if _, err := target.Observe(t.Context(), r); providers.KindOf(err) != providers.KindNotFound {
		t.Errorf("got %v", err)
	}

	// A change that says that the domain is of another group makes the next look search.
	target.places.put(shop, "g1")
	target.places.forget(&providers.Error{Kind: providers.KindInvalid, Code: "APIG.3474"}, []string{shop})
	if g := target.places.get(shop); g != "" {
		t.Errorf("remembers %s", g)
	}
}

func TestDomainWithoutHTTPS(t *testing.T) {
	fake := &canned{answers: map[string]string{
		"GET /api-groups":   `{"groups":[{"id":"g1","url_domains":[{"id":"d1","domain":"shop.example.com","ingress_https_port":-1},{"id":"d2","domain":"store.example.com"}]}]}`,
		"GET /certificates": noCertificates,
	}}
	target := fake.target(t, Config{})
	o, err := target.Observe(t.Context(), requestFor(nil, shop, store))
	if err != nil || o.Endpoints[0].Problem == "" || o.Endpoints[1].Problem != "" {
		t.Errorf("%+v, %v", o.Endpoints, err)
	}
	if names, err := target.List(t.Context()); err != nil || !slices.Equal(names, []string{store}) {
		t.Errorf("%v, %v", names, err)
	}
}

// Certificates of all gateways are found whatever the listing makes of instance_id.
func TestGlobalListing(t *testing.T) {
	const row = `{"total":1,"certs":[{"id":"c1","name":"n"}]}`
	const invalid = `400 {"error_code":"APIG.2000","error_msg":"parameter"}`
	for _, tt := range []struct {
		with, without string
		rows, calls   int
		kind          providers.Kind
	}{
		{row, invalid, 1, 1, 0},
		{noCertificates, row, 1, 2, 0},
		{noCertificates, invalid, 0, 2, 0},
		{noCertificates, noCertificates, 0, 2, 0},
		{invalid, row, 1, 2, 0},
		{invalid, invalid, 0, 2, providers.KindInvalid},
		{`403 {}`, row, 0, 1, providers.KindDenied},
	} {
		fake := &canned{}
		fake.answer = func(_ string, r *http.Request) (string, bool) {
			if q := r.URL.Query(); q.Get("type") != ScopeGlobal || q.Get("name") != "n" {
				t.Errorf("query %s", r.URL.RawQuery)
			}
			if r.URL.Query().Has("instance_id") {
				return tt.with, true
			}
			return tt.without, true
		}
		rows, err := fake.target(t, Config{Scope: ScopeGlobal}).listCertificates(t.Context(), "n")
		if len(rows) != tt.rows || len(fake.calls) != tt.calls || providers.KindOf(err) != tt.kind {
			t.Errorf("%+v: %d rows, %d calls, %v", tt, len(rows), len(fake.calls), err)
		}
	}
}

// A list whose total is wrong must neither end early nor run for ever.
func TestPaging(t *testing.T) {
	row := func(n int) string {
		rows := make([]string, n)
		for i := range rows {
			rows[i] = fmt.Sprintf(`{"id":"%d","name":"n"}`, i)
		}
		return strings.Join(rows, ",")
	}
	for name, tt := range map[string]struct {
		pages []string
		want  int
	}{
		"one page":            {[]string{`{"certs":[` + row(3) + `],"total":3}`}, 3},
		"two pages":           {[]string{`{"certs":[` + row(500) + `],"total":530}`, `{"certs":[` + row(30) + `],"total":530}`}, 530},
		"full page, no total": {[]string{`{"certs":[` + row(500) + `]}`, `{"certs":[` + row(7) + `]}`}, 507},
		"total too high":      {[]string{`{"certs":[` + row(3) + `],"total":9}`, `{"certs":null,"total":9}`}, 3},
		"small pages":         {[]string{`{"certs":[` + row(20) + `],"total":25}`, `{"certs":[` + row(5) + `],"total":25}`}, 25},
		"empty":               {[]string{`{}`}, 0},
	} {
		asked, offset := 0, 0
		fake := &canned{answer: func(_ string, r *http.Request) (string, bool) {
			if q := r.URL.Query(); q.Get("offset") != fmt.Sprint(offset) || q.Get("limit") != "500" {
				t.Errorf("%s: query %s, want offset %d", name, r.URL.RawQuery, offset)
			}
			asked++
			text := tt.pages[min(asked, len(tt.pages))-1]
			offset += strings.Count(text, `"id"`)
			return text, true
		}}
		got, err := fake.target(t, Config{}).listCertificates(t.Context(), "")
		if err != nil || len(got) != tt.want || asked != len(tt.pages) {
			t.Errorf("%s: %d rows of %d pages, want %d of %d: %v", name, len(got), asked, tt.want, len(tt.pages), err)
		}
	}
}

// Detaching what is detached already is a success; other refusals are not.
func TestDetachOfWhatIsGone(t *testing.T) {
	for answer, fine := range map[string]bool{
		`400 {"error_code":"APIG.2000","error_msg":"no valid domain name"}`: true,
		`404 {"error_code":"APIG.3097","error_msg":"no binding"}`:           true,
		`403 {"error_code":"APIG.1115","error_msg":"no right"}`:             false,
	} {
		b := bundle(t, certstest.RSA2048, shop)
		fake := oneObject(b, "")
		both := `{"id":"g1","url_domains":[{"id":"d1","domain":"shop.example.com","ssl_id":"c2","ssl_infos":[{"ssl_id":"c1","algorithm_type":"ECC","type":1}]}]}`
		fake.answers["GET /certificates/c2"] = `{"id":"c2","name":"n","algorithm_type":"RSA"}`
		fake.answers["POST /certificates/c2/domains/attach"] = `204 `
		fake.answers["POST /certificates/c1/domains/detach"] = answer
		fake.answer = func(call string, _ *http.Request) (string, bool) {
			return both, call == "GET /api-groups/g1" && count(fake.calls, "POST /certificates/c2/domains/attach") > 0
		}
		err := fake.target(t, Config{Replace: ReplaceNew}).Activate(t.Context(), requestFor([]*certs.Bundle{b}, shop), "c2")
		if (err == nil) != fine {
			t.Errorf("%s: %v", answer, err)
		}
		if got := fake.bodies["POST /certificates/c1/domains/detach"]; got != `{"domains":[{"domain":"shop.example.com"}]}` {
			t.Errorf("sent %s", got)
		}
	}
}

// An attachment that has not come into effect costs the domain nothing.
func TestNoDetachBeforeAttached(t *testing.T) {
	b := bundle(t, certstest.EC256, shop)
	fake := oneObject(b, "")
	fake.answers["GET /certificates/c2"] = `{"id":"c2","name":"n","type":"global","algorithm_type":"ECC"}`
	fake.answers["POST /certificates/c2/domains/attach"] = `{}`
	fake.answers["GET /api-groups"] = strings.Replace(fake.answers["GET /api-groups"], `"id":"d1"`, `"id":"d1","verified_client_certificate_enabled":false`, 1)
	if err := fake.target(t, Config{Replace: ReplaceNew}).Activate(t.Context(), requestFor([]*certs.Bundle{b}, shop), "c2"); err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(fake.calls, func(c string) bool { return strings.Contains(c, "detach") }) {
		t.Errorf("calls %v", fake.calls)
	}
	want := `{"domains":[{"domain":"shop.example.com","instance_ids":["` + gatewayID + `"],"verified_client_certificate_enabled":false}]}`
	if got := fake.bodies["POST /certificates/c2/domains/attach"]; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

// Every verb against a service that answers everything with the key that it was sent:
// nothing of it shows anywhere.
func TestKeyNeverShows(t *testing.T) {
	b := bundle(t, certstest.EC256, shop)
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(string(key))
	lines := strings.Split(strings.TrimSpace(string(key)), "\n")
	q := string(quoted)
	echoes := []string{
		`400 {"error_code":"APIG.2101","error_msg":` + q + `}`,
		`500 ` + string(key),
		`{"certs":[{"id":` + q + `,"name":` + q + `}],"total":1,"private_key":` + q + `}`,
		`{"id":"c1","name":` + q + `,"serial_number":` + q + `,"san":[` + q + `],"type":` + q + `,"instance_id":` + q + `}`,
		`{"id":{"key":` + q + `},"bound_domains":[{"id":"d1","url_domain":` + q + `}]}`,
		string(key),
	}
	for _, replace := range []string{ReplaceInPlace, ReplaceNew} {
		for _, echo := range echoes {
			synctest.Test(t, func(t *testing.T) { // reads are repeated after pauses
				fake := oneObject(b, "")
				good := fake.answers["GET /api-groups"]
				fake.answer = func(call string, _ *http.Request) (string, bool) {
					if strings.HasPrefix(call, "GET /api-groups") {
						return good, true
					}
					return echo, true
				}
				log := &strings.Builder{}
				target := fake.target(t, Config{Replace: replace, Logger: slog.New(slog.NewTextHandler(log, nil))})
				r := requestFor([]*certs.Bundle{b}, shop)
				observed, errObserved := target.Observe(t.Context(), r)
				staged, errStaged := target.Stage(t.Context(), r, b)
				handle := providers.Handle("c1")
				if replace == ReplaceInPlace {
					handle = staged.Handle
				}
				activated := target.Activate(t.Context(), r, handle)
				retired := target.Retire(t.Context(), r, "c1")
				shown := fmt.Sprintf("%+v %+v %+v %+v %+v %+v %+v", observed, errObserved, staged, errStaged, activated, retired, target.held.of(owner)) +
					fmt.Sprintf("%#v %+v", target.held.bundles, &target.held) + log.String()
				for _, line := range lines[1 : len(lines)-1] {
					if strings.Contains(shown, line) {
						t.Errorf("a line of the key shows in %s", shown)
					}
				}
			})
		}
	}
}

// No answer makes the adapter panic, and none makes it see a leaf that is not there.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"id":"c1","name":"rd_x","serial_number":"13010","san":["a"],"not_after":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"groups":[{"id":1,"url_domains":[{"id":"d","domain":"x","ssl_id":[],"ssl_infos":[{"ssl_id":null}]}]}],"total":"x"}`))
	f.Add([]byte(`{"certs":[{"id":null,"is_has_trusted_root_ca":"TRUE","not_after":1e400}],"bound_domains":[{}]}`))
	f.Add([]byte(`[]`))
	leaf := certs.Info{SerialNumber: "32d2", Names: []string{shop}, NotAfter: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	target := (&canned{}).target(f, Config{})
	f.Fuzz(func(t *testing.T, body []byte) {
		var c certificate
		if json.Unmarshal(body, &c) == nil {
			h := c.contentOf(owner, []certs.Info{leaf})
			if !isContent(h) || (h == contentHandle(leaf.SerialNumber)) != c.holds(leaf) {
				t.Errorf("handle %s, holds %t", h, c.holds(leaf))
			}
		}
		var p page[group]
		if json.Unmarshal(body, &p) == nil {
			for e, s := range target.pick(p.Rows, []string{shop, "x", "d"}) {
				if s.id == "" || s.name == "" {
					t.Errorf("%s: %+v", e, s)
				}
				s.serves(rsaType)
			}
		}
		var a page[attachment]
		if json.Unmarshal(body, &a) == nil {
			object{attached: a.Rows}.users()
		}
	})
}
