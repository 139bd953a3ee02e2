package policy

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs"
	"pgregory.net/rapid"
)

// goodCopy is testdata/good with its secret files, whose modes a checkout does not keep.
func goodCopy(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS("testdata/good")))
	for _, secret := range []string{"password", "key", "ca.pem"} {
		write(t, filepath.Join(dir, "secrets", secret), "s3cret\n", 0o640)
	}
	return dir
}

func TestLoadEverything(t *testing.T) {
	dir := goodCopy(t)
	set, problem := loadIn(dir)
	if problem != "" {
		t.Fatal(problem)
	}
	in := func(path string) string { return filepath.Join(dir, path) }
	secret := func(name string) SecretFile { return SecretFile(in("secrets/" + name)) }
	wantConfig := &Config{
		File:     in("rotatord.yaml"),
		Policies: in("policies"), State: in("state"), Node: "edge-1.example.com",
		HTTP: HTTP{Listen: "127.0.0.1:0"}, Brake: Brake{MaxShare: 12.5, MaxPerHour: new(50)},
		NATS: NATS{
			URL: "nats://n1.example.com:4222, tls://n2.example.com:4222", User: "rotatord", PasswordFile: secret("password"),
			TLS:    &NATSTLS{CAFile: in("secrets/ca.pem"), CertFile: in("secrets/ca.pem"), KeyFile: secret("key")},
			Prefix: "rotatord-test", Replicas: 3,
		},
		Clouds: map[string]Cloud{
			"default": {
				Region: "eu-west-101", ProjectID: "0123456789abcdef0123456789abcdef", DomainID: "42",
				Auth: Auth{AccessKey: &AccessKey{ID: "AKID", SecretFile: secret("password"), SecurityTokenFile: secret("key")}},
				Endpoints: map[string]string{
					"iam": "https://iam.example.com", "waf": "https://waf.example.com:8443",
					"ccm": "https://ccm.example.com", "identity_center": "https://ic.example.com",
				},
				ClientCertFile: in("secrets/ca.pem"), ClientKeyFile: secret("key"),
				CAFile: in("secrets/ca.pem"), Proxy: "http://proxy.example.com:3128", Timeout: Duration(time.Minute),
				Limits: map[string]Limit{"waf": {Rate: 2.5, Burst: 3, Concurrency: 1}},
			},
			"other": {
				Region: "eu-west-0", Timeout: Duration(30 * time.Second),
				Auth: Auth{Password: &Password{User: "u", PasswordFile: secret("password"), Domain: "acme"}},
			},
			"machine":   {Region: "cn-north-4", Timeout: Duration(30 * time.Second), Auth: Auth{Metadata: &Metadata{}}},
			"simulated": {Region: "cn-north-4", Timeout: Duration(30 * time.Second), Auth: Auth{Metadata: &Metadata{Endpoint: "http://127.0.0.1:8080"}}},
			"sdk":       {Region: "cn-north-4", Timeout: Duration(30 * time.Second), Auth: Auth{Environment: &Environment{}}},
			"customer": {Region: "cn-north-4", Timeout: Duration(30 * time.Second), Auth: Auth{Agency: &Agency{
				Agency: "certificates", Domain: "customer", Duration: Duration(time.Hour),
				AccessKey: &AccessKey{ID: "AKID", SecretFile: secret("password")},
			}}},
			"customer-2": {Region: "cn-north-4", DomainID: "43", Timeout: Duration(30 * time.Second), Auth: Auth{Agency: &Agency{
				Agency: "certificates", DomainID: "43", Duration: Duration(15 * time.Minute),
				Metadata: &Metadata{Endpoint: "http://[fe80::1]"},
			}}},
		},
		Log: Log{Level: "debug", Format: "json"}, Audit: Audit{Retain: defaultAudit}, Socket: filepath.Join(dir, "state", "rotatord.sock"),
	}
	same(t, set.Config, wantConfig)

	var names []string
	for _, p := range set.Policies {
		names = append(names, p.Name)
	}
	if want := []string{"least", "payments", "shop", "sso", "windows"}; !slices.Equal(names, want) {
		t.Fatalf("policies %v, want %v", names, want)
	}
	same(t, set.Policy("shop"), &Policy{
		Name: "shop", File: in("policies/shop.yaml"),
		Source: Source{Directory: &Directory{
			Path: in("policies/certs"), Recursive: true, KeyPasswordFile: secret("password"), Rescan: Duration(10 * time.Second),
			Match: Match{DNSNames: []string{"*.shop.example.com", "shop.example.com"}, Issuer: "R*"},
		}},
		Targets: []Target{
			{Name: "edge", WAF: &WAF{Cloud: "other", Mode: "dedicated", Hosts: Names{List: []string{"shop.example.com", "*.shop.example.com"}}}},
			{Name: "second", WAF: &WAF{Cloud: "default", Mode: "cloud", Hosts: Names{List: []string{"api.shop.example.com"}}}},
		},
		When: When{On: []string{"file", "nats"}, Subjects: []string{"certs.shop.renewed"}, ExpiryWins: new(Duration(72 * time.Hour))},
		Verify: Verify{
			Endpoints: []string{"shop.example.com:443"}, Addresses: []string{"192.0.2.1", "[2001:db8::1]:8443", "2001:db8::2"},
			CAFile: in("secrets/ca.pem"), Chain: "ignore", Within: Duration(9 * 24 * time.Hour), Successes: 3, OnFailure: "keep",
		},
		Retain: Retain{Superseded: new(0), For: new(Duration(0))},
		Guard:  Guard{MinRemaining: Duration(7 * 24 * time.Hour), AllowLostNames: []string{"old.*"}, AllowIssuerChange: new(false)},
		Drift:  Drift{Every: Duration(24 * time.Hour), Action: "report"},
		Canary: Canary{Targets: []string{"edge"}, Bake: new(Duration(5 * time.Minute))},
	})
	same(t, set.Policy("least"), &Policy{
		Name: "least", File: in("policies/deeper/least.yml"),
		Source: Source{Directory: &Directory{Path: "/etc/letsencrypt/live", Rescan: Duration(5 * time.Minute)}},
		When:   When{On: []string{"file", "nats", "drift"}, ExpiryWins: new(Duration(72 * time.Hour))},
		Verify: Verify{Chain: "verify", Within: Duration(10 * time.Minute), Successes: 1, OnFailure: "rollback"},
		Retain: Retain{Superseded: new(1), For: new(Duration(72 * time.Hour))},
		Drift:  Drift{Every: Duration(time.Hour), Action: "repair"},
		Guard:  Guard{AllowIssuerChange: new(true)},
		Canary: Canary{Bake: new(Duration(15 * time.Minute))},
	})
	same(t, set.Policy("payments"), &Policy{
		Name: "payments", File: in("policies/payments.yaml"),
		Source: Source{PrivateCA: &PrivateCA{
			Cloud: "other", IssuerID: "2cb2878b-6cd1-460d-bd25-afe655159bdc", CommonName: "Payments.internal",
			Subject: Subject{Country: "DE", State: "Berlin", Locality: "Berlin", Organization: "Acme GmbH", OrganizationalUnit: "Payments"},
			Names:   []AlternativeName{{"DNS", "payments.internal"}, {"IP", "10.0.0.7"}, {"IP", "2001:db8::7"}, {"EMAIL", "ops@example.com"}, {"URI", "spiffe://example.com/payments"}},
			Key:     IssuedKey{Algorithm: "RSA4096", Held: "cloud"}, Signature: "SHA512", Validity: Validity{"MONTH", 6}, Backdate: Duration(5 * time.Minute),
			KeyUsages: []string{"digitalSignature", "keyEncipherment"}, ExtendedKeyUsages: []string{"server_auth", "client_auth"},
			CustomExtension: &CustomExtension{OID: "1.3.6.1.4.1.2011.4.99", Value: "payments"}, EnterpriseProject: "0", Superseded: "revoke",
		}},
		Targets: []Target{{Name: "web", File: &File{Directory: "/etc/payments/tls", FullChain: "chain.pem", Key: "key.pem", Mode: 0o600}}},
		When:    When{On: []string{"file", "nats", "drift"}, Renew: Renew{At: 75.5, Before: Duration(30 * 24 * time.Hour)}, ExpiryWins: new(Duration(72 * time.Hour))},
		Verify:  Verify{Chain: "verify", Within: Duration(10 * time.Minute), Successes: 1, OnFailure: "rollback"},
		Retain:  Retain{Superseded: new(1), For: new(Duration(72 * time.Hour))},
		Drift:   Drift{Every: Duration(time.Hour), Action: "repair"},
		Guard:   Guard{AllowIssuerChange: new(true)},
		Canary:  Canary{Bake: new(Duration(15 * time.Minute))},
	})
	center := &IdentityCenter{
		Cloud: "default", InstanceID: "ins-0123", ApplicationInstanceID: "app-ins-0123456789abcdef", Superseded: "delete_all",
		Activate: Activate{After: new(Duration(0)), Acknowledgements: []string{"grafana", "wiki"}},
	}
	same(t, set.Policy("sso"), &Policy{
		Name: "sso", File: in("policies/sso.yaml"), Source: Source{IdentityCenter: center},
		Targets: []Target{
			{Name: "grafana", File: &File{Directory: "/etc/grafana/saml", Certificate: "idp.pem", Mode: 0o600}},
			{Name: "identity-center", Application: center},
		},
		When:   When{On: []string{"file", "nats", "drift"}, Renew: Renew{At: 66}, ExpiryWins: new(Duration(72 * time.Hour))},
		Verify: Verify{Chain: "verify", Within: Duration(10 * time.Minute), Successes: 1, OnFailure: "rollback"},
		Retain: Retain{Superseded: new(1), For: new(Duration(72 * time.Hour))},
		Drift:  Drift{Every: Duration(time.Hour), Action: "repair"},
		Guard:  Guard{AllowIssuerChange: new(true)},
		Canary: Canary{Bake: new(Duration(15 * time.Minute))},
	})
	if p := set.Policy("nobody"); p != nil {
		t.Errorf("a policy that is not there: %+v", p)
	}
	if w := set.Policy("shop").When; !w.Hears(OnFile) || w.Hears(OnDrift) {
		t.Error("Hears is not what the policy says")
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if p, ok := got.(*Policy); ok && p != nil { // TestPolicyHash is about that
		p = new(*p)
		p.SHA256 = ""
		got = p
		if w, ok := want.(*Policy); ok && w != nil && w.SHA256 != "" {
			w = new(*w)
			w.SHA256 = ""
			want = w
		}
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("loaded\n%s\nwant\n%s", g, w)
	}
}

// TestPolicyHash: a policy knows the hash of its file, and that it says the same as another one.
func TestPolicyHash(t *testing.T) {
	const text = "name: shop\nsource: {directory: {path: .}}\n"
	load := func(text string) *Policy {
		set, problem := loadIn(household(t, "log: {}\n", map[string]string{"shop.yaml": text}))
		if problem != "" {
			t.Fatal(problem)
		}
		p := new(*set.Policy("shop"))
		p.File, p.Source.Directory.Path = "", ""
		return p
	}
	first, commented, other := load(text), load("# why\n"+text), load(text+"drift: {every: 2h}\n")
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(text))); first.SHA256 != want {
		t.Errorf("hash %s, want %s", first.SHA256, want)
	}
	if commented.SHA256 == first.SHA256 || !commented.SameRules(first) {
		t.Error("a comment makes other rules, or the same file")
	}
	if other.SameRules(first) {
		t.Error("other rules are the same")
	}
}

