package cloudsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	gwDomain, gwOther, gwPorts = "gw.example.com", "other.gw.example.com", "ports.example.com"
	gatewayID                  = "f0fa1789-3b76-433b-a787-9892951c620e"
	secondID                   = "f0fa1789-3b76-433b-a787-9892951c620f"
)

// apigBench is an account with two gateways. On the first: gw.example.com with a global ECC certificate, a wildcard, a
// domain with two ports. On the second: gw.example.com again.
type apigBench struct {
	*bench
	gw pair // "console_gw"
}

func newAPIGBench(t *testing.T, change func(*Config)) *apigBench {
	t.Helper()
	b := &apigBench{gw: newPair(gwDomain, "*.gw.example.com", gwPorts)}
	byHand := []GatewayCertificate{{Name: "console_gw", CertPEM: []byte(b.gw.chain), KeyPEM: []byte(b.gw.key)}}
	b.bench = newBench(t, func(c *Config) {
		c.Gateways = []Gateway{
			{ID: gatewayID, Groups: []Group{
				{Name: "first", Domains: []Domain{{Name: gwDomain, Certificates: byHand}, {Name: "*.gw.example.com"}}},
				{Name: "second", Domains: []Domain{{Name: gwPorts, Ports: []int{443, 8443}}}},
			}},
			{ID: secondID, Groups: []Group{{Domains: []Domain{{Name: gwDomain}}}}},
		}
		if change != nil {
			change(c)
		}
	})
	return b
}

// apig makes a call of APIG with the bench's token.
func (b *apigBench) apig(method, path string, body any, change ...func(*http.Request)) reply {
	b.t.Helper()
	return b.send(method, b.path(path), body, append([]func(*http.Request){b.withToken}, change...)...)
}

func (b *apigBench) path(path string) string {
	return "/v2/" + b.sim.Config().ProjectID + "/apigw" + path
}

func form(name string, p pair, more ...any) map[string]any {
	body := map[string]any{"name": name, "cert_content": p.chain, "private_key": p.key}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return body
}

func (b *apigBench) make(name string, p pair, more ...any) string {
	b.t.Helper()
	r := b.apig("POST", "/certificates", form(name, p, more...))
	if r.status != 200 && r.status != 201 {
		b.t.Fatalf("create %s: %d %s %v", name, r.status, r.text, r.err)
	}
	return r.str("id")
}

func attachBody(domain string, more ...any) map[string]any {
	row := map[string]any{"domain": domain, "instance_ids": []string{gatewayID}}
	for i := 0; i < len(more); i += 2 {
		row[more[i].(string)] = more[i+1]
		if more[i+1] == nil {
			delete(row, more[i].(string))
		}
	}
	return map[string]any{"domains": []any{row}}
}

func (b *apigBench) attach(id, domain string, more ...any) reply {
	b.t.Helper()
	return b.apig("POST", "/certificates/"+id+"/domains/attach", attachBody(domain, more...))
}

// domain is what the first gateway has under name.
func (b *apigBench) domain(name string) DomainInfo {
	b.t.Helper()
	for _, d := range b.sim.Domains() {
		if d.Name == name {
			return d
		}
	}
	b.t.Fatalf("no domain %s", name)
	return DomainInfo{}
}

func (b *apigBench) bound(name string) string {
	b.t.Helper()
	var text []string
	for _, c := range b.domain(name).Certificates {
		text = append(text, c.Algorithm+" "+c.ID)
	}
	return strings.Join(text, ", ")
}

func clientCA() string { return pemText("CERTIFICATE", makeCA().root.Raw) }

// rsaCA is a root with an RSA key.
func rsaCA() string {
	key := newRSAPair("x.example.com")
	block, _ := pem.Decode([]byte(key.key))
	signer, _ := parseKey(string(pem.EncodeToMemory(block)), false)
	return pemText("CERTIFICATE", signCert("rsa root", nil, signer, signer.Public(), nil, true, time.Now().AddDate(5, 0, 0)).Raw)
}

