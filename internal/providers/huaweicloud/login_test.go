package huaweicloud

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/cloudsim"
	"github.com/rotatord/rotatord/internal/providers"
)

const (
	simKey, simUser = "AKIDSIM0000000000000", "robot"
	simAgency       = "certificates"
	simDomain       = "acme"
)

func simConfig() cloudsim.Config {
	return cloudsim.Config{
		AccessKey: simKey, SecretKey: testSecret, User: simUser, Password: testPassword, Domain: simDomain,
		Agency: simAgency, Metadata: true,
	}
}

// simClient is a client of a simulated cloud over real TLS connections.
func simClient(t *testing.T, simulated cloudsim.Config, auth func(*cloudsim.Sim) Auth, change ...func(*Config)) (*cloudsim.Sim, *Client) {
	t.Helper()
	sim, err := cloudsim.New(simulated)
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sim.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sim.CAPEM())
	cfg := Config{
		Name: "test", Region: sim.Config().Region, RootCAs: roots, Auth: auth(sim), Limits: fast(),
		Endpoints: map[string]string{WAF: sim.URL(), APIG: sim.URL(), IAM: sim.URL(), CCM: sim.URL(), IdentityCenter: sim.URL()},
	}
	for _, c := range change {
		c(&cfg)
	}
	return sim, netClient(t, cfg)
}

// bubbleClient is a client of a simulated cloud without sockets, for fake time.
func bubbleClient(t *testing.T, simulated cloudsim.Config, auth Auth, change ...func(*Config)) (*cloudsim.Sim, *Client) {
	t.Helper()
	sim, err := cloudsim.New(simulated)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "test", Region: sim.Config().Region, Auth: auth, Limits: fast(), Transport: sim.Transport()}
	for _, c := range change {
		c(&cfg)
	}
	return sim, newClient(t, cfg)
}

func listCall() Call {
	return Call{Service: WAF, Operation: "list", Op: "list certificates", Method: http.MethodGet, Path: "/v1/{project_id}/waf/certificate"}
}

// operations counts the calls that a simulator did not refuse.
func operations(sim *cloudsim.Sim) map[string]int {
	count := map[string]int{}
	for _, e := range sim.Ledger() {
		if e.Status < 400 {
			count[e.Operation]++
		}
	}
	return count
}

func simAccessKey() AccessKey { return AccessKey{ID: simKey, Secret: SecretText(testSecret)} }

func simPassword() Password {
	return Password{User: simUser, Domain: simDomain, Password: SecretText(testPassword)}
}

func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func simEnvironment() Environment {
	return Environment{Getenv: environ(envAK, simKey, envSK, testSecret)}
}