func TestConfigDefaults(t *testing.T) {
	dir := household(t, "log: {}\n", nil)
	set, problem := loadIn(dir)
	if problem != "" {
		t.Fatal(problem)
	}
	host, err := os.Hostname()
	must(t, err)
	same(t, set.Config, &Config{
		File:     filepath.Join(dir, "rotatord.yaml"),
		Policies: filepath.Join(dir, "policies"), State: "/var/lib/rotatord", Node: host,
		HTTP: HTTP{Listen: "127.0.0.1:9847"}, NATS: NATS{Prefix: "rotatord", Replicas: 1}, Brake: Brake{MaxShare: 20, MaxPerHour: new(200)}, Log: Log{Level: "info", Format: "auto"},
		Audit: Audit{Retain: defaultAudit}, Socket: "/run/rotatord/rotatord.sock",
	})
}

// systemd says where things are; what the file says wins.
func TestEnvironment(t *testing.T) {
	credentials := t.TempDir()
	write(t, filepath.Join(credentials, "password"), "s3cret", 0o400)
	environment := map[string]string{"CREDENTIALS_DIRECTORY": credentials, "STATE_DIRECTORY": "/var/lib/other"}
	getenv := func(name string) string { return environment[name] }
	const text = "nats: {url: nats://n1, user: u, password_file: password}\n"
	dir := household(t, text, nil)
	set, err := Load(filepath.Join(dir, "rotatord.yaml"), getenv)
	must(t, err)
	if got := string(set.Config.NATS.PasswordFile); got != filepath.Join(credentials, "password") {
		t.Errorf("password file %s", got)
	}
	if set.Config.State != "/var/lib/other" {
		t.Errorf("state %s", set.Config.State)
	}
	dir = household(t, "state: mine\n"+strings.Replace(text, "password}", "./secret}", 1), nil)
	if _, err := Load(filepath.Join(dir, "rotatord.yaml"), getenv); err == nil {
		t.Error("a secret beside the configuration was taken although there is a credentials directory")
	}
	set, err = Load(filepath.Join(dir, "rotatord.yaml"), noEnv)
	must(t, err)
	if set.Config.State != filepath.Join(dir, "mine") {
		t.Errorf("state %s", set.Config.State)
	}
}

