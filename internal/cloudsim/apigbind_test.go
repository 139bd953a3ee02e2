package cloudsim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Reference 3.6: attach by the certificate's side, 204; the same certificate again changes nothing; another one of the
// same algorithm is replaced (doubt 5); one RSA and one ECC stay side by side.
func TestAPIGAttach(t *testing.T) {
	b := newAPIGBench(t, nil)
	before := b.sim.APIGCertificates()[0].ID
	ecc, rsa := b.make("new_ecc", newPair(gwDomain)), b.make("new_rsa", newRSAPair(gwDomain))
	r := b.attach(ecc, gwDomain)
	wantStatus(t, r, 204)
	if r.text != "" || !lastEntry(b.bench).Effect || b.bound(gwDomain) != "ECC "+ecc {
		t.Errorf("answer %q, bound %s", r.text, b.bound(gwDomain))
	}
	wantStatus(t, b.attach(ecc, gwDomain), 204)
	if lastEntry(b.bench).Effect {
		t.Error("the same once more is a change")
	}
	wantStatus(t, b.attach(rsa, gwDomain), 204)
	if got := b.bound(gwDomain); got != "ECC "+ecc+", RSA "+rsa {
		t.Errorf("bound %s", got)
	}
	wantStatus(t, b.apig("DELETE", "/certificates/"+before, nil), 204)
	// The other gateway was not named.
	if second := b.sim.Domains()[3]; second.InstanceID != secondID || len(second.Certificates) != 0 {
		t.Errorf("the second gateway: %+v", second)
	}
	wantStatus(t, b.attach(ecc, gwDomain, "instance_ids", []string{gatewayID, secondID}), 204)
	if got := b.sim.APIGCertificates()[0].Domains; fmt.Sprint(got) != "[gw.example.com gw.example.com]" {
		t.Errorf("bound to %v", got)
	}
	strict := newAPIGBench(t, func(c *Config) { c.RefuseReplacement = true })
	id := strict.make("new_ecc", newPair(gwDomain))
	wantError(t, strict.attach(id, gwDomain), 400, "APIG.2029")
	wantStatus(t, strict.attach(strict.make("new_rsa", newRSAPair(gwDomain)), gwDomain), 204)
}

// Reference 3.6 and 6.3: what is refused, all or nothing.
func TestAPIGAttachRefusals(t *testing.T) {
	b := newAPIGBench(t, nil)
	p := newPair(gwDomain, "a.gw.example.com")
	global, own := b.make("global", p), b.make("mine", p, "type", "instance", "instance_id", secondID)
	path := "/certificates/" + global + "/domains/attach"
	for name, body := range map[string]any{
		"empty": map[string]any{"domains": []any{}}, "missing": map[string]any{}, "unknown": attachBody(gwDomain, "port", 1),
		"no domain": map[string]any{"domains": []any{map[string]any{"instance_ids": []string{gatewayID}}}}, "no list": map[string]any{"domains": gwDomain},
		"flag": attachBody(gwDomain, "verified_client_certificate_enabled", "true"), "no gateways": attachBody(gwDomain, "instance_ids", nil),
		"gateways": attachBody(gwDomain, "instance_ids", "x"),
	} {
		t.Run(name, func(t *testing.T) { wantError(t, b.apig("POST", path, body), 400, "APIG.2000") })
	}
	wantError(t, b.attach(global, "unknown.example.com"), 404, "APIG.3020")
	wantError(t, b.attach(global, gwDomain, "instance_ids", []string{"x"}), 404, "APIG.3030")
	wantError(t, b.attach(global, "*.gw.example.com"), 400, "APIG.2103") // a wildcard needs the wildcard
	wantError(t, b.attach(own, gwDomain), 400, "APIG.2000")              // names the first gateway
	wantStatus(t, b.attach(own, gwDomain, "instance_ids", nil), 204)     // left out for instance type
	wantError(t, b.attach(own, gwPorts, "instance_ids", nil), 404, "APIG.3020")
	both := attachBody(gwDomain)
	both["domains"] = append(both["domains"].([]any), attachBody("*.gw.example.com")["domains"].([]any)...)
	wantError(t, b.apig("POST", path, both), 400, "APIG.2103")
	if got := b.bound(gwDomain); strings.Contains(got, global) {
		t.Errorf("half bound: %s", got)
	}
	// APIG.3715: CA certificates of one algorithm type for each domain.
	rsa := b.make("with_rsa_ca", newRSAPair(gwDomain), "trusted_root_ca", rsaCA())
	ecc := b.make("with_ecc_ca", p, "trusted_root_ca", clientCA())
	wantStatus(t, b.attach(ecc, gwDomain), 204)
	wantError(t, b.attach(rsa, gwDomain), 400, "APIG.3715")
	wantError(t, b.apig("PUT", "/certificates/"+ecc, form("with_ecc_ca", p, "trusted_root_ca", clientCA()+rsaCA())), 400, "APIG.3715")
}

