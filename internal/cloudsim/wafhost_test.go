package cloudsim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Reference 2.7: one call binds cloud and dedicated hosts; bind_host of the answer and of Show list them.
func TestApplyToHosts(t *testing.T) {
	b := newBench(t, nil)
	p := newPair(shopHost, apiHost, inHost)
	id := b.create("new", p)
	body := applyBody([]string{b.sim.HostID(shopHost), b.sim.HostID(apiHost)}, []string{b.sim.HostID(inHost)})
	r := b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", body)
	wantStatus(t, r, 200)
	rows := asRows(r.json["bind_host"])
	if got := names(rows, "hostname"); !slices.Equal(got, []string{apiHost, inHost, shopHost}) {
		t.Errorf("bind_host: %s", r.text)
	}
	for _, row := range rows {
		if want := map[bool]string{true: "premium", false: "cloud"}[row["hostname"] == inHost]; row["waf_type"] != want {
			t.Errorf("waf_type of %v", row)
		}
	}
	for _, name := range []string{shopHost, apiHost, inHost} {
		if got, sha, ok := b.sim.Bound(name); !ok || got != id || sha != p.sha {
			t.Errorf("%s is bound to %s", name, got)
		}
	}
	show := b.waf("GET", "/waf/certificate/"+b.sim.Certificates()[0].ID, nil)
	if len(asRows(show.json["bind_host"])) != 0 {
		t.Error("the old certificate still has hosts")
	}
	again := b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", body) // safe to repeat
	wantStatus(t, again, 200)
	if last := b.sim.Ledger()[len(b.sim.Ledger())-1]; last.Effect {
		t.Error("a repeated apply is said to have an effect")
	}
}

// Reference 2.7: precondition HTTPS; unknown ids; neither list. Nothing is applied then.
func TestApplyRefusals(t *testing.T) {
	b := newBench(t, nil)
	id := b.create("new", newPair(shopHost))
	shop, plain, in := b.sim.HostID(shopHost), b.sim.HostID(plainHost), b.sim.HostID(inHost)
	unknown := strings.Repeat("0", 32)
	tests := map[string]struct {
		body   any
		status int
		code   string
	}{
		"neither":           {map[string]any{}, 400, "WAF.00011003"},
		"both empty":        {applyBody([]string{}, []string{}), 400, "WAF.00011003"},
		"unknown member":    {map[string]any{"host_ids": []string{shop}}, 400, "WAF.00011003"},
		"text":              {map[string]any{"cloud_host_ids": shop}, 400, "WAF.00011003"},
		"numbers":           {map[string]any{"cloud_host_ids": []int{1}}, 400, "WAF.00011003"},
		"null inside":       {map[string]any{"cloud_host_ids": []any{nil}}, 400, "WAF.00011003"},
		"HTTP host":         {applyBody([]string{shop, plain}, nil), 400, "WAF.00011006"},
		"unknown host":      {applyBody([]string{shop, unknown}, nil), 404, "WAF.00022001"},
		"dedicated as such": {applyBody([]string{shop, in}, nil), 404, "WAF.00022001"},
		"cloud as other":    {applyBody([]string{shop}, []string{shop}), 404, "WAF.00022001"},
		"host name":         {applyBody([]string{shopHost}, nil), 400, "WAF.00011004"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantError(t, b.waf("POST", "/waf/certificate/"+id+"/apply-to-hosts", tt.body), tt.status, tt.code)
			if got, _, _ := b.sim.Bound(shopHost); got == id {
				t.Error("half of it was applied")
			}
		})
	}
	wantError(t, b.waf("POST", "/waf/certificate/"+unknown+"/apply-to-hosts", applyBody([]string{shop}, nil)), 404, "WAF.00022001")
}