// Each way to log in, over real connections: calls arrive and are accepted, fifty callers
// share what is got once, and what was refused is got anew once.
func TestEveryLogin(t *testing.T) {
	metadata := func(sim *cloudsim.Sim) Auth { return Metadata{Endpoint: sim.MetadataURL()} }
	agency := func(base func(*cloudsim.Sim) Auth) func(*cloudsim.Sim) Auth {
		return func(sim *cloudsim.Sim) Auth { return Agency{Name: simAgency, Domain: simDomain, Base: base(sim)} }
	}
	fixed := func(a Auth) func(*cloudsim.Sim) Auth { return func(*cloudsim.Sim) Auth { return a } }
	tests := map[string]struct {
		auth  func(*cloudsim.Sim) Auth
		once  []string // the operations that happen once, however many callers there are
		again []string // those that happen once more after everything was made to end
		signs bool
	}{
		"access key":            {fixed(simAccessKey()), []string{"ListProjects"}, nil, true},
		"password":              {fixed(simPassword()), []string{"CreateToken"}, []string{"CreateToken"}, false},
		"environment":           {fixed(simEnvironment()), []string{"ListProjects"}, nil, true},
		"metadata":              {metadata, []string{"ListProjects", "GetSecurityKey", "CreateMetadataToken"}, []string{"GetSecurityKey"}, true},
		"agency by access key":  {agency(fixed(simAccessKey())), []string{"ListProjects", "CreateSecurityToken"}, []string{"CreateSecurityToken"}, true},
		"agency by environment": {agency(fixed(simEnvironment())), []string{"ListProjects", "CreateSecurityToken"}, []string{"CreateSecurityToken"}, true},
		"agency by password":    {agency(fixed(simPassword())), []string{"ListProjects", "CreateSecurityToken", "CreateToken"}, []string{"CreateSecurityToken", "CreateToken"}, true},
		"agency by metadata":    {agency(metadata), []string{"ListProjects", "CreateSecurityToken", "GetSecurityKey"}, []string{"CreateSecurityToken", "GetSecurityKey"}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			meter := &recorder{}
			sim, c := simClient(t, simConfig(), tt.auth, func(c *Config) { c.Meter = meter })
			if c.Signs() != tt.signs {
				t.Errorf("Signs is %t", c.Signs())
			}
			all := func() {
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						if err := c.Do(t.Context(), listCall()); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			}
			all()
			for _, op := range tt.once {
				if n := operations(sim)[op]; n != 1 {
					t.Errorf("%s happened %d times for 50 callers, want 1", op, n)
				}
			}
			if temporary := strings.Contains(name, "agency") || name == "password" || name == "metadata"; temporary == meter.ends().IsZero() {
				t.Errorf("the end of the credentials is metered as %s", meter.ends())
			}
			sim.ExpireKeys()
			sim.ExpireTokens()
			all()
			for _, op := range tt.again {
				if n := operations(sim)[op]; n != 2 {
					t.Errorf("%s happened %d times after everything had ended, want 2", op, n)
				}
			}
			meter.mu.Lock()
			defer meter.mu.Unlock()
			for _, r := range meter.requests {
				if r.service == IAM && !slices.Contains(Operations(), r.operation) {
					t.Errorf("operation %s is not enumerated", r.operation)
				}
			}
		})
	}
}

