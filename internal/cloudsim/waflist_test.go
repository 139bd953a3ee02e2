package cloudsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func names(rows []map[string]any, member string) []string {
	var all []string
	for _, row := range rows {
		text, _ := row[member].(string)
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

// Reference 2.3: paging from 1, pagesize 10 by default and 1 to 100 (-1 on OTC), codes 10 and 11 for paging.
func TestListPaging(t *testing.T) {
	b := newBench(t, func(c *Config) { c.CertificateQuota = -1 })
	for i := range 12 {
		b.create(fmt.Sprintf("c%02d", i), newPair(apiHost))
	}
	get := func(query string) reply { return b.waf("GET", "/waf/certificate?host=false&"+query, nil) }
	if r := get(""); len(r.items()) != 10 || r.json["total"] != 12.0 {
		t.Errorf("default page: %d of %v", len(r.items()), r.json["total"])
	}
	if got := names(get("page=2").items(), "name"); len(got) != 2 {
		t.Errorf("page 2: %v", got)
	}
	if r := get("page=9&pagesize=100"); len(r.items()) != 0 || r.json["total"] != 12.0 {
		t.Errorf("beyond the end: %s", r.text)
	}
	if got := len(get("pagesize=100").items()); got != 12 {
		t.Errorf("pagesize 100: %d", got)
	}
	for query, code := range map[string]string{
		"page=0": "WAF.00011010", "page=x": "WAF.00011010", "page=": "WAF.00011010", "pagesize=0": "WAF.00011011",
		"pagesize=101": "WAF.00011011", "pagesize=-1": "WAF.00011011", "pagesize=many": "WAF.00011011", "page=9223372036854775807": "",
		"limit=5": "WAF.00011002", "name=a&name=b": "WAF.00011002", "exp_status=3": "WAF.00011001", "query_scm=1": "WAF.00011001",
	} {
		if code == "" {
			wantStatus(t, get(query), 200)
			continue
		}
		wantError(t, get(query), 400, code)
	}
	wantError(t, b.waf("GET", "/waf/certificate?host=yes", nil), 400, "WAF.00011001")
	wantError(t, b.waf("GET", "/waf/certificate?a=%zz", nil), 400, "WAF.00011002")

	otc := newBench(t, func(c *Config) { c.OpenTelekom, c.Hosts, c.CertificateQuota = true, c.Hosts[3:], -1 })
	for i := range 12 {
		otc.create(fmt.Sprintf("c%02d", i), newPair(apiHost))
	}
	for _, query := range []string{"", "?pagesize=-1", "?pagesize=100"} {
		if got := len(otc.waf("GET", "/waf/certificate"+query, nil).items()); got != 13 {
			t.Errorf("OTC %q: %d rows", query, got)
		}
	}
}

// Reference 2.3: name is fuzzy, exp_status filters, rows hold no PEM.
func TestListFilters(t *testing.T) {
	b := newBench(t, nil)
	b.create("web_1", newPair(apiHost))
	b.create("web_12", newPairUntil(time.Now().Add(-time.Hour), apiHost))
	b.create("mail", newPairUntil(time.Now().Add(20*24*time.Hour), apiHost))
	for query, want := range map[string]string{
		"name=web_1": "web_1 web_12", "name=mail": "mail", "name=none": "", "": "mail web_1 web_12",
		"exp_status=0": "web_1", "exp_status=1": "web_12", "exp_status=2": "mail", "query_scm=true&name=mail": "mail",
	} {
		r := b.waf("GET", "/waf/certificate?"+query, nil)
		if got := strings.Join(names(r.items(), "name"), " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
		if strings.Contains(r.text, "-----BEGIN") {
			t.Errorf("%s: a row holds PEM", query)
		}
	}
}

// Doubt 10: the parameter host. Huawei's text filters, also by default; OTC's text adds columns; misbehaving, Huawei
// means one of both, by the seed.
func TestListHostParameter(t *testing.T) {
	list := func(b *bench, query string) string {
		return strings.Join(names(b.waf("GET", "/waf/certificate"+query, nil).items(), "name"), " ")
	}
	b := newBench(t, nil)
	b.create("free", newPair(apiHost))
	for query, want := range map[string]string{"": "free", "?host=false": "free", "?host=true": "console-shop"} {
		if got := list(b, query); got != want {
			t.Errorf("%q lists %q, want %q", query, got, want)
		}
	}
	row := b.waf("GET", "/waf/certificate?host=true", nil).items()[0]
	if got := names(asRows(row["bind_host"]), "hostname"); !slices.Equal(got, []string{inHost, shopHost}) {
		t.Errorf("bind_host: %v", row)
	}
	otc := newBench(t, func(c *Config) { c.OpenTelekom, c.Hosts = true, c.Hosts[3:] })
	otc.create("free", newPair(apiHost))
	for _, query := range []string{"", "?host=false", "?host=true"} {
		if got := list(otc, query); got != "console-shop free" {
			t.Errorf("OTC %q lists %q", query, got)
		}
		row := otc.waf("GET", "/waf/certificate"+query, nil).items()[0]
		if _, has := row["bind_host"]; has != (query == "?host=true") {
			t.Errorf("OTC %q: bind_host %v", query, has)
		}
	}
	meanings := map[string]bool{}
	for seed := range uint64(20) {
		meanings[list(newBench(t, func(c *Config) { c.Misbehave, c.Seed = true, seed }), "")] = true
	}
	if len(meanings) != 2 {
		t.Errorf("over seeds host means %v", meanings)
	}
}

func asRows(value any) []map[string]any {
	var rows []map[string]any
	list, _ := value.([]any)
	for _, row := range list {
		rows = append(rows, row.(map[string]any))
	}
	return rows
}

// Misbehaviour, each with the sentence of the reference that warns of it.
func TestMisbehaviour(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Misbehave, c.CertificateQuota = true, -1 })
	p := newPair(apiHost)
	r := b.waf("POST", "/waf/certificate", upl("echo", p))
	if r.str("key") != p.key || r.str("content") == p.chain {
		t.Error("create does not echo the key [S003 example], or not with the PEM laid out anew")
	}
	if r.json["extra_since_next_release"] == nil {
		t.Error("no unknown member (reference 7.4: decode leniently)")
	}
	for i := range 9 {
		b.create(fmt.Sprintf("c%d", i), newPair(apiHost))
	}
	kinds, orders, stampTypes, hostTypes := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for range 12 {
		all := map[string]bool{}
		var order []string
		for _, host := range []string{"true", "false"} {
			for page := 1; page <= 4; page++ {
				r := b.waf("GET", fmt.Sprintf("/waf/certificate?host=%s&pagesize=3&page=%d", host, page), nil)
				kinds[r.header.Get("Content-Type")] = true
				for _, row := range r.items() {
					all[row["name"].(string)] = true
					order = append(order, row["name"].(string))
					stampTypes[fmt.Sprintf("%T", row["timestamp"])] = true
					hostTypes[fmt.Sprintf("%T", row["bind_host"])] = true
				}
			}
		}
		if len(all) != 11 {
			t.Fatalf("a sweep over both meanings of host finds %d of 11", len(all))
		}
		orders[strings.Join(order, " ")] = true
	}
	if len(orders) < 5 {
		t.Errorf("%d orders in 12 sweeps", len(orders))
	}
	if len(kinds) < 3 || len(stampTypes) != 2 || len(hostTypes) < 2 {
		t.Errorf("content types %v, timestamps %v, bind_host %v", kinds, stampTypes, hostTypes)
	}
	if b.sim.hash("a") == b.sim.hash("b") {
		t.Error("the hash does not hash")
	}
	tame := newBench(t, nil)
	for range 6 {
		r := tame.waf("GET", "/waf/certificate?host=true", nil)
		var body struct {
			Items []struct {
				Timestamp, ExpireTime int64
				BindHost              []map[string]any `json:"bind_host"`
			}
			Total int
		}
		if err := json.Unmarshal([]byte(r.text), &body); err != nil || r.header.Get("Content-Type") != "application/json" || r.json["extra_since_next_release"] != nil {
			t.Errorf("without Misbehave: %s (%v)", r.text, err)
		}
	}
}
