package huaweicloud

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

func profile(t testing.TB, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const twoSections = `# written by a tool
[basic]
ak = AKBASIC
sk=` + testSecret + `
; project
project_id = ` + testProject + `
[global]
ak = AKGLOBAL
sk = ` + testPassword + `
security_token = tok+en/==
domain_id = d1
`

func TestEnvironmentVariants(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".huaweicloud"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".huaweicloud", "credentials"), []byte("\uFEFF[basic]\r\nak = AKHOME\r\nsk = x\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		env           []string
		basic, global keys
	}{
		"variables": {[]string{envAK, "AK", envSK, "s", envST, "t", envProject, "p", envDomain, "d"},
			keys{"AK", "s", "t", "p", "d"}, keys{"AK", "s", "t", "p", "d"}},
		"variables win":   {[]string{envAK, "AK", envSK, "s", envFile, "/nowhere", envIDP, "x"}, keys{id: "AK", secret: "s"}, keys{id: "AK", secret: "s"}},
		"profile at home": {[]string{"HOME", home}, keys{id: "AKHOME", secret: "x"}, keys{id: "AKHOME", secret: "x"}},
		"two sections": {[]string{envFile, profile(t, twoSections, 0o600)},
			keys{id: "AKBASIC", secret: testSecret, project: testProject}, keys{id: "AKGLOBAL", secret: testPassword, token: "tok+en/==", domain: "d1"}},
		"global alone": {[]string{envFile, profile(t, "[global]\nak=A\nsk=b\n[other]\nak=C\n", 0o640)}, keys{id: "A", secret: "b"}, keys{id: "A", secret: "b"}},
	}
	for name, tt := range tests {
		e := Environment{Getenv: environ(tt.env...)}
		for global, want := range map[bool]keys{false: tt.basic, true: tt.global} {
			if got, err := e.get(t.Context(), global); err != nil || got != want {
				t.Errorf("%s, global %t: got %+v, %v", name, global, got, err)
			}
		}
	}
}

func TestEnvironmentRefused(t *testing.T) {
	none := t.TempDir()
	tests := map[string]struct {
		env  []string
		want string
	}{
		"nothing":        {[]string{"HOME", none}, "neither HUAWEICLOUD_SDK_AK with HUAWEICLOUD_SDK_SK nor the file " + none},
		"key alone":      {[]string{envAK, "a"}, "HUAWEICLOUD_SDK_AK is set and HUAWEICLOUD_SDK_SK is not"},
		"secret alone":   {[]string{envSK, testSecret}, "HUAWEICLOUD_SDK_SK is set and HUAWEICLOUD_SDK_AK is not"},
		"OIDC":           {[]string{envIDP, "i", "HOME", none}, "OpenID Connect is not supported"},
		"OIDC's token":   {[]string{envIDPFile, "i"}, "OpenID Connect is not supported"},
		"pod":            {[]string{"HOME", none, envPodURI, "http://x"}, "pod identity is not supported"},
		"named, missing": {[]string{envFile, none + "/x", envPodURI, "http://x"}, "no such file"},
		"directory":      {[]string{envFile, none}, "is no file"},
		"others read":    {[]string{envFile, profile(t, twoSections, 0o644)}, "others may use it; chmod it to 0600"},
		"group writes":   {[]string{envFile, profile(t, twoSections, 0o660)}, "its group may change it"},
		"too long":       {[]string{envFile, profile(t, strings.Repeat("#", maxProfile+1), 0o600)}, "is longer than"},
		"no section":     {[]string{envFile, profile(t, "[other]\nak=a\nsk=b\n", 0o600)}, "no section [basic] or [global]"},
		"empty":          {[]string{envFile, profile(t, "", 0o600)}, "no section [basic] or [global]"},
		"half a key":     {[]string{envFile, profile(t, "[basic]\nak=a\n", 0o600)}, "must have both ak and sk"},
		"OIDC in it":     {[]string{envFile, profile(t, "[basic]\nidp_id=a\n", 0o600)}, "OpenID Connect (idp_id) is not supported"},
		"no section yet": {[]string{envFile, profile(t, "\nak="+testSecret+"\n", 0o600)}, "line 2: want a [section] first"},
		"no value":       {[]string{envFile, profile(t, "[basic]\n"+testSecret+"\n", 0o600)}, "line 2: want key = value"},
		"quotes":         {[]string{envFile, profile(t, "[basic]\nsk=\""+testSecret+"\"\n", 0o600)}, "line 2: want a value without"},
		"comment behind": {[]string{envFile, profile(t, "[basic]\nsk="+testSecret+" # mine\n", 0o600)}, "line 2: want a value without"},
		"twice":          {[]string{envFile, profile(t, "[basic]\nsk="+testSecret+"\nsk=x\n", 0o600)}, "line 3: the key is there twice"},
		"section twice":  {[]string{envFile, profile(t, "[basic]\n[global]\n[basic]\n", 0o600)}, "line 3: the section is there twice"},
		"open section":   {[]string{envFile, profile(t, "[basic\n", 0o600)}, "line 1: want [section]"},
		"bad endpoint":   {[]string{envFile, profile(t, "[basic]\nak=a\nsk=b\niam_endpoint=http://iam.example.com\n", 0o600)}, "endpoint of iam in profile file"},
	}
	for name, tt := range tests {
		cfg := keyConfig()
		cfg.Auth = Environment{Getenv: environ(tt.env...)}
		_, err := New(cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), `cloud "test": auth: environment: `) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), testSecret) {
			t.Errorf("%s: a secret shows: %v", name, err)
		}
	}
}