// SDK AttachOrDetachDomainInfo: the flag that is left out is on with a trusted_root_ca and off without, whatever it was.
func TestAPIGVerifiedDefault(t *testing.T) {
	b := newAPIGBench(t, nil)
	p := newPair(gwDomain)
	with, without := b.make("with_ca", p, "trusted_root_ca", clientCA()), b.make("without_ca", p)
	const flag = "verified_client_certificate_enabled"
	for i, step := range []struct {
		id   string
		more []any
		want bool
	}{
		{with, nil, true}, {with, []any{flag, false}, false}, {with, nil, true}, {without, nil, false}, {without, []any{flag, true}, true}, {with, []any{flag, true}, true},
	} {
		wantStatus(t, b.attach(step.id, gwDomain, step.more...), 204)
		d := b.domain(gwDomain)
		if d.ClientVerification != step.want || d.AsksForClient[0] != (step.want && step.id == with) {
			t.Errorf("step %d: %+v", i, d)
		}
	}
}

// Detach: 204; what is not bound is 400 APIG.2000 "no valid domain name" [TF].
func TestAPIGDetach(t *testing.T) {
	b := newAPIGBench(t, nil)
	id := b.sim.APIGCertificates()[0].ID
	wantStatus(t, b.attach(id, "*.gw.example.com"), 204)
	detach := func(body any) reply { return b.apig("POST", "/certificates/"+id+"/domains/detach", body) }
	wantStatus(t, detach(attachBody(gwDomain)), 204)
	r := detach(attachBody(gwDomain))
	wantError(t, r, 400, "APIG.2000")
	if r.str("error_msg") != "no valid domain name" || b.bound(gwDomain) != "" {
		t.Errorf("%s, bound %s", r.text, b.bound(gwDomain))
	}
	both := attachBody(gwDomain)
	both["domains"] = append(both["domains"].([]any), attachBody("*.gw.example.com")["domains"].([]any)...)
	wantError(t, detach(both), 400, "APIG.2000")
	if b.bound("*.gw.example.com") == "" {
		t.Error("half detached")
	}
	wantStatus(t, detach(attachBody("*.gw.example.com")), 204)
	wantStatus(t, b.apig("DELETE", "/certificates/"+id, nil), 204)
}

// The domain's side: exactly one id; the group must be the domain's; ports must agree (APIG.2051).
func TestAPIGDomainSide(t *testing.T) {
	b := newAPIGBench(t, nil)
	d, ports := b.domain(gwDomain), b.domain(gwPorts)
	side := func(d DomainInfo, action string, body any) reply {
		return b.apig("POST", "/instances/"+d.InstanceID+"/api-groups/"+d.GroupID+"/domains/"+d.ID+"/certificates/"+action, body)
	}
	one := func(ids ...string) map[string]any { return map[string]any{"certificate_ids": ids} }
	p := newPair(gwDomain, gwPorts)
	id := b.make("renew", p, "trusted_root_ca", clientCA())
	id2 := b.make("newer", p)
	foreign := b.make("foreign", p, "type", "instance", "instance_id", secondID)
	wantStatus(t, side(d, "attach", one(id)), 204)
	if got := b.domain(gwDomain); b.bound(gwDomain) != "ECC "+id || !got.ClientVerification {
		t.Errorf("bound %+v", got)
	}
	wantStatus(t, side(d, "attach", map[string]any{"certificate_ids": []string{id}, "verified_client_certificate_enabled": false}), 204)
	if b.domain(gwDomain).ClientVerification {
		t.Error("the flag is not taken")
	}
	for _, body := range []any{one(), one(id, id2), map[string]any{}, map[string]any{"certificate_ids": id}, map[string]any{"certificate_ids": []string{id}, "x": 1}} {
		wantError(t, side(d, "attach", body), 400, "APIG.2000")
	}
	wantError(t, side(d, "attach", one(foreign)), 404, "APIG.3021")
	for _, change := range []func(*DomainInfo){
		func(d *DomainInfo) { d.InstanceID = "x" }, func(d *DomainInfo) { d.GroupID = "x" }, func(d *DomainInfo) { d.ID = "x" }, func(d *DomainInfo) { d.GroupID = ports.GroupID },
	} {
		wrong := d
		change(&wrong)
		want := map[bool]string{true: "APIG.3030"}[wrong.InstanceID == "x"] + map[bool]string{true: codeAPIGNoGroup}[wrong.GroupID == "x"] + map[bool]string{true: "APIG.3020"}[wrong.ID == "x"]
		if want == "" {
			wantError(t, side(wrong, "attach", one(id)), 403, "APIG.3474")
			continue
		}
		wantError(t, side(wrong, "attach", one(id)), 404, want)
	}
	wantStatus(t, side(d, "detach", one(id)), 204)
	wantError(t, side(d, "detach", one(id)), 400, "APIG.2000")
	wantStatus(t, side(ports, "attach", one(id)), 204)
	wantError(t, side(ports, "attach", one(id2)), 400, "APIG.2051")
	wantStatus(t, b.attach(id2, gwPorts), 204) // all ports at once
}

