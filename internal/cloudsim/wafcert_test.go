package cloudsim

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// [S003]: the members of table 4, times in ms as int64; Show gives content and key in clear (reference 2.4).
func TestCreateAndShow(t *testing.T) {
	b := newBench(t, nil)
	p := newPair(apiHost)
	r := b.waf("POST", "/waf/certificate?verify_cert_key=true", upl("web_1.a-b", p))
	wantStatus(t, r, 200)
	if !isID(r.str("id")) || r.str("name") != "web_1.a-b" {
		t.Errorf("answer: %s", r.text)
	}
	if got := int64(r.json["expire_time"].(float64)); got != p.leaf.NotAfter.UnixMilli() {
		t.Errorf("expire_time %d, want %d", got, p.leaf.NotAfter.UnixMilli())
	}
	if age := time.Since(time.UnixMilli(int64(r.json["timestamp"].(float64)))); age < 0 || age > time.Minute {
		t.Errorf("timestamp is %s ago", age)
	}
	show := b.waf("GET", "/waf/certificate/"+r.str("id"), nil)
	wantStatus(t, show, 200)
	if show.str("content") != p.chain || show.str("key") != p.key || show.json["exp_status"] != 0.0 || len(show.json["bind_host"].([]any)) != 0 {
		t.Errorf("show: %s", show.text)
	}
	last := b.sim.Ledger()[len(b.sim.Ledger())-2]
	if last.Operation != "CreateCertificate" || !last.Effect || last.Fingerprint != p.sha || last.Name != "web_1.a-b" ||
		!slices.Equal(last.Objects, []string{r.str("id")}) || last.Status != 200 || last.Auth != "token" || last.RequestID != r.header.Get("X-Request-Id") {
		t.Errorf("ledger: %+v", last)
	}
}

// [S003] table 2: Content-Type is mandatory; the SDK's bare form works too (reference 0.3).
func TestContentType(t *testing.T) {
	b := newBench(t, nil)
	for i, kind := range []string{"application/json;charset=utf8", "application/json", "application/json; charset=UTF-8"} {
		r := b.waf("POST", "/waf/certificate", upl(fmt.Sprintf("ok%d", i), newPair(apiHost)), func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		wantStatus(t, r, 200)
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"} {
		r := b.waf("POST", "/waf/certificate", upl("bad", newPair(apiHost)), func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		wantError(t, r, 400, "WAF.00011014")
	}
}

// [S003] table 3: names; the limit is 64 by the text of WAF.00021005 and 256 by the seed.
func TestNames(t *testing.T) {
	b := newBench(t, nil)
	for _, name := range []string{"", strings.Repeat("a", 65), "a b", "a/b", "ü", "a\n", "a*"} {
		wantError(t, b.waf("POST", "/waf/certificate", upl(name, newPair(apiHost))), 400, "WAF.00021005")
	}
	b.create(strings.Repeat("a", 64), newPair(apiHost))
	b.create("0.-_Z", newPair(apiHost))
	wide := newBench(t, func(c *Config) { c.NameLimit = 256 })
	wide.create(strings.Repeat("a", 256), newPair(apiHost))
}

// Strict bodies: mandatory members, documented types, nothing unknown (WAF.00011003, body).
func TestStrictBody(t *testing.T) {
	b := newBench(t, nil)
	p := newPair(apiHost)
	tests := map[string]any{
		"no content":     map[string]any{"name": "a", "key": p.key},
		"no key":         map[string]any{"name": "a", "content": p.chain},
		"no name":        map[string]any{"content": p.chain, "key": p.key},
		"unknown member": map[string]any{"name": "a", "content": p.chain, "key": p.key, "comment": "x"},
		"wrong case":     map[string]any{"Name": "a", "content": p.chain, "key": p.key},
		"number":         map[string]any{"name": 1, "content": p.chain, "key": p.key},
		"null":           map[string]any{"name": "a", "content": nil, "key": p.key},
		"list":           []any{},
		"twice":          `{"name":"a","name":"b"}`,
		"tail":           `{"name":"a"} {}`,
		"cut":            `{"name":"a"`,
		"text":           `name=a`,
		"empty":          ``,
		"no UTF-8":       "{\"name\":\"\xff\"}",
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) { wantError(t, b.waf("POST", "/waf/certificate", body), 400, "WAF.00011003") })
	}
}