// [S001] and reference 3.3: 200, the members of the table, parsed from the certificate; no answer has PEM or key.
func TestAPIGCreateAndShow(t *testing.T) {
	b := newAPIGBench(t, nil)
	p := newPair(gwDomain, "10.example.com")
	r := b.apig("POST", "/certificates", form("cert_demo", p))
	wantStatus(t, r, 200)
	if !isID(r.str("id")) || r.str("name") != "cert_demo" || r.str("type") != "global" || r.str("instance_id") != "common" ||
		r.str("project_id") != b.sim.Config().ProjectID || r.str("common_name") != gwDomain || fmt.Sprint(r.json["san"]) != "[gw.example.com 10.example.com]" ||
		r.str("not_after") != p.leaf.NotAfter.UTC().Format("2006-01-02T15:04:05Z") || r.str("not_before") != "1999-01-01T00:00:00Z" ||
		r.str("serial_number") != p.leaf.SerialNumber.String() || r.str("signature_algorithm") != "ECDSA-SHA256" ||
		r.json["is_has_trusted_root_ca"] != false || r.json["version"] != 3.0 || r.str("algorithm_type") != "ECC" {
		t.Errorf("answer: %s", r.text)
	}
	for _, list := range []string{"organization", "organizational_unit", "locality", "state", "country", "issuer"} {
		if _, isList := r.json[list].([]any); !isList {
			t.Errorf("%s is no list: %s", list, r.text)
		}
	}
	for _, text := range []string{"create_time", "update_time"} {
		if at, err := time.Parse("2006-01-02T15:04:05Z", r.str(text)); err != nil || time.Since(at) > time.Minute {
			t.Errorf("%s: %v %s", text, err, r.str(text))
		}
	}
	created := lastEntry(b.bench)
	if created.Service != "apig" || created.Operation != "CreateCertificateV2" || !created.Effect || created.Fingerprint != p.sha || created.Name != "cert_demo" || created.Objects[0] != r.str("id") {
		t.Errorf("ledger: %+v", created)
	}
	show := b.apig("GET", "/certificates/"+r.str("id"), nil)
	wantStatus(t, show, 200)
	if show.text != r.text {
		t.Errorf("show %s, create %s", show.text, r.text)
	}
	list := b.apig("GET", "/certificates", nil)
	wantStatus(t, list, 200)
	for _, text := range []string{r.text, show.text, list.text} {
		if noKeyIn(t, text, p); strings.Contains(text, "BEGIN") {
			t.Error("PEM in an answer")
		}
	}
	own := b.apig("POST", "/certificates", form("mine", p, "type", "instance", "instance_id", gatewayID, "trusted_root_ca", clientCA(), "algorithm_type", "ECC"))
	if own.str("type") != "instance" || own.str("instance_id") != gatewayID || own.json["is_has_trusted_root_ca"] != true {
		t.Errorf("instance: %s", own.text)
	}
}