// Reference 3.7: attached-domains has a row for each port; group details have ssl_infos, and ssl_id for RSA only.
func TestAPIGBindingFields(t *testing.T) {
	b := newAPIGBench(t, nil)
	ecc := b.make("new_ecc", newPair(gwDomain, gwPorts, "*.gw.example.com"))
	rsa := b.make("new_rsa", newRSAPair(gwPorts), "type", "instance", "instance_id", gatewayID, "trusted_root_ca", clientCA())
	wantStatus(t, b.attach(ecc, gwPorts), 204)
	wantStatus(t, b.attach(ecc, "*.gw.example.com"), 204)
	wantStatus(t, b.attach(rsa, gwPorts, "instance_ids", nil), 204)
	list := b.apig("GET", "/certificates/"+ecc+"/attached-domains", nil)
	rows := asRows(list.json["bound_domains"])
	if fmt.Sprint(names(rows, "url_domain")) != "[*.gw.example.com ports.example.com ports.example.com]" || list.json["total"] != 3.0 || list.json["size"] != 3.0 {
		t.Fatalf("attached: %s", list.text)
	}
	d, row := b.domain(gwPorts), rows[2]
	want := map[string]any{
		"url_domain": gwPorts, "id": d.PortIDs[1], "status": 3.0, "min_ssl_version": "TLSv1.2", "is_http_redirect_to_https": false,
		"verified_client_certificate_enabled": true, "ingress_http_port": 80.0, "ingress_https_port": 8443.0, "ssl_id": ecc, "ssl_name": "new_ecc",
		"api_group_id": d.GroupID, "api_group_name": "second", "instance_id": gatewayID,
	}
	if fmt.Sprint(row) != fmt.Sprint(want) {
		t.Errorf("row %v, want %v", row, want)
	}
	for query, want := range map[string]string{"?limit=2": "2 3", "?offset=2": "1 3", "?url_domain=ports": "2 2"} {
		if r := b.apig("GET", "/certificates/"+ecc+"/attached-domains"+query, nil); fmt.Sprint(r.json["size"], " ", r.json["total"]) != want {
			t.Errorf("%s: %s", query, r.text)
		}
	}
	wantError(t, b.apig("GET", "/certificates/"+ecc+"/attached-domains?x=1", nil), 400, "APIG.2000")
	group := b.apig("GET", "/instances/"+gatewayID+"/api-groups/"+d.GroupID, nil)
	wantStatus(t, group, 200)
	domains := asRows(group.json["url_domains"])
	if len(domains) != 2 || group.str("name") != "second" || group.json["status"] != 1.0 {
		t.Fatalf("group: %s", group.text)
	}
	infos := asRows(domains[0]["ssl_infos"])
	if domains[0]["ssl_id"] != rsa || domains[0]["ssl_name"] != "new_rsa" || domains[0]["is_has_trusted_root_ca"] != false || len(infos) != 2 ||
		fmt.Sprint(infos[0]) != fmt.Sprint(map[string]any{"ssl_id": ecc, "ssl_name": "new_ecc", "algorithm_type": "ECC", "type": 2, "is_has_trusted_root_ca": false}) ||
		fmt.Sprint(infos[1]) != fmt.Sprint(map[string]any{"ssl_id": rsa, "ssl_name": "new_rsa", "algorithm_type": "RSA", "type": 1, "is_has_trusted_root_ca": true}) {
		t.Errorf("domain: %v", domains[0])
	}
	wantError(t, b.apig("GET", "/instances/x/api-groups/"+d.GroupID, nil), 404, "APIG.3030")
}