// A Kubernetes volume: files are links through ..data, which is itself a link. A
// policies directory may be a link, too.
func TestFilesBehindLinks(t *testing.T) {
	dir := household(t, plainConfig+"policies: linked\n", nil)
	real := filepath.Join(dir, "volume")
	write(t, filepath.Join(real, "..2026_01_01", "shop.yaml"), "name: shop\nsource: {directory: {path: /x}}\n", 0o600)
	must(t, os.Symlink("..2026_01_01", filepath.Join(real, "..data")))
	must(t, os.Symlink("..data/shop.yaml", filepath.Join(real, "shop.yaml")))
	must(t, os.Symlink(real, filepath.Join(dir, "linked")))
	set, problem := loadIn(dir)
	if problem != "" {
		t.Fatal(problem)
	}
	if len(set.Policies) != 1 || set.Policies[0].File != filepath.Join(dir, "linked", "shop.yaml") {
		t.Errorf("policies %+v", set.Policies)
	}
}

func TestReadFiles(t *testing.T) {
	dir := household(t, plainConfig, map[string]string{"broken.yaml": "name: B\n"})
	config, broken, good := filepath.Join(dir, "rotatord.yaml"), filepath.Join(dir, "policies", "broken.yaml"), filepath.Join(dir, "good.yaml")
	write(t, good, "name: good\nsource: {directory: {path: /x}}\n", 0o600)
	if set, problems := Read(config, []string{good}, noEnv); len(problems) > 0 || set.Policy("good") == nil {
		t.Errorf("a good file beside a broken one: %v", problems)
	}
	set, problems := Read(config, []string{good, broken}, noEnv)
	if len(problems) != 2 || !strings.Contains(problems.Error(), "broken.yaml:1:7") {
		t.Errorf("a broken file: %v", problems)
	}
	if len(set.Policies) != 1 || set.Policies[0].Name != "good" {
		t.Errorf("beside a broken file %v were read", set.Policies)
	}
	if set, problems := Read(filepath.Join(dir, "nowhere.yaml"), []string{good}, noEnv); set != nil || len(problems) != 1 {
		t.Errorf("no configuration: %v", problems)
	}
}