// A day with keys of an hour: each renewal is ahead of its time, and nothing is refused.
func TestADayWithAnAgency(t *testing.T) {
	for name, base := range map[string]Auth{"access key": simAccessKey(), "password": simPassword(), "metadata": Metadata{}} {
		synctest.Test(t, func(t *testing.T) {
			meter := &recorder{}
			sim, c := bubbleClient(t, simConfig(), Agency{Name: simAgency, Domain: simDomain, Base: base}, func(c *Config) { c.Meter = meter })
			for range 24 * 60 {
				if err := c.Do(t.Context(), listCall()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if left := time.Until(meter.ends()); left <= 5*time.Minute || left > time.Hour {
					t.Fatalf("%s: the keys in use end in %s", name, left)
				}
				time.Sleep(time.Minute)
			}
			for _, e := range sim.Ledger() {
				if e.Status >= 400 {
					t.Errorf("%s: %s was refused: %d", name, e.Operation, e.Status)
				}
			}
			if n := operations(sim)["CreateSecurityToken"]; n < 24 || n > 28 {
				t.Errorf("%s: %d times keys, want one an hour", name, n)
			}
			sim.Close()
		})
	}
}

// IAM is away for five minutes just when keys are to be renewed: nobody notices.
func TestIAMAwayDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &logs{}
		sim, c := bubbleClient(t, simConfig(), Agency{Name: simAgency, Domain: simDomain, Base: simAccessKey()}, func(c *Config) { c.Logger = out.logger() })
		defer sim.Close()
		if err := c.Do(t.Context(), listCall()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(54 * time.Minute)
		if _, err := sim.Faults().Add(cloudsim.Fault{Service: "iam", Name: cloudsim.FaultBadGateway}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := c.Do(t.Context(), listCall()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}
		if !strings.Contains(out.String(), "credentials could not be renewed early") {
			t.Error("the log does not tell that renewals fail")
		}
		sim.Faults().Clear()
		for range 10 {
			if err := c.Do(t.Context(), listCall()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}
		for _, e := range sim.Ledger() {
			if e.Service == "waf" && e.Status != 200 {
				t.Errorf("a call was refused: %d", e.Status)
			}
		}
	})
}

// Every way in which IAM can fail while keys are asked for: the caller's own call was not
// sent, so it is known that nothing happened; and what IAM does not find is never
// reported as if the caller's object were missing.
func TestAgencyFailures(t *testing.T) {
	tests := map[string]struct {
		fault  cloudsim.Fault
		agency Agency
		want   providers.Kind
		text   string
	}{
		"wrong agency":  {agency: Agency{Name: "others", Domain: simDomain}, want: providers.KindInvalid, text: "The agency does not exist"},
		"wrong account": {agency: Agency{Name: simAgency, DomainID: "42"}, want: providers.KindInvalid, text: "The agency does not exist"},
		"wrong key": {agency: Agency{Name: simAgency, Domain: simDomain, Base: AccessKey{ID: "AKIDNOBODY", Secret: SecretText(testSecret)}},
			want: providers.KindUnauthenticated, text: "APIGW.0301"},
		"denied":          {fault: cloudsim.Fault{Name: cloudsim.FaultAnswer, Status: 403, Message: "no"}, want: providers.KindDenied},
		"not there":       {fault: cloudsim.Fault{Name: cloudsim.FaultAnswer, Status: 404}, want: providers.KindInvalid},
		"in conflict":     {fault: cloudsim.Fault{Name: cloudsim.FaultAnswer, Status: 409}, want: providers.KindInvalid},
		"throttled":       {fault: cloudsim.Fault{Name: cloudsim.FaultThrottle}, want: providers.KindThrottled},
		"bad gateway":     {fault: cloudsim.Fault{Name: cloudsim.FaultBadGateway}, want: providers.KindUnavailable},
		"answer lost":     {fault: cloudsim.Fault{Name: cloudsim.FaultLost}, want: providers.KindUnavailable},
		"answer cut":      {fault: cloudsim.Fault{Name: cloudsim.FaultCut}, want: providers.KindUnavailable},
		"answer truncate": {fault: cloudsim.Fault{Name: cloudsim.FaultTruncate}, want: providers.KindUnavailable},
		"no answer":       {fault: cloudsim.Fault{Name: cloudsim.FaultTimeout, Delay: time.Hour}, want: providers.KindUnavailable, text: "no answer within 30s"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.agency.Name == "" {
					tt.agency = Agency{Name: simAgency, Domain: simDomain}
				}
				if tt.agency.Base == nil {
					tt.agency.Base = simAccessKey()
				}
				sim, c := bubbleClient(t, simConfig(), tt.agency)
				defer sim.Close()
				if tt.fault.Name != "" {
					tt.fault.Operation = "CreateSecurityToken"
					if _, err := sim.Faults().Add(tt.fault); err != nil {
						t.Fatal(err)
					}
				}
				call := createCall(nil, nil)
				e := wantKind(t, c.Do(t.Context(), call), tt.want)
				if e.Service != IAM || !strings.Contains(e.Error(), tt.text) || strings.Contains(e.Error(), testSecret) {
					t.Errorf("got %v", e)
				}
				if operations(sim)["ListCertificates"] != 0 {
					t.Error("the call was sent")
				}
			})
		})
	}
}

// A blip of IAM is bridged.
func TestAgencyKeysAreAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, c := bubbleClient(t, simConfig(), Agency{Name: simAgency, Domain: simDomain, Base: simPassword()})
		defer sim.Close()
		if _, err := sim.Faults().Add(cloudsim.Fault{Operation: "CreateSecurityToken", Name: cloudsim.FaultLost, Count: 2}); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), listCall()); err != nil {
			t.Error(err)
		}
		if n := operations(sim); n["CreateSecurityToken"] != 3 || n["CreateToken"] != 1 {
			t.Errorf("calls %v", n)
		}
	})
}

