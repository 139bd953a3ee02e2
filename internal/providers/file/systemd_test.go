//go:build systemd

package file

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/providers"
)

// With systemd as PID 1: build the test binary with -tags systemd and run it there.
func TestSystemdUnit(t *testing.T) {
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	unit := func(name string, properties ...string) {
		t.Helper()
		args := []string{"systemd-run", "--unit", name}
		for _, p := range properties {
			args = append(args, "-p", p)
		}
		run(append(args, "/bin/sleep", "1000")...)
		t.Cleanup(func() {
			// One that is stopped is unknown by now.
			_ = exec.CommandContext(context.Background(), "systemctl", "stop", name).Run()
		})
	}
	log := t.TempDir() + "/log"
	unit("rd-reload", `ExecReload=/bin/sh -c "echo reloaded >> `+log+`"`)
	unit("rd-restart")
	unit("rd-fails", "ExecReload=/bin/false")
	unit("rd-hangs", "ExecReload=/bin/sleep 1000")
	s := newSetup(t)
	pid := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "systemctl", "show", "-P", "MainPID", name).Output()
		s.must(err)
		return string(out)
	}
	before := pid("rd-restart")
	for _, good := range []string{"rd-reload", "rd-restart.service"} {
		s.cfg.Reload.Unit = good
		b := s.bundle()
		s.must(s.deploy(b))
		s.wantServed(b)
	}
	if out, err := exec.CommandContext(t.Context(), "cat", log).Output(); err != nil || string(out) != "reloaded\n" {
		t.Errorf("%s, %v", out, err)
	}
	if after := pid("rd-restart"); after == before || strings.TrimSpace(after) == "0" {
		t.Errorf("was not restarted: %s, %s", before, after)
	}
	s.cfg.Reload.Timeout = time.Second
	for _, bad := range []string{"rd-fails", "rd-hangs", "rd-no-such-unit"} {
		s.cfg.Reload.Unit = bad
		b := s.bundle()
		err := s.deploy(b)
		t.Log(err)
		wantKind(t, err, providers.KindUnavailable)
		s.wantUnsettled(b)
	}
	// One that is not running stays so.
	err := reloadUnit(t.Context(), "rescue.service")
	if err != nil || strings.TrimSpace(pid("rescue.service")) != "0" {
		t.Errorf("a unit that is not running: %v, %s", err, pid("rescue.service"))
	}
}