// Reference 3.8 and [SDK model_url_domain_modify]: min_ssl_version is mandatory; what is left out falls back to its
// default, ports stay.
func TestAPIGDomainSettings(t *testing.T) {
	b := newAPIGBench(t, nil)
	wantStatus(t, b.attach(b.make("with_ca", newPair(gwDomain), "trusted_root_ca", clientCA()), gwDomain), 204)
	d := b.domain(gwDomain)
	put := func(body string) reply {
		return b.apig("PUT", "/instances/"+d.InstanceID+"/api-groups/"+d.GroupID+"/domains/"+d.ID, body)
	}
	r := put(`{"min_ssl_version":"TLSv1.1","verified_client_certificate_enabled":false,"is_http_redirect_to_https":true,"ingress_https_port":8443}`)
	wantStatus(t, r, 200)
	if got := b.domain(gwDomain); got.ClientVerification || got.AsksForClient[0] || got.MinTLS != "TLSv1.1" || r.json["ingress_https_port"] != 8443.0 || r.str("url_domain") != gwDomain {
		t.Errorf("%s %+v", r.text, got)
	}
	r = put(`{"min_ssl_version":"TLSv1.2"}`)
	if r.json["verified_client_certificate_enabled"] != true || r.json["is_http_redirect_to_https"] != false || r.json["ingress_https_port"] != 8443.0 {
		t.Errorf("defaults: %s", r.text)
	}
	for _, body := range []string{`{}`, `{"min_ssl_version":"TLSv1.3"}`, `{"min_ssl_version":"TLSv1.2","ingress_https_port":80}`, `{"min_ssl_version":"TLSv1.2","x":1}`, `{"min_ssl_version":"TLSv1.2","is_http_redirect_to_https":"true"}`} {
		wantError(t, put(body), 400, "APIG.2000")
	}
	d.ID = "x"
	wantError(t, put(`{"min_ssl_version":"TLSv1.2"}`), 404, "APIG.3020")
}

// Reference 3.5: parallel writes to one gateway may be refused with APIG.3718 or APIG.3500, only under Misbehave, and
// never reads or creates.
func TestAPIGParallelWrites(t *testing.T) {
	for _, misbehave := range []bool{false, true} {
		b := newAPIGBench(t, func(c *Config) { c.Misbehave = misbehave })
		id, bound := b.make("renew", newPair(gwDomain)), b.sim.APIGCertificates()[0].ID
		hold := b.add(Fault{Service: "apig", Operation: "BatchAssociateDomainsV2", Name: FaultHold, Count: 1})
		first := make(chan reply, 1)
		go func() { first <- b.attach(id, gwDomain) }()
		if _, err := b.sim.Faults().WaitHeld(t.Context(), hold); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for range 2 {
			r := b.apig("PUT", "/certificates/"+bound, form("again", b.gw))
			seen[fmt.Sprint(r.status, r.code())] = true
		}
		if want := map[bool]string{false: "map[200:true]", true: "map[409APIG.3718:true 500APIG.3500:true]"}[misbehave]; fmt.Sprint(seen) != want {
			t.Errorf("misbehave %v: %v", misbehave, seen)
		}
		b.make("another", newPair(gwDomain))
		wantStatus(t, b.apig("GET", "/certificates/"+bound, nil), 200)
		d := b.sim.Domains()[3] // names another gateway, but the call that is under way names none
		settings := "/instances/" + d.InstanceID + "/api-groups/" + d.GroupID + "/domains/" + d.ID
		if r := b.apig("PUT", settings, `{"min_ssl_version":"TLSv1.2"}`); (r.status == 200) == misbehave {
			t.Errorf("settings: %s", r.text)
		}
		b.sim.Faults().Clear()
		wantStatus(t, <-first, 204)
		wantStatus(t, b.apig("PUT", "/certificates/"+bound, form("again", b.gw)), 200)
	}
}