// What the profile says is used: keys by kind of service, ids without look-up, IAM's
// endpoint unless the configuration has one; and a profile that changes is used at once.
func TestEnvironmentIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := profile(t, twoSections+"iam_endpoint = https://iam.example.com\n", 0o600)
		cfg := keyConfig()
		cfg.ProjectID = ""
		cfg.Auth = Environment{Getenv: environ(envFile, path)}
		var signed, hosts []string
		c, _ := fakeClient(t, cfg, func(r *http.Request, _ []byte) (*http.Response, error) {
			key, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), algorithm+" Access="), ",")
			signed = append(signed, key+"/"+r.Header.Get("X-Project-Id")+"/"+r.Header.Get("X-Domain-Id")+"/"+r.Header.Get("X-Security-Token"))
			hosts = append(hosts, r.URL.Host)
			if r.URL.Path == "/v3/projects" {
				return reply(200, `{"projects":[{"id":"p-`+key+`","name":"eu-west-101"}]}`), nil
			}
			return reply(200, `{}`), nil
		})
		global := Call{Service: CCM, Operation: "o", Op: "o", Method: "GET", Path: "/v1/x"}
		for _, call := range []Call{getCall(nil), global, getCall(nil)} {
			if err := c.Do(t.Context(), call); err != nil {
				t.Fatal(err)
			}
		}
		// Renewed by somebody: other keys, of another account perhaps.
		if err := os.WriteFile(path, []byte("[basic]\nak=AKNEW\nsk=new\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.Do(t.Context(), getCall(nil)); err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Sprintf("[AKBASIC/%s// AKGLOBAL//d1/tok+en/== AKBASIC/%s// AKNEW/// AKNEW/p-AKNEW// AKNEW/p-AKNEW//]", testProject, testProject)
		if fmt.Sprint(signed) != want {
			t.Errorf("signed %v\nwant %s", signed, want)
		}
		if hosts[3] != "iam.example.com" {
			t.Errorf("IAM is at %s", hosts[3])
		}
		// The keys are gone, and so is the file: nothing is sent.
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		sent := len(signed)
		if err := c.Do(t.Context(), getCall(nil)); err == nil || len(signed) != sent {
			t.Errorf("%v, %d calls", err, len(signed)-sent)
		}
	})
}

func TestEndpointOfTheConfigurationWins(t *testing.T) {
	cfg := keyConfig()
	cfg.Endpoints = map[string]string{IAM: "https://mine.example.com"}
	cfg.Auth = Environment{Getenv: environ(envAK, "a", envSK, "b", envIAMEndpoint, "https://theirs.example.com")}
	if got := newClient(t, cfg).bases[IAM].String(); got != "https://mine.example.com" {
		t.Errorf("IAM is at %s", got)
	}
	cfg.Endpoints = nil
	if got := newClient(t, cfg).bases[IAM].String(); got != "https://theirs.example.com" {
		t.Errorf("IAM is at %s", got)
	}
}

// What is written in the simple form is read back, and no file makes it panic or show a
// value in an error.
func TestProfileProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOfN(rapid.StringMatching(`[a-z_]{1,12}`), rapid.StringMatching(`[A-Za-z0-9+/=._:-]{0,60}`), 0, 8).Draw(t, "values")
		var b strings.Builder
		b.WriteString("[basic]\n")
		for k, v := range want {
			b.WriteString(rapid.SampledFrom([]string{"", "  ", "# comment\n", "\n", ";x\r\n"}).Draw(t, "before"))
			b.WriteString(k + rapid.SampledFrom([]string{"=", " = ", "\t=  "}).Draw(t, "equals") + v + "\n")
		}
		got, err := parseProfile(b.String())
		if err != nil || len(got["basic"]) != len(want) {
			t.Fatalf("%q: %v, %v", b.String(), got, err)
		}
		for k, v := range want {
			if got["basic"][k] != v {
				t.Fatalf("%s is %q, want %q", k, got["basic"][k], v)
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		const value = "VALUE"
		text := rapid.StringMatching(`([\[\]=#; "a-z\n]|VALUE){0,40}`).Draw(t, "text")
		if _, err := parseProfile(text); err != nil && strings.Contains(err.Error(), value) {
			t.Fatalf("a value shows: %v", err)
		}
	})
}
