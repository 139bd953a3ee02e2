package huaweicloud

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// restarted is a client as a new process has it, with the memory of the former one.
func restarted(t *testing.T, iam *iamFake, path, password string, change ...func(*Config)) (*Client, *fakeCloud) {
	cfg := passwordConfig(SecretText(password))
	cfg.PasswordMemory = path
	for _, c := range change {
		c(&cfg)
	}
	c, cloud := fakeClient(t, cfg, iam.handle)
	c.sess.(*passwordSession).memory.rounds = 1000 // the race detector makes a second of the whole
	return c, cloud
}

func TestRefusedPasswordIsRememberedOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state", "refused-password-test")
		iam := newIAM()
		const wrong = "wrong-" + testPassword
		// A daemon that is started again and again for an hour: the lock comes with five
		// failures in a quarter of an hour.
		logins, recent := 0, []time.Time{}
		for range 24 {
			c, cloud := restarted(t, iam, path, wrong)
			e := wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
			if e.RetryAfter <= 0 || e.RetryAfter > lastPause || !strings.Contains(e.Error(), "not tried again until") || strings.Contains(e.Error(), wrong) {
				t.Fatalf("retry after %s: %v", e.RetryAfter, e)
			}
			if n := cloud.count(loginCall); n > 0 {
				logins += n
				recent = append(recent, time.Now())
			}
			time.Sleep(150 * time.Second)
		}
		// After 0, 5, 15 and 35 minutes.
		if logins != 4 {
			t.Errorf("%d logins in an hour (%v), want 4", logins, recent)
		}

		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the file: %v, %v", info, err)
		}
		text, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "robot") {
			t.Errorf("the file holds %s, %v", text, err)
		}
		var members map[string]any
		if err := json.Unmarshal(text, &members); err != nil || len(members) != 4 {
			t.Errorf("the file holds %v, %v", members, err)
		}

		// A changed password is tried at once, a success is the end of it.
		c, _ := restarted(t, iam, path, testPassword)
		if err := c.Do(t.Context(), getCall(nil)); err != nil {
			t.Errorf("with the right password: %v", err)
		}
		if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
			t.Errorf("left over: %v, %v", entries, err)
		}
	})
}

// The same password of another user is another one.
func TestMemoryIsOfOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "memory")
		iam := newIAM()
		c, _ := restarted(t, iam, path, "wrong")
		wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
		other, cloud := restarted(t, iam, path, "wrong", func(c *Config) {
			c.Auth = Password{User: "another", Domain: "acme", Password: SecretText("wrong")}
		})
		wantKind(t, other.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
		if cloud.count(loginCall) != 1 {
			t.Error("another user was held back")
		}
	})
}

// A file that cannot be understood is no reason not to log in, and one that cannot be
// written is no reason to stop.
func TestBrokenMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "memory")
		for _, text := range []string{
			"", "x", "null", "[]", "{}", `{"until":"2999-01-01T00:00:00Z"}`, strings.Repeat("[", maxMemory*2),
			`{"until":"2999-01-01T00:00:00Z","times":1,"salt":"AAAA","digest":"AAAA"}`,
			`{"until":"2999-01-01T00:00:00Z","times":-1,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`,
			`{"until":"2999-01-01T00:00:00Z","times":1,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`,
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, _ := restarted(t, newIAM(), path, testPassword)
			if err := c.Do(t.Context(), getCall(nil)); err != nil {
				t.Errorf("%.40s: %v", text, err)
			}
		}
		// The clock was set back by years: half an hour is the longest pause all the same.
		c, _ := restarted(t, newIAM(), path, "wrong")
		wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var r remembered
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		r.Until = r.Until.AddDate(5, 0, 0)
		if text, err = json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, cloud := restarted(t, newIAM(), path, "wrong")
		if e := wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated); e.RetryAfter != lastPause || cloud.count(loginCall) != 0 {
			t.Errorf("retry after %s", e.RetryAfter)
		}

		out := &logs{}
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c, _ = restarted(t, newIAM(), filepath.Join(file, "memory"), "wrong", func(c *Config) { c.Logger = out.logger() })
		wantKind(t, c.Do(t.Context(), getCall(nil)), providers.KindUnauthenticated)
		if !strings.Contains(out.String(), "cannot be kept") || strings.Contains(out.String(), `"wrong"`) {
			t.Errorf("log %s", out)
		}
	})
}

// No login is on record before one was refused.
func TestMemoryIsWrittenForRefusalsOnly(t *testing.T) {
	for _, status := range []int{500, 429, 403, 400} {
		path := filepath.Join(t.TempDir(), "memory")
		cfg := passwordConfig(SecretText(testPassword))
		cfg.PasswordMemory = path
		c, _ := fakeClient(t, cfg, func(*http.Request, []byte) (*http.Response, error) { return reply(status, ""), nil })
		if err := c.once(t.Context(), getCall(nil)); err == nil {
			t.Error("no error")
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%d is remembered as a refusal", status)
		}
	}
}