// The named answers speak APIG's language there (reference 6.3), before or after an effect.
func TestAPIGFaultAnswers(t *testing.T) {
	tests := map[string]struct {
		status int
		code   string
	}{
		FaultInternal: {500, "APIG.9999"}, FaultBusy: {500, "APIG.9008"}, FaultThrottle: {429, "APIGW.0308"},
		FaultUnauthorized: {401, "APIGW.0301"}, FaultTokenInvalid: {401, "APIG.1002"}, FaultBadGateway: {502, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newAPIGBench(t, nil)
			for _, phase := range []Phase{Before, After} {
				for _, service := range []string{"apig", "*"} {
					b.add(Fault{Service: service, Name: name, Count: 1, Phase: phase})
					before := len(b.sim.APIGCertificates())
					r := b.apig("POST", "/certificates", form("cert", newPair(gwDomain)))
					if r.status != tt.status || r.code() != tt.code {
						t.Errorf("got %d %s", r.status, r.text)
					}
					effect := len(b.sim.APIGCertificates()) > before
					if e := lastEntry(b.bench); effect != (phase == After) || e.Effect != effect || e.Fault != name {
						t.Errorf("%s: effect %v, ledger %+v", phase, effect, e)
					}
				}
			}
			wantStatus(t, b.apig("GET", "/certificates", nil), 200)
		})
	}
	b := newAPIGBench(t, nil)
	b.add(Fault{Service: "apig", Name: FaultTokenInvalid, Status: 403, Code: "APIG.1005", Message: "no", Count: 1})
	wantError(t, b.apig("GET", "/certificates", nil), 403, "APIG.1005")
	b.add(Fault{Service: "waf", Name: FaultInternal})
	wantStatus(t, b.apig("GET", "/certificates", nil), 200)
}

// Cut, lost and broken answers, also where the answer has no body.
func TestAPIGBrokenAnswers(t *testing.T) {
	b := newAPIGBench(t, nil)
	id := b.make("renew", newPair(gwDomain))
	old := b.sim.APIGCertificates()[0].ID
	for i, name := range []string{FaultLost, FaultCut, FaultRefuse} {
		b.add(Fault{Service: "apig", Operation: "BatchAssociateDomainsV2", Name: name, Count: 1})
		r := b.attach([]string{id, old}[i%2], gwDomain)
		if !errors.Is(r.err, io.ErrUnexpectedEOF) || lastEntry(b.bench).Effect != (name != FaultRefuse) || lastEntry(b.bench).Status != -1 {
			t.Errorf("%s: %v %+v", name, r.err, lastEntry(b.bench))
		}
	}
	for _, name := range []string{FaultTruncate, FaultHuge, FaultDrip, FaultWrongType} {
		b.add(Fault{Service: "apig", Operation: "BatchAssociateDomainsV2", Name: name, Count: 1})
		if r := b.attach(id, gwDomain); r.status != 204 || r.text != "" || r.err != nil {
			t.Errorf("%s on an empty answer: %+v", name, r)
		}
	}
	b.add(Fault{Service: "apig", Name: FaultTruncate, Count: 1})
	if r := b.apig("GET", "/certificates/"+id, nil); r.status != 200 || r.json != nil || !strings.HasPrefix(r.text, "{") {
		t.Errorf("truncate: %s", r.text)
	}
	b.add(Fault{Service: "apig", Name: FaultWrongType, Field: "san", Count: 1})
	if _, isObject := b.apig("GET", "/certificates/"+id, nil).json["san"].(map[string]any); !isObject {
		t.Error("wrong type")
	}
	b.add(Fault{Service: "apig", Name: FaultExpireToken, Count: 1})
	wantError(t, b.apig("GET", "/certificates", nil), 401, "APIGW.0301")
}

// FaultPartial: attach may stop half way, and say so or not.
func TestAPIGPartial(t *testing.T) {
	for _, status := range []int{0, 500} {
		b := newAPIGBench(t, nil)
		id := b.make("renew", newPair(gwDomain, "*.gw.example.com"))
		b.add(Fault{Service: "apig", Name: FaultPartial, Count: 1, Status: status, Code: "APIG.3500", Message: "sync failed"})
		both := attachBody(gwDomain)
		both["domains"] = append(both["domains"].([]any), attachBody("*.gw.example.com")["domains"].([]any)...)
		path := "/certificates/" + id + "/domains/attach"
		if r := b.apig("POST", path, both); status == 0 && r.status != 204 || status != 0 && r.code() != "APIG.3500" {
			t.Errorf("answer %d %s", r.status, r.text)
		}
		if got := fmt.Sprint(b.sim.APIGCertificates()[1].Domains); got != "[gw.example.com]" || !lastEntry(b.bench).Effect {
			t.Errorf("bound to %s", got)
		}
		wantStatus(t, b.apig("POST", path, both), 204)
		if got := b.sim.APIGCertificates()[1].Domains; len(got) != 2 {
			t.Errorf("after the repeat: %v", got)
		}
	}
}

// show makes one handshake with edge index, without sockets, and reads what the edge says after it.
func show(s *Sim, index int, config *tls.Config) (sha string, err error) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		conn := tls.Server(server, s.EdgeTLS(index))
		if conn.Handshake() == nil {
			_, _ = conn.Write([]byte("x"))
		}
	}()
	defer func() { client.Close(); <-done }()
	conn := tls.Client(client, config)
	if err := conn.Handshake(); err != nil {
		return "", err
	}
	// With TLS 1.3 a client learns only now that it was refused.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return "", err
	}
	return leafSHA(conn), nil
}