// A login whose answer was lost may have been a refusal that counts towards the lock of
// the account: it is not repeated at once, whatever is behind it.
func TestLostLoginIsNotRepeated(t *testing.T) {
	for name, auth := range map[string]Auth{"password": simPassword(), "agency": Agency{Name: simAgency, Domain: simDomain, Base: simPassword()}} {
		synctest.Test(t, func(t *testing.T) {
			sim, c := bubbleClient(t, simConfig(), auth)
			defer sim.Close()
			if _, err := sim.Faults().Add(cloudsim.Fault{Operation: "CreateToken", Name: cloudsim.FaultLost}); err != nil {
				t.Fatal(err)
			}
			e := wantKind(t, c.Do(t.Context(), listCall()), providers.KindUnavailable)
			if e.RetryAfter < lostPause || operations(sim)["CreateToken"] != 1 {
				t.Errorf("%s: retry after %s, calls %v", name, e.RetryAfter, operations(sim))
			}
		})
	}
}

func TestAgencySettings(t *testing.T) {
	base := simAccessKey()
	for want, a := range map[string]Agency{
		"want its name":              {Domain: "d", Base: base},
		"the account that made it":   {Name: "a", Base: base},
		"by name or by id":           {Name: "a", Domain: "d", DomainID: "i", Base: base},
		"want 15m0s to 24h0m0s":      {Name: "a", Domain: "d", Duration: time.Minute, Base: base},
		"want a way to log in first": {Name: "a", Domain: "d"},
		"to another agency":          {Name: "a", Domain: "d", Base: Agency{}},
		"want id and secret":         {Name: "a", Domain: "d", Base: AccessKey{}},
		"metadata: endpoint":         {Name: "a", Domain: "d", Base: Metadata{Endpoint: "http://192.0.2.1"}},
	} {
		cfg := keyConfig()
		cfg.Auth = a
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	cfg := keyConfig()
	cfg.Region, cfg.Endpoints = "", map[string]string{WAF: "https://waf.example.com"}
	cfg.Limits = nil
	cfg.Auth = Agency{Name: "a", Domain: "d", Base: base}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "no endpoint for iam") {
		t.Errorf("got %v", err)
	}
}

// Both versions of the metadata service, and everything that can be wrong with it.
func TestMetadata(t *testing.T) {
	for _, mode := range []string{"", cloudsim.MetadataV1, cloudsim.MetadataV2} {
		t.Run("mode "+mode, func(t *testing.T) {
			simulated := simConfig()
			simulated.MetadataMode = mode
			sim, c := simClient(t, simulated, func(sim *cloudsim.Sim) Auth { return Metadata{Endpoint: sim.MetadataURL() + "/"} },
				func(c *Config) { c.Proxy = "http://127.0.0.1:1"; c.ProjectID = cloudsimProject })
			// The proxy, where nobody is, is not for the metadata service.
			if _, err := c.sess.(*keySession).source.get(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if n := operations(sim)["GetSecurityKey"]; n != 1 {
				t.Errorf("%d times keys", n)
			}
		})
	}
	for _, status := range []int{404, 405, 503} {
		fakeMetadata(t, status, 200, goodKeys, "")
	}
	fakeMetadata(t, 400, 200, goodKeys, "status 400")
	fakeMetadata(t, 500, 200, goodKeys, "status 500")
	fakeMetadata(t, 200, 404, "", "is an agency bound to this server?")
	fakeMetadata(t, 200, 401, "", "status 401")
	fakeMetadata(t, 200, 502, "", "status 502")
	fakeMetadata(t, 200, 302, "", "status 302")
	fakeMetadata(t, 200, 200, testSecret, "is not the JSON")
	fakeMetadata(t, 200, 200, `{}`, "holds no keys")
	fakeMetadata(t, 200, 200, `{"credential":{"access":"a","secret":"`+testSecret+`","securitytoken":"t","expires_at":"2001-01-01T00:00:00.000000Z"}}`, "has ended already")
	fakeMetadata(t, 200, 200, goodKeys+strings.Repeat(" ", maxMetadata), "is longer than")
}

const (
	cloudsimProject = "0f3c5a9d7e1b4862a0c4d8f21b6e9357"
	goodKeys        = `{"credential":{"access":"a","secret":"` + testSecret + `","securitytoken":"t"}}`
)

func fakeMetadata(t *testing.T, put, get int, body, want string) {
	t.Helper()
	cfg := keyConfig()
	cfg.Auth = Metadata{}
	c, _ := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
		if r.URL.Host != "169.254.169.254" {
			return reply(200, `{}`), nil
		}
		if r.Method == http.MethodPut {
			return reply(put, "session-"+testPassword), nil
		}
		if sent := r.Header.Get(sessionHeader); (put == 200) != (sent == "session-"+testPassword) {
			t.Errorf("session %q", sent)
		}
		return reply(get, body), nil
	})
	err := c.once(t.Context(), getCall(nil))
	if want == "" && err == nil {
		return
	}
	if err == nil || want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), testPassword) {
		t.Errorf("%d, %d: %v, want %q", put, get, err, want)
	}
}