func TestSecretFile(t *testing.T) {
	dir := household(t, plainConfig, nil)
	write(t, filepath.Join(dir, "large"), strings.Repeat("x", maxSecret+1), 0o600)
	if got, err := SecretFile(filepath.Join(dir, "secret")).Read(); err != nil || got != "s3cret" {
		t.Errorf("read %q, %v", got, err)
	}
	for name, want := range map[string]string{"empty": "it is empty", "nowhere": "no such file", "large": "too many for a secret", "directory": "is a directory"} {
		if _, err := SecretFile(filepath.Join(dir, name)).Read(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDurations(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "30d": 30 * day, "1w": 7 * day,
		"1w12h": 7*day + 12*time.Hour, "2w3d4h": 17*day + 4*time.Hour, "0d": 0, "15250w": 15250 * 7 * day, "106751d": 106751 * day,
	} {
		if got, err := ParseDuration(text); err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "1", "d", "w", "1x", "-1h", "-1d", "1d-1h", "1d1w", "1.5d", "1h ", "1h\n", "30 d", "1D", "d1",
		"15251w", "106752d", "40000w", "106751d24h", "9999999999999999999999w", "1e3s", "∞",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := Duration(rapid.OneOf(rapid.Int64Min(0), rapid.Map(rapid.Int64Range(0, 100_000), func(n int64) int64 { return n * int64(day) })).Draw(t, "duration"))
		if got, err := ParseDuration(want.String()); err != nil || got != want {
			t.Fatalf("%d is written %q and read %d, %v", want, want, got, err)
		}
		text, err := json.Marshal(want)
		if err != nil || string(text) != `"`+want.String()+`"` {
			t.Fatalf("JSON %s, %v", text, err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([0-9]{1,20}w)?([0-9]{1,20}d)?([0-9]{1,20}[hms])?`).Draw(t, "text")
		if d, err := ParseDuration(text); err == nil && d < 0 {
			t.Fatalf("%q is read as %d", text, d)
		}
	})
}

func TestGlobMatch(t *testing.T) {
	for _, row := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true},
		{"*", "R3", true},
		{"*", "a/b", true},
		{"R*", "R3", true},
		{"R*", "E1", false},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "*.example.com", true},
		{"Acme / Root*", "Acme / Root CA/2", true},
		{"shop.example.com", "shopxexample.com", false},
		{"", "", true},
		{"", "a", false},
	} {
		if got := globMatch(row.pattern, row.name); got != row.want {
			t.Errorf("globMatch(%q, %q) = %v", row.pattern, row.name, got)
		}
	}
}

func TestMatches(t *testing.T) {
	info := certs.Info{Names: []string{"shop.example.com", "*.shop.example.com"}, IssuerCN: "R3"}
	for name, row := range map[string]struct {
		match Match
		want  bool
	}{
		"everything":      {Match{}, true},
		"a name":          {Match{DNSNames: []string{"else.example.com", "Shop.Example.com"}}, true},
		"no name":         {Match{DNSNames: []string{"else.example.com"}}, false},
		"issuer":          {Match{Issuer: "R*"}, true},
		"another issuer":  {Match{Issuer: "E*"}, false},
		"only one of two": {Match{DNSNames: []string{"*"}, Issuer: "E*"}, false},
	} {
		if got := row.match.Matches(info); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// complete is what the rest of the program relies on.
func complete(t testing.TB, s *Set) {
	t.Helper()
	c := s.Config
	for name, value := range map[string]string{"policies": c.Policies, "state": c.State, "node": c.Node, "http.listen": c.HTTP.Listen, "nats.prefix": c.NATS.Prefix, "log.level": c.Log.Level, "log.format": c.Log.Format} {
		if value == "" {
			t.Errorf("%s is empty", name)
		}
	}
	if !filepath.IsAbs(c.Policies) || !filepath.IsAbs(c.State) || c.NATS.Replicas < 1 {
		t.Errorf("configuration %+v", c)
	}
	for name, cloud := range c.Clouds {
		if cloud.Region == "" || cloud.Timeout <= 0 || loginsOf(cloud.Auth) != 1 {
			t.Errorf("cloud %s is %+v", name, cloud)
		}
	}
	for _, p := range s.Policies {
		if p.Name == "" || p.File == "" || p.Source.Kind() == "" || len(p.When.On) == 0 || p.Source.Issues() && (p.When.Renew.At <= 0 || p.Source.Certificate() == "" || len(p.Targets) == 0) ||
			p.Verify.Chain == "" || p.Verify.Within <= 0 || *p.Retain.Superseded < 0 || *p.Retain.For < 0 || p.Drift.Every <= 0 || p.Drift.Action == "" {
			t.Errorf("policy %+v", p)
		}
		if dir := p.Source.Directory; dir != nil && (!filepath.IsAbs(dir.Path) || dir.Rescan <= 0) {
			t.Errorf("directory %+v", dir)
		}
		if ca := p.Source.PrivateCA; ca != nil && (len(ca.Names) == 0 || ca.Validity.Span() <= 0 || ca.Key.Algorithm == "" || ca.Key.Held == "" || ca.Signature == "" || ca.Superseded == "") {
			t.Errorf("private CA %+v", ca)
		}
		if ic := p.Source.IdentityCenter; ic != nil && (ic.Activate.After == nil || ic.Superseded == "" || !p.Targets[len(p.Targets)-1].Last()) {
			t.Errorf("identity center %+v", ic)
		}
		for _, target := range p.Targets {
			completeTarget(t, s, target)
		}
	}
}

func completeTarget(t testing.TB, s *Set, target Target) {
	t.Helper()
	if names := target.Endpoints(); target.Name == "" || target.Kind() == "" || len(names.List) == 0 && !names.Covered {
		t.Errorf("target %+v", target)
	}
	var cloud string
	switch {
	case target.WAF != nil:
		cloud = target.WAF.Cloud
	case target.APIG != nil:
		cloud = target.APIG.Cloud
	case target.Application != nil:
		cloud = target.Application.Cloud
	default:
		return
	}
	if _, ok := s.Config.Clouds[cloud]; !ok {
		t.Errorf("target %s is in cloud %q, known are %v", target.Name, cloud, slices.Collect(maps.Keys(s.Config.Clouds)))
	}
}

// seed adds the files of testdata that concern one kind.
func seed(f *testing.F, patterns ...string) {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		must(f, err)
		for _, file := range files {
			data, err := os.ReadFile(file)
			must(f, err)
			f.Add(data)
		}
	}
}

// tried loads what the fuzzer made: a complete value, or problems that can be shown.
func tried(t *testing.T, dir string) {
	started := time.Now()
	set, err := Load(filepath.Join(dir, "rotatord.yaml"), noEnv)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if err == nil {
		complete(t, set)
		set.Prove(time.Now(), &Pointer{})
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("with its proof it took %s", took)
		}
		return
	}
	if set != nil || err.Error() == "" {
		t.Errorf("a value %+v with the error %q", set, err)
	}
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Errorf("the error is a %T", err)
	}
	for _, p := range problems {
		if p.File == "" || p.Message == "" || p.Line < 0 || (p.Line > 0) != (p.Column > 0) {
			t.Errorf("problem %+v", p)
		}
	}
}

func FuzzConfig(f *testing.F) {
	seed(f, "testdata/bad/config-*.yaml", "testdata/good/rotatord.yaml")
	dir := household(f, "", nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		write(t, filepath.Join(dir, "rotatord.yaml"), string(data), 0o600)
		tried(t, dir)
	})
}

func FuzzPolicy(f *testing.F) {
	seed(f, "testdata/bad/policy-*.yaml", "testdata/good/policies/*.yaml", "testdata/good/policies/*/*.yml")
	dir := household(f, plainConfig, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		write(t, filepath.Join(dir, "policies", "p.yaml"), string(data), 0o600)
		tried(t, dir)
	})
}
