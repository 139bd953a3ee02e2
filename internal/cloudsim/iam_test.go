package cloudsim

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Reference 1.2 [HW iam_30_0001]: 201, the token in X-Subject-Token, times in UTC with six decimals.
func TestPasswordLogin(t *testing.T) {
	b := newBench(t, nil)
	scope := map[string]any{"project": map[string]any{"id": b.sim.Config().ProjectID}}
	r := b.send("POST", "/v3/auth/tokens", loginBody(testUser, testPassword, testDomain, scope))
	wantStatus(t, r, 201)
	token := r.header.Get("X-Subject-Token")
	if len(token) < 200 || len(token) > 4096 { // WAF's schema ends at 4096 [OA WAF/*]
		t.Errorf("the token has %d characters", len(token))
	}
	body := r.json["token"].(map[string]any)
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	for _, name := range []string{"expires_at", "issued_at"} {
		if text, _ := body[name].(string); !stamp.MatchString(text) {
			t.Errorf("%s is %q", name, text)
		}
	}
	until, _ := time.Parse(time.RFC3339Nano, body["expires_at"].(string))
	if left := time.Until(until); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("the token lives %s, want 24 h", left)
	}
	if project := body["project"].(map[string]any); project["id"] != b.sim.Config().ProjectID || project["name"] != "eu-west-101" {
		t.Errorf("project is %v", project)
	}
	// nocatalog: any non-empty value drops the catalog.
	if body["catalog"] == nil {
		t.Error("no catalog")
	}
	for query, want := range map[string]bool{"?nocatalog=": true, "?nocatalog=0": false, "?nocatalog=true": false} {
		r := b.send("POST", "/v3/auth/tokens"+query, loginBody(testUser, testPassword, testDomain, scope))
		if got := r.json["token"].(map[string]any)["catalog"] != nil; got != want {
			t.Errorf("%s: catalog %v, want %v", query, got, want)
		}
	}
	// [OTC-I] validates it.
	r = b.send("GET", "/v3/auth/tokens", nil, b.withToken, func(r *http.Request) { r.Header.Set("X-Subject-Token", token) })
	wantStatus(t, r, 200)
}

// Reference 8.2: on OTC the catalog names WAF-Dedicated as premium-waf.
func TestCatalogOfOpenTelekom(t *testing.T) {
	b := newBench(t, func(c *Config) { c.OpenTelekom, c.Hosts = true, c.Hosts[3:] })
	r := b.send("POST", "/v3/auth/tokens", loginBody(testUser, testPassword, testDomain, nil))
	if !strings.Contains(r.text, `"type":"premium-waf"`) || !strings.Contains(r.text, `"url":"https://cloud.invalid"`) {
		t.Errorf("catalog: %s", r.text)
	}
}

// Reference 1.2: error.code is a number; 400 for bad bodies, 401 for a wrong password. Names mixed up in the scope are
// 400 (acmesh-official/acme.sh #3497, #5261).
func TestLoginRefusals(t *testing.T) {
	b := newBench(t, nil)
	good := `"identity":{"methods":["password"],"password":{"user":{"name":"rotator","password":"correct horse","domain":{"name":"OTC-EU-TEST"}}}}`
	tests := map[string]struct {
		body   string
		status int
	}{
		"wrong password":  {strings.Replace("{\"auth\":{"+good+"}}", "horse", "donkey", 1), 401},
		"wrong domain":    {strings.Replace("{\"auth\":{"+good+"}}", "EU", "US", 1), 401},
		"no JSON":         {`auth`, 400},
		"empty":           {``, 400},
		"unknown member":  {`{"auth":{` + good + `},"other":1}`, 400},
		"wrong case":      {`{"Auth":{` + good + `}}`, 400},
		"wrong type":      {strings.Replace("{\"auth\":{"+good+"}}", `"rotator"`, `7`, 1), 400},
		"null":            {strings.Replace("{\"auth\":{"+good+"}}", `"rotator"`, `null`, 1), 400},
		"no methods":      {strings.Replace("{\"auth\":{"+good+"}}", `"methods":["password"],`, ``, 1), 400},
		"other method":    {strings.Replace("{\"auth\":{"+good+"}}", `["password"]`, `["password","totp"]`, 1), 400},
		"unknown project": {`{"auth":{` + good + `,"scope":{"project":{"name":"eu-west-0"}}}}`, 400},
		"unknown domain":  {`{"auth":{` + good + `,"scope":{"domain":{"name":"eu-west-0"}}}}`, 400},
		"two scopes":      {`{"auth":{` + good + `,"scope":{"domain":{"name":"OTC-EU-TEST"},"project":{"name":"eu-west-101"}}}}`, 400},
		"empty scope":     {`{"auth":{` + good + `,"scope":{"project":{}}}}`, 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := b.send("POST", "/v3/auth/tokens", tt.body)
			inner, _ := r.json["error"].(map[string]any)
			if r.status != tt.status || inner["code"] != float64(tt.status) || inner["message"] == "" || inner["title"] == "" {
				t.Errorf("got %d %s, want %d", r.status, r.text, tt.status)
			}
			if r.header.Get("X-Subject-Token") != "" {
				t.Error("a refused login has a token")
			}
			b.login("project") // forget the failure: this is not about the lock
		})
	}
	r := b.send("POST", "/v3/auth/tokens", "{\"auth\":{"+good+"}}", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
	wantStatus(t, r, 400)
}