// Reference 2.12: OTC has neither apply-to-hosts nor cloud hosts; 404, or 400 as the table prints.
func TestOpenTelekomVariant(t *testing.T) {
	otc := newBench(t, func(c *Config) { c.OpenTelekom, c.Hosts = true, c.Hosts[3:] })
	id := otc.create("new", newPair(inHost))
	in := otc.sim.HostID(inHost)
	apply := "/waf/certificate/" + id + "/apply-to-hosts"
	wantError(t, otc.waf("POST", apply, applyBody(nil, []string{in})), 404, "WAF.00014009")
	wantError(t, otc.waf("GET", "/waf/instance", nil), 404, "WAF.00014009")
	wantError(t, otc.waf("GET", "/composite-waf/host", nil), 404, "WAF.00014009")
	wantStatus(t, otc.waf("PUT", "/premium-waf/host/"+in, map[string]any{"certificateid": id, "certificatename": "new", "tls": "TLS v1.3"}), 200)
	if got, _, _ := otc.sim.Bound(inHost); got != id {
		t.Error("PUT did not bind")
	}
	statuses := map[int]bool{}
	for seed := range uint64(20) {
		bad := newBench(t, func(c *Config) {
			c.OpenTelekom, c.Hosts, c.Misbehave, c.Seed = true, c.Hosts[3:], true, seed
		})
		r := bad.waf("POST", apply, applyBody(nil, []string{in}))
		statuses[r.status] = r.code() == "WAF.00014009"
	}
	if !statuses[400] || !statuses[404] {
		t.Errorf("statuses over seeds: %v", statuses)
	}
	if _, err := New(Config{OpenTelekom: true, Hosts: []Host{{Name: "a.example"}}}); err == nil {
		t.Error("a cloud host on OTC is accepted")
	}
}