// Edges serve APIG domains by name: ECC first, RSA to whom knows no ECDSA; wildcards; nothing without a certificate;
// WAF's hosts as before.
func TestAPIGEdges(t *testing.T) {
	b := newAPIGBench(t, nil)
	rsa, wild := newRSAPair(gwDomain), newPair("*.gw.example.com")
	wantStatus(t, b.attach(b.make("new_rsa", rsa), gwDomain), 204)
	wantStatus(t, b.attach(b.make("wild", wild), "*.gw.example.com"), 204)
	only := func(suites ...uint16) *tls.Config {
		return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: suites}
	}
	for name, tt := range map[string]struct {
		server, want string
		config       *tls.Config
	}{
		"any":           {gwDomain, b.gw.sha, &tls.Config{}},
		"1.2":           {gwDomain, b.gw.sha, &tls.Config{MaxVersion: tls.VersionTLS12}},
		"RSA only":      {gwDomain, rsa.sha, only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)},
		"ECDSA only":    {gwDomain, b.gw.sha, only(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)},
		"upper case":    {"GW.example.com", b.gw.sha, &tls.Config{}},
		"wildcard":      {"a.gw.example.com", wild.sha, &tls.Config{}},
		"a host of WAF": {shopHost, b.old.sha, &tls.Config{}},
		"too deep":      {"a.b.gw.example.com", "", &tls.Config{}},
		"none bound":    {gwPorts, "", &tls.Config{}},
		"1.1":           {gwDomain, "", &tls.Config{MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.config.ServerName, tt.config.RootCAs = tt.server, testRoots()
			if sha, err := show(b.sim, 0, tt.config); sha != tt.want || (err == nil) == (tt.want == "") {
				t.Errorf("%s %v, want %s", sha, err, tt.want)
			}
		})
	}
	// An exact name goes before a wildcard, whichever service has it.
	mixed := newAPIGBench(t, func(c *Config) {
		console := Certificate{Name: "wild", CertPEM: []byte(wild.chain), KeyPEM: []byte(wild.key)}
		c.Hosts = []Host{{Name: "*.example.com"}, {Name: "a.gw.example.com", Certificate: console}}
	})
	p := newPair("*.gw.example.com")
	wantStatus(t, mixed.attach(mixed.make("wild_gw", p), "*.gw.example.com"), 204)
	for server, want := range map[string]string{gwDomain: mixed.gw.sha, "a.gw.example.com": wild.sha, "b.gw.example.com": p.sha} {
		if sha, err := show(mixed.sim, 0, &tls.Config{ServerName: server, RootCAs: testRoots()}); sha != want {
			t.Errorf("%s: %s %v", server, sha, err)
		}
	}
}

// A trusted root CA with client verification on: the edge asks for a client certificate and verifies it.
func TestAPIGClientVerification(t *testing.T) {
	b := newAPIGBench(t, nil)
	wantStatus(t, b.attach(b.make("with_ca", newPair(gwDomain), "trusted_root_ca", clientCA()), gwDomain), 204)
	client, self := newPair("client.example.com"), newPair("client.example.com")
	good, err := tls.X509KeyPair([]byte(client.chain), []byte(client.key))
	if err != nil {
		t.Fatal(err)
	}
	key, _ := parseKey(self.key, false)
	stranger := signCert("client.example.com", nil, key, key.Public(), nil, false, time.Now().AddDate(1, 0, 0))
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		ok           bool
	}{
		"good": {[]tls.Certificate{good}, true}, "none": {nil, false},
		"stranger": {[]tls.Certificate{{Certificate: [][]byte{stranger.Raw}, PrivateKey: key}}, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := &tls.Config{ServerName: gwDomain, RootCAs: testRoots(), MinVersion: version, MaxVersion: version}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(tt.certificates) == 0 {
					return &tls.Certificate{}, nil
				}
				return &tt.certificates[0], nil
			}
			if _, err := show(b.sim, 0, config); (err == nil) != tt.ok {
				t.Errorf("%s, version %x: %v", name, version, err)
			}
		}
	}
}