// Reference 7.3 and [S003]: PEM rules. Every refusal is WAF.00011019, certificate illegal; 00021013 on OTC.
func TestPEMRules(t *testing.T) {
	b := newBench(t, nil)
	otc := newBench(t, func(c *Config) { c.OpenTelekom, c.Hosts = true, c.Hosts[3:] })
	p, ca := newPair(apiHost), makeCA()
	leaf, inter, root := pemText("CERTIFICATE", p.leaf.Raw), pemText("CERTIFICATE", ca.inter.Raw), pemText("CERTIFICATE", ca.root.Raw)
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: p.der}))
	bad := map[string][2]string{
		"empty content":      {"", p.key},
		"no PEM":             {"certificate", p.key},
		"DER":                {string(p.leaf.Raw), p.key},
		"literal backslash":  {strings.ReplaceAll(p.chain, "\n", `\n`), p.key},
		"CRLF":               {strings.ReplaceAll(p.chain, "\n", "\r\n"), p.key},
		"bag attributes":     {"Bag Attributes\n" + p.chain, p.key},
		"comment between":    {leaf + "# intermediate\n" + inter, p.key},
		"broken base64":      {strings.Replace(p.chain, "MII", "M!!", 1), p.key},
		"broken certificate": {pemText("CERTIFICATE", p.leaf.Raw[:100]), p.key},
		"key in content":     {p.chain + p.key, p.key},
		"issuer first":       {inter + leaf, p.key},
		"root before issuer": {leaf + root + inter, p.key},
		"leaf twice":         {leaf + leaf, p.key},
		"empty key":          {p.chain, ""},
		"PKCS#8":             {p.chain, p.pkcs8},
		"encrypted PKCS#8":   {p.chain, pemText("ENCRYPTED PRIVATE KEY", p.der)},
		"encrypted old form": {p.chain, encrypted},
		"broken key":         {p.chain, pemText("EC PRIVATE KEY", p.der[:40])},
		"two keys":           {p.chain, p.key + p.key},
		"certificate as key": {p.chain, p.chain},
		"key type mismatch":  {p.chain, pemText("RSA PRIVATE KEY", p.der)},
	}
	for name, pair := range bad {
		t.Run(name, func(t *testing.T) {
			body := map[string]any{"name": "pem", "content": pair[0], "key": pair[1]}
			wantError(t, b.waf("POST", "/waf/certificate", body), 400, "WAF.00011019")
			wantError(t, otc.waf("POST", "/waf/certificate", body), 400, "WAF.00021013")
		})
	}
	good := map[string]string{
		"with root": leaf + inter + root, "incomplete chain": leaf, // [OTC-D faq incomplete chain]
		"trimmed": strings.TrimSpace(p.chain), "blank lines": leaf + "\n\n" + inter + "\n",
	}
	for name, content := range good {
		t.Run(name, func(t *testing.T) {
			r := b.waf("POST", "/waf/certificate", map[string]any{"name": "pem", "content": content, "key": p.key})
			wantStatus(t, r, 200)
			wantStatus(t, b.waf("DELETE", "/waf/certificate/"+r.str("id"), nil), 200)
		})
	}
	b.create("rsa", newRSAPair(apiHost))
}

// Doubt 12: the seed's own example sends PKCS#8; TolerateKeyForm is a cloud that takes it.
func TestTolerateKeyForm(t *testing.T) {
	b := newBench(t, func(c *Config) { c.TolerateKeyForm = true })
	p := newPair(apiHost)
	p.key = p.pkcs8
	b.create("pkcs8", p)
}

// Reference 2.2: only verify_cert_key=true looks at match and expiry; without it "WAF takes pairs that TF's test fakes".
func TestVerifyCertKey(t *testing.T) {
	b := newBench(t, nil)
	crossed, other := newPair(apiHost), newPair(apiHost)
	crossed.key = other.key
	expired := newPairUntil(time.Now().Add(-time.Hour), apiHost)
	wantError(t, b.waf("POST", "/waf/certificate?verify_cert_key=true", upl("crossed", crossed)), 400, "WAF.00011019")
	wantError(t, b.waf("POST", "/waf/certificate?verify_cert_key=true", upl("expired", expired)), 400, "WAF.00011021")
	wantError(t, b.waf("POST", "/waf/certificate?verify_cert_key=1", upl("crossed", crossed)), 400, "WAF.00011001")
	b.create("crossed", crossed)
	b.create("expired", expired)
	wantStatus(t, b.waf("POST", "/waf/certificate?verify_cert_key=false", upl("fine", other)), 200)
}