// A server without metadata service: known after three seconds, and nothing was sent.
func TestMetadataIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := keyConfig()
		cfg.Auth = Metadata{}
		c, _ := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		start := time.Now()
		e := wantKind(t, c.Do(t.Context(), createCall(nil, nil)), providers.KindUnavailable)
		if time.Since(start) != 3*time.Second || !strings.Contains(e.Error(), "metadata service at http://169.254.169.254") {
			t.Errorf("after %s: %v", time.Since(start), e)
		}
	})
}

// Two days on a server whose keys the metadata service changes when it likes.
func TestDaysWithMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim, c := bubbleClient(t, simConfig(), Metadata{})
		defer sim.Close()
		for range 2 * 24 * 6 {
			if err := c.Do(t.Context(), listCall()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		for _, e := range sim.Ledger() {
			if e.Status >= 400 {
				t.Errorf("%s was refused: %d", e.Operation, e.Status)
			}
		}
		if n := operations(sim)["GetSecurityKey"]; n > 4 {
			t.Errorf("asked %d times", n)
		}
	})
}

// Several clouds side by side share nothing.
func TestCloudsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := simConfig(), simConfig()
		two.AccessKey, two.SecretKey, two.Metadata = "AKIDOTHER", "other-secret-other-secret", false
		a, first := bubbleClient(t, one, Metadata{})
		b, second := bubbleClient(t, two, AccessKey{ID: "AKIDOTHER", Secret: SecretText("other-secret-other-secret")})
		defer a.Close()
		defer b.Close()
		if _, err := a.Faults().Add(cloudsim.Fault{Name: cloudsim.FaultBadGateway}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			wantKind(t, first.Do(t.Context(), listCall()), providers.KindUnavailable)
			if err := second.Do(t.Context(), listCall()); err != nil {
				t.Error(err)
			}
		}
	})
}

