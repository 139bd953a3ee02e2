package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rotatord/rotatord/internal/admin"
)

// TestLogLevelOfARunningDaemon: the log says less and more as it is asked to, also of a daemon
// whose flags have set a level, and says that it was asked.
func TestLogLevelOfARunningDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t, host)
	r.policy("shop", host, "")
	r.issue("shop", host)
	p := launch(t, "run", "--config", filepath.Join(r.dir, "rotatord.yaml"), "--log.level", "info")
	p.log.waitMessage("converged: every target serves the bundle")
	rotate := func() string {
		t.Helper()
		before := len(p.log.text())
		r.says(0, []string{"rotate", "shop", "--force", "--wait"}, "1 certificate is served as wanted")
		return p.log.text()[before:]
	}
	if text := rotate(); !strings.Contains(text, "bundle activated") || strings.Contains(text, "cloud call") {
		t.Errorf("at info: %s", text)
	}
	r.says(0, []string{"log-level", "error"}, "the log's level is error; it was info")
	if text := rotate(); text != "" {
		t.Errorf("at error: %s", text)
	}
	if is := asked[admin.LogLevel](r, 0, "log-level", "debug"); is.Before != "error" || is.Level != "debug" {
		t.Errorf("told %+v", is)
	}
	if text := rotate(); !strings.Contains(text, "cloud call") {
		t.Errorf("at debug: %s", text)
	}
	r.says(0, []string{"reload"}, "reloaded")
	if text := rotate(); !strings.Contains(text, "cloud call") {
		t.Errorf("after a reload the flag's level is not what was asked for: %s", text)
	}
	if n := strings.Count(p.log.text(), "log level changed"); n != 2 {
		t.Errorf("%d changes are told", n)
	}
	r.says(64, []string{"log-level"}, "takes one of debug, info, warn, error")
	r.says(64, []string{"log-level", "loud"}, "takes one of debug, info, warn, error")
	endWell(t, p)
}