// [HW iam FAQ]: five wrong passwords lock the user for 15 minutes, for the right password too.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		try := func(password string) int {
			return b.send("POST", "/v3/auth/tokens", loginBody(testUser, password, testDomain, nil)).status
		}
		for range lockAfter - 1 {
			try("wrong")
		}
		if got := try(testPassword); got != 201 {
			t.Fatalf("locked after four: %d", got)
		}
		for range lockAfter {
			if got := try("wrong"); got != 401 {
				t.Fatalf("wrong password: %d", got)
			}
		}
		time.Sleep(lockFor - time.Second)
		if got := try(testPassword); got != 401 {
			t.Errorf("the right password opens a locked account: %d", got)
		}
		time.Sleep(2 * time.Second)
		if got := try(testPassword); got != 201 {
			t.Errorf("still locked after 15 minutes: %d", got)
		}
		// Old failures are forgotten.
		for range lockAfter - 1 {
			try("wrong")
		}
		time.Sleep(lockFor)
		try("wrong")
		if got := try(testPassword); got != 201 {
			t.Errorf("failures of long ago count: %d", got)
		}
	})
}

// Reference 1.2: a token lives 24 hours, or as long as configured. An expired one is 401 APIGW.0301 at the gateway, or
// 400 WAF.00012001 from the service (reference 6.2).
func TestTokenExpiry(t *testing.T) {
	for _, inService := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.TokenErrorsInService, c.TokenValidity = inService, time.Hour })
			time.Sleep(time.Hour - time.Second)
			wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
			time.Sleep(time.Second)
			r := b.waf("GET", "/waf/certificate", nil)
			if inService {
				wantError(t, r, 400, "WAF.00012001")
			} else {
				wantError(t, r, 401, "APIGW.0301")
			}
			if r := b.send("GET", "/v3/projects", nil, b.withToken); r.status != 401 || r.json["error"] == nil {
				t.Errorf("IAM: %d %s", r.status, r.text)
			}
			b.token = b.login("project")
			wantStatus(t, b.waf("GET", "/waf/certificate", nil), 200)
			b.sim.ExpireTokens() // a changed password ends all tokens
			if r := b.waf("GET", "/waf/certificate", nil); r.status == 200 {
				t.Error("an ended token is accepted")
			}
		})
	}
}

// Reference 6.2: WAF.00012002, the project does not fit. So it is with tokens of a domain or of nothing.
func TestProjectMismatch(t *testing.T) {
	b := newBench(t, nil)
	other := strings.Repeat("9", 32)
	wantError(t, b.send("GET", "/v1/"+other+"/waf/certificate", nil, b.withToken), 400, "WAF.00012002")
	wantError(t, b.send("GET", "/v1/"+other+"/waf/certificate", nil, func(r *http.Request) {
		signIndependently(r, testAK, testSK, time.Now())
	}), 400, "WAF.00012002")
	wantError(t, b.waf("GET", "/waf/certificate", nil, func(r *http.Request) { r.Header.Set("X-Project-Id", other) }), 400, "WAF.00012002")
	for _, scope := range []string{"domain", "none"} {
		b.token = b.login(scope)
		wantError(t, b.waf("GET", "/waf/certificate", nil), 400, "WAF.00012002")
		wantStatus(t, b.send("GET", "/v3/auth/domains", nil, b.withToken), 200)
	}
}

// Reference 1.5: the project by its exact name, the domain as first entry.
func TestProjectsAndDomains(t *testing.T) {
	b := newBench(t, nil)
	list := func(query string) []any {
		r := b.send("GET", "/v3/projects"+query, nil, b.withToken)
		wantStatus(t, r, 200)
		return r.json["projects"].([]any)
	}
	one := list("?name=eu-west-101")
	if len(one) != 1 || one[0].(map[string]any)["id"] != b.sim.Config().ProjectID {
		t.Errorf("projects: %v", one)
	}
	if got := len(list("?name=eu-west-9")); got != 0 {
		t.Errorf("%d projects of an unknown name", got)
	}
	if got := len(list("")); got < 2 { // sub-projects are there to be mixed up with
		t.Errorf("%d projects without a name", got)
	}
	r := b.send("GET", "/v3/auth/domains", nil, b.withToken)
	if r.json["domains"].([]any)[0].(map[string]any)["id"] != b.sim.Config().DomainID {
		t.Errorf("domains: %s", r.text)
	}
	wantStatus(t, b.send("GET", "/v3/projects", nil), 401)
}

// A path that no service has is not published; one that WAF could have is answered by WAF, to those who may ask.
func TestUnknownPaths(t *testing.T) {
	b := newBench(t, nil)
	wantError(t, b.send("GET", "/v9/nothing", nil), 404, "APIGW.0101")
	wantError(t, b.waf("GET", "/waf/overviews", nil), 404, "WAF.00014009")
	wantError(t, b.waf("DELETE", "/waf/certificate", nil), 404, "WAF.00014009")
	wantError(t, b.waf("GET", "/waf/certificate/", nil), 404, "WAF.00014009")
	r := b.send("GET", "/v1/"+b.sim.Config().ProjectID+"/waf/overviews", nil)
	wantError(t, r, 401, "APIGW.0301")
}