// Doubts and 0.3, by the seed: 201 on create, serial numbers in hex, no algorithm_type, exact names in the list,
// instance_id needed in the list, two codes for a missing certificate, 401 for APIG.1005.
func TestAPIGDoubts(t *testing.T) {
	p := newPair(gwDomain)
	seen := map[string]bool{}
	for seed := range uint64(40) {
		b := newAPIGBench(t, func(c *Config) { c.Misbehave, c.Seed = true, seed })
		r := b.apig("POST", "/certificates", form("cert_demo", p))
		seen[fmt.Sprint("create ", r.status)] = true
		switch serial := r.str("serial_number"); {
		case serial == p.leaf.SerialNumber.String():
			seen["decimal"] = true
		case strings.ReplaceAll(strings.ToLower(serial), ":", "") == fmt.Sprintf("%0*x", 2*len(p.leaf.SerialNumber.Bytes()), p.leaf.SerialNumber):
			seen["hex"] = true
		default:
			t.Errorf("serial %q", serial)
		}
		seen[fmt.Sprint("algorithm ", r.json["algorithm_type"])] = true
		seen[fmt.Sprint("list ", b.apig("GET", "/certificates", nil).code())] = true
		seen[fmt.Sprint("fuzzy ", b.apig("GET", "/certificates?name=cert&instance_id="+gatewayID, nil).json["total"])] = true
		seen[b.apig("GET", "/certificates/x", nil).code()] = true
		seen[fmt.Sprint("project ", b.send("GET", "/v2/"+strings.Repeat("c", 32)+"/apigw/certificates", nil, b.withToken).status)] = true
		d := b.domain("*.gw.example.com")
		r = b.apig("POST", "/instances/"+gatewayID+"/api-groups/"+d.GroupID+"/domains/"+d.ID+"/certificates/detach",
			map[string]any{"certificate_ids": []string{b.sim.APIGCertificates()[0].ID}})
		seen["unbound "+r.code()] = true
	}
	want := []string{
		"APIG.3021", "APIG.3025", "algorithm <nil>", "algorithm ECC", "create 200", "create 201", "decimal", "fuzzy 0", "fuzzy 1", "hex",
		"list ", "list APIG.2000", "project 401", "project 403", "unbound APIG.2000", "unbound APIG.3097",
	}
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// [S001]: names have 4 to 50 characters, a letter first, then letters, digits and "_".
func TestAPIGNames(t *testing.T) {
	b := newAPIGBench(t, nil)
	p := newPair(gwDomain)
	for _, name := range []string{"", "abc", strings.Repeat("a", 51), "1abc", "_abc", "ab-c", "ab.c", "ab c", "名字名字"} {
		wantError(t, b.apig("POST", "/certificates", form(name, p)), 400, "APIG.2000")
	}
	for _, name := range []string{"abcd", "A_1_" + strings.Repeat("z", 46)} {
		b.make(name, p)
	}
	b.make("abcd", p) // no code is listed for a name or a content that exists (reference 6.3)
}

// Reference 3.2: strict bodies; type and instance_id.
func TestAPIGBody(t *testing.T) {
	b := newAPIGBench(t, nil)
	p := newPair(gwDomain)
	without := func(name string) map[string]any {
		body := form("cert", p)
		delete(body, name)
		return body
	}
	for name, body := range map[string]any{
		"no name": without("name"), "no content": without("cert_content"), "no key": without("private_key"), "unknown": form("cert", p, "comment", "x"),
		"null": form("cert", p, "type", nil), "type": form("cert", p, "type", "local"), "no gateway": form("cert", p, "type", "instance"),
		"gateway of a global": form("cert", p, "instance_id", gatewayID), "wrong algorithm": form("cert", p, "algorithm_type", "RSA"),
		"SM2": form("cert", p, "algorithm_type", "SM2"), "pair of SM2": form("cert", p, "cert_content_sign", "x"), "list": []any{}, "text": "x",
	} {
		t.Run(name, func(t *testing.T) { wantError(t, b.apig("POST", "/certificates", body), 400, "APIG.2000") })
	}
	wantError(t, b.apig("POST", "/certificates", form("cert", p, "type", "instance", "instance_id", "x")), 404, "APIG.3030")
	wantError(t, b.apig("POST", "/certificates", form("cert", p), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }), 400, "APIG.2000")
	wantError(t, b.apig("POST", "/certificates?x=1", form("cert", p)), 400, "APIG.2000")
	b.make("cert", p, "type", "global", "instance_id", "common") // as its own answer shows it
	otc := newAPIGBench(t, func(c *Config) { c.OpenTelekom, c.Hosts = true, c.Hosts[3:] })
	wantError(t, otc.apig("POST", "/certificates", form("cert", p, "algorithm_type", "ECC")), 400, "APIG.2000") // reference 3.10
	if r := otc.apig("POST", "/certificates", form("cert", p)); r.status != 200 || r.json["algorithm_type"] != nil {
		t.Errorf("OTC: %s", r.text)
	}
}