// Reference 6.2: WAF.00011016 for the name, WAF.00014002 for the content (doubt 11), told before the quota.
func TestDuplicates(t *testing.T) {
	b := newBench(t, func(c *Config) { c.CertificateQuota = 2 })
	p := newPair(apiHost)
	b.create("one", p)
	wantError(t, b.waf("POST", "/waf/certificate", upl("one", newPair(apiHost))), 400, "WAF.00011016")
	wantError(t, b.waf("POST", "/waf/certificate", upl("two", p)), 400, "WAF.00014002")
	p.chain = reflowed(p.chain)
	wantError(t, b.waf("POST", "/waf/certificate", upl("two", p)), 400, "WAF.00014002")
	wantError(t, b.waf("POST", "/waf/certificate", upl("two", newPair(apiHost))), 400, "WAF.00013001")
}

// Reference 7.1: as many certificates as hosts, those of the console included.
func TestQuota(t *testing.T) {
	b := newBench(t, func(c *Config) { c.CertificateQuota = 0 })
	for i := range 3 { // four hosts, one certificate is there
		b.create(fmt.Sprintf("c%d", i), newPair(apiHost))
	}
	wantError(t, b.waf("POST", "/waf/certificate", upl("more", newPair(apiHost))), 400, "WAF.00013001")
	codes := map[string]bool{}
	for seed := range uint64(40) {
		bad := newBench(t, func(c *Config) { c.CertificateQuota, c.Misbehave, c.Seed = 1, true, seed })
		r := bad.waf("POST", "/waf/certificate", upl("more", newPair(apiHost)))
		codes[r.code()] = true
	}
	want := map[string]bool{"WAF.00013001": true, "WAF.00013007": true, "WAF.00014012": true}
	if fmt.Sprint(codes) != fmt.Sprint(want) {
		t.Errorf("codes over seeds: %v", codes)
	}
	free := newBench(t, func(c *Config) { c.CertificateQuota = -1 })
	for i := range 9 {
		free.create(fmt.Sprintf("c%d", i), newPair(apiHost))
	}
}

// Reference 2.5: content and key together; refused while bound, the name too (WAF.00022003).
func TestUpdate(t *testing.T) {
	b := newBench(t, nil)
	p, q := newPair(apiHost), newPair(apiHost)
	id := b.create("standby", p)
	b.create("other", newPair(apiHost))
	path := "/waf/certificate/" + id
	wantError(t, b.waf("PUT", path, map[string]any{"name": "standby", "content": q.chain}), 400, "WAF.00011003")
	wantError(t, b.waf("PUT", path, map[string]any{"content": q.chain, "key": q.key}), 400, "WAF.00011003")
	wantError(t, b.waf("PUT", path, map[string]any{"name": "other"}), 400, "WAF.00011016")
	wantError(t, b.waf("PUT", path, map[string]any{"name": "bad name"}), 400, "WAF.00021005")
	wantError(t, b.waf("PUT", path, upl("standby", b.old)), 400, "WAF.00014002")
	wantError(t, b.waf("PUT", path, upl("standby", q), func(r *http.Request) { r.Header.Del("Content-Type") }), 400, "WAF.00011014")
	wantError(t, b.waf("PUT", "/waf/certificate/"+strings.Repeat("0", 32), upl("standby", q)), 404, "WAF.00022001")
	wantStatus(t, b.waf("PUT", path, map[string]any{"name": "renamed"}), 200)
	r := b.waf("PUT", path, upl("renamed", q))
	wantStatus(t, r, 200)
	if int64(r.json["expire_time"].(float64)) != q.leaf.NotAfter.UnixMilli() {
		t.Errorf("update: %s", r.text)
	}
	if got := b.sim.Certificates()[1]; got.Name != "renamed" || got.Fingerprint != q.sha {
		t.Errorf("after the update: %+v", got)
	}
	bound := "/waf/certificate/" + b.sim.Certificates()[0].ID
	wantError(t, b.waf("PUT", bound, map[string]any{"name": "renamed-too"}), 400, "WAF.00022003")
	wantError(t, b.waf("PUT", bound, upl("console-shop", newPair(shopHost))), 400, "WAF.00022003")
}