// Propagation and lag hold for bindings, updates and detachments.
func TestAPIGPropagation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newAPIGBench(t, func(c *Config) { c.Edges, c.Propagation, c.EdgeLag = 2, 10*time.Second, 5*time.Second })
		id := b.sim.APIGCertificates()[0].ID
		p := newPair(gwDomain)
		serves := func() (text string) {
			for edge := range 2 {
				sha, _ := show(b.sim, edge, &tls.Config{ServerName: gwDomain, InsecureSkipVerify: true})
				if told := strings.Join(b.domain(gwDomain).Served[edge], ""); told != sha {
					t.Errorf("edge %d shows %s, Domains says %s", edge, sha, told)
				}
				text += map[string]string{b.gw.sha: "old ", p.sha: "new ", "": "none "}[sha]
			}
			return text
		}
		expect := func(want ...string) {
			t.Helper()
			for i, wait := range []time.Duration{0, 10*time.Second - 1, 1, 5*time.Second - 1, 1} {
				time.Sleep(wait)
				if got := serves(); got != want[i] {
					t.Errorf("step %d: %s, want %s", i, got, want[i])
				}
			}
		}
		wantStatus(t, b.apig("PUT", "/certificates/"+id, form("renewed", p)), 200)
		expect("old old ", "old old ", "new old ", "new old ", "new new ")
		wantStatus(t, b.apig("POST", "/certificates/"+id+"/domains/detach", attachBody(gwDomain)), 204)
		wantStatus(t, b.apig("DELETE", "/certificates/"+id, nil), 204)
		expect("new new ", "new new ", "none new ", "none new ", "none none ")
	})
}