// Reference 6.3 and 7.3: a code for each fault of a certificate.
func TestAPIGPEM(t *testing.T) {
	b := newAPIGBench(t, nil)
	p, q, ca := newPair(gwDomain), newPair(gwDomain), makeCA()
	leaf, inter, root := pemText("CERTIFICATE", p.leaf.Raw), pemText("CERTIFICATE", ca.inter.Raw), pemText("CERTIFICATE", ca.root.Raw)
	// Of the right name and the wrong key.
	otherKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	impostor := pemText("CERTIFICATE", signCert("intermediate", nil, otherKey, otherKey.Public(), nil, true, ca.inter.NotAfter).Raw)
	plain := finishPair(otherKey, "EC PRIVATE KEY", nil, time.Now().AddDate(1, 0, 0), []string{"cn-only"})
	plain.leaf = signCert("cn-only", ca.inter, ca.interKey, otherKey.Public(), nil, false, time.Now().AddDate(1, 0, 0))
	old := newPairUntil(time.Now().Add(-time.Second), gwDomain)
	late := newPairUntil(time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC), gwDomain)
	last := newPairUntil(time.Date(2038, 1, 19, 3, 14, 7, 0, time.UTC), gwDomain)
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: p.der}))
	tests := map[string]struct{ content, key, code string }{
		"other key":          {p.chain, q.key, "APIG.2101"},
		"expired":            {old.chain, old.key, "APIG.2102"},
		"issuer first":       {inter + leaf, p.key, "APIG.2104"},
		"root before issuer": {leaf + root + inter, p.key, "APIG.2104"},
		"leaf twice":         {leaf + leaf, p.key, "APIG.2104"},
		"other issuer":       {leaf + impostor, p.key, "APIG.2104"},
		"encrypted":          {p.chain, encrypted, "APIG.2105"},
		"encrypted PKCS#8":   {p.chain, pemText("ENCRYPTED PRIVATE KEY", p.der), "APIG.2105"},
		"no PEM":             {"x", p.key, "APIG.2106"},
		"literal backslash":  {strings.ReplaceAll(p.chain, "\n", `\n`), p.key, "APIG.2106"},
		"broken":             {pemText("CERTIFICATE", p.leaf.Raw[:99]), p.key, "APIG.2106"},
		"no key":             {p.chain, "", "APIG.2106"},
		"key in content":     {p.chain + p.key, p.key, "APIG.2106"},
		"bag attributes":     {"Bag Attributes\n" + p.chain, p.key, "APIG.2106"},
		"no SAN":             {pemText("CERTIFICATE", plain.leaf.Raw), plain.pkcs8, "APIG.2109"},
		"after 2038":         {late.chain, late.key, "APIG.3148"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			body := map[string]any{"name": "cert", "cert_content": tt.content, "private_key": tt.key}
			wantError(t, b.apig("POST", "/certificates", body), 400, tt.code)
			wantError(t, b.apig("PUT", "/certificates/"+b.sim.APIGCertificates()[0].ID, body), 400, tt.code)
		})
	}
	for name, bad := range map[string]string{"no CA": leaf, "no PEM": "x", "a key": p.key} {
		t.Run(name, func(t *testing.T) {
			wantError(t, b.apig("POST", "/certificates", form("cert", p, "trusted_root_ca", bad)), 400, "APIG.2106")
		})
	}
	for name, good := range map[string][2]string{
		"last second": {last.chain, last.key}, "PKCS#8": {p.chain, p.pkcs8}, "leaf alone": {leaf, p.key}, "with root": {leaf + inter + root, p.key},
		"trimmed": {strings.TrimSpace(p.chain), strings.TrimSpace(p.key)},
	} {
		t.Run(name, func(t *testing.T) {
			wantStatus(t, b.apig("POST", "/certificates", map[string]any{"name": "cert", "cert_content": good[0], "private_key": good[1]}), 200)
		})
	}
}