// Reference 2.6: refused while bound; unknown is 404 WAF.00022001 or 400 WAF.00014001; 200 with a body, older 204.
func TestDelete(t *testing.T) {
	b := newBench(t, nil)
	id := b.create("gone", newPair(apiHost))
	wantError(t, b.waf("DELETE", "/waf/certificate/"+b.sim.Certificates()[0].ID, nil), 400, "WAF.00022003")
	r := b.waf("DELETE", "/waf/certificate/"+id, nil)
	wantStatus(t, r, 200)
	if r.str("id") != id || r.json["expire_time"] == nil {
		t.Errorf("delete: %s", r.text)
	}
	wantError(t, b.waf("DELETE", "/waf/certificate/"+id, nil), 404, "WAF.00022001")
	wantError(t, b.waf("GET", "/waf/certificate/"+id, nil), 404, "WAF.00022001")
	wantError(t, b.waf("DELETE", "/waf/certificate/short", nil), 400, "WAF.00011004")

	bad := newBench(t, func(c *Config) { c.Misbehave = true })
	seen := map[string]bool{}
	for i := range 2 {
		id := bad.create(fmt.Sprintf("gone%d", i), newPair(apiHost))
		if i == 1 {
			bad.waf("GET", "/waf/certificate", nil) // the form of the answer alternates over the calls
		}
		first := bad.waf("DELETE", "/waf/certificate/"+id, nil)
		seen[fmt.Sprint(first.status)] = true
		for range 2 {
			again := bad.waf("DELETE", "/waf/certificate/"+id, nil)
			seen[fmt.Sprintf("%d %s", again.status, again.code())] = true
		}
	}
	for _, want := range []string{"200", "204", "404 WAF.00022001", "400 WAF.00014001"} {
		if !seen[want] {
			t.Errorf("misbehaving, %s was never answered: %v", want, seen)
		}
	}
}

// TF #2939, #3019: an object is only found with its own enterprise project; all_granted_eps is for reads.
func TestEnterpriseProjects(t *testing.T) {
	const project = "3a6a4a3d-7d1e-4d8a-9d3b-0c1b0c1b0c1b"
	b := newBench(t, func(c *Config) { c.Hosts[1].EnterpriseProject = project })
	p := newPair(apiHost)
	wantError(t, b.waf("POST", "/waf/certificate?enterprise_project_id=all_granted_eps", upl("x", p)), 400, "WAF.00012010")
	wantError(t, b.waf("POST", "/waf/certificate?enterprise_project_id=default", upl("x", p)), 400, "WAF.00011001")
	r := b.waf("POST", "/waf/certificate?enterprise_project_id="+project, upl("x", p))
	wantStatus(t, r, 200)
	path := "/waf/certificate/" + r.str("id")
	wantError(t, b.waf("GET", path, nil), 404, "WAF.00022001")
	wantError(t, b.waf("DELETE", path, nil), 404, "WAF.00022001")
	wantStatus(t, b.waf("GET", path+"?enterprise_project_id="+project, nil), 200)
	wantStatus(t, b.waf("GET", path+"?enterprise_project_id=all_granted_eps", nil), 200)
	count := func(query string) int { return len(b.waf("GET", "/waf/certificate?host=false&"+query, nil).items()) }
	if count("") != 0 || count("enterprise_project_id="+project) != 1 || count("enterprise_project_id=all_granted_eps") != 1 {
		t.Error("the list does not keep to the enterprise project")
	}
	body := applyBody([]string{b.sim.HostID(apiHost)}, nil)
	wantError(t, b.waf("POST", path+"/apply-to-hosts", body), 404, "WAF.00022001")
	wantStatus(t, b.waf("POST", path+"/apply-to-hosts?enterprise_project_id="+project, body), 200)
	// [S003] has no such parameter.
	otc := newBench(t, func(c *Config) { c.OpenTelekom, c.Hosts = true, c.Hosts[3:] })
	wantError(t, otc.waf("GET", "/waf/certificate?enterprise_project_id=0", nil), 400, "WAF.00011002")
	wantError(t, otc.waf("POST", "/waf/certificate?verify_cert_key=true", upl("x", p)), 400, "WAF.00011002")
}