// Reference 2.8: rows of lists carry no certificate; 2.9: Show does; 2.1: composite Show does not.
func TestHostLists(t *testing.T) {
	b := newBench(t, nil)
	for path, want := range map[string]string{
		"/waf/instance": "api.example.com plain.example.com shop.example.com", "/premium-waf/host": inHost,
		"/composite-waf/host":                      "api.example.com in.example.com plain.example.com shop.example.com",
		"/composite-waf/host?waf_type=premium":     inHost,
		"/composite-waf/host?is_https=false":       plainHost,
		"/waf/instance?hostname=shop":              shopHost,
		"/waf/instance?page=2&pagesize=2":          plainHost,
		"/waf/instance?pagesize=-1":                "api.example.com plain.example.com shop.example.com",
		"/premium-waf/host?page=1&pagesize=100":    inHost,
		"/premium-waf/host?page=2&pagesize=1":      "",
		"/waf/instance?hostname=nothing&page=1":    "",
		"/composite-waf/host?hostname=in.&page=1":  "in.example.com plain.example.com",
		"/waf/instance?enterprise_project_id=0":    "api.example.com plain.example.com shop.example.com",
		"/waf/instance?policyname=x&hostname=shop": shopHost,
	} {
		r := b.waf("GET", path, nil)
		wantStatus(t, r, 200)
		if got := strings.Join(names(r.items(), "hostname"), " "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		if strings.Contains(r.text, "certificate") {
			t.Errorf("%s: a row tells the certificate: %s", path, r.text)
		}
	}
	r := b.waf("GET", "/composite-waf/host?pagesize=1", nil)
	if r.json["total"] != 4.0 || r.json["cloud_total"] != 3.0 || r.json["premium_total"] != 1.0 {
		t.Errorf("totals: %s", r.text)
	}
	wantError(t, b.waf("GET", "/composite-waf/host?waf_type=x", nil), 400, "WAF.00011001")
	wantError(t, b.waf("GET", "/composite-waf/host?pagesize=-1", nil), 400, "WAF.00011011")

	cert := b.sim.Certificates()[0]
	for path, want := range map[string]any{
		"/waf/instance/" + b.sim.HostID(shopHost):       cert.ID,
		"/waf/instance/" + b.sim.HostID(apiHost):        "",
		"/waf/instance/" + b.sim.HostID(plainHost):      nil,
		"/premium-waf/host/" + b.sim.HostID(inHost):     cert.ID,
		"/composite-waf/host/" + b.sim.HostID(shopHost): nil,
	} {
		r := b.waf("GET", path, nil)
		wantStatus(t, r, 200)
		if r.json["certificateid"] != want {
			t.Errorf("%s: certificateid %v, want %v", path, r.json["certificateid"], want)
		}
	}
	wantError(t, b.waf("GET", "/waf/instance/"+b.sim.HostID(inHost), nil), 404, "WAF.00022001")
	wantError(t, b.waf("GET", "/premium-waf/host/"+b.sim.HostID(shopHost), nil), 404, "WAF.00022001")
	wantError(t, b.waf("GET", "/waf/instance/x", nil), 400, "WAF.00011004")
}

// Reference 2.10: id and name belong together; partial bodies are allowed; server replaces the whole list.
func TestUpdateHost(t *testing.T) {
	b := newBench(t, nil)
	id := b.create("new", newPair(shopHost, inHost))
	other := b.create("other", newPair(shopHost))
	shop, in := "/waf/instance/"+b.sim.HostID(shopHost), "/premium-waf/host/"+b.sim.HostID(inHost)
	both := map[string]any{"certificateid": id, "certificatename": "new"}
	bad := map[string]struct {
		body   any
		status int
		code   string
	}{
		"not together":   {map[string]any{"certificateid": other, "certificatename": "new"}, 400, "WAF.00011001"},
		"id alone":       {map[string]any{"certificateid": id}, 400, "WAF.00011001"},
		"name alone":     {map[string]any{"certificatename": "new"}, 400, "WAF.00011001"},
		"unknown id":     {map[string]any{"certificateid": strings.Repeat("0", 32), "certificatename": "new"}, 404, "WAF.00022001"},
		"number":         {map[string]any{"certificateid": 7, "certificatename": "new"}, 400, "WAF.00011003"},
		"timestamp":      {map[string]any{"certificateid": id, "certificatename": "new", "timestamp": 1}, 400, "WAF.00011003"},
		"unknown member": {map[string]any{"cert_id": id}, 400, "WAF.00011003"},
		"tls":            {map[string]any{"tls": "TLSv1.2"}, 400, "WAF.00011003"},
		"proxy":          {map[string]any{"proxy": "true"}, 400, "WAF.00011003"},
		"no server":      {map[string]any{"server": []any{}}, 400, "WAF.00011003"},
		"server text":    {map[string]any{"server": "192.0.2.1"}, 400, "WAF.00011003"},
		"server port":    {map[string]any{"server": []any{map[string]any{"front_protocol": "HTTPS", "back_protocol": "HTTP", "address": "192.0.2.1", "type": "ipv4", "port": "80"}}}, 400, "WAF.00011003"},
	}
	for name, tt := range bad {
		t.Run(name, func(t *testing.T) {
			wantError(t, b.waf("PATCH", shop, tt.body), tt.status, tt.code)
			wantError(t, b.waf("PUT", in, tt.body), tt.status, tt.code)
		})
	}
	wantError(t, b.waf("PATCH", "/waf/instance/"+b.sim.HostID(plainHost), both), 400, "WAF.00011006")
	wantStatus(t, b.waf("PATCH", shop, both), 200)
	wantStatus(t, b.waf("PUT", in, both), 200)
	for _, path := range []string{shop, in} {
		if r := b.waf("GET", path, nil); r.json["certificateid"] != id || r.json["certificatename"] != "new" || r.json["tls"] != "TLS v1.2" {
			t.Errorf("%s: %s", path, r.text)
		}
	}
	// Read the origins, send them back: nothing is lost. Send one: the other is gone.
	before := b.sim.Hosts()[0].Origins
	servers := b.waf("GET", shop, nil).json["server"].([]any)
	wantStatus(t, b.waf("PATCH", shop, map[string]any{"server": servers}), 200)
	if got := b.sim.Hosts()[0].Origins; !slices.Equal(got, before) || len(got) != 2 {
		t.Errorf("origins %v, want %v", got, before)
	}
	r := b.waf("PATCH", shop, map[string]any{"server": servers[:1], "tls": "TLS v1.1", "cipher": "cipher_1", "proxy": true})
	wantStatus(t, r, 200)
	if got := b.sim.Hosts()[0]; len(got.Origins) != 1 || got.TLS != "TLS v1.1" || got.Cipher != "cipher_1" || r.json["proxy"] != true {
		t.Errorf("after the change: %+v", got)
	}
	dedicated := b.waf("GET", in, nil).json["server"].([]any)
	wantStatus(t, b.waf("PUT", in, map[string]any{"server": dedicated}), 200)
}

// Doubt 14, TF's remark: a cloud host takes the certificate only together with server. The PATCH says 200 all the same.
func TestEffectNeedsServer(t *testing.T) {
	b := newBench(t, func(c *Config) { c.EffectNeedsServer = true })
	id := b.create("new", newPair(shopHost))
	shop, in := "/waf/instance/"+b.sim.HostID(shopHost), "/premium-waf/host/"+b.sim.HostID(inHost)
	body := map[string]any{"certificateid": id, "certificatename": "new"}
	r := b.waf("PATCH", shop, body)
	wantStatus(t, r, 200)
	if got, _, _ := b.sim.Bound(shopHost); got == id || r.json["certificateid"] != id || b.waf("GET", shop, nil).json["certificateid"] == id {
		t.Errorf("bound to %s, answer %s", got, r.text)
	}
	body["server"] = b.waf("GET", shop, nil).json["server"]
	wantStatus(t, b.waf("PATCH", shop, body), 200)
	if got, _, _ := b.sim.Bound(shopHost); got != id {
		t.Error("with server it has no effect either")
	}
	delete(body, "server")
	wantStatus(t, b.waf("PUT", in, body), 200)
	if got, _, _ := b.sim.Bound(inHost); got != id {
		t.Error("a dedicated host wants server")
	}
}

// Actions of a person in the console.
func TestConsole(t *testing.T) {
	b := newBench(t, nil)
	p := newPair(apiHost)
	id, err := b.sim.ConsoleUpload(Certificate{Name: "by-hand", CertPEM: []byte(p.chain), KeyPEM: []byte(p.pkcs8)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.sim.ConsoleUpload(Certificate{Name: "by-hand", CertPEM: []byte(p.chain), KeyPEM: []byte(p.key)}); err == nil {
		t.Error("a second one of that name is accepted")
	}
	if err := b.sim.ConsoleBind(apiHost, id); err != nil {
		t.Fatal(err)
	}
	for i, err := range []error{
		b.sim.ConsoleBind(plainHost, id), b.sim.ConsoleBind("other.example", id), b.sim.ConsoleBind(apiHost, "x"),
		b.sim.ConsoleDelete(id), b.sim.ConsoleDelete("x"),
	} {
		if err == nil {
			t.Errorf("action %d is accepted", i)
		}
	}
	if got := b.sim.Certificates()[1]; got.Fingerprint != p.sha || !slices.Equal(got.Hosts, []string{apiHost}) {
		t.Errorf("certificate: %+v", got)
	}
	if err := b.sim.ConsoleBind(apiHost, b.sim.Certificates()[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := b.sim.ConsoleDelete(id); err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, e := range b.sim.Ledger() {
		if e.Service == "console" {
			story = append(story, e.Operation)
		}
	}
	if got := fmt.Sprint(story); got != "[Upload Bind Bind Delete]" {
		t.Errorf("ledger: %s", got)
	}
}