// Reference 3.4: offset, limit, filters.
func TestAPIGList(t *testing.T) {
	b := newAPIGBench(t, nil)
	p, rsa := newPair(gwDomain), newRSAPair("rsa.example.com")
	for i := range 24 {
		b.make(fmt.Sprintf("cert_%02d", i), p)
	}
	b.make("rsa_one", rsa, "type", "instance", "instance_id", gatewayID)
	b.make("rsa_two", rsa, "type", "instance", "instance_id", secondID)
	for query, want := range map[string]string{
		"": "20 27", "?limit=500": "27 27", "?limit=501": "27 27", "?limit=1": "1 27", "?offset=20": "7 27", "?offset=-5&limit=3": "3 27", "?offset=99": "0 27",
		"?name=cert_0": "10 10", "?name=cert_07": "1 1", "?common_name=rsa": "2 2", "?algorithm_type=RSA": "2 2", "?algorithm_type=SM2": "0 0",
		"?type=instance": "2 2", "?type=global&limit=100": "25 25", "?instance_id=" + gatewayID + "&limit=100": "26 26",
		"?instance_id=" + secondID + "&type=instance": "1 1", "?signature_algorithm=ECDSA-SHA256&limit=100": "27 27", "?signature_algorithm=SHA256-RSA": "0 0",
	} {
		r := b.apig("GET", "/certificates"+query, nil)
		certs, _ := r.json["certs"].([]any)
		if got := fmt.Sprint(r.json["size"], " ", r.json["total"]); r.status != 200 || got != want || fmt.Sprint(len(certs)) != strings.Fields(want)[0] {
			t.Errorf("%s: %d %s, want %s", query, r.status, got, want)
		}
		for _, row := range certs {
			for _, member := range []string{"serial_number", "issuer", "not_before", "version", "cert_content", "private_key"} {
				if _, there := row.(map[string]any)[member]; there {
					t.Errorf("a row has %s", member)
				}
			}
		}
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?offset=x", "?type=x", "?algorithm_type=x", "?page=1", "?limit=1&limit=2"} {
		wantError(t, b.apig("GET", "/certificates"+query, nil), 400, "APIG.2000")
	}
	wantError(t, b.apig("GET", "/certificates?instance_id=x", nil), 404, "APIG.3030")
	// Misbehaving, each sweep has an order of its own, but its pages fit together.
	m := newAPIGBench(t, func(c *Config) { c.Misbehave = true })
	for i := range 9 {
		m.make(fmt.Sprintf("cert_%02d", i), p)
	}
	orders := map[string]bool{}
	for range 3 {
		ids := map[string]bool{}
		var order strings.Builder
		for offset := range 5 {
			r := m.apig("GET", fmt.Sprintf("/certificates?instance_id=%s&limit=2&offset=%d", gatewayID, 2*offset), nil)
			for _, row := range asRows(r.json["certs"]) {
				ids[row["id"].(string)] = true
				order.WriteString(row["name"].(string))
			}
		}
		orders[order.String()] = len(ids) == 10
	}
	if len(orders) != 3 || slices.Contains(slices.Collect(maps.Values(orders)), false) {
		t.Errorf("orders: %v", orders)
	}
}

// Reference 3.5: the full form, also while bound; every bound domain follows; the same content twice is no change.
func TestAPIGUpdate(t *testing.T) {
	b := newAPIGBench(t, nil)
	id := b.sim.APIGCertificates()[0].ID
	wantStatus(t, b.attach(id, "*.gw.example.com"), 204)
	p := newPair(gwDomain, "*.gw.example.com")
	r := b.apig("PUT", "/certificates/"+id, form("renewed", p))
	wantStatus(t, r, 200)
	if r.str("id") != id || r.str("name") != "renewed" || r.str("serial_number") != p.leaf.SerialNumber.String() {
		t.Errorf("answer: %s", r.text)
	}
	if e := lastEntry(b.bench); !e.Effect || e.Fingerprint != p.sha || len(e.Objects) != 3 {
		t.Errorf("ledger: %+v", e)
	}
	for _, name := range []string{gwDomain, "*.gw.example.com"} {
		if d := b.domain(name); d.Certificates[0].Fingerprint != p.sha || d.Served[0][0] != p.sha {
			t.Errorf("%s has %+v", name, d)
		}
	}
	wantStatus(t, b.apig("PUT", "/certificates/"+id, form("renewed", p)), 200)
	if lastEntry(b.bench).Effect {
		t.Error("the same content is a change")
	}
	for name, tt := range map[string]struct {
		body any
		code string
	}{
		"partial":   {map[string]any{"name": "renewed"}, "APIG.2000"},
		"scope":     {form("renewed", p, "type", "instance", "instance_id", gatewayID), "APIG.2000"},
		"domain":    {form("renewed", newPair(gwDomain)), "APIG.2103"}, // the wildcard is bound too
		"algorithm": {form("renewed", newRSAPair(gwDomain, "*.gw.example.com")), "APIG.2000"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, b.apig("PUT", "/certificates/"+id, tt.body), 400, tt.code)
			if b.domain(gwDomain).Served[0][0] != p.sha {
				t.Error("refused with an effect")
			}
		})
	}
	wantError(t, b.apig("PUT", "/certificates/"+strings.Repeat("0", 32), form("renewed", p)), 404, "APIG.3021")
	// Unbound, the algorithm may change.
	free := b.make("free", p)
	wantStatus(t, b.apig("PUT", "/certificates/"+free, form("free", newRSAPair("x.example.com"))), 200)
}