// Over real sockets, and with thirty clients at once.
func TestAPIGListenersAndClients(t *testing.T) {
	b := newAPIGBench(t, nil)
	if err := b.sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sha, err := handshake(b.sim.EdgeAddrs()[0], gwDomain); err != nil || sha != b.gw.sha {
		t.Errorf("%s %v", sha, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.sim.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 30}
	t.Cleanup(transport.CloseIdleConnections)
	b.base, b.client = b.sim.URL(), &http.Client{Transport: transport}
	p := newPair(gwDomain, "*.gw.example.com")
	var wait sync.WaitGroup
	for client := range 30 {
		wait.Go(func() {
			r := b.apig("POST", "/certificates", form(fmt.Sprintf("cert_%d", client), p))
			id := r.str("id")
			for _, domain := range []string{gwDomain, "*.gw.example.com"} {
				if r := b.attach(id, domain); r.status != 204 {
					t.Errorf("attach: %d %s", r.status, r.text)
				}
			}
			b.apig("PUT", "/certificates/"+id, form("cert_x", p))
			b.apig("GET", "/certificates?limit=500", nil)
			b.apig("DELETE", "/certificates/"+id, nil)
		})
	}
	wait.Wait()
	bound := map[string]bool{}
	for _, d := range b.sim.Domains()[:2] {
		bound[d.Certificates[0].ID] = true
	}
	// What is left is what was bound when its own client wanted to delete it.
	for _, cert := range b.sim.APIGCertificates() {
		delete(bound, cert.ID)
	}
	if len(bound) != 0 {
		t.Errorf("bound to what is deleted: %v", bound)
	}
	for i, e := range b.sim.Ledger() {
		if e.Seq != i+1 || e.Status == 0 {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
}

// A held write outlives its caller.
func TestAPIGHold(t *testing.T) {
	b := newAPIGBench(t, nil)
	id := b.sim.APIGCertificates()[0].ID
	hold := b.add(Fault{Service: "apig", Operation: "UpdateCertificateV2", Name: FaultHold, Phase: After, Count: 1})
	ctx, kill := context.WithCancel(t.Context())
	ended := make(chan reply, 1)
	p := newPair(gwDomain)
	go func() {
		ended <- b.sendCtx(ctx, "PUT", b.path("/certificates/"+id), form("renewed", p), b.withToken)
	}()
	if e, err := b.sim.Faults().WaitHeld(t.Context(), hold); err != nil || !e.Effect || e.Fingerprint != p.sha {
		t.Fatalf("%+v %v", e, err)
	}
	kill()
	<-ended
	if b.domain(gwDomain).Served[0][0] != p.sha {
		t.Error("no effect")
	}
}

// Console actions, the management API, and what New refuses.
func TestAPIGConsole(t *testing.T) {
	b := newAPIGBench(t, func(c *Config) { c.Management = true })
	p := newPair(gwDomain)
	up := b.send("POST", "/sim/console/apig/upload", map[string]any{"name": "by_hand", "certificate": p.chain, "key": p.key, "trusted_root_ca": clientCA(), "instance_id": gatewayID})
	wantStatus(t, up, 200)
	id := map[string]any{"certificate_id": up.str("id")}
	wantStatus(t, b.send("POST", "/sim/console/apig/bind", map[string]any{"domain": gwDomain, "certificate_id": up.str("id")}), 200)
	if d := b.domain(gwDomain); d.Certificates[0].Fingerprint != p.sha || !d.ClientVerification {
		t.Errorf("bound: %+v", d)
	}
	if e := lastEntry(b.bench); e.Service != "console" || e.Operation != "APIGBind" || len(e.Objects) != 2 {
		t.Errorf("ledger: %+v", e)
	}
	wantStatus(t, b.send("POST", "/sim/console/apig/delete", id), 400)
	r := b.send("GET", "/sim/state", nil)
	var state struct {
		Certificates []APIGCertificateInfo `json:"apig_certificates"`
		Domains      []DomainInfo
	}
	if err := json.Unmarshal([]byte(r.text), &state); err != nil || len(state.Certificates) != 2 || len(state.Domains) != 4 || state.Domains[0].Served[0][0] != p.sha {
		t.Errorf("state: %s %v", r.text, err)
	}
	noKeyIn(t, r.text, p)
	wantStatus(t, b.send("POST", "/sim/console/apig/delete", map[string]any{"certificate_id": b.sim.APIGCertificates()[0].ID}), 200)
	for path, body := range map[string]any{
		"upload": map[string]any{"name": "x", "certificate": p.chain, "key": p.key}, "bind": map[string]any{"domain": "x", "certificate_id": up.str("id")},
		"delete": map[string]any{"certificate_id": "x"},
	} {
		wantStatus(t, b.send("POST", "/sim/console/apig/"+path, body), 400)
	}
	if _, err := b.sim.ConsoleAPIGUpload(GatewayCertificate{Name: "by_hand", CertPEM: []byte(p.chain), KeyPEM: []byte(p.key)}, "x"); err == nil {
		t.Error("uploaded to no gateway")
	}
	other, _ := b.sim.ConsoleAPIGUpload(GatewayCertificate{Name: "other", CertPEM: []byte(b.old.chain), KeyPEM: []byte(b.old.pkcs8)}, "")
	if err := b.sim.ConsoleAPIGBind(gwDomain, other); err == nil {
		t.Error("bound to a domain that it does not cover")
	}
	if err := b.sim.ConsoleAPIGBind(gwDomain, "x"); err == nil {
		t.Error("bound nothing")
	}
}

func TestGatewayConfig(t *testing.T) {
	p := newPair(gwDomain)
	certificate := []GatewayCertificate{{Name: "by_hand", CertPEM: []byte(p.chain), KeyPEM: []byte(p.key)}}
	domains := func(d ...Domain) Config { return Config{Gateways: []Gateway{{Groups: []Group{{Domains: d}}}}} }
	both := domains(Domain{Name: shopHost})
	both.Hosts = []Host{{Name: shopHost}}
	badName := []GatewayCertificate{certificate[0]}
	badName[0].Name = "x"
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"host of WAF":      {both, "a host of WAF too"},
		"twice":            {domains(Domain{Name: "a.example"}, Domain{Name: "a.example"}), "twice on one gateway"},
		"upper case":       {domains(Domain{Name: "A.example"}), "lower case"},
		"TLS":              {domains(Domain{Name: "a.example", MinTLS: "TLSv1.3"}), "TLSv1.3"},
		"id":               {domains(Domain{Name: "a.example", ID: "x"}), `id "x"`},
		"six":              {domains(make([]Domain, 6)...), "at most 5"},
		"other domain":     {domains(Domain{Name: "a.example", Certificates: certificate}), "does not match"},
		"two ECC":          {domains(Domain{Name: gwDomain, Certificates: append(certificate, GatewayCertificate{Name: "more", CertPEM: []byte(p.chain), KeyPEM: []byte(p.key)})}), "already"},
		"certificate name": {domains(Domain{Name: gwDomain, Certificates: badName}), "invalid"},
		"verify":           {domains(Domain{Name: gwDomain, Certificates: certificate, ClientVerification: true}), "trusted CA"},
		"ids of ports":     {domains(Domain{Name: gwDomain, ID: strings.Repeat("a", 32), Ports: []int{443, 8443}}), "several ids"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	cfg := domains(Domain{Name: gwDomain})
	sim, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	gw, d := sim.Config().Gateways[0], sim.Domains()[0]
	if !isUUID(gw.ID) || !isID(gw.Groups[0].ID) || d.InstanceID != gw.ID || d.GroupID != gw.Groups[0].ID || d.ID != gw.Groups[0].Domains[0].ID || gw.Name != "gateway-1" {
		t.Errorf("made up: %+v, %+v", gw, d)
	}
	if cfg.Gateways[0].ID != "" {
		t.Error("the caller's configuration was changed")
	}
}
