package waf

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/rotatord/rotatord/internal/certs"
	"github.com/rotatord/rotatord/internal/certs/certstest"
	"github.com/rotatord/rotatord/internal/providers"
)

// A list whose total is wrong must neither end early nor run for ever.
func TestPaging(t *testing.T) {
	row := func(n int) string {
		rows := make([]string, n)
		for i := range rows {
			rows[i] = fmt.Sprintf(`{"id":"%d","hostname":"h%d.example.com"}`, i, i)
		}
		return strings.Join(rows, ",")
	}
	tests := []struct {
		name  string
		pages []string
		want  int
	}{
		{"one page", []string{`{"items":[` + row(3) + `],"total":3}`}, 3},
		{"two pages", []string{`{"items":[` + row(100) + `],"total":130}`, `{"items":[` + row(30) + `],"total":130}`}, 130},
		{"full page, no total", []string{`{"items":[` + row(100) + `]}`, `{"items":[` + row(7) + `]}`}, 107},
		{"total too high", []string{`{"items":[` + row(3) + `],"total":9}`, `{"items":null,"total":9}`}, 3},
		{"small pages", []string{`{"items":[` + row(10) + `],"total":15}`, `{"items":[` + row(5) + `],"total":15}`}, 15},
		{"empty", []string{`{}`}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			fake := &canned{answer: func(_ string, r *http.Request) (string, bool) {
				if want := fmt.Sprint(asked + 1); r.URL.Query().Get("page") != want || r.URL.Query().Get("pagesize") != "100" {
					t.Errorf("query %s, want page %s", r.URL.RawQuery, want)
				}
				asked++
				return tt.pages[min(asked, len(tt.pages))-1], true
			}}
			got, err := fake.target(t, Config{Mode: ModeCloud}, "eu-west-101").listHosts(t.Context(), cloudMode, "")
			if err != nil || len(got) != tt.want || asked != len(tt.pages) {
				t.Errorf("%d rows of %d pages, want %d of %d: %v", len(got), asked, tt.want, len(tt.pages), err)
			}
		})
	}
}

func TestBadConfigurations(t *testing.T) {
	fake := &canned{}
	huawei := fake.target(t, Config{}, "eu-west-101").client
	otc := fake.target(t, Config{}, "eu-de").client
	for want, cfg := range map[string]Config{
		"want a client": {},
		`mode "edge"`:   {Client: huawei, Mode: "edge"},
		"neither enterprise projects nor verify_cert_key": {Client: otc, EnterpriseProject: "0"},
		"nor verify_cert_key":                             {Client: otc, VerifyCertKey: new(true)},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	target, err := New(Config{Client: huawei, VerifyCertKey: new(false)})
	if err != nil || target.verify {
		t.Errorf("verify_cert_key cannot be turned off: %v", err)
	}
}

// Every verb against a service that answers everything with the key that it was
// sent: nothing of it shows anywhere.
func TestKeyNeverShows(t *testing.T) {
	b := bundle(t, certstest.EC256, shop)
	key, err := b.Key.PEM(certs.Traditional)
	if err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(string(key))
	lines := strings.Split(strings.TrimSpace(string(key)), "\n")
	echoes := []string{
		`400 {"error_code":"WAF.1606","error_msg":` + string(quoted) + `}`,
		`500 ` + string(key),
		`{"items":[{"id":` + string(quoted) + `,"name":` + string(quoted) + `}],"total":1,"key":` + string(quoted) + `,"content":` + string(quoted) + `}`,
		`{"id":{"key":` + string(quoted) + `}}`,
		string(key),
	}
	for _, echo := range echoes {
		fake := &canned{answer: func(call string, _ *http.Request) (string, bool) {
			if strings.HasPrefix(call, "GET /waf/instance/") {
				return `{"id":"h1","certificateid":"c1"}`, true
			}
			if call == "GET /waf/instance" {
				return `{"items":[{"id":"h1","hostname":"shop.example.com"}],"total":1}`, true
			}
			return echo, true
		}}
		synctest.Test(t, func(t *testing.T) { // reads are repeated after pauses
			log := &strings.Builder{}
			target := fake.target(t, Config{Mode: ModeCloud, Logger: slog.New(slog.NewTextHandler(log, nil))}, "eu-west-101")
			_, observed := target.Observe(t.Context(), request(shop))
			_, staged := target.Stage(t.Context(), request(shop), b)
			activated := target.Activate(t.Context(), request(shop), "c1")
			retired := target.Retire(t.Context(), request(shop), "c1")
			shown := fmt.Sprintf("%+v %+v %+v %+v ", observed, staged, activated, retired) + log.String()
			for _, line := range lines[1 : len(lines)-1] {
				if strings.Contains(shown, line) {
					t.Errorf("a line of the key shows in %s", shown)
				}
			}
		})
	}
}

// No answer makes the adapter panic, and none makes it see an object of ours
// that is not.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"id":"c1","name":"rd_x","content":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----","expire_time":1,"bind_host":[{"hostname":"a"}]}`))
	f.Add([]byte(`{"items":[{"id":1,"hostname":[],"server":[{"front_protocol":null}]}],"total":"x"}`))
	f.Add([]byte(`{"id":null,"expire_time":1e400,"timestamp":-1,"server":{}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var c certificate
		if json.Unmarshal(body, &c) == nil {
			r := remoteOf(owner, "id", c)
			if r.Owned != providers.Owns(owner, string(c.Name)) {
				t.Errorf("owned %t, name %q", r.Owned, c.Name)
			}
		}
		var h host
		if json.Unmarshal(body, &h) == nil {
			h.speaksHTTPS()
			if h.Server.raw != nil && !json.Valid(h.Server.raw) {
				t.Errorf("invalid server list %q", h.Server.raw)
			}
		}
		var p page[certificate]
		if json.Unmarshal(body, &p) == nil {
			for _, row := range p.Items {
				mayBe(row, fuzzBundle(t))
			}
		}
	})
}

var fuzzBundle = func() func(testing.TB) *certs.Bundle {
	var once sync.Once
	var b *certs.Bundle
	return func(t testing.TB) *certs.Bundle {
		once.Do(func() { b = bundle(t, certstest.EC256, shop) })
		return b
	}
}()