// The account's id for global services: looked up once and sent, the configured one and
// the agency's win, and a look-up that finds nothing says what to do.
func TestDomainLookUp(t *testing.T) {
	global := Call{Service: IdentityCenter, Operation: "o", Op: "o", Method: "GET", Path: "/v1/x"}
	tests := map[string]struct {
		auth           Auth
		config, answer string
		want, err      string
		asks           int
	}{
		"access key":    {auth: simAccessKey(), answer: `[{"id":"d1","name":"acme"},{"id":"d2"}]`, want: "d1", asks: 1},
		"configured":    {auth: simAccessKey(), config: "d9", want: "d9"},
		"environment":   {auth: Environment{Getenv: environ(envAK, simKey, envSK, testSecret, envDomain, "d8")}, want: "d8"},
		"agency's":      {auth: Agency{Name: "a", Domain: "other", Base: simAccessKey()}, answer: `[{"id":"d1","name":"acme"},{"id":"d2","name":"other"}]`, want: "d2", asks: 1},
		"agency by id":  {auth: Agency{Name: "a", DomainID: "d7", Base: simAccessKey()}, want: "d7"},
		"nothing":       {auth: simAccessKey(), answer: `[]`, err: "set domain_id", asks: 1},
		"not agency's":  {auth: Agency{Name: "a", Domain: "other", Base: simAccessKey()}, answer: `[{"id":"d1","name":"acme"}]`, err: `account "other" is not among the 1`, asks: 1},
		"not permitted": {auth: simAccessKey(), answer: "403", err: "denied", asks: 1},
		"not there":     {auth: simAccessKey(), answer: "404", err: "invalid", asks: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := keyConfig()
			cfg.Auth, cfg.DomainID = tt.auth, tt.config
			c, cloud := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
				switch r.URL.Path {
				case "/v3.0/OS-CREDENTIAL/securitytokens":
					return reply(201, goodKeys), nil
				case "/v3/auth/domains":
					if r.Header.Get("X-Domain-Id") != "" {
						t.Error("the look-up names what it asks for")
					}
					if len(tt.answer) == 3 {
						return reply(int(tt.answer[0]-'0')*100+int(tt.answer[2]-'0'), ""), nil
					}
					return reply(200, `{"domains":`+tt.answer+`}`), nil
				}
				if got := r.Header.Get("X-Domain-Id"); got != tt.want || !strings.Contains(r.Header.Get("Authorization"), "x-domain-id") {
					t.Errorf("sent domain %q", got)
				}
				return reply(200, `{}`), nil
			})
			for range 2 {
				err := c.Do(t.Context(), global)
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				if tt.err != "" {
					break
				}
			}
			if n := cloud.count("GET /v3/auth/domains"); n != tt.asks {
				t.Errorf("%d look-ups, want %d", n, tt.asks)
			}
		})
	}
	// Without IAM the header stays away.
	cfg := keyConfig()
	cfg.Region, cfg.Limits, cfg.Endpoints = "", nil, map[string]string{IdentityCenter: "https://ic.example.com"}
	c, _ := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
		if r.Header.Get("X-Domain-Id") != "" {
			t.Error("a domain is sent")
		}
		return reply(200, `{}`), nil
	})
	if err := c.Do(t.Context(), global); err != nil {
		t.Error(err)
	}
}

// Identity Center is not asked with a token: it is not documented to take one.
func TestNeedsSignature(t *testing.T) {
	c, cloud := fakeClient(t, passwordConfig(SecretText(testPassword)), nil)
	e := wantKind(t, c.Do(t.Context(), Call{Service: IdentityCenter, Operation: "o", Op: "o", Method: "GET", Path: "/v1/x"}), providers.KindInvalid)
	if len(cloud.calls) != 0 || !strings.Contains(e.Error(), "takes signed requests only") {
		t.Errorf("sent %v: %v", cloud.calls, e)
	}
	for _, service := range Services() {
		if NeedsSignature(service) != (service == IdentityCenter) {
			t.Errorf("NeedsSignature(%s)", service)
		}
	}
}

// A client certificate is read anew for each connection.
func TestClientCertificate(t *testing.T) {
	var shown atomic.Value
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown.Store(r.TLS.PeerCertificates[0].SerialNumber.String())
		fmt.Fprint(w, `{}`)
	}))
	server.TLS = clientAuthConfig()
	server.StartTLS()
	t.Cleanup(server.Close)
	cfg := keyConfig()
	cfg.RootCAs = x509.NewCertPool()
	cfg.RootCAs.AddCert(server.Certificate())
	cfg.Endpoints = map[string]string{WAF: server.URL}
	reads := 0
	cfg.ClientCertificate = func() (*clientPair, error) {
		reads++
		return selfSigned(t, int64(reads)), nil
	}
	c := netClient(t, cfg)
	for _, want := range []string{"1", "2"} {
		if err := c.Do(t.Context(), getCall(nil)); err != nil || shown.Load() != want {
			t.Errorf("the server saw %v: %v", shown.Load(), err)
		}
		c.transport.(*http.Transport).CloseIdleConnections()
	}
	cfg.ClientCertificate = func() (*clientPair, error) { return nil, os.ErrNotExist }
	broken := netClient(t, cfg)
	e := wantKind(t, broken.once(t.Context(), getCall(nil)), providers.KindUnavailable)
	if !strings.Contains(e.Error(), "file does not exist") {
		t.Errorf("got %v", e)
	}
}
