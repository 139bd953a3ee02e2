package cloudsim

import (
	"bytes"
	"fmt"
	"go/parser"
	gotoken "go/token"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The simulator judges the product, so it shares no code with it: every import is of the standard library.
func TestImportsNothing(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), file.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			if root, _, _ := strings.Cut(path, "/"); strings.Contains(root, ".") {
				t.Errorf("%s imports %s", file.Name(), path)
			}
		}
	}
}

// Neither the log nor the ledger ever holds a key, a password or a token.
func TestNoSecretsLeak(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, func(c *Config) {
		c.Misbehave, c.Logger = true, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	p := newPair(apiHost)
	id := b.create("new", p)
	b.waf("GET", "/waf/certificate/"+id, nil)
	b.waf("POST", "/waf/certificate", map[string]any{p.key: p.key, "name": p.key, "content": p.key, "key": p.key})
	b.waf("POST", "/waf/certificate", upl("again", p))
	b.send("POST", "/v3/auth/tokens", loginBody(testUser, testPassword+"x", testDomain, nil))
	for _, text := range []string{log.String(), fmt.Sprintf("%+v", b.sim.Ledger()), fmt.Sprintf("%+v", b.sim.state())} {
		noKeyIn(t, text, p)
		for _, secret := range []string{testPassword, testSK, b.token} {
			if strings.Contains(text, secret) {
				t.Error("a secret leaked")
			}
		}
	}
	if !strings.Contains(log.String(), "CreateCertificate") {
		t.Error("nothing is logged")
	}
}

// Equal seeds and equal calls give equal answers; other seeds other ids.
func TestSeed(t *testing.T) {
	p := newPair(apiHost)
	run := func(t *testing.T, seed uint64) (text string) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, func(c *Config) {
				c.Seed, c.Misbehave = seed, true
				c.Hosts[0].Certificate, c.Hosts[3].Certificate = Certificate{}, Certificate{}
			})
			for i := range 3 {
				text += b.waf("POST", "/waf/certificate", upl(fmt.Sprint("c", i), p)).text
				text += b.waf("GET", "/waf/instance", nil).text
			}
		})
		return text
	}
	one, again, other := run(t, 1), run(t, 1), run(t, 2)
	if one != again || one == other {
		t.Error("the seed does not decide")
	}
}

// New refuses what makes no sense, and says it.
func TestConfigRefusals(t *testing.T) {
	p, q := newPair(apiHost), newPair(apiHost)
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"project id":   {Config{ProjectID: "x"}, "32 letters or digits"},
		"half a key":   {Config{AccessKey: "x"}, "go together"},
		"negative":     {Config{Edges: -1}, "must not be negative"},
		"upper case":   {Config{Hosts: []Host{{Name: "A.example"}}}, "lower case"},
		"twice":        {Config{Hosts: []Host{{Name: "a.example"}, {Name: "a.example"}}}, "twice"},
		"protocol":     {Config{Hosts: []Host{{Name: "a.example", Protocol: "QUIC"}}}, "QUIC"},
		"OTC projects": {Config{OpenTelekom: true, Hosts: []Host{{Name: "a.example", Dedicated: true, EnterpriseProject: "x"}}}, "enterprise"},
		"broken PEM":   {Config{Hosts: []Host{{Name: "a.example", Certificate: Certificate{Name: "a", CertPEM: []byte(p.key), KeyPEM: []byte(q.key)}}}}, "a.example"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	sim, err := New(Config{Hosts: []Host{{Name: "a.example"}, {Name: "b.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := sim.Config()
	if cfg.Region != "eu-west-101" || cfg.CertificateQuota != 2 || cfg.TokenValidity != 24*time.Hour || cfg.NameLimit != 64 || cfg.Edges != 1 || !isID(cfg.ProjectID) {
		t.Errorf("defaults: %+v", cfg)
	}
	if sim.URL() != "" || sim.CAPEM() != nil || sim.EdgeAddrs() != nil {
		t.Error("a simulator that does not listen has addresses")
	}
	if err := sim.Close(); err != nil {
		t.Error(err)
	}
	if err := sim.Start(t.Context()); err == nil {
		t.Error("starts after Close")
	}
}
