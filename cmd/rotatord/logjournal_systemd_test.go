//go:build systemd

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rotatord/rotatord/internal/certs/certstest"
)

// TestSystemdJournal runs the daemon as a unit, with systemd as PID 1: of what it logs,
// journalctl -p err shows the one line that is an error.
func TestSystemdJournal(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	executable, err := os.Executable()
	must(t, err)
	// The test binary is rotatord where it is called so.
	program := filepath.Join(dir, "rotatord")
	must(t, os.Symlink(executable, program))
	for _, name := range []string{"policies", "tree", "served"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "rotatord.yaml"), []byte("state: state\nsocket: rotatord.sock\nnode: test\nhttp: {listen: \"127.0.0.1:0\"}\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "policies", "old.yaml"), []byte("name: old\nsource: {directory: {path: ../tree}}\n"+
		"targets: [{name: files, file: {directory: "+filepath.Join(dir, "served")+", full_chain: fullchain.pem, key: privkey.pem}}]\n"), 0o600))
	ca, err := certstest.NewCA("systemd")
	must(t, err)
	ended := time.Now().Add(-time.Hour)
	bundle, err := ca.Issue(certstest.Options{Names: []string{"old.example.com"}, NotBefore: ended.Add(-time.Hour), NotAfter: ended})
	must(t, err)
	must(t, certstest.WritePair(filepath.Join(dir, "tree"), "old", bundle))

	const unit = "rotatord-journal"
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("systemd-run", "--unit", unit, program, "run", "--config", filepath.Join(dir, "rotatord.yaml"))
	read := func(priority string) []string {
		return strings.Split(strings.TrimSpace(run("journalctl", "-u", unit, "-p", priority, "-o", "cat", "--no-pager", "_COMM=rotatord")), "\n")
	}
	eventually(t, "the error in the journal", func() bool {
		lines := read("err")
		return len(lines) == 1 && strings.HasPrefix(lines[0], "assignment expired policy=old certificate=old.example.com")
	})
	if all := strings.Join(read("info"), "\n"); !strings.Contains(all, "rotatord started version=") || strings.Contains(all, "<6>") || strings.Contains(all, "\x1b") {
		t.Errorf("the journal has\n%s", all)
	}
	run("systemctl", "stop", unit)
	if lines := read("err"); len(lines) != 1 {
		t.Errorf("at the end there are %q", lines)
	}
}