// Doubt 4: a PUT without trusted_root_ca drops the CA; KeepTrustedCA keeps it; an empty one always drops it.
func TestAPIGUpdateAndCA(t *testing.T) {
	p := newPair(gwDomain)
	for _, keep := range []bool{false, true} {
		b := newAPIGBench(t, func(c *Config) { c.KeepTrustedCA = keep })
		id := b.make("with_ca", p, "trusted_root_ca", clientCA())
		wantStatus(t, b.attach(id, gwDomain), 204)
		if d := b.domain(gwDomain); !d.ClientVerification || !d.AsksForClient[0] {
			t.Errorf("after attach: %+v", d)
		}
		r := b.apig("PUT", "/certificates/"+id, form("with_ca", newPair(gwDomain)))
		if r.json["is_has_trusted_root_ca"] != keep || b.domain(gwDomain).AsksForClient[0] != keep || !b.domain(gwDomain).ClientVerification {
			t.Errorf("keep %v: %s %+v", keep, r.text, b.domain(gwDomain))
		}
		r = b.apig("PUT", "/certificates/"+id, form("with_ca", p, "trusted_root_ca", ""))
		if r.json["is_has_trusted_root_ca"] != false {
			t.Errorf("empty: %s", r.text)
		}
	}
	// Reference 3.5: a CA that is added to a bound certificate leaves client authentication off.
	b := newAPIGBench(t, nil)
	id := b.make("without", p)
	wantStatus(t, b.attach(id, gwDomain), 204)
	wantStatus(t, b.apig("PUT", "/certificates/"+id, form("without", p, "trusted_root_ca", clientCA())), 200)
	if d := b.domain(gwDomain); d.ClientVerification || d.AsksForClient[0] || !d.HasTrustedCA || !lastEntry(b.bench).Effect {
		t.Errorf("added: %+v", d)
	}
}

// 3.1: delete is 204; bound it is refused (doubt 7); twice it is 404.
func TestAPIGDelete(t *testing.T) {
	b := newAPIGBench(t, nil)
	bound, free := b.sim.APIGCertificates()[0].ID, b.make("free", newPair(gwDomain))
	wantError(t, b.apig("DELETE", "/certificates/"+bound, nil), 409, codeAPIGInUse)
	r := b.apig("DELETE", "/certificates/"+free, nil)
	wantStatus(t, r, 204)
	if r.text != "" || !lastEntry(b.bench).Effect {
		t.Errorf("answer %q", r.text)
	}
	wantError(t, b.apig("DELETE", "/certificates/"+free, nil), 404, "APIG.3021")
	wantError(t, b.apig("GET", "/certificates/"+free, nil), 404, "APIG.3021")
	wantError(t, b.apig("GET", "/certificates/"+free+"/attached-domains", nil), 404, "APIG.3021")
	wantError(t, b.attach(free, gwDomain), 404, "APIG.3021")
}

// Authentication is WAF's; the codes are APIG's (reference 6.3, 6.6).
func TestAPIGAuth(t *testing.T) {
	b := newAPIGBench(t, nil)
	wantError(t, b.send("GET", b.path("/certificates"), nil), 401, "APIGW.0301")
	wantError(t, b.send("GET", "/v2/"+strings.Repeat("c", 32)+"/apigw/certificates", nil, b.withToken), 403, "APIG.1005")
	project := b.token
	b.token = b.login("domain")
	wantError(t, b.apig("GET", "/certificates", nil), 401, "APIG.1007")
	b.token = project
	b.sim.ExpireTokens()
	wantError(t, b.apig("GET", "/certificates", nil), 401, "APIGW.0301")
	in := newAPIGBench(t, func(c *Config) { c.TokenErrorsInService = true })
	in.sim.ExpireTokens()
	wantError(t, in.apig("GET", "/certificates", nil), 401, "APIG.1002")
	wantError(t, in.waf("GET", "/waf/certificate", nil), 400, "WAF.00012001")
	b.token = b.login("project")
	wantError(t, b.apig("GET", "/nothing", nil), 404, "APIGW.0101")
}
